// Package price says what an environment costs in a month, by the cloud's own
// price list. Prices are net: without value added tax.
package price

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"github.com/infractl/infractl/stacks"
)

// Scope says in words what a price counts and what it does not.
const Scope = "servers, their IPv4 addresses, floating IPs and volumes; without VAT, backups and traffic beyond what is included"

// List is a price list: net prices of a month.
type List struct {
	Currency string
	// servers are by server type and location, the addresses by family (ipv4,
	// ipv6) and location. Prices are kept as they came, and read when needed.
	servers, primary, floating map[offer]string
	// gigabyte is a month of a gigabyte of a volume.
	gigabyte string
}

// offer is something that is sold in a location.
type offer struct{ name, location string }

// FromCloud reads the answer of GET /pricing.
func FromCloud(p hcloud.Pricing) List {
	l := List{
		Currency: p.Currency,
		servers:  map[offer]string{}, primary: map[offer]string{}, floating: map[offer]string{},
		gigabyte: p.Volume.PerGBMonthly.Net,
	}
	for _, t := range p.ServerTypes {
		for _, at := range t.Pricings {
			l.servers[offer{t.ServerType.Name, at.Location.Name}] = at.Monthly.Net
		}
	}
	for _, t := range p.PrimaryIPs {
		for _, at := range t.Pricings {
			l.primary[offer{t.Type, at.Location}] = at.Monthly.Net
		}
	}
	for _, t := range p.FloatingIPs {
		for _, at := range t.Pricings {
			l.floating[offer{string(t.Type), at.Location.Name}] = at.Monthly.Net
		}
	}
	return l
}

// Line is one thing that is paid for.
type Line struct {
	// Item is what it is, such as "server cx23 in fsn1".
	Item  string `json:"item"`
	Count int    `json:"count"`
	Each  Amount `json:"each"`
	Sum   Amount `json:"sum"`
}

// Bill is what a month costs.
type Bill struct {
	Currency string `json:"currency"`
	Total    Amount `json:"total"`
	Lines    []Line `json:"lines"`
}

// Need is what is rented of the cloud: how many of what.
type Need struct {
	servers, primary, floating map[offer]int
	gigabytes                  int
}

// NeedOf is what an environment rents. Every server has an IPv4 address of its
// own; its IPv6 addresses cost nothing. An environment has no volumes so far:
// the databases are on the servers' own disks.
func NeedOf(e stacks.Environment) Need {
	n := Need{servers: map[offer]int{}, primary: map[offer]int{}, floating: map[offer]int{}}
	for _, t := range e.Tiers {
		n.servers[offer{t.Type, t.Location}] += t.Count
		n.primary[offer{"ipv4", t.Location}] += t.Count
	}
	home := e.Tiers[stacks.TierLB].Location
	if e.VIP.IPv4 {
		n.floating[offer{"ipv4", home}]++
	}
	if e.VIP.IPv6 {
		n.floating[offer{"ipv6", home}]++
	}
	return n
}

// Of is what an environment costs in a month.
func (l List) Of(e stacks.Environment) (Bill, error) { return l.Price(NeedOf(e)) }

// Price is what something that is rented costs in a month. It fails if the list
// lacks one of its prices.
func (l List) Price(n Need) (Bill, error) {
	b := Bill{Currency: l.Currency}
	for _, group := range []struct {
		noun   string
		need   map[offer]int
		prices map[offer]string
	}{
		{"server %s in %s", n.servers, l.servers},
		{"%s address of a server in %s", n.primary, l.primary},
		{"floating %s address in %s", n.floating, l.floating},
	} {
		for _, o := range slices.SortedFunc(maps.Keys(group.need), compare) {
			item := fmt.Sprintf(group.noun, family(o.name), o.location)
			if err := b.add(item, group.need[o], group.prices[o]); err != nil {
				return Bill{}, err
			}
		}
	}
	if n.gigabytes > 0 {
		if err := b.add("gigabyte of a volume", n.gigabytes, l.gigabyte); err != nil {
			return Bill{}, err
		}
	}
	return b, nil
}

func (b *Bill) add(item string, count int, price string) error {
	if count == 0 {
		return nil
	}
	if price == "" {
		return fmt.Errorf("the cloud's price list has no %s", item)
	}
	each, err := ParseAmount(price)
	if err != nil {
		return fmt.Errorf("%s: %w", item, err)
	}
	line := Line{Item: item, Count: count, Each: each, Sum: each.Times(count)}
	b.Lines = append(b.Lines, line)
	b.Total = b.Total.Plus(line.Sum)
	return nil
}

// family writes ipv4 and ipv6 as people do.
func family(name string) string {
	switch name {
	case "ipv4", "ipv6":
		return "IP" + name[2:]
	}
	return name
}

func compare(a, b offer) int {
	if c := strings.Compare(a.name, b.name); c != 0 {
		return c
	}
	return strings.Compare(a.location, b.location)
}
