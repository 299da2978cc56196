package main

import (
	"embed"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
)

//go:embed completion
var completions embed.FS

func completionCommand() *cli.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the completion script of a shell: bash, zsh or fish",
		UsageText: "source <(infractl completion bash)",
		Action: func(c *cli.Context) error {
			shell := c.Args().First()
			text, err := completions.ReadFile("completion/infractl." + shell)
			if err != nil || c.NArg() != 1 {
				return usage("name one shell: %s", strings.Join(shells, ", "))
			}
			_, err = os.Stdout.Write(text)
			return err
		},
		OnUsageError: usageError,
		BashComplete: func(c *cli.Context) {
			for _, s := range shells {
				fmt.Fprintln(c.App.Writer, s)
			}
		},
	}
}

// completeEnvironments completes the names of environments after --env, and
// the command's flags otherwise.
func completeEnvironments(c *cli.Context) {
	// The last argument is the completion's own flag.
	if n := len(os.Args); n >= 3 && (os.Args[n-2] == "--env" || os.Args[n-2] == "-e") {
		p, err := engine.FindProject(".")
		if err != nil {
			return // there is nothing to offer
		}
		for _, name := range p.Environments() {
			fmt.Fprintln(c.App.Writer, name)
		}
		return
	}
	for _, f := range c.Command.Flags {
		for _, name := range f.Names() {
			if len(name) > 1 {
				fmt.Fprintln(c.App.Writer, "--"+name)
			}
		}
	}
}
