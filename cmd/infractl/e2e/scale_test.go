//go:build lab && !hosts

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	theLab "github.com/infractl/infractl/lab"
)

// killedAt runs a command and kills it as soon as it has printed what is looked for.
func (p *project) killedAt(t *testing.T, seen func(output string) bool, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := p.command(ctx, args...)
	output := &text{}
	cmd.Stdout, cmd.Stderr = output, output
	// Orphans of infractl must not keep the test waiting for the pipe.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for !seen(output.String()) {
		select {
		case err := <-ended:
			t.Fatalf("infractl %s ended before it could be killed: %v\n%s", strings.Join(args, " "), err, output)
		case <-time.After(10 * time.Millisecond):
		}
	}
	_ = cmd.Process.Signal(syscall.SIGKILL)
	<-ended
	return output.String()
}

// both says whether there is a line with both words.
func both(a, b string) func(string) bool {
	return func(output string) bool {
		return slices.ContainsFunc(strings.Split(output, "\n"), func(line string) bool {
			return strings.Contains(line, a) && strings.Contains(line, b)
		})
	}
}

func (p *project) scale(t *testing.T, args ...string) run {
	t.Helper()
	r := p.infractl(append([]string{"scale", "-e", p.env, "--yes"}, args...)...)
	if r.code != 0 {
		t.Fatalf("%v", r)
	}
	return r
}

// requireWebHosts fails unless the cloud has these web servers, and each is ready
// to serve.
func (p *project) requireWebHosts(t *testing.T, want ...string) {
	t.Helper()
	var servers []string
	for _, one := range p.inCloud(t) {
		if name, ok := strings.CutPrefix(one, "server "+p.env+"-web-"); ok {
			servers = append(servers, "web-"+name)
		}
	}
	slices.Sort(servers)
	if !slices.Equal(servers, want) {
		t.Errorf("the web hosts are %v, not %v", servers, want)
	}
	for _, name := range servers {
		eventually(t, time.Minute, name+" is ready", func() error {
			if out, err := lab("ssh", p.machine(name), "sudo", "/usr/local/lib/infractl/ready"); err != nil {
				return fmt.Errorf("%s: %w", out, err)
			}
			return nil
		})
	}
}

func (p *project) config(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(p.configFile())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestScalingConvergesWhateverHappensToIt(t *testing.T) {
	t.Parallel()
	p := newSmall(t, "scaling")
	p.up(t)

	before := p.config(t)
	dry := p.infractl("scale", "-e", p.env, "web=3", "lb=+1", "--dry-run", "--json")
	var doc struct {
		Version int
		DryRun  bool
		Plan    struct {
			Tiers []struct {
				Tier string
				Add  []string
			}
			Price struct {
				Before, After struct{ Total, Currency string }
			}
		}
	}
	if err := json.Unmarshal([]byte(dry.stdout), &doc); dry.code != 0 || err != nil {
		t.Fatalf("%v: %v", err, dry)
	}
	// A cx23 with its address costs 3.99 in the lab.
	if fmt.Sprint(doc) != "{1 true {[{lb [lb-2]} {web [web-2 web-3]}] {{20.96 EUR} {32.93 EUR}}}}" {
		t.Errorf("the plan is %v", doc)
	}
	if p.config(t) != before {
		t.Error("a dry run has changed the configuration")
	}
	p.requireWebHosts(t, "web-1")
	if r := p.infractl("scale", "-e", p.env, "--yes", "db=0"); r.code != 2 || !strings.Contains(r.stderr, "db-1 has data on it") {
		t.Errorf("%v", r)
	}

	// Killed while it grows: up goes on.
	p.killedAt(t, both("web-2", "creating"), "scale", "-e", p.env, "--yes", "web=3")
	p.up(t)
	p.requireWebHosts(t, "web-1", "web-2", "web-3")

	// Killed when its hosts are drained: taken back.
	was := p.outputs(t).Hosts["web"]
	p.killedAt(t, both("web-3", "drained"), "scale", "-e", p.env, "--yes", "web=2")
	if r := p.scale(t, "web=3"); !strings.Contains(r.stderr, "web-3 stays: it takes work again") {
		t.Errorf("%v", r)
	}
	p.requireWebHosts(t, "web-1", "web-2", "web-3")
	if now := p.outputs(t).Hosts["web"]; !slices.Equal(now, was) {
		t.Errorf("the hosts are others: %v, not %v", now, was)
	}
	if r := p.scale(t, "web=3"); !strings.Contains(r.stdout, "web is 3 already") || r.took > 15*time.Second {
		t.Errorf("%v", r)
	}

	// A dead host cannot be drained, and need not be.
	order(t, "killing web-3", func(ctx context.Context) error {
		c, err := theLab.Connect(theLab.Options{Project: checkout()})
		if err != nil {
			return err
		}
		return c.Kill(ctx, p.env+"-web-3")
	})
	if r := p.scale(t, "web=-1"); !strings.Contains(r.stderr, "web-3 does not answer, so nobody can be using it") {
		t.Errorf("%v", r)
	}
	p.requireWebHosts(t, "web-1", "web-2")

	// The host that would be left does not serve.
	p.on(t, "web-1", "/usr/local/lib/infractl/drain 5 'by a test'")
	config := p.config(t)
	if r := p.infractl("scale", "-e", p.env, "--yes", "web=1"); r.code != 2 || !strings.Contains(r.stderr, "web-1 is drained (by a test)") || p.config(t) != config {
		t.Errorf("%v", r)
	}
	p.on(t, "web-1", "/usr/local/lib/infractl/undrain")

	// The count lowered by hand: up drains too.
	lowered := strings.Replace(p.config(t), "count: 2", "count: 1", 1) // no other tier has two
	if err := os.WriteFile(p.configFile(), []byte(lowered), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := p.up(t); !both("web-2", "drained")(r.stderr) {
		t.Errorf("%v", r)
	}
	p.requireWebHosts(t, "web-1")
	requireWhole(t, p)
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
