package main

import (
	"os"
	"strings"
	"testing"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/stacks"
)

func TestHostsThatUsersMeetFirstAreDrainedFirst(t *testing.T) {
	of := func(tier, name string, holder bool) *member {
		return &member{Member: engine.Member{Host: fleet.Host{Name: name, Tier: tier}, HoldsVIP: holder}}
	}
	groups := inOrder([]*member{
		of("app", "app-3", false), of("lb", "lb-2", true), of("web", "web-3", false),
		of("lb", "lb-3", false), of("web", "web-4", false), of("lb", "lb-4", false),
	})
	var got []string
	for _, group := range groups {
		var hosts []fleet.Host
		for _, m := range group {
			hosts = append(hosts, m.Host)
		}
		got = append(got, names(hosts))
	}
	if want := "lb-3, lb-4 | lb-2 | web-3, web-4 | app-3"; strings.Join(got, " | ") != want {
		t.Errorf("%s, not %s", strings.Join(got, " | "), want)
	}
}

func TestAServerStaysAlsoUnderAnotherNameOfItsTier(t *testing.T) {
	own := func(name, tier, address, key string) stacks.Host {
		return stacks.Host{Name: name, Tier: tier, Own: &stacks.OwnServer{Address: address, HostKey: key}}
	}
	hosts := []stacks.Host{
		own("web-1", "web", "192.0.2.1", "a"), own("web-2", "web", "192.0.2.3", "c"), own("app-1", "app", "192.0.2.4", "d"),
		{Name: "lb-1", Tier: "lb"},
	}
	for _, c := range []struct {
		name, tier, address, key string
		own, want                bool
	}{
		{"web-1", "web", "192.0.2.1", "a", true, true},
		{"web-1", "web", "192.0.2.9", "a", true, true}, // it has another address now
		{"web-2", "web", "192.0.2.2", "b", true, false},
		{"web-3", "web", "192.0.2.3", "c", true, true},
		{"web-4", "web", "192.0.2.4", "d", true, false}, // it gets another job
		{"lb-1", "lb", "198.51.100.1", "e", false, true},
		{"lb-2", "lb", "198.51.100.2", "f", false, false},
	} {
		m := engine.Member{Host: fleet.Host{Name: c.name, Tier: c.tier, Public: c.address, HostKey: c.key, Own: c.own}}
		if got := stays(m, hosts); got != c.want {
			t.Errorf("%s at %s: %v", c.name, c.address, got)
		}
	}
}

func TestHostsToSkipAreAddedToThoseThatTheUserSkips(t *testing.T) {
	for before, want := range map[string]string{"": "web-4", "1": "1", "lb-1": "lb-1,web-4"} {
		t.Setenv(skipUnreachable, before)
		skipHost("web-4")
		if got := os.Getenv(skipUnreachable); got != want {
			t.Errorf("%q: %q, not %q", before, got, want)
		}
	}
}
