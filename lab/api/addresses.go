package api

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// publicPrefixes are all public addresses in use: /32 and /64.
func (s *state) publicPrefixes() map[netip.Prefix]bool {
	used := map[netip.Prefix]bool{}
	for _, p := range s.PrimaryIPs {
		used[p.Prefix] = true
	}
	for _, f := range s.FloatingIPs {
		used[f.Prefix] = true
	}
	return used
}

// takePublic takes a free public address of a type, ipv4 or ipv6.
func (c *call) takePublic(kind string) (netip.Prefix, error) {
	if kind == "ipv6" {
		return c.takeIPv6()
	}
	return c.takeIPv4()
}

func (c *call) takeIPv4() (netip.Prefix, error) {
	pool := c.e.cfg.IPv4Pool
	used := c.s.publicPrefixes()
	first := pool.Addr().Next() // the pool's own address names it
	at := c.s.NextIPv4
	if !at.IsValid() || !pool.Contains(at) {
		at = first
	}
	for range 1 << (32 - pool.Bits()) {
		p := netip.PrefixFrom(at, 32)
		at = at.Next()
		if !pool.Contains(at) {
			at = first
		}
		// Addresses that would be a network's own or its broadcast address in
		// a /24 are left out: they make poor hosts.
		last := p.Addr().As4()[3]
		if last != 0 && last != 255 && pool.Contains(p.Addr()) && !used[p] && !c.e.reserved(p) {
			c.s.NextIPv4 = at
			return p, nil
		}
	}
	return netip.Prefix{}, failure("resource_unavailable", "no public IPv4 address is left in %s", pool)
}

func (c *call) takeIPv6() (netip.Prefix, error) {
	pool := c.e.cfg.IPv6Pool
	used := c.s.publicPrefixes()
	networks := uint64(1) << min(64-pool.Bits(), 32)
	high := pool.Addr().As16()
	start := binary.BigEndian.Uint64(high[:8])
	at := c.s.NextIPv6
	for range networks {
		if at%networks == 0 {
			at = 1 // the first /64 is left to the lab itself
		}
		raw := high
		binary.BigEndian.PutUint64(raw[:8], start+at%networks)
		p := netip.PrefixFrom(netip.AddrFrom16(raw), 64)
		at++
		if !used[p] && !c.e.reserved(p) {
			c.s.NextIPv6 = at
			return p, nil
		}
	}
	return netip.Prefix{}, failure("resource_unavailable", "no public IPv6 network is left in %s", pool)
}

func (e *Emulator) reserved(p netip.Prefix) bool {
	return slices.ContainsFunc(e.cfg.Reserved, func(r netip.Prefix) bool { return r.Overlaps(p) })
}

// lastAddr is the last address of a prefix: the broadcast address in IPv4.
func lastAddr(p netip.Prefix) netip.Addr {
	raw := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(raw[:]) | uint32(1<<(32-p.Bits())-1)
	binary.BigEndian.PutUint32(raw[:], n)
	return netip.AddrFrom4(raw)
}
