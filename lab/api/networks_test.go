package api

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

func ipNet(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}

func (l *lab) newNetwork(name, ipRange string, subnets ...string) *hcloud.Network {
	l.t.Helper()
	opts := hcloud.NetworkCreateOpts{Name: name, IPRange: ipNet(ipRange)}
	for _, s := range subnets {
		opts.Subnets = append(opts.Subnets, hcloud.NetworkSubnet{Type: hcloud.NetworkSubnetTypeCloud, IPRange: ipNet(s), NetworkZone: hcloud.NetworkZoneEUCentral})
	}
	return must(l.client.Network.Create(l.t.Context(), opts))(l.t)
}

func TestANetworkHasSubnetsAndRoutes(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	n := l.newNetwork("private", "10.0.0.0/16")
	add := func(r *net.IPNet) error {
		a, _, err := l.client.Network.AddSubnet(ctx, n, hcloud.NetworkAddSubnetOpts{Subnet: hcloud.NetworkSubnet{
			Type: hcloud.NetworkSubnetTypeCloud, IPRange: r, NetworkZone: hcloud.NetworkZoneEUCentral,
		}})
		if err == nil {
			l.wait(a)
		}
		return err
	}
	for _, s := range []string{"10.0.0.0/24", "10.0.1.0/24"} {
		if err := add(ipNet(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := add(nil); err != nil { // the first free /24
		t.Fatal(err)
	}
	wantCode(t, add(ipNet("10.0.1.128/25")), "invalid_input")
	wantCode(t, add(ipNet("10.1.0.0/24")), "invalid_input")
	route := hcloud.NetworkRoute{Destination: ipNet("172.16.0.0/24"), Gateway: net.ParseIP("10.0.1.7")}
	l.wait(must(l.client.Network.AddRoute(ctx, n, hcloud.NetworkAddRouteOpts{Route: route}))(t))
	_, _, err := l.client.Network.AddRoute(ctx, n, hcloud.NetworkAddRouteOpts{Route: hcloud.NetworkRoute{Destination: ipNet("172.17.0.0/24"), Gateway: net.ParseIP("10.1.0.7")}})
	wantCode(t, err, "invalid_input")

	got := must(l.client.Network.GetByID(ctx, n.ID))(t)
	var ranges []string
	for _, s := range got.Subnets {
		ranges = append(ranges, s.IPRange.String())
		if s.Gateway.String() != "10.0.0.1" {
			t.Errorf("gateway of %s is %s", s.IPRange, s.Gateway)
		}
	}
	if want := []string{"10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"}; !slices.Equal(ranges, want) {
		t.Errorf("subnets are %v, want %v", ranges, want)
	}
	if len(got.Routes) != 1 || got.Routes[0].Destination.String() != "172.16.0.0/24" {
		t.Errorf("routes are %v", got.Routes)
	}
	l.wait(must(l.client.Network.DeleteRoute(ctx, n, hcloud.NetworkDeleteRouteOpts{Route: route}))(t))
	l.wait(must(l.client.Network.DeleteSubnet(ctx, n, hcloud.NetworkDeleteSubnetOpts{Subnet: hcloud.NetworkSubnet{IPRange: ipNet("10.0.2.0/24")}}))(t))
	_, _, err = l.client.Network.DeleteSubnet(ctx, n, hcloud.NetworkDeleteSubnetOpts{Subnet: hcloud.NetworkSubnet{IPRange: ipNet("10.0.2.0/24")}})
	wantCode(t, err, "not_found")
	l.wait(must(l.client.Network.ChangeIPRange(ctx, n, hcloud.NetworkChangeIPRangeOpts{IPRange: ipNet("10.0.0.0/15")}))(t))
	_, _, err = l.client.Network.ChangeIPRange(ctx, n, hcloud.NetworkChangeIPRangeOpts{IPRange: ipNet("10.0.0.0/16")})
	wantCode(t, err, "invalid_input")
	got = must(l.client.Network.Update(ctx, n, hcloud.NetworkUpdateOpts{Name: "renamed", Labels: map[string]string{"a": "b"}}))(t)
	if got.Name != "renamed" || got.IPRange.String() != "10.0.0.0/15" {
		t.Errorf("network is %s %s", got.Name, got.IPRange)
	}
	if list := must2(l.client.Network.AllWithOpts(ctx, hcloud.NetworkListOpts{Name: "renamed"}))(t); len(list) != 1 {
		t.Errorf("listed %d networks", len(list))
	}
	l.wait(must(l.client.Network.ChangeProtection(ctx, n, hcloud.NetworkChangeProtectionOpts{Delete: hcloud.Ptr(true)}))(t))
	_, err = l.client.Network.Delete(ctx, n)
	wantCode(t, err, "protected")
	l.wait(must(l.client.Network.ChangeProtection(ctx, n, hcloud.NetworkChangeProtectionOpts{Delete: hcloud.Ptr(false)}))(t))
	if _, err := l.client.Network.Delete(ctx, n); err != nil {
		t.Fatal(err)
	}
	if got := must(l.client.Network.GetByID(ctx, n.ID))(t); got != nil {
		t.Errorf("network is still there: %+v", got)
	}
	l.newNetwork("renamed", "10.0.0.0/16") // the name is free again
	l.settle()
	if !l.world.told(fmt.Sprintf("delete network %d", n.ID)) {
		t.Error("the world was not told")
	}
}

func TestAttachmentsGetTheAddressAskedForOrTheFirstFree(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	n := l.newNetwork("private", "10.0.0.0/16", "10.0.0.0/29", "10.0.2.0/24")
	attach := func(s *hcloud.Server, ip string, aliases ...string) error {
		t.Helper()
		o := hcloud.ServerAttachToNetworkOpts{Network: n, IP: net.ParseIP(ip)}
		for _, a := range aliases {
			o.AliasIPs = append(o.AliasIPs, net.ParseIP(a))
		}
		a, _, err := l.client.Server.AttachToNetwork(ctx, s, o)
		if err == nil {
			l.wait(a)
		}
		return err
	}
	w1, w2, w3 := l.newServer("web-1"), l.newServer("web-2"), l.newServer("web-3")
	if err := attach(w1, "10.0.2.11", "10.0.2.12"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, attach(w1, "10.0.2.13"), "server_already_attached")
	for _, ip := range []string{"10.0.2.11", "10.0.2.12", "10.0.0.1", "10.0.0.0", "10.0.2.0", "10.0.2.255", "10.0.3.1", "10.9.0.1"} {
		t.Run(ip, func(t *testing.T) { wantCode(t, attach(w2, ip), "ip_not_available") })
	}
	if err := attach(w2, ""); err != nil {
		t.Fatal(err)
	}
	if err := attach(w3, ""); err != nil {
		t.Fatal(err)
	}
	for s, want := range map[*hcloud.Server]string{w1: "10.0.2.11", w2: "10.0.0.2", w3: "10.0.0.3"} {
		got := l.get(s.ID).PrivateNet
		if len(got) != 1 || got[0].IP.String() != want || got[0].MACAddress == "" {
			t.Errorf("%s is at %+v, want %s", s.Name, got, want)
		}
		world := look(l.world, func(w *recorder) Attachment { return w.nets[s.ID][n.ID] })
		if world.IP.String() != want || world.Gateway.String() != "10.0.0.1" || world.Range.String() != "10.0.0.0/16" || world.MAC != got[0].MACAddress {
			t.Errorf("the world has %s at %+v", s.Name, world)
		}
	}

	_, _, err := l.client.Network.DeleteSubnet(ctx, n, hcloud.NetworkDeleteSubnetOpts{Subnet: hcloud.NetworkSubnet{IPRange: ipNet("10.0.2.0/24")}})
	wantCode(t, err, "service_error")
	l.wait(must(l.client.Server.ChangeAliasIPs(ctx, w1, hcloud.ServerChangeAliasIPsOpts{Network: n, AliasIPs: []net.IP{net.ParseIP("10.0.2.20")}}))(t))
	if got := l.get(w1.ID).PrivateNet[0].Aliases; len(got) != 1 || got[0].String() != "10.0.2.20" {
		t.Errorf("aliases are %v", got)
	}
	l.wait(must(l.client.Server.DetachFromNetwork(ctx, w1, hcloud.ServerDetachFromNetworkOpts{Network: n}))(t))
	if got := l.get(w1.ID).PrivateNet; len(got) != 0 {
		t.Errorf("detached server is in %v", got)
	}
	_, _, err = l.client.Server.DetachFromNetwork(ctx, w1, hcloud.ServerDetachFromNetworkOpts{Network: n})
	wantCode(t, err, "not_found")
	if err := attach(w1, "10.0.2.12"); err != nil { // free again
		t.Fatal(err)
	}
	if got := must(l.client.Network.GetByID(ctx, n.ID))(t); len(got.Servers) != 3 {
		t.Errorf("network has servers %v", got.Servers)
	}
}

func TestAttachmentIsRefusedWithoutASubnetInTheZoneAndWithOverlap(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	s := l.newServer("web-1")
	empty := l.newNetwork("empty", "10.0.0.0/16")
	_, _, err := l.client.Server.AttachToNetwork(ctx, s, hcloud.ServerAttachToNetworkOpts{Network: empty})
	wantCode(t, err, "no_subnet_available")
	us := must(l.client.Network.Create(ctx, hcloud.NetworkCreateOpts{Name: "us", IPRange: ipNet("10.1.0.0/16"), Subnets: []hcloud.NetworkSubnet{
		{Type: hcloud.NetworkSubnetTypeCloud, IPRange: ipNet("10.1.1.0/24"), NetworkZone: hcloud.NetworkZoneUSEast},
	}}))(t)
	_, _, err = l.client.Server.AttachToNetwork(ctx, s, hcloud.ServerAttachToNetworkOpts{Network: us})
	wantCode(t, err, "no_subnet_available")
	one, two := l.newNetwork("one", "10.2.0.0/16", "10.2.1.0/24"), l.newNetwork("two", "10.2.0.0/20", "10.2.2.0/24")
	l.wait(must(l.client.Server.AttachToNetwork(ctx, s, hcloud.ServerAttachToNetworkOpts{Network: one}))(t))
	_, _, err = l.client.Server.AttachToNetwork(ctx, s, hcloud.ServerAttachToNetworkOpts{Network: two})
	wantCode(t, err, "networks_overlap")
}

func TestDeletingANetworkDetachesItsServers(t *testing.T) {
	l := newLab(t)
	n := l.newNetwork("private", "10.0.0.0/16", "10.0.1.0/24")
	s := l.newServer("web-1", func(o *hcloud.ServerCreateOpts) { o.Networks = []*hcloud.Network{n} })
	if len(s.PrivateNet) != 1 || s.PrivateNet[0].IP.String() != "10.0.1.1" {
		t.Fatalf("server is in %+v", s.PrivateNet)
	}
	if _, err := l.client.Network.Delete(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	l.settle()
	if got := l.get(s.ID).PrivateNet; len(got) != 0 {
		t.Errorf("server is in %v", got)
	}
	if !l.world.told(fmt.Sprintf("detach %d %d", s.ID, n.ID)) || !l.world.told(fmt.Sprintf("delete network %d", n.ID)) {
		t.Error("the world was not told")
	}
}

func TestImpossibleNetworksAreRefused(t *testing.T) {
	l := newLab(t)
	l.newNetwork("taken", "10.0.0.0/16")
	for body, code := range map[string]string{
		`{"name":"taken","ip_range":"10.0.0.0/16"}`: "uniqueness_error",
		`{"name":"a","ip_range":"10.0.0.1/16"}`:     "invalid_input",
		`{"name":"a","ip_range":"198.51.100.0/24"}`: "invalid_input",
		`{"name":"a","ip_range":"10.0.0.0/25"}`:     "invalid_input",
		`{"name":"a"}`:                              "invalid_input",
		`{"ip_range":"10.0.0.0/16"}`:                "invalid_input",
		`{"name":"a","ip_range":"10.0.0.0/16","subnets":[{"type":"cloud","ip_range":"10.0.0.0/24","network_zone":"moon"}]}`:    "invalid_input",
		`{"name":"a","ip_range":"10.0.0.0/16","subnets":[{"type":"cloud","ip_range":"10.0.0.0/31","network_zone":"us-east"}]}`: "invalid_input",
		`{"name":7,"ip_range":"10.0.0.0/16"}`: "invalid_input",
		`{"name":`:                            "json_error",
	} {
		status, _, answer := l.raw("POST", "/v1/networks", testToken, body)
		if errorCode(answer) != code || status < 400 {
			t.Errorf("%s is answered %d %v, want %s", body, status, answer, code)
		}
	}
}

func TestServersLearnOfANetworksNewRange(t *testing.T) {
	l := newLab(t)
	n := l.newNetwork("private", "10.0.0.0/16", "10.0.1.0/24")
	s := l.newServer("web-1", func(o *hcloud.ServerCreateOpts) { o.Networks = []*hcloud.Network{n} })
	l.wait(must(l.client.Network.ChangeIPRange(t.Context(), n, hcloud.NetworkChangeIPRangeOpts{IPRange: ipNet("10.0.0.0/8")}))(t))
	l.settle()
	if got := look(l.world, func(w *recorder) string { return w.nets[s.ID][n.ID].Range.String() }); got != "10.0.0.0/8" {
		t.Errorf("the world has %s", got)
	}
}
