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
	debian, err := t.debian()
	if err != nil {
		return desired.Host{}, err
	}
	return nginx.Render(nginx.Input{
		Debian:         debian,
		Host:           h.Name,
		Address:        h.Address,
		Port:           webPort,
		MemoryMB:       p.machines[h.Tier].memoryMB,
		Cores:          p.machines[h.Tier].cores,
		LBs:            p.addresses(TierLB),
		App:            p.peers(TierApp, uint16(p.env.Application.Port)),
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
