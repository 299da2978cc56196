package api

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

func TestManyClientsAtOnce(t *testing.T) {
	l := newLab(t, onDisk(t))
	l.world.setBefore(nil)
	ctx := t.Context()
	n := l.newNetwork("private", "10.0.0.0/16", "10.0.1.0/24")
	fw := must(l.client.Firewall.Create(ctx, hcloud.FirewallCreateOpts{Name: "f", ApplyTo: []hcloud.FirewallResource{onLabels("env=lab")}}))(t).Firewall
	vip := must(l.client.FloatingIP.Create(ctx, hcloud.FloatingIPCreateOpts{Type: hcloud.FloatingIPTypeIPv4, HomeLocation: &hcloud.Location{Name: "fsn1"}}))(t).FloatingIP

	const clients, rounds = 12, 3
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			c := l.newClient(testToken)
			for round := range rounds {
				r, _, err := c.Server.Create(ctx, hcloud.ServerCreateOpts{
					Name: fmt.Sprintf("s-%d-%d", i, round), ServerType: &hcloud.ServerType{Name: "cx23"}, Image: &hcloud.Image{Name: "debian-13"},
					Location: &hcloud.Location{Name: "fsn1"}, Labels: map[string]string{"env": "lab"},
				})
				if err != nil {
					t.Error(err)
					return
				}
				act := func(what string, a *hcloud.Action, err error) {
					if err == nil {
						err = c.Action.WaitFor(ctx, a)
					}
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
				}
				act("create", r.Action, nil)
				a, _, err := c.Server.AttachToNetwork(ctx, r.Server, hcloud.ServerAttachToNetworkOpts{Network: n})
				act("attach", a, err)
				// Others claim the address too, so that a refusal is fine.
				if a, _, err := c.FloatingIP.Assign(ctx, vip, r.Server); err == nil {
					act("assign", a, nil)
				} else if !hcloud.IsError(err, hcloud.ErrorCodeLocked) {
					t.Error(err)
				}
				if _, _, err := c.Firewall.SetRules(ctx, fw, hcloud.FirewallSetRulesOpts{Rules: []hcloud.FirewallRule{tcpRule("80", "0.0.0.0/0")}}); err != nil {
					t.Error(err)
				}
				if _, err := c.Server.All(ctx); err != nil {
					t.Error(err)
				}
				if round < rounds-1 || rand.IntN(2) == 0 {
					d, _, err := c.Server.DeleteWithResult(ctx, r.Server)
					if err != nil {
						t.Error(err)
						return
					}
					act("delete", d.Action, nil)
				}
			}
		})
	}
	wg.Wait()
	l.settle()

	seen := map[string]string{}
	left := must2(l.client.Server.All(ctx))(t)
	for _, s := range left {
		for _, ip := range []string{s.PublicNet.IPv4.IP.String(), s.PublicNet.IPv6.Network.String(), s.PrivateNet[0].IP.String()} {
			if other, taken := seen[ip]; taken {
				t.Errorf("%s and %s both have %s", s.Name, other, ip)
			}
			seen[ip] = s.Name
		}
		if s.Status != hcloud.ServerStatusRunning || s.Locked {
			t.Errorf("%s is %s, locked %t", s.Name, s.Status, s.Locked)
		}
	}
	if n := look(l.world, func(w *recorder) int { return len(w.servers) }); n != len(left) {
		t.Errorf("the world has %d servers, the API %d", n, len(left))
	}
	f := must(l.client.FloatingIP.GetByID(ctx, vip.ID))(t)
	var assigned int64
	if f.Server != nil {
		assigned = f.Server.ID
	}
	if got := l.routedTo(f); got != assigned {
		t.Errorf("the address is assigned to %d and routed to %d", assigned, got)
	}
	// The same is in the state file.
	l.crash()
	l.start()
	l.settle()
	if again := must2(l.client.Server.All(ctx))(t); len(again) != len(left) {
		t.Errorf("after a restart there are %d servers, before %d", len(again), len(left))
	}
}

func TestAssigningAFloatingIPIsFast(t *testing.T) {
	l := newLab(t, onDisk(t))
	ctx := t.Context()
	var servers []*hcloud.Server
	for i := range 8 {
		servers = append(servers, l.newServer(fmt.Sprintf("lb-%d", i)))
	}
	f := must(l.client.FloatingIP.Create(ctx, hcloud.FloatingIPCreateOpts{Type: hcloud.FloatingIPTypeIPv4, HomeLocation: &hcloud.Location{Name: "fsn1"}}))(t).FloatingIP
	var took []time.Duration
	for i := range 51 {
		to := servers[i%len(servers)]
		began := time.Now()
		a := must(l.client.FloatingIP.Assign(ctx, f, to))(t)
		for l.routedTo(f) != to.ID && time.Since(began) < time.Second {
			time.Sleep(100 * time.Microsecond)
		}
		took = append(took, time.Since(began))
		l.wait(a)
	}
	slices.Sort(took)
	t.Logf("from request to route: median %s, slowest %s", took[25], took[50])
	// The median, since other work on this computer may delay a single one.
	if took[25] > 50*time.Millisecond {
		t.Errorf("the median is %s", took[25])
	}
}
