//go:build lab && hosts

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	theLab "github.com/infractl/infractl/lab"
	"github.com/infractl/infractl/lab/machine"
)

// The hosts of these tests are plain machines on one wire, which no API made. They
// are in the inventory of the environment.

// place is what a project knows of its hosts, which were there before it.
type place struct {
	// machines are the lab's names of them, by the host's.
	machines map[string]string
	// made are those that were made for the project, in order.
	made []theLab.PlainMachine
}

// baseConfig makes of the committed lab environment one that names no host yet.
func baseConfig() map[string]string {
	return map[string]string{
		"hcloud:pollInterval": "", "infractl:location": "", "infractl:image": "", "infractl:network": "",
		"infractl:target": "hosts",
		"infractl:tiers":  "{web: {options: {immutablePaths: [/assets/]}}}",
		"infractl:hosts":  nobody,
		"infractl:vip":    "{address: 198.19.0.200/24, routerId: 200}",
	}
}

// nobody is an inventory of addresses that no machine has.
const nobody = `{lb: [{address: 198.19.0.241, private: 198.19.0.241}, {address: 198.19.0.242}], web: [{address: 198.19.0.243}], app: [{address: 198.19.0.244}], db: [{address: 198.19.0.245}]}`

// siteMachines are those of the shared environment, with both Debians in every
// tier of two.
var siteMachines = []ownMachine{
	{"lb-1", "debian-13"}, {"lb-2", "debian-12"}, {"web-1", "debian-13"}, {"web-2", "debian-12"},
	{"app-1", "debian-13"}, {"app-2", "debian-12"}, {"db-1", "debian-13"},
}

// ownMachine is a machine to make for a host.
type ownMachine struct{ host, image string }

// newSite is a project for the environment that the tests share.
func newSite(dir string) (*project, error) { return newOwn(dir, "rack", 100, siteMachines, nil) }

// newOwn makes machines and a project whose inventory has them. octet is the last
// part of the virtual IP and the VRRP router ID: all environments share the wire.
func newOwn(dir, env string, octet int, machines []ownMachine, changes map[string]string) (*project, error) {
	p, err := newMachines(dir, env, machines)
	if err != nil {
		return p, err
	}
	tiers := map[string][]string{}
	for i, m := range machines {
		tier, _, _ := strings.Cut(m.host, "-")
		tiers[tier] = append(tiers[tier], fmt.Sprintf(`{name: %s, address: %s, hostKey: %q, memory: 2048, cores: 2, debian: %s}`,
			p.made[i].Name, p.made[i].IPv4, p.made[i].Fingerprint, strings.TrimPrefix(m.image, "debian-")))
	}
	var all []string
	for _, tier := range slices.Sorted(maps.Keys(tiers)) {
		all = append(all, tier+": ["+strings.Join(tiers[tier], ", ")+"]")
	}
	p.base["infractl:hosts"] = "{" + strings.Join(all, ", ") + "}"
	p.base["infractl:vip"] = fmt.Sprintf("{address: 198.19.0.%d/24, routerId: %d}", octet, octet)
	return p, p.configure(changes)
}

// newMachines makes machines, and a project that does not know of them yet.
func newMachines(dir, env string, machines []ownMachine) (*project, error) {
	p, err := newProject(dir, env, nil)
	if err != nil {
		return nil, err
	}
	c, err := theLab.Connect(theLab.Options{})
	if err != nil {
		return nil, err
	}
	p.machines = map[string]string{}
	p.made = make([]theLab.PlainMachine, len(machines))
	errs := make([]error, len(machines))
	var wait sync.WaitGroup
	for i, m := range machines {
		p.machines[m.host] = env + "-" + m.host
		wait.Go(func() {
			s, err := c.MakePlain(context.Background(), machine.Plain{Name: env + "-" + m.host, Image: m.image})
			if err == nil {
				p.made[i], err = theLab.WaitForPlain(context.Background(), s)
			}
			errs[i] = err
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return p, errors.Join(err, p.release())
	}
	return p, nil
}

// release removes the machines, after the environment on them was destroyed.
func (p place) release() error {
	c, err := theLab.Connect(theLab.Options{})
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range p.machines {
		errs = append(errs, c.RemovePlain(context.Background(), name))
	}
	return errors.Join(errs...)
}

// machine is what the lab calls a host.
func (p *project) machine(host string) string { return p.machines[host] }

// loginNeedsSudo says that the user who logs in is not root.
const loginNeedsSudo = false

// The longest that the virtual IP may be silent when its holder's host is gone,
// which VRRP notices by itself, and when its HAProxy does not work, for which
// keepalived's helper has to ask it.
const (
	hostGoneLimit = 600 * time.Millisecond
	failoverLimit = 1500 * time.Millisecond
)

// badInputs are mistakes in an environment that does not exist yet.
var badInputs = []badInput{
	{"unknown key", map[string]string{"infractl:tears": "{}"}, nil, []string{"infractl:tears"}, 2},
	{"unknown key of a server", map[string]string{"infractl:hosts": strings.Replace(nobody, "{address: 198.19.0.242}", "{address: 198.19.0.242, colour: red}", 1)}, nil, []string{"infractl:hosts.lb[1]", "colour"}, 2},
	{"no servers of a tier", map[string]string{"infractl:hosts": strings.Replace(nobody, "db: [{address: 198.19.0.245}]", "db: []", 1)}, nil, []string{"infractl:hosts.db"}, 2},
	{"a server twice in a tier", map[string]string{"infractl:hosts": strings.Replace(nobody, ".242", ".241", 1)}, nil, []string{"infractl:hosts.lb[1]", "same server"}, 2},
	{"two servers with one private address", map[string]string{"infractl:hosts": strings.Replace(nobody, "{address: 198.19.0.244}", "{address: 198.19.0.244, private: 198.19.0.243}", 1)}, nil, []string{"198.19.0.243", "infractl:hosts.web[0]"}, 2},
	{"no fingerprint", map[string]string{"infractl:hosts": strings.Replace(nobody, "{address: 198.19.0.242}", "{address: 198.19.0.242, hostKey: \"SHA256:abc\"}", 1)}, nil, []string{"infractl:hosts.lb[1].hostKey"}, 2},
	{"more hosts than servers", map[string]string{"infractl:tiers": "{web: {count: 3}}"}, nil, []string{"infractl:tiers.web.count", "infractl:hosts.web[1] is missing"}, 2},
	{"no virtual IP", map[string]string{"infractl:vip": ""}, nil, []string{"infractl:vip"}, 2},
	{"a virtual IP without its network", map[string]string{"infractl:vip": "{address: 198.19.0.200}"}, nil, []string{"infractl:vip.address", "198.19.0.200"}, 2},
	{"a virtual IP that a server has", map[string]string{"infractl:vip": "{address: 198.19.0.243/24}"}, nil, []string{"infractl:vip.address", "infractl:hosts.web[0]"}, 2},
	{"missing release", map[string]string{"infractl:application": "{name: guestbook, release: no/such/dir, command: bin/guestbook}"}, nil, []string{"infractl:application.release", "no/such/dir"}, 2},
	{"bad range", map[string]string{"infractl:ssh": "{allowFrom: [300.0.0.0/8]}"}, nil, []string{"infractl:ssh.allowFrom", "300.0.0.0/8"}, 2},
	{"no such SSH key", nil, []string{"INFRACTL_SSH_IDENTITY=/no/such/key"}, []string{"INFRACTL_SSH_IDENTITY", "/no/such/key"}, 2},
}

// small are the machines of a whole environment on as few hosts as there can be.
var small = []ownMachine{{"lb-1", "debian-13"}, {"web-1", "debian-13"}, {"app-1", "debian-13"}, {"db-1", "debian-13"}}

// octets are given out to environments, for their virtual IPs.
var octets struct {
	sync.Mutex
	last int
}

// newSmall is a small environment of the test's own, removed at its end, after
// which its machines must do nothing of it any more.
func newSmall(t *testing.T, env string, changes ...map[string]string) *project {
	t.Helper()
	config := map[string]string{}
	for _, c := range changes {
		maps.Copy(config, c)
	}
	octets.Lock()
	octets.last++
	octet := 150 + octets.last
	octets.Unlock()
	stock(t, env)
	p, err := newOwn(t.TempDir(), env, octet, small, config)
	if err != nil {
		t.Fatal(err)
	}
	p.destroyed(t)
	return p
}

// destroyed destroys the environment when the test ends, and gives its machines back,
// which must do nothing of it any more.
func (p *project) destroyed(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if r := p.infractl("destroy", "-e", p.env, "--yes"); r.code != 0 {
			t.Errorf("%v", r)
		}
		p.requireNothing(t)
		if err := p.release(); err != nil {
			t.Error(err)
		}
	})
}

// requireNothing fails if a machine still does something for the environment.
func (p *project) requireNothing(t *testing.T) {
	t.Helper()
	for host := range p.machines {
		if out := p.on(t, host, "systemctl is-active haproxy keepalived nginx 'postgresql@*' 'guestbook@*' | grep -x active; ip -o address show | grep -E ' 198\\.19\\.0\\.(1[0-9][0-9]|2[0-9][0-9])/' || true"); out != "" {
			t.Errorf("%s still works for %s:\n%s", host, p.env, out)
		}
		if out := p.on(t, host, "find /etc /usr/local/lib/infractl /var/lib/infractl/originals -name '*infractl*' 2>/dev/null || true"); out != "" {
			t.Errorf("%s was not given back by %s:\n%s", host, p.env, out)
		}
	}
}

// requireOnly fails unless the outputs name exactly the environment's machines.
func (p *project) requireOnly(t *testing.T, o outputs) {
	t.Helper()
	var known []string
	for _, hosts := range o.Hosts {
		known = append(known, names(hosts, func(h host) string { return h.Name })...)
	}
	slices.Sort(known)
	if there := slices.Sorted(maps.Keys(p.machines)); !slices.Equal(known, there) {
		t.Errorf("the environment knows %v, its machines are for %v", known, there)
	}
}

// holder is the host that the wire sends the virtual IP to: the one whose
// link-layer address the router knows for it.
func (p *project) holder(t *testing.T, ip string) string {
	t.Helper()
	// So that the router asks, if it has forgotten.
	if c, err := net.DialTimeout("tcp", net.JoinHostPort(ip, "80"), 300*time.Millisecond); err == nil {
		c.Close()
	}
	out, err := exec.Command("ip", "netns", "exec", "ilab-router", "ip", "neigh", "show", ip).CombinedOutput()
	if err != nil {
		t.Fatalf("asking the router for %s: %v: %s", ip, err, out)
	}
	c := faults(t)
	machines, err := c.Machines(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for host, name := range p.machines {
		for _, m := range machines {
			if m.Name == name && strings.Contains(string(out), "lladdr "+m.MAC) {
				return host
			}
		}
	}
	return ""
}

// startHostOf powers a machine on.
func startHostOf(t *testing.T, p *project, name string) {
	t.Helper()
	order(t, "powering on "+name, func(ctx context.Context) error { return faults(t).StartPlain(ctx, p.machine(name)) })
}
