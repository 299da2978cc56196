// Package keepalived renders how the load balancers of an environment agree on
// who serves the virtual IP, and how the one that does gets it.
//
// # On the wire
//
// Where the load balancers share a network that carries ARP, the virtual IP is an
// address on an interface of the one that serves it (Input.Wire). keepalived puts
// it there, tells the neighbours and takes it away again; it speaks VRRP with the
// others, ten times a second, by the addresses that they have in that network. What
// can be said about a load balancer's health is the same as in the cloud:
//
//   - infractl-lb-health asks HAProxy eight times a second whether it can serve,
//     and writes the answer where keepalived sees it at once;
//   - vip-state notes what keepalived has become, for scripts and people;
//   - vip-drop takes the addresses away when keepalived is gone and could not;
//   - vrrp-listen looks whether somebody else uses the same router ID.
//
// # In the cloud
//
// The cloud's network carries no ARP between servers, so an address cannot be
// moved on the wire: the virtual IP is one or two floating IPs, configured on
// every load balancer and routed by the cloud to one of them. Four things run on
// each load balancer:
//
//   - infractl-vip-address puts the floating IPs on the loopback interface, so
//     that traffic is accepted the moment the cloud sends it;
//   - infractl-lb-health asks HAProxy eight times a second whether it can serve,
//     and writes the answer where keepalived sees it at once;
//   - keepalived speaks VRRP with the others over the private network, five times
//     a second, and tells a FIFO what it has become;
//   - infractl-vip reads that FIFO and, when this host has become the master,
//     claims the floating IPs through the cloud's API.
//
// # What the API token can do
//
// infractl-vip needs a token for the cloud's API. Hetzner Cloud knows no finer
// grant than read and write for a whole project, so whoever becomes root on a
// load balancer can do anything in that project: create and delete servers, read
// user data, change firewalls. Therefore it is a token of its own, never the
// operator's, so that it can be revoked and replaced alone; it lies in one file
// that only root can read, is handed to curl in a configuration file and never
// as an argument; and only infractl-vip uses it, for three calls: to read a
// floating IP, to assign it to this server, and to read the action that follows.
// An environment that is to be safe from its load balancers has a project of its
// own.
package keepalived

import (
	"embed"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/duty"
	"github.com/infractl/infractl/templates/haproxy"
)

//go:embed *.tmpl *.sh
var files embed.FS

// What has to be filled in for the files of this package.
const (
	// ServerValue is the value with the ID of the load balancer's own server.
	ServerValue = "server.id"
	// TokenSecret is the secret with the API token.
	TokenSecret = "vip.token"
)

// IDValue and AddressValue are the names of the values with the ID and the
// address of the floating IP of a family, which is ipv4 or ipv6. A floating IPv6
// is a whole /64; the address is the one of it that the environment uses.
func IDValue(family string) string      { return "vip." + family + ".id" }
func AddressValue(family string) string { return "vip." + family + ".address" }

// Input describes one load balancer.
type Input struct {
	// Debian is the release: 12 or 13.
	Debian int
	// Host is the short name, such as lb-1.
	Host string
	// Address is the address in the private network.
	Address netip.Addr
	// Index is the place in the tier, from 1. When several load balancers could
	// take over at once, the lowest does.
	Index int
	// Peers are the other load balancers' private addresses.
	Peers []netip.Addr
	// Endpoint is the cloud's API, such as https://api.hetzner.cloud/v1.
	Endpoint string
	// IPv4 and IPv6 say which floating IPs there are.
	IPv4, IPv6 bool
	// Wire is set where the virtual IPs are addresses on the wire, instead of
	// Endpoint and floating IPs.
	Wire *Wire
}

// endpointPath is what may follow the host in an endpoint.
var endpointPath = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)*$`)

// Validate says what is wrong with the input, or nil.
func (in Input) Validate() error {
	if err := templates.CheckDebian(in.Debian); err != nil {
		return err
	}
	if err := templates.CheckHost("the load balancer's name", in.Host); err != nil {
		return err
	}
	if err := templates.CheckAddress("the private address", in.Address); err != nil {
		return err
	}
	if in.Index < 1 || in.Index > 100 {
		return fmt.Errorf("%w: the place in the tier is %d, but there can be 1 to 100 load balancers", templates.ErrInput, in.Index)
	}
	for _, a := range in.Peers {
		if err := templates.CheckAddress("another load balancer's address", a); err != nil {
			return err
		}
		if a == in.Address {
			return fmt.Errorf("%w: %s is its own peer", templates.ErrInput, in.Host)
		}
		if a.Is4() != in.Address.Is4() {
			return fmt.Errorf("%w: %s and its peer %s are of different address families", templates.ErrInput, in.Address, a)
		}
	}
	if in.Wire != nil {
		return in.Wire.validate(in)
	}
	if !in.IPv4 && !in.IPv6 {
		return fmt.Errorf("%w: there is no floating IP to claim", templates.ErrInput)
	}
	return checkEndpoint(in.Endpoint)
}

// checkEndpoint takes https everywhere, and http for a numeric address only:
// the token must not cross a network in plain text because of a misspelt URL.
func checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" || !endpointPath.MatchString(u.EscapedPath()) {
		return fmt.Errorf("%w: the API endpoint %q is not an address such as https://api.hetzner.cloud/v1", templates.ErrInput, endpoint)
	}
	address, err := netip.ParseAddr(u.Hostname())
	numeric := err == nil && address.Zone() == ""
	if !numeric && !regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`).MatchString(u.Hostname()) {
		return fmt.Errorf("%w: the API endpoint %q has no host", templates.ErrInput, endpoint)
	}
	if u.Scheme != "https" && !(u.Scheme == "http" && numeric) {
		return fmt.Errorf("%w: the API endpoint %q does not begin with https://, so the token would cross the network in plain text", templates.ErrInput, endpoint)
	}
	return nil
}

// priority is what a load balancer starts a VRRP election with: 200 for the
// first, falling. The distance to 254 only lengthens the skew by milliseconds.
func priority(index int) int { return 201 - index }

// Render describes the host's share of this package.
func Render(in Input) (desired.Host, error) {
	if err := in.Validate(); err != nil {
		return desired.Host{}, fmt.Errorf("keepalived of %s: %w", in.Host, err)
	}
	f := templates.Files{From: files, Data: data{
		Input: in, MaxPriority: priority(1), Instances: in.instances(), Links: in.links(),
		Monitor: haproxy.MonitorPort,
		Server:  ServerValue, Token: TokenSecret, Floating: in.floating(),
		OnWire: in.onWire(), Probes: in.probes(), Speakers: in.speakers(), Socket: haproxy.Socket, Switches: haproxy.Switches,
	}}
	f.Add("/etc/keepalived/keepalived.conf", "keepalived.conf.tmpl", desired.File{Mode: "0640"})
	f.Add("/etc/systemd/system/keepalived.service.d/infractl.conf", "keepalived.service.tmpl", desired.File{})
	f.Copy(folder+"lb-health", "lb-health.sh", desired.File{Mode: "0755"})
	f.Copy(folder+"lb-health-fresh", "lb-health-fresh.sh", desired.File{Mode: "0755"})
	f.Add("/etc/systemd/system/infractl-lb-health.service", "lb-health.service.tmpl", desired.File{})
	f.Add("/etc/infractl/vip.env", "vip.env.tmpl", desired.File{})
	duty.Add(&f, "lb", true)
	f.Add("/etc/nftables.d/keepalived.nft", "keepalived.nft.tmpl", desired.File{})
	health := desired.Unit{
		Name: "infractl-lb-health.service", Enabled: true, Active: true,
		RestartOn: []string{folder + "lb-health"},
		Health:    folder + "lb-health-fresh /run/infractl",
	}
	mover := duty.Around(desired.Unit{
		Name: "keepalived.service", Enabled: true, Active: true,
		ReloadOn: []string{"/etc/keepalived/keepalived.conf", folder + "lb-health-fresh"},
		// The folder of the tracked file has to be there already.
		Validate: "mkdir -p /run/infractl && keepalived -t -f /etc/keepalived/keepalived.conf",
		Health:   "systemctl is-active --quiet keepalived.service",
	})
	host := desired.Host{Packages: []string{"curl", "keepalived"}}
	if in.Wire != nil {
		f.Copy(folder+"vip-state", "vip-state.sh", desired.File{Mode: "0755"})
		f.Copy(folder+"vip-drop", "vip-drop.sh", desired.File{Mode: "0755"})
		f.Copy(folder+"vrrp-listen", "vrrp-listen.sh", desired.File{Mode: "0755"})
		f.Add("/etc/sysctl.d/61-infractl-keepalived.conf", "sysctl.conf.tmpl", desired.File{})
		mover.Validate += " && sh " + folder + in.listen()
		host.Units = []desired.Unit{health, mover}
	} else {
		host.Packages = append(host.Packages, "jq")
		f.Copy(folder+"vip", "vip.sh", desired.File{Mode: "0755"})
		f.Add("/etc/infractl/vip.curl", "vip.curl.tmpl", desired.File{Mode: "0600"})
		f.Add("/etc/systemd/system/infractl-vip.service", "vip.service.tmpl", desired.File{})
		f.Add("/etc/systemd/system/infractl-vip-address.service", "vip-address.service.tmpl", desired.File{})
		f.Copy(folder+"vip-address", "vip-address.sh", desired.File{Mode: "0755"})
		host.Units = []desired.Unit{
			{
				Name: "infractl-vip-address.service", Enabled: true, Active: true,
				RestartOn: []string{"/etc/infractl/vip.env", folder + "vip-address"},
				Health:    folder + "vip-address check",
			},
			health,
			{
				Name: "infractl-vip.service", Enabled: true, Active: true,
				RestartOn: []string{"/etc/infractl/vip.env", "/etc/infractl/vip.curl", folder + "vip"},
				Health:    "systemctl is-active --quiet infractl-vip.service",
			},
			mover,
		}
	}
	if f.Err != nil {
		return desired.Host{}, f.Err
	}
	host.Files = f.Made
	slices.Sort(host.Packages)
	return host, nil
}

// folder is where scripts are on a host.
const folder = duty.Folder

// data is what the templates see.
type data struct {
	Input
	MaxPriority      int
	Instances        []instance
	Links            []string
	Monitor          uint16
	Server, Token    string
	Floating         []floating
	OnWire           []string
	Probes           []netip.Addr
	Speakers         []speaker
	Socket, Switches string
}

// floating names the values of a floating IP.
type floating struct{ ID, Address string }

// floating are the floating IPs that there are.
func (in Input) floating() []floating {
	var out []floating
	if in.IPv4 {
		out = append(out, floating{IDValue("ipv4"), AddressValue("ipv4")})
	}
	if in.IPv6 {
		out = append(out, floating{IDValue("ipv6"), AddressValue("ipv6")})
	}
	return out
}
