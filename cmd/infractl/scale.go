package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/cmd/infractl/internal/price"
	"github.com/infractl/infractl/cmd/infractl/internal/report"
	"github.com/infractl/infractl/cmd/infractl/internal/scaling"
	"github.com/infractl/infractl/stacks"
)

// scaleVersion is the version of what scale writes with --json. A reader may
// rely on the fields that are there in a version; new ones may come.
const scaleVersion = 1

func scaleCommand() *cli.Command {
	return &cli.Command{
		Name:      "scale",
		Usage:     "change how many hosts tiers have, and drain those that go",
		UsageText: "infractl scale TIER=COUNT… [--env NAME] [--yes]\n\ninfractl scale web=4\ninfractl scale web=4 app=+1 lb=-1",
		Description: "Shows which hosts come and go and what a month costs, asks, writes the counts\n" +
			"into the environment's configuration, lets the hosts that go finish their work,\n" +
			"and runs the same update as infractl up.",
		ArgsUsage: "TIER=COUNT…",
		Flags: []cli.Flag{
			envFlag(), yesFlag(), resultFlag(), skipUnreachableFlag(), leavingTimeoutFlag(), lockTimeoutFlag(),
			&cli.BoolFlag{Name: "dry-run", Usage: "only show what would be done"},
		},
		Action:       scale,
		OnUsageError: usageError,
		BashComplete: func(c *cli.Context) {
			for _, name := range stacks.TierNames() {
				fmt.Fprintln(c.App.Writer, name+"=")
			}
			completeFlags(c)
		},
	}
}

func scale(c *cli.Context) error {
	args, err := arguments(c)
	if err != nil {
		return err
	}
	changes, err := scaling.Parse(args)
	if err != nil {
		return usage("%w", err)
	}
	timeout, err := leavingTimeout(c)
	if err != nil {
		return err
	}
	if !c.Bool("dry-run") {
		if err := mustAsk(c); err != nil {
			return err
		}
	}
	s, err := open(c, false)
	if err != nil {
		return err
	}
	o := upOptions(c)
	s.reporter.Phase("checking %s", s.engine.Environment)
	before := s.engine.Spec
	p, err := s.planScale(changes)
	s.reporter.Finish()
	if err != nil {
		return err
	}
	if c.Bool("dry-run") || p.Nothing() {
		return s.showScale(p)
	}
	p.Write(os.Stderr)
	if err := confirm(c, "Go on? (yes/no)", "yes"); err != nil {
		return err
	}
	s.newReporter()
	defer func() { s.reporter.Finish() }()

	// From here on the environment is this run's. What was read before the user
	// was asked may be old by now: the state is read again, and the configuration
	// is written only if it still is what it was.
	if err := s.engine.Ready(c.Context, o); err != nil {
		return err
	}
	now := scaling.New(before, s.engine.Spec, s.engine.Servers(), nil, changes)
	if more := now.RemovesMore(p); len(more) > 0 {
		return usage("%s would go too, and was not there when you were asked; nothing was changed, so run the command again", strings.Join(more, ", "))
	}
	if err := s.fit(); err != nil {
		return err
	}
	if err := s.engine.WriteConfig(); err != nil {
		return err
	}
	if err := s.drainLeaving(timeout); err != nil {
		return s.scaleFailed(p, report.Result{}, err)
	}
	result, err := s.apply(o)
	if err != nil {
		return s.scaleFailed(p, result, err)
	}
	return s.scaled(p, result)
}

// planScale plans the change, as if the configuration said so already. It
// changes nothing.
func (s *session) planScale(changes []scaling.Change) (scaling.Plan, error) {
	before := s.engine.Spec
	counts, err := scaling.Counts(before, changes)
	if err != nil {
		return scaling.Plan{}, usage("%w", err)
	}
	if err := s.engine.Propose(counts); err != nil {
		return scaling.Plan{}, err
	}
	if err := s.engine.Preflight(s.c.Context); err != nil {
		return scaling.Plan{}, err
	}
	if err := s.engine.Known(s.c.Context); err != nil {
		return scaling.Plan{}, err
	}
	if err := s.engine.CheckStock(); err != nil {
		return scaling.Plan{}, err
	}
	priced := make(chan *scaling.Price, 1)
	go func() { priced <- s.priceScale() }()
	all := s.members()
	if err := s.othersServe(s.split(all)); err != nil {
		return scaling.Plan{}, err
	}
	var drained []string
	for _, m := range all {
		if m.reason == fleet.ForScale {
			drained = append(drained, m.Name)
		}
	}
	p := scaling.New(before, s.engine.Spec, s.engine.Servers(), drained, changes)
	p.Price = <-priced
	return p, nil
}

// priceScale says what a month costs with the hosts that there are, and with
// those that there should be. Not to know it is no reason to stop.
func (s *session) priceScale() *scaling.Price {
	list, err := s.engine.Prices(s.c.Context)
	if err != nil {
		return &scaling.Price{Problem: err.Error()}
	}
	before, err := list.Of(scaling.There(s.engine.Spec, s.engine.Servers()))
	if err != nil {
		return &scaling.Price{Problem: err.Error()}
	}
	after, err := list.Of(s.engine.Spec)
	if err != nil {
		return &scaling.Price{Problem: err.Error()}
	}
	return &scaling.Price{Before: &before, After: &after, Counts: price.Scope}
}

// document is what scale writes with --json.
func (s *session) document(p scaling.Plan, more map[string]any) map[string]any {
	doc := map[string]any{
		"version": scaleVersion, "environment": s.engine.Environment, "dryRun": s.c.Bool("dry-run"), "plan": p,
	}
	maps.Copy(doc, more)
	return doc
}

// showScale writes a plan that is not carried out.
func (s *session) showScale(p scaling.Plan) error {
	if s.c.Bool("json") {
		return writeJSON(os.Stdout, s.document(p, nil))
	}
	p.Write(os.Stdout)
	return nil
}

// scaled writes the result of a change that went well.
func (s *session) scaled(p scaling.Plan, result report.Result) error {
	out, err := s.engine.Outputs(s.c.Context)
	if err != nil {
		return err
	}
	if s.c.Bool("json") {
		return writeJSON(os.Stdout, s.document(p, map[string]any{"drained": s.drained, "result": result, "outputs": out}))
	}
	if url, _ := out["url"].(string); url != "" {
		fmt.Fprintln(os.Stdout, url)
	}
	return nil
}

// scaleFailed says how to go on after an error that came when the configuration
// already said what is wanted.
func (s *session) scaleFailed(p scaling.Plan, result report.Result, err error) error {
	if s.c.Bool("json") {
		_ = writeJSON(os.Stdout, s.document(p, map[string]any{"drained": s.drained, "result": result})) // the error itself is worth more
	}
	var own *engine.Error
	kind, cause := engine.Partial, err
	if errors.As(err, &own) {
		cause = own.Err
		if own.Kind == engine.Interrupted || own.Kind == engine.Locked {
			kind = own.Kind
		}
	}
	env := s.engine.Environment
	advice := fmt.Sprintf("%s says what you asked for. To go on: infractl up --env %s", filepath.Base(s.engine.Config.File), env)
	if back := p.Back(); back != "" {
		advice += fmt.Sprintf("\nTo take it back: infractl scale --env %s %s", env, back)
	}
	return &engine.Error{Kind: kind, Err: cause, Advice: advice}
}
