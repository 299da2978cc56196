package api

import (
	"net/http"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// vat is the rate that gross prices contain, in percent (Germany's).
const vat = 19

// hoursPerMonth is how many hours of a server cost as much as a month of it.
const hoursPerMonth = 624

func price(cents float64) schema.Price {
	return schema.Price{Net: euros(cents), Gross: euros(cents * (100 + vat) / 100)}
}

func monthly(cents int) schema.Price { return price(float64(cents)) }
func hourly(cents int) schema.Price  { return price(float64(cents) / hoursPerMonth) }

// pricing is the schema's, without what the API no longer sends.
type pricing struct {
	schema.Pricing
	FloatingIP schema.PricingFloatingIP `json:"floating_ip"`
	PrimaryIPs []primaryIPPrices        `json:"primary_ips"`
	Traffic    *struct{}                `json:"traffic,omitempty"`
}

type primaryIPPrices struct {
	Type   string           `json:"type"`
	Prices []primaryIPPrice `json:"prices"`
}

type primaryIPPrice struct {
	Location     string       `json:"location"`
	PriceHourly  schema.Price `json:"price_hourly"`
	PriceMonthly schema.Price `json:"price_monthly"`
}

// getPricing answers GET /pricing. As in the catalogue, the figures are only
// plausible. The lab has no load balancers of the cloud's.
func getPricing(c *call) (reply, error) {
	p := pricing{Pricing: schema.Pricing{
		Currency: "EUR", VATRate: "19.00",
		Image:             schema.PricingImage{PricePerGBMonth: price(1.1)},
		FloatingIPs:       []schema.PricingFloatingIPType{},
		ServerBackup:      schema.PricingServerBackup{Percentage: "20.00"},
		ServerTypes:       []schema.PricingServerType{},
		LoadBalancerTypes: []schema.PricingLoadBalancerType{},
		Volume:            schema.PricingVolume{PricePerGBPerMonth: price(4.4)},
	}, FloatingIP: schema.PricingFloatingIP{PriceMonthly: monthly(300)}}
	for _, kind := range []struct {
		name              string
		floating, primary int
	}{{"ipv4", 300, 50}, {"ipv6", 100, 0}} {
		floating := schema.PricingFloatingIPType{Type: kind.name, Prices: []schema.PricingFloatingIPTypePrice{}}
		primary := primaryIPPrices{Type: kind.name, Prices: []primaryIPPrice{}}
		for _, l := range c.e.catalog.locations {
			floating.Prices = append(floating.Prices, schema.PricingFloatingIPTypePrice{Location: l.Name, PriceMonthly: monthly(kind.floating)})
			primary.Prices = append(primary.Prices, primaryIPPrice{Location: l.Name, PriceHourly: hourly(kind.primary), PriceMonthly: monthly(kind.primary)})
		}
		p.FloatingIPs = append(p.FloatingIPs, floating)
		p.PrimaryIPs = append(p.PrimaryIPs, primary)
	}
	for _, t := range c.e.catalog.serverTypes {
		p.ServerTypes = append(p.ServerTypes, schema.PricingServerType{ID: t.ID, Name: t.Name, Prices: t.Prices})
	}
	return reply{http.StatusOK, map[string]any{"pricing": p}}, nil
}
