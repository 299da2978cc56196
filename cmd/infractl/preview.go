package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/report"
)

const detailedExitCode = "detailed-exitcode"

func previewCommand() *cli.Command {
	return &cli.Command{
		Name:      "preview",
		Usage:     "show what up would do, down to the text of every file",
		UsageText: "infractl preview [--env NAME] [--json|--markdown] [--save FILE] [--detailed-exitcode]",
		Flags: append(slices.Concat([]cli.Flag{envFlag(), resultFlag(), markdownFlag(), skipUnreachableFlag()}, changeFlags()),
			&cli.BoolFlag{Name: "diff", Usage: "show diffs of files (the default; kept for those used to pulumi)"},
			&cli.BoolFlag{Name: "show-files", Usage: "show the full text of every file of new hosts"},
			&cli.StringFlag{Name: "save", TakesFile: true, Usage: "write the plan to `FILE`, for infractl up --plan"},
			&cli.BoolFlag{Name: detailedExitCode, Usage: "exit with 0 if nothing would change, 2 if something would, 1 after any error"},
		),
		Action: func(c *cli.Context) error {
			changes, err := preview(c)
			if c.Bool(detailedExitCode) {
				return detailed(changes, err)
			}
			return err
		},
		OnUsageError: func(c *cli.Context, err error, sub bool) error {
			err = usageError(c, err, sub)
			// The flags were not parsed to their end.
			if slices.ContainsFunc(os.Args, func(a string) bool { return strings.TrimLeft(a, "-") == detailedExitCode }) {
				return detailed(false, err)
			}
			return err
		},
		BashComplete: completeFlags,
	}
}

func markdownFlag() cli.Flag {
	return &cli.BoolFlag{Name: "markdown", Usage: "write the result to stdout as Markdown, for a comment on a merge request"}
}

// preview shows the plan and says whether it changes anything.
func preview(c *cli.Context) (bool, error) {
	if c.Bool("json") && c.Bool("markdown") {
		return false, usage("--json and --markdown both write to stdout; choose one")
	}
	s, err := begin(c, false)
	if err != nil {
		return false, err
	}
	o := upOptions(c)
	p, err := s.lookAndPlan(o)
	if p != nil && (err == nil || c.Bool("json") || c.Bool("markdown") || len(p.Refusals) > 0) {
		if err := s.show(p, report.PlanOptions{Files: c.Bool("show-files")}); err != nil {
			return false, err
		}
	}
	if p != nil {
		p.WriteRefusals(os.Stderr, s.style)
	}
	if err != nil {
		return false, err
	}
	if file := c.String("save"); file != "" {
		if err := save(file, p, o); err != nil {
			return false, err
		}
		fmt.Fprintf(os.Stderr, "the plan is in %s; infractl up --plan %s carries it out\n", file, file)
	}
	return p.Any(), nil
}

// show writes a plan to stdout in the form that was asked for.
func (s *session) show(p *report.Plan, o report.PlanOptions) error {
	switch {
	case s.c.Bool("json"):
		return writeJSON(os.Stdout, p.Document())
	case s.c.Bool("markdown"):
		return p.Markdown(os.Stdout, report.MarkdownLimit)
	}
	p.Write(os.Stdout, styleOf(s.c, os.Stdout), o)
	_, err := fmt.Fprintln(os.Stdout, p.Summary())
	return err
}

// lookAndPlan plans a change and touches nothing. With an error, there may be a
// plan as far as it came.
func (s *session) lookAndPlan(o engine.UpOptions) (*report.Plan, error) {
	s.reporter.Phase("checking %s", s.engine.Environment)
	if err := s.engine.Preflight(s.c.Context); err != nil {
		s.reporter.Finish()
		return nil, err
	}
	settle, err := s.engine.Look(s.c.Context, o)
	if err != nil {
		s.reporter.Finish()
		return nil, err
	}
	return s.plan(o, settle)
}

// newPlan is an empty plan of the environment.
func (s *session) newPlan(settle []engine.Settling) *report.Plan {
	p := &report.Plan{Project: s.engine.Project.Name, Environment: s.engine.Environment}
	for _, x := range settle {
		p.Settle = append(p.Settle, report.Settling(x))
	}
	return p
}

// plan asks the engine what it would do. It ends the session's reporter.
func (s *session) plan(o engine.UpOptions, settle []engine.Settling) (*report.Plan, error) {
	s.reporter.Phase("planning")
	p := s.newPlan(settle)
	err := s.engine.Preview(s.c.Context, o, func(ev engine.Event) {
		s.reporter.Diagnostics(ev)
		p.Event(ev)
	})
	p.Sort()
	p.AddFailures(s.reporter.Finish().Failures)
	switch {
	case len(p.Refusals) > 0:
		return p, &engine.Error{Kind: engine.Invalid, Err: fmt.Errorf("the plan for %s is refused; nothing was changed", s.engine.Environment)}
	case err == nil:
		return p, nil
	case engine.KindOf(err) == engine.Failed && len(p.Failures) > 0:
		return p, &engine.Error{Kind: engine.Failed, Err: fmt.Errorf("%s cannot be planned; nothing was changed", s.engine.Environment)}
	}
	return p, withOutput(err)
}

// save writes a plan file, readable by its owner only. There is either the
// whole file or none.
func save(file string, p *report.Plan, o engine.UpOptions) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".infractl-plan-*")
	if err != nil {
		return fmt.Errorf("cannot save the plan: %w", err)
	}
	defer os.Remove(f.Name()) // fails once the file has its name
	saved := p.Save(time.Now(), report.SavedOptions{
		Refresh: o.Refresh, SkipUnreachable: os.Getenv(skipUnreachable) == "1", Recreate: o.Recreate, Resize: o.Resize,
	})
	if err := writeJSON(f, saved); err != nil {
		f.Close()
		return fmt.Errorf("cannot save the plan: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("cannot save the plan: %w", err)
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return fmt.Errorf("cannot save the plan: %w", err)
	}
	return nil
}

// readPlan reads the plan file that up was given, and takes the environment
// from it unless the command line names one.
func readPlan(c *cli.Context) (*report.Saved, error) {
	file := c.String("plan")
	for _, flag := range []string{"refresh", "recreate", "resize"} {
		if c.IsSet(flag) {
			return nil, usage("the plan holds the options that it was made with; leave out --%s", flag)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("cannot read the plan: %w", err)
	}
	p, err := report.ReadSaved(text)
	if err != nil {
		return nil, usage("%s is no plan to go by: %w\nMake it again: infractl preview --save %s", file, err, file)
	}
	switch named := c.String("env"); named {
	case "":
		if err := c.Set("env", p.Environment); err != nil {
			return nil, err
		}
	case p.Environment:
	default:
		return nil, usage("the plan in %s is for environment %s, not %s", file, p.Environment, named)
	}
	return &p, nil
}

// mostDifferences is how many differences from a saved plan are named.
const mostDifferences = 20

// holds fails unless what would be done now is what the saved plan says. It
// changes nothing, and returns the plan as it is now.
func (s *session) holds(saved *report.Saved, o engine.UpOptions) (*report.Plan, error) {
	if saved.Project != s.engine.Project.Name {
		s.reporter.Finish()
		return nil, usage("the plan is for project %s, not %s", saved.Project, s.engine.Project.Name)
	}
	p, err := s.lookAndPlan(o)
	if err != nil {
		if p != nil {
			p.WriteRefusals(os.Stderr, s.style)
		}
		return nil, err
	}
	differences := saved.Differences(p)
	if len(differences) == 0 {
		return p, nil
	}
	if n := len(differences); n > mostDifferences {
		differences = append(differences[:mostDifferences], fmt.Sprintf("and %d more", n-mostDifferences))
	}
	return nil, &engine.Error{Kind: engine.Invalid,
		Err:    fmt.Errorf("what would be done now is not what was planned at %s; nothing was changed:\n  %s", saved.Made.Local().Format("2006-01-02 15:04:05"), strings.Join(differences, "\n  ")),
		Advice: fmt.Sprintf("Look at it and plan again: infractl preview --env %s%s --save %s", s.engine.Environment, optionWords(saved.Options), s.c.String("plan"))}
}

// optionWords are a plan's options as they stand on a command line.
func optionWords(o report.SavedOptions) string {
	words := ""
	if o.Refresh {
		words += " --refresh"
	}
	if o.SkipUnreachable {
		words += " --skip-unreachable"
	}
	for _, name := range o.Recreate {
		words += " --recreate " + name
	}
	for _, name := range o.Resize {
		words += " --resize " + name
	}
	return words
}
