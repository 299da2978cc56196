package stacks

import (
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates/postgresql"
)

// databases hold the application's data.
type databases struct{}

func (databases) title() string { return "Database" }

func (databases) describe(p *plan, h Host) (desired.Host, error) {
	t := p.env.Tiers[h.Tier]
	disks := map[string]postgresql.Disk{"ssd": postgresql.SSD, "nvme": postgresql.NVMe, "hdd": postgresql.HDD}
	return postgresql.Render(postgresql.Input{
		Debian:      h.Debian,
		Address:     h.Address,
		Port:        databasePort,
		MemoryMB:    p.sizes[h.Name].memoryMB,
		Cores:       p.sizes[h.Name].cores,
		Disk:        disks[t.Options.Disk],
		Application: p.env.Application.Name,
		AppNetworks: p.env.networks(TierApp),
		Checksums:   h.Own != nil,
		Shared:      len(p.machine(h).Hosts) > 1,
	})
}

// firstBoot keeps Debian's package from making a cluster that would be thrown away.
func (databases) firstBoot() (map[string]string, error) { return postgresql.FirstBootFiles() }

func (databases) fill(p *plan, s *server) (values, secrets pulumi.StringMap, err error) {
	tls := p.secrets.databaseTLS[s.Name]
	return pulumi.StringMap{"db.certificate": tls.Certificate}, pulumi.StringMap{
		"db.tls.key":  secretOutput(tls.PrivateKey),
		"db.password": secretOutput(p.secrets.database.Value),
	}, nil
}
