//go:build lab && !hosts

package e2e

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"github.com/infractl/infractl/lab/api"
)

// The hosts of these tests are servers of the lab's cloud; with the build tag
// hosts, own_test.go stands here, with machines that no API made.

// place is what a project knows of its hosts beside what the cloud does: nothing.
type place struct{}

// baseConfig is what differs from the committed lab environment: nothing.
func baseConfig() map[string]string { return nil }

// newSite is a project for the environment that the tests share.
func newSite(dir string) (*project, error) { return newProject(dir, "e2e", nil) }

// release gives back what an environment stood on, after it was destroyed.
func (place) release() error { return nil }

// machine is what the lab calls a host.
func (p *project) machine(host string) string { return p.env + "-" + host }

// databaseType is what a database tier has to say besides its count.
const databaseType = "type: cx33, "

// loginNeedsSudo says that the user who logs in is not root.
const loginNeedsSudo = true

// The longest that the virtual IP may be silent when its holder's host is gone, and
// when its HAProxy does not work.
const (
	hostGoneLimit = 1500 * time.Millisecond
	failoverLimit = 1500 * time.Millisecond
)

// badInputs are mistakes in an environment that does not exist yet.
var badInputs = []badInput{
	{"unknown key", map[string]string{"infractl:tears": "{}"}, nil, []string{"infractl:tears"}, 2},
	{"unknown key within", map[string]string{"infractl:vip": "{ipv4: true, ipv5: true}"}, nil, []string{"infractl:vip", "ipv5"}, 2},
	{"unknown tier", map[string]string{"infractl:tiers": "{lb: {count: 1}, cache: {count: 1}}"}, nil, []string{"infractl:tiers", "cache"}, 2},
	{"no hosts", map[string]string{"infractl:tiers": "{lb: {count: 1, type: cx23}, web: {count: 0, type: cx23}, app: {count: 1, type: cx23}, db: {count: 1, type: cx33}}"}, nil, []string{"infractl:tiers.web.count"}, 2},
	{"count is no number", map[string]string{"infractl:tiers": "{lb: {count: two, type: cx23}, web: {count: 1, type: cx23}, app: {count: 1, type: cx23}, db: {count: 1, type: cx33}}"}, nil, []string{"infractl:tiers.lb.count"}, 2},
	{"overlapping subnets", map[string]string{"infractl:tiers": "{lb: {count: 1, type: cx23, subnet: 10.0.2.0/24}, web: {count: 1, type: cx23}, app: {count: 1, type: cx23}, db: {count: 1, type: cx33}}"}, nil, []string{"infractl:tiers", "subnet", "overlap"}, 2},
	{"missing release", map[string]string{"infractl:application": "{name: guestbook, release: no/such/dir, command: bin/guestbook}"}, nil, []string{"infractl:application.release", "no/such/dir"}, 2},
	{"unknown server type", map[string]string{"infractl:tiers": "{lb: {count: 1, type: cx999}, web: {count: 1, type: cx23}, app: {count: 1, type: cx23}, db: {count: 1, type: cx33}}"}, nil, []string{"infractl:tiers.lb.type", "cx999"}, 2},
	{"unknown image", map[string]string{"infractl:image": "debian-9"}, nil, []string{"infractl:image", "debian-9"}, 2},
	{"unknown location", map[string]string{"infractl:location": "mars1"}, nil, []string{"infractl:location", "mars1"}, 2},
	{"bad range", map[string]string{"infractl:ssh": "{allowFrom: [300.0.0.0/8]}"}, nil, []string{"infractl:ssh.allowFrom", "300.0.0.0/8"}, 2},
	{"wrong token", nil, []string{"HCLOUD_TOKEN=" + strings.Repeat("x", 64)}, []string{"HCLOUD_TOKEN"}, 2},
	{"short token", nil, []string{"HCLOUD_TOKEN=short"}, []string{"HCLOUD_TOKEN", "64"}, 2},
	{"no load balancer token", nil, []string{"INFRACTL_VIP_TOKEN="}, []string{"INFRACTL_VIP_TOKEN"}, 2},
	{"no such SSH key", nil, []string{"INFRACTL_SSH_IDENTITY=/no/such/key"}, []string{"INFRACTL_SSH_IDENTITY", "/no/such/key"}, 2},
	{"the cloud's API is not there", nil, []string{"HCLOUD_ENDPOINT=http://127.0.0.1:1/v1"}, []string{"127.0.0.1:1"}, 1},
}

// small is a whole environment on as few hosts as there can be, so that it can
// be made and unmade many times. Tests that need no other run side by side, after
// those that share the site and look at the clock.
var small = map[string]string{
	"infractl:tiers": "{lb: {count: 1, type: cx23}, web: {count: 1, type: cx23}, app: {count: 1, type: cx23}, db: {count: 1, type: cx33}}",
}

// newSmall is a small environment of the test's own, removed at its end, after
// which the cloud must hold nothing of it.
func newSmall(t *testing.T, env string, changes ...map[string]string) *project {
	t.Helper()
	config := maps.Clone(small)
	for _, c := range changes {
		maps.Copy(config, c)
	}
	if config["infractl:image"] == "" {
		stock(t, env)
	}
	p, err := newProject(t.TempDir(), env, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r := p.infractl("destroy", "-e", env, "--yes"); r.code != 0 {
			t.Errorf("%v", r)
		}
		p.requireNothing(t)
	})
	return p
}

// requireNothing fails if the cloud has anything of the environment.
func (p *project) requireNothing(t *testing.T) {
	t.Helper()
	if left := p.inCloud(t); len(left) > 0 {
		t.Errorf("the cloud has %v", left)
	}
}

// requireOnly fails unless the cloud has exactly the servers that the outputs name,
// and nothing twice.
func (p *project) requireOnly(t *testing.T, o outputs) {
	t.Helper()
	var known, servers []string
	for _, hosts := range o.Hosts {
		for _, h := range hosts {
			known = append(known, "server "+p.env+"-"+h.Name)
		}
	}
	seen := map[string]bool{}
	for _, one := range p.inCloud(t) {
		if strings.HasPrefix(one, "server ") {
			servers = append(servers, one)
		}
		if seen[one] {
			t.Errorf("the cloud has %s twice", one)
		}
		seen[one] = true
	}
	slices.Sort(known)
	slices.Sort(servers)
	if !slices.Equal(known, servers) {
		t.Errorf("the cloud has %v, the environment knows %v", servers, known)
	}
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

// Every daemon's own checker judges its files on the way, and every daemon has
// to be healthy with them.
func TestAnEnvironmentOfDebian12ServesToo(t *testing.T) {
	t.Parallel()
	p := newSmall(t, "bookworm", map[string]string{"infractl:image": "debian-12", "infractl:vip": "{ipv4: true, ipv6: true}"})
	r := p.up(t)
	report(os.Stdout, "up of four hosts with Debian 12", "%.1f s", r.took.Seconds())
	requireWhole(t, p)
	if release := p.on(t, "lb-1", "cat /etc/debian_version"); !strings.HasPrefix(release, "12") {
		t.Errorf("lb-1 runs Debian %s", release)
	}
}
