package stacks

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/infractl/infractl/templates/keepalived"
)

// inventory takes servers that no API made. It declares nothing: they were there
// before the environment and are there after it.
type inventory struct{ env Environment }

// sizes divides what a server has among the hosts on it.
func (i inventory) sizes() (map[string]size, error) {
	out := map[string]size{}
	for _, m := range i.env.ownMachines() {
		for _, h := range m.Hosts {
			out[h.Name] = size{memoryMB: h.Own.MemoryMB / len(m.Hosts), cores: h.Own.Cores}
		}
	}
	return out, nil
}

func (inventory) share() error { return nil }

func (i inventory) provide(tier string, _ pulumi.Resource, _ []string, _ map[string]string) ([]*server, error) {
	var out []*server
	for _, h := range i.env.TierHosts(tier) {
		s := &server{Host: h, address: pulumi.String(h.Own.Address), user: h.Own.User, port: h.Own.Port, jump: h.Own.Jump}
		if h.Own.HostKey != "" {
			s.hostKey = pulumi.String(h.Own.HostKey)
		}
		out = append(out, s)
	}
	return out, nil
}

func (i inventory) vip() virtualIP { return wire(i) }

// wire are virtual IPs that load balancers move by VRRP in a network that they share.
type wire struct{ env Environment }

func (w wire) describe(h Host, in *keepalived.Input) error {
	in.Wire = &keepalived.Wire{}
	balancers := w.env.TierHosts(TierLB)
	for n, v := range w.env.VIP.Wire {
		speak, known := w.env.speakers(v)
		if !known && v.Interface == "" {
			return errors.New("the load balancers have no addresses in the network of the virtual IP")
		}
		vip := keepalived.VIP{
			RouterID: v.RouterID, Preempt: v.Preempt, Source: speak[h.Index-1],
			Peers: slices.Concat(speak[:h.Index-1], speak[h.Index:]),
			// Each virtual IP prefers another load balancer, in turn.
			Rank: (h.Index-1+len(balancers)-n%len(balancers))%len(balancers) + 1,
		}
		vip.Addresses = []keepalived.Address{{Prefix: v.Address, Interface: v.Interface}}
		if known {
			// The way into this network is that of the host's own address.
			vip.Addresses[0].Prefix = netip.PrefixFrom(v.Address.Addr(), v.Address.Addr().BitLen())
		}
		if v.IPv6.IsValid() {
			second := keepalived.Address{Prefix: v.IPv6, Interface: v.IPv6Interface}
			if second.Interface == "" {
				second.Interface = v.Interface
			}
			vip.Addresses = append(vip.Addresses, second)
		}
		in.Wire.VIPs = append(in.Wire.VIPs, vip)
	}
	return nil
}

func (wire) fill(*server) (values, secrets pulumi.StringMap) { return nil, nil }

func (w wire) export() (addresses pulumi.Map, url pulumi.StringInput) {
	var all []netip.Addr
	for _, v := range w.env.VIP.Wire {
		all = append(all, v.Address.Addr())
		if v.IPv6.IsValid() {
			all = append(all, v.IPv6.Addr())
		}
	}
	addresses = pulumi.Map{}
	if len(all) == 0 {
		// A single load balancer serves its own address.
		own := w.env.TierHosts(TierLB)[0].Own.Address
		a, err := netip.ParseAddr(own)
		if err != nil {
			return addresses, pulumi.String("http://" + own + "/")
		}
		all = append(all, a)
	}
	for _, a := range all {
		family := "ipv4"
		if a.Is6() {
			family = "ipv6"
		}
		if _, taken := addresses[family]; !taken {
			addresses[family] = pulumi.String(a.String())
		}
	}
	host := all[0].String()
	if all[0].Is6() {
		host = "[" + host + "]"
	}
	return addresses, pulumi.String("http://" + host + "/")
}

// speakers are the addresses by which the load balancers speak VRRP about a virtual
// IP, in order: those that they have in its network, so that who cannot hear them
// cannot reach the virtual IP either. If one of them has none, known is false,
// and the addresses are the private ones.
func (e Environment) speakers(v WireVIP) (addresses []netip.Addr, known bool) {
	var private []netip.Addr
	for _, h := range e.TierHosts(TierLB) {
		private = append(private, h.Address)
		if a, ok := h.Own.in(v.Address); ok {
			addresses = append(addresses, a)
		}
	}
	if len(addresses) < len(private) {
		return private, false
	}
	return addresses, true
}

// in is the server's address in a network, if it is known to have one.
func (s *OwnServer) in(network netip.Prefix) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(s.Address); err == nil && network.Contains(a) {
		return a, true
	}
	return s.Private, network.Contains(s.Private)
}

// endpoint is where SSH reaches a server, to tell servers apart.
func (s *OwnServer) endpoint() string {
	return net.JoinHostPort(strings.ToLower(s.Address), strconv.Itoa(s.Port))
}

// networks are the ranges in which the hosts of a tier have their private
// addresses: the tier's subnet in the cloud, else each host by itself.
func (e Environment) networks(tier string) []netip.Prefix {
	if t := e.Tiers[tier]; t.Target != TargetHosts {
		return []netip.Prefix{t.Subnet}
	}
	var out []netip.Prefix
	for _, h := range e.TierHosts(tier) {
		out = append(out, netip.PrefixFrom(h.Address, h.Address.BitLen()))
	}
	return out
}
