package api

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// addressesOf are the addresses in use in a network, and by which server.
func (s *state) addressesOf(network int64) map[netip.Addr]int64 {
	used := map[netip.Addr]int64{}
	for _, srv := range s.Servers {
		if a := srv.attached(network); a != nil {
			used[a.IP] = srv.ID
			for _, alias := range a.Aliases {
				used[alias] = srv.ID
			}
		}
	}
	return used
}

// usable says whether an address can be a server's: not the gateway, not the
// network's own or broadcast address, nor a subnet's.
func (n *network) usable(s subnet, ip netip.Addr) bool {
	return s.Range.Contains(ip) && ip != n.gateway() &&
		ip != n.Range.Addr() && ip != lastAddr(n.Range) &&
		ip != s.Range.Addr() && ip != lastAddr(s.Range)
}

// freeAddress is the first free address in a subnet of a zone, or only in the
// subnet of a range where that is given.
func (c *call) freeAddress(n *network, zone string, only *netip.Prefix) (netip.Addr, error) {
	used := c.s.addressesOf(n.ID)
	for _, s := range n.Subnets {
		if s.Zone != zone || (only != nil && *only != s.Range) {
			continue
		}
		for ip := s.Range.Addr().Next(); s.Range.Contains(ip); ip = ip.Next() {
			if _, taken := used[ip]; !taken && n.usable(s, ip) {
				return ip, nil
			}
		}
	}
	return netip.Addr{}, failure("no_subnet_available", "no subnet or IP is available for the server within network %d in %s", n.ID, zone)
}

// checkAddress refuses an address that a server cannot have.
func (c *call) checkAddress(n *network, zone, field, raw string, self int64) (netip.Addr, error) {
	ip, err := netip.ParseAddr(raw)
	if err != nil || !ip.Is4() {
		return ip, invalid(field, "'%s' is not an IPv4 address", raw)
	}
	i := slices.IndexFunc(n.Subnets, func(s subnet) bool { return s.Range.Contains(ip) })
	switch {
	case i < 0:
		return ip, failure("ip_not_available", "IP %s is in no subnet of network %d", ip, n.ID)
	case n.Subnets[i].Zone != zone:
		return ip, failure("ip_not_available", "IP %s is in a subnet of zone %s, the server is in %s", ip, n.Subnets[i].Zone, zone)
	case !n.usable(n.Subnets[i], ip):
		return ip, failure("ip_not_available", "IP %s is reserved in network %d", ip, n.ID)
	}
	if owner, taken := c.s.addressesOf(n.ID)[ip]; taken && owner != self {
		return ip, failure("ip_not_available", "IP %s is used by server %d", ip, owner)
	}
	return ip, nil
}

func (c *call) checkAliases(n *network, zone string, primary netip.Addr, raw []string, self int64) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, r := range raw {
		ip, err := c.checkAddress(n, zone, "alias_ips", r, self)
		if err != nil {
			return nil, err
		}
		if ip == primary || slices.Contains(out, ip) {
			return nil, failure("ip_not_available", "IP %s is given twice", ip)
		}
		out = append(out, ip)
	}
	return out, nil
}

func attachToNetwork(c *call) (reply, error) {
	s, err := c.idleServer()
	if err != nil {
		return reply{}, err
	}
	var req struct {
		Network  int64    `json:"network"`
		IP       *string  `json:"ip"`
		AliasIPs []string `json:"alias_ips"`
		IPRange  *string  `json:"ip_range"`
	}
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	n, err := c.network(req.Network)
	if err != nil {
		return reply{}, err
	}
	if s.attached(n.ID) != nil {
		return reply{}, failure("server_already_attached", "server %s is already attached to network %d", s.Name, n.ID)
	}
	if len(s.Networks) >= maxNetworks {
		return reply{}, failure("resource_limit_exceeded", "server %s is in %d networks, which is the most it can be in", s.Name, maxNetworks)
	}
	for _, a := range s.Networks {
		if o, ok := c.s.Networks[a.Network]; ok && o.Range.Overlaps(n.Range) {
			return reply{}, failure("networks_overlap", "network %d overlaps with network %d, which server %s is in", n.ID, o.ID, s.Name)
		}
	}
	zone := c.e.catalog.locationNamed(s.Location).NetworkZone
	a := attachment{Network: n.ID, Pending: true}
	switch {
	case deref(req.IP) != "":
		a.IP, err = c.checkAddress(n, zone, "ip", *req.IP, 0)
	case deref(req.IPRange) != "":
		var only netip.Prefix
		if only, err = parseRange("ip_range", *req.IPRange); err == nil {
			a.IP, err = c.freeAddress(n, zone, &only)
		}
	default:
		a.IP, err = c.freeAddress(n, zone, nil)
	}
	if err != nil {
		return reply{}, err
	}
	if a.Aliases, err = c.checkAliases(n, zone, a.IP, req.AliasIPs, 0); err != nil {
		return reply{}, err
	}
	a.MAC = macAddress(c.s.id())
	s.Networks = append(s.Networks, a)
	return c.created(c.serverAction(s, "attach_to_network", "", actionArgs{Network: n.ID}, n.ref()))
}

// attachmentSpec is an attachment as Machines sees it. The caller holds mu.
func (e *Emulator) attachmentSpec(a attachment) Attachment {
	out := Attachment{Network: a.Network, IP: a.IP, Aliases: slices.Clone(a.Aliases), MAC: a.MAC}
	if n, ok := e.state.Networks[a.Network]; ok {
		out.Range, out.Gateway = n.Range, n.gateway()
	}
	return out
}

// attach tells the world of a server's place in a network.
func (e *Emulator) attach(ctx context.Context, id, network int64) error {
	e.mu.Lock()
	s, ok := e.state.Servers[id]
	if !ok {
		e.mu.Unlock()
		return notFound("server", id)
	}
	a := s.attached(network)
	if a == nil || a.Leaving {
		e.mu.Unlock()
		return nil // detached meanwhile, with the whole network
	}
	spec := e.attachmentSpec(*a)
	e.mu.Unlock()
	if err := e.world.Attach(ctx, id, spec); err != nil {
		return fmt.Errorf("attaching server %d to network %d: %w", id, network, err)
	}
	return nil
}

func (e *Emulator) attachToNetwork(ctx context.Context, a action) (func(*state), error) {
	err := e.attach(ctx, a.Args.Server, a.Args.Network)
	return func(s *state) {
		if err != nil {
			s.detached(a.Args.Server, a.Args.Network)
			return
		}
		s.attachedNow(a.Args.Server, a.Args.Network)
	}, err
}

func detachFromNetwork(c *call) (reply, error) {
	s, err := c.idleServer()
	if err != nil {
		return reply{}, err
	}
	var req schema.ServerActionDetachFromNetworkRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	n, err := c.network(req.Network)
	if err != nil {
		return reply{}, err
	}
	a := s.attached(n.ID)
	if a == nil {
		return reply{}, failure("not_found", "server %s is not attached to network %d", s.Name, n.ID)
	}
	a.Leaving = true
	return c.created(c.serverAction(s, "detach_from_network", "", actionArgs{Network: n.ID}, n.ref()))
}

func (e *Emulator) detachFromNetwork(ctx context.Context, a action) (func(*state), error) {
	apply, err := e.detach(ctx, a.Args.Server, a.Args.Network)
	if err != nil {
		return func(s *state) {
			if srv, ok := s.Servers[a.Args.Server]; ok {
				if at := srv.attached(a.Args.Network); at != nil {
					at.Leaving = false
				}
			}
		}, err
	}
	return apply, nil
}

func (e *Emulator) detach(ctx context.Context, id, network int64) (func(*state), error) {
	if err := e.world.Detach(ctx, id, network); err != nil {
		return nil, fmt.Errorf("detaching server %d from network %d: %w", id, network, err)
	}
	return func(s *state) { s.detached(id, network) }, nil
}

func (s *state) detached(id, network int64) {
	if srv, ok := s.Servers[id]; ok {
		srv.Networks = slices.DeleteFunc(srv.Networks, func(a attachment) bool { return a.Network == network })
	}
}

func changeAliasIPs(c *call) (reply, error) {
	s, err := c.idleServer()
	if err != nil {
		return reply{}, err
	}
	var req schema.ServerActionChangeAliasIPsRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	n, err := c.network(req.Network)
	if err != nil {
		return reply{}, err
	}
	a := s.attached(n.ID)
	if a == nil {
		return reply{}, failure("not_found", "server %s is not attached to network %d", s.Name, n.ID)
	}
	zone := c.e.catalog.locationNamed(s.Location).NetworkZone
	aliases, err := c.checkAliases(n, zone, a.IP, req.AliasIPs, s.ID)
	if err != nil {
		return reply{}, err
	}
	a.Aliases = aliases
	return c.created(c.serverAction(s, "change_alias_ips", "", actionArgs{Network: n.ID}, n.ref()))
}

func (e *Emulator) changeAliasIPs(ctx context.Context, a action) (func(*state), error) {
	return nil, e.attach(ctx, a.Args.Server, a.Args.Network)
}
