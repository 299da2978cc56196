package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/stacks"
)

func drainCommand() *cli.Command {
	return &cli.Command{
		Name:      "drain",
		Usage:     "let hosts finish their work and take no new one, until undrain or a reboot",
		UsageText: "infractl drain HOST… [--env NAME] [--timeout 30s] [--force]",
		Flags: []cli.Flag{envFlag(), resultFlag(), drainTimeoutFlag(), lockTimeoutFlag(),
			&cli.BoolFlag{Name: "force", Usage: "also if nobody of the tier is left to serve"},
		},
		Action:       drain,
		OnUsageError: usageError,
		BashComplete: completeHosts,
	}
}

func undrainCommand() *cli.Command {
	return &cli.Command{
		Name:         "undrain",
		Usage:        "let drained hosts take work again",
		UsageText:    "infractl undrain HOST… [--env NAME]",
		Flags:        []cli.Flag{envFlag(), resultFlag(), lockTimeoutFlag()},
		Action:       undrain,
		OnUsageError: usageError,
		BashComplete: completeHosts,
	}
}

func drainTimeoutFlag() cli.Flag {
	return &cli.DurationFlag{Name: "timeout", Value: drainPatience, Usage: "how long a host may take to finish its work"}
}

// drainTimeout is the value of that flag, which the hosts take in whole seconds.
func drainTimeout(c *cli.Context) (time.Duration, error) {
	d := c.Duration("timeout")
	if d < time.Second {
		return 0, usage("--timeout must be 1s at least")
	}
	return d.Round(time.Second), nil
}

// drainResult is what became of one host that was to be drained or undrained.
type drainResult struct {
	Host string `json:"host"`
	// State is drained, serving or failed.
	State string `json:"state"`
	// Before is why the host was drained before; empty if it was not.
	Before string `json:"before,omitempty"`
	// Left is what was in flight when the time was up.
	Left    string  `json:"left,omitempty"`
	Error   string  `json:"error,omitempty"`
	Seconds float64 `json:"seconds"`
}

func drain(c *cli.Context) error {
	names, err := arguments(c)
	if err != nil {
		return err
	}
	timeout, err := drainTimeout(c)
	if err != nil {
		return err
	}
	o, hosts, err := drainable(c, "drain", names)
	if err != nil {
		return err
	}
	var mates []fleet.Host
	for _, tier := range stacks.TierNames() {
		if slices.ContainsFunc(hosts, func(h fleet.Host) bool { return h.Tier == tier }) {
			mates = append(mates, o.fleet.Tier(tier)...)
		}
	}
	how, err := o.conditions(mates)
	if err == nil && !c.Bool("force") {
		err = refuseLast(o.fleet, hosts, how, "drain")
	}
	if err == nil {
		hosts, err = o.holderLast(hosts)
	}
	if err != nil {
		o.reporter.Finish()
		return err
	}
	by := operator()
	return o.eachHost(hosts, "drained", func(ctx context.Context, h fleet.Host, r *drainResult) error {
		r.Before = how[h.Name].Drained
		reason := by
		if r.Before != "" && !fleet.Passing(r.Before) {
			reason = r.Before // who was first is who to ask
		}
		if r.Before == fleet.ForChange {
			// What waits to end that drain would end this one.
			if err := o.fleet.Undrain(ctx, h); err != nil {
				return err
			}
		}
		began := time.Now()
		left, err := o.fleet.Drain(ctx, h, timeout, reason)
		r.Left = left
		switch {
		case err != nil:
			return err
		case left != "":
			o.say("%s: drained, but after %s this is left: %s", h.Name, timeout, strings.ReplaceAll(left, "\n", "; "))
		case r.Before != "":
			o.say("%s: was drained already (%s)", h.Name, r.Before)
		default:
			o.say("%s: drained  %.1f s", h.Name, time.Since(began).Seconds())
		}
		return nil
	})
}

func undrain(c *cli.Context) error {
	names, err := arguments(c)
	if err != nil {
		return err
	}
	o, hosts, err := drainable(c, "undrain", names)
	if err != nil {
		return err
	}
	return o.eachHost(hosts, "serving", func(ctx context.Context, h fleet.Host, r *drainResult) error {
		var err error
		if r.Before, err = o.fleet.Drained(ctx, h); err != nil {
			return err
		}
		if r.Before == "" {
			o.say("%s: was not drained", h.Name)
			return nil
		}
		if err := o.fleet.Undrain(ctx, h); err != nil {
			return err
		}
		o.say("%s: takes work again (was drained %s)", h.Name, r.Before)
		return nil
	})
}

// drainable opens the environment and finds the named hosts, of which none may be
// a database host.
func drainable(c *cli.Context, verb string, names []string) (*operation, []fleet.Host, error) {
	if len(names) == 0 {
		return nil, nil, usage("name the hosts: infractl %s HOST…", verb)
	}
	o, err := operate(c, false)
	if err != nil {
		return nil, nil, err
	}
	hosts, err := o.named(names)
	for _, h := range hosts {
		if h.Tier == stacks.TierDB {
			err = usage("%s cannot be %sed: nobody else has its data", h.Name, verb)
		}
	}
	if err != nil {
		o.reporter.Finish()
	}
	return o, hosts, err
}

// holderLast puts the holder of the virtual IP behind the other load balancers,
// so that it does not hand the address to one whose turn comes next.
func (o *operation) holderLast(hosts []fleet.Host) ([]fleet.Host, error) {
	balancers := 0
	for _, h := range hosts {
		if h.Tier == stacks.TierLB {
			balancers++
		}
	}
	if balancers < 2 {
		return hosts, nil
	}
	holder, _, err := o.holder(o.c.Context)
	if err != nil {
		return nil, err
	}
	out := slices.Clone(hosts)
	slices.SortStableFunc(out, func(a, b fleet.Host) int {
		switch holder {
		case a.Name:
			return 1
		case b.Name:
			return -1
		}
		return 0
	})
	return out, nil
}

// eachHost does something for all hosts at the same time, except for load
// balancers, which hand the virtual IP around and so go one after the other. It
// says how it went.
func (o *operation) eachHost(hosts []fleet.Host, state string, do func(context.Context, fleet.Host, *drainResult) error) error {
	ctx, cancel := o.finishing()
	defer cancel()
	results := make([]drainResult, len(hosts))
	skipped := false
	work := func(i int) {
		h, r := hosts[i], &results[i]
		began := time.Now()
		if err := do(ctx, h, r); err != nil {
			r.State, r.Error = "failed", err.Error()
			o.say("%v", err)
			o.engine.RecordHost(h.Name, r.State, err)
		} else {
			r.State = state
			o.engine.RecordHost(h.Name, state, nil)
		}
		r.Seconds = time.Since(began).Seconds()
	}
	o.reporter.Phase("waiting for %s", countOf(len(hosts), "host"))
	var wg sync.WaitGroup
	for i, h := range hosts {
		results[i].Host = h.Name
		if h.Tier != stacks.TierLB {
			wg.Go(func() { work(i) })
		}
	}
	for i, h := range hosts {
		if h.Tier != stacks.TierLB {
			continue
		}
		if o.c.Context.Err() != nil {
			results[i].State, results[i].Error = "failed", "interrupted before its turn"
			skipped = true
			continue
		}
		work(i)
	}
	wg.Wait()
	ok, busy, failed := 0, 0, 0
	for _, r := range results {
		switch {
		case r.State == "failed":
			failed++
		case r.Left != "":
			busy++
		default:
			ok++
		}
	}
	words := []string{fmt.Sprintf("%s %s", countOf(ok, "host"), state)}
	if busy > 0 {
		words = append(words, fmt.Sprintf("%d %s with work left", busy, state))
	}
	if failed > 0 {
		words = append(words, fmt.Sprintf("%d failed", failed))
	}
	if err := o.summary(map[string]any{"hosts": results}, "%s", strings.Join(words, ", ")); err != nil {
		return err
	}
	switch {
	case skipped:
		return o.stopped("what had begun was finished", "What was done stays so. Run it again to go on.")
	case failed > 0:
		return &engine.Error{Kind: engine.Failed, Err: errors.New("not all hosts could be reached and " + state), Advice: "Look at the hosts named above, then run it again."}
	case busy > 0:
		return &engine.Error{Kind: engine.Failed, Err: errors.New("work is left"), Advice: "The hosts take no new work. Wait and run it again to see whether they have finished, or undrain them."}
	}
	return nil
}

// countOf is a number with its noun.
func countOf(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
