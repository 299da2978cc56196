package api

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// pointerSet is the reverse DNS of a public address, by address.
type pointerSet map[netip.Addr]string

// defaultPointer is what an IPv4 address is called until somebody changes it.
// The lab serves no DNS; the names are only reported.
func defaultPointer(ip netip.Addr) string {
	if !ip.Is4() {
		return ""
	}
	parts := strings.Split(ip.String(), ".")
	slices.Reverse(parts)
	return "static." + strings.Join(parts, ".") + ".clients.your-server.de"
}

// pointers lists the reverse DNS of a prefix: always that of an IPv4 address,
// and for IPv6 what was set.
func (p pointerSet) of(prefix netip.Prefix) []schema.FloatingIPDNSPtr {
	out := []schema.FloatingIPDNSPtr{}
	if prefix.Addr().Is4() {
		return append(out, schema.FloatingIPDNSPtr{IP: prefix.Addr().String(), DNSPtr: p.name(prefix.Addr())})
	}
	var ips []netip.Addr
	for ip := range p {
		ips = append(ips, ip)
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	for _, ip := range ips {
		out = append(out, schema.FloatingIPDNSPtr{IP: ip.String(), DNSPtr: p[ip]})
	}
	return out
}

func (p pointerSet) name(ip netip.Addr) string {
	if name, ok := p[ip]; ok {
		return name
	}
	return defaultPointer(ip)
}

// set changes the name of an address in a prefix; nil brings the default back.
func (p *pointerSet) set(prefix netip.Prefix, raw string, name *string) error {
	ip, err := netip.ParseAddr(raw)
	if err != nil || !prefix.Contains(ip) {
		return invalid("ip", "'%s' is not in %s", raw, prefix)
	}
	if name == nil {
		delete(*p, ip)
		return nil
	}
	if *name == "" || len(*name) > 253 {
		return invalid("dns_ptr", "is not a host name")
	}
	if *p == nil {
		*p = pointerSet{}
	}
	(*p)[ip] = *name
	return nil
}

// shownAddress is how the API writes a public address: an IPv4 address, or a
// whole IPv6 network.
func shownAddress(p netip.Prefix) string {
	if p.Addr().Is4() {
		return p.Addr().String()
	}
	return p.String()
}

// pointerRequest asks for a change of reverse DNS.
type pointerRequest struct {
	IP     string  `json:"ip"`
	DNSPtr *string `json:"dns_ptr"`
}
