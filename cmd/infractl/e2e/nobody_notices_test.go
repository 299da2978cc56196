//go:build lab

package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// reconfigure changes the site's configuration until the test ends.
func reconfigure(t *testing.T, changes map[string]string) {
	t.Helper()
	if err := site.configure(changes); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := site.configure(nil); err != nil {
			t.Error(err)
		}
		site.up(t)
	})
}

func TestNobodyNoticesAChangeOfEveryTier(t *testing.T) {
	requireEveryLoadBalancerReady(t)
	crowd := startVisitors(t, site.project, site.URL, 3*time.Minute)
	reconfigure(t, map[string]string{
		"infractl:application": strings.ReplaceAll(`{name: guestbook, release: ROOT/examples/guestbook/dist, command: bin/guestbook,
			health: /healthz, environment: {GREETING: hello}}`, "ROOT", checkout()),
		"infractl:monitoring": "{allowFrom: [10.0.9.0/24]}",
		"infractl:tiers": `{lb: {count: 2}, web: {count: 2, options: {immutablePaths: [/assets/, /fonts/]}}, app: {count: 2},
			db: {count: 1, type: cx33, options: {disk: ssd}}}`,
	})
	r := site.up(t)
	for _, host := range []string{"lb-1", "lb-2", "web-1", "web-2", "app-1", "app-2", "db-1"} {
		if !strings.Contains(r.stderr, host) {
			t.Errorf("%s was not changed", host)
		}
	}
	crowd.requireNobodyNoticed(t, "a change of every tier")
}

// requireStanding waits until a host has taken its place again.
func requireStanding(t *testing.T, host string) {
	t.Helper()
	eventually(t, time.Minute, host+" is ready", func() error {
		out, err := lab("ssh", site.env+"-"+host, "sudo", "/usr/local/lib/infractl/ready")
		if err != nil {
			return fmt.Errorf("%s: %w", out, err)
		}
		return nil
	})
}

func TestNobodyNoticesAHostThatStepsAside(t *testing.T) {
	requireEveryLoadBalancerReady(t)
	crowd := startVisitors(t, site.project, site.URL, 3*time.Minute)
	for _, host := range []string{"web-1", "web-2", "app-1", "app-2", "lb-1", "lb-2"} {
		site.on(t, host, "/usr/local/lib/infractl/drain 30 test")
		if left := site.on(t, host, "cat /run/infractl/drained.left 2>/dev/null || true"); left != "" {
			t.Errorf("%s: %s", host, left)
		}
		site.on(t, host, "/usr/local/lib/infractl/undrain")
		requireStanding(t, host)
	}
	crowd.requireNobodyNoticed(t, "hosts that step aside")
}

func TestNobodyNoticesARestartOfTheDaemons(t *testing.T) {
	requireEveryLoadBalancerReady(t)
	crowd := startVisitors(t, site.project, site.URL, 3*time.Minute)
	for _, host := range []string{"app-1", "app-2", "web-1", "web-2", "lb-1", "lb-2"} {
		site.on(t, host, "/usr/local/lib/infractl/restart")
		requireStanding(t, host)
	}
	crowd.requireNobodyNoticed(t, "a restart of the daemons")
}

// scaleTo scales the site.
func scaleTo(t *testing.T, args ...string) run {
	t.Helper()
	r := site.infractl(append([]string{"scale", "-e", site.env, "--yes"}, args...)...)
	if r.code != 0 {
		t.Fatalf("%v", r)
	}
	return r
}

func TestNobodyNoticesScaling(t *testing.T) {
	requireEveryLoadBalancerReady(t)
	t.Cleanup(func() {
		if err := site.configure(nil); err != nil {
			t.Error(err)
		}
		site.up(t)
		site.outputs = site.project.outputs(t)
	})
	for _, tier := range []struct {
		up, down string
		fresh    []string
	}{
		{"web=4", "web=2", []string{"web-3", "web-4"}},
		{"app=3", "app=2", []string{"app-3"}},
		{"lb=3", "lb=2", nil},
	} {
		crowd := startVisitors(t, site.project, site.URL, 6*time.Minute)
		began := time.Now()
		serving := make(chan time.Duration, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		go func() { serving <- timeUntilServed(ctx, tier.fresh, began) }()
		grown := scaleTo(t, tier.up)
		if tier.fresh != nil {
			took := <-serving
			report(os.Stdout, "scale "+tier.up+", from Enter to traffic on "+strings.Join(tier.fresh, " and "), "%.1f s (the command took %.1f s)", took.Seconds(), grown.took.Seconds())
			if took == 0 {
				t.Errorf("no traffic on %s", strings.Join(tier.fresh, " and "))
			}
		}
		shrunk := scaleTo(t, tier.down)
		report(os.Stdout, "scale "+tier.down, "%.1f s", shrunk.took.Seconds())
		crowd.requireNobodyNoticed(t, "scale "+tier.up+" and "+tier.down)
		for _, name := range tier.fresh {
			if found := site.inCloud(t); slices.Contains(found, "server "+site.env+"-"+name) {
				t.Errorf("%s is still there", name)
			}
		}
	}
}

// timeUntilServed asks until every host has answered, and returns how long after
// the given time that was; 0 if it did not happen.
func timeUntilServed(ctx context.Context, hosts []string, since time.Time) time.Duration {
	seen := map[string]bool{}
	for ctx.Err() == nil {
		if a, err := get(ctx, client(5*time.Second), site.URL+"/"); err == nil {
			seen[a.web], seen[a.app] = true, true
		}
		if !slices.ContainsFunc(hosts, func(h string) bool { return !seen[h] }) {
			return time.Since(since)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return 0
}

func TestNobodyNoticesThatTheVirtualIPMovesOnPurpose(t *testing.T) {
	requireEveryLoadBalancerReady(t)
	crowd := startVisitors(t, site.project, site.URL, 3*time.Minute)
	for range 2 {
		before := site.holder(t, site.VIP.IPv4)
		r := site.infractl("failover", "-e", site.env)
		if r.code != 0 {
			t.Fatalf("%v", r)
		}
		if now := site.holder(t, site.VIP.IPv4); now == before {
			t.Errorf("the virtual IP is still with %s", before)
		}
		requireEveryLoadBalancerReady(t)
	}
	crowd.requireNobodyNoticed(t, "the virtual IP moves there and back")
}
