package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// network is a private network. Its routes are kept and reported, but not
// carried out: Machines knows none.
type network struct {
	base
	Range         netip.Prefix          `json:"range"`
	Subnets       []subnet              `json:"subnets,omitempty"`
	Routes        []schema.NetworkRoute `json:"routes,omitempty"`
	Protected     bool                  `json:"protected,omitempty"`
	ExposeVSwitch bool                  `json:"expose_vswitch,omitempty"`
	// Deleting is a network that the API no longer shows, while its servers
	// are being detached.
	Deleting bool `json:"deleting,omitempty"`
}

type subnet struct {
	Kind  string       `json:"kind"`
	Range netip.Prefix `json:"range"`
	Zone  string       `json:"zone"`
}

// privateRanges are those that networks may have (RFC 1918).
var privateRanges = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
}

var zones = []string{"eu-central", "us-east", "us-west", "ap-southeast"}

func (n *network) ref() resource { return resource{"network", n.ID} }

// gateway is what routes between the servers: the network's first address.
func (n *network) gateway() netip.Addr { return n.Range.Addr().Next() }

func (c *call) viewNetwork(n *network) schema.Network {
	v := schema.Network{
		ID: n.ID, Name: n.Name, Created: n.Created, Labels: n.Labels, IPRange: n.Range.String(),
		Subnets: []schema.NetworkSubnet{}, Routes: []schema.NetworkRoute{}, LoadBalancers: []int64{},
		Servers:    c.s.serversOn(n.ID),
		Protection: schema.NetworkProtection{Delete: n.Protected}, ExposeRoutesToVSwitch: n.ExposeVSwitch,
	}
	for _, s := range n.Subnets {
		v.Subnets = append(v.Subnets, schema.NetworkSubnet{
			Type: s.Kind, IPRange: s.Range.String(), NetworkZone: s.Zone, Gateway: n.gateway().String(),
		})
	}
	v.Routes = append(v.Routes, n.Routes...)
	return v
}

// network finds a network that is not being deleted.
func (c *call) network(id int64) (*network, error) {
	n, err := find(c.s.Networks, "network", id)
	if err == nil && n.Deleting {
		err = notFound("network", id)
	}
	return n, err
}

func (c *call) pathNetwork() (*network, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	return c.network(id)
}

func listNetworks(c *call) (reply, error) {
	return listRecords(c, "networks", c.s.Networks,
		func(n *network) bool { return !n.Deleting },
		func(n *network) any { return c.viewNetwork(n) })
}

func getNetwork(c *call) (reply, error) {
	n, err := c.pathNetwork()
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, map[string]any{"network": c.viewNetwork(n)}}, nil
}

func createNetwork(c *call) (reply, error) {
	var req schema.NetworkCreateRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if err := checkName(req.Name); err != nil {
		return reply{}, err
	}
	if err := checkLabels(req.Labels); err != nil {
		return reply{}, err
	}
	if err := unique(c.s.Networks, "network", req.Name, 0); err != nil {
		return reply{}, err
	}
	r, err := parseRange("ip_range", req.IPRange)
	if err != nil {
		return reply{}, err
	}
	if !slices.ContainsFunc(privateRanges, func(p netip.Prefix) bool { return within(r, p) }) {
		return reply{}, invalid("ip_range", "%s is not a private range (RFC 1918)", r)
	}
	if r.Bits() > 24 {
		return reply{}, invalid("ip_range", "%s is smaller than a /24", r)
	}
	n := &network{Range: r, ExposeVSwitch: req.ExposeRoutesToVSwitch}
	for _, s := range req.Subnets {
		if err := n.addSubnet(s.Type, s.IPRange, s.NetworkZone); err != nil {
			return reply{}, err
		}
	}
	for _, route := range req.Routes {
		if err := n.addRoute(route); err != nil {
			return reply{}, err
		}
	}
	n.base = c.newBase(req.Name, req.Labels)
	c.s.Networks[n.ID] = n
	return reply{http.StatusCreated, map[string]any{"network": c.viewNetwork(n)}}, nil
}

func updateNetwork(c *call) (reply, error) {
	n, err := c.pathNetwork()
	if err != nil {
		return reply{}, err
	}
	var req schema.NetworkUpdateRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if err := rename(c.s.Networks, "network", n, req.Name, req.Labels); err != nil {
		return reply{}, err
	}
	if req.ExposeRoutesToVSwitch != nil {
		n.ExposeVSwitch = *req.ExposeRoutesToVSwitch
	}
	return reply{http.StatusOK, map[string]any{"network": c.viewNetwork(n)}}, nil
}

// deleteNetwork answers at once; servers are detached in the background.
func deleteNetwork(c *call) (reply, error) {
	n, err := c.pathNetwork()
	if err != nil {
		return reply{}, err
	}
	if n.Protected {
		return reply{}, protected("network")
	}
	n.Deleting = true
	servers := c.s.serversOn(n.ID)
	n.Name = fmt.Sprintf("%s (deleted %d)", n.Name, n.ID) // the name is free again
	c.after = append(c.after, func() { c.e.removeNetwork(n.ID, servers) })
	return reply{status: http.StatusNoContent}, nil
}

// removeNetwork begins to detach a network's servers, and to remove the
// network when that is done.
func (e *Emulator) removeNetwork(id int64, servers []int64) {
	var detached []<-chan struct{}
	for _, srv := range servers {
		done := make(chan struct{})
		detached = append(detached, done)
		e.jobs.add(serverRef(srv).key(), func() {
			defer close(done)
			ctx, cancel := context.WithTimeout(e.ctx, e.cfg.ActionTimeout)
			defer cancel()
			apply, err := e.detach(ctx, srv, id)
			if err != nil {
				e.log.Error("server not detached from a deleted network", "server", srv, "network", id, "error", err)
				return
			}
			if err := e.update(apply); err != nil {
				e.log.Error("state not saved", "error", err)
			}
		})
	}
	e.jobs.add(resource{"network", id}.key(), func() {
		for _, d := range detached {
			select {
			case <-d:
			case <-e.ctx.Done():
				return
			}
		}
		ctx, cancel := context.WithTimeout(e.ctx, e.cfg.ActionTimeout)
		defer cancel()
		if err := e.world.DeleteNetwork(ctx, id); err != nil {
			e.log.Error("network not removed; it will be at the next start", "network", id, "error", err)
			return
		}
		if err := e.update(func(s *state) { delete(s.Networks, id) }); err != nil {
			e.log.Error("state not saved", "error", err)
		}
	})
}

func (c *call) networkAction(command string, change func(n *network) error) (reply, error) {
	n, err := c.pathNetwork()
	if err != nil {
		return reply{}, err
	}
	if err := change(n); err != nil {
		return reply{}, err
	}
	return c.created(c.done(command, n.ref()))
}

func addSubnet(c *call) (reply, error) {
	var req schema.NetworkActionAddSubnetRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	return c.networkAction("add_subnet", func(n *network) error {
		return n.addSubnet(req.Type, req.IPRange, req.NetworkZone)
	})
}

func (n *network) addSubnet(kind, ipRange, zone string) error {
	switch kind {
	case "cloud", "server":
	case "vswitch":
		return failure("unsupported_error", "the lab has no vSwitches")
	default:
		return invalid("type", "must be cloud")
	}
	if !slices.Contains(zones, zone) {
		return invalid("network_zone", "network zone '%s' is unknown", zone)
	}
	s := subnet{Kind: kind, Zone: zone}
	if ipRange == "" {
		free, err := n.freeSubnet()
		if err != nil {
			return err
		}
		s.Range = free
	} else {
		r, err := parseRange("ip_range", ipRange)
		switch {
		case err != nil:
			return err
		case !within(r, n.Range):
			return invalid("ip_range", "%s is not within the network's range %s", r, n.Range)
		case r.Bits() > 30:
			return invalid("ip_range", "%s is smaller than a /30", r)
		}
		s.Range = r
	}
	if n.overlaps(s.Range) {
		return invalid("ip_range", "%s overlaps with another subnet or a route", s.Range)
	}
	n.Subnets = append(n.Subnets, s)
	return nil
}

func (n *network) overlaps(p netip.Prefix) bool {
	for _, s := range n.Subnets {
		if s.Range.Overlaps(p) {
			return true
		}
	}
	for _, r := range n.Routes {
		if d, err := netip.ParsePrefix(r.Destination); err == nil && d.Bits() > 0 && d.Overlaps(p) {
			return true
		}
	}
	return false
}

// freeSubnet is the first /24 of a network that is not in use.
func (n *network) freeSubnet() (netip.Prefix, error) {
	for p := netip.PrefixFrom(n.Range.Addr(), 24); within(p, n.Range); {
		if !n.overlaps(p) {
			return p, nil
		}
		next := lastAddr(p).Next()
		if !next.IsValid() {
			break
		}
		p = netip.PrefixFrom(next, 24)
	}
	return netip.Prefix{}, failure("no_subnet_available", "no /24 is left in %s", n.Range)
}

func deleteSubnet(c *call) (reply, error) {
	var req schema.NetworkActionDeleteSubnetRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	return c.networkAction("delete_subnet", func(n *network) error {
		r, err := parseRange("ip_range", req.IPRange)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(n.Subnets, func(s subnet) bool { return s.Range == r })
		if i < 0 {
			return failure("not_found", "subnet %s not found in network %d", r, n.ID)
		}
		for ip := range c.s.addressesOf(n.ID) {
			if r.Contains(ip) {
				// Clients know this by its words: "servers are attached".
				return failure("service_error", "cannot remove subnet because servers are attached to it")
			}
		}
		n.Subnets = slices.Delete(n.Subnets, i, i+1)
		return nil
	})
}

func addRoute(c *call) (reply, error) {
	var req schema.NetworkRoute
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	return c.networkAction("add_route", func(n *network) error { return n.addRoute(req) })
}

func (n *network) addRoute(r schema.NetworkRoute) error {
	d, err := parseRange("destination", r.Destination)
	if err != nil {
		return err
	}
	gateway, err := netip.ParseAddr(r.Gateway)
	switch {
	case err != nil:
		return invalid("gateway", "'%s' is not an IP address", r.Gateway)
	case !n.Range.Contains(gateway) || gateway == n.gateway():
		return invalid("gateway", "%s cannot be the gateway of a route in %s", gateway, n.Range)
	case d.Bits() > 0 && n.overlaps(d):
		return invalid("destination", "%s overlaps with a subnet or another route", d)
	}
	n.Routes = append(n.Routes, schema.NetworkRoute{Destination: d.String(), Gateway: gateway.String()})
	return nil
}

func deleteRoute(c *call) (reply, error) {
	var req schema.NetworkRoute
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	return c.networkAction("delete_route", func(n *network) error {
		i := slices.Index(n.Routes, req)
		if i < 0 {
			return failure("not_found", "route to %s through %s not found in network %d", req.Destination, req.Gateway, n.ID)
		}
		n.Routes = slices.Delete(n.Routes, i, i+1)
		return nil
	})
}

// changeRange extends a network. Its servers learn of it.
func changeRange(c *call) (reply, error) {
	var req schema.NetworkActionChangeIPRangeRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	return c.networkAction("change_ip_range", func(n *network) error {
		r, err := parseRange("ip_range", req.IPRange)
		switch {
		case err != nil:
			return err
		case r.Addr() != n.Range.Addr() || r.Bits() > n.Range.Bits():
			return invalid("ip_range", "%s does not extend %s at its end", r, n.Range)
		}
		n.Range = r
		for _, id := range c.s.serversOn(n.ID) {
			c.later(serverRef(id).key(), func() {
				ctx, cancel := context.WithTimeout(c.e.ctx, c.e.cfg.ActionTimeout)
				defer cancel()
				if err := c.e.attach(ctx, id, n.ID); err != nil {
					c.e.log.Error("server does not know its network's new range", "server", id, "error", err)
				}
			})
		}
		return nil
	})
}

func changeNetworkProtection(c *call) (reply, error) {
	var req schema.NetworkActionChangeProtectionRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	return c.networkAction("change_protection", func(n *network) error {
		if req.Delete != nil {
			n.Protected = *req.Delete
		}
		return nil
	})
}

// parseRange reads an IPv4 range whose host bits are zero.
func parseRange(field, s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, invalid(field, "'%s' is not a range in CIDR notation", s)
	case !p.Addr().Is4():
		return p, invalid(field, "%s is not IPv4", p)
	case p != p.Masked():
		return p, invalid(field, "%s has bits set beyond its mask; did you mean %s?", p, p.Masked())
	}
	return p, nil
}

// within says whether a range lies in another.
func within(inner, outer netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}
