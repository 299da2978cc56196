package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// floatingIP is a public address, or IPv6 network, that moves between servers.
type floatingIP struct {
	base
	Kind        string       `json:"kind"`
	Prefix      netip.Prefix `json:"prefix"`
	Description string       `json:"description,omitempty"`
	Location    string       `json:"location"`
	Server      int64        `json:"server,omitempty"`
	Protected   bool         `json:"protected,omitempty"`
	Pointers    pointerSet   `json:"pointers,omitempty"`
}

func (f *floatingIP) ref() resource { return resource{"floating_ip", f.ID} }

func (c *call) viewFloatingIP(f *floatingIP) schema.FloatingIP {
	v := schema.FloatingIP{
		ID: f.ID, Name: f.Name, Labels: f.Labels, Created: f.Created, Description: &f.Description,
		IP: shownAddress(f.Prefix), Type: f.Kind, DNSPtr: f.Pointers.of(f.Prefix),
		HomeLocation: c.e.catalog.locationNamed(f.Location),
		Protection:   schema.FloatingIPProtection{Delete: f.Protected},
	}
	if f.Server != 0 {
		v.Server = &f.Server
	}
	return v
}

func (c *call) pathFloatingIP() (*floatingIP, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	return find(c.s.FloatingIPs, "floating IP", id)
}

func listFloatingIPs(c *call) (reply, error) {
	return listRecords(c, "floating_ips", c.s.FloatingIPs,
		func(f *floatingIP) bool { return c.oneOf("ip", shownAddress(f.Prefix)) },
		func(f *floatingIP) any { return c.viewFloatingIP(f) })
}

func getFloatingIP(c *call) (reply, error) {
	f, err := c.pathFloatingIP()
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, map[string]any{"floating_ip": c.viewFloatingIP(f)}}, nil
}

func createFloatingIP(c *call) (reply, error) {
	var req struct {
		Type         string             `json:"type"`
		HomeLocation idOrName           `json:"home_location"`
		Server       int64              `json:"server"`
		Description  string             `json:"description"`
		Labels       *map[string]string `json:"labels"`
		Name         string             `json:"name"`
	}
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if req.Type != "ipv4" && req.Type != "ipv6" {
		return reply{}, invalid("type", "must be ipv4 or ipv6")
	}
	if err := checkLabels(req.Labels); err != nil {
		return reply{}, err
	}
	if req.Name != "" {
		if err := checkName(req.Name); err != nil {
			return reply{}, err
		}
		if err := unique(c.s.FloatingIPs, "floating IP", req.Name, 0); err != nil {
			return reply{}, err
		}
	}
	var srv *server
	var location string
	switch {
	case req.Server != 0:
		var err error
		if srv, err = c.target(req.Server); err != nil {
			return reply{}, err
		}
		location = srv.Location
	case req.HomeLocation.empty():
		return reply{}, invalid("home_location", "must be given when there is no server")
	}
	if !req.HomeLocation.empty() {
		l, ok := c.e.catalog.location(req.HomeLocation)
		if !ok {
			return reply{}, invalid("home_location", "location '%s' is unknown", req.HomeLocation)
		}
		location = l.Name
	}
	prefix, err := c.takePublic(req.Type)
	if err != nil {
		return reply{}, err
	}
	f := &floatingIP{base: c.newBase(req.Name, req.Labels), Kind: req.Type, Prefix: prefix, Description: req.Description, Location: location}
	if f.Name == "" {
		f.Name = fmt.Sprintf("floating-ip-%d", f.ID)
	}
	c.s.FloatingIPs[f.ID] = f
	answer := map[string]any{}
	if srv != nil {
		answer["action"] = c.assignment(f, srv.ID).view()
	}
	answer["floating_ip"] = c.viewFloatingIP(f)
	return reply{http.StatusCreated, answer}, nil
}

// target is a server that an address can be assigned to.
func (c *call) target(id int64) (*server, error) {
	srv, err := find(c.s.Servers, "server", id)
	if err == nil && srv.Doing == "deleting" {
		return nil, locked("server", id)
	}
	return srv, err
}

func updateFloatingIP(c *call) (reply, error) {
	f, err := c.pathFloatingIP()
	if err != nil {
		return reply{}, err
	}
	var req struct {
		Description *string            `json:"description"`
		Labels      *map[string]string `json:"labels"`
		Name        string             `json:"name"`
	}
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if err := rename(c.s.FloatingIPs, "floating IP", f, req.Name, req.Labels); err != nil {
		return reply{}, err
	}
	if req.Description != nil {
		f.Description = *req.Description
	}
	return reply{http.StatusOK, map[string]any{"floating_ip": c.viewFloatingIP(f)}}, nil
}

func deleteFloatingIP(c *call) (reply, error) {
	f, err := c.pathFloatingIP()
	if err != nil {
		return reply{}, err
	}
	if f.Protected {
		return reply{}, protected("floating IP")
	}
	if err := c.s.free(f.ref()); err != nil {
		return reply{}, err
	}
	if f.Server != 0 {
		if !c.e.settings.UnassignOnDelete {
			return reply{}, failure("must_be_unassigned", "floating IP with ID '%d' must be unassigned before it is deleted", f.ID)
		}
		c.leave(leftover{Of: f.ref(), Prefix: f.Prefix})
	}
	delete(c.s.FloatingIPs, f.ID)
	return reply{status: http.StatusNoContent}, nil
}

// assignment begins to route an address to a server; 0 means to nowhere.
func (c *call) assignment(f *floatingIP, to int64) *action {
	a := &action{
		Command: "assign_floating_ip", Task: "assign_floating_ip", Queue: f.ref().key(),
		Resources: []resource{f.ref()}, Locks: []resource{f.ref()},
		Args: actionArgs{IP: f.ID, Server: to},
	}
	if to == 0 {
		a.Command = "unassign_floating_ip"
		a.Resources = append(a.Resources, serverRef(f.Server))
	} else {
		a.Resources = append(a.Resources, serverRef(to))
	}
	return c.start(a)
}

func assignFloatingIP(c *call) (reply, error) {
	f, err := c.pathFloatingIP()
	if err != nil {
		return reply{}, err
	}
	var req schema.FloatingIPActionAssignRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if err := c.s.free(f.ref()); err != nil {
		return reply{}, err
	}
	srv, err := c.target(req.Server)
	if err != nil {
		return reply{}, err
	}
	// An address moves from one server to another without being unassigned.
	if f.Server == srv.ID {
		return reply{}, failure("floating_ip_assigned", "floating IP is already assigned to server %s", srv.Name)
	}
	return c.created(c.assignment(f, srv.ID))
}

func unassignFloatingIP(c *call) (reply, error) {
	f, err := c.pathFloatingIP()
	if err != nil {
		return reply{}, err
	}
	if err := c.s.free(f.ref()); err != nil {
		return reply{}, err
	}
	if f.Server == 0 {
		return reply{}, failure("service_error", "floating IP with ID '%d' is not assigned to any resource", f.ID)
	}
	return c.created(c.assignment(f, 0))
}

func (e *Emulator) assignFloatingIP(ctx context.Context, a action) (func(*state), error) {
	e.mu.Lock()
	f, ok := e.state.FloatingIPs[a.Args.IP]
	if !ok {
		e.mu.Unlock()
		return nil, notFound("floating IP", a.Args.IP)
	}
	if s, ok := e.state.Servers[a.Args.Server]; a.Args.Server != 0 && (!ok || s.Doing == "deleting") {
		e.mu.Unlock()
		return nil, notFound("server", a.Args.Server)
	}
	prefix := f.Prefix
	e.mu.Unlock()
	if err := e.world.RouteFloatingIP(ctx, prefix, a.Args.Server); err != nil {
		return nil, fmt.Errorf("routing %s to server %d: %w", prefix, a.Args.Server, err)
	}
	return func(s *state) {
		// The server may have been deleted while its address was moved.
		if _, ok := s.Servers[a.Args.Server]; ok || a.Args.Server == 0 {
			f.Server = a.Args.Server
		}
	}, nil
}

// unroute takes an address away from a server in turn with the address's other
// moves, and waits for that. It does nothing when the address has left the
// server meanwhile.
func (e *Emulator) unroute(ctx context.Context, ip resource, server int64) error {
	done := make(chan error, 1)
	e.jobs.add(ip.key(), func() {
		e.mu.Lock()
		f, ok := e.state.FloatingIPs[ip.ID]
		if !ok || f.Server != server {
			e.mu.Unlock()
			done <- nil
			return
		}
		prefix := f.Prefix
		e.mu.Unlock()
		done <- e.world.RouteFloatingIP(ctx, prefix, 0)
	})
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("taking floating IP %d from server %d: %w", ip.ID, server, err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func changeFloatingPointer(c *call) (reply, error) {
	f, err := c.pathFloatingIP()
	if err != nil {
		return reply{}, err
	}
	var req pointerRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if err := f.Pointers.set(f.Prefix, req.IP, req.DNSPtr); err != nil {
		return reply{}, err
	}
	return c.created(c.done("change_dns_ptr", f.ref()))
}

func changeFloatingProtection(c *call) (reply, error) {
	f, err := c.pathFloatingIP()
	if err != nil {
		return reply{}, err
	}
	var req schema.FloatingIPActionChangeProtectionRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if req.Delete != nil {
		f.Protected = *req.Delete
	}
	return c.created(c.done("change_protection", f.ref()))
}
