//go:build lab

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	theLab "github.com/infractl/infractl/lab"
)

// site is the environment that the tests share: two hosts in every tier but the
// database's. Each test leaves it healthy.
var site struct {
	*project
	outputs
	// firstUp is what bringing it up from nothing printed and took.
	firstUp run
	// firstPage is the time from the start of that up to the first good page.
	firstPage time.Duration
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "infractl-e2e-")
		if err != nil {
			return fail(err)
		}
		defer os.RemoveAll(dir)
		// The tests ask more of the API in an hour than a project may.
		control, err := theLab.Connect(theLab.Options{Project: checkout()})
		if err != nil {
			return fail(err)
		}
		settings, err := control.Settings(context.Background())
		if err != nil {
			return fail(err)
		}
		unlimited := settings
		unlimited.RateLimit = -1
		if err := control.ChangeSettings(context.Background(), unlimited); err != nil {
			return fail(err)
		}
		defer func() { _ = control.ChangeSettings(context.Background(), settings) }()
		p, err := newProject(dir, "e2e", nil)
		if err != nil {
			return fail(err)
		}
		site.project = p
		// Also after a failure: nothing that the tests made is left in the lab.
		defer func() {
			if r := p.infractl("destroy", "-e", p.env, "--yes"); r.code != 0 {
				fmt.Fprintln(os.Stderr, r)
			}
		}()
		began := time.Now()
		site.firstUp = p.infractl("up", "-e", p.env, "--yes")
		if site.firstUp.code != 0 {
			return fail(fmt.Errorf("%v", site.firstUp))
		}
		if site.outputs, err = p.readOutputs(); err != nil {
			return fail(err)
		}
		var last string
		for time.Since(began) < 3*time.Minute {
			a, err := get(context.Background(), client(2*time.Second), site.URL+"/")
			if err == nil && a.status == http.StatusOK {
				site.firstPage = time.Since(began)
				break
			}
			last = fmt.Sprintf("status %d, %v", a.status, err)
			time.Sleep(20 * time.Millisecond)
		}
		if site.firstPage == 0 {
			return fail(fmt.Errorf("no good page within three minutes: %s", last))
		}
		report(os.Stdout, "from nothing to the first good page", "%.1f s", site.firstPage.Seconds())
		return m.Run()
	}())
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}

// cloud is a client of the API with the operator's token.
func (p *project) cloud() *hcloud.Client {
	vars := p.variables()
	return hcloud.NewClient(hcloud.WithEndpoint(vars["HCLOUD_ENDPOINT"]), hcloud.WithToken(vars["HCLOUD_TOKEN"]))
}

// inCloud lists everything that carries the environment's label, as "kind name".
func (p *project) inCloud(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := p.cloud()
	opts := hcloud.ListOpts{LabelSelector: "infractl-environment=" + p.env}
	var found []string
	add := func(kind string, names []string, err error) {
		if err != nil {
			t.Fatalf("listing %s: %v", kind, err)
		}
		for _, name := range names {
			found = append(found, kind+" "+name)
		}
	}
	servers, err := c.Server.AllWithOpts(ctx, hcloud.ServerListOpts{ListOpts: opts})
	add("server", names(servers, func(s *hcloud.Server) string { return s.Name }), err)
	networks, err := c.Network.AllWithOpts(ctx, hcloud.NetworkListOpts{ListOpts: opts})
	add("network", names(networks, func(n *hcloud.Network) string { return n.Name }), err)
	firewalls, err := c.Firewall.AllWithOpts(ctx, hcloud.FirewallListOpts{ListOpts: opts})
	add("firewall", names(firewalls, func(f *hcloud.Firewall) string { return f.Name }), err)
	ips, err := c.FloatingIP.AllWithOpts(ctx, hcloud.FloatingIPListOpts{ListOpts: opts})
	add("floating IP", names(ips, func(f *hcloud.FloatingIP) string { return f.Name }), err)
	groups, err := c.PlacementGroup.AllWithOpts(ctx, hcloud.PlacementGroupListOpts{ListOpts: opts})
	add("placement group", names(groups, func(g *hcloud.PlacementGroup) string { return g.Name }), err)
	keys, err := c.SSHKey.AllWithOpts(ctx, hcloud.SSHKeyListOpts{ListOpts: opts})
	add("SSH key", names(keys, func(k *hcloud.SSHKey) string { return k.Name }), err)
	return found
}

func names[T any](all []T, name func(T) string) []string {
	var out []string
	for _, one := range all {
		out = append(out, name(one))
	}
	return out
}

// holder is the short name of the host that the cloud routes the virtual IP to.
func (p *project) holder(t *testing.T, ip string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	all, err := p.cloud().FloatingIP.All(ctx)
	if err != nil {
		t.Fatalf("asking the cloud for the virtual IP: %v", err)
	}
	for _, f := range all {
		if f.IP.String() != ip {
			continue
		}
		if f.Server == nil {
			return ""
		}
		s, _, err := p.cloud().Server.GetByID(ctx, f.Server.ID)
		if err != nil || s == nil {
			t.Fatalf("asking the cloud for server %d: %v", f.Server.ID, err)
		}
		return strings.TrimPrefix(s.Name, p.env+"-")
	}
	t.Fatalf("the cloud knows no floating IP %s", ip)
	return ""
}
