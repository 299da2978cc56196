package machine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/infractl/infractl/lab/api"
)

// The wire is a network as servers in a rack share it: layer 2, so that ARP and
// neighbour discovery say where an address is, and gratuitous ones move it. The
// machines on it are plain: no API made them or knows them. Wire4 and Wire6 are
// its networks; the router has the first address of each.
var (
	Wire4 = netip.MustParsePrefix("198.19.0.0/24")
	Wire6 = netip.MustParsePrefix("2001:db8:1ab:8000::/64")
)

const (
	// wireName is the bridge that is the wire, in the router's namespace.
	wireName = "wire"
	// firstPlain is below the IDs of plain machines, and above all that an API gives out.
	firstPlain = int64(1) << 31
	// firstPlainHost is below the addresses of plain machines in their networks.
	firstPlainHost = 10
	// maxPlain leaves addresses for virtual IPs: 198.19.0.100 and above.
	maxPlain = 80
	// plainCores and plainMemoryMB are every plain machine's limits.
	plainCores    = 2
	plainMemoryMB = 2048
)

// ErrNotPlain is wrapped by errors about a machine that an API made.
var ErrNotPlain = errors.New("this machine is a server of the lab's cloud")

var plainName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// Plain describes a machine to make on the wire.
type Plain struct {
	// Name may be empty: then it is rack-N.
	Name string `json:"name,omitempty"`
	// Image may be empty: then it is the newest Debian.
	Image string `json:"image,omitempty"`
	// Keys are the public keys that root may log in with, in authorized_keys format.
	Keys []string `json:"keys,omitempty"`
}

// nthHost is the address with that number in a network.
func nthHost(network netip.Prefix, n int64) netip.Addr {
	bytes := network.Masked().Addr().AsSlice()
	bytes[len(bytes)-1] = byte(n)
	a, _ := netip.AddrFromSlice(bytes) // as long as it was
	return a
}

// wireAddresses are a plain machine's, with the length of the network.
func wireAddresses(id int64) []netip.Prefix {
	n := id - firstPlain + firstPlainHost
	return []netip.Prefix{
		netip.PrefixFrom(nthHost(Wire4, n), Wire4.Bits()),
		netip.PrefixFrom(nthHost(Wire6, n), Wire6.Bits()),
	}
}

// MakePlain makes a machine on the wire and starts it. It is root's who has one of
// the keys, and its host key is made by itself at its first boot.
func (f *Fleet) MakePlain(ctx context.Context, p Plain) (State, error) {
	if p.Image == "" {
		p.Image = Images()[0]
	}
	if !slices.Contains(Images(), p.Image) {
		return State{}, fmt.Errorf("there is no image %q: there are %v", p.Image, Images())
	}
	if p.Name != "" && !plainName.MatchString(p.Name) {
		return State{}, fmt.Errorf("a machine's name has small letters, digits and hyphens, not %q", p.Name)
	}
	root, err := f.image(ctx, api.Server{Name: p.Name, Image: p.Image})
	if err != nil {
		return State{}, err
	}
	first, err := guestFiles.ReadFile("guest/plain.yaml")
	if err != nil {
		return State{}, err
	}
	m, err := f.addPlain(p, root, string(first))
	if err != nil {
		return State{}, err
	}
	if err := f.Start(ctx, m.Server.ID); err != nil {
		return State{}, err
	}
	states := f.List()
	return states[slices.IndexFunc(states, func(s State) bool { return s.ID == m.Server.ID })], nil
}

// addPlain gives a new plain machine the lowest number that is free, and a disk.
func (f *Fleet) addPlain(p Plain, root, userData string) (*machine, error) {
	f.plainMu.Lock()
	defer f.plainMu.Unlock()
	f.mu.Lock()
	id := firstPlain + 1
	for f.machines[id] != nil {
		id++
	}
	if p.Name == "" {
		p.Name = fmt.Sprintf("rack-%d", id-firstPlain)
	}
	var taken bool
	for _, m := range f.machines {
		taken = taken || m.Server.Name == p.Name
	}
	f.mu.Unlock()
	switch {
	case id-firstPlain > maxPlain:
		return nil, fmt.Errorf("the wire has no more addresses: it carries %d machines", maxPlain)
	case taken:
		return nil, fmt.Errorf("there is a machine %s already", p.Name)
	}
	m := &machine{record: record{
		Server: api.Server{
			ID: id, Name: p.Name, Image: p.Image, UserData: userData, SSHKeys: p.Keys,
			IPv4: wireAddresses(id)[0].Addr(), Cores: plainCores, MemoryMB: plainMemoryMB,
		},
		Root: root, Plain: true,
	}}
	if err := f.makeDisk(m); err != nil {
		return nil, fmt.Errorf("make the disk of %s: %w", p.Name, err)
	}
	f.mu.Lock()
	f.machines[id] = m
	f.mu.Unlock()
	f.log.Info("created", "machine", p.Name, "id", id, "image", p.Image)
	return m, nil
}

// StartPlain powers a plain machine on.
func (f *Fleet) StartPlain(ctx context.Context, id int64) error {
	if err := f.requirePlain(id); err != nil {
		return err
	}
	return f.Start(ctx, id)
}

// DeletePlain removes a plain machine with its disk.
func (f *Fleet) DeletePlain(ctx context.Context, id int64) error {
	if err := f.requirePlain(id); err != nil {
		return err
	}
	return f.Delete(ctx, id)
}

// AttachPlain gives a plain machine an address in a private network of the cloud, as
// a provider does that couples racks with its cloud.
func (f *Fleet) AttachPlain(ctx context.Context, id int64, a api.Attachment) error {
	if err := f.requirePlain(id); err != nil {
		return err
	}
	return f.Attach(ctx, id, a)
}

func (f *Fleet) requirePlain(id int64) error {
	m, err := f.find(id)
	if err != nil {
		return err
	}
	if !m.Plain {
		return fmt.Errorf("%w: %s is ordered about through the API", ErrNotPlain, m.Server.Name)
	}
	return nil
}

// plugWire connects a plain machine with the wire, which is made for the first one.
func (f *Fleet) plugWire(ctx context.Context, m *machine, guest *namespace) error {
	router, err := openNamespace(routerName)
	if err != nil {
		return err
	}
	defer router.Close()
	bridge, err := router.ensureBridge()
	if err != nil {
		return fmt.Errorf("make the wire: %w", err)
	}
	if err := f.loadWireRules(ctx); err != nil {
		return err
	}
	port := portName(m.Server.ID)
	if !router.linkExists(port) || !guest.linkExists(publicInterface) {
		if err := router.unplug(port); err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.MasterIndex = port, publicMTU, bridge.Attrs().Index
		err := router.LinkAdd(&netlink.Veth{
			LinkAttrs: attrs, PeerName: publicInterface, PeerHardwareAddr: publicMAC(m.Server.ID), PeerNamespace: netlink.NsFd(guest.fd),
		})
		if err != nil {
			return fmt.Errorf("plug %s into the wire: %w", publicInterface, err)
		}
	}
	link, err := guest.LinkByName(publicInterface)
	if err != nil {
		return err
	}
	if err := guest.LinkSetUp(link); err != nil {
		return err
	}
	if err := router.up(port); err != nil {
		return err
	}
	for _, prefix := range wireAddresses(m.Server.ID) {
		if err := guest.AddrReplace(link, address(prefix)); err != nil {
			return err
		}
		network, everything := Wire4, netip.MustParsePrefix("0.0.0.0/0")
		if prefix.Addr().Is6() {
			network, everything = Wire6, netip.MustParsePrefix("::/0")
		}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(everything), Gw: firstHost(network).AsSlice()}
		if err := guest.RouteReplace(route); err != nil {
			return fmt.Errorf("route to %s: %w", everything, err)
		}
	}
	return nil
}

// ensureBridge makes the wire unless it is there.
func (n *namespace) ensureBridge() (netlink.Link, error) {
	if !n.linkExists(wireName) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = wireName, publicMTU, gatewayMAC
		// Two machines may come at once.
		if err := n.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !n.linkExists(wireName) {
			return nil, err
		}
	}
	bridge, err := n.LinkByName(wireName)
	if err != nil {
		return nil, err
	}
	for _, network := range []netip.Prefix{Wire4, Wire6} {
		if err := n.AddrReplace(bridge, address(netip.PrefixFrom(firstHost(network), network.Bits()))); err != nil {
			return nil, err
		}
	}
	return bridge, n.LinkSetUp(bridge)
}

// loadWireRules brings the wire's rules up to date, if there is a wire.
func (f *Fleet) loadWireRules(ctx context.Context) error {
	router, err := openNamespace(routerName)
	if err != nil {
		return err
	}
	defer router.Close()
	if !router.linkExists(wireName) {
		return nil
	}
	f.rulesMu.Lock()
	defer f.rulesMu.Unlock()
	f.mu.Lock()
	// It is the only network of its machines, so that every fault is in it.
	rules := f.faultRules(true)
	private := f.faultRules(false)
	f.mu.Unlock()
	rules.Dead = sortedUnion(rules.Dead, private.Dead)
	rules.Cuts = sortedUnion(rules.Cuts, private.Cuts)
	return f.loadChanged(ctx, router, "wire.nft.tmpl", rules)
}

func sortedUnion(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
