package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"
)

func unlockCommand() *cli.Command {
	return &cli.Command{
		Name:      "unlock",
		Usage:     "take the environment's lock away from a run that is known to be dead",
		UsageText: "infractl unlock [--env NAME] [--yes]",
		Description: "Shows who holds the lock, asks, and removes it together with Pulumi's own. It is not\n" +
			"needed after a run of this computer was killed: the next one takes the lock over. A run\n" +
			"that is still alive stops after its current step.",
		Flags:        []cli.Flag{envFlag(), yesFlag()},
		Action:       unlock,
		OnUsageError: usageError,
		BashComplete: completeFlags,
	}
}

func unlock(c *cli.Context) error {
	s, err := begin(c, true)
	if err != nil {
		return err
	}
	defer s.reporter.Finish()
	held, err := s.engine.LookAtLock()
	if err != nil {
		return err
	}
	holders := held.Holders()
	if len(holders) == 0 {
		fmt.Fprintf(os.Stderr, "%s: nobody holds the lock\n", s.engine.Environment)
		return nil
	}
	for _, h := range holders {
		fmt.Fprintf(os.Stderr, "%s: %s\n", s.engine.Environment, h)
	}
	if err := confirm(c, "Remove it? Two runs at a time can spoil each other's work. (yes/no)", "yes"); err != nil {
		return err
	}
	if err := s.engine.Unlock(c.Context, held); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s: unlocked\n", s.engine.Environment)
	return nil
}
