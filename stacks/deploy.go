package stacks

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/base"
)

// plan is one run of the program.
type plan struct {
	ctx      *pulumi.Context
	env      Environment
	options  Options
	machines map[string]machine
	cloud    *cloud
	secrets  *secrets
	release  release
	vipToken string
	servers  map[string][]*server
}

// secrets are what is generated for an environment and kept in its state.
type secrets struct {
	database *password
	// authority signs the certificates with which hosts know each other.
	authority *authority
	// databaseTLS is by short host name.
	databaseTLS map[string]*certificate
}

// release is the application's release, as uploaded to hosts.
type release struct {
	application desired.Tree
	static      *desired.Tree
}

// member is how one tier describes its hosts.
type member interface {
	// title names the tier's component resource.
	title() string
	// describe says what is on a host.
	describe(p *plan, h Host) (desired.Host, error)
	// firstBoot are files that must stand before packages are installed, by path.
	firstBoot() (map[string]string, error)
	// fill gives the values and secrets that the host's files refer to.
	fill(p *plan, s *server) (values, secrets pulumi.StringMap, err error)
}

var members = map[string]member{
	TierLB:  loadBalancers{},
	TierWeb: webServers{},
	TierApp: applications{},
	TierDB:  databases{},
}

// order is the order in which tiers are configured: a tier after those it needs.
var order = []string{TierDB, TierApp, TierWeb, TierLB}

// deploy declares all resources of an environment.
func deploy(ctx *pulumi.Context, env Environment, o Options) error {
	p := &plan{ctx: ctx, env: env, options: o, servers: map[string][]*server{}}
	var err error
	if p.vipToken, err = vipToken(env); err != nil {
		return err
	}
	if p.release, err = releaseTrees(env.Application); err != nil {
		return err
	}
	if p.machines, err = machines(ctx, env); err != nil {
		return err
	}
	// All files are rendered before the first resource is declared, so that an
	// environment that cannot be rendered is not half changed.
	described := map[string]desired.Host{}
	for _, h := range env.Hosts() {
		host, err := p.describe(h)
		if err != nil {
			return fmt.Errorf("%s: cannot render its configuration: %w", h.Name, err)
		}
		described[h.Name] = host
	}
	if p.cloud, err = shared(ctx, env); err != nil {
		return err
	}
	if p.secrets, err = makeSecrets(ctx, env); err != nil {
		return err
	}
	components := map[string]*tier{}
	for _, name := range order {
		m := members[name]
		components[name] = &tier{}
		if err := ctx.RegisterComponentResource(typeTier+m.title(), name, components[name]); err != nil {
			return err
		}
		var packages []string
		if hosts := env.TierHosts(name); len(hosts) > 0 {
			packages = described[hosts[0].Name].Packages
		}
		files, err := m.firstBoot()
		if err != nil {
			return err
		}
		p.servers[name], err = servers(ctx, env, p.cloud, components[name], name, packages, files)
		if err != nil {
			return err
		}
	}
	if err := p.configure(components, described); err != nil {
		return err
	}
	p.export()
	return nil
}

// describe is what should be on a host: the base of all hosts and the tier's own.
func (p *plan) describe(h Host) (desired.Host, error) {
	t := p.env.Tiers[h.Tier]
	debian, err := t.debian()
	if err != nil {
		return desired.Host{}, err
	}
	in := base.Input{
		Debian:         debian,
		Name:           h.CloudName,
		Index:          h.Index,
		Address:        h.Address,
		User:           p.env.SSH.User,
		AuthorizedKeys: p.env.SSH.AuthorizedKeys,
		SSHPort:        uint16(p.env.SSH.Port),
		AllowFrom:      p.env.SSH.AllowFrom,
	}
	for _, other := range p.env.Hosts() {
		in.Hosts = append(in.Hosts, base.Host{Name: other.CloudName, Short: other.Name, Address: other.Address})
	}
	ground, err := base.Render(in)
	if err != nil {
		return desired.Host{}, err
	}
	own, err := members[h.Tier].describe(p, h)
	if err != nil {
		return desired.Host{}, err
	}
	return templates.Merge(ground, own)
}

func releaseTrees(a Application) (release, error) {
	digest, err := desired.Digest(a.Release)
	if err != nil {
		return release{}, fmt.Errorf("infractl:application.release: %w", err)
	}
	r := release{application: desired.Tree{Source: a.Release, Digest: digest}}
	if a.Static != "" {
		dir := filepath.Join(a.Release, a.Static)
		if digest, err = desired.Digest(dir); err != nil {
			return release{}, fmt.Errorf("infractl:application.static: %w", err)
		}
		r.static = &desired.Tree{Source: dir, Digest: digest}
	}
	return r, nil
}

func makeSecrets(ctx *pulumi.Context, env Environment) (*secrets, error) {
	s := &secrets{database: &password{}, authority: &authority{}, databaseTLS: map[string]*certificate{}}
	err := ctx.RegisterResource(typePassword, "database", pulumi.Map{}, s.database,
		pulumi.AdditionalSecretOutputs([]string{"value"}))
	if err != nil {
		return nil, err
	}
	err = ctx.RegisterResource(typeAuthority, "authority", pulumi.Map{
		"commonName": pulumi.String("infractl " + env.Name),
	}, s.authority, pulumi.AdditionalSecretOutputs([]string{"privateKey"}))
	if err != nil {
		return nil, err
	}
	for _, h := range env.TierHosts(TierDB) {
		c := &certificate{}
		err := ctx.RegisterResource(typeCertificate, h.Name, pulumi.Map{
			"authorityCertificate": s.authority.Certificate,
			"authorityKey":         secretOutput(s.authority.PrivateKey),
			"commonName":           pulumi.String(h.CloudName),
			"addresses":            pulumi.ToStringArray([]string{h.Address.String(), h.CloudName}),
		}, c, pulumi.AdditionalSecretOutputs([]string{"privateKey"}))
		if err != nil {
			return nil, err
		}
		s.databaseTLS[h.Name] = c
	}
	return s, nil
}

// configure declares what is on the hosts, in the order in which it may change:
// a tier after those it needs, and within a tier the canary, then the rest in batches.
func (p *plan) configure(components map[string]*tier, described map[string]desired.Host) error {
	var before []pulumi.Resource
	for _, name := range order {
		var all []pulumi.Resource
		declare := func(hosts []*server, wait []pulumi.Resource) ([]pulumi.Resource, error) {
			var done []pulumi.Resource
			for _, s := range hosts {
				c, err := p.configuration(components[name], s, described[s.Name], wait)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", s.Name, err)
				}
				done = append(done, c)
			}
			all = append(all, done...)
			return done, nil
		}
		standing, fresh := p.sequence(name)
		wait := before
		for _, batch := range batches(standing, p.env.Tiers[name].MaxUnavailable) {
			var err error
			if wait, err = declare(batch, wait); err != nil {
				return err
			}
		}
		// Nobody uses a new host until the tiers in front of it know it, so it has
		// nothing to wait for. Only a new load balancer has: if the holder of the
		// virtual IP does not know it yet, it would hear nothing from the holder and
		// take the address.
		if name != TierLB {
			wait = before
		}
		if _, err := declare(fresh, wait); err != nil {
			return err
		}
		before = all
	}
	return nil
}

// sequence is the order in which a tier's hosts are changed: as they are
// numbered, but the holder of the virtual IP last. New hosts are apart.
func (p *plan) sequence(tier string) (standing, fresh []*server) {
	var holder []*server
	for _, s := range p.servers[tier] {
		switch {
		case p.options.NewHosts[s.Name]:
			fresh = append(fresh, s)
		case s.Name == p.options.VIPHolder:
			holder = append(holder, s)
		default:
			standing = append(standing, s)
		}
	}
	return append(standing, holder...), fresh
}

// batches groups hosts that may change together. The first host goes alone, as
// the canary.
func batches(hosts []*server, size int) [][]*server {
	if len(hosts) == 0 {
		return nil
	}
	out := [][]*server{hosts[:1]}
	for rest := hosts[1:]; len(rest) > 0; {
		n := min(size, len(rest))
		out = append(out, rest[:n])
		rest = rest[n:]
	}
	return out
}

// configuration declares what is on one host.
func (p *plan) configuration(parent pulumi.Resource, s *server, h desired.Host, wait []pulumi.Resource) (*configuration, error) {
	props, err := properties(h)
	if err != nil {
		return nil, err
	}
	values, secret, err := members[s.Tier].fill(p, s)
	if err != nil {
		return nil, err
	}
	props["name"] = pulumi.String(s.Name)
	props["address"] = s.server.Ipv4Address
	props["port"] = pulumi.Int(p.env.SSH.Port)
	props["user"] = pulumi.String(p.env.SSH.User)
	props["hostKey"] = s.key.PublicKey
	if len(values) > 0 {
		props["values"] = values
	}
	if len(secret) > 0 {
		props["secrets"] = pulumi.ToSecret(secret)
	}
	c := &configuration{}
	err = p.ctx.RegisterResource(typeConfiguration, s.Name, props, c,
		pulumi.Parent(parent),
		pulumi.DeletedWith(s.server),
		pulumi.DependsOn(append([]pulumi.Resource{s.attachment}, wait...)),
		pulumi.AdditionalSecretOutputs([]string{"secrets"}),
		pulumi.Timeouts(&pulumi.CustomTimeouts{Create: "15m", Update: "15m", Delete: "5m"}),
	)
	return c, err
}

// export declares the stack's outputs. None of them is secret.
func (p *plan) export() {
	vip := pulumi.Map{}
	url := pulumi.String("").ToStringOutput()
	if p.cloud.ipv6 != nil {
		address := p.vipIPv6()
		vip["ipv6"] = address
		url = pulumi.Sprintf("http://[%s]/", address)
	}
	if p.cloud.ipv4 != nil {
		vip["ipv4"] = p.cloud.ipv4.IpAddress
		url = pulumi.Sprintf("http://%s/", p.cloud.ipv4.IpAddress)
	}
	p.ctx.Export("url", url)
	p.ctx.Export("vip", vip)
	hosts := pulumi.Map{}
	for _, name := range TierNames() {
		list := pulumi.Array{}
		for _, s := range p.servers[name] {
			list = append(list, pulumi.Map{
				"name":    pulumi.String(s.Name),
				"server":  pulumi.String(s.CloudName),
				"role":    pulumi.String(members[name].title()),
				"public":  s.server.Ipv4Address,
				"private": pulumi.String(s.Address.String()),
				"hostKey": s.key.PublicKey,
			})
		}
		hosts[name] = list
	}
	p.ctx.Export("hosts", hosts)
	p.ctx.Export("ssh", pulumi.Map{
		"user": pulumi.String(p.env.SSH.User),
		"port": pulumi.Int(p.env.SSH.Port),
	})
}

// vipIPv6 is one address of the virtual IP's /64: the cloud routes all of it.
func (p *plan) vipIPv6() pulumi.StringOutput {
	return p.cloud.ipv6.IpAddress.ApplyT(func(a string) (string, error) {
		base, err := netip.ParseAddr(strings.TrimSuffix(a, "/64"))
		if err != nil {
			return "", fmt.Errorf("the cloud gave an IPv6 floating IP that cannot be read: %w", err)
		}
		b := base.As16()
		if b[15] == 0 {
			b[15] = 1
		}
		return net.IP(b[:]).String(), nil
	}).(pulumi.StringOutput)
}

// peers are the other tier's hosts, as templates want them.
func (p *plan) peers(tier string, port uint16) []templates.Server {
	var out []templates.Server
	for _, h := range p.env.TierHosts(tier) {
		out = append(out, templates.Server{Name: h.Name, Address: h.Address, Port: port})
	}
	return out
}

func (p *plan) addresses(tier string) []netip.Addr {
	var out []netip.Addr
	for _, h := range p.env.TierHosts(tier) {
		out = append(out, h.Address)
	}
	return out
}
