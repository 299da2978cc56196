package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
)

func destroyCommand() *cli.Command {
	return &cli.Command{
		Name:      "destroy",
		Usage:     "delete everything of an environment, with its data",
		UsageText: "infractl destroy --env NAME [--yes]",
		Description: "Lifts the protection of the database hosts and of the virtual IP, and deletes\n" +
			"all servers, networks, firewalls and addresses of the environment. It asks for\n" +
			"the environment's name; with --yes, --env must be given.",
		Flags: []cli.Flag{envFlag(), yesFlag(), resultFlag(), lockTimeoutFlag(),
			&cli.BoolFlag{Name: "forget", Usage: "forget the state of an environment of which nothing is left in the cloud"},
		},
		Action:       destroy,
		OnUsageError: usageError,
		BashComplete: completeFlags,
	}
}

func destroy(c *cli.Context) error {
	if c.Bool("yes") && c.String("env") == "" {
		return usage("destroy --yes needs the environment's name: --env NAME")
	}
	if err := mustAsk(c); err != nil {
		return err
	}
	s, err := begin(c, true)
	if err != nil {
		return err
	}
	s.reporter.Phase("checking %s", s.engine.Environment)
	if err := s.engine.ReadyToDestroy(c.Context, c.Bool("forget")); err != nil {
		s.reporter.Finish()
		return err
	}
	servers, objects, own := s.engine.Holdings()
	if !s.engine.Exists() || objects+own == 0 {
		s.reporter.Finish()
		fmt.Fprintf(os.Stderr, "%s: there is nothing to destroy\n", s.engine.Environment)
		return s.forget()
	}
	if !c.Bool("yes") {
		s.reporter.Finish()
		var what []string
		if servers > 0 || own == 0 {
			what = append(what, fmt.Sprintf("deletes %d servers of %s with everything on them", servers, s.engine.Environment))
		}
		if own > 0 {
			what = append(what, fmt.Sprintf("gives %d servers of your own back as they were, but for packages, users and data", own))
		}
		question := fmt.Sprintf("This %s. Type the environment's name to go on:", strings.Join(what, ", and "))
		if err := confirm(c, question, s.engine.Environment); err != nil {
			return err
		}
		s.newReporter()
	}
	// A dead host is no reason to keep an environment.
	os.Setenv(skipUnreachable, "1") // for the plugin, a child of this process
	err = s.engine.Destroy(c.Context, s.reporter.Event)
	result := s.reporter.Finish()
	fmt.Fprintln(os.Stderr, result.Summary(s.engine.Environment))
	if c.Bool("json") {
		if err := writeJSON(os.Stdout, map[string]any{"environment": s.engine.Environment, "result": result}); err != nil {
			return err
		}
	}
	if err := s.done(result, err); err != nil {
		return err
	}
	if err := s.engine.Leftovers(c.Context); err != nil {
		return err
	}
	return s.forget()
}

// forget removes the environment's empty state.
func (s *session) forget() error {
	if !s.engine.Exists() {
		return nil
	}
	if err := s.engine.RemoveStack(s.c.Context); err != nil {
		return &engine.Error{Kind: engine.Partial, Err: err, Advice: "Nothing is left in the cloud; only the empty state could not be removed."}
	}
	return nil
}
