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

func TestAnAPIErrorIsToldClearlyAndTheNextUpConverges(t *testing.T) {
	p := newSmall(t, "apierror")
	for _, c := range []struct {
		name  string
		fault api.Fault
		says  string
	}{
		{"no floating IP", api.Fault{Kind: api.FaultError, Code: "service_error", Status: 503, Match: api.Match{Method: "POST", Path: "^/floating_ips$"}}, "service_error"},
		{"no room in the location", api.Fault{Kind: api.FaultError, Code: "resource_unavailable", Status: 412, Match: api.Match{Method: "POST", Path: "^/servers$"}}, "resource_unavailable"},
		{"a server was made but the answer is lost", api.Fault{Kind: api.FaultDrop, After: true, Match: api.Match{Method: "POST", Path: "^/servers$"}}, ""},
		{"a server cannot be started", api.Fault{Kind: api.FaultAction, Command: "create_server", Code: "server_error"}, "server_error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.fault.Count = 1
			addFault(t, c.fault)
			r := p.infractl("up", "-e", p.env, "--yes")
			if r.code != 5 {
				t.Errorf("exit code %d, want 5 (partly applied)", r.code)
			}
			for _, want := range []string{c.says, "again"} {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("the message does not name %q", want)
				}
			}
			if t.Failed() {
				t.Logf("%v", r)
			}
			clearFaults(t)
			if r := p.infractl("destroy", "-e", p.env, "--yes"); r.code != 0 {
				t.Errorf("%v", r)
			}
			p.requireNothing(t)
		})
	}
	// After all of that, and one more time half-way.
	addFault(t, api.Fault{Kind: api.FaultDrop, After: true, Count: 1, Match: api.Match{Method: "POST", Path: "^/servers$"}})
	if r := p.infractl("up", "-e", p.env, "--yes"); r.code == 0 {
		t.Errorf("up succeeded although an answer was lost: %v", r)
	}
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
