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
	proxy, err := haproxy.Render(haproxy.Input{
		Debian:       h.Debian,
		Host:         h.Name,
		Address:      h.Address,
		MemoryMB:     p.sizes[h.Name].memoryMB,
		Web:          p.peers(TierWeb, p.env.webPort),
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
	in := keepalived.Input{Debian: h.Debian, Host: h.Name, Address: h.Address, Index: h.Index, Peers: others}
	if err := p.vip.describe(h, &in); err != nil {
		return desired.Host{}, err
	}
	mover, err := keepalived.Render(in)
	if err != nil {
		return desired.Host{}, err
	}
	return templates.Merge(proxy, mover)
}

func (loadBalancers) firstBoot() (map[string]string, error) { return nil, nil }

func (loadBalancers) fill(p *plan, s *server) (values, secrets pulumi.StringMap, err error) {
	values, secrets = p.vip.fill(s)
	return values, secrets, nil
}
