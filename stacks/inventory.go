package stacks

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/infractl/infractl/templates/application"
)

// Defaults of a server that no API made. They understate: daemons that are sized
// for them fit into any server of today.
const (
	defaultMemory = 2048
	defaultCores  = 2
	// leastMemory is what every host on a machine needs, in MiB.
	leastMemory = 256
)

// Spare is the list of the inventory with servers that are given to no tier.
const Spare = "spare"

// Names by which servers and what is on them can be called.
var (
	sshName       = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}$`)
	jumpHosts     = regexp.MustCompile(`^[A-Za-z0-9._@:,%\[\]-]+$`)
	interfaceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$`)
	hostName      = regexp.MustCompile(`^(` + strings.Join(TierNames(), "|") + `)-[0-9]+$`)
)

// decodeInventory reads the servers that no API made. e has the environment's
// defaults. One server may be given to several tiers: then it is the same, and
// what is said about it in one place need not be said in the others.
func decodeInventory(v value, e Environment) Inventory {
	places := append(TierNames(), Spare)
	f := v.fields(places...)
	inv := Inventory{Tiers: map[string][]*OwnServer{}}
	known := map[string]*OwnServer{} // by endpoint
	for _, place := range places {
		for _, item := range f[place].list() {
			s := decodeServer(item, e)
			if s == nil {
				continue
			}
			first, again := known[s.endpoint()]
			switch {
			case !again:
				known[s.endpoint()] = s
			case place == Spare:
				v.p.add(item.key, "is %s, which is not spare", first.key)
				continue
			case slices.Contains(inv.Tiers[place], first):
				v.p.add(item.key, "is the same server as %s", first.key)
				continue
			default:
				first.join(s, v.p)
				s = first
			}
			if place == Spare {
				inv.Spare = append(inv.Spare, s)
			} else {
				inv.Tiers[place] = append(inv.Tiers[place], s)
			}
		}
	}
	for _, endpoint := range sortedKeys(known) {
		known[endpoint].complete(v.p, e)
	}
	return inv
}

// decodeServer reads what is said about a server in one place. What is not said is
// left empty, but for the port. It is nil if nobody could tell which server it is.
func decodeServer(v value, e Environment) *OwnServer {
	f := v.fields("name", "address", "private", "hostKey", "user", "port", "jump", "memory", "cores", "debian")
	s := &OwnServer{
		Name: f["name"].text(""), Address: f["address"].text(""), HostKey: strings.TrimSpace(f["hostKey"].text("")),
		User: f["user"].text(""), Port: f["port"].number(e.SSH.Port), Jump: f["jump"].text(""),
		MemoryMB: f["memory"].number(0), Cores: f["cores"].number(0), Debian: f["debian"].number(0),
		key: v.key,
	}
	if v.p.has(v.key) {
		return nil
	}
	if !f["name"].absent() && !cloudName.MatchString(s.Name) {
		v.p.add(f["name"].key, "must be a host name of small letters, digits and hyphens, not %q", s.Name)
	}
	if a, err := netip.ParseAddr(s.Address); err == nil && a.Zone() == "" {
		s.Address = a.Unmap().String()
	} else if !sshName.MatchString(s.Address) {
		v.p.add(f["address"].key, "must be an IP address or a name by which SSH reaches the server, not %q", s.Address)
		return nil
	}
	if text := f["private"].text(""); text != "" {
		a, err := netip.ParseAddr(text)
		if err != nil || !a.Is4() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
			v.p.add(f["private"].key, "must be the IPv4 address by which the environment's hosts reach this one, not %q", text)
		} else {
			s.Private = a
		}
	}
	if s.HostKey != "" {
		if err := checkHostKey(s.HostKey); err != nil {
			v.p.add(f["hostKey"].key, "%v", err)
		}
	}
	if s.User != "" && !unixName.MatchString(s.User) {
		v.p.add(f["user"].key, "must be the name of a user, not %q", s.User)
	}
	checkPort(f["port"], s.Port)
	if s.Jump != "" && !jumpHosts.MatchString(s.Jump) {
		v.p.add(f["jump"].key, "must be [user@]host[:port], with commas between several, not %q", s.Jump)
	}
	if !f["memory"].absent() && (s.MemoryMB < leastMemory || s.MemoryMB > 1<<25) {
		v.p.add(f["memory"].key, "must be the server's memory in MiB, at least %d, not %d", leastMemory, s.MemoryMB)
	}
	if !f["cores"].absent() && (s.Cores < 1 || s.Cores > 4096) {
		v.p.add(f["cores"].key, "must be the number of the server's cores, not %d", s.Cores)
	}
	if !f["debian"].absent() && s.Debian != 12 && s.Debian != 13 {
		v.p.add(f["debian"].key, "must be 13 or 12, not %d", s.Debian)
	}
	return s
}

// checkHostKey refuses what SSH could not know a host by.
func checkHostKey(text string) error {
	if digest, ok := strings.CutPrefix(text, "SHA256:"); ok {
		if sum, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(digest, "=")); err != nil || len(sum) != 32 {
			return fmt.Errorf("must be a fingerprint as ssh-keygen -l prints it, not %q", text)
		}
		return nil
	}
	line := strings.TrimPrefix(text, "@cert-authority ")
	_, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil || len(options) > 0 || len(strings.TrimSpace(string(rest))) > 0 || strings.Contains(text, "\n") {
		return fmt.Errorf(`must be a fingerprint such as "SHA256:…", a public key such as "ssh-ed25519 AAAA…", or "@cert-authority " and the key of an authority`)
	}
	return nil
}

// join takes over what another place says about the same server.
func (s *OwnServer) join(other *OwnServer, p *problems) {
	both(&s.Name, other.Name, "name", s, other, p)
	both(&s.Private, other.Private, "private", s, other, p)
	both(&s.HostKey, other.HostKey, "hostKey", s, other, p)
	both(&s.User, other.User, "user", s, other, p)
	both(&s.Jump, other.Jump, "jump", s, other, p)
	both(&s.MemoryMB, other.MemoryMB, "memory", s, other, p)
	both(&s.Cores, other.Cores, "cores", s, other, p)
	both(&s.Debian, other.Debian, "debian", s, other, p)
}

func both[V comparable](value *V, again V, name string, s, other *OwnServer, p *problems) {
	var nothing V
	switch {
	case again == nothing || again == *value:
	case *value == nothing:
		*value = again
	default:
		p.add(other.key+"."+name, "is %v, but %v in %s, which is the same server", again, *value, s.key)
	}
}

// complete fills in what no place says. Who logs in is known only later.
func (s *OwnServer) complete(p *problems, e Environment) {
	if !s.Private.IsValid() && !p.has(s.key+".private") {
		if a, err := netip.ParseAddr(s.Address); err == nil && a.Is4() {
			s.Private = a
		} else {
			p.add(s.key+".private", "must be set, since %s is no IPv4 address by which the environment's hosts could reach it", s.Address)
		}
	}
	if s.MemoryMB == 0 {
		s.MemoryMB = defaultMemory
	}
	if s.Cores == 0 {
		s.Cores = defaultCores
	}
	if s.Debian == 0 {
		s.Debian, _ = Tier{Image: e.Image}.debian()
	}
}

// checkInventory reports what does not fit together: servers among each other, and
// with the tiers.
func checkInventory(v value, e Environment) {
	if v.absent() && !e.Uses(TargetHosts) {
		return
	}
	if !e.Uses(TargetHosts) {
		v.p.add(v.key, "is for tiers with target %s, but no tier has it; set %starget to %s, or %stiers.<tier>.target", TargetHosts, namespace, TargetHosts, namespace)
		return
	}
	checkSupply(v, e)
	servers := e.ownAll()
	privates, names := map[netip.Addr]*OwnServer{}, map[string]*OwnServer{}
	for _, s := range servers {
		if first, ok := privates[s.Private]; ok && s.Private.IsValid() {
			v.p.add(s.key+".private", "%s belongs to %s, too; one server has the same address and port wherever it is named", s.Private, first.key)
		}
		privates[s.Private] = s
		if s.Name != "" {
			if first, ok := names[s.Name]; ok {
				v.p.add(s.key+".name", "%s is the name of %s, too", s.Name, first.key)
			}
			names[s.Name] = s
		}
		for _, tier := range TierNames() {
			if t := e.Tiers[tier]; t.Target == TargetCloud && t.Subnet.IsValid() && t.Subnet.Contains(s.Private) {
				v.p.add(s.key+".private", "%s lies in %s, whose addresses belong to the hosts of tier %s in the cloud", s.Private, t.Subnet, tier)
			}
		}
	}
	for _, m := range e.ownMachines() {
		checkMachine(v, e, m)
	}
}

// ownAll are all servers of the inventory, each once.
func (e Environment) ownAll() []*OwnServer {
	var all []*OwnServer
	for _, tier := range TierNames() {
		for _, s := range e.Inventory.Tiers[tier] {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return append(all, e.Inventory.Spare...)
}

// checkSupply reports tiers that want more servers than there are, and servers
// that no tier can have.
func checkSupply(v value, e Environment) {
	spare, taker := len(e.Inventory.Spare), ""
	for _, tier := range TierNames() {
		t, listed := e.Tiers[tier], len(e.Inventory.Tiers[tier])
		list, count := v.key+"."+tier, namespace+"tiers."+tier+".count"
		if t.Target != TargetHosts {
			if listed > 0 {
				v.p.add(list, "names hosts, but tier %s has target %s; set %stiers.%s.target to %s", tier, t.Target, namespace, tier, TargetHosts)
			}
			continue
		}
		wanted := e.spares(tier)
		switch {
		case wanted == 0 || v.p.has(list) || v.p.has(count):
		case wanted > spare && listed == 0 && spare == 0:
			v.p.add(list, "must name the hosts of tier %s", tier)
		case wanted > spare:
			v.p.add(count, "is %d, but %s[%d] is missing: %s names %d, and %s.%s has %d left", t.Count, list, listed+spare, list, listed, v.key, Spare, spare)
		case taker != "":
			// If both took from the list, one that grows would take the other's.
			v.p.add(count, "is %d, but %s names %d, and tier %s takes hosts from %s.%s already; move those that it has from there to the end of %s.%s",
				t.Count, list, listed, taker, v.key, Spare, v.key, taker)
		default:
			spare, taker = spare-wanted, tier
		}
	}
}

// checkMachine reports what the hosts on one machine cannot share.
func checkMachine(v value, e Environment, m Machine) {
	s := m.Hosts[0].Own
	if s.Name != "" && hostName.MatchString(s.Name) && !slices.ContainsFunc(m.Hosts, func(h Host) bool { return h.Name == s.Name }) {
		v.p.add(s.key+".name", "%s would be taken for another host; on this server is %s", s.Name, m.names())
	}
	if share := s.MemoryMB / len(m.Hosts); share < leastMemory {
		v.p.add(s.key+".memory", "is %d, but on this server are %s, and each needs %d at least", s.MemoryMB, m.names(), leastMemory)
	}
	// Each listens on ports of its own, but the operator chooses some.
	ports := e.fixedPorts(m, application.MaxProcesses)
	_, serves := m.host(TierApp)
	if who, taken := ports[e.Application.Port]; taken && serves && !v.p.has(namespace+"application.port") {
		v.p.add(namespace+"application.port", "must not be %d, where %s listens on the same server as %s", e.Application.Port, who, m.names())
	}
	if serves {
		ports[e.Application.Port] = "the application"
	}
	if who, taken := ports[s.Port]; taken {
		v.p.add(s.key+".port", "must not be %d, where %s listens", s.Port, who)
	}
}

// names are the hosts on the machine.
func (m Machine) names() string {
	names := make([]string, len(m.Hosts))
	for i, h := range m.Hosts {
		names[i] = h.Name
	}
	return oneOf(names)
}

// decodeWire reads the virtual IPs on the wire: one, or a list of them.
func decodeWire(v value, e Environment) []WireVIP {
	items := []value{v}
	if _, several := v.data.([]any); several {
		items = v.list()
	}
	balancers := e.TierHosts(TierLB)
	if v.absent() || len(items) == 0 {
		if len(balancers) > 1 && !v.p.has(v.key) {
			v.p.add(v.key, "must hold the address that the %d load balancers share, such as address: 192.0.2.10/24", len(balancers))
		}
		return nil
	}
	var out []WireVIP
	routers, addresses := map[int]string{}, map[netip.Addr]string{}
	for _, s := range e.ownAll() {
		addresses[s.Private] = s.key
		if a, err := netip.ParseAddr(s.Address); err == nil {
			addresses[a] = s.key
		}
	}
	for n, item := range items {
		vip := decodeWireVIP(item, e, len(items) > 1, defaultRouterID+n)
		key := item.key + ".routerId"
		if first, taken := routers[vip.RouterID]; taken && !v.p.has(key) {
			v.p.add(key, "%d belongs to %s, too", vip.RouterID, first)
		}
		routers[vip.RouterID] = item.key
		for _, a := range []struct {
			key    string
			prefix netip.Prefix
		}{{item.key + ".address", vip.Address}, {item.key + ".ipv6.address", vip.IPv6}} {
			if !a.prefix.IsValid() {
				continue
			}
			if first, taken := addresses[a.prefix.Addr()]; taken {
				v.p.add(a.key, "%s belongs to %s, too", a.prefix.Addr(), first)
			}
			addresses[a.prefix.Addr()] = item.key
		}
		out = append(out, vip)
	}
	return out
}

// defaultRouterID is the router ID of the first virtual IP; those after it count on.
const defaultRouterID = 51

// decodeWireVIP reads one virtual IP on the wire.
func decodeWireVIP(v value, e Environment, several bool, routerID int) WireVIP {
	f := v.fields("address", "interface", "routerId", "ipv6", "preempt")
	vip := WireVIP{
		Interface: wireInterface(f["interface"]),
		RouterID:  f["routerId"].number(routerID),
		// One of several that stays where it went would leave the other idle.
		Preempt: f["preempt"].yes(several),
	}
	if vip.RouterID < 1 || vip.RouterID > 255 {
		v.p.add(f["routerId"].key, "must be between 1 and 255, not %d", vip.RouterID)
	}
	if f["address"].absent() {
		if !v.p.has(v.key) {
			v.p.add(f["address"].key, "must be set, such as 192.0.2.10/24")
		}
		return vip
	}
	vip.Address = wireAddress(f["address"])
	six := f["ipv6"].fields("address", "interface")
	if !f["ipv6"].absent() {
		vip.IPv6Interface = wireInterface(six["interface"])
		switch {
		case v.p.has(f["ipv6"].key):
		case six["address"].absent():
			v.p.add(six["address"].key, `must be set, such as "2001:db8::10/64"`)
		case vip.Address.IsValid() && vip.Address.Addr().Is6():
			v.p.add(f["ipv6"].key, "must not be there, since %s is an IPv6 address already", f["address"].key)
		default:
			if vip.IPv6 = wireAddress(six["address"]); vip.IPv6.IsValid() && vip.IPv6.Addr().Is4() {
				v.p.add(six["address"].key, "must be an IPv6 address, not %s", vip.IPv6.Addr())
			}
		}
	}
	if !vip.Address.IsValid() || vip.Interface != "" || v.p.has(f["interface"].key) {
		return vip
	}
	for _, h := range e.TierHosts(TierLB) {
		if _, ok := h.Own.in(vip.Address); !ok && h.Own.Private.IsValid() {
			v.p.add(f["interface"].key, "must be set, such as eth0: %s (%s) has no address in %s by which it could be found", h.Name, h.CloudName, vip.Address.Masked())
			break
		}
	}
	return vip
}

// wireAddress reads an address with the length of its network.
func wireAddress(v value) netip.Prefix {
	text := v.text("")
	if v.p.has(v.key) {
		return netip.Prefix{}
	}
	r, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		v.p.add(v.key, "must be an address with the length of its network, such as 192.0.2.10/24, not %q", text)
	case r.Addr().Is4In6() || r.Addr().IsUnspecified() || r.Addr().IsMulticast() || r.Addr().IsLoopback() || r.Addr().IsLinkLocalUnicast():
		v.p.add(v.key, "must be an address that clients can reach, not %s", r.Addr())
	case r.Addr().Is4() && r.Bits() < 31 && (r.Addr() == r.Masked().Addr() || r.Addr() == last(r)):
		v.p.add(v.key, "must be the address of a host, but %s stands for all of %s", r.Addr(), r.Masked())
	default:
		return r
	}
	return netip.Prefix{}
}

// last is the last address of an IPv4 range.
func last(r netip.Prefix) netip.Addr {
	a := r.Masked().Addr().As4()
	for i := r.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}

// wireInterface reads the name of a network interface; empty stands for auto.
func wireInterface(v value) string {
	name := v.text("auto")
	if name == "auto" {
		return ""
	}
	if !interfaceName.MatchString(name) {
		v.p.add(v.key, "must be auto or the name of a network interface, such as eth0, not %q", name)
		return ""
	}
	return name
}
