// Command pulumi-resource-hcloud is the Hetzner Cloud provider plugin for
// Pulumi, built from Go modules alone: the Terraform provider for Hetzner
// Cloud, unmodified, behind the Pulumi Terraform bridge.
//
// It is for computers that cannot download the official plugin, and for tests.
// It answers the same SDK (github.com/pulumi/pulumi-hcloud/sdk) with the same
// tokens and properties. Where the official plugin can be had, prefer it: it
// wraps a newer release of the Terraform provider.
package main

import (
	"context"
	"fmt"
	"os"

	pfbridge "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/pf/tfbridge"
)

// version is what the plugin reports. The build sets it (-X main.version=…) to
// the version of the SDK that the program imports, because the engine wants the
// two to be equal where it compares them.
var version = "0.0.0-dev"

func main() {
	if err := serve(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "pulumi-resource-hcloud:", err)
		os.Exit(1)
	}
}

// serve answers the engine until the engine goes away.
func serve(ctx context.Context) error {
	info, err := provider(ctx, version)
	if err != nil {
		return err
	}
	schema, err := packageSchema(info)
	if err != nil {
		return err
	}
	pfbridge.MainWithMuxer(ctx, info.Name, info, schema)
	return nil
}
