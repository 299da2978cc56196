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
	"slices"
	"strconv"
)

// Targets are what provides hosts.
const (
	// TargetCloud makes servers on Hetzner Cloud.
	TargetCloud = "hcloud"
	// TargetHosts takes servers that are there already, from the inventory.
	TargetHosts = "hosts"
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
	// sharedWebPort is that of a web host that shares its machine with a load
	// balancer, which has the other one.
	sharedWebPort = 8081
)

// Environment is one environment's specification, with every default filled in.
type Environment struct {
	// Name is the stack's name: it prefixes every name in the cloud.
	Name string
	// Target is what provides the hosts of a tier that does not say otherwise.
	Target string
	// Location and Image are the defaults of all tiers.
	Location string
	Image    string
	Network  Network
	// Tiers holds all four tiers by name.
	Tiers map[string]Tier
	// Inventory are the servers that tiers with TargetHosts take.
	Inventory   Inventory
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

// Inventory are servers that no API made.
type Inventory struct {
	// Tiers are those that are given to a tier, in order. A server that is given
	// to several tiers is the same pointer in all of them.
	Tiers map[string][]*OwnServer
	// Spare are those that are given to none, in the order in which they are taken.
	Spare []*OwnServer
}

// OwnServer is a server that no API made, as the inventory describes it.
type OwnServer struct {
	// Name is its host name. Empty means that infractl gives it one.
	Name string
	// Address is where SSH reaches it: an IP address or a name.
	Address string
	// Private is its address among the hosts of the environment.
	Private netip.Addr
	// HostKey is by what SSH knows it: a public key, the fingerprint of one, or the
	// key of an authority after "@cert-authority". Empty means that the operator's
	// known_hosts says it.
	HostKey string
	User    string
	Port    int
	// Jump are the hosts through which SSH goes, as in ProxyJump.
	Jump string
	// MemoryMB is its memory in MiB, Cores the number of its processors.
	MemoryMB, Cores int
	// Debian is its release: 12 or 13.
	Debian int

	// key names its place in the configuration.
	key string
}

// Tier is a group of hosts with the same job.
type Tier struct {
	Name string
	// Target is what provides its hosts. Type, Location, Image and Subnet say
	// nothing about those of TargetHosts.
	Target   string
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

// VIP says which virtual IPs the environment has: floating IPs of the cloud, or
// addresses on the wire, according to the target of the load balancers.
type VIP struct {
	// IPv4 and IPv6 say which floating IPs there are.
	IPv4 bool
	IPv6 bool
	// Wire are those on the wire. A single load balancer may do without.
	Wire []WireVIP
}

// WireVIP is a virtual IP on the wire.
type WireVIP struct {
	// Address has the length of the network that it is in.
	Address netip.Prefix
	// Interface is where it is; empty means the one that holds the load balancer's
	// own address in that network.
	Interface string
	// IPv6 is an address that moves together with Address, if it is valid, and
	// IPv6Interface where it is; empty means the same as Address.
	IPv6          netip.Prefix
	IPv6Interface string
	// RouterID tells VRRP groups on one wire apart.
	RouterID int
	// Preempt makes the load balancer that is to have the address take it back when
	// it is well again.
	Preempt bool
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
	// Debian is the release: 12 or 13; 0 if the image is none of these.
	Debian int
	// Machine is the name of the machine that the host is on: its own, unless it
	// shares the machine with others.
	Machine string
	// Own is the server that it is on if no API made that; nil in the cloud.
	Own *OwnServer
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

// TierHosts are the hosts of one tier, in order. Those of a tier with TargetHosts
// are on the servers that the inventory gives to the tier and then, as far as
// these do not suffice, on spare ones in the order in which they are listed.
// They are called web-1 and so on all the same: names stand in the configuration
// of other hosts. There are fewer than Count if the inventory has too few.
func (e Environment) TierHosts(tier string) []Host {
	t := e.Tiers[tier]
	hosts := make([]Host, 0, t.Count)
	if t.Target == TargetHosts {
		for i, s := range e.ownServers(tier) {
			h := Host{Name: shortName(tier, i+1), Tier: tier, Index: i + 1, Address: s.Private, Debian: s.Debian, Machine: e.machineOf(s), Own: s}
			h.CloudName = s.Name
			if h.CloudName == "" {
				h.CloudName = e.Name + "-" + h.Machine
			}
			hosts = append(hosts, h)
		}
		return hosts
	}
	debian, _ := t.debian()
	for i := 1; i <= t.Count; i++ {
		name := shortName(tier, i)
		hosts = append(hosts, Host{
			Name:      name,
			CloudName: e.Name + "-" + name,
			Tier:      tier,
			Index:     i,
			Address:   t.address(i),
			Debian:    debian,
			Machine:   name,
		})
	}
	return hosts
}

func shortName(tier string, index int) string { return tier + "-" + strconv.Itoa(index) }

// ownServers are the servers that the hosts of a tier with TargetHosts are on.
func (e Environment) ownServers(tier string) []*OwnServer {
	list := e.Inventory.Tiers[tier]
	if n := e.Tiers[tier].Count; n <= len(list) {
		return list[:max(n, 0)]
	}
	spare := e.Inventory.Spare
	for _, before := range TierNames() {
		n := min(e.spares(before), len(spare))
		if before == tier {
			return slices.Concat(list, spare[:n])
		}
		spare = spare[n:]
	}
	return list
}

// spares is how many spare servers a tier wants.
func (e Environment) spares(tier string) int {
	t := e.Tiers[tier]
	if t.Target != TargetHosts {
		return 0
	}
	return max(t.Count-len(e.Inventory.Tiers[tier]), 0)
}

// order is the order in which tiers are configured: a tier after those it needs.
var order = []string{TierDB, TierApp, TierWeb, TierLB}

// machineOf names the machine that a server is: as the host on it whose tier is
// configured first. That one changes least: a machine gets and loses other jobs,
// but it keeps its database.
func (e Environment) machineOf(s *OwnServer) string {
	for _, tier := range order {
		if e.Tiers[tier].Target != TargetHosts {
			continue
		}
		if i := slices.Index(e.ownServers(tier), s); i >= 0 {
			return shortName(tier, i+1)
		}
	}
	return ""
}

// Machine is a server with all hosts that are on it.
type Machine struct {
	// Name is that of the first of its hosts.
	Name string
	// Hosts are in the order in which their tiers are configured. In the cloud each
	// host has a machine of its own.
	Hosts []Host
}

// Machines are all machines, in the order in which their first hosts' tiers are
// configured.
func (e Environment) Machines() []Machine {
	return e.machinesOf(order)
}

// machinesOf are the machines that hosts of some tiers are on.
func (e Environment) machinesOf(tiers []string) []Machine {
	var out []Machine
	place := map[string]int{}
	for _, tier := range tiers {
		for _, h := range e.TierHosts(tier) {
			i, ok := place[h.Machine]
			if !ok {
				i = len(out)
				place[h.Machine] = i
				out = append(out, Machine{Name: h.Machine})
			}
			out[i].Hosts = append(out[i].Hosts, h)
		}
	}
	return out
}

// ownMachines are those that no API made.
func (e Environment) ownMachines() []Machine {
	return e.machinesOf(slices.DeleteFunc(slices.Clone(order), func(tier string) bool { return e.Tiers[tier].Target != TargetHosts }))
}

// host is the host of a tier on the machine, if there is one.
func (m Machine) host(tier string) (Host, bool) {
	i := slices.IndexFunc(m.Hosts, func(h Host) bool { return h.Tier == tier })
	if i < 0 {
		return Host{}, false
	}
	return m.Hosts[i], true
}

// Uses says whether a target provides the hosts of any tier.
func (e Environment) Uses(target string) bool {
	return slices.ContainsFunc(TierNames(), func(tier string) bool { return e.Tiers[tier].Target == target })
}

// webPort is where the nginx of a web host listens.
func (e Environment) webPort(h Host) uint16 {
	if h.Own != nil && slices.ContainsFunc(e.TierHosts(TierLB), func(lb Host) bool { return lb.Machine == h.Machine }) {
		return sharedWebPort
	}
	return webPort
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
