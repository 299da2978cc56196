// Command infractl builds and runs web infrastructure on servers.
package main

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/stacks"
)

func main() {
	os.Exit(run(os.Args))
}

// run runs one command line and returns its exit code.
func run(args []string) int {
	if completesEnvironment(args) {
		printEnvironments(os.Stdout)
		return 0
	}
	if environment, asks := completesHost(args); asks {
		printHosts(os.Stdout, environment)
		return 0
	}
	if completes(args, "--tier") {
		fmt.Println(strings.Join(stacks.TierNames(), "\n"))
		return 0
	}
	app, l := newApp(), &life{}
	app.Metadata = map[string]any{lifeKey: l}
	ctx, stop := l.interruptible()
	defer stop()
	defer stopQuestions()
	err := interrupted(ctx, app.RunContext(ctx, args))
	l.end(err)
	if err == nil {
		return 0
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(os.Stderr, "infractl: %s\n", text)
	}
	return exitCode(err)
}

// newApp is the command line.
func newApp() *cli.App {
	app := &cli.App{
		Name:  "infractl",
		Usage: "build and run web infrastructure on servers",
		Description: "Exit codes: 0 done; 1 error; 2 wrong usage or configuration, nothing changed; 3 something\n" +
			"needed is missing on this computer; 4 another run is changing the environment; 5 partly\n" +
			"changed, the next run goes on; 130 interrupted, the next run goes on.\n\n" +
			"Before a command, infractl loads the file .env.NAME of the environment NAME, if there is one.",
		EnableBashCompletion:   true,
		UseShortOptionHandling: true,
		HideVersion:            true, // there is a command for it
		ExitErrHandler:         func(*cli.Context, error) {},
		OnUsageError:           usageError,
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usage("there is no command %q; see infractl --help", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		Flags: []cli.Flag{noColorFlag()},
		Commands: []*cli.Command{
			upCommand(),
			previewCommand(),
			scaleCommand(),
			driftCommand(),
			refreshCommand(),
			destroyCommand(),
			outputsCommand(),
			historyCommand(),
			unlockCommand(),
			hostsCommand(),
			statusCommand(),
			sshCommand(),
			execCommand(),
			logsCommand(),
			drainCommand(),
			undrainCommand(),
			restartCommand(),
			replaceCommand(),
			failoverCommand(),
			osCommand(),
			labCommand(),
			doctorCommand(),
			completionCommand(),
			versionCommand(),
		},
	}
	// Where people look for it is behind the command.
	for _, c := range app.Commands {
		if len(c.Subcommands) == 0 {
			c.Flags = append(c.Flags, noColorFlag())
		}
	}
	return app
}

func noColorFlag() cli.Flag {
	return &cli.BoolFlag{Name: "no-color", Usage: "use no colours (also: environment variable NO_COLOR)"}
}

func usageError(_ *cli.Context, err error, _ bool) error { return usage("%w", err) }

// endsQuietly is set by commands that only look, and that a Ctrl-C is the usual
// way to end: there is nothing to finish and nothing to say.
var endsQuietly atomic.Bool
