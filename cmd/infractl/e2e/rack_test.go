//go:build lab && hosts

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	theLab "github.com/infractl/infractl/lab"
	"github.com/infractl/infractl/lab/api"
	"github.com/infractl/infractl/lab/machine"
)

// TestWhoLocksHimselfOutIsLetInAgain makes mistakes that cut the way to a host. The
// host takes them back by itself, and the rest of the environment is left alone.
func TestWhoLocksHimselfOutIsLetInAgain(t *testing.T) {
	t.Cleanup(func() {
		if err := site.configure(nil); err != nil {
			t.Error(err)
		}
		site.up(t)
	})
	const someKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOkT/GhVsc7Vu6EWWlETHNHg2G1KX2uKlwlpwVhelrkC nobody"
	for _, c := range []struct {
		name   string
		change map[string]string
		spoil  string
		mend   string
	}{
		{"a firewall that drops SSH", map[string]string{"infractl:ssh": "{allowFrom: [203.0.113.7]}"}, "true", "true"},
		{"a removed key", map[string]string{"infractl:ssh": `{allowFrom: [198.18.0.0/15, "2001:db8:1ab::/48"], authorizedKeys: ["` + someKey + `"]}`}, "true", "true"},
		{"an sshd that does not start", map[string]string{"infractl:hosts": strings.Replace(site.base["infractl:hosts"], "name: rack-db-1,", "name: rack-db-1, port: 2222,", 1)},
			// sshd's checker does not know who has the port.
			"systemd-run --quiet --unit=squatter python3 -m http.server 2222", "systemctl stop squatter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			const sums = "sha256sum /etc/nftables.conf /etc/ssh/sshd_config.d/10-infractl.conf /etc/ssh/authorized_keys.d/root; nft list ruleset | sed 's/packets.*//' | sha256sum"
			before := map[string]string{}
			for host := range site.machines {
				before[host] = site.on(t, host, sums)
			}
			site.on(t, "db-1", c.spoil)
			if err := site.configure(c.change); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { site.on(t, "db-1", c.mend) })
			r := site.infractl("up", "-e", site.env, "--yes")
			report(os.Stdout, "up that locks out: "+c.name, "exit code %d after %.1f s", r.code, r.took.Seconds())
			if r.code == 0 {
				t.Fatalf("up went well: %v", r)
			}
			for _, want := range []string{"db-1", "previous"} {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("the message does not say %q", want)
				}
			}
			for host := range site.machines {
				eventually(t, 2*time.Minute, host+" lets in", func() error {
					_, err := lab("ssh", site.machine(host), "true")
					return err
				})
				if after := site.on(t, host, sums); after != before[host] {
					t.Errorf("%s is not as it was:\n%s\n%s", host, before[host], after)
				}
			}
			if t.Failed() {
				t.Logf("%v", r)
			}
		})
	}
}

// TestScalingTakesSpareServersAndOneThatGoesIsGivenBack is scaling where nothing can be made,
// after an up that was refused, since somebody else on the wire uses the router ID.
func TestScalingTakesSpareServersAndOneThatGoesIsGivenBack(t *testing.T) {
	t.Parallel()
	stranger := newStranger(t, 77)
	p := newSmall(t, "spare")
	c := faults(t)
	s, err := c.MakePlain(t.Context(), machine.Plain{Name: "spare-web-2"})
	if err != nil {
		t.Fatal(err)
	}
	p.machines["web-2"] = s.Name
	m, err := theLab.WaitForPlain(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	p.base["infractl:hosts"] = strings.TrimSuffix(p.base["infractl:hosts"], "}") +
		fmt.Sprintf(", spare: [{address: %s, hostKey: %q, memory: 2048, cores: 2}]}", m.IPv4, m.Fingerprint)
	if err := p.configure(map[string]string{"infractl:vip": "{address: 198.19.0.231/24, routerId: 77}"}); err != nil {
		t.Fatal(err)
	}
	requireCode(t, p.infractl("up", "-e", p.env, "--yes"), 5, stranger.IPv4.String(), "router ID 77", "infractl:vip.routerId")
	if err := p.configure(nil); err != nil {
		t.Fatal(err)
	}
	p.up(t)
	o := p.outputs(t)
	requireCode(t, p.infractl("scale", "-e", p.env, "--yes", "web=3"), 2, "infractl:hosts.web[2] is missing")
	r := p.infractl("scale", "-e", p.env, "--yes", "web=2")
	requireCode(t, r, 0)
	report(os.Stdout, "scale web=2 onto a spare server", "%.1f s", r.took.Seconds())
	served := func(want bool) {
		t.Helper()
		seen := map[string]bool{}
		for range 20 {
			eventually(t, time.Minute, "a page is served", func() error {
				a, err := get(t.Context(), client(5*time.Second), o.URL+"/")
				if err != nil || a.status != http.StatusOK {
					return fmt.Errorf("%v, status %d", err, a.status)
				}
				seen[a.web] = true
				return nil
			})
		}
		if seen["web-2"] != want {
			t.Errorf("pages come from %v", seen)
		}
	}
	served(true)
	// The first server goes, and the second one becomes web-1.
	if err := p.configure(map[string]string{"infractl:hosts": regexp.MustCompile(`web: \[.*?\](.*), spare: \[(.*)\]`).
		ReplaceAllString(p.base["infractl:hosts"], "web: [$2]$1")}); err != nil {
		t.Fatal(err)
	}
	r = p.up(t)
	report(os.Stdout, "the server of web-1 goes, that of web-2 takes its place", "%.1f s", r.took.Seconds())
	served(false)
	const state = "systemctl is-active nginx; cat /etc/infractl/host 2>/dev/null; ls /var/lib/infractl/originals 2>/dev/null || true"
	if out := strings.Fields(p.on(t, "web-1", state)); !slices.Equal(out, []string{"inactive"}) {
		t.Errorf("on the server that went: %q", out)
	}
	if out := strings.Fields(p.on(t, "web-2", state)); len(out) < 3 || !slices.Equal(out[:3], []string{"active", p.env, "web-1"}) {
		t.Errorf("on the server that took its place: %q", out)
	}
	if r := p.infractl("status", "-e", p.env); strings.Contains(r.stdout, "drained") {
		t.Errorf("a host is left drained:\n%v", r)
	}
	if r := p.up(t); !strings.Contains(r.stderr, "no changes") {
		t.Errorf("not at rest:\n%v", r)
	}
}

// TestAShopOnTwoServersServes has all tiers on two machines.
func TestAShopOnTwoServersServes(t *testing.T) {
	t.Parallel()
	p, err := newOwn(t.TempDir(), "shop", 140, []ownMachine{{"lb-1", "debian-13"}, {"lb-2", "debian-12"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := faults(t)
	left, right := p.made[0].IPv4, p.made[1].IPv4
	both := fmt.Sprintf("[{address: %s}, {address: %s}]", left, right)
	p.base["infractl:hosts"] = strings.TrimSuffix(p.base["infractl:hosts"], "}") + fmt.Sprintf(", web: %s, app: %s, db: [{address: %s}]}", both, both, left)
	if err := p.configure(nil); err != nil {
		t.Fatal(err)
	}
	p.destroyed(t)
	r := p.up(t)
	report(os.Stdout, "up of everything on two servers", "%.1f s", r.took.Seconds())
	o := p.outputs(t)
	apps := map[string]bool{}
	eventually(t, time.Minute, "both servers serve pages", func() error {
		a, err := get(context.Background(), client(5*time.Second), o.URL+"/")
		if err != nil || a.status != http.StatusOK {
			return fmt.Errorf("%v, status %d", err, a.status)
		}
		if apps[a.app] = true; len(apps) < 2 {
			return fmt.Errorf("only %v", apps)
		}
		return nil
	})
	if r := p.up(t); !strings.Contains(r.stdout+r.stderr, "no changes") {
		t.Errorf("another up finds something to do: %v", r)
	}
	// Without the server that has no database the site goes on.
	holder := p.holder(t, o.VIP.IPv4)
	order(t, "killing shop-lb-2", func(ctx context.Context) error { return c.Kill(ctx, "shop-lb-2") })
	eventually(t, 10*time.Second, "the other server serves alone", func() error {
		a, err := get(context.Background(), client(2*time.Second), o.URL+"/")
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("status %d", a.status)
		}
		return err
	})
	t.Logf("the virtual IP was with %s", holder)
	order(t, "powering on shop-lb-2", func(ctx context.Context) error { return c.StartPlain(ctx, "shop-lb-2") })
	eventually(t, time.Minute, "shop-lb-2 is back", func() error {
		_, err := lab("ssh", "shop-lb-2", "true")
		return err
	})
}

// newStranger makes a machine on the wire on which somebody else's keepalived speaks
// VRRP with a router ID.
func newStranger(t *testing.T, routerID int) machine.State {
	t.Helper()
	c := faults(t)
	s, err := c.MakePlain(t.Context(), machine.Plain{Name: "stranger"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.RemovePlain(context.Background(), s.Name); err != nil {
			t.Error(err)
		}
	})
	if _, err := theLab.WaitForPlain(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	configuration := fmt.Sprintf("vrrp_instance stranger {\n  interface eth0\n  virtual_router_id %d\n  priority 50\n  advert_int 1\n  virtual_ipaddress {\n    198.19.0.230/24\n  }\n}\n", routerID)
	if out, err := lab("ssh", s.Name, "sh", "-c", shellQuote("apt-get update -qq && apt-get install -qq -y --no-install-recommends keepalived >/dev/null && printf '%s' "+shellQuote(configuration)+" >/etc/keepalived/keepalived.conf && systemctl restart keepalived")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return s
}

// TestLoadBalancersOnTheWireServeHostsInTheCloud has load balancers in a rack, whose
// provider couples it with the cloud's private network.
func TestLoadBalancersOnTheWireServeHostsInTheCloud(t *testing.T) {
	t.Parallel()
	p, err := newOwn(t.TempDir(), "mixed", 141, []ownMachine{{"lb-1", "debian-13"}, {"lb-2", "debian-12"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	private := map[string]netip.Addr{"lb-1": netip.MustParseAddr("10.0.1.11"), "lb-2": netip.MustParseAddr("10.0.1.12")}
	var inventory []string
	for _, m := range p.made {
		host := strings.TrimPrefix(m.Name, "mixed-")
		inventory = append(inventory, fmt.Sprintf("{name: %s, address: %s, private: %s, hostKey: %q, memory: 2048, cores: 2, debian: %s}",
			m.Name, m.IPv4, private[host], m.Fingerprint, strings.TrimPrefix(m.Image, "debian-")))
	}
	if err := p.configure(map[string]string{
		"hcloud:pollInterval": "100ms", "infractl:target": "hcloud", "infractl:location": "fsn1", "infractl:image": "debian-13",
		"infractl:network": "{range: 10.0.0.0/16, zone: eu-central}",
		"infractl:tiers":   "{lb: {target: hosts}, web: {count: 1, type: cx23}, app: {count: 1, type: cx23}, db: {count: 1, type: cx33}}",
		"infractl:hosts":   "{lb: [" + strings.Join(inventory, ", ") + "]}",
	}); err != nil {
		t.Fatal(err)
	}
	p.destroyed(t)
	coupled := make(chan error, 1)
	go func() { coupled <- p.couple(t.Context(), private) }()
	r := p.up(t)
	if err := <-coupled; err != nil {
		t.Fatal(err)
	}
	report(os.Stdout, "up with load balancers on a wire, the rest in the cloud", "%.1f s", r.took.Seconds())
	o := p.outputs(t)
	eventually(t, time.Minute, "the site serves", func() error {
		a, err := get(context.Background(), client(5*time.Second), o.URL+"/")
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("status %d", a.status)
		}
		return err
	})
	if r := p.up(t); !strings.Contains(r.stdout+r.stderr, "no changes") {
		t.Errorf("another up finds something to do: %v", r)
	}
	before := p.holder(t, o.VIP.IPv4)
	requireCode(t, p.infractl("failover", "-e", p.env), 0)
	if after := p.holder(t, o.VIP.IPv4); after == before || after == "" {
		t.Errorf("the virtual IP is with %q, and was with %q", after, before)
	}
}

// couple waits for the environment's network and gives the machines addresses in it.
func (p *project) couple(ctx context.Context, private map[string]netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c, err := theLab.Connect(theLab.Options{})
	if err != nil {
		return err
	}
	for {
		networks, err := p.cloud().Network.AllWithOpts(ctx, hcloud.NetworkListOpts{ListOpts: hcloud.ListOpts{LabelSelector: "infractl-environment=" + p.env}})
		if err != nil {
			return err
		}
		if len(networks) == 1 {
			reach := netip.MustParsePrefix(networks[0].IPRange.String())
			for host, ip := range private {
				last := ip.As4()[3]
				if err := c.AttachPlain(ctx, p.machine(host), api.Attachment{
					Network: networks[0].ID, Range: reach, Gateway: reach.Addr().Next(), IP: ip, MAC: fmt.Sprintf("86:00:ff:00:00:%02x", last),
				}); err != nil {
					return err
				}
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
