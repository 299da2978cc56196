// Command infractl builds and runs web infrastructure on servers.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"
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
	ctx, stop := interruptible()
	defer stop()
	defer stopQuestions()
	err := newApp().RunContext(ctx, args)
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
			refreshCommand(),
			destroyCommand(),
			outputsCommand(),
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

// forced is closed at the second interrupt.
var forced = make(chan struct{})

// interruptible returns a context that ends at the first interrupt: what has
// begun is finished then. The second one closes forced, and the third one
// ends the process.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		fmt.Fprintln(os.Stderr, "infractl: finishing what has begun; press Ctrl-C again to stop at once")
		cancel()
		<-signals
		fmt.Fprintln(os.Stderr, "infractl: stopping at once; the next run clears up")
		close(forced)
		<-signals
		os.Exit(130)
	}()
	return ctx, cancel
}
