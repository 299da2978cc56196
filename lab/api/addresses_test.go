package api

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

func (l *lab) routedTo(f *hcloud.FloatingIP) int64 {
	p := netip.PrefixFrom(netip.MustParseAddr(f.IP.String()), 32)
	if f.Network != nil {
		p = netip.MustParsePrefix(f.Network.String())
	}
	return look(l.world, func(w *recorder) int64 { return w.routes[p] })
}

func TestAFloatingIPMovesBetweenServers(t *testing.T) {
	for _, kind := range []hcloud.FloatingIPType{hcloud.FloatingIPTypeIPv4, hcloud.FloatingIPTypeIPv6} {
		t.Run(string(kind), func(t *testing.T) {
			l := newLab(t)
			ctx := t.Context()
			one, two := l.newServer("lb-1"), l.newServer("lb-2")
			r := must(l.client.FloatingIP.Create(ctx, hcloud.FloatingIPCreateOpts{
				Type: kind, HomeLocation: &hcloud.Location{Name: "fsn1"}, Name: hcloud.Ptr("vip"), Description: hcloud.Ptr("the VIP"),
			}))(t)
			f := r.FloatingIP
			if r.Action != nil || f.Server != nil || f.Name != "vip" || f.Description != "the VIP" || f.HomeLocation.Name != "fsn1" {
				t.Errorf("floating IP is %+v, action %v", f, r.Action)
			}
			_, _, err := l.client.FloatingIP.Unassign(ctx, f)
			wantCode(t, err, "service_error")
			l.wait(must(l.client.FloatingIP.Assign(ctx, f, one))(t))
			if got := l.routedTo(f); got != one.ID {
				t.Errorf("routed to %d", got)
			}
			_, _, err = l.client.FloatingIP.Assign(ctx, f, one)
			wantCode(t, err, "floating_ip_assigned")
			l.wait(must(l.client.FloatingIP.Assign(ctx, f, two))(t)) // without unassigning it before
			f = must(l.client.FloatingIP.GetByID(ctx, f.ID))(t)
			if f.Server == nil || f.Server.ID != two.ID || l.routedTo(f) != two.ID {
				t.Errorf("assigned to %v, routed to %d", f.Server, l.routedTo(f))
			}
			if got := l.get(two.ID).PublicNet.FloatingIPs; len(got) != 1 || got[0].ID != f.ID {
				t.Errorf("server has floating IPs %v", got)
			}
			_, err = l.client.FloatingIP.Delete(ctx, f)
			wantCode(t, err, "must_be_unassigned")
			l.wait(must(l.client.FloatingIP.Unassign(ctx, f))(t))
			if got := l.routedTo(f); got != 0 {
				t.Errorf("routed to %d", got)
			}
			l.wait(must(l.client.FloatingIP.ChangeProtection(ctx, f, hcloud.FloatingIPChangeProtectionOpts{Delete: hcloud.Ptr(true)}))(t))
			_, err = l.client.FloatingIP.Delete(ctx, f)
			wantCode(t, err, "protected")
			l.wait(must(l.client.FloatingIP.ChangeProtection(ctx, f, hcloud.FloatingIPChangeProtectionOpts{Delete: hcloud.Ptr(false)}))(t))
			if _, err := l.client.FloatingIP.Delete(ctx, f); err != nil {
				t.Fatal(err)
			}
			_, err = l.client.FloatingIP.Delete(ctx, f)
			wantCode(t, err, "not_found")
			_, _, err = l.client.FloatingIP.Assign(ctx, f, one)
			wantCode(t, err, "not_found")
		})
	}
}

func TestAFloatingIPMovesWhileItsServersAreBusy(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	one, two := l.newServer("lb-1"), l.newServer("lb-2")
	r := must(l.client.FloatingIP.Create(ctx, hcloud.FloatingIPCreateOpts{Type: hcloud.FloatingIPTypeIPv4, Server: one}))(t)
	l.wait(r.Action)
	hold := make(chan struct{})
	l.world.setBefore(func(ctx context.Context, call string) error {
		if strings.HasPrefix(call, "stop ") {
			select {
			case <-hold:
			case <-ctx.Done():
			}
		}
		return nil
	})
	stopped := must(l.client.Server.Poweroff(ctx, one))(t)
	began := time.Now()
	l.wait(must(l.client.FloatingIP.Assign(ctx, r.FloatingIP, two))(t))
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %s", took)
	}
	close(hold)
	l.wait(stopped)
}

func TestFloatingIPsAreNamedListedAndHaveReverseDNS(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	f := must(l.client.FloatingIP.Create(ctx, hcloud.FloatingIPCreateOpts{Type: hcloud.FloatingIPTypeIPv6, HomeLocation: &hcloud.Location{Name: "hel1"}}))(t).FloatingIP
	if f.Name != fmt.Sprintf("floating-ip-%d", f.ID) {
		t.Errorf("name is %s", f.Name)
	}
	ip := f.Network.IP.String() + "5"
	l.wait(must(l.client.FloatingIP.ChangeDNSPtr(ctx, f, ip, hcloud.Ptr("vip.example.com")))(t))
	got := must(l.client.FloatingIP.Update(ctx, f, hcloud.FloatingIPUpdateOpts{Name: "vip6", Description: "six", Labels: map[string]string{"a": ""}}))(t)
	if got.Name != "vip6" || got.Description != "six" || got.DNSPtr[ip] != "vip.example.com" {
		t.Errorf("floating IP is %+v", got)
	}
	if list := must(l.client.FloatingIP.List(ctx, hcloud.FloatingIPListOpts{Name: "vip6"}))(t); len(list) != 1 {
		t.Errorf("listed %d", len(list))
	}
	for body, code := range map[string]string{
		`{"type":"ipv5","home_location":"fsn1"}`:               "invalid_input",
		`{"type":"ipv4"}`:                                      "invalid_input",
		`{"type":"ipv4","home_location":"moon"}`:               "invalid_input",
		`{"type":"ipv4","home_location":"fsn1","name":"vip6"}`: "uniqueness_error",
		`{"type":"ipv4","server":7}`:                           "not_found",
	} {
		if _, _, answer := l.raw("POST", "/v1/floating_ips", testToken, body); errorCode(answer) != code {
			t.Errorf("%s is answered %v, want %s", body, answer, code)
		}
	}
}

func TestAddressesAreUnassignedByDeletionWhereThatIsSwitchedOn(t *testing.T) {
	l := newLab(t, func(c *Config) { c.UnassignOnDelete = true })
	ctx := t.Context()
	s := l.newServer("lb-1")
	r := must(l.client.FloatingIP.Create(ctx, hcloud.FloatingIPCreateOpts{Type: hcloud.FloatingIPTypeIPv4, Server: s}))(t)
	l.wait(r.Action)
	if _, err := l.client.FloatingIP.Delete(ctx, r.FloatingIP); err != nil {
		t.Fatal(err)
	}
	l.settle()
	if got := l.routedTo(r.FloatingIP); got != 0 {
		t.Errorf("routed to %d", got)
	}
	v4 := &hcloud.PrimaryIP{ID: s.PublicNet.IPv4.ID}
	_, err := l.client.PrimaryIP.Delete(ctx, v4)
	wantCode(t, err, "server_not_stopped")
	l.wait(must(l.client.Server.Poweroff(ctx, s))(t))
	if _, err := l.client.PrimaryIP.Delete(ctx, v4); err != nil {
		t.Fatal(err)
	}
	l.settle()
	if got := l.get(s.ID).PublicNet.IPv4; !got.IsUnspecified() {
		t.Errorf("server has %s", got.IP)
	}
}

func TestAPrimaryIPIsBoundToStoppedServersOnly(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	p := must(l.client.PrimaryIP.Create(ctx, hcloud.PrimaryIPCreateOpts{
		Name: "kept", Type: hcloud.PrimaryIPTypeIPv4, Location: "fsn1", AssigneeType: "server", AutoDelete: hcloud.Ptr(false),
	}))(t).PrimaryIP
	s := l.newServer("web-1", func(o *hcloud.ServerCreateOpts) {
		o.PublicNet = &hcloud.ServerCreatePublicNet{EnableIPv4: false, EnableIPv6: true}
	})
	if !s.PublicNet.IPv4.IsUnspecified() || s.PublicNet.IPv6.IsUnspecified() {
		t.Errorf("server has %+v", s.PublicNet)
	}
	assign := hcloud.PrimaryIPAssignOpts{ID: p.ID, AssigneeID: s.ID, AssigneeType: "server"}
	_, _, err := l.client.PrimaryIP.Assign(ctx, assign)
	wantCode(t, err, "server_not_stopped")
	l.wait(must(l.client.Server.Poweroff(ctx, s))(t))
	l.wait(must(l.client.PrimaryIP.Assign(ctx, assign))(t))
	_, _, err = l.client.PrimaryIP.Assign(ctx, assign)
	wantCode(t, err, "primary_ip_already_assigned")
	if got := look(l.world, func(w *recorder) string { return w.servers[s.ID].IPv4.String() }); got != p.IP.String() {
		t.Errorf("the world has %s, want %s", got, p.IP)
	}
	other := must(l.client.PrimaryIP.Create(ctx, hcloud.PrimaryIPCreateOpts{Name: "other", Type: hcloud.PrimaryIPTypeIPv4, Location: "fsn1", AssigneeType: "server"}))(t).PrimaryIP
	_, _, err = l.client.PrimaryIP.Assign(ctx, hcloud.PrimaryIPAssignOpts{ID: other.ID, AssigneeID: s.ID, AssigneeType: "server"})
	wantCode(t, err, "server_has_ipv4")
	_, err = l.client.PrimaryIP.Delete(ctx, p)
	wantCode(t, err, "must_be_unassigned")
	l.wait(must(l.client.PrimaryIP.Unassign(ctx, p.ID))(t))
	if got := look(l.world, func(w *recorder) netip.Addr { return w.servers[s.ID].IPv4 }); got.IsValid() {
		t.Errorf("the world still has %s", got)
	}
	_, _, err = l.client.PrimaryIP.Unassign(ctx, p.ID)
	wantCode(t, err, "service_error")
	l.wait(must(l.client.PrimaryIP.ChangeProtection(ctx, hcloud.PrimaryIPChangeProtectionOpts{ID: p.ID, Delete: true}))(t))
	_, err = l.client.PrimaryIP.Delete(ctx, p)
	wantCode(t, err, "protected")
	l.wait(must(l.client.PrimaryIP.ChangeProtection(ctx, hcloud.PrimaryIPChangeProtectionOpts{ID: p.ID, Delete: false}))(t))
	got := must(l.client.PrimaryIP.Update(ctx, p, hcloud.PrimaryIPUpdateOpts{Name: "renamed", AutoDelete: hcloud.Ptr(true)}))(t)
	if got.Name != "renamed" || !got.AutoDelete {
		t.Errorf("primary IP is %+v", got)
	}
	_, _, err = l.client.PrimaryIP.ChangeProtection(ctx, hcloud.PrimaryIPChangeProtectionOpts{ID: p.ID, Delete: true})
	wantCode(t, err, "invalid_input") // auto_delete is on
	l.wait(must(l.client.PrimaryIP.ChangeDNSPtr(ctx, hcloud.PrimaryIPChangeDNSPtrOpts{ID: p.ID, IP: p.IP.String(), DNSPtr: "a.example.com"}))(t))
	if list := must(l.client.PrimaryIP.List(ctx, hcloud.PrimaryIPListOpts{IP: p.IP.String()}))(t); len(list) != 1 || list[0].DNSPtr[p.IP.String()] != "a.example.com" {
		t.Errorf("listed %+v", list)
	}
	if _, err := l.client.PrimaryIP.Delete(ctx, p); err != nil {
		t.Error(err)
	}
}

func TestPublicAddressesAreUniqueAndNotReusedAtOnce(t *testing.T) {
	l := newLab(t, func(c *Config) {
		c.IPv4Pool = netip.MustParsePrefix("198.18.7.0/28")
		c.IPv6Pool = netip.MustParsePrefix("2001:db8:1ab::/60")
		c.Reserved = []netip.Prefix{netip.MustParsePrefix("198.18.7.1/32"), netip.MustParsePrefix("2001:db8:1ab:2::/64")}
	})
	ctx := t.Context()
	create := func(kind hcloud.FloatingIPType) (*hcloud.FloatingIP, error) {
		r, _, err := l.client.FloatingIP.Create(ctx, hcloud.FloatingIPCreateOpts{Type: kind, HomeLocation: &hcloud.Location{Name: "fsn1"}})
		return r.FloatingIP, err
	}
	for kind, want := range map[hcloud.FloatingIPType]int{
		hcloud.FloatingIPTypeIPv4: 14, // 16 less the first and the reserved one
		hcloud.FloatingIPTypeIPv6: 14, // 16 less the lab's own and the reserved one
	} {
		seen := map[string]bool{}
		var first *hcloud.FloatingIP
		for range want {
			f, err := create(kind)
			if err != nil {
				t.Fatalf("%s %d: %v", kind, len(seen), err)
			}
			if seen[f.IP.String()] || f.IP.String() == "198.18.7.1" {
				t.Errorf("%s is given out twice, or reserved", f.IP)
			}
			seen[f.IP.String()] = true
			if first == nil {
				first = f
			}
		}
		_, err := create(kind)
		wantCode(t, err, "resource_unavailable")
		if _, err := l.client.FloatingIP.Delete(ctx, first); err != nil {
			t.Fatal(err)
		}
		f, err := create(kind)
		if err != nil || f.IP.String() != first.IP.String() {
			t.Errorf("the only free address is not given out: %v", err)
		}
	}
}

func TestAFreedAddressIsGivenOutLast(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	create := func() *hcloud.FloatingIP {
		return must(l.client.FloatingIP.Create(ctx, hcloud.FloatingIPCreateOpts{Type: hcloud.FloatingIPTypeIPv4, HomeLocation: &hcloud.Location{Name: "fsn1"}}))(t).FloatingIP
	}
	f := create()
	if _, err := l.client.FloatingIP.Delete(ctx, f); err != nil {
		t.Fatal(err)
	}
	if g := create(); g.IP.Equal(f.IP) {
		t.Errorf("%s is given out again at once", g.IP)
	}
}

func TestAVolumeIsAttachedResizedAndDetached(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	s := l.newServer("db-1")
	r := must(l.client.Volume.Create(ctx, hcloud.VolumeCreateOpts{Name: "data", Size: 10, Location: &hcloud.Location{Name: "fsn1"}, Format: hcloud.Ptr("ext4")}))(t)
	l.wait(r.Action)
	v := r.Volume
	if got := must(l.client.Volume.GetByID(ctx, v.ID))(t); got.Status != hcloud.VolumeStatusAvailable || got.Server != nil || *got.Format != "ext4" {
		t.Errorf("volume is %+v", got)
	}
	l.wait(must(l.client.Volume.Attach(ctx, v, s))(t))
	_, _, err := l.client.Volume.Attach(ctx, v, s)
	wantCode(t, err, "volume_already_attached")
	if got := l.get(s.ID).Volumes; len(got) != 1 || got[0].ID != v.ID {
		t.Errorf("server has volumes %v", got)
	}
	_, err = l.client.Volume.Delete(ctx, v)
	wantCode(t, err, "service_error")
	l.wait(must(l.client.Volume.Resize(ctx, v, 20))(t))
	_, _, err = l.client.Volume.Resize(ctx, v, 15)
	wantCode(t, err, "invalid_input")
	l.wait(must(l.client.Volume.Detach(ctx, v))(t))
	got := must(l.client.Volume.Update(ctx, v, hcloud.VolumeUpdateOpts{Name: "data-2"}))(t)
	if got.Name != "data-2" || got.Size != 20 || got.Server != nil {
		t.Errorf("volume is %+v", got)
	}
	if where, size := look(l.world, func(w *recorder) int64 { return w.volumes[v.ID] }), look(l.world, func(w *recorder) int { return w.sizes[v.ID] }); where != 0 || size != 20 {
		t.Errorf("in the world it is at %d with %d GB", where, size)
	}
	l.wait(must(l.client.Volume.ChangeProtection(ctx, v, hcloud.VolumeChangeProtectionOpts{Delete: hcloud.Ptr(true)}))(t))
	_, err = l.client.Volume.Delete(ctx, v)
	wantCode(t, err, "protected")
	l.wait(must(l.client.Volume.ChangeProtection(ctx, v, hcloud.VolumeChangeProtectionOpts{Delete: hcloud.Ptr(false)}))(t))
	if _, err := l.client.Volume.Delete(ctx, v); err != nil {
		t.Fatal(err)
	}
	l.settle()
	if !l.world.told(fmt.Sprintf("delete volume %d", v.ID)) {
		t.Error("the world was not told")
	}
	for body, code := range map[string]string{
		`{"name":"a","size":9,"location":"fsn1"}`:                 "invalid_input",
		`{"name":"a","size":10}`:                                  "invalid_input",
		`{"name":"a","size":10,"location":"fsn1","format":"zfs"}`: "invalid_input",
		`{"name":"a","size":10,"server":7}`:                       "not_found",
	} {
		if _, _, answer := l.raw("POST", "/v1/volumes", testToken, body); errorCode(answer) != code {
			t.Errorf("%s is answered %v, want %s", body, answer, code)
		}
	}
	far := l.newServer("far", func(o *hcloud.ServerCreateOpts) { o.Location = &hcloud.Location{Name: "hel1"} })
	r = must(l.client.Volume.Create(ctx, hcloud.VolumeCreateOpts{Name: "near", Size: 10, Location: &hcloud.Location{Name: "fsn1"}}))(t)
	l.wait(r.Action)
	_, _, err = l.client.Volume.Attach(ctx, r.Volume, far)
	wantCode(t, err, "invalid_input")
	with := l.newServer("db-2", func(o *hcloud.ServerCreateOpts) { o.Volumes = []*hcloud.Volume{r.Volume} })
	if len(with.Volumes) != 1 || look(l.world, func(w *recorder) int64 { return w.volumes[r.Volume.ID] }) != with.ID {
		t.Errorf("server made with a volume has %v", with.Volumes)
	}
	if list := must(l.client.Volume.List(ctx, hcloud.VolumeListOpts{Status: []hcloud.VolumeStatus{hcloud.VolumeStatusAvailable}}))(t); len(list) != 1 {
		t.Errorf("listed %d volumes", len(list))
	}
}
