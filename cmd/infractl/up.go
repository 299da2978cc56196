package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/report"
)

// skipUnreachable tells the plugin that hosts which do not answer are left as
// they are.
const skipUnreachable = "INFRACTL_SKIP_UNREACHABLE"

func skipUnreachableFlag() cli.Flag {
	return &cli.BoolFlag{Name: "skip-unreachable", EnvVars: []string{skipUnreachable}, Usage: "leave hosts as they are that do not answer"}
}

func upCommand() *cli.Command {
	return &cli.Command{
		Name:      "up",
		Usage:     "make the environment what its configuration says",
		UsageText: "infractl up [--env NAME] [--yes]",
		Flags: []cli.Flag{
			envFlag(), yesFlag(), resultFlag(), skipUnreachableFlag(),
			&cli.BoolFlag{Name: "refresh", Usage: "read everything from the cloud first, not only what is on the hosts"},
			&cli.StringSliceFlag{Name: "recreate", Usage: "make database host `NAME` anew, empty, if it is gone"},
			&cli.StringSliceFlag{Name: "resize", Usage: "let `NAME` be powered off to change its server type"},
		},
		Action:       up,
		OnUsageError: usageError,
		BashComplete: completeFlags,
	}
}

func up(c *cli.Context) error {
	if err := mustAsk(c); err != nil {
		return err
	}
	s, err := begin(c, false)
	if err != nil {
		return err
	}
	o := upOptions(c)
	s.reporter.Phase("checking %s", s.engine.Environment)
	if err := s.ready(o); err != nil {
		s.reporter.Finish()
		return err
	}
	if !c.Bool("yes") {
		p, err := s.plan(o)
		if err != nil {
			return err
		}
		p.Write(os.Stderr, s.style, report.PlanOptions{})
		fmt.Fprintln(os.Stderr, p.Summary(s.engine.Environment))
		if len(p.Changes) == 0 {
			return s.finished(report.Result{Unchanged: p.Unchanged})
		}
		if err := confirm(c, "Go on? (yes/no)", "yes"); err != nil {
			return err
		}
		s.reporter = report.New(os.Stderr, s.style)
	}
	// A host that was left drained would be missed while the others change.
	if err := s.undrainStaying(); err != nil {
		s.reporter.Say("%v", err)
	}
	result, err := s.apply(o)
	if err != nil {
		if c.Bool("json") {
			_ = writeJSON(os.Stdout, map[string]any{"environment": s.engine.Environment, "result": result})
		}
		return err
	}
	return s.finished(result)
}

// apply makes the change and shows it. It ends the session's reporter.
func (s *session) apply(o engine.UpOptions) (report.Result, error) {
	s.reporter.Phase("reading the hosts")
	err := s.engine.Up(s.c.Context, o, s.reporter.Event)
	result := s.reporter.Finish()
	fmt.Fprintln(os.Stderr, result.Summary(s.engine.Environment))
	return result, s.done(result, err)
}

func upOptions(c *cli.Context) engine.UpOptions {
	if c.Bool("skip-unreachable") {
		os.Setenv(skipUnreachable, "1") // for the plugin, a child of this process
	}
	return engine.UpOptions{
		Refresh:  c.Bool("refresh"),
		Recreate: c.StringSlice("recreate"),
		Resize:   c.StringSlice("resize"),
	}
}

// ready checks everything that can be checked and clears up after a run that
// was cut off.
func (s *session) ready(o engine.UpOptions) error {
	if err := s.engine.Preflight(s.c.Context); err != nil {
		return err
	}
	return s.engine.Ready(s.c.Context, o)
}

// finished writes the result of an up that went well.
func (s *session) finished(result report.Result) error {
	out, err := s.engine.Outputs(s.c.Context)
	if err != nil {
		return err
	}
	if s.c.Bool("json") {
		return writeJSON(os.Stdout, map[string]any{
			"environment": s.engine.Environment, "result": result, "outputs": out,
		})
	}
	if url, _ := out["url"].(string); url != "" {
		fmt.Fprintln(os.Stdout, url)
	}
	return nil
}
