package main

import (
	"os"
	"strings"
	"testing"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
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

func TestHostsToSkipAreAddedToThoseThatTheUserSkips(t *testing.T) {
	for before, want := range map[string]string{"": "web-4", "1": "1", "lb-1": "lb-1,web-4"} {
		t.Setenv(skipUnreachable, before)
		skipHost("web-4")
		if got := os.Getenv(skipUnreachable); got != want {
			t.Errorf("%q: %q, not %q", before, got, want)
		}
	}
}
