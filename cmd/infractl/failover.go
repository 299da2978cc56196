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

const (
	// movePatience is how long the virtual IP may go on being where it was given away.
	movePatience = 30 * time.Second
	// moveInterval is the pause between two questions; the cloud counts them.
	moveInterval = 300 * time.Millisecond
)

func failoverCommand() *cli.Command {
	return &cli.Command{
		Name:      "failover",
		Usage:     "move the virtual IP to another load balancer, without dropping a request",
		UsageText: "infractl failover [--to HOST] [--timeout 30s] [--env NAME]",
		Flags: []cli.Flag{envFlag(), resultFlag(), drainTimeoutFlag(), lockTimeoutFlag(),
			&cli.StringFlag{Name: "to", Usage: "the load balancer that is to hold it (default: whichever takes it)"},
		},
		Action:       failover,
		OnUsageError: usageError,
		BashComplete: completeFlags,
	}
}

// move is a virtual IP on its way to another load balancer.
type move struct {
	*operation
	timeout time.Duration
	from    fleet.Host
	// to is empty if any other load balancer will do.
	to string
	// aside are those that must not take it.
	aside []fleet.Host
	// drained are the load balancers that have to be undrained.
	drained []fleet.Host
	// landed is where it is, took how long it was under way.
	landed string
	took   time.Duration
}

func failover(c *cli.Context) error {
	if c.NArg() > 0 {
		return usage("failover takes no arguments, but there is %q; name the target with --to", c.Args().First())
	}
	timeout, err := drainTimeout(c)
	if err != nil {
		return err
	}
	o, err := operate(c, false)
	if err != nil {
		return err
	}
	m := &move{operation: o, timeout: timeout}
	already, err := m.prepare(c.String("to"))
	if err != nil {
		o.reporter.Finish()
		return err
	}
	if already {
		return o.summary(map[string]any{"from": m.to, "to": m.to, "moved": 0.0}, "%s holds the virtual IP already", m.to)
	}
	ctx, cancel := o.finishing()
	err = m.run(ctx)
	cancel()
	// Whatever has happened, no load balancer stays drained for it.
	if undrainErr := m.undo(); undrainErr != nil {
		err = errors.Join(err, undrainErr)
	}
	if err == nil {
		err = m.confirm(context.WithoutCancel(o.c.Context))
	}
	if err != nil {
		o.reporter.Finish()
		if o.c.Context.Err() != nil {
			return o.stopped(err.Error(), "")
		}
		return err
	}
	o.engine.RecordHost(m.landed, "holds the virtual IP", nil)
	return o.summary(map[string]any{"from": m.from.Name, "to": m.landed, "moved": m.took.Seconds()},
		"the virtual IP has moved from %s to %s in %.1f s", m.from.Name, m.landed, m.took.Seconds())
}

// prepare finds out who holds the virtual IP and who could take it. It says
// whether the wanted one has it already.
func (m *move) prepare(to string) (already bool, err error) {
	ctx := m.c.Context
	balancers := m.fleet.Tier(stacks.TierLB)
	if len(balancers) < 2 {
		return false, &engine.Error{Kind: engine.Invalid, Err: errors.New("there is one load balancer only, so the virtual IP has nowhere to go"),
			Advice: "Raise infractl:tiers.lb.count and run: infractl up --env " + m.engine.Environment}
	}
	if to != "" {
		h, err := m.fleet.Host(to)
		if err != nil {
			return false, usage("--to: %w", err)
		}
		if h.Tier != stacks.TierLB {
			return false, usage("--to: %s is no load balancer; there are %s", h.Name, strings.Join(namesOf(balancers), ", "))
		}
		m.to = h.Name
	}
	m.reporter.Phase("asking who holds the virtual IP")
	holder, apart, err := m.holder(ctx)
	if err != nil {
		return false, err
	}
	if holder == m.to && !apart && m.to != "" {
		return true, nil
	}
	if m.from, err = m.fleet.Host(holder); err != nil {
		return false, &engine.Error{Kind: engine.Failed, Err: errors.New("none of the load balancers holds the virtual IP"),
			Advice: "A healthy one claims it within seconds. If none does, look at their journal: infractl-vip.service."}
	}
	if err := m.fleet.UndrainStaying(ctx, func(h fleet.Host) bool { return h.Tier == stacks.TierLB }, m.say); err != nil {
		return false, err
	}
	how, err := m.conditions(balancers)
	if err != nil {
		return false, err
	}
	if err := how[holder].Err; err != nil {
		return false, &engine.Error{Kind: engine.Failed, Err: fmt.Errorf("the virtual IP was not moved: its holder cannot be asked to give it away: %w", err),
			Advice: "If its host is dead, the others take it within seconds by themselves."}
	}
	var able []fleet.Host
	var words []string
	for _, b := range balancers {
		switch problem := how[b.Name].Problem(); {
		case b.Name == holder:
		case problem == "":
			able = append(able, b)
		case m.to == "" || b.Name == m.to:
			words = append(words, b.Name+" "+problem)
		}
	}
	if m.to != "" && !slices.Contains(namesOf(able), m.to) && m.to != holder || len(able) == 0 {
		return false, &engine.Error{Kind: engine.Invalid, Err: fmt.Errorf("the virtual IP was not moved: %s", strings.Join(words, ", ")),
			Advice: "Only a load balancer that serves can take it."}
	}
	if m.to != "" {
		for _, b := range able {
			if b.Name != m.to {
				m.aside = append(m.aside, b)
			}
		}
	}
	return false, nil
}

// run moves the virtual IP. Its context outlives the first interrupt, which
// counts between two steps.
func (m *move) run(ctx context.Context) error {
	reason := fleet.ForFailover + ", " + operator()
	if len(m.aside) > 0 {
		m.reporter.Phase("draining %s, so that only %s can take it", strings.Join(namesOf(m.aside), " and "), m.to)
		m.drained = append(m.drained, m.aside...)
		if err := fleet.Each(ctx, m.aside, func(ctx context.Context, h fleet.Host) error {
			_, err := m.fleet.Drain(ctx, h, m.timeout, reason)
			return err
		}); err != nil {
			return fmt.Errorf("the virtual IP was not moved: %w", err)
		}
	}
	if m.c.Context.Err() != nil {
		return errors.New("the virtual IP was not moved")
	}
	m.reporter.Phase("draining %s", m.from.Name)
	m.drained = append(m.drained, m.from)
	began := time.Now()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	moved := make(chan error, 1)
	go func() { moved <- m.watch(watching, began) }()
	left, err := m.fleet.Drain(ctx, m.from, m.timeout, reason)
	if err != nil {
		return fmt.Errorf("%s could not give the virtual IP away in order: %w", m.from.Name, err)
	}
	if left != "" {
		m.say("%s: after %s this is left, and goes on there: %s", m.from.Name, m.timeout, strings.ReplaceAll(left, "\n", "; "))
	}
	select {
	case err = <-moved:
	case <-time.After(movePatience):
		stop()
		err = <-moved
	}
	if err != nil {
		return &engine.Error{Kind: engine.Failed, Err: fmt.Errorf("%s has given the virtual IP away, but %w", m.from.Name, err),
			Advice: "Look at the journal of infractl-vip.service on the load balancers."}
	}
	return nil
}

// watch asks until the virtual IP is where it should be.
func (m *move) watch(ctx context.Context, began time.Time) error {
	last := "nobody was asked where it is"
	for {
		holder, apart, err := m.holder(ctx)
		switch {
		case ctx.Err() != nil:
			return errors.New(last)
		case err != nil:
			last = err.Error()
		case m.arrived(holder, apart):
			m.landed, m.took = holder, time.Since(began)
			m.say("the virtual IP is at %s after %.1f s", holder, m.took.Seconds())
			return nil
		default:
			last = "it is with " + word(holder, "nobody")
			if apart {
				last = "its two families are with different hosts"
			}
		}
		select {
		case <-ctx.Done():
			return errors.New(last)
		case <-time.After(moveInterval):
		}
	}
}

func (m *move) arrived(holder string, apart bool) bool {
	if apart || holder == "" {
		return false
	}
	if m.to != "" {
		return holder == m.to
	}
	return holder != m.from.Name
}

// undo lets all load balancers serve again that were drained for the move.
func (m *move) undo() error {
	if len(m.drained) == 0 {
		return nil
	}
	m.reporter.Phase("undraining %s", strings.Join(namesOf(m.drained), " and "))
	var mu sync.Mutex
	var still []string
	ctx, cancel := m.cleanup()
	defer cancel()
	if err := fleet.Each(ctx, m.drained, func(ctx context.Context, h fleet.Host) error {
		err := m.fleet.Undrain(ctx, h)
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			still = append(still, h.Name)
		}
		return err
	}); err != nil {
		slices.Sort(still)
		return &engine.Error{Kind: engine.Partial, Err: err,
			Advice: "Look at these hosts, then run: infractl undrain --env " + m.engine.Environment + " " + strings.Join(still, " ")}
	}
	return nil
}

// confirm looks once more, now that all may take the virtual IP again.
func (m *move) confirm(ctx context.Context) error {
	holder, apart, err := m.holder(ctx)
	if err == nil && (apart || holder != m.landed) {
		err = &engine.Error{Kind: engine.Failed, Err: fmt.Errorf("the virtual IP moved to %s, and then on to %s", m.landed, word(holder, "nobody")),
			Advice: "Look at the journals of keepalived.service and infractl-vip.service on the load balancers."}
	}
	return err
}

func namesOf(hosts []fleet.Host) []string {
	out := make([]string, len(hosts))
	for i, h := range hosts {
		out[i] = h.Name
	}
	return out
}

// word is s, or something else if it is empty.
func word(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
