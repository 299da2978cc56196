package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/infractl/infractl/lab/api"
)

const publicInterface = "eth0"

// privateInterface is the n-th private interface's name, as in the cloud's
// machines of a common type.
func privateInterface(n int) string { return "enp" + strconv.Itoa(7+n) + "s0" }

// plugMachine makes a machine's network namespace and connects it with the
// routers it belongs to, as far as that is not done.
func (f *Fleet) plugMachine(ctx context.Context, m *machine) error {
	guest, err := ensureNamespace(ctx, machineNamespace(m.Server.ID), nil)
	if err != nil {
		return err
	}
	defer guest.Close()
	// Firewall first: the machine is never connected without it.
	if err := f.loadRouterRules(ctx); err != nil {
		return err
	}
	if m.Plain {
		err = f.plugWire(ctx, m, guest)
	} else {
		err = f.plugPublic(m, guest)
	}
	if err != nil {
		return fmt.Errorf("connect with the public network: %w", err)
	}
	for _, a := range m.Attachments {
		if err := f.plugPrivate(ctx, m, guest, a); err != nil {
			return fmt.Errorf("connect with private network %d: %w", a.Network, err)
		}
	}
	return nil
}

func (f *Fleet) plugPublic(m *machine, guest *namespace) error {
	s := m.Server
	if !s.IPv4.IsValid() && !s.IPv6.IsValid() {
		return nil
	}
	router, err := openNamespace(routerName)
	if err != nil {
		return err
	}
	defer router.Close()
	port, mac := portName(s.ID), publicMAC(s.ID)
	if err := plug(router, guest, port, publicInterface, mac, publicMTU); err != nil {
		return err
	}
	near, err := router.LinkByName(port)
	if err != nil {
		return err
	}
	// The same gateway address at every port: servers never see each other's link.
	if err := router.AddrReplace(near, address(host(publicGateway4))); err != nil {
		return err
	}
	var routes []netip.Prefix
	if s.IPv4.IsValid() {
		routes = append(routes, host(s.IPv4))
	}
	if s.IPv6.IsValid() {
		routes = append(routes, s.IPv6)
	}
	for _, prefix := range routes {
		if err := router.routeTo(prefix, port, mac); err != nil {
			return err
		}
	}
	if err := f.routeFloating(router, s.ID); err != nil {
		return err
	}
	link, err := guest.LinkByName(publicInterface)
	if err != nil {
		return err
	}
	if err := guest.LinkSetUp(link); err != nil {
		return err
	}
	if s.IPv4.IsValid() {
		if err := guest.AddrReplace(link, address(host(s.IPv4))); err != nil {
			return err
		}
		if err := guest.gateway(link, publicGateway4, netip.MustParsePrefix("0.0.0.0/0"), netip.Addr{}); err != nil {
			return err
		}
	}
	if s.IPv6.IsValid() {
		if err := guest.AddrReplace(link, address(netip.PrefixFrom(firstHost(s.IPv6), 64))); err != nil {
			return err
		}
		if err := guest.gateway(link, publicGateway6, netip.MustParsePrefix("::/0"), netip.Addr{}); err != nil {
			return err
		}
	}
	return nil
}

// gateway makes a machine reach dst by way of a gateway that is not in any of
// its networks, at the router's end of the cable.
func (n *namespace) gateway(link netlink.Link, gw netip.Addr, dst netip.Prefix, src netip.Addr) error {
	index := link.Attrs().Index
	family := unix.AF_INET6
	if gw.Is4() {
		family = unix.AF_INET
		if err := n.RouteReplace(&netlink.Route{LinkIndex: index, Dst: ipNet(host(gw)), Scope: netlink.SCOPE_LINK}); err != nil {
			return fmt.Errorf("route to the gateway %s: %w", gw, err)
		}
	}
	if err := n.NeighSet(&netlink.Neigh{
		LinkIndex: index, Family: family, State: netlink.NUD_PERMANENT, IP: gw.AsSlice(), HardwareAddr: gatewayMAC,
	}); err != nil {
		return fmt.Errorf("link-layer address of the gateway %s: %w", gw, err)
	}
	route := &netlink.Route{LinkIndex: index, Dst: ipNet(dst), Gw: gw.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
	if src.IsValid() {
		route.Src = src.AsSlice()
	}
	if err := n.RouteReplace(route); err != nil {
		return fmt.Errorf("route to %s: %w", dst, err)
	}
	return nil
}

// plugPrivate connects a machine with a private network, whose router is made
// when the first machine comes.
func (f *Fleet) plugPrivate(ctx context.Context, m *machine, guest *namespace, a attachment) error {
	mac, err := net.ParseMAC(a.MAC)
	if err != nil {
		return err
	}
	name := networkNamespace(a.Network)
	fresh := !namespaceExists(name)
	router, err := ensureNamespace(ctx, name, map[string]string{
		"net/ipv4/ip_forward":                  "1",
		"net/ipv4/conf/all/rp_filter":          "1",
		"net/ipv4/conf/default/rp_filter":      "1",
		"net/ipv4/conf/all/send_redirects":     "0",
		"net/ipv4/conf/default/send_redirects": "0",
	})
	if err != nil {
		return err
	}
	defer router.Close()
	if fresh {
		f.forgetRules(name)
	}
	if err := f.loadNetworkRules(ctx, a.Network, router); err != nil {
		return err
	}
	if err := router.swallow(a.Range); err != nil {
		return err
	}
	port := portName(m.Server.ID)
	if err := plug(router, guest, port, a.Interface, mac, privateMTU); err != nil {
		return err
	}
	near, err := router.LinkByName(port)
	if err != nil {
		return err
	}
	if err := router.AddrReplace(near, address(host(a.Gateway))); err != nil {
		return err
	}
	link, err := guest.LinkByName(a.Interface)
	if err != nil {
		return err
	}
	if err := guest.LinkSetUp(link); err != nil {
		return err
	}
	for _, ip := range append([]netip.Addr{a.IP}, a.Aliases...) {
		if err := router.routeTo(host(ip), port, mac); err != nil {
			return err
		}
	}
	if err := guest.AddrReplace(link, address(host(a.IP))); err != nil {
		return err
	}
	return guest.gateway(link, a.Gateway, a.Range, a.IP)
}

// unplugMachine does one thing to the router's end of each of the machine's cables.
func (f *Fleet) unplugMachine(m *machine, each func(*namespace, string) error) error {
	names := []string{routerName}
	for _, a := range m.Attachments {
		names = append(names, networkNamespace(a.Network))
	}
	for _, name := range names {
		router, err := openNamespace(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = each(router, portName(m.Server.ID))
		router.Close()
		if err != nil {
			return fmt.Errorf("disconnect server %s from %s: %w", m.Server.Name, name, err)
		}
	}
	return nil
}

// Attach connects a server with a private network. See api.Machines.
func (f *Fleet) Attach(ctx context.Context, id int64, a api.Attachment) error {
	m, err := f.find(id)
	if err != nil {
		return err
	}
	m.op.Lock()
	defer m.op.Unlock()
	i := slices.IndexFunc(m.Attachments, func(b attachment) bool { return b.Network == a.Network })
	if i < 0 {
		n := 0
		for slices.ContainsFunc(m.Attachments, func(b attachment) bool { return b.Interface == privateInterface(n) }) {
			n++
		}
		i = len(m.Attachments)
		if err := f.update(m, func() {
			m.Attachments = append(m.Attachments, attachment{Attachment: a, Interface: privateInterface(n)})
		}); err != nil {
			return err
		}
	} else {
		old := m.Attachments[i]
		if f.running(id) {
			if err := f.withdraw(old, a); err != nil {
				return err
			}
		}
		if err := f.update(m, func() { m.Attachments[i].Attachment = a }); err != nil {
			return err
		}
	}
	if !f.running(id) {
		return nil
	}
	guest, err := openNamespace(machineNamespace(id))
	if err != nil {
		return err
	}
	defer guest.Close()
	if err := f.plugPrivate(ctx, m, guest, m.Attachments[i]); err != nil {
		return fmt.Errorf("connect server %s with private network %d: %w", m.Server.Name, a.Network, err)
	}
	return nil
}

// withdraw removes the routes to addresses that an attachment no longer has.
func (f *Fleet) withdraw(old attachment, now api.Attachment) error {
	router, err := openNamespace(networkNamespace(old.Network))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer router.Close()
	keep := append([]netip.Addr{now.IP}, now.Aliases...)
	for _, ip := range append([]netip.Addr{old.IP}, old.Aliases...) {
		if !slices.Contains(keep, ip) {
			if err := router.unroute(host(ip)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Detach disconnects a server from a private network. See api.Machines.
func (f *Fleet) Detach(ctx context.Context, id, network int64) error {
	m, err := f.find(id)
	if err != nil {
		return nil
	}
	m.op.Lock()
	defer m.op.Unlock()
	if err := f.update(m, func() {
		m.Attachments = slices.DeleteFunc(m.Attachments, func(a attachment) bool { return a.Network == network })
	}); err != nil {
		return err
	}
	router, err := openNamespace(networkNamespace(network))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer router.Close()
	return router.unplug(portName(id))
}

// DeleteNetwork removes a private network's router. See api.Machines.
func (f *Fleet) DeleteNetwork(ctx context.Context, network int64) error {
	f.forgetRules(networkNamespace(network))
	return deleteNamespace(ctx, networkNamespace(network))
}

// SetFirewall replaces what is let through to a server. See api.Machines.
func (f *Fleet) SetFirewall(ctx context.Context, id int64, rules *api.FirewallRules) error {
	m, err := f.find(id)
	if err != nil {
		return err
	}
	m.op.Lock()
	err = f.update(m, func() { m.Firewall = rules })
	m.op.Unlock()
	if err != nil {
		return err
	}
	return f.loadRouterRules(ctx)
}

// RouteFloatingIP sends an address to a server. See api.Machines. That of a
// server that is off vanishes until it is powered on.
func (f *Fleet) RouteFloatingIP(_ context.Context, prefix netip.Prefix, server int64) error {
	f.floatingMu.Lock()
	defer f.floatingMu.Unlock()
	f.mu.Lock()
	if server == 0 {
		delete(f.floating, prefix)
	} else {
		f.floating[prefix] = server
	}
	err := saveJSON(filepath.Join(f.cfg.Dir, "floating.json"), f.floating)
	f.mu.Unlock()
	if err != nil {
		return err
	}
	f.log.Info("floating IP", "prefix", prefix, "server", server)
	router, err := openNamespace(routerName)
	if err != nil {
		return err
	}
	defer router.Close()
	if server == 0 || !router.linkUp(portName(server)) {
		return router.unroute(prefix)
	}
	err = router.routeTo(prefix, portName(server), publicMAC(server))
	if err != nil && !router.linkUp(portName(server)) { // it has just gone off
		err = router.unroute(prefix)
	}
	return err
}

// routeFloating sends the floating IPs of a server to it, which has just been plugged in.
func (f *Fleet) routeFloating(router *namespace, server int64) error {
	f.floatingMu.Lock()
	defer f.floatingMu.Unlock()
	f.mu.Lock()
	var prefixes []netip.Prefix
	for prefix, id := range f.floating {
		if id == server {
			prefixes = append(prefixes, prefix)
		}
	}
	f.mu.Unlock()
	for _, prefix := range prefixes {
		if err := router.routeTo(prefix, portName(server), publicMAC(server)); err != nil {
			return err
		}
	}
	return nil
}

// loadRouterRules brings the public router's rules up to date.
func (f *Fleet) loadRouterRules(ctx context.Context) error {
	router, err := openNamespace(routerName)
	if err != nil {
		return err
	}
	defer router.Close()
	f.rulesMu.Lock()
	defer f.rulesMu.Unlock()
	f.mu.Lock()
	rules := f.faultRules(true)
	for id, m := range f.machines {
		if m.Firewall != nil {
			rules.Firewalls = append(rules.Firewalls, newPortFirewall(id, m.Firewall))
		}
	}
	f.mu.Unlock()
	slices.SortFunc(rules.Firewalls, func(a, b portFirewall) int { return strings.Compare(a.Port, b.Port) })
	return f.loadChanged(ctx, router, "router.nft.tmpl", rules)
}

// loadNetworkRules brings the rules of a private network's router up to date.
func (f *Fleet) loadNetworkRules(ctx context.Context, network int64, router *namespace) error {
	f.rulesMu.Lock()
	defer f.rulesMu.Unlock()
	f.mu.Lock()
	rules := f.faultRules(false)
	f.mu.Unlock()
	return f.loadChanged(ctx, router, "private.nft.tmpl", rules)
}

// loadChanged loads rules unless they are what was loaded last. The caller
// holds rulesMu.
func (f *Fleet) loadChanged(ctx context.Context, n *namespace, template string, rules routerRules) error {
	text, err := render(template, rules)
	if err != nil {
		return err
	}
	key := [2]string{n.name, template}
	if f.loaded[key] == text {
		return nil
	}
	if err := n.rules(ctx, text); err != nil {
		return fmt.Errorf("load the rules of %s: %w", n.name, err)
	}
	f.loaded[key] = text
	return nil
}

// forgetRules makes the next load of a private network's rules happen for sure.
func (f *Fleet) forgetRules(name string) {
	f.rulesMu.Lock()
	defer f.rulesMu.Unlock()
	delete(f.loaded, [2]string{name, "private.nft.tmpl"})
}
