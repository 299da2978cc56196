//go:build lab

package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	theLab "github.com/infractl/infractl/lab"
	"github.com/infractl/infractl/lab/api"
)

// faults orders faults of the lab's hosts and of its API.
func faults(t *testing.T) *theLab.Client {
	t.Helper()
	c, err := theLab.Connect(theLab.Options{Project: checkout()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// order runs one call of the lab, which must succeed.
func order(t *testing.T, what string, call func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := call(ctx); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func killHost(t *testing.T, name string) {
	t.Helper()
	order(t, "killing "+name, func(ctx context.Context) error { return faults(t).Kill(ctx, site.env+"-"+name) })
}

func freezeHost(t *testing.T, name string) {
	t.Helper()
	order(t, "freezing "+name, func(ctx context.Context) error { return faults(t).Freeze(ctx, site.env+"-"+name) })
}

func thawHost(t *testing.T, name string) {
	t.Helper()
	order(t, "thawing "+name, func(ctx context.Context) error { return faults(t).Thaw(ctx, site.env+"-"+name) })
}

func startHost(t *testing.T, name string) {
	t.Helper()
	startHostOf(t, site.project, name)
}

// startHostOf powers a server on through the cloud's API, as its owner would.
func startHostOf(t *testing.T, p *project, name string) {
	t.Helper()
	order(t, "powering on "+name, func(ctx context.Context) error {
		c := p.cloud()
		s, _, err := c.Server.GetByName(ctx, p.env+"-"+name)
		if err != nil {
			return err
		}
		a, _, err := c.Server.Poweron(ctx, &hcloud.Server{ID: s.ID})
		if err != nil {
			return err
		}
		return c.Action.WaitFor(ctx, a)
	})
}

// addFault orders a fault of the API, which ends with the test at the latest.
func addFault(t *testing.T, f api.Fault) {
	t.Helper()
	order(t, "ordering a fault", func(ctx context.Context) error {
		_, err := faults(t).AddFault(ctx, f)
		return err
	})
	t.Cleanup(func() { clearFaults(t) })
}

func clearFaults(t *testing.T) {
	t.Helper()
	order(t, "ending all faults", func(ctx context.Context) error { return faults(t).ClearFaults(ctx) })
}
