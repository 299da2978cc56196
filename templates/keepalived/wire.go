package keepalived

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/infractl/infractl/templates"
)

// Wire is what a load balancer has to know about virtual IPs on the wire.
type Wire struct {
	// VIPs are the virtual IPs; each has a master of its own. A load balancer that
	// is alone may have none: then it serves its own addresses.
	VIPs []VIP
}

// VIP is a virtual IP on the wire: addresses that move together.
type VIP struct {
	// RouterID tells VRRP groups on one wire apart: 1 to 255.
	RouterID int
	// Rank is this load balancer's place among those that take the addresses over
	// when several could at once, from 1. With several virtual IPs, each should have
	// another one at the first place.
	Rank int
	// Preempt makes the first in rank take the addresses back when it is well again.
	// Requests that another load balancer is answering then are lost. Without it the
	// addresses stay where they are as long as they can.
	Preempt bool
	// Source is the address by which this load balancer speaks VRRP with Peers, the
	// others. The addresses go to the interface that holds it.
	Source netip.Addr
	Peers  []netip.Addr
	// Addresses are what moves.
	Addresses []Address
}

// Address is one address of a virtual IP.
type Address struct {
	// Prefix is the address with the length that it gets on the interface.
	Prefix netip.Prefix
	// Interface is where it is; empty means the one that holds the source.
	Interface string
}

// interfaceName is what Linux takes and no configuration file has to quote.
var interfaceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$`)

func (w Wire) validate(in Input) error {
	if in.Endpoint != "" || in.IPv4 || in.IPv6 {
		return fmt.Errorf("%w: the virtual IPs of %s are on the wire and in the cloud", templates.ErrInput, in.Host)
	}
	if len(w.VIPs) == 0 && len(in.Peers) > 0 {
		return fmt.Errorf("%w: %s has other load balancers beside it, but no virtual IP to share with them", templates.ErrInput, in.Host)
	}
	routers, addresses := map[int]bool{}, map[netip.Addr]bool{}
	for _, v := range w.VIPs {
		if v.RouterID < 1 || v.RouterID > 255 || routers[v.RouterID] {
			return fmt.Errorf("%w: the router ID %d is not from 1 to 255, or belongs to two virtual IPs", templates.ErrInput, v.RouterID)
		}
		routers[v.RouterID] = true
		if v.Rank < 1 || v.Rank > 100 {
			return fmt.Errorf("%w: the rank for router ID %d is %d, but there can be 1 to 100 load balancers", templates.ErrInput, v.RouterID, v.Rank)
		}
		if err := templates.CheckAddress("the address for VRRP", v.Source); err != nil {
			return err
		}
		if len(v.Peers) != len(in.Peers) {
			return fmt.Errorf("%w: %d other load balancers, but %d of them for router ID %d", templates.ErrInput, len(in.Peers), len(v.Peers), v.RouterID)
		}
		for _, a := range v.Peers {
			if err := templates.CheckAddress("another load balancer's address for VRRP", a); err != nil {
				return err
			}
			if a == v.Source || a.Is4() != v.Source.Is4() {
				return fmt.Errorf("%w: %s cannot speak VRRP with %s", templates.ErrInput, v.Source, a)
			}
		}
		if len(v.Addresses) == 0 {
			return fmt.Errorf("%w: the virtual IP with router ID %d has no address", templates.ErrInput, v.RouterID)
		}
		for _, a := range v.Addresses {
			if !a.Prefix.IsValid() {
				return fmt.Errorf("%w: the virtual IP with router ID %d has an address without a length", templates.ErrInput, v.RouterID)
			}
			address := a.Prefix.Addr()
			if err := templates.CheckAddress("a virtual IP", address); err != nil {
				return err
			}
			if addresses[address] || address == in.Address || address == v.Source || slices.Contains(v.Peers, address) || slices.Contains(in.Peers, address) {
				return fmt.Errorf("%w: the virtual IP %s is a host's own address, or there twice", templates.ErrInput, address)
			}
			addresses[address] = true
			if a.Interface != "" && !interfaceName.MatchString(a.Interface) {
				return fmt.Errorf("%w: %q is no network interface", templates.ErrInput, a.Interface)
			}
		}
	}
	return nil
}

// instance is one VRRP instance.
type instance struct {
	Name               string
	Priority, RouterID int
	// Advert is the time between adverts; after Silence without one a backup takes
	// over. Both are in seconds.
	Advert, Silence string
	Source          netip.Addr
	Peers           []netip.Addr
	// Main are the addresses of the adverts' family, Excluded those of the other,
	// as lines of keepalived.conf.
	Main, Excluded []string
	// Links are interfaces without which this host is no use as the master.
	Links []string
	// Preempt takes the addresses back from another master.
	Preempt bool
}

// advert sets how often a master is heard, in tenths of a second. A backup takes
// over after 3 adverts and the skew, which for the first of two is 56/256 of one
// (RFC 5798, 6.1).
func (i *instance) advert(tenths int) {
	i.Advert = fmt.Sprintf("0.%d", tenths)
	i.Silence = fmt.Sprintf("%.2f", math.Ceil(float64(tenths)*10*(3+float64(256-priority(1))/256))/100)
}

// routerID is that of the one VRRP group of an environment in the cloud.
const routerID = 51

// instances are the VRRP instances of a load balancer.
func (in Input) instances() []instance {
	if in.Wire == nil {
		one := instance{Name: "vip", Priority: priority(in.Index), RouterID: routerID, Source: in.Address, Peers: in.Peers}
		one.advert(2)
		return []instance{one}
	}
	vips := in.Wire.VIPs
	if len(vips) == 0 {
		vips = []VIP{{RouterID: routerID, Rank: in.Index, Source: in.Address}}
	}
	var out []instance
	for n, v := range vips {
		one := instance{Name: "vip", Priority: priority(v.Rank), RouterID: v.RouterID, Source: v.Source, Peers: v.Peers, Preempt: v.Preempt && v.Rank == 1}
		if n > 0 {
			one.Name += "-" + strconv.Itoa(n+1)
		}
		// A killed host is to be replaced within 0.6 s, and half of that is left for
		// what is not keepalived.
		one.advert(1)
		for _, a := range v.Addresses {
			line := a.Prefix.String()
			if a.Interface != "" {
				line += " dev " + a.Interface
				if !slices.Contains(one.Links, a.Interface) {
					one.Links = append(one.Links, a.Interface)
				}
			}
			if a.Prefix.Addr().Is4() == v.Source.Is4() {
				one.Main = append(one.Main, line)
			} else {
				one.Excluded = append(one.Excluded, line)
			}
		}
		out = append(out, one)
	}
	return out
}

// links are the interfaces that instances look after.
func (in Input) links() []string {
	var out []string
	for _, i := range in.instances() {
		for _, link := range i.Links {
			if !slices.Contains(out, link) {
				out = append(out, link)
			}
		}
	}
	return out
}

// onWire are the addresses on the wire with the names of their instances.
func (in Input) onWire() []string {
	var out []string
	for n, i := range in.instances() {
		if in.Wire == nil || n >= len(in.Wire.VIPs) {
			break
		}
		for _, a := range in.Wire.VIPs[n].Addresses {
			out = append(out, i.Name+"="+a.Prefix.Addr().String())
		}
	}
	return out
}

// probes are the virtual IPs that this host can reach when another has them: those
// in the network of its own address for VRRP.
func (in Input) probes() []netip.Addr {
	var out []netip.Addr
	if in.Wire == nil {
		return nil
	}
	for _, v := range in.Wire.VIPs {
		for _, a := range v.Addresses {
			if a.Interface == "" && a.Prefix.Addr().Is4() == v.Source.Is4() {
				out = append(out, a.Prefix.Addr())
			}
		}
	}
	return out
}

// speaker is another load balancer that may speak VRRP with this one.
type speaker struct{ From, To netip.Addr }

func (in Input) speakers() []speaker {
	var out []speaker
	for _, i := range in.instances() {
		for _, a := range i.Peers {
			if s := (speaker{a, i.Source}); !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

// listen is the command that looks whether somebody else uses the router IDs.
func (in Input) listen() string {
	var routers, friends []string
	for _, i := range in.instances() {
		routers = append(routers, strconv.Itoa(i.RouterID))
		for _, a := range append([]netip.Addr{i.Source}, i.Peers...) {
			if !slices.Contains(friends, a.String()) {
				friends = append(friends, a.String())
			}
		}
	}
	return "vrrp-listen 1.2 " + strings.Join(routers, ",") + " " + strings.Join(friends, " ")
}
