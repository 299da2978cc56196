package stacks

import (
	"fmt"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates/application"
)

// applications run the user's release.
type applications struct{}

func (applications) title() string { return "Application" }

func (applications) describe(p *plan, h Host) (desired.Host, error) {
	a := p.env.Application
	return application.Render(application.Input{
		Debian:            h.Debian,
		Host:              h.Name,
		Address:           h.Address,
		Port:              uint16(a.Port),
		Processes:         a.Processes,
		Name:              a.Name,
		Release:           p.release.application,
		Command:           a.Command,
		Environment:       a.Environment,
		SecretEnvironment: p.env.secretNames(),
		Health:            a.Health,
		Web:               p.addresses(TierWeb),
		Database:          p.env.TierHosts(TierDB)[0].Address,
		DatabasePort:      databasePort,
		MemoryMB:          p.sizes[h.Name].memoryMB,
	})
}

func (applications) firstBoot() (map[string]string, error) { return nil, nil }

func (applications) fill(p *plan, _ *server) (values, secrets pulumi.StringMap, err error) {
	secrets = pulumi.StringMap{"db.password": secretOutput(p.secrets.database.Value)}
	for name, v := range p.env.ApplicationSecrets {
		quoted, err := application.QuoteSecret(name, v)
		if err != nil {
			return nil, nil, fmt.Errorf("infractl:applicationSecrets: %w", err)
		}
		secrets["env."+name] = pulumi.String(quoted)
	}
	return pulumi.StringMap{"db.ca": p.secrets.authority.Certificate}, secrets, nil
}
