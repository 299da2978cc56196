package machine

import (
	"net"
	"net/netip"
	"testing"
)

func TestAddressesLieInTheLabsRanges(t *testing.T) {
	for _, p := range []netip.Prefix{Servers4, Wire4, Computer4, router4} {
		if !Range4.Contains(p.Addr()) {
			t.Errorf("%s is outside %s", p, Range4)
		}
	}
	for _, p := range []netip.Prefix{Servers6, Wire6, Computer6, router6} {
		if !Range6.Contains(p.Addr()) {
			t.Errorf("%s is outside %s", p, Range6)
		}
	}
	// No server can get an address of the link between computer and router.
	if Servers4.Overlaps(Computer4.Masked()) || Servers6.Overlaps(Computer6.Masked()) {
		t.Error("servers could get the computer's address")
	}
	if Servers4.Overlaps(Wire4) || Servers6.Overlaps(Wire6) || Wire4.Overlaps(Computer4) || Wire6.Overlaps(Computer6) {
		t.Error("the wire's networks are others', too")
	}
	if !Computer4.Contains(router4.Addr()) || !Computer6.Contains(router6.Addr()) {
		t.Error("computer and router are not on one link")
	}
}

func TestPortAddressesFollowFromTheServer(t *testing.T) {
	if got := publicMAC(0x01020304).String(); got != "96:00:01:02:03:04" {
		t.Error(got)
	}
	mac, _ := net.ParseMAC("86:00:00:98:96:83")
	if got := linkLocal(mac).String(); got != "fe80::8400:ff:fe98:9683" {
		t.Error(got)
	}
	if got := firstHost(netip.MustParsePrefix("2001:db8:1ab:7::/64")).String(); got != "2001:db8:1ab:7::1" {
		t.Error(got)
	}
	// The kernel takes 15 characters (IFNAMSIZ less the end).
	if got := portName(99999999999999); len(got) > 15 {
		t.Errorf("%s has %d characters", got, len(got))
	}
	if privateInterface(0) != "enp7s0" || privateInterface(2) != "enp9s0" {
		t.Error(privateInterface(0), privateInterface(2))
	}
}

func TestMachinesAskNameServersTheyCanReach(t *testing.T) {
	for text, want := range map[string]string{
		"nameserver 192.0.2.53\nnameserver fd00::53\nsearch x\n": "nameserver 192.0.2.53\n",
		"# local\nnameserver 127.0.0.53\noptions edns0\n":        "nameserver 198.19.255.1\n",
		"nameserver ::1\n": "nameserver 198.19.255.1\n",
		"nameserver 127.0.0.1\nnameserver 203.0.113.9": "nameserver 203.0.113.9\n",
		"": "",
	} {
		r := parseResolvers(text)
		if got := r.conf(); got != want {
			t.Errorf("%q gives %q, want %q", text, got, want)
		}
		if r.relay != (want == "nameserver 198.19.255.1\n") {
			t.Errorf("%q: relay %v", text, r.relay)
		}
	}
}
