// Package rolling works through hosts one at a time, and goes on to the next
// only when the last one is well again.
package rolling

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/stacks"
)

// order is the order of the tiers: one after those that it needs.
var order = []string{stacks.TierDB, stacks.TierApp, stacks.TierWeb, stacks.TierLB}

// interval is the pause between two looks at a host that is not well yet.
const interval = 500 * time.Millisecond

// State is what became of a host.
type State string

// A host is done if it was worked on and is well, unchanged if there was
// nothing to do, failed if it is the one at which the work stopped, and
// untouched if its turn never came.
const (
	Done      State = "done"
	Unchanged State = "unchanged"
	Failed    State = "failed"
	Untouched State = "untouched"
)

// Result is what became of one host.
type Result struct {
	Host  string `json:"host"`
	State State  `json:"state"`
	// Note says more in a few words; it may be empty.
	Note    string  `json:"note,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}

// Report is what became of all hosts, in the order in which they were worked on.
type Report struct {
	Results []Result
	// Err is why the work stopped at the host that failed; nil if none did.
	Err error
	// Interrupted says that the user stopped the work.
	Interrupted bool
}

// Names are the hosts in one of the given states.
func (r Report) Names(states ...State) []string {
	var out []string
	for _, one := range r.Results {
		if slices.Contains(states, one.State) {
			out = append(out, one.Host)
		}
	}
	return out
}

// Work is what is done to every host.
type Work struct {
	// Do works on a host. It says whether it changed anything, and what in a
	// few words. Its context outlives the first interrupt.
	Do func(ctx context.Context, h fleet.Host) (changed bool, note string, err error)
	// Missing says what a host that was changed still lacks to be well; nothing
	// means that it is.
	Missing func(ctx context.Context, h fleet.Host) string
	// Patience is how long a host may lack something.
	Patience time.Duration
	// Last is the short name of the load balancer that comes after the others:
	// the holder of the virtual IP. It is asked anew for each of them, since
	// the holder may have changed meanwhile.
	Last func(ctx context.Context) (string, error)
	// Waiting hears what is waited for, whenever that changes.
	Waiting func(h fleet.Host, missing string)
	// Finished hears of every host that is done, unchanged or failed.
	Finished func(Result)
	// Force is closed when the user does not want to wait for the host that is
	// being worked on.
	Force <-chan struct{}
}

// Run works through the hosts, tier by tier. It stops at the first host that
// fails or does not get well, and before the next host when ctx ends.
func (w Work) Run(ctx context.Context, hosts []fleet.Host) Report {
	var r Report
	rest := Sort(hosts)
	for len(rest) > 0 && ctx.Err() == nil {
		i, err := w.next(ctx, rest)
		if err != nil {
			if ctx.Err() == nil {
				r.Err = fmt.Errorf("%s: %w", rest[i].Name, err)
			}
			break
		}
		h := rest[i]
		rest = slices.Delete(rest, i, i+1)
		began := time.Now()
		inner, cancel := Finishing(ctx, w.Force)
		one := Result{Host: h.Name}
		one.State, one.Note, err = w.host(inner, h)
		cut := inner.Err() != nil
		cancel()
		one.Seconds = time.Since(began).Seconds()
		r.Results = append(r.Results, one)
		w.Finished(one)
		if err != nil {
			r.Err = err
			r.Interrupted = cut
			break
		}
	}
	if r.Err == nil && len(rest) > 0 {
		r.Interrupted = true
	}
	for _, h := range rest {
		r.Results = append(r.Results, Result{Host: h.Name, State: Untouched})
	}
	return r
}

// host works on one host and waits until it is well.
func (w Work) host(ctx context.Context, h fleet.Host) (State, string, error) {
	changed, note, err := w.Do(ctx, h)
	switch {
	case err != nil:
		return Failed, err.Error(), err
	case !changed:
		return Unchanged, note, nil
	}
	if err := w.Well(ctx, h); err != nil {
		return Failed, err.Error(), err
	}
	return Done, note, nil
}

// Well waits until a host lacks nothing.
func (w Work) Well(ctx context.Context, h fleet.Host) error {
	deadline := time.Now().Add(w.Patience)
	told := ""
	for {
		missing := w.Missing(ctx, h)
		if missing == "" && ctx.Err() == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: stopped while waiting: %w", h.Name, context.Cause(ctx))
		}
		if time.Now().After(deadline) {
			return &NotWellError{Host: h.Name, Missing: missing, After: w.Patience}
		}
		if missing != told {
			w.Waiting(h, missing)
			told = missing
		}
		select {
		case <-ctx.Done():
		case <-time.After(interval):
		}
	}
}

// NotWellError says that a host was worked on and did not get well in time.
type NotWellError struct {
	Host    string
	Missing string
	After   time.Duration
}

func (e *NotWellError) Error() string {
	return fmt.Sprintf("%s is not well %s after it was worked on: %s", e.Host, e.After.Round(time.Second), e.Missing)
}

// next is the index of the host whose turn it is.
func (w Work) next(ctx context.Context, rest []fleet.Host) (int, error) {
	if rest[0].Tier != stacks.TierLB || len(rest) == 1 {
		return 0, nil
	}
	last, err := w.Last(ctx)
	if err != nil {
		return 0, fmt.Errorf("cannot tell which load balancer holds the virtual IP: %w", err)
	}
	if rest[0].Name == last {
		return 1, nil
	}
	return 0, nil
}

// Sort gives the hosts in the order in which they are worked on: tier by tier,
// in a tier as they are numbered.
func Sort(hosts []fleet.Host) []fleet.Host {
	out := slices.Clone(hosts)
	slices.SortStableFunc(out, func(a, b fleet.Host) int {
		if a.Tier != b.Tier {
			return slices.Index(order, a.Tier) - slices.Index(order, b.Tier)
		}
		return a.Index - b.Index
	})
	return out
}

// errForced ends what goes on after the second interrupt.
var errForced = fmt.Errorf("stopped at once: %w", context.Canceled)

// Finishing is a context for what is finished although ctx has ended. It ends
// when force is closed.
func Finishing(ctx context.Context, force <-chan struct{}) (context.Context, context.CancelFunc) {
	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	go func() {
		select {
		case <-force:
			cancel(errForced)
		case <-inner.Done():
		}
	}()
	return inner, func() { cancel(nil) }
}
