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
		UsageText: "infractl up [--env NAME] [--yes | --plan FILE]",
		Flags: append([]cli.Flag{
			envFlag(), yesFlag(), resultFlag(), skipUnreachableFlag(), lockTimeoutFlag(), leavingTimeoutFlag(),
			&cli.StringFlag{Name: "plan", TakesFile: true, Usage: "do what infractl preview --save has written to `FILE`, without asking, or refuse if it would be something else by now"},
		}, changeFlags()...),
		Action:       up,
		OnUsageError: usageError,
		BashComplete: completeFlags,
	}
}

// changeFlags say what a change may do beyond the ordinary. A plan is made with
// the same ones.
func changeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "refresh", Usage: "read everything from the cloud first, not only what is on the hosts"},
		&cli.StringSliceFlag{Name: "recreate", Usage: "make database host `NAME` anew, empty, if it is gone"},
		&cli.StringSliceFlag{Name: "resize", Usage: "let `NAME` be powered off to change its server type"},
	}
}

func up(c *cli.Context) error {
	var saved *report.Saved
	var err error
	if c.IsSet("plan") {
		if saved, err = readPlan(c); err != nil {
			return err
		}
	} else if err := mustAsk(c); err != nil {
		return err
	}
	timeout, err := leavingTimeout(c)
	if err != nil {
		return err
	}
	s, err := begin(c, false)
	if err != nil {
		return err
	}
	o := upOptions(c)
	if saved != nil {
		o = savedOptions(saved)
		// Nobody else is to change anything between the comparison and the change.
		if err := s.lock(""); err != nil {
			s.reporter.Finish()
			return err
		}
		p, err := s.holds(saved, o)
		if err != nil {
			return err
		}
		s.engine.RecordPlan(saved.Digest)
		fmt.Fprintf(os.Stderr, "as planned: %s\n", p.Summary())
		if !p.Any() {
			return s.finished(report.Result{Unchanged: p.Unchanged})
		}
		s.newReporter()
	}
	s.reporter.Phase("checking %s", s.engine.Environment)
	if err := s.ready(o); err != nil {
		s.reporter.Finish()
		return err
	}
	if saved == nil && !c.Bool("yes") {
		p, err := s.plan(o, nil)
		if p != nil && (err == nil || len(p.Refusals) > 0) {
			p.Write(os.Stderr, s.style, report.PlanOptions{})
			fmt.Fprintln(os.Stderr, p.Summary())
		}
		if err != nil {
			if p != nil {
				p.WriteRefusals(os.Stderr, s.style)
			}
			return err
		}
		if len(p.Changes) == 0 {
			return s.finished(report.Result{Unchanged: p.Unchanged})
		}
		if err := confirm(c, "Go on? (yes/no)", "yes"); err != nil {
			return err
		}
		s.engine.RecordPlan(p.Digest())
		s.newReporter()
	}
	if err := s.drainLeaving(timeout); err != nil {
		s.reporter.Finish()
		return err
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

// skipIfAsked passes --skip-unreachable on.
func skipIfAsked(c *cli.Context) {
	if c.Bool("skip-unreachable") {
		os.Setenv(skipUnreachable, "1") // for the plugin, a child of this process
	}
}

// savedOptions are the options with which a plan was made.
func savedOptions(p *report.Saved) engine.UpOptions {
	if p.Options.SkipUnreachable {
		os.Setenv(skipUnreachable, "1")
	}
	return engine.UpOptions{Refresh: p.Options.Refresh, Recreate: p.Options.Recreate, Resize: p.Options.Resize}
}

func upOptions(c *cli.Context) engine.UpOptions {
	skipIfAsked(c)
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
	if err := s.engine.Ready(s.c.Context, o); err != nil {
		return err
	}
	return s.fit()
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
