package keepalived

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/golden"
)

func onWire(debian int) Input {
	return Input{
		Debian: debian, Host: "lb-1", Address: netip.MustParseAddr("10.0.1.11"), Index: 1,
		Peers: []netip.Addr{netip.MustParseAddr("10.0.1.12")},
		Wire: &Wire{VIPs: []VIP{{
			RouterID: 51, Rank: 1, Source: netip.MustParseAddr("192.0.2.11"), Peers: []netip.Addr{netip.MustParseAddr("192.0.2.12")},
			Addresses: []Address{{Prefix: netip.MustParsePrefix("192.0.2.10/32")}, {Prefix: netip.MustParsePrefix("2001:db8::10/128")}},
		}}},
	}
}

func TestRendersTheWireAsInTestdata(t *testing.T) {
	for _, debian := range []int{12, 13} {
		host, err := Render(onWire(debian))
		if err != nil {
			t.Fatal(err)
		}
		golden.Host(t, fmt.Sprintf("wire-debian-%d", debian), host)
	}
	// Both load balancers serve, each at a virtual IP of its own, and the second
	// of these is on another interface than the adverts.
	in := onWire(13)
	in.Wire.VIPs[0].Addresses, in.Wire.VIPs[0].Preempt = in.Wire.VIPs[0].Addresses[:1], true
	in.Wire.VIPs = append(in.Wire.VIPs, VIP{
		RouterID: 52, Rank: 2, Preempt: true, Source: in.Address, Peers: in.Peers,
		Addresses: []Address{{netip.MustParsePrefix("198.51.100.10/24"), "eth1"}, {netip.MustParsePrefix("2001:db8:7::10/64"), "eth1"}},
	})
	host, err := Render(in)
	if err != nil {
		t.Fatal(err)
	}
	golden.Host(t, "wire-two", host)
	// A single load balancer that serves its own address.
	in = onWire(12)
	in.Peers, in.Wire.VIPs = nil, nil
	if host, err = Render(in); err != nil {
		t.Fatal(err)
	}
	golden.Host(t, "wire-alone", host)
}

func TestNothingOnTheWireNeedsTheCloud(t *testing.T) {
	host, err := Render(onWire(13))
	if err != nil {
		t.Fatal(err)
	}
	values, secrets, interfaces := templates.Placeholders(host)
	if want := "[] [] [192.0.2.11]"; fmt.Sprint(values, secrets, interfaces) != want {
		t.Errorf("needed are %v %v %v, want %s", values, secrets, interfaces, want)
	}
	if slices.Contains(host.Packages, "jq") {
		t.Errorf("packages are %v", host.Packages)
	}
	for path, file := range host.Files {
		for _, word := range []string{"floating", "VIP_API", "infractl-vip.service", "vrrp.fifo", "vip.curl"} {
			if strings.Contains(file.Content, word) {
				t.Errorf("%s says %q", path, word)
			}
		}
	}
}

func TestEachVirtualIPCanPreferAnotherLoadBalancer(t *testing.T) {
	in := onWire(13)
	second := in.Wire.VIPs[0]
	in.Wire.VIPs[0].Preempt, second.Preempt = true, true
	second.RouterID, second.Rank, second.Addresses = 52, 2, []Address{{Prefix: netip.MustParsePrefix("192.0.2.20/32")}}
	in.Wire.VIPs = append(in.Wire.VIPs, second)
	host, err := Render(in)
	if err != nil {
		t.Fatal(err)
	}
	text := host.Files["/etc/keepalived/keepalived.conf"].Content
	first, rest, found := strings.Cut(text, "vrrp_instance vip-2 {")
	if !found || !strings.Contains(first, "preempt_delay 10\n    priority 200\n") || !strings.Contains(rest, "nopreempt\n    priority 199\n") {
		t.Errorf("the configuration is\n%s", text)
	}
}

func TestWireThatCannotWorkIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"router ID zero":                func(in *Input) { in.Wire.VIPs[0].RouterID = 0 },
		"router ID 256":                 func(in *Input) { in.Wire.VIPs[0].RouterID = 256 },
		"one router ID for two":         func(in *Input) { in.Wire.VIPs = append(in.Wire.VIPs, in.Wire.VIPs[0]) },
		"rank zero":                     func(in *Input) { in.Wire.VIPs[0].Rank = 0 },
		"no source":                     func(in *Input) { in.Wire.VIPs[0].Source = netip.Addr{} },
		"itself as a peer":              func(in *Input) { in.Wire.VIPs[0].Peers[0] = in.Wire.VIPs[0].Source },
		"a peer of another family":      func(in *Input) { in.Wire.VIPs[0].Peers[0] = netip.MustParseAddr("2001:db8::12") },
		"a peer that is not there":      func(in *Input) { in.Wire.VIPs[0].Peers = nil },
		"no address":                    func(in *Input) { in.Wire.VIPs[0].Addresses = nil },
		"an address that is none":       func(in *Input) { in.Wire.VIPs[0].Addresses[0].Prefix = netip.Prefix{} },
		"the host's own address":        func(in *Input) { in.Wire.VIPs[0].Addresses[0].Prefix = netip.MustParsePrefix("192.0.2.11/32") },
		"a peer's address":              func(in *Input) { in.Wire.VIPs[0].Addresses[0].Prefix = netip.MustParsePrefix("10.0.1.12/32") },
		"one address twice":             func(in *Input) { in.Wire.VIPs[0].Addresses[1] = in.Wire.VIPs[0].Addresses[0] },
		"an interface with a brace":     func(in *Input) { in.Wire.VIPs[0].Addresses[0].Interface = "eth0 }" },
		"no virtual IP for two":         func(in *Input) { in.Wire.VIPs = nil },
		"the wire and the cloud's API":  func(in *Input) { in.Endpoint = "https://api.hetzner.cloud/v1" },
		"the wire and a floating IP":    func(in *Input) { in.IPv4 = true },
		"no release":                    func(in *Input) { in.Debian = 0 },
		"an interface of 16 characters": func(in *Input) { in.Wire.VIPs[0].Addresses[0].Interface = "enp0s31f6abcdefg" },
	} {
		in := onWire(13)
		change(&in)
		if _, err := Render(in); !errors.Is(err, templates.ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
