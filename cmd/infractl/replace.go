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
	"github.com/infractl/infractl/cmd/infractl/internal/report"
	"github.com/infractl/infractl/cmd/infractl/internal/rolling"
	"github.com/infractl/infractl/provision"
)

func replaceCommand() *cli.Command {
	return &cli.Command{
		Name:      "replace",
		Usage:     "put a new server in the place of a host",
		UsageText: "infractl replace HOST [--env NAME] [--yes] [--force]",
		Description: "The host is drained, its server is deleted, and up makes a new one with the same name, the\n" +
			"same private address and another host key. Database hosts are never replaced.",
		Flags: []cli.Flag{envFlag(), yesFlag(), resultFlag(), drainTimeoutFlag(), lockTimeoutFlag(),
			&cli.BoolFlag{Name: "force", Usage: "also if nobody of the tier is left to serve"},
		},
		Action:       replace,
		OnUsageError: usageError,
		BashComplete: completeHosts,
	}
}

// replacement is a host that makes way for a new one.
type replacement struct {
	*operation
	host    fleet.Host
	how     fleet.Condition
	timeout time.Duration
	// drained says that this run has drained it.
	drained bool
}

func replace(c *cli.Context) error {
	names, err := arguments(c)
	if err != nil {
		return err
	}
	if len(names) != 1 {
		return usage("name one host: infractl replace HOST")
	}
	r := &replacement{operation: &operation{began: time.Now()}}
	if r.timeout, err = drainTimeout(c); err != nil {
		return err
	}
	if err := mustAsk(c); err != nil {
		return err
	}
	if r.session, err = open(c, false); err != nil {
		return err
	}
	options := engine.UpOptions{}
	if err := r.prepare(names[0], options); err != nil {
		r.reporter.Finish()
		return err
	}
	if err := r.ask(options); err != nil {
		return err
	}
	if err := r.remove(); err != nil {
		r.reporter.Finish()
		return err
	}
	result, err := r.apply(options)
	if kind := engine.KindOf(err); err != nil && (kind == engine.Failed || kind == engine.Partial) {
		var own *engine.Error
		if errors.As(err, &own) {
			err = own.Err // its advice is another
		}
		return &engine.Error{Kind: engine.Partial, Err: fmt.Errorf("the server of %s is deleted, and the new one does not serve yet: %w", r.host.Name, err),
			Advice: "Once the cause is gone, run: infractl up --env " + r.engine.Environment}
	} else if err != nil {
		return err
	}
	return r.well(result)
}

// prepare makes sure that the host can be replaced and up can be run.
func (r *replacement) prepare(name string, options engine.UpOptions) error {
	r.reporter.Phase("checking %s", r.engine.Environment)
	err := r.lock("")
	if err == nil {
		err = r.ready(options)
	}
	if err != nil {
		return err
	}
	if r.fleet, err = fleet.New(r.engine.Recorded()); err != nil {
		return &engine.Error{Kind: engine.Invalid, Err: err}
	}
	if r.host, err = r.fleet.Host(name); err != nil {
		return usage("%w", err)
	}
	if err := r.engine.CheckReplace(r.host.Name); err != nil {
		return err
	}
	staying, going := r.split(r.members())
	if len(going) > 0 {
		return &engine.Error{Kind: engine.Invalid, Err: fmt.Errorf("the configuration no longer has %s, and up would delete it at the same time", going[0].Name),
			Advice: "Run infractl up --env " + r.engine.Environment + " first."}
	}
	r.undrain(staying)
	how, err := r.conditions(r.fleet.Tier(r.host.Tier))
	if err != nil {
		return err
	}
	r.how = how[r.host.Name]
	if r.c.Bool("force") {
		return nil
	}
	return refuseLast(r.fleet, []fleet.Host{r.host}, how, "replace")
}

// ask says what will happen, with what up would change besides, and asks.
func (r *replacement) ask(options engine.UpOptions) error {
	r.reporter.Finish()
	first := fmt.Sprintf("%s is drained, for %s at most", r.host.Name, r.timeout)
	if r.how.Err != nil {
		first = r.host.Name + " does not answer, so it is not drained"
	}
	fmt.Fprintf(os.Stderr, "A new server takes the place of %s:\n  1. %s.\n  2. Server %s is deleted, with everything on it.\n"+
		"  3. up makes a new one with the same name, the private address %s and another host key.\n",
		r.host.Name, first, r.host.Server, r.host.Private)
	if r.c.Bool("yes") {
		r.newReporter()
		return nil
	}
	if r.how.Err != nil {
		os.Setenv(skipUnreachable, "1") // for the plugin, a child of this process
		defer os.Unsetenv(skipUnreachable)
	}
	r.newReporter()
	p, err := r.plan(options, nil)
	if err != nil {
		return err
	}
	p.Changes = slices.DeleteFunc(p.Changes, func(c report.Change) bool { return c.Name == r.host.Name })
	if len(p.Changes) > 0 {
		fmt.Fprintln(os.Stderr, "Besides, up finds this to do:")
		p.Write(os.Stderr, r.style, report.PlanOptions{})
		fmt.Fprintln(os.Stderr, p.Summary())
	}
	if err := confirm(r.c, "Go on? (yes/no)", "yes"); err != nil {
		return err
	}
	r.newReporter()
	return nil
}

// remove drains the host and removes its server. It may be cut off anywhere: the
// next up undrains the host, or makes the new one.
func (r *replacement) remove() error {
	ctx, cancel := r.finishing()
	defer cancel()
	if err := r.drain(ctx); err != nil {
		return errors.Join(fmt.Errorf("nothing was deleted: %w", err), r.back())
	}
	if r.c.Context.Err() != nil {
		return errors.Join(r.stopped("nothing was deleted", ""), r.back())
	}
	r.reporter.Phase("deleting server %s", r.host.Server)
	if err := r.engine.Discard(ctx, r.host.Name); err != nil {
		// Only if the server is still there, it can be undrained.
		return errors.Join(&engine.Error{Kind: engine.Partial, Err: err, Advice: "Run infractl up --env " + r.engine.Environment + ": it goes on from here."}, r.back())
	}
	r.say("%s: server %s is deleted", r.host.Name, r.host.Server)
	if r.c.Context.Err() != nil {
		return r.stopped("the server of "+r.host.Name+" is deleted", "infractl up --env "+r.engine.Environment+" makes the new one.")
	}
	return nil
}

// drain drains the host. One that is dead has nothing to finish.
func (r *replacement) drain(ctx context.Context) error {
	switch {
	case r.how.Err != nil:
		r.say("%s: does not answer, so it is not drained (%v)", r.host.Name, r.how.Err)
		return nil
	case r.how.Drained != "":
		r.say("%s: is drained already (%s)", r.host.Name, r.how.Drained)
		return nil
	}
	r.reporter.Phase("%s: draining", r.host.Name)
	r.drained = true
	left, err := r.fleet.Drain(ctx, r.host, r.timeout, fleet.ForReplace+", "+operator())
	switch {
	case err != nil && ctx.Err() == nil && (r.how.Unwell != "" || errors.Is(err, provision.ErrUnreachable)):
		// What is broken need not be able to leave in order.
		r.say("%s: cannot be drained, and goes as it is (%v)", r.host.Name, err)
	case err != nil:
		return err
	case left != "":
		r.say("%s: after %s this is left, and is cut off: %s", r.host.Name, r.timeout, strings.ReplaceAll(left, "\n", "; "))
	}
	return nil
}

// back lets the host take work again, if it is still there.
func (r *replacement) back() error {
	if !r.drained {
		return nil
	}
	ctx, cancel := r.cleanup()
	defer cancel()
	err := r.fleet.Undrain(ctx, r.host)
	if errors.Is(err, provision.ErrUnreachable) {
		return nil
	}
	return err
}

// well waits until the new host serves, and says how it went.
func (r *replacement) well(result report.Result) error {
	out, err := r.engine.Outputs(r.c.Context)
	if err != nil {
		return err
	}
	if r.fleet, err = fleet.New(out); err != nil {
		return err
	}
	if r.host, err = r.fleet.Host(r.host.Name); err != nil {
		return err
	}
	r.newReporter()
	ctx, cancel := r.finishing()
	defer cancel()
	err = rolling.Work{
		Missing:  r.fleet.Lacking,
		Patience: wellPatience,
		Waiting:  func(h fleet.Host, missing string) { r.reporter.Phase("%s: waiting: %s", h.Name, missing) },
	}.Well(ctx, r.host)
	if err != nil {
		r.reporter.Finish()
		return &engine.Error{Kind: engine.Partial, Err: fmt.Errorf("the new %w", err), Advice: "Look at its journal; the other hosts serve."}
	}
	return r.summary(map[string]any{"replaced": r.host.Name, "result": result, "outputs": out},
		"%s is a new server at %s, and serves", r.host.Name, r.host.Public)
}
