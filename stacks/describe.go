package stacks

import (
	"fmt"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates/application"
	"github.com/infractl/infractl/templates/haproxy"
	"github.com/infractl/infractl/templates/nginx"
)

// Describe says what is to be on the machines that no API made, by their names: what
// the program would declare for them, but without the values and secrets that only the
// state knows, whose placeholders stay. It asks nobody.
func Describe(env Environment) (map[string]desired.Host, error) {
	own := inventory{env: env}
	p := &plan{env: env, machines: env.Machines(), vip: own.vip()}
	var err error
	if p.release, err = releaseTrees(env.Application); err != nil {
		return nil, err
	}
	if p.sizes, err = own.sizes(); err != nil {
		return nil, err
	}
	out := map[string]desired.Host{}
	for _, m := range env.ownMachines() {
		if out[m.Name], err = p.describe(m); err != nil {
			return nil, fmt.Errorf("%s: cannot render its configuration: %w", m.Name, err)
		}
	}
	return out, nil
}

// OwnMachines are the machines that no API made, in the order in which their first
// hosts' tiers are configured.
func (e Environment) OwnMachines() []Machine { return e.ownMachines() }

// Ports are the TCP ports that the environment takes on a machine, but for that of
// SSH, and who listens there.
func (e Environment) Ports(m Machine) map[int]string {
	ports := e.fixedPorts(m, e.Application.Processes)
	if _, serves := m.host(TierApp); serves {
		ports[e.Application.Port] = "the application"
	}
	return ports
}

// fixedPorts are those that the operator does not choose. processes is how many of the
// application's may run.
func (e Environment) fixedPorts(m Machine, processes int) map[int]string {
	ports := map[int]string{}
	for _, h := range m.Hosts {
		switch h.Tier {
		case TierLB:
			ports[80], ports[443] = "HAProxy", "HAProxy"
			ports[haproxy.MonitorPort], ports[haproxy.MetricsPort] = "HAProxy", "HAProxy"
		case TierWeb:
			ports[int(e.webPort(h))], ports[nginx.StatusPort] = "nginx", "nginx"
		case TierDB:
			ports[databasePort] = "PostgreSQL"
		case TierApp:
			for i := 1; i <= processes; i++ {
				ports[application.FirstPort+i] = "the application's processes"
			}
		}
	}
	return ports
}
