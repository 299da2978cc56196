// Package stacks is the Pulumi program of infractl: the specification of one
// environment, read from the stack's configuration, becomes resources.
//
// The program opens no connection and writes no file. Everything that it
// knows comes from the configuration, from a few environment variables (see
// Options) and from the outputs of the resources themselves.
package stacks

import (
	"fmt"
	"net/netip"
	"strconv"
)

// Tier names, in the order in which traffic passes them.
const (
	TierLB  = "lb"
	TierWeb = "web"
	TierApp = "app"
	TierDB  = "db"
)

// TierNames are the names of all tiers, in the order in which traffic passes them.
func TierNames() []string { return []string{TierLB, TierWeb, TierApp, TierDB} }

// Ports inside the private network.
const (
	webPort      = 80
	databasePort = 5432
)

// Environment is one environment's specification, with every default filled in.
type Environment struct {
	// Name is the stack's name: it prefixes every name in the cloud.
	Name string
	// Target is what provides the hosts; hcloud is the only one so far.
	Target string
	// Location and Image are the defaults of all tiers.
	Location string
	Image    string
	Network  Network
	// Tiers holds all four tiers by name.
	Tiers       map[string]Tier
	SSH         SSH
	Application Application
	VIP         VIP
	// Monitors may scrape the metrics on the hosts' private addresses.
	Monitors []netip.Prefix
	// DebugHeaders makes responses say which hosts have served them.
	DebugHeaders bool
	// VIPToken is the cloud token that the load balancers use to claim the
	// virtual IP. It is empty when the configuration holds none; then it has to
	// come from the environment variable INFRACTL_VIP_TOKEN.
	VIPToken string
	// ApplicationSecrets are environment variables of the application that
	// must not be shown, by name.
	ApplicationSecrets map[string]string
}

// Network is the private network of an environment.
type Network struct {
	Range netip.Prefix
	// Zone is the cloud's network zone, such as eu-central.
	Zone string
}

// Tier is a group of hosts with the same job.
type Tier struct {
	Name     string
	Count    int
	Type     string
	Location string
	Image    string
	// MaxUnavailable is how many hosts may be changed at the same time, after
	// the first one has shown that the change is good.
	MaxUnavailable int
	Subnet         netip.Prefix
	Options        TierOptions
}

// TierOptions are the options that only some tiers have.
type TierOptions struct {
	// ImmutablePaths (web) are path prefixes of files whose name changes when
	// their content does, so that browsers may keep them for good.
	ImmutablePaths []string
	// Disk (db) is ssd, nvme or hdd.
	Disk string
}

// SSH says who may log in and how.
type SSH struct {
	AllowFrom []netip.Prefix
	// AuthorizedKeys are lines in the format of authorized_keys(5), without options.
	AuthorizedKeys []string
	User           string
	Port           int
}

// Application is the user's program.
type Application struct {
	Name string
	// Release is the absolute path of the release directory.
	Release string
	// Command is the path of the program, relative to Release.
	Command string
	// Static is the path of the static files, relative to Release; empty means there are none.
	Static string
	// Health is the path that answers 200 when the application can serve.
	Health string
	Port   int
	// Processes is how many of its processes run on each application host.
	Processes   int
	Environment map[string]string
}

// VIP says which virtual IPs the environment has.
type VIP struct {
	IPv4 bool
	IPv6 bool
}

// Host is one host of an environment.
type Host struct {
	// Name is the short name, such as web-1.
	Name string
	// CloudName is the name of the server and the host name, such as lab-web-1.
	CloudName string
	Tier      string
	// Index counts from 1 within the tier.
	Index int
	// Address is the private address.
	Address netip.Addr
}

// firstHost is how far the first host of a tier is from its subnet's own
// address, less one. The addresses before it are left to the cloud and to the future.
const firstHost = 10

// address is the private address of a tier's host, whose index counts from 1.
// It depends on nothing else, so that it never changes when hosts come and go.
func (t Tier) address(index int) netip.Addr {
	base := t.Subnet.Masked().Addr().As4()
	n := uint32(base[0])<<24 | uint32(base[1])<<16 | uint32(base[2])<<8 | uint32(base[3])
	n += uint32(firstHost + index)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// capacity is how many hosts the tier's subnet has room for.
func (t Tier) capacity() int {
	size := 1 << (32 - t.Subnet.Bits())
	return size - firstHost - 2 // its own address is counted in firstHost's offset, the last one is broadcast
}

// TierHosts are the hosts of one tier, in order.
func (e Environment) TierHosts(tier string) []Host {
	t := e.Tiers[tier]
	hosts := make([]Host, 0, t.Count)
	for i := 1; i <= t.Count; i++ {
		name := tier + "-" + strconv.Itoa(i)
		hosts = append(hosts, Host{
			Name:      name,
			CloudName: e.Name + "-" + name,
			Tier:      tier,
			Index:     i,
			Address:   t.address(i),
		})
	}
	return hosts
}

// Hosts are all hosts, load balancers first.
func (e Environment) Hosts() []Host {
	var hosts []Host
	for _, tier := range TierNames() {
		hosts = append(hosts, e.TierHosts(tier)...)
	}
	return hosts
}

// Labels are the labels of every cloud resource of a tier; with an empty tier,
// those of a resource that belongs to the whole environment.
func (e Environment) Labels(tier string) map[string]string {
	return labels(e.Name, tier)
}

// Names of the labels in the cloud.
const (
	LabelEnvironment = "infractl-environment"
	LabelTier        = "infractl-tier"
	LabelManagedBy   = "managed-by"
	// ManagedBy is the value of LabelManagedBy.
	ManagedBy = "infractl"
)

func labels(environment, tier string) map[string]string {
	l := map[string]string{LabelEnvironment: environment, LabelManagedBy: ManagedBy}
	if tier != "" {
		l[LabelTier] = tier
	}
	return l
}

// debian is the Debian release of the tier's image.
func (t Tier) debian() (int, error) {
	switch t.Image {
	case "debian-13":
		return 13, nil
	case "debian-12":
		return 12, nil
	}
	return 0, fmt.Errorf("image %s is not supported", t.Image)
}
