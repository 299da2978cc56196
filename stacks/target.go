package stacks

import (
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/infractl/infractl/templates/keepalived"
)

// target provides the hosts of some tiers. What is on the hosts, and in which
// order it changes, does not depend on it.
type target interface {
	// sizes says what the hosts of its tiers have, by short name. It is asked
	// first, since the sizes are in the configuration of every daemon, and
	// declares nothing.
	sizes() (map[string]size, error)
	// share declares what its hosts have in common.
	share() error
	// provide declares the hosts of one of its tiers. A host that is made gets the
	// packages, and the files by path, at its first boot.
	provide(tier string, parent pulumi.Resource, packages []string, files map[string]string) ([]*server, error)
	// vip is the virtual IP of load balancers among its hosts.
	vip() virtualIP
}

// virtualIP is where clients reach the environment.
type virtualIP interface {
	// describe says in a load balancer's description how the virtual IP moves.
	describe(h Host, in *keepalived.Input) error
	// fill gives the values and secrets that the description refers to.
	fill(s *server) (values, secrets pulumi.StringMap)
	// export gives the addresses by family, ipv4 and ipv6, and the URL.
	export() (addresses pulumi.Map, url pulumi.StringInput)
}

// size is what a host has for itself.
type size struct {
	memoryMB int
	cores    int
}

// server is a host as its target provides it.
type server struct {
	Host
	// address is where SSH reaches it, and hostKey by what it is known; nil if the
	// operator's computer knows.
	address pulumi.StringInput
	hostKey pulumi.StringInput
	// user, port and jump are how to log in.
	user string
	port int
	jump string
	// made is the server if this run of the program declares it: everything on it
	// goes with it.
	made pulumi.CustomResource
	// ready has to be there before the host can be configured.
	ready []pulumi.Resource
}

// newTargets are the targets that an environment uses, by name.
func newTargets(ctx *pulumi.Context, env Environment) (map[string]target, error) {
	targets := map[string]target{}
	if env.Uses(TargetCloud) {
		c := &cloud{ctx: ctx, env: env}
		if env.Tiers[TierLB].Target == TargetCloud {
			var err error
			if c.vipToken, err = vipToken(env); err != nil {
				return nil, err
			}
		}
		targets[TargetCloud] = c
	}
	if env.Uses(TargetHosts) {
		targets[TargetHosts] = inventory{env: env}
	}
	return targets, nil
}
