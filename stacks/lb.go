package stacks

import (
	"net/netip"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/haproxy"
	"github.com/infractl/infractl/templates/keepalived"
)

// loadBalancers take requests at the virtual IP and pass them to the web servers.
type loadBalancers struct{}

func (loadBalancers) title() string { return "LoadBalancer" }

func (loadBalancers) describe(p *plan, h Host) (desired.Host, error) {
	t := p.env.Tiers[h.Tier]
	debian, err := t.debian()
	if err != nil {
		return desired.Host{}, err
	}
	proxy, err := haproxy.Render(haproxy.Input{
		Debian:       debian,
		Host:         h.Name,
		Address:      h.Address,
		MemoryMB:     p.machines[h.Tier].memoryMB,
		Web:          p.peers(TierWeb, webPort),
		Monitors:     p.env.Monitors,
		DebugHeaders: p.env.DebugHeaders,
	})
	if err != nil {
		return desired.Host{}, err
	}
	var others []netip.Addr
	for _, a := range p.addresses(TierLB) {
		if a != h.Address {
			others = append(others, a)
		}
	}
	mover, err := keepalived.Render(keepalived.Input{
		Debian:   debian,
		Host:     h.Name,
		Address:  h.Address,
		Index:    h.Index,
		Peers:    others,
		Endpoint: endpoint(),
		IPv4:     p.env.VIP.IPv4,
		IPv6:     p.env.VIP.IPv6,
	})
	if err != nil {
		return desired.Host{}, err
	}
	return templates.Merge(proxy, mover)
}

func (loadBalancers) firstBoot() (map[string]string, error) { return nil, nil }

func (loadBalancers) fill(p *plan, s *server) (values, secrets pulumi.StringMap, err error) {
	values = pulumi.StringMap{"server.id": s.server.ID().ToStringOutput()}
	if p.cloud.ipv4 != nil {
		values["vip.ipv4.id"] = p.cloud.ipv4.ID().ToStringOutput()
		values["vip.ipv4.address"] = p.cloud.ipv4.IpAddress
	}
	if p.cloud.ipv6 != nil {
		values["vip.ipv6.id"] = p.cloud.ipv6.ID().ToStringOutput()
		values["vip.ipv6.address"] = p.vipIPv6()
	}
	return values, pulumi.StringMap{"vip.token": pulumi.String(p.vipToken)}, nil
}
