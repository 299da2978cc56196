package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/report"
)

func previewCommand() *cli.Command {
	return &cli.Command{
		Name:      "preview",
		Usage:     "show what up would do, down to the text of every file",
		UsageText: "infractl preview [--env NAME] [--show-files]",
		Flags: []cli.Flag{
			envFlag(), resultFlag(), skipUnreachableFlag(),
			&cli.BoolFlag{Name: "refresh", Usage: "read everything from the cloud first, not only what is on the hosts"},
			&cli.BoolFlag{Name: "diff", Usage: "show diffs of files (the default; kept for those used to pulumi)"},
			&cli.BoolFlag{Name: "show-files", Usage: "show the full text of every file of new hosts"},
		},
		Action:       preview,
		OnUsageError: usageError,
		BashComplete: completeFlags,
	}
}

func preview(c *cli.Context) error {
	s, err := begin(c, false)
	if err != nil {
		return err
	}
	o := upOptions(c)
	s.reporter.Phase("checking %s", s.engine.Environment)
	if err := s.look(); err != nil {
		s.reporter.Finish()
		return err
	}
	p, err := s.plan(o)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return writeJSON(os.Stdout, map[string]any{
			"environment": s.engine.Environment,
			"changes":     p.Changes,
			"unchanged":   p.Unchanged,
		})
	}
	p.Write(os.Stdout, styleOf(c, os.Stdout), report.PlanOptions{Files: c.Bool("show-files")})
	fmt.Fprintln(os.Stdout, p.Summary(s.engine.Environment))
	return nil
}

// look opens the environment for a command that changes nothing.
func (s *session) look() error {
	if err := s.engine.Preflight(s.c.Context); err != nil {
		return err
	}
	return s.engine.Load(s.c.Context, true)
}

// plan asks the engine what it would do. It ends the session's reporter.
func (s *session) plan(o engine.UpOptions) (*report.Plan, error) {
	s.reporter.Phase("planning")
	p := &report.Plan{}
	err := s.engine.Preview(s.c.Context, o, func(ev engine.Event) {
		s.reporter.Diagnostics(ev)
		p.Event(ev)
	})
	result := s.reporter.Finish()
	if err != nil {
		report.Failures(os.Stderr, s.style, result.Failures)
		if engine.KindOf(err) == engine.Failed && len(result.Failures) > 0 {
			return nil, &engine.Error{Kind: engine.Failed, Err: fmt.Errorf("%s cannot be planned; nothing was changed", s.engine.Environment)}
		}
		return nil, withOutput(err)
	}
	return p, nil
}
