package machine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rulesTable is the name of the lab's nftables table on this computer.
const rulesTable = "infractl_lab"

// ErrConflict is wrapped by errors that say that this computer uses something
// the lab needs.
var ErrConflict = errors.New("this computer already uses what the lab needs")

// guardFile being there keeps the guard routes when the lab goes.
var guardFile = filepath.Join(runDir, "guard")

// Guard makes every packet for a lab address that the lab itself does not take
// fail at this computer, so that none can leave it. With keep the guard stays
// after the lab is gone, until Unguard.
func Guard(keep bool) error {
	for _, prefix := range []netip.Prefix{Range4, Range6} {
		route := &netlink.Route{Dst: ipNet(prefix), Type: unix.RTN_UNREACHABLE, Priority: fallback}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("guard the lab's addresses %s by an unreachable route: %w", prefix, err)
		}
	}
	if !keep {
		return nil
	}
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(guardFile, nil, 0o600)
}

// Unguard removes the guard at once, or, while a lab is up, makes it go with the lab.
func Unguard() error {
	if err := os.Remove(guardFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := ReadMarker(); err == nil {
		return nil
	}
	_ = os.Remove(runDir)
	return removeGuard()
}

func removeGuard() error {
	for _, prefix := range []netip.Prefix{Range4, Range6} {
		route := &netlink.Route{Dst: ipNet(prefix), Type: unix.RTN_UNREACHABLE, Priority: fallback}
		if err := netlink.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove the guard route of %s: %w", prefix, err)
		}
	}
	return nil
}

// Guarded says whether the guard was asked to stay.
func Guarded() bool {
	_, err := os.Stat(guardFile)
	return err == nil
}

// connectComputer makes the lab's router and this computer's link to it, as far
// as they are not there yet. The guard comes first.
func (f *Fleet) connectComputer(ctx context.Context) error {
	marker, err := ReadMarker()
	switch {
	case err == nil && marker.Dir != f.cfg.Dir:
		return fmt.Errorf("%w: another lab is up, with its state in %s: end it with INFRACTL_LAB_DIR=%s infractl lab down", ErrConflict, marker.Dir, marker.Dir)
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		if err := checkConflicts(); err != nil {
			return err
		}
		if marker, err = f.newMarker(); err != nil {
			return err
		}
		if err := marker.write(); err != nil {
			return err
		}
	default:
		return err
	}
	if err := Guard(false); err != nil {
		return err
	}
	router, err := ensureNamespace(ctx, routerName, map[string]string{
		"net/ipv4/ip_forward":                  "1",
		"net/ipv4/conf/all/rp_filter":          "1",
		"net/ipv4/conf/default/rp_filter":      "1",
		"net/ipv4/conf/all/send_redirects":     "0",
		"net/ipv4/conf/default/send_redirects": "0",
		"net/ipv6/conf/all/forwarding":         "1",
	})
	if err != nil {
		return err
	}
	defer router.Close()
	if err := connectRouter(router); err != nil {
		return fmt.Errorf("connect this computer with the lab's router: %w", err)
	}
	rules, err := render("computer.nft.tmpl", computerRules{
		Table: rulesTable, Link: computerLink, Computer: Computer4.Addr(), Range: Range4,
		APIPort: APIPort, Resolvers: f.resolvers.reachable, RelayDNS: f.resolvers.relay, Closed: quoted(marker.Closed),
	})
	if err != nil {
		return err
	}
	if err := loadRules(ctx, rules); err != nil {
		return fmt.Errorf("load the lab's firewall rules on this computer: %w", err)
	}
	for key, value := range marker.Sysctls {
		if err := writeSysctl(key, value.Set); err != nil {
			return fmt.Errorf("set the kernel parameter %s: %w", key, err)
		}
	}
	return nil
}

// atLeast are the kernel parameters that the lab needs, by their paths below
// /proc/sys. The kernel counts inotify instances by user, and root in all
// machines is one user: systemd's and its services' take about 6 a machine,
// so that the default of 128 is used up by some 20 machines.
var atLeast = map[string]int{
	forwarding:                      1,
	"fs/inotify/max_user_instances": 8192,
	"fs/inotify/max_user_watches":   524288,
}

const forwarding = "net/ipv4/ip_forward"

// computerRules are what this computer's ruleset is rendered from.
type computerRules struct {
	Table, Link string
	Computer    netip.Addr
	Range       netip.Prefix
	APIPort     int
	Resolvers   []string
	RelayDNS    bool
	Closed      []string
}

func quoted(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = `"` + name + `"`
	}
	return out
}

// newMarker notes how the computer is before anything of it is changed.
func (f *Fleet) newMarker() (Marker, error) {
	m := Marker{Dir: f.cfg.Dir, Sysctls: map[string]changedSysctl{}, NamespacesMounted: isMountPoint(netnsDir)}
	for key, least := range atLeast {
		text, err := readSysctl(key)
		if err != nil {
			return Marker{}, err
		}
		if value, err := strconv.Atoi(text); err != nil || value < least {
			m.Sysctls[key] = changedSysctl{Before: text, Set: strconv.Itoa(least)}
		}
	}
	if _, closed := m.Sysctls[forwarding]; closed {
		links, err := netlink.LinkList()
		if err != nil {
			return Marker{}, fmt.Errorf("list this computer's interfaces: %w", err)
		}
		for _, link := range links {
			if link.Attrs().Flags&net.FlagLoopback == 0 {
				m.Closed = append(m.Closed, link.Attrs().Name)
			}
		}
		slices.Sort(m.Closed)
	}
	return m, nil
}

func connectRouter(router *namespace) error {
	computer, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer computer.Close()
	near, err := computer.LinkByName(computerLink)
	if err != nil || !router.linkExists(routerUplink) {
		if err == nil {
			if err := computer.LinkDel(near); err != nil {
				return err
			}
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = computerLink, publicMTU
		err := computer.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: routerUplink, PeerNamespace: netlink.NsFd(router.fd), PeerHardwareAddr: gatewayMAC})
		if err != nil {
			return err
		}
		if near, err = computer.LinkByName(computerLink); err != nil {
			return err
		}
	}
	far, err := router.LinkByName(routerUplink)
	if err != nil {
		return err
	}
	for _, step := range []error{
		router.LinkSetUp(far),
		computer.LinkSetUp(near),
		router.AddrReplace(far, address(router4)),
		router.AddrReplace(far, address(router6)),
		computer.AddrReplace(near, address(Computer4)),
		computer.AddrReplace(near, address(Computer6)),
		// The router: to the world by way of the computer (IPv4 only: machines
		// are told at once that there is no IPv6 outside), and nowhere with
		// lab addresses that no machine has.
		router.RouteReplace(&netlink.Route{LinkIndex: far.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0")), Gw: Computer4.Addr().AsSlice()}),
		router.swallow(Range4),
		router.swallow(Range6),
		computer.RouteReplace(&netlink.Route{LinkIndex: near.Attrs().Index, Dst: ipNet(Range4), Gw: router4.Addr().AsSlice(), Src: Computer4.Addr().AsSlice()}),
		computer.RouteReplace(&netlink.Route{LinkIndex: near.Attrs().Index, Dst: ipNet(Range6), Gw: router6.Addr().AsSlice(), Src: Computer6.Addr().AsSlice(), Priority: 1024}),
	} {
		if step != nil {
			return step
		}
	}
	return nil
}

// checkConflicts looks whether this computer uses the lab's addresses or names
// without a lab being up.
func checkConflicts() error {
	if _, err := net.InterfaceByName(computerLink); err == nil || namespaceExists(routerName) {
		return fmt.Errorf("%w: parts of a lab are there though none is up: remove them with infractl lab down", ErrConflict)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list this computer's addresses: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && (Range4.Contains(ip.Unmap()) || Range6.Contains(ip)) {
			return fmt.Errorf("%w: it has the address %s, which lies in the lab's range: take that address away", ErrConflict, a.IPNet)
		}
	}
	// All tables: a rule may prefer another than the main one.
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list this computer's routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.Priority == fallback && r.Type == unix.RTN_UNREACHABLE {
			continue
		}
		ip, _ := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		dst := netip.PrefixFrom(ip.Unmap(), bits)
		for _, prefix := range []netip.Prefix{Range4, Range6} {
			if dst.Overlaps(prefix) && dst.Bits() >= prefix.Bits() {
				return fmt.Errorf("%w: it has a route to %s, which lies in the lab's range: take that route away (ip route show table all | grep '%s')", ErrConflict, dst, dst)
			}
		}
	}
	return nil
}

// CheckWays says what machines cannot reach though they should: the API on
// this computer, and the computer's package mirror. A firewall of the
// computer's own is the usual reason.
func (f *Fleet) CheckWays(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	router, err := openNamespace(routerName)
	if err != nil {
		return err
	}
	defer router.Close()
	reach := func(address string) error {
		return router.inside(func() error {
			c, err := (&net.Dialer{Timeout: checkTimeout / 2}).DialContext(ctx, "tcp4", address)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	var errs []error
	if err := reach(netip.AddrPortFrom(Computer4.Addr(), APIPort).String()); err != nil {
		errs = append(errs, fmt.Errorf("machines do not reach the API: %w: if this computer has a firewall, let it accept TCP port %d from %s", err, APIPort, computerLink))
	}
	mirror, err := mirrorAddress(ctx)
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("machines cannot install packages, since the package mirror is not found: %w", err))...)
	}
	if err := reach(mirror); err != nil {
		errs = append(errs, fmt.Errorf("machines do not reach the package mirror: %w: if this computer has a firewall, let it forward between %s and its own network", err, computerLink))
	}
	return errors.Join(errs...)
}

// checkTimeout is long enough for a connection that works, and short enough to wait for.
const checkTimeout = 4 * time.Second

// mirrorAddress is the address and port of the computer's package mirror.
func mirrorAddress(ctx context.Context) (string, error) {
	lines, err := mirrorLines(os.DirFS("/etc/apt"), "stable")
	if err != nil {
		return "", err
	}
	mirror, err := url.Parse(strings.Fields(lines[0])[2])
	if err != nil {
		return "", err
	}
	port := mirror.Port()
	if port == "" {
		port = mirror.Scheme
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", mirror.Hostname())
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(addrs[0].Unmap().String(), port), nil
}

// resolvers are the name servers that machines are told of.
type resolvers struct {
	// reachable are the computer's name servers that machines can ask themselves.
	reachable []string
	// local are those that only this computer can ask; relay says that the lab
	// passes questions on to them.
	local []string
	relay bool
}

// findResolvers reads the computer's name servers.
func findResolvers() resolvers {
	// What systemd-resolved asks, where the computer uses it.
	for _, file := range []string{"/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"} {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if r := parseResolvers(string(data)); len(r.reachable)+len(r.local) > 0 {
			return r
		}
	}
	return resolvers{}
}

func parseResolvers(text string) resolvers {
	var r resolvers
	for scan := bufio.NewScanner(strings.NewReader(text)); scan.Scan(); {
		fields := strings.Fields(scan.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		server, err := netip.ParseAddr(fields[1])
		if err != nil {
			continue
		}
		// Machines have no IPv6 beyond the lab.
		if server.Is4() && !server.IsLoopback() {
			r.reachable = append(r.reachable, server.String())
		} else {
			r.local = append(r.local, server.String())
		}
	}
	r.relay = len(r.reachable) == 0 && len(r.local) > 0
	return r
}

// conf is the resolv.conf of machines.
func (r resolvers) conf() string {
	servers := r.reachable
	if r.relay {
		servers = []string{Computer4.Addr().String()}
	}
	var b strings.Builder
	for _, server := range servers {
		b.WriteString("nameserver " + server + "\n")
	}
	return b.String()
}

// Relay returns the name server that only this computer can ask, if machines
// are told to ask the lab in its place.
func (f *Fleet) Relay() (server string, ok bool) {
	if !f.resolvers.relay {
		return "", false
	}
	return f.resolvers.local[0], true
}
