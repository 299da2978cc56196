package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/stacks"
)

// look bounds asking one host whether it is drained: the time for a connection
// and an answer.
const look = 5 * time.Second

func leavingTimeoutFlag() cli.Flag {
	return &cli.DurationFlag{Name: "drain-timeout", Value: 30 * time.Second, Usage: "how long a host that goes may take to finish its work"}
}

// leavingTimeout is the value of that flag. Hosts count in whole seconds.
func leavingTimeout(c *cli.Context) (time.Duration, error) {
	d := c.Duration("drain-timeout")
	if d < time.Second || d > time.Hour {
		return 0, usage("--drain-timeout must be between 1s and 1h, not %s", d)
	}
	return d.Round(time.Second), nil
}

// leaving is what became of a host that goes, when it was drained.
type leaving struct {
	Host    string  `json:"host"`
	Seconds float64 `json:"seconds"`
	// Left is what was in flight when the time was up.
	Left string `json:"left,omitempty"`
	// Problem is why it could not be drained.
	Problem string `json:"problem,omitempty"`
	// Dead says that it does not answer at all, so that nobody can be using it.
	Dead bool `json:"dead,omitempty"`
}

// member is a host with what was seen on it.
type member struct {
	engine.Member
	// reason is why it is drained; empty if it is not.
	reason string
	// err is why that is not known.
	err error
}

// members are the hosts that can be drained, with what is seen on them at a look.
func (s *session) members() []*member {
	var out []*member
	var hosts []fleet.Host
	for _, m := range s.engine.Members() {
		if m.Tier != stacks.TierDB {
			out = append(out, &member{Member: m})
			hosts = append(hosts, m.Host)
		}
	}
	_ = fleet.Each(s.c.Context, hosts, func(ctx context.Context, h fleet.Host) error { // errors are kept with the hosts
		ctx, cancel := context.WithTimeout(ctx, look)
		defer cancel()
		m := out[slices.IndexFunc(out, func(m *member) bool { return m.Name == h.Name })]
		m.reason, m.err = m.Fleet.Drained(ctx, h)
		return nil
	})
	return out
}

// dead says whether a host that did not answer, as its error says, does not even
// let itself be connected to at a second try. One that only is slow is not dead.
func (m *member) dead(ctx context.Context) bool {
	if !errors.Is(m.err, provision.ErrUnreachable) {
		return false
	}
	try, cancel := context.WithTimeout(ctx, look)
	defer cancel()
	conn, err := m.Fleet.Connect(try, m.Host)
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, provision.ErrUnreachable) && ctx.Err() == nil
}

// stays says whether a host goes on with what it does. A server of the user's own does
// also if it becomes another host of its tier.
func stays(m engine.Member, hosts []stacks.Host) bool {
	return slices.ContainsFunc(hosts, func(h stacks.Host) bool {
		if m.Own && h.Own != nil {
			return h.Tier == m.Tier && (h.Own.Address == m.Public || h.Name == m.Name && h.Own.HostKey == m.HostKey)
		}
		return h.Name == m.Name
	})
}

// split parts hosts into those that stay and those that go.
func (s *session) split(all []*member) (staying, going []*member) {
	hosts := s.engine.Spec.Hosts()
	for _, m := range all {
		if stays(m.Member, hosts) {
			staying = append(staying, m)
		} else {
			going = append(going, m)
		}
	}
	return staying, going
}

// fit sees whether a host is healthy and takes work. One that was set up before
// there was a way to tell is taken to be.
const fit = "! test -x /usr/local/lib/infractl/ready || /usr/local/lib/infractl/ready >&2"

// othersServe fails if hosts go from a tier in which none of those that stay can
// take their work over. Hosts that were to go before and now stay can.
func (s *session) othersServe(staying, going []*member) error {
	for _, tier := range stacks.TierNames() {
		of := func(m *member) bool { return m.Tier == tier }
		if !slices.ContainsFunc(going, of) {
			continue
		}
		var hosts []fleet.Host
		well, standing := false, 0
		problems := make([]string, len(staying))
		for i, m := range staying {
			if !of(m) {
				continue
			}
			standing++
			switch {
			case fleet.Passing(m.reason):
				well = true
			case m.reason != "":
				problems[i] = fmt.Sprintf("%s is drained (%s)", m.Name, m.reason)
			case m.err != nil:
				problems[i] = m.err.Error()
			default:
				hosts = append(hosts, m.Host)
			}
		}
		if well {
			continue
		}
		_ = fleet.Each(s.c.Context, hosts, func(ctx context.Context, h fleet.Host) error { // errors are in the problems
			ctx, cancel := context.WithTimeout(ctx, 2*look)
			defer cancel()
			i := slices.IndexFunc(staying, func(m *member) bool { return m.Name == h.Name })
			if _, err := staying[i].Fleet.Run(ctx, h, "see whether it can take over", fit); err != nil {
				problems[i] = err.Error()
			}
			return nil
		})
		problems = slices.DeleteFunc(problems, func(p string) bool { return p == "" })
		if len(problems) == standing {
			return &engine.Error{Kind: engine.Invalid, Err: fmt.Errorf("tier %s would be left without a host that serves:\n%s", tier, strings.Join(problems, "\n")),
				Advice: "Put right what stays first, or put the count back: hosts go from the highest number down. No host was deleted."}
		}
	}
	return nil
}

// drainLeaving takes the hosts that the configuration no longer has out of
// service, before the update deletes them: those that users meet first, first. It
// also puts those back into service that were to go and stay after all. The
// state must have been read, and the user must have been asked.
func (s *session) drainLeaving(timeout time.Duration) error {
	s.reporter.Phase("looking at the hosts")
	staying, going := s.split(s.members())
	err := s.othersServe(staying, going)
	if s.c.Context.Err() != nil {
		return interrupted(s.c.Context, context.Cause(s.c.Context))
	}
	if err != nil {
		return err
	}
	s.undrain(staying)
	for _, group := range inOrder(going) {
		if err := s.drainGroup(group, timeout); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(going, func(m *member) bool { return m.Tier == stacks.TierLB }) {
		return s.engine.Reopen(s.c.Context) // the virtual IP is elsewhere now
	}
	return nil
}

// inOrder groups hosts that are drained together: by tier, in the order in which
// requests pass them. The holder of the virtual IP comes after the other load
// balancers, or it would hand it to one that is about to go too.
func inOrder(going []*member) [][]*member {
	var out [][]*member
	for _, tier := range stacks.TierNames() {
		for _, holder := range []bool{false, true} {
			var group []*member
			for _, m := range going {
				if m.Tier == tier && m.HoldsVIP == holder {
					group = append(group, m)
				}
			}
			if len(group) > 0 {
				out = append(out, group)
			}
		}
	}
	return out
}

// undrain puts hosts back into service that a command has drained and could not
// put back, since it was cut off or its change was taken back. Hosts that somebody
// has drained on purpose stay drained.
func (s *session) undrain(staying []*member) {
	var back []fleet.Host
	for _, m := range staying {
		switch m.reason {
		case "", fleet.ForChange: // ends by itself
		default:
			if fleet.Passing(m.reason) {
				back = append(back, m.Host)
				continue
			}
			s.reporter.Say("%s stays drained (%s)", m.Name, m.reason)
		}
	}
	if len(back) == 0 {
		return
	}
	s.reporter.Phase("letting %s take work again", names(back))
	_ = fleet.Each(s.c.Context, back, func(ctx context.Context, h fleet.Host) error { // what fails is said, and the update looks after the host
		m := staying[slices.IndexFunc(staying, func(m *member) bool { return m.Name == h.Name })]
		if err := m.Fleet.Undrain(ctx, h); err != nil {
			s.reporter.Say("%s stays: it was to take work again, but cannot: %v", h.Name, err)
			return nil
		}
		s.reporter.Say("%s stays: it takes work again", h.Name)
		return nil
	})
}

// drainGroup drains hosts that go, all at once. If one of them still has work
// then, the user is asked whether to go on.
func (s *session) drainGroup(group []*member, timeout time.Duration) error {
	hosts := make([]fleet.Host, len(group))
	results := make([]leaving, len(group))
	for i, m := range group {
		hosts[i] = m.Host
	}
	s.reporter.Phase("draining %s", names(hosts))
	_ = fleet.Each(s.c.Context, hosts, func(ctx context.Context, h fleet.Host) error { // errors are in the results
		i := slices.IndexFunc(group, func(m *member) bool { return m.Name == h.Name })
		results[i] = s.drainOne(ctx, group[i], timeout)
		return nil
	})
	s.drained = append(s.drained, results...)
	if s.c.Context.Err() != nil {
		return interrupted(s.c.Context, context.Cause(s.c.Context))
	}
	var open []string
	for _, r := range results {
		switch {
		case r.Dead:
			skipHost(r.Host)
		case r.Problem != "":
			open = append(open, fmt.Sprintf("%s could not be drained: %s", r.Host, r.Problem))
		case r.Left != "":
			open = append(open, fmt.Sprintf("%s still has work after %s: %s", r.Host, timeout, strings.ReplaceAll(r.Left, "\n", "; ")))
		}
	}
	if len(open) == 0 {
		return nil
	}
	return s.goOn(open)
}

// drainOne drains one host that goes.
func (s *session) drainOne(ctx context.Context, m *member, timeout time.Duration) leaving {
	r := leaving{Host: m.Name}
	if m.err != nil {
		if r.Dead = m.dead(ctx); !r.Dead {
			m.reason, m.err = m.Fleet.Drained(ctx, m.Host) // it was slow; it is asked with more patience
		}
	}
	reason := fleet.ForScale
	if m.reason != "" && m.reason != fleet.ForChange {
		reason = m.reason // if it stays after all, it stays drained too
	}
	if m.err == nil {
		began := time.Now()
		r.Left, m.err = m.Fleet.Drain(ctx, m.Host, timeout, reason)
		r.Seconds = time.Since(began).Seconds()
		r.Dead = m.dead(ctx) // it may have died meanwhile
	}
	switch {
	case r.Dead:
		s.reporter.Say("%s does not answer, so nobody can be using it; it goes without being drained", m.Name)
	case m.err != nil:
		r.Problem = m.err.Error()
	case r.Left == "":
		s.reporter.Say("%-18s drained  %.1f s", m.Name, r.Seconds)
	}
	return r
}

// goOn asks whether hosts are to be deleted although they may be in use.
func (s *session) goOn(open []string) error {
	for _, line := range open {
		s.reporter.Say("%s", line)
	}
	switch {
	case s.c.Bool("yes"):
		s.reporter.Say("warning: going on all the same, because of --yes")
		return nil
	case s.c.IsSet("plan"):
		s.reporter.Say("warning: going on all the same, because of --plan")
		return nil
	}
	s.reporter.Finish()
	answer, err := inquire(s.c.Context, "Go on, and delete what may be in use? (yes/no)")
	s.newReporter()
	if err == nil && answer == "yes" {
		return nil
	}
	return &engine.Error{Kind: engine.Partial, Err: errors.New("stopped before anything was deleted"),
		Advice: "The hosts that go stay drained. infractl up goes on; with their count put back, it lets them take work again."}
}

// skipHost tells the plugin that a host which does not answer is left as it is.
func skipHost(name string) {
	switch old := os.Getenv(skipUnreachable); old {
	case "1": // all of them
	case "":
		os.Setenv(skipUnreachable, name)
	default:
		os.Setenv(skipUnreachable, old+","+name)
	}
}

func names(hosts []fleet.Host) string {
	out := make([]string, len(hosts))
	for i, h := range hosts {
		out[i] = h.Name
	}
	return strings.Join(out, ", ")
}
