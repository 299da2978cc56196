package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Everything of the lab on this computer is found by its name, also when its
// state is lost: interfaces and network namespaces begin with namePrefix.
const (
	namePrefix = "ilab-"
	routerName = namePrefix + "router"
	netnsDir   = "/run/netns"
)

func machineNamespace(id int64) string { return namePrefix + "m" + strconv.FormatInt(id, 10) }
func networkNamespace(id int64) string { return namePrefix + "n" + strconv.FormatInt(id, 10) }

// portName is the router's end of a machine's cable, in the public router and
// in those of private networks alike.
func portName(id int64) string { return "m" + strconv.FormatInt(id, 10) }

// namespace is a named network namespace, and a handle on its links and routes.
type namespace struct {
	name string
	fd   netns.NsHandle
	*netlink.Handle
}

// openNamespace opens a named network namespace. The error is
// fs.ErrNotExist when there is none.
func openNamespace(name string) (*namespace, error) {
	namespaces.RLock()
	defer namespaces.RUnlock()
	return openMade(name)
}

// openMade is openNamespace for callers that hold namespaces.
func openMade(name string) (*namespace, error) {
	fd, err := netns.GetFromPath(filepath.Join(netnsDir, name))
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", name, err)
	}
	h, err := netlink.NewHandleAt(fd)
	if err != nil {
		fd.Close()
		return nil, fmt.Errorf("open network namespace %s: %w", name, err)
	}
	return &namespace{name: name, fd: fd, Handle: h}, nil
}

func (n *namespace) Close() {
	n.Handle.Close()
	n.fd.Close()
}

func namespaceExists(name string) bool {
	_, err := os.Stat(filepath.Join(netnsDir, name))
	return err == nil
}

// namespaces guards making and removing them: between its name and its mount, a
// namespace that is being made can be opened, but is none yet. Two servers
// that are attached to a new network at once would meet that.
var namespaces sync.RWMutex

// ensureNamespace makes a namespace unless it is there, sets its sysctls, and opens it.
func ensureNamespace(ctx context.Context, name string, sysctls map[string]string) (*namespace, error) {
	n, err := openOrMake(ctx, name)
	if err != nil {
		return nil, err
	}
	err = n.inside(func() error {
		for key, value := range sysctls {
			if err := writeSysctl(key, value); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = n.up("lo")
	}
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("set up network namespace %s: %w", name, err)
	}
	return n, nil
}

func openOrMake(ctx context.Context, name string) (*namespace, error) {
	namespaces.Lock()
	defer namespaces.Unlock()
	if !namespaceExists(name) {
		if _, err := run(ctx, "ip", "netns", "add", name); err != nil {
			return nil, err
		}
	}
	return openMade(name)
}

func deleteNamespace(ctx context.Context, name string) error {
	namespaces.Lock()
	defer namespaces.Unlock()
	if !namespaceExists(name) {
		return nil
	}
	_, err := run(ctx, "ip", "netns", "del", name)
	return err
}

// inside runs f in the namespace. What f starts is in it too. The thread it
// ran on is not used for anything else afterwards.
func (n *namespace) inside(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := netns.Set(n.fd); err != nil {
			result <- fmt.Errorf("enter network namespace %s: %w", n.name, err)
			return
		}
		result <- f()
	}()
	return <-result
}

// rules loads an nftables ruleset into the namespace, all of it or nothing.
func (n *namespace) rules(ctx context.Context, text string) error {
	return n.inside(func() error { return loadRules(ctx, text) })
}

func loadRules(ctx context.Context, text string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	return runCommand(cmd)
}

func (n *namespace) up(name string) error {
	link, err := n.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	return n.LinkSetUp(link)
}

// linkExists says whether there is an interface of that name.
func (n *namespace) linkExists(name string) bool {
	_, err := n.LinkByName(name)
	return err == nil
}

// linkUp says whether there is an interface of that name, and it is up.
func (n *namespace) linkUp(name string) bool {
	link, err := n.LinkByName(name)
	return err == nil && link.Attrs().Flags&net.FlagUp != 0
}

// unplug takes away an interface, if there is one, and with it the other end.
func (n *namespace) unplug(name string) error {
	link, err := n.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := n.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove interface %s: %w", name, err)
	}
	return nil
}

// silence takes an interface down, so that from now on nothing leaves or
// enters by it. Quicker than unplug.
func (n *namespace) silence(name string) error {
	link, err := n.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	return n.LinkSetDown(link)
}

// plug connects a machine to a router: a virtual cable with the machine's
// interface at one end and the router's port at the other.
//
// The router knows the machine's link-layer address and asks nobody for it, as
// the real cloud does: whatever the machine answers to, or claims, by ARP or
// neighbour discovery has no effect on where packets go, and packets to a dead
// machine vanish without an error.
func plug(router, machine *namespace, port, iface string, mac net.HardwareAddr, mtu int) error {
	if router.linkExists(port) && machine.linkExists(iface) {
		return nil
	}
	if err := router.unplug(port); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = port, mtu, gatewayMAC
	err := router.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: iface, PeerHardwareAddr: mac, PeerNamespace: netlink.NsFd(machine.fd),
	})
	if err != nil {
		return fmt.Errorf("plug %s into %s: %w", iface, router.name, err)
	}
	link, err := router.LinkByName(port)
	if err != nil {
		return err
	}
	if err := router.LinkSetUp(link); err != nil {
		return err
	}
	if err := router.AddrReplace(link, address(netip.MustParsePrefix("fe80::1/64"))); err != nil {
		return fmt.Errorf("address of %s's port %s: %w", router.name, port, err)
	}
	return router.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: unix.AF_INET6, State: netlink.NUD_PERMANENT,
		IP: linkLocal(mac).AsSlice(), HardwareAddr: mac,
	})
}

// routeTo sends packets for a prefix out of a port to the machine plugged in there.
func (n *namespace) routeTo(prefix netip.Prefix, port string, mac net.HardwareAddr) error {
	link, err := n.LinkByName(port)
	if err != nil {
		return fmt.Errorf("find port %s of %s: %w", port, n.name, err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(prefix), Flags: int(netlink.FLAG_ONLINK)}
	gateway := linkLocal(mac).AsSlice()
	if prefix.Addr().Is4() {
		route.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: gateway}
	} else {
		route.Gw = gateway
	}
	if err := n.RouteReplace(route); err != nil {
		return fmt.Errorf("route %s to %s of %s: %w", prefix, port, n.name, err)
	}
	return nil
}

// unroute removes the route of a prefix to a machine; the fallback then swallows its packets.
func (n *namespace) unroute(prefix netip.Prefix) error {
	family := unix.AF_INET6
	if prefix.Addr().Is4() {
		family = unix.AF_INET
	}
	routes, err := n.RouteListFiltered(family, &netlink.Route{Dst: ipNet(prefix)}, netlink.RT_FILTER_DST)
	if err != nil {
		return err
	}
	for _, route := range routes {
		if route.Type != unix.RTN_UNICAST {
			continue
		}
		if err := n.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route of %s from %s: %w", prefix, n.name, err)
		}
	}
	return nil
}

// fallback is the metric of routes that catch what no other route wants.
const fallback = 4278198272 // the kernel's own for a last resort in IPv6 is 4294967295

// swallow makes packets for a prefix that no machine has vanish.
func (n *namespace) swallow(prefix netip.Prefix) error {
	return n.RouteReplace(&netlink.Route{Dst: ipNet(prefix), Type: unix.RTN_BLACKHOLE, Priority: fallback})
}

// linkLocal is the IPv6 link-local address made from a link-layer address (RFC 4291, appendix A).
func linkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 0, 0, 0, 0, 0, 0,
		mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
}

func ipNet(p netip.Prefix) *net.IPNet {
	p = p.Masked()
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// address is an interface's address, usable at once (without duplicate address detection).
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// writeSysctl sets a kernel parameter by its path below /proc/sys, such as net/ipv4/ip_forward.
func writeSysctl(key, value string) error {
	return write(filepath.Join("/proc/sys", key), value)
}

func readSysctl(key string) (string, error) {
	data, err := os.ReadFile(filepath.Join("/proc/sys", key))
	return strings.TrimSpace(string(data)), err
}
