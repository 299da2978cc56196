//go:build lab && !hosts

package e2e

import (
	"fmt"
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
			db: {count: 1, ` + databaseType + `options: {disk: ssd}}}`,
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
		out, err := lab("ssh", site.machine(host), "sudo", "/usr/local/lib/infractl/ready")
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
