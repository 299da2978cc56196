package stacks

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/base"
)

// plan is one run of the program.
type plan struct {
	ctx     *pulumi.Context
	env     Environment
	options Options
	// targets are by name.
	targets  map[string]target
	vip      virtualIP
	machines []Machine
	// sizes and servers are by short host name.
	sizes   map[string]size
	servers map[string]*server
	secrets *secrets
	release release
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

// deploy declares all resources of an environment.
func deploy(ctx *pulumi.Context, env Environment, o Options) error {
	p := &plan{
		ctx: ctx, env: env, options: o, machines: env.Machines(),
		sizes: map[string]size{}, servers: map[string]*server{},
	}
	var err error
	if p.targets, err = newTargets(ctx, env); err != nil {
		return err
	}
	p.vip = p.targets[env.Tiers[TierLB].Target].vip()
	if p.release, err = releaseTrees(env.Application); err != nil {
		return err
	}
	for _, name := range sortedKeys(p.targets) {
		sizes, err := p.targets[name].sizes()
		if err != nil {
			return err
		}
		maps.Copy(p.sizes, sizes)
	}
	// All files are rendered before the first resource is declared, so that an
	// environment that cannot be rendered is not half changed.
	described := map[string]desired.Host{}
	for _, m := range p.machines {
		host, err := p.describe(m)
		if err != nil {
			return fmt.Errorf("%s: cannot render its configuration: %w", m.Name, err)
		}
		described[m.Name] = host
	}
	for _, name := range sortedKeys(p.targets) {
		if err := p.targets[name].share(); err != nil {
			return err
		}
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
			packages = described[hosts[0].Machine].Packages
		}
		files, err := m.firstBoot()
		if err != nil {
			return err
		}
		hosts, err := p.targets[env.Tiers[name].Target].provide(name, components[name], packages, files)
		if err != nil {
			return err
		}
		for _, s := range hosts {
			p.servers[s.Name] = s
		}
	}
	if err := p.configure(components, described); err != nil {
		return err
	}
	p.export()
	return nil
}

// describe is what should be on a machine: the base of all, and each tier's own.
func (p *plan) describe(m Machine) (desired.Host, error) {
	main := m.Hosts[0]
	in := base.Input{
		Debian:         main.Debian,
		Name:           main.CloudName,
		Index:          main.Index,
		Address:        main.Address,
		User:           p.env.SSH.User,
		AuthorizedKeys: p.env.SSH.AuthorizedKeys,
		SSHPort:        uint16(p.env.SSH.Port),
		AllowFrom:      p.env.SSH.AllowFrom,
	}
	var parts []desired.Host
	if main.Own != nil {
		in.User, in.SSHPort = main.Own.User, uint16(main.Own.Port)
		in.Owner = p.env.Name + " " + m.Name
		// A machine may have had another job. What that one ran would be in the way,
		// or would even hold on to the virtual IP.
		parts = append(parts, desired.Host{Units: []desired.Unit{{Name: "keepalived.service"}, {Name: "haproxy.service"}, {Name: "nginx.service"}}})
	}
	listed := map[string]int{}
	for _, h := range p.env.Hosts() {
		if i, ok := listed[h.Machine]; ok {
			in.Hosts[i].Aliases = append(in.Hosts[i].Aliases, h.Name)
			continue
		}
		listed[h.Machine] = len(in.Hosts)
		in.Hosts = append(in.Hosts, base.Host{Name: h.CloudName, Short: h.Name, Address: h.Address})
	}
	ground, err := base.Render(in)
	if err != nil {
		return desired.Host{}, err
	}
	parts = append([]desired.Host{ground}, parts...)
	for _, h := range m.Hosts {
		own, err := members[h.Tier].describe(p, h)
		if err != nil {
			return desired.Host{}, err
		}
		parts = append(parts, own)
	}
	return templates.Merge(parts...)
}

// machine is the one that a host is on.
func (p *plan) machine(h Host) Machine {
	i := slices.IndexFunc(p.machines, func(m Machine) bool { return m.Name == h.Machine })
	return p.machines[i]
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

// configure declares what is on the machines, in the order in which it may change.
func (p *plan) configure(components map[string]*tier, described map[string]desired.Host) error {
	holder := ""
	if p.options.VIPHolder != nil && !p.ctx.DryRun() {
		holder = p.options.VIPHolder()
	}
	var before []pulumi.Resource
	for _, t := range turns(p.machines, p.env.Tiers, p.options.NewHosts, holder) {
		var all []pulumi.Resource
		declare := func(machines []Machine, wait []pulumi.Resource) ([]pulumi.Resource, error) {
			var done []pulumi.Resource
			for _, m := range machines {
				c, err := p.configuration(components[m.Hosts[0].Tier], m, described[m.Name], wait)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", m.Name, err)
				}
				done = append(done, c)
			}
			all = append(all, done...)
			return done, nil
		}
		wait := before
		for _, batch := range t.standing {
			var err error
			if wait, err = declare(batch, wait); err != nil {
				return err
			}
		}
		if _, err := declare(t.fresh, before); err != nil {
			return err
		}
		if _, err := declare(t.late, wait); err != nil {
			return err
		}
		if len(all) > 0 {
			before = all
		}
	}
	return nil
}

// configuration declares what is on one machine.
func (p *plan) configuration(parent pulumi.Resource, m Machine, h desired.Host, wait []pulumi.Resource) (*configuration, error) {
	props, err := properties(h)
	if err != nil {
		return nil, err
	}
	values, secret := pulumi.StringMap{}, pulumi.StringMap{}
	stateful := false
	for _, host := range m.Hosts {
		v, hidden, err := members[host.Tier].fill(p, p.servers[host.Name])
		if err != nil {
			return nil, err
		}
		maps.Copy(values, v)
		maps.Copy(secret, hidden)
		stateful = stateful || host.Tier == TierDB
	}
	s := p.servers[m.Name]
	props["name"] = pulumi.String(m.Name)
	props["address"] = s.address
	props["port"] = pulumi.Int(s.port)
	props["user"] = pulumi.String(s.user)
	if s.hostKey != nil {
		props["hostKey"] = s.hostKey
	}
	if len(values) > 0 {
		props["values"] = values
	}
	if len(secret) > 0 {
		props["secrets"] = pulumi.ToSecret(secret)
	}
	options := []pulumi.ResourceOption{
		pulumi.Parent(parent),
		pulumi.DependsOn(append(slices.Clip(s.ready), wait...)),
		pulumi.AdditionalSecretOutputs([]string{"secrets"}),
		pulumi.Timeouts(&pulumi.CustomTimeouts{Create: "15m", Update: "15m", Delete: "5m"}),
	}
	if s.made != nil {
		options = append(options, pulumi.DeletedWith(s.made))
	}
	if s.Own != nil {
		props["own"] = pulumi.Bool(true)
		if stateful {
			props["data"] = pulumi.Bool(true)
		}
		if s.jump != "" {
			props["jump"] = pulumi.String(s.jump)
		}
		// A database's server in the cloud is protected itself.
		options = append(options, pulumi.Protect(stateful))
	}
	c := &configuration{}
	return c, p.ctx.RegisterResource(typeConfiguration, m.Name, props, c, options...)
}

// export declares the stack's outputs. None of them is secret.
func (p *plan) export() {
	vip, url := p.vip.export()
	p.ctx.Export("url", url)
	p.ctx.Export("vip", vip)
	hosts := pulumi.Map{}
	for _, name := range TierNames() {
		list := pulumi.Array{}
		for _, h := range p.env.TierHosts(name) {
			list = append(list, p.servers[h.Name].output())
		}
		hosts[name] = list
	}
	p.ctx.Export("hosts", hosts)
	p.ctx.Export("ssh", pulumi.Map{
		"user": pulumi.String(p.env.SSH.User),
		"port": pulumi.Int(p.env.SSH.Port),
	})
}

// output is what the stack's outputs say about a host.
func (s *server) output() pulumi.Map {
	out := pulumi.Map{
		"name":    pulumi.String(s.Name),
		"server":  pulumi.String(s.CloudName),
		"role":    pulumi.String(members[s.Tier].title()),
		"public":  s.address,
		"private": pulumi.String(s.Address.String()),
	}
	if s.hostKey != nil {
		out["hostKey"] = s.hostKey
	}
	if s.Own != nil {
		out["own"], out["machine"] = pulumi.Bool(true), pulumi.String(s.Machine)
		out["user"], out["port"] = pulumi.String(s.user), pulumi.Int(s.port)
		if s.jump != "" {
			out["jump"] = pulumi.String(s.jump)
		}
	}
	return out
}

// peers are a tier's hosts, as templates want them, with the port of each.
func (p *plan) peers(tier string, port func(Host) uint16) []templates.Server {
	var out []templates.Server
	for _, h := range p.env.TierHosts(tier) {
		out = append(out, templates.Server{Name: h.Name, Address: h.Address, Port: port(h)})
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
