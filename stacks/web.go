package stacks

import (
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates/nginx"
)

// webServers serve static files and pass everything else to the application.
type webServers struct{}

func (webServers) title() string { return "Web" }

func (webServers) describe(p *plan, h Host) (desired.Host, error) {
	t := p.env.Tiers[h.Tier]
	return nginx.Render(nginx.Input{
		Debian:         h.Debian,
		Host:           h.Name,
		Address:        h.Address,
		Port:           p.env.webPort(h),
		MemoryMB:       p.sizes[h.Name].memoryMB,
		Cores:          p.sizes[h.Name].cores,
		LBs:            p.addresses(TierLB),
		App:            p.peers(TierApp, func(Host) uint16 { return uint16(p.env.Application.Port) }),
		Application:    p.env.Application.Name,
		Static:         p.release.static,
		ImmutablePaths: t.Options.ImmutablePaths,
		Monitors:       p.env.Monitors,
		DebugHeaders:   p.env.DebugHeaders,
	})
}

func (webServers) firstBoot() (map[string]string, error) { return nil, nil }

func (webServers) fill(*plan, *server) (values, secrets pulumi.StringMap, err error) {
	return nil, nil, nil
}
