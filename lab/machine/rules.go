package machine

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/template"

	"github.com/infractl/infractl/lab/api"
)

//go:embed network
var networkFiles embed.FS

var ruleTemplates = template.Must(template.New("").
	Funcs(template.FuncMap{"join": func(s []string) string { return strings.Join(s, ", ") }}).
	ParseFS(networkFiles, "network/*.nft.tmpl"))

func render(name string, data any) (string, error) {
	var b bytes.Buffer
	if err := ruleTemplates.ExecuteTemplate(&b, name, data); err != nil {
		return "", fmt.Errorf("render %s: %w", name, err)
	}
	return b.String(), nil
}

// routerRules are what a router's ruleset is rendered from.
type routerRules struct {
	// Dead are ports nothing passes; Cuts are pairs of ports, "from . to".
	Dead, Cuts []string
	// Firewalls are only in the public router.
	Firewalls []portFirewall
}

// portFirewall holds the matches of what is let through at one port.
type portFirewall struct {
	Port    string
	In, Out []string
	// Outbound says whether outbound traffic is limited to Out.
	Outbound bool
}

func newPortFirewall(id int64, rules *api.FirewallRules) portFirewall {
	f := portFirewall{Port: portName(id), Outbound: len(rules.Out) > 0}
	for _, r := range rules.In {
		f.In = append(f.In, matches(r, "saddr")...)
	}
	for _, r := range rules.Out {
		f.Out = append(f.Out, matches(r, "daddr")...)
	}
	return f
}

// matches renders one rule: at most one match each for IPv4 and IPv6.
func matches(r api.FirewallRule, field string) []string {
	var lines []string
	for _, family := range []struct{ ip, proto, icmp string }{{"ip", "ipv4", "icmp"}, {"ip6", "ipv6", "icmpv6"}} {
		var peers []netip.Prefix
		for _, p := range r.Peers {
			if p.Addr().Is4() == (family.ip == "ip") {
				peers = append(peers, p.Masked())
			}
		}
		if len(peers) == 0 {
			continue
		}
		match := "meta nfproto " + family.proto
		if widest := disjoint(peers); widest[0].Bits() > 0 {
			texts := make([]string, len(widest))
			for i, p := range widest {
				texts[i] = p.String()
			}
			match = fmt.Sprintf("%s %s { %s }", family.ip, field, strings.Join(texts, ", "))
		}
		switch r.Protocol {
		case "tcp", "udp":
			ports := fmt.Sprint(r.First)
			if r.Last > r.First {
				ports = fmt.Sprintf("%d-%d", r.First, r.Last)
			}
			match += fmt.Sprintf(" %s dport %s", r.Protocol, ports)
		case "icmp":
			match += " meta l4proto " + family.icmp
		default:
			match += " meta l4proto " + r.Protocol
		}
		lines = append(lines, match)
	}
	return lines
}

// disjoint drops the prefixes that lie within others, which nft does not take
// in one set, and sorts the rest.
func disjoint(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.Clone(prefixes)
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		return cmp.Or(cmp.Compare(a.Bits(), b.Bits()), a.Addr().Compare(b.Addr()))
	})
	var kept []netip.Prefix
	for _, p := range sorted {
		if !slices.ContainsFunc(kept, p.Overlaps) {
			kept = append(kept, p)
		}
	}
	return kept
}
