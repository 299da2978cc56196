//go:build lab

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	theLab "github.com/infractl/infractl/lab"
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

// stock gives an environment's servers the packages that they need when they are made.
// How packages are installed is seen in environments without it.
func stock(t *testing.T, env string) {
	t.Helper()
	order(t, "stocking "+env, func(ctx context.Context) error { return faults(t).Stock(ctx, env+"-*") })
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
	order(t, "killing "+name, func(ctx context.Context) error { return faults(t).Kill(ctx, site.machine(name)) })
}

func freezeHost(t *testing.T, name string) {
	t.Helper()
	order(t, "freezing "+name, func(ctx context.Context) error { return faults(t).Freeze(ctx, site.machine(name)) })
}

func thawHost(t *testing.T, name string) {
	t.Helper()
	order(t, "thawing "+name, func(ctx context.Context) error { return faults(t).Thaw(ctx, site.machine(name)) })
}

func startHost(t *testing.T, name string) {
	t.Helper()
	startHostOf(t, site.project, name)
}

// drainedBecause is why a host says that it is drained; nothing if it is not.
func drainedBecause(t *testing.T, host string) string {
	t.Helper()
	return strings.TrimSpace(site.on(t, host, "cat /run/infractl/drained 2>/dev/null || true"))
}
