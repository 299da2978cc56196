package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/report"
)

func driftCommand() *cli.Command {
	return &cli.Command{
		Name:      "drift",
		Usage:     "show what differs in the cloud and on the hosts from what was applied last, and change nothing",
		UsageText: "infractl drift [--env NAME] [--json|--markdown]",
		Description: "Diffs go from what was applied last (-) to what is there now (+).\n" +
			"Exit codes: 0 no drift; 2 drift; 1 any error.",
		Flags:  []cli.Flag{envFlag(), resultFlag(), markdownFlag(), skipUnreachableFlag()},
		Action: func(c *cli.Context) error { return detailed(drift(c)) },
		OnUsageError: func(c *cli.Context, err error, sub bool) error {
			return detailed(false, usageError(c, err, sub))
		},
		BashComplete: completeFlags,
	}
}

// drift shows what is different and says whether there is anything.
func drift(c *cli.Context) (bool, error) {
	if c.Bool("json") && c.Bool("markdown") {
		return false, usage("--json and --markdown both write to stdout; choose one")
	}
	s, err := begin(c, true)
	if err != nil {
		return false, err
	}
	skipIfAsked(c)
	s.reporter.Phase("looking at %s", s.engine.Environment)
	if err := s.engine.Known(c.Context); err != nil {
		s.reporter.Finish()
		return false, err
	}
	p := s.newPlan(nil)
	p.Drift = true
	found, err := s.engine.Drift(c.Context, func(ev engine.Event) {
		s.reporter.Diagnostics(ev)
		p.Event(ev)
	})
	result := s.reporter.Finish()
	for _, x := range found {
		p.Settle = append(p.Settle, report.Settling(x))
	}
	p.Sort()
	p.AddFailures(result.Failures)
	if err != nil && len(p.Failures) == 0 {
		return false, withOutput(err)
	}
	if err := s.show(p, report.PlanOptions{}); err != nil {
		return false, err
	}
	report.Failures(os.Stderr, s.style, p.Failures)
	if err != nil {
		return false, &engine.Error{Kind: engine.Failed, Err: fmt.Errorf("not all of %s could be looked at", s.engine.Environment)}
	}
	return p.Any(), nil
}
