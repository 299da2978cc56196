package api

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// primaryIP is the public address, or IPv6 network, of a server's own interface.
type primaryIP struct {
	base
	Kind       string       `json:"kind"`
	Prefix     netip.Prefix `json:"prefix"`
	Location   string       `json:"location"`
	Server     int64        `json:"server,omitempty"`
	AutoDelete bool         `json:"auto_delete,omitempty"`
	Protected  bool         `json:"protected,omitempty"`
	Pointers   pointerSet   `json:"pointers,omitempty"`
}

func (p *primaryIP) ref() resource                       { return resource{"primary_ip", p.ID} }
func (p *primaryIP) pointer(ip netip.Addr) string        { return p.Pointers.name(ip) }
func (p *primaryIP) pointers() []schema.FloatingIPDNSPtr { return p.Pointers.of(p.Prefix) }

// primaryIPView is the schema's, with the datacenter that it had once.
type primaryIPView struct {
	schema.PrimaryIP
	Datacenter *datacenter `json:"datacenter,omitempty"`
}

func (c *call) viewPrimaryIP(p *primaryIP) primaryIPView {
	v := primaryIPView{PrimaryIP: schema.PrimaryIP{
		ID: p.ID, Name: p.Name, Labels: p.Labels, Created: p.Created, IP: shownAddress(p.Prefix), Type: p.Kind,
		Protection: schema.PrimaryIPProtection{Delete: p.Protected}, DNSPtr: []schema.PrimaryIPDNSPTR{},
		AssigneeType: "server", AutoDelete: p.AutoDelete, Location: c.e.catalog.locationNamed(p.Location),
	}}
	for _, ptr := range p.pointers() {
		v.DNSPtr = append(v.DNSPtr, schema.PrimaryIPDNSPTR{IP: ptr.IP, DNSPtr: ptr.DNSPtr})
	}
	if p.Server != 0 {
		v.AssigneeID = &p.Server
	}
	if c.e.settings.Datacenter {
		v.Datacenter = c.e.catalog.datacenter(p.Location)
	}
	return v
}

func (c *call) pathPrimaryIP() (*primaryIP, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	return find(c.s.PrimaryIPs, "primary IP", id)
}

func listPrimaryIPs(c *call) (reply, error) {
	return listRecords(c, "primary_ips", c.s.PrimaryIPs,
		func(p *primaryIP) bool { return c.oneOf("ip", shownAddress(p.Prefix)) },
		func(p *primaryIP) any { return c.viewPrimaryIP(p) })
}

func getPrimaryIP(c *call) (reply, error) {
	p, err := c.pathPrimaryIP()
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, map[string]any{"primary_ip": c.viewPrimaryIP(p)}}, nil
}

func createPrimaryIP(c *call) (reply, error) {
	var req struct {
		Name         string             `json:"name"`
		Type         string             `json:"type"`
		AssigneeType string             `json:"assignee_type"`
		AssigneeID   int64              `json:"assignee_id"`
		AutoDelete   bool               `json:"auto_delete"`
		Location     idOrName           `json:"location"`
		Datacenter   idOrName           `json:"datacenter"`
		Labels       *map[string]string `json:"labels"`
	}
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	var v problems
	if req.Type != "ipv4" && req.Type != "ipv6" {
		v.add("type", "must be ipv4 or ipv6")
	}
	if req.AssigneeType != "server" {
		v.add("assignee_type", "must be server")
	}
	if !req.Datacenter.empty() {
		name, ok := legacyDatacenter(req.Datacenter)
		switch {
		case !c.e.settings.Datacenter:
			v.add("datacenter", "was removed from the API in July 2026; use location")
		case !ok:
			v.add("datacenter", "datacenter '%s' is unknown", req.Datacenter)
		default:
			req.Location = called(name)
		}
	}
	if v.any() {
		return reply{}, v.err()
	}
	if err := checkName(req.Name); err != nil {
		return reply{}, err
	}
	if err := checkLabels(req.Labels); err != nil {
		return reply{}, err
	}
	if err := unique(c.s.PrimaryIPs, "primary IP", req.Name, 0); err != nil {
		return reply{}, err
	}
	var srv *server
	var location string
	switch {
	case req.AssigneeID != 0 && !req.Location.empty():
		return reply{}, invalid("location", "must not be given together with assignee_id")
	case req.AssigneeID != 0:
		var err error
		if srv, err = c.assignee(req.AssigneeID, req.Type); err != nil {
			return reply{}, err
		}
		location = srv.Location
	default:
		l, ok := c.e.catalog.location(req.Location)
		if !ok {
			return reply{}, invalid("location", "location '%s' is unknown", req.Location)
		}
		location = l.Name
	}
	prefix, err := c.takePublic(req.Type)
	if err != nil {
		return reply{}, err
	}
	p := &primaryIP{base: c.newBase(req.Name, req.Labels), Kind: req.Type, Prefix: prefix, Location: location, AutoDelete: req.AutoDelete}
	c.s.PrimaryIPs[p.ID] = p
	answer := map[string]any{}
	if srv != nil {
		answer["action"] = c.bindPrimaryIP("assign_primary_ip", p, srv, srv.ID).view()
	}
	answer["primary_ip"] = c.viewPrimaryIP(p)
	return reply{http.StatusCreated, answer}, nil
}

// assignee is a server that can get a primary IP of a kind now.
func (c *call) assignee(id int64, kind string) (*server, error) {
	srv, err := c.target(id)
	if err != nil {
		return nil, err
	}
	if err := c.s.free(srv.ref()); err != nil {
		return nil, err
	}
	if err := c.stopped(srv); err != nil {
		return nil, err
	}
	if kind == "ipv4" && srv.IPv4 != 0 {
		return nil, failure("server_has_ipv4", "server %s already has an IPv4 address", srv.Name)
	}
	if kind == "ipv6" && srv.IPv6 != 0 {
		return nil, failure("server_has_ipv6", "server %s already has an IPv6 address", srv.Name)
	}
	return srv, nil
}

// bindPrimaryIP gives a primary IP to a server (to 0: takes it away) and
// begins to tell the world.
func (c *call) bindPrimaryIP(command string, p *primaryIP, srv *server, to int64) *action {
	own := p.ID
	if to == 0 {
		own = 0
	}
	p.Server = to
	if p.Kind == "ipv4" {
		srv.IPv4 = own
	} else {
		srv.IPv6 = own
	}
	return c.start(&action{
		Command: command, Task: "renew_addresses", Queue: srv.ref().key(),
		Resources: []resource{p.ref(), srv.ref()}, Locks: []resource{p.ref(), srv.ref()},
		Args: actionArgs{Server: srv.ID},
	})
}

// renewAddresses tells the world a stopped server's public addresses.
func (e *Emulator) renewAddresses(ctx context.Context, a action) (func(*state), error) {
	return e.converge(ctx, a.Args.Server)
}

func updatePrimaryIP(c *call) (reply, error) {
	p, err := c.pathPrimaryIP()
	if err != nil {
		return reply{}, err
	}
	var req schema.PrimaryIPUpdateRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if req.AutoDelete != nil && *req.AutoDelete && p.Protected {
		return reply{}, protected("primary IP")
	}
	if err := rename(c.s.PrimaryIPs, "primary IP", p, req.Name, req.Labels); err != nil {
		return reply{}, err
	}
	if req.AutoDelete != nil {
		p.AutoDelete = *req.AutoDelete
	}
	return reply{http.StatusOK, map[string]any{"primary_ip": c.viewPrimaryIP(p)}}, nil
}

func deletePrimaryIP(c *call) (reply, error) {
	p, err := c.pathPrimaryIP()
	if err != nil {
		return reply{}, err
	}
	if p.Protected {
		return reply{}, protected("primary IP")
	}
	if err := c.s.free(p.ref()); err != nil {
		return reply{}, err
	}
	if p.Server != 0 {
		srv := c.s.Servers[p.Server]
		if !c.e.settings.UnassignOnDelete {
			return reply{}, failure("must_be_unassigned", "primary IP with ID '%d' must be unassigned before it is deleted", p.ID)
		}
		if err := c.s.free(srv.ref()); err != nil {
			return reply{}, err
		}
		if err := c.stopped(srv); err != nil {
			return reply{}, err
		}
		c.bindPrimaryIP("unassign_primary_ip", p, srv, 0)
	}
	delete(c.s.PrimaryIPs, p.ID)
	return reply{status: http.StatusNoContent}, nil
}

func assignPrimaryIP(c *call) (reply, error) {
	p, err := c.pathPrimaryIP()
	if err != nil {
		return reply{}, err
	}
	var req schema.PrimaryIPActionAssignRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if req.AssigneeType != "server" {
		return reply{}, invalid("assignee_type", "must be server")
	}
	if err := c.s.free(p.ref()); err != nil {
		return reply{}, err
	}
	if p.Server != 0 {
		return reply{}, failure("primary_ip_already_assigned", "primary IP with ID '%d' is assigned to server %d", p.ID, p.Server)
	}
	srv, err := c.assignee(req.AssigneeID, p.Kind)
	if err != nil {
		return reply{}, err
	}
	if srv.Location != p.Location {
		return reply{}, failure("primary_ip_datacenter_mismatch", "primary IP %d is in %s, server %s in %s", p.ID, p.Location, srv.Name, srv.Location)
	}
	return c.created(c.bindPrimaryIP("assign_primary_ip", p, srv, srv.ID))
}

func unassignPrimaryIP(c *call) (reply, error) {
	p, err := c.pathPrimaryIP()
	if err != nil {
		return reply{}, err
	}
	if err := c.s.free(p.ref()); err != nil {
		return reply{}, err
	}
	srv, ok := c.s.Servers[p.Server]
	if !ok {
		return reply{}, failure("service_error", "primary IP with ID '%d' is not assigned to any resource", p.ID)
	}
	if err := c.s.free(srv.ref()); err != nil {
		return reply{}, err
	}
	if err := c.stopped(srv); err != nil {
		return reply{}, err
	}
	return c.created(c.bindPrimaryIP("unassign_primary_ip", p, srv, 0))
}

func changePrimaryPointer(c *call) (reply, error) {
	p, err := c.pathPrimaryIP()
	if err != nil {
		return reply{}, err
	}
	var req pointerRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if err := p.Pointers.set(p.Prefix, req.IP, req.DNSPtr); err != nil {
		return reply{}, err
	}
	return c.created(c.done("change_dns_ptr", p.ref()))
}

// changeServerPointer changes the reverse DNS of one of a server's own addresses.
func changeServerPointer(c *call) (reply, error) {
	s, err := c.pathServer()
	if err != nil {
		return reply{}, err
	}
	var req pointerRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	for _, id := range []int64{s.IPv4, s.IPv6} {
		p, ok := c.s.PrimaryIPs[id]
		if !ok {
			continue
		}
		if ip, err := netip.ParseAddr(req.IP); err == nil && p.Prefix.Contains(ip) {
			if err := p.Pointers.set(p.Prefix, req.IP, req.DNSPtr); err != nil {
				return reply{}, err
			}
			return c.created(c.done("change_dns_ptr", s.ref()))
		}
	}
	return reply{}, invalid("ip", "'%s' is not an address of server %s", req.IP, s.Name)
}

func changePrimaryProtection(c *call) (reply, error) {
	p, err := c.pathPrimaryIP()
	if err != nil {
		return reply{}, err
	}
	var req schema.PrimaryIPActionChangeProtectionRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if req.Delete && p.AutoDelete {
		return reply{}, invalid("delete", "cannot be set while auto_delete is")
	}
	p.Protected = req.Delete
	return c.created(c.done("change_protection", p.ref()))
}
