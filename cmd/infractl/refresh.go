package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
)

func refreshCommand() *cli.Command {
	return &cli.Command{
		Name:      "refresh",
		Usage:     "read what is really in the cloud and on the hosts, and change nothing there",
		UsageText: "infractl refresh [--env NAME]",
		Flags:     []cli.Flag{envFlag(), yesFlag(), skipUnreachableFlag(), lockTimeoutFlag()},
		Action: func(c *cli.Context) error {
			s, err := begin(c, true)
			if err != nil {
				return err
			}
			skipIfAsked(c)
			s.reporter.Phase("reading %s", s.engine.Environment)
			if err := s.lock(""); err != nil {
				s.reporter.Finish()
				return err
			}
			if err := s.engine.Known(c.Context); err != nil {
				s.reporter.Finish()
				return err
			}
			err = s.engine.Refresh(c.Context, s.reporter.Event)
			result := s.reporter.Finish()
			if err := s.done(result, err); err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "%s: read in %.1f s; infractl preview shows what differs\n", s.engine.Environment, result.Seconds)
			return nil
		},
		OnUsageError: usageError,
		BashComplete: completeFlags,
	}
}

// withOutput adds what the CLI printed to an error that says nothing by itself.
func withOutput(err error) error {
	if out := engine.Output(err); out != "" {
		return fmt.Errorf("%w: %s", err, out)
	}
	return err
}
