//go:build lab

package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"github.com/infractl/infractl/lab/api"
)

func TestErrorsOfTheCloudAreExplainedAndTheNextUpGoesOn(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		fault api.Fault
		code  int
		want  string
	}{
		{
			"no capacity",
			api.Fault{Kind: "error", Code: "resource_unavailable", Message: "no capacity for cx23", Match: api.Match{Method: "POST", Path: "^/servers$"}},
			5, "the cloud has none left at this location just now (the cloud says: no capacity for cx23",
		},
		{
			"limit of the project",
			api.Fault{Kind: "error", Code: "resource_limit_exceeded", Message: "server limit reached", Match: api.Match{Method: "POST", Path: "^/servers$"}},
			5, "Ask for a higher limit in the cloud console",
		},
		{
			"an error of the cloud's own",
			api.Fault{Kind: "error", Code: "server_error", Message: "internal error", Match: api.Match{Method: "POST", Path: "^/floating_ips$"}},
			5, "the cloud had an error of its own",
		},
		{
			"an answer that gets lost",
			api.Fault{Kind: "error", Code: "server_error", Message: "internal error", After: true, Match: api.Match{Method: "POST", Path: "^/servers$"}},
			5, "the cloud had an error of its own",
		},
		{
			"a connection that breaks after the work was done",
			api.Fault{Kind: api.FaultDrop, After: true, Count: 1, Match: api.Match{Method: "POST", Path: "^/servers$"}},
			5, "again",
		},
		{
			"a server that cannot be started",
			api.Fault{Kind: api.FaultAction, Command: "create_server", Code: "server_error", Count: 1},
			5, "server_error",
		},
		{
			"busy for a moment",
			api.Fault{Kind: "error", Code: "conflict", Message: "conflict", Count: 2, Match: api.Match{Method: "POST", Path: "^/networks/"}},
			0, "",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 0)
			control := api.NewControl(s.cloud.URL, strings.Repeat("a", 64))
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			if _, err := control.AddFault(ctx, c.fault); err != nil {
				t.Fatal(err)
			}
			r := s.must(c.code, "up", "--yes")
			if !strings.Contains(r.stderr, c.want) {
				t.Errorf("stderr does not say %q:\n%s", c.want, r.stderr)
			}
			if err := control.ClearFaults(ctx); err != nil {
				t.Fatal(err)
			}
			s.must(0, "up", "--yes")
			s.agree()
		})
	}
}

func TestForeignServerOfTheSameNameIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	res, _, err := s.client.Server.Create(ctx, hcloud.ServerCreateOpts{
		Name: "test-web-1", ServerType: &hcloud.ServerType{Name: "cx23"}, Image: &hcloud.Image{Name: "debian-13"},
		Location: &hcloud.Location{Name: "fsn1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := s.must(5, "up", "--yes")
	if !strings.Contains(r.stderr, "✗ web-1: server: cannot create: something in the cloud project has this name already") {
		t.Errorf("stderr:\n%s", r.stderr)
	}
	// How much the first run left to be done, and so the code, is chance.
	if r := s.run("up", "--yes"); r.code != 1 && r.code != 5 {
		t.Errorf("exit code %d\n%s", r.code, r.stderr)
	}
	if server, _, err := s.client.Server.GetByID(ctx, res.Server.ID); err != nil || server == nil {
		t.Errorf("the foreign server is gone: %v", err)
	}
}

func TestWhatTheCloudDoesNotOfferIsSaidBeforeAnythingIsMade(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]string{
		"{count: 2, type: cx99}":                      `infractl:tiers.web.type: there is no server type "cx99"`,
		"{count: 2, location: mars}":                  `infractl:tiers.web.location: there is no location "mars"; there is`,
		"{count: 2, location: ash}":                   "infractl:tiers.web.location: ash is in network zone us-east, but infractl:network.zone is eu-central",
		"{count: 300}":                                "infractl:tiers.web.count: is 300, but the subnet 10.0.2.0/24 has room for 244 hosts",
		"{count: 2, subnet: 10.0.1.0/25}":             "infractl:tiers.web.subnet: 10.0.1.0/25 overlaps 10.0.1.0/24 of tier lb",
		"{count: 2, options: {immutablePaths: nope}}": "infractl:tiers.web.options.immutablePaths: must be a list, not text",
	} {
		s := newSite(t, 0)
		s.write("Pulumi.test.yaml", strings.Replace(testConfig, "web: {count: 2, type: cx23}", "web: "+config, 1), 0o644)
		r := s.must(2, "up", "--yes")
		if !strings.Contains(r.stderr, want) {
			t.Errorf("%s: stderr does not say %q:\n%s", config, want, r.stderr)
		}
		if in := s.inCloud(); len(in) > 0 {
			t.Errorf("%s: %v was made", config, in)
		}
	}
}
