package inventory

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/infractl/infractl/cmd/infractl/internal/stackfile"
	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/stacks"
)

// Joining is a server that is to join the inventory, as its user describes it.
type Joining struct {
	// List is a tier, or spare.
	List string
	// Name is the host name that it is to have; it may be empty.
	Name string
	// Address is where SSH reaches it, with User and Port, which are never empty.
	Address string
	User    string
	Port    int
	// HostKey is what was said about its key, Jump the way to it; both may be empty.
	HostKey, Jump string
	// Private is the address that was chosen; invalid leaves it to Choose.
	Private netip.Addr
}

// ParseAddress reads [user@]address[:port]. An IPv6 address with a port stands in
// brackets. What is not said is empty.
func ParseAddress(text string) (user, address string, port int, err error) {
	rest := text
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		if user, rest = rest[:at], rest[at+1:]; user == "" {
			return "", "", 0, fmt.Errorf("%q has no user before the @", text)
		}
	}
	if _, err := netip.ParseAddr(rest); err == nil {
		return user, rest, 0, nil // also an IPv6 address, which has colons
	}
	address = rest
	if colon := strings.LastIndexByte(rest, ':'); colon > strings.LastIndexByte(rest, ']') {
		if port, err = strconv.Atoi(rest[colon+1:]); err != nil || port < 1 || port > 65535 {
			return "", "", 0, fmt.Errorf("%q must end in a port between 1 and 65535; with one, an IPv6 address stands in brackets", text)
		}
		address = rest[:colon]
	}
	if inner, ok := strings.CutPrefix(address, "["); ok {
		address = strings.TrimSuffix(inner, "]")
	}
	if address == "" {
		return "", "", 0, fmt.Errorf("%q has no address", text)
	}
	return user, address, port, nil
}

// DefaultUser is who logs in to servers of which nothing is said.
func DefaultUser(env stacks.Environment) string {
	// The user of hosts in the cloud is made with them.
	if env.SSH.User == "" || env.Uses(stacks.TargetCloud) {
		return "root"
	}
	return env.SSH.User
}

// Target is how the server is reached.
func (j Joining) Target() provision.Target {
	name := j.Name
	if name == "" {
		name = j.Address
	}
	return provision.Target{Name: name, Address: j.Address, Port: j.Port, User: j.User, HostKey: j.HostKey, Jump: j.Jump, Own: true}
}

// There fails if the inventory has the server already.
func (j Joining) There(all []Server) error {
	for _, s := range all {
		switch {
		case strings.EqualFold(s.Address, j.Address) && s.Port == j.Port:
			return fmt.Errorf("%s is in the inventory already: %s (%s)%s", j.Address, s.Title(), strings.Join(s.Lists, ", "), j.instead(s))
		case j.Name != "" && s.Name == j.Name:
			return fmt.Errorf("the inventory has a server %s already: %s (%s); choose another --name", j.Name, s.Endpoint(), strings.Join(s.Lists, ", "))
		case j.Private.IsValid() && s.Private == j.Private.String():
			return fmt.Errorf("%s is the private address of %s already", j.Private, s.Title())
		}
	}
	return nil
}

// instead is what to do about a server that is there already, but not in the list.
func (j Joining) instead(s Server) string {
	switch {
	case slices.Contains(s.Lists, j.List):
		return ""
	case slices.Contains(s.Lists, stacks.Spare):
		return fmt.Sprintf("; move its entry from there to %s", j.List)
	case j.List == stacks.Spare:
		return ""
	}
	return fmt.Sprintf("; to give it to tier %s, too, name its address there as well: {address: %s}", j.List, s.Address)
}

// SameKey fails if a server of the inventory has the very same host key.
func (j Joining) SameKey(key provision.ShownKey, all []Server) error {
	for _, s := range all {
		if !strings.HasPrefix(s.HostKey, authority) && fingerprint(s.HostKey) == key.Fingerprint {
			return fmt.Errorf("%s has the host key of %s (%s): it is the same server under another address, or a copy of it; a copy needs keys of its own: on it, rm /etc/ssh/ssh_host_* && dpkg-reconfigure openssh-server",
				j.Address, s.Title(), s.Endpoint())
		}
	}
	return nil
}

// Suitable fails if infractl cannot take the machine over. That its user becomes root
// was seen before.
func (j Joining) Suitable(m *provision.Machine) error {
	is := m.Name
	if is == "" {
		is = m.OS + " " + m.Version
	}
	switch {
	case m.OS != "debian" || release(m) == 0:
		return fmt.Errorf("%s runs %s, but infractl needs Debian 13 or 12; install that there", j.Address, strings.TrimSpace(is))
	case !m.Systemd:
		return fmt.Errorf("systemd does not run on %s, and infractl needs it; boot the server with it (apt-get install systemd-sysv)", j.Address)
	}
	return nil
}

// release is a supported release of Debian, or 0.
func release(m *provision.Machine) int {
	switch m.Version {
	case "13":
		return 13
	case "12":
		return 12
	}
	return 0
}

// made are interfaces that programs on a server have made for themselves: containers
// and virtual machines are behind them, and no other server.
var made = regexp.MustCompile(`^(lo|docker|br-|veth|virbr|vnet|lxc|lxd|cni|flannel|cali|podman|kube)`)

// Choose decides which private address the server is to have: the one that was
// asked for, if the machine has it; else the only one there is; else the only one in
// a network in which servers of the inventory have theirs.
func (j Joining) Choose(m *provision.Machine, all []Server) (netip.Addr, error) {
	var every, likely, near []netip.Prefix
	for _, i := range m.Interfaces {
		for _, p := range i.Addresses {
			a := p.Addr()
			if !a.Is4() || a.IsLoopback() || a.IsLinkLocalUnicast() {
				continue
			}
			every = append(every, p)
			if !i.Up || made.MatchString(i.Name) || !isPrivate(a) {
				continue
			}
			likely = append(likely, p)
			if slices.ContainsFunc(all, func(s Server) bool {
				other, err := netip.ParseAddr(s.Private)
				return err == nil && other != a && p.Contains(other)
			}) {
				near = append(near, p)
			}
		}
	}
	switch {
	case j.Private.IsValid():
		if !slices.ContainsFunc(every, func(p netip.Prefix) bool { return p.Addr() == j.Private }) {
			return netip.Addr{}, fmt.Errorf("%s does not have the address %s; it has %s", j.Address, j.Private, addresses(every))
		}
		return j.Private, nil
	case len(likely) == 1:
		return likely[0].Addr(), nil
	case len(near) == 1:
		return near[0].Addr(), nil
	case len(likely) == 0:
		return netip.Addr{}, fmt.Errorf("%s has no private address, only %s; say by which IPv4 address the environment's hosts are to reach it: --private ADDRESS. Over a public one, only the database's traffic is encrypted", j.Address, addresses(every))
	}
	return netip.Addr{}, fmt.Errorf("%s has more than one private address: %s; choose one with --private ADDRESS", j.Address, addresses(likely))
}

// shared is the range of RFC 6598, which providers use as private addresses.
var shared = netip.MustParsePrefix("100.64.0.0/10")

func isPrivate(a netip.Addr) bool { return a.IsPrivate() || shared.Contains(a) }

func addresses(list []netip.Prefix) string {
	if len(list) == 0 {
		return "no IPv4 address at all"
	}
	words := make([]string, len(list))
	for i, p := range list {
		words[i] = p.Addr().String()
	}
	return strings.Join(words, ", ")
}

// Entry is what the configuration has to say about the server: what differs from what
// it would be taken for anyway, and the sizes that were seen.
func (j Joining) Entry(env stacks.Environment, m *provision.Machine, key provision.ShownKey, private netip.Addr) []stackfile.Pair {
	var out []stackfile.Pair
	add := func(name, value string) {
		if value != "" {
			out = append(out, stackfile.Pair{Key: name, Value: value})
		}
	}
	number := func(name string, value int) {
		if value > 0 {
			out = append(out, stackfile.Pair{Key: name, Value: strconv.Itoa(value), Number: true})
		}
	}
	add("name", j.Name)
	add("address", j.Address)
	if private.String() != j.Address {
		add("private", private.String())
	}
	add("hostKey", key.Key)
	if j.User != "root" || DefaultUser(env) != "root" {
		add("user", j.User)
	}
	if j.Port != env.SSH.Port {
		number("port", j.Port)
	}
	add("jump", j.Jump)
	number("memory", m.MemoryMB)
	number("cores", m.Cores)
	if r := release(m); "debian-"+strconv.Itoa(r) != env.Image {
		number("debian", r)
	}
	return out
}
