package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/cmd/infractl/internal/rolling"
	"github.com/infractl/infractl/stacks"
)

const (
	// drainPatience is how long a host may take to finish its work where the
	// user does not say.
	drainPatience = 30 * time.Second
	// wellPatience is how long a host may take to be well after it was worked on.
	wellPatience = 2 * time.Minute
	// cleanupPatience bounds what is put right after an error or an interrupt.
	cleanupPatience = 3 * time.Minute
)

// operation is a command's work on the hosts of an environment.
type operation struct {
	*session
	fleet *fleet.Fleet
	began time.Time
}

// holder is the short name of the load balancer that has the virtual IP, or nothing
// if none has it: the cloud knows to which it is routed, and on a wire they know
// themselves. apart says that it is with more than one.
func (o *operation) holder(ctx context.Context) (name string, apart bool, err error) {
	if o.engine.Spec.Tiers[stacks.TierLB].Target == stacks.TargetHosts {
		return o.fleet.Holder(ctx)
	}
	return o.engine.VIPHolder(ctx)
}

// holderOf asks the load balancers of an environment with these outputs.
func holderOf(ctx context.Context, outputs map[string]any) string {
	f, err := fleet.New(outputs)
	if err != nil {
		return ""
	}
	name, _, err := f.Holder(ctx)
	if err != nil {
		return ""
	}
	return name
}

// operate opens the environment for a command that works on its hosts without
// Pulumi. Unless the command only looks, nobody else may change it meanwhile.
func operate(c *cli.Context, looksOnly bool) (*operation, error) {
	began := time.Now()
	s, err := open(c, true)
	if err != nil {
		return nil, err
	}
	s.reporter.Phase("opening %s", s.engine.Environment)
	o := &operation{session: s, began: began}
	if !looksOnly {
		err = s.lock("")
	}
	if err == nil {
		o.fleet, err = s.theFleet()
	}
	if err != nil {
		s.reporter.Finish()
		return nil, err
	}
	return o, nil
}

// finishing is a context for what has begun and is finished after an interrupt.
func (o *operation) finishing() (context.Context, context.CancelFunc) {
	return rolling.Finishing(o.c.Context, forced)
}

// cleanup is a context for what is put right whatever has happened.
func (o *operation) cleanup() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(o.c.Context), cleanupPatience)
}

// summary ends the display and writes the last line, and the result as JSON if
// that was asked for.
func (o *operation) summary(result map[string]any, format string, args ...any) error {
	o.reporter.Finish()
	took := time.Since(o.began).Seconds()
	fmt.Fprintf(os.Stderr, "%s: %s (%.1f s)\n", o.engine.Environment, fmt.Sprintf(format, args...), took)
	if !o.c.Bool("json") {
		return nil
	}
	out := map[string]any{"environment": o.engine.Environment, "seconds": took}
	for k, v := range result {
		out[k] = v
	}
	return writeJSON(os.Stdout, out)
}

// named are the hosts with the given names.
func (o *operation) named(names []string) ([]fleet.Host, error) {
	hosts, err := o.fleet.Select(nil, names)
	if err != nil {
		return nil, usage("%w", err)
	}
	return hosts, nil
}

// chosen are the hosts that tiers and names select; without either, all of
// them. asked says whether they were asked for.
func (o *operation) chosen(tiers, names []string) (hosts []fleet.Host, asked bool, err error) {
	if len(tiers)+len(names) == 0 {
		return o.fleet.Hosts, false, nil
	}
	if hosts, err = o.fleet.Select(tiers, names); err != nil {
		return nil, true, usage("%w", err)
	}
	return hosts, true, nil
}

// stopped is the error of a command that stops before its end, because the user
// wants it or somebody has taken the lock away.
func (o *operation) stopped(done, advice string) error {
	out := &engine.Error{Kind: engine.Interrupted, Err: errors.New("interrupted; " + done), Advice: advice}
	var own *engine.Error
	if errors.As(context.Cause(o.c.Context), &own) {
		out.Kind, out.Err = own.Kind, fmt.Errorf("%w; %s", own.Err, done)
	}
	return out
}

// conditions asks hosts how they do. It fails only if the user does not want to know
// any more.
func (o *operation) conditions(hosts []fleet.Host) (map[string]fleet.Condition, error) {
	o.reporter.Phase("looking at the hosts")
	how := o.fleet.Conditions(o.c.Context, hosts)
	if o.c.Context.Err() != nil {
		return nil, o.stopped("nothing was changed", "")
	}
	return how, nil
}

// refuseUnreachable fails if a host does not answer that is going to be worked
// on or asked. Nothing has been changed then.
func refuseUnreachable(hosts []fleet.Host, how map[string]fleet.Condition) error {
	for _, h := range hosts {
		if c, ok := how[h.Name]; ok && c.Err != nil {
			return &engine.Error{Kind: engine.Failed, Err: fmt.Errorf("nothing was changed: %w", c.Err),
				Advice: fmt.Sprintf("Start it, or put a new one in its place: infractl replace %s", h.Name)}
		}
	}
	return nil
}

// others are the other hosts of a host's tier.
func (o *operation) others(h fleet.Host) []fleet.Host {
	return slices.DeleteFunc(o.fleet.Tier(h.Tier), func(other fleet.Host) bool { return other.Name == h.Name })
}

// refuseLast fails if nobody of a tier would serve without the hosts that go.
// A host that does not serve is no loss.
func refuseLast(f *fleet.Fleet, going []fleet.Host, how map[string]fleet.Condition, verb string) error {
	for _, tier := range stacks.TierNames() {
		var lost, left, words []string
		for _, h := range f.Tier(tier) {
			goes := slices.ContainsFunc(going, func(g fleet.Host) bool { return g.Name == h.Name })
			switch serves := how[h.Name].Serves(); {
			case goes && serves:
				lost = append(lost, h.Name)
			case !goes && serves:
				left = append(left, h.Name)
			case !goes:
				words = append(words, h.Name+" "+how[h.Name].Problem())
			}
		}
		if len(lost) == 0 || len(left) > 0 {
			continue
		}
		why := "there is no other"
		if len(words) > 0 {
			why = strings.Join(words, ", ")
		}
		return &engine.Error{Kind: engine.Invalid,
			Err:    fmt.Errorf("nobody of tier %s would serve without %s: %s", tier, strings.Join(lost, " and "), why),
			Advice: fmt.Sprintf("To %s all the same, and interrupt the service, say --force.", verb)}
	}
	return nil
}

// standIn tells how a host does, and fails if it serves and nobody else of its
// tier would in its place. It looks anew, since the tier was last looked at long ago.
func (o *operation) standIn(ctx context.Context, h fleet.Host, worked string) (fleet.Condition, error) {
	how := o.fleet.Conditions(ctx, o.fleet.Tier(h.Tier))
	others := o.others(h)
	var words []string
	for _, other := range others {
		if how[other.Name].Serves() {
			return how[h.Name], nil
		}
		words = append(words, other.Name+" "+how[other.Name].Problem())
	}
	// Of a host that is alone the user knows what it means.
	if len(others) == 0 || !how[h.Name].Serves() {
		return how[h.Name], nil
	}
	return how[h.Name], fmt.Errorf("%s: not %s, since nobody would serve in its place: %s", h.Name, worked, strings.Join(words, ", "))
}

// operator is who works here, and since when, for others to read on the hosts.
func operator() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("by %s@%s at %s", name, host, time.Now().UTC().Format("2006-01-02 15:04:05 UTC"))
}

// roll works through hosts one at a time and says how it went. again is the
// command that goes on after the host that failed was put right.
func (o *operation) roll(w rolling.Work, hosts []fleet.Host, done, unchanged string, extra map[string]any, again func(rolling.Report) string) error {
	w.Patience = wellPatience
	w.Force = forced
	w.Last = func(ctx context.Context) (string, error) {
		holder, _, err := o.holder(ctx)
		return holder, err
	}
	w.Waiting = func(h fleet.Host, missing string) { o.reporter.Phase("%s: waiting: %s", h.Name, missing) }
	w.Finished = func(r rolling.Result) {
		note := ""
		if r.Note != "" {
			note = ": " + r.Note
		}
		switch r.State {
		case rolling.Failed:
			o.engine.RecordHost(r.Host, string(r.State), errors.New(r.Note))
		case rolling.Done:
			o.engine.RecordHost(r.Host, done, nil)
			o.say("%s: %s%s  %.1f s", r.Host, done, note, r.Seconds)
		case rolling.Unchanged:
			o.say("%s: %s%s", r.Host, unchanged, note)
		}
	}
	report := w.Run(o.c.Context, hosts)
	result := map[string]any{"hosts": report.Results}
	for k, v := range extra {
		result[k] = v
	}
	var parts []string
	for _, p := range []struct {
		state rolling.State
		words string
	}{{rolling.Done, done}, {rolling.Unchanged, unchanged}, {rolling.Failed, "failed"}, {rolling.Untouched, "untouched"}} {
		if names := report.Names(p.state); len(names) > 0 {
			parts = append(parts, fmt.Sprintf("%s: %s", p.words, strings.Join(names, " ")))
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "nothing to do")
	}
	if err := o.summary(result, "%s", strings.Join(parts, "; ")); err != nil {
		return err
	}
	switch {
	case report.Interrupted:
		return o.stopped("the host under way was finished", "Go on with: "+again(report))
	case report.Err != nil:
		advice := "Once that is put right, go on with: " + again(report)
		if len(report.Names(rolling.Untouched)) > 0 {
			advice = "The rest was not touched. " + advice
		}
		return &engine.Error{Kind: engine.Partial, Err: report.Err, Advice: advice}
	}
	return nil
}
