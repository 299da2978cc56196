package stacks

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pulumi/pulumi-hcloud/sdk/go/hcloud"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	"golang.org/x/crypto/ssh"

	"github.com/infractl/infractl/templates/cloudinit"
	"github.com/infractl/infractl/templates/keepalived"
)

// spreadSize is how many servers a spread placement group takes
// (https://docs.hetzner.com/cloud/placement-groups/overview).
const spreadSize = 10

// cloud makes servers on Hetzner Cloud, with what they share.
type cloud struct {
	ctx      *pulumi.Context
	env      Environment
	vipToken string
	network  *hcloud.Network
	subnets  map[string]*hcloud.NetworkSubnet
	sshKeys  pulumi.StringArray
	ipv4     *hcloud.FloatingIp
	ipv6     *hcloud.FloatingIp
}

// tiers are the names of the tiers whose hosts are in the cloud.
func (c *cloud) tiers() []string {
	var names []string
	for _, name := range TierNames() {
		if c.env.Tiers[name].Target == TargetCloud {
			names = append(names, name)
		}
	}
	return names
}

// sizes asks the cloud what the tiers' server types are.
func (c *cloud) sizes() (map[string]size, error) {
	out := map[string]size{}
	p := &problems{}
	for _, name := range c.tiers() {
		t := c.env.Tiers[name]
		key := namespace + "tiers." + name + ".type"
		found, err := hcloud.GetServerType(c.ctx, &hcloud.GetServerTypeArgs{Name: pulumi.StringRef(t.Type)})
		if err != nil {
			if strings.Contains(err.Error(), "not found") {
				p.add(key, "there is no server type %q", t.Type)
				continue
			}
			return nil, fmt.Errorf("cannot ask the cloud about server type %s of tier %s: %w", t.Type, name, err)
		}
		checkType(p, key, t, found)
		if found.Architecture != "" && found.Architecture != "x86" {
			p.add(key, "%s is an %s server, but infractl supports x86 only so far", t.Type, found.Architecture)
		}
		// The cloud counts in GB of 10^9 bytes at the least, so this never says too much.
		for _, h := range c.env.TierHosts(name) {
			out[h.Name] = size{memoryMB: found.Memory * 1_000_000_000 / (1 << 20), cores: found.Cores}
		}
	}
	return out, p.err()
}

// checkType reports a server type that the tier's location does not offer.
func checkType(p *problems, key string, t Tier, found *hcloud.GetServerTypeResult) {
	if len(found.Locations) == 0 {
		return // the cloud does not say where
	}
	var names []string
	for _, l := range found.Locations {
		names = append(names, l.Name)
		if l.Name != t.Location {
			continue
		}
		if gone(l.UnavailableAfter) {
			p.add(key, "%s is no longer offered in %s since %s", t.Type, t.Location, l.UnavailableAfter)
		}
		return
	}
	p.add(key, "%s is not offered in %s, but in %s", t.Type, t.Location, oneOf(names))
}

// gone says whether a date of the cloud's lies in the past.
func gone(date string) bool {
	t, err := time.Parse(time.RFC3339, date)
	return err == nil && time.Now().After(t)
}

// floatingIPs are the virtual IPs that the environment has.
func (c *cloud) floatingIPs() []pulumi.Resource {
	var out []pulumi.Resource
	for _, ip := range []*hcloud.FloatingIp{c.ipv4, c.ipv6} {
		if ip != nil {
			out = append(out, ip)
		}
	}
	return out
}

func (c *cloud) share() error {
	ctx, env := c.ctx, c.env
	c.subnets = map[string]*hcloud.NetworkSubnet{}
	var err error
	all := pulumi.ToStringMap(env.Labels(""))
	c.network, err = hcloud.NewNetwork(ctx, "network", &hcloud.NetworkArgs{
		Name:    pulumi.String(env.Name),
		IpRange: pulumi.String(env.Network.Range.String()),
		Labels:  all,
	})
	if err != nil {
		return err
	}
	for _, name := range c.tiers() {
		c.subnets[name], err = hcloud.NewNetworkSubnet(ctx, name, &hcloud.NetworkSubnetArgs{
			NetworkId:   number(c.network.ID()),
			Type:        pulumi.String("cloud"),
			NetworkZone: pulumi.String(env.Network.Zone),
			IpRange:     pulumi.String(env.Tiers[name].Subnet.String()),
		}, pulumi.Parent(c.network))
		if err != nil {
			return err
		}
	}
	if c.sshKeys, err = operatorKeys(ctx, env); err != nil {
		return err
	}
	if env.Tiers[TierLB].Target != TargetCloud {
		return nil
	}
	if env.VIP.IPv4 {
		if c.ipv4, err = floatingIP(ctx, env, "ipv4"); err != nil {
			return err
		}
	}
	if env.VIP.IPv6 {
		if c.ipv6, err = floatingIP(ctx, env, "ipv6"); err != nil {
			return err
		}
	}
	return nil
}

// floatingIP makes a virtual IP. It is not assigned to a server here: the load
// balancers claim it themselves and move it among themselves, and a plan that
// held an assignment would move it back.
func floatingIP(ctx *pulumi.Context, env Environment, family string) (*hcloud.FloatingIp, error) {
	return hcloud.NewFloatingIp(ctx, "vip-"+family, &hcloud.FloatingIpArgs{
		Name:             pulumi.String(env.Name + "-vip-" + family),
		Type:             pulumi.String(family),
		HomeLocation:     pulumi.String(env.Tiers[TierLB].Location),
		Description:      pulumi.String("virtual IP of " + env.Name),
		Labels:           pulumi.ToStringMap(env.Labels(TierLB)),
		DeleteProtection: pulumi.Bool(true),
	}, pulumi.Protect(true), pulumi.IgnoreChanges([]string{"serverId", "homeLocation"}))
}

// operatorKeys makes the operator's SSH keys known to the cloud, so that it
// sets no root password. A project holds every key once only, whoever put it
// there: a key that somebody else did is used as it is.
func operatorKeys(ctx *pulumi.Context, env Environment) (pulumi.StringArray, error) {
	found, err := hcloud.GetSshKeys(ctx, &hcloud.GetSshKeysArgs{})
	if err != nil {
		return nil, fmt.Errorf("cannot ask the cloud for its SSH keys: %w", err)
	}
	var ids pulumi.StringArray
	for _, line := range env.SSH.AuthorizedKeys {
		public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, err
		}
		fingerprint := ssh.FingerprintLegacyMD5(public)
		foreign := 0
		for _, k := range found.SshKeys {
			if k.Fingerprint == fingerprint && !owned(k.Labels, env.Name) {
				foreign = k.Id
			}
		}
		if foreign != 0 {
			ids = append(ids, pulumi.String(strconv.Itoa(foreign)))
			continue
		}
		short := strings.ReplaceAll(fingerprint, ":", "")[:8]
		key, err := hcloud.NewSshKey(ctx, "operator-"+short, &hcloud.SshKeyArgs{
			Name:      pulumi.String(env.Name + "-operator-" + short),
			PublicKey: pulumi.String(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))),
			Labels:    pulumi.ToStringMap(env.Labels("")),
		})
		if err != nil {
			return nil, err
		}
		ids = append(ids, key.ID().ToStringOutput())
	}
	return ids, nil
}

// owned says whether labels are those of an environment's own resources.
func owned(labels map[string]string, environment string) bool {
	return labels[LabelManagedBy] == ManagedBy && labels[LabelEnvironment] == environment
}

// provide makes the servers of one tier. What they run comes later.
func (c *cloud) provide(name string, parent pulumi.Resource, packages []string, files map[string]string) ([]*server, error) {
	ctx, env := c.ctx, c.env
	t := env.Tiers[name]
	tierLabels := pulumi.ToStringMap(env.Labels(name))
	firewall, err := hcloud.NewFirewall(ctx, name, &hcloud.FirewallArgs{
		Name:   pulumi.String(env.Name + "-" + name),
		Labels: tierLabels,
		Rules:  firewallRules(env, name),
	}, pulumi.Parent(parent))
	if err != nil {
		return nil, err
	}
	var groups []*hcloud.PlacementGroup
	for i := 0; i*spreadSize < t.Count; i++ {
		suffix := name
		if i > 0 {
			suffix += "-" + strconv.Itoa(i+1)
		}
		g, err := hcloud.NewPlacementGroup(ctx, suffix, &hcloud.PlacementGroupArgs{
			Name:   pulumi.String(env.Name + "-" + suffix),
			Type:   pulumi.String("spread"),
			Labels: tierLabels,
		}, pulumi.Parent(parent))
		if err != nil {
			return nil, err
		}
		groups = append(groups, g)
	}
	var out []*server
	for _, h := range env.TierHosts(name) {
		s, err := c.newServer(parent, h, firewall, groups[(h.Index-1)/spreadSize], packages, files)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name, err)
		}
		out = append(out, s)
	}
	return out, nil
}

func (c *cloud) newServer(parent pulumi.Resource, h Host, firewall *hcloud.Firewall, group *hcloud.PlacementGroup, packages []string, files map[string]string) (*server, error) {
	ctx, env := c.ctx, c.env
	t := env.Tiers[h.Tier]
	key := &hostKey{}
	if err := ctx.RegisterResource(typeHostKey, h.Name, pulumi.Map{}, key, pulumi.Parent(parent),
		pulumi.AdditionalSecretOutputs([]string{"privateKey"})); err != nil {
		return nil, err
	}
	userData := pulumi.All(key.PublicKey, secretOutput(key.PrivateKey)).ApplyT(func(v []any) (string, error) {
		return cloudinit.Render(cloudinit.Input{
			Hostname:       h.CloudName,
			User:           env.SSH.User,
			AuthorizedKeys: env.SSH.AuthorizedKeys,
			HostKeyPublic:  v[0].(string),
			HostKeyPrivate: v[1].(string),
			Packages:       packages,
			Files:          files,
		})
	}).(pulumi.StringOutput)

	// A database host holds data. Whatever would delete or rebuild it is
	// refused, here and by the cloud, until `infractl destroy` was confirmed.
	stateful := h.Tier == TierDB
	// The cloud deletes a floating IP only once it is assigned to no server, and
	// a load balancer that lives claims it again: so they go first.
	var after []pulumi.Resource
	if h.Tier == TierLB {
		after = c.floatingIPs()
	}
	made, err := hcloud.NewServer(ctx, h.Name, &hcloud.ServerArgs{
		Name:              pulumi.String(h.CloudName),
		ServerType:        pulumi.String(t.Type),
		Image:             pulumi.String(t.Image),
		Location:          pulumi.String(t.Location),
		SshKeys:           c.sshKeys,
		UserData:          secretOutput(userData),
		Labels:            pulumi.ToStringMap(env.Labels(h.Tier)),
		FirewallIds:       pulumi.IntArray{number(firewall.ID())},
		PlacementGroupId:  number(group.ID()),
		DeleteProtection:  pulumi.Bool(stateful),
		RebuildProtection: pulumi.Bool(stateful),
	},
		pulumi.Parent(parent),
		pulumi.Protect(stateful),
		pulumi.DependsOn(after),
		// Each of these would replace a running server for a change that
		// concerns new servers only, or, in the case of keys, is made over SSH.
		pulumi.IgnoreChanges([]string{"image", "userData", "sshKeys", "location", "datacenter"}),
		pulumi.AdditionalSecretOutputs([]string{"userData"}),
		pulumi.Timeouts(&pulumi.CustomTimeouts{Create: "5m", Update: "10m", Delete: "5m"}),
	)
	if err != nil {
		return nil, err
	}
	attachment, err := hcloud.NewServerNetwork(ctx, h.Name, &hcloud.ServerNetworkArgs{
		ServerId:  number(made.ID()),
		NetworkId: number(c.network.ID()),
		Ip:        pulumi.String(h.Address.String()),
	},
		pulumi.Parent(parent),
		pulumi.DependsOn([]pulumi.Resource{c.subnets[h.Tier]}),
		pulumi.DeletedWith(made),
		pulumi.DeleteBeforeReplace(true),
	)
	if err != nil {
		return nil, err
	}
	return &server{
		Host: h, address: made.Ipv4Address, hostKey: key.PublicKey, user: env.SSH.User, port: env.SSH.Port,
		made: made, ready: []pulumi.Resource{attachment},
	}, nil
}

func (c *cloud) vip() virtualIP { return floating{c} }

// floating are the floating IPs that the load balancers claim through the API.
type floating struct{ *cloud }

func (f floating) describe(_ Host, in *keepalived.Input) error {
	in.Endpoint, in.IPv4, in.IPv6 = endpoint(), f.env.VIP.IPv4, f.env.VIP.IPv6
	return nil
}

func (f floating) fill(s *server) (values, secrets pulumi.StringMap) {
	values = pulumi.StringMap{keepalived.ServerValue: s.made.ID().ToStringOutput()}
	if f.ipv4 != nil {
		values[keepalived.IDValue("ipv4")] = f.ipv4.ID().ToStringOutput()
		values[keepalived.AddressValue("ipv4")] = f.ipv4.IpAddress
	}
	if f.ipv6 != nil {
		values[keepalived.IDValue("ipv6")] = f.ipv6.ID().ToStringOutput()
		values[keepalived.AddressValue("ipv6")] = f.addressIPv6()
	}
	return values, pulumi.StringMap{keepalived.TokenSecret: pulumi.String(f.vipToken)}
}

func (f floating) export() (addresses pulumi.Map, url pulumi.StringInput) {
	addresses = pulumi.Map{}
	if f.ipv6 != nil {
		address := f.addressIPv6()
		addresses["ipv6"] = address
		url = pulumi.Sprintf("http://[%s]/", address)
	}
	if f.ipv4 != nil {
		addresses["ipv4"] = f.ipv4.IpAddress
		url = pulumi.Sprintf("http://%s/", f.ipv4.IpAddress)
	}
	return addresses, url
}

// addressIPv6 is one address of the floating IP's /64: the cloud routes all of it.
func (f floating) addressIPv6() pulumi.StringOutput {
	return f.ipv6.IpAddress.ApplyT(func(a string) (string, error) {
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

// firewallRules lets the world reach the load balancers' web ports, and the
// operator the hosts' SSH. Traffic between hosts takes the private network,
// which the cloud's firewalls do not see.
func firewallRules(env Environment, tier string) hcloud.FirewallRuleArray {
	world := pulumi.ToStringArray([]string{"0.0.0.0/0", "::/0"})
	operators := pulumi.StringArray{}
	for _, p := range env.SSH.AllowFrom {
		operators = append(operators, pulumi.String(p.String()))
	}
	rules := hcloud.FirewallRuleArray{
		hcloud.FirewallRuleArgs{
			Direction: pulumi.String("in"), Protocol: pulumi.String("tcp"),
			Port: pulumi.String(strconv.Itoa(env.SSH.Port)), SourceIps: operators,
			Description: pulumi.String("SSH"),
		},
		hcloud.FirewallRuleArgs{
			Direction: pulumi.String("in"), Protocol: pulumi.String("icmp"), SourceIps: world,
			Description: pulumi.String("path MTU discovery and ping"),
		},
	}
	if tier == TierLB {
		for _, port := range []string{"80", "443"} {
			rules = append(rules, hcloud.FirewallRuleArgs{
				Direction: pulumi.String("in"), Protocol: pulumi.String("tcp"),
				Port: pulumi.String(port), SourceIps: world,
				Description: pulumi.String("web"),
			})
		}
	}
	return rules
}

// number turns a resource's ID into the number that it is in this cloud.
func number(id pulumi.IDOutput) pulumi.IntOutput {
	return id.ToStringOutput().ApplyT(func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0, fmt.Errorf("the cloud gave an ID that is not a number: %q", s)
		}
		return n, nil
	}).(pulumi.IntOutput)
}

// endpoint is the address of the cloud's API, as the load balancers use it.
func endpoint() string {
	if e := os.Getenv(EndpointVariable); e != "" {
		return e
	}
	return DefaultEndpoint
}

// vipToken finds the token of the load balancers.
func vipToken(env Environment) (string, error) {
	token := os.Getenv(VIPTokenVariable)
	if token == "" {
		token = env.VIPToken
	}
	if token == "" {
		return "", errors.New("the load balancers need a cloud token of their own to claim the virtual IP: set " +
			VIPTokenVariable + ", or run `pulumi config set --secret infractl:vipToken`")
	}
	if len(token) != 64 {
		return "", fmt.Errorf("%s must be a Hetzner Cloud token of 64 characters, not %d", VIPTokenVariable, len(token))
	}
	if operator := os.Getenv("HCLOUD_TOKEN"); token == operator {
		return "", errors.New(VIPTokenVariable + " must not be the operator's own token (HCLOUD_TOKEN), since it lies on the load balancers; make a second one in the cloud console")
	}
	return token, nil
}
