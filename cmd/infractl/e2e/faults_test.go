//go:build lab && !hosts

package e2e

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/infractl/infractl/lab/api"
)

// The cloud's bad days. What is safe to retry is retried without a word from
// the user; for the rest the next up goes on where this one stopped.

func TestRateLimitsAndConflictsAreWaitedOut(t *testing.T) {
	p := newSmall(t, "limits")
	addFault(t, api.Fault{Kind: api.FaultRateLimit, Match: api.Match{Method: "POST", Path: "^/servers$"}, Count: 2})
	addFault(t, api.Fault{Kind: api.FaultError, Code: "conflict", Status: 409, Match: api.Match{Method: "POST", Path: "/actions/add_subnet$"}, Count: 2})
	r := p.up(t)
	report(os.Stdout, "up through a rate limit and conflicts", "%.1f s", r.took.Seconds())
	requireWhole(t, p)
}

// What other errors of the API are like is tested without machines, in cmd/infractl.
func TestAServerThatWasMadeWithoutAnAnswerIsNotLeftBehind(t *testing.T) {
	p := newSmall(t, "lost")
	addFault(t, api.Fault{Kind: api.FaultDrop, After: true, Count: 1, Match: api.Match{Method: "POST", Path: "^/servers$"}})
	requireCode(t, p.infractl("up", "-e", p.env, "--yes"), 5, "again")
	p.up(t)
	requireWhole(t, p)
}

func TestAnEnvironmentWithADeadHostCanBeDestroyed(t *testing.T) {
	t.Parallel()
	p := newSmall(t, "dying")
	p.up(t)
	order(t, "killing app-1", func(ctx context.Context) error { return faults(t).Kill(ctx, "dying-app-1") })
	// newSmall destroys it and looks what is left.
}

func TestAServerThatDoesNotComeUpIsNamedAndTheNextUpConverges(t *testing.T) {
	t.Parallel()
	p := newSmall(t, "dead")
	addFault(t, api.Fault{Kind: api.FaultNeverBoots, Name: "dead-web-1"})
	// Not the five minutes that a real cloud is given.
	r := p.infractlWith([]string{"INFRACTL_BOOT_TIMEOUT=30s"}, "up", "-e", p.env, "--yes")
	if r.code == 0 {
		t.Fatalf("up succeeded without web-1: %v", r)
	}
	for _, want := range []string{"web-1", "again"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("the message does not name %q: %v", want, r)
		}
	}
	clearFaults(t)
	order(t, "resetting web-1", func(ctx context.Context) error {
		c := p.cloud()
		s, _, err := c.Server.GetByName(ctx, "dead-web-1")
		if err != nil {
			return err
		}
		a, _, err := c.Server.Reset(ctx, s)
		if err != nil {
			return err
		}
		return c.Action.WaitFor(ctx, a)
	})
	p.up(t)
	requireWhole(t, p)
}
