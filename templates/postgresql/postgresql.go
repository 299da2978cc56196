// Package postgresql renders the database tier: one PostgreSQL server, tuned to
// its host, that answers the application hosts only, over TLS and with
// SCRAM-SHA-256 only.
package postgresql

import (
	"embed"
	"fmt"
	"net/netip"
	"strings"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/duty"
)

//go:embed *.tmpl *.sh
var files embed.FS

// What has to be filled in for the files of this package.
const (
	// CertificateValue is the value with the server's certificate (PEM), which
	// has to be valid for the private address.
	CertificateValue = "db.certificate"
	// KeySecret is the secret with the certificate's key (PEM).
	KeySecret = "db.tls.key"
	// PasswordSecret is the secret with the application role's password, made
	// of letters and digits.
	PasswordSecret = "db.password"
)

// Disk is the kind of disk that holds the database.
type Disk string

// Kinds of disks.
const (
	SSD  Disk = "ssd"
	NVMe Disk = "nvme"
	HDD  Disk = "hdd"
)

// Input describes one database host.
type Input struct {
	// Debian is the release: 12 brings PostgreSQL 15, 13 brings 17.
	Debian int
	// Address is the private address, Port where the server listens on it.
	Address netip.Addr
	Port    uint16
	// MemoryMB is the host's memory in MiB, Cores its number of processors.
	MemoryMB, Cores int
	// Disk is the kind of its disk; empty means SSD.
	Disk Disk
	// Application is the name of the application's role and of its database.
	Application string
	// AppNetworks are the ranges of the application hosts' private addresses.
	AppNetworks []netip.Prefix
	// Shared says that the host is one of other tiers, too. Then it can step aside
	// for those, while the database goes on.
	Shared bool
	// Checksums turns on data checksums at the first start. It is for hosts that
	// cannot have FirstBootFiles before their packages.
	Checksums bool
}

// reserved are names that PostgreSQL and Debian use themselves.
var reserved = map[string]bool{"postgres": true, "template0": true, "template1": true, "public": true, "none": true, "all": true, "replication": true, "sameuser": true, "samerole": true, "samegroup": true}

// Validate says what is wrong with the input, or nil.
func (in Input) Validate() error {
	if err := templates.CheckDebian(in.Debian); err != nil {
		return err
	}
	if err := templates.CheckAddress("the private address", in.Address); err != nil {
		return err
	}
	if err := templates.CheckPort("the database's port", in.Port); err != nil {
		return err
	}
	if err := templates.CheckMemory(in.MemoryMB); err != nil {
		return err
	}
	if err := templates.CheckCores(in.Cores); err != nil {
		return err
	}
	switch in.Disk {
	case "", SSD, NVMe, HDD:
	default:
		return fmt.Errorf("%w: the kind of disk is %q, but it can be ssd, nvme or hdd", templates.ErrInput, in.Disk)
	}
	if err := templates.CheckUser("the application's name", in.Application); err != nil {
		return err
	}
	if reserved[in.Application] || len(in.Application) > 3 && in.Application[:3] == "pg_" {
		return fmt.Errorf("%w: the application is called %q, which PostgreSQL keeps for itself; choose another name", templates.ErrInput, in.Application)
	}
	if len(in.AppNetworks) == 0 {
		return fmt.Errorf("%w: there is no range of application hosts, so the database would answer nobody", templates.ErrInput)
	}
	for _, p := range in.AppNetworks {
		if err := templates.CheckPrefix("the application hosts' range", p); err != nil {
			return err
		}
	}
	return nil
}

// Version is the major version of PostgreSQL in a Debian release.
func Version(debian int) int {
	if debian == 12 {
		return 15
	}
	return 17
}

// FirstBootFiles have to be on the host before its packages are installed:
// data checksums are chosen when the cluster is made.
func FirstBootFiles() (map[string]string, error) {
	text, err := templates.Text(files, "createcluster.conf.tmpl", nil)
	if err != nil {
		return nil, err
	}
	return map[string]string{"/etc/postgresql-common/createcluster.d/infractl.conf": text}, nil
}

// Render describes the host's share of this package.
func Render(in Input) (desired.Host, error) {
	if err := in.Validate(); err != nil {
		return desired.Host{}, fmt.Errorf("PostgreSQL on %s: %w", in.Address, err)
	}
	version := Version(in.Debian)
	const private = "/etc/infractl/postgresql/"
	const check = "/usr/local/lib/infractl/postgresql-check"
	const checksums = "/usr/local/lib/infractl/postgresql-checksums"
	const roles = "infractl-postgresql-roles.service"
	folder := fmt.Sprintf("/etc/postgresql/%d/main/", version)
	server := fmt.Sprintf("postgresql@%d-main.service", version)
	f := templates.Files{From: files, Data: struct {
		Input
		Version           int
		Server            string
		Tuning            Tuning
		Private           string
		Certificate, Key  string
		Password, Cluster string
	}{in, version, server, Tune(in.MemoryMB, in.Cores, in.Disk), private, CertificateValue, KeySecret, PasswordSecret, "main"}}
	postgres := func(mode string) desired.File {
		return desired.File{Mode: mode, Owner: "postgres", Group: "postgres"}
	}
	f.Add(folder+"conf.d/10-infractl-restart.conf", "restart.conf.tmpl", postgres("0644"))
	f.Add(folder+"conf.d/20-infractl-reload.conf", "reload.conf.tmpl", postgres("0644"))
	f.Add(folder+"pg_hba.conf", "pg_hba.conf.tmpl", postgres("0640"))
	f.Add(private+"server.crt", "server.crt.tmpl", postgres("0644"))
	f.Add(private+"server.key", "server.key.tmpl", postgres("0600"))
	f.Add(private+"roles.sql", "roles.sql.tmpl", postgres("0600"))
	f.Copy(check, "postgresql-check.sh", desired.File{Mode: "0755"})
	if in.Checksums {
		f.Copy(checksums, "postgresql-checksums.sh", desired.File{Mode: "0755"})
	}
	f.Add("/etc/systemd/system/"+server+".d/infractl.conf", "postgresql.service.tmpl", desired.File{})
	f.Add("/etc/systemd/system/"+roles, "roles.service.tmpl", desired.File{})
	f.Add("/etc/sysctl.d/61-infractl-postgresql.conf", "sysctl.conf.tmpl", desired.File{})
	duty.Add(&f, "db", false)
	f.Add("/etc/nftables.d/postgresql.nft", "postgresql.nft.tmpl", desired.File{})
	if f.Err != nil {
		return desired.Host{}, f.Err
	}
	return desired.Host{
		Packages: []string{"openssl", fmt.Sprintf("postgresql-%d", version)},
		Files:    f.Made,
		Units: []desired.Unit{
			{
				Name: server, Enabled: true, Active: true,
				RestartOn:     []string{folder + "conf.d/10-infractl-restart.conf"},
				ReloadOn:      []string{folder + "conf.d/20-infractl-reload.conf", folder + "pg_hba.conf", private + "server.crt", private + "server.key"},
				Validate:      fmt.Sprintf("%s validate %d %s", check, version, strings.TrimSuffix(private, "/")),
				Health:        fmt.Sprintf("%s health %s %d", check, in.Address, in.Port),
				HealthTimeout: 60,
			},
			{
				Name: roles, Enabled: true, Active: true,
				RestartOn:     []string{private + "roles.sql"},
				Health:        fmt.Sprintf("%s role %s %d", check, in.Application, in.Port),
				HealthTimeout: 30,
			},
		},
	}, nil
}
