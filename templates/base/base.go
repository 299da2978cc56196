// Package base renders what every host has, whatever its tier: who may log in
// and how, a firewall that lets nothing through but what the daemons' own
// packages allow, kernel settings, limits of the journal, security updates and
// the names of the environment's hosts.
package base

import (
	"embed"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates"
)

//go:embed *.tmpl
var files embed.FS

// Paths that the daemons' packages write to as well.
const (
	// Rules is the folder of the firewall's rules. A file in it adds rules to
	// the chain "daemons" of the table "inet infractl".
	Rules = "/etc/nftables.d/"
	// Sysctl is the folder of kernel settings.
	Sysctl = "/etc/sysctl.d/"
	// Owner is the file that says whose a host is that infractl did not make.
	Owner = "/etc/infractl/host"
)

// Host is one host of the environment, for /etc/hosts.
type Host struct {
	// Name is the host name, such as lab-web-1; Short is its name within the
	// environment, such as web-1.
	Name, Short string
	// Aliases are the short names of further hosts that are on the same machine.
	Aliases []string
	// Address is its address in the private network.
	Address netip.Addr
}

// Input describes one host.
type Input struct {
	// Debian is the release: 12 or 13.
	Debian int
	// Name is the host name, such as lab-web-1.
	Name string
	// Index is the host's place in its tier, from 1. Hosts of one tier install
	// security updates at different times of the night, by their place.
	Index int
	// Address is the host's address in the private network.
	Address netip.Addr
	// Hosts are all hosts of the environment, this one included.
	Hosts []Host
	// User is the only one who may log in. It exists already.
	User string
	// Owner is set for hosts that infractl did not make. It says whose the host is,
	// such as "shop web-1", and is kept in the file Owner. The login user may be
	// root on such a host, and its host keys are those that it came with.
	Owner string
	// AuthorizedKeys are User's public keys, one line each.
	AuthorizedKeys []string
	// SSHPort is where sshd listens.
	SSHPort uint16
	// AllowFrom are the ranges from which SSH is let in.
	AllowFrom []netip.Prefix
}

// Validate says what is wrong with the input, or nil.
func (in Input) Validate() error {
	if err := templates.CheckDebian(in.Debian); err != nil {
		return err
	}
	if err := templates.CheckHost("the host name", in.Name); err != nil {
		return err
	}
	if in.Index < 1 {
		return fmt.Errorf("%w: the place in the tier is %d, but places count from 1", templates.ErrInput, in.Index)
	}
	if err := templates.CheckAddress("the private address", in.Address); err != nil {
		return err
	}
	if err := templates.CheckUser("the login user", in.User); err != nil {
		return err
	}
	if in.Owner != "" {
		if err := templates.CheckLine("whose the host is", in.Owner); err != nil {
			return err
		}
	} else if in.User == "root" {
		return fmt.Errorf("%w: the login user is root, but logins are for a user with sudo", templates.ErrInput)
	}
	if err := templates.CheckPort("the SSH port", in.SSHPort); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, h := range in.Hosts {
		for _, name := range append([]string{h.Name, h.Short}, h.Aliases...) {
			if err := templates.CheckHost("a host's name", name); err != nil {
				return err
			}
		}
		if err := templates.CheckAddress("the address of "+h.Name, h.Address); err != nil {
			return err
		}
		for _, key := range []string{h.Name, h.Address.String()} {
			if seen[key] {
				return fmt.Errorf("%w: %s belongs to two hosts", templates.ErrInput, key)
			}
			seen[key] = true
		}
	}
	if !seen[in.Name] {
		return fmt.Errorf("%w: the host %s is not in the list of the environment's hosts", templates.ErrInput, in.Name)
	}
	if len(in.AuthorizedKeys) == 0 {
		return fmt.Errorf("%w: there is no public key for %s, so nobody could log in; add one", templates.ErrInput, in.User)
	}
	for _, key := range in.AuthorizedKeys {
		if err := CheckKey(key); err != nil {
			return err
		}
	}
	if len(in.AllowFrom) == 0 {
		return fmt.Errorf("%w: there is no range from which SSH is let in, so nobody could log in; add one", templates.ErrInput)
	}
	for _, p := range in.AllowFrom {
		if err := templates.CheckPrefix("a range for SSH", p); err != nil {
			return err
		}
	}
	return nil
}

// CheckKey refuses what is not one public key in authorized_keys format: type,
// base64 data that begins with that type (RFC 4253, 6.6), and perhaps a
// comment. Options before the key are refused.
func CheckKey(key string) error {
	if err := templates.CheckLine("a public key", key); err != nil {
		return err
	}
	fields := strings.Fields(key)
	if len(fields) < 2 || !keyTypes[fields[0]] {
		return fmt.Errorf("%w: %q is not a public key such as \"ssh-ed25519 AAAA… name\"", templates.ErrInput, key)
	}
	raw, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil || len(raw) < 4+len(fields[0]) || string(raw[4:4+len(fields[0])]) != fields[0] {
		return fmt.Errorf("%w: the public key %q is damaged; copy it again from its .pub file", templates.ErrInput, key)
	}
	return nil
}

// keyTypes leaves out DSA, which OpenSSH has dropped.
var keyTypes = map[string]bool{
	"ssh-ed25519": true, "ssh-rsa": true,
	"ecdsa-sha2-nistp256": true, "ecdsa-sha2-nistp384": true, "ecdsa-sha2-nistp521": true,
	"sk-ssh-ed25519@openssh.com": true, "sk-ecdsa-sha2-nistp256@openssh.com": true,
}

// Render describes the host's share of this package.
func Render(in Input) (desired.Host, error) {
	if err := in.Validate(); err != nil {
		return desired.Host{}, fmt.Errorf("base configuration of %s: %w", in.Name, err)
	}
	var exempt []string
	for _, p := range in.AllowFrom {
		// A range as wide as this says nothing about who knocks.
		if p.Bits() >= 8 {
			exempt = append(exempt, p.String())
		}
	}
	keys := make([]string, len(in.AuthorizedKeys))
	for i, key := range in.AuthorizedKeys {
		keys[i] = strings.Join(strings.Fields(key), " ")
	}
	minute := (in.Index - 1) * 30 % 360
	f := templates.Files{From: files, Data: struct {
		Input
		Keys       []string
		Exempt     string
		Hour, Past int
	}{in, keys, strings.Join(exempt, ","), 1 + minute/60, minute % 60}}
	keyFile := "/etc/ssh/authorized_keys.d/" + in.User
	f.Add("/etc/ssh/sshd_config.d/10-infractl.conf", "sshd.conf.tmpl", desired.File{Mode: "0600"})
	f.Add(keyFile, "authorized_keys.tmpl", desired.File{})
	f.Add("/etc/nftables.conf", "nftables.conf.tmpl", desired.File{Mode: "0755"})
	f.Add("/etc/systemd/system/nftables.service.d/infractl.conf", "nftables.service.tmpl", desired.File{})
	f.Add(Sysctl+"60-infractl.conf", "sysctl.conf.tmpl", desired.File{})
	f.Add("/etc/systemd/journald.conf.d/infractl.conf", "journald.conf.tmpl", desired.File{})
	f.Add("/etc/apt/apt.conf.d/52infractl-upgrades", "upgrades.conf.tmpl", desired.File{})
	f.Add("/etc/systemd/system/apt-daily-upgrade.timer.d/infractl.conf", "upgrades.timer.tmpl", desired.File{})
	f.Add("/etc/hostname", "hostname.tmpl", desired.File{})
	f.Add("/etc/hosts", "hosts.tmpl", desired.File{})
	f.Add("/etc/cloud/cloud.cfg.d/99-infractl.cfg", "cloud.cfg.tmpl", desired.File{})
	if in.Owner != "" {
		f.Add(Owner, "host.tmpl", desired.File{})
	}
	if f.Err != nil {
		return desired.Host{}, f.Err
	}
	host := desired.Host{
		Packages: []string{"curl", "nftables", "systemd-timesyncd", "unattended-upgrades"},
		Files:    f.Made,
		Units: []desired.Unit{
			{
				Name: "systemd-sysctl.service", Enabled: true, Active: true,
				RestartOn: []string{Sysctl},
			},
			{
				Name: "systemd-journald.service", Enabled: true, Active: true,
				RestartOn: []string{"/etc/systemd/journald.conf.d/infractl.conf"},
			},
			{
				Name: "nftables.service", Enabled: true, Active: true,
				ReloadOn: []string{"/etc/nftables.conf", Rules},
				Validate: "nft -c -f /etc/nftables.conf",
				Health:   "nft list chain inet infractl input | grep -q 'policy drop'",
				AtOnce:   true, // systemd waits for nft
				Guarded:  true,
			},
			{
				Name: "ssh.service", Enabled: true, Active: true,
				ReloadOn: []string{"/etc/ssh/sshd_config.d/10-infractl.conf", keyFile},
				Validate: "sshd -t",
				Health:   "systemctl is-active --quiet ssh.service",
				AtOnce:   true, // it is the new connection that tells
				Guarded:  true,
			},
			{Name: "apt-daily-upgrade.timer", Enabled: true, Active: true},
		},
	}
	if in.Owner != "" {
		// Who lets systemd listen for sshd has this one in the place of
		// ssh.service; they exclude each other. It goes first.
		host.Units = append([]desired.Unit{{Name: "ssh.socket", Guarded: true}}, host.Units...)
	}
	return host, nil
}
