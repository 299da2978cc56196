// Command environment is the program that plain `pulumi up` compiles and runs.
// It is the same program that infractl runs.
package main

import (
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/infractl/infractl/stacks"
)

func main() {
	pulumi.Run(stacks.Program)
}
