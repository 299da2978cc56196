package main

import (
	"embed"
	"fmt"
	"io"
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

// completesEnvironment says whether the shell asks for the value of --env. The
// flag parser cannot: for it, the value is missing.
func completesEnvironment(args []string) bool {
	n := len(args)
	return n >= 3 && args[n-1] == "--generate-bash-completion" && (args[n-2] == "--env" || args[n-2] == "-e")
}

// printEnvironments writes the names of the project's environments.
func printEnvironments(w io.Writer) {
	p, err := engine.FindProject(".")
	if err != nil {
		return // there is nothing to offer
	}
	for _, name := range p.Environments() {
		fmt.Fprintln(w, name)
	}
}

// completeFlags completes the flags of a command.
func completeFlags(c *cli.Context) {
	for _, f := range c.Command.Flags {
		for _, name := range f.Names() {
			if len(name) > 1 {
				fmt.Fprintln(c.App.Writer, "--"+name)
			}
		}
	}
}
