package api

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"regexp"
	"slices"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// server is a server as the project sees it.
type server struct {
	base
	Type     string `json:"type"`
	Location string `json:"location"`
	Image    string `json:"image"`
	DiskGB   int    `json:"disk_gb"`
	UserData string `json:"user_data,omitempty"`
	// SSHKeys are the public keys themselves: deleting a key from the project
	// takes it from no server.
	SSHKeys      []string `json:"ssh_keys,omitempty"`
	RootPassword string   `json:"root_password,omitempty"`
	// IPv4 and IPv6 are primary IPs; 0 where there is none.
	IPv4           int64        `json:"ipv4,omitempty"`
	IPv6           int64        `json:"ipv6,omitempty"`
	Networks       []attachment `json:"networks,omitempty"`
	PlacementGroup int64        `json:"placement_group,omitempty"`
	BackupWindow   *string      `json:"backup_window,omitempty"`
	Protected      bool         `json:"protected,omitempty"`
	// Firewalls are those that the world has been told of.
	Firewalls []int64 `json:"firewalls,omitempty"`

	// Doing is the status while something is done to it, such as starting;
	// empty when it is at rest.
	Doing string `json:"doing,omitempty"`
	// On is whether it shall be powered on.
	On bool `json:"on"`
	// Dead is a server that is reported as running but was never started.
	Dead bool `json:"dead,omitempty"`
}

// attachment is a server's place in a network.
type attachment struct {
	Network int64        `json:"network"`
	IP      netip.Addr   `json:"ip"`
	Aliases []netip.Addr `json:"aliases,omitempty"`
	MAC     string       `json:"mac"`
	// Pending and Leaving say that the world has not followed yet.
	Pending bool `json:"pending,omitempty"`
	Leaving bool `json:"leaving,omitempty"`
}

func (s *server) ref() resource { return serverRef(s.ID) }

func (s *server) attached(network int64) *attachment {
	for i := range s.Networks {
		if s.Networks[i].Network == network {
			return &s.Networks[i]
		}
	}
	return nil
}

// status is what the API reports. A machine may power itself off, so that at
// rest the world knows better than the record.
func (e *Emulator) status(s *server) string {
	switch {
	case s.Doing != "":
		return s.Doing
	case s.Dead && s.On, e.world.Running(s.ID):
		return "running"
	default:
		return "off"
	}
}

// serverView is the schema's server, with null where the schema's cannot have it.
type serverView struct {
	schema.Server
	PublicNet  publicNetView `json:"public_net"`
	Datacenter *datacenter   `json:"datacenter,omitempty"`
}

type publicNetView struct {
	IPv4        *schema.ServerPublicNetIPv4 `json:"ipv4"`
	IPv6        *schema.ServerPublicNetIPv6 `json:"ipv6"`
	FloatingIPs []int64                     `json:"floating_ips"`
	Firewalls   []schema.ServerFirewall     `json:"firewalls"`
}

func (c *call) viewServer(s *server) serverView {
	e := c.e
	t, _ := e.catalog.serverType(called(s.Type))
	image, _ := e.catalog.image(called(s.Image))
	nothing := uint64(0)
	v := serverView{Server: schema.Server{
		ID: s.ID, Name: s.Name, Status: e.status(s), Created: s.Created, Labels: s.Labels,
		PrivateNet: []schema.ServerPrivateNet{}, ServerType: t, Image: &image,
		IncludedTraffic: includedTraffic(t, s.Location),
		OutgoingTraffic: &nothing, IngoingTraffic: &nothing,
		BackupWindow: s.BackupWindow, Locked: c.s.busy(s.ref()),
		Location:        e.catalog.locationNamed(s.Location),
		Protection:      schema.ServerProtection{Delete: s.Protected, Rebuild: s.Protected},
		Volumes:         []int64{},
		PrimaryDiskSize: s.DiskGB, LoadBalancers: []int64{},
	}, PublicNet: publicNetView{FloatingIPs: []int64{}, Firewalls: []schema.ServerFirewall{}}}

	for _, a := range s.Networks {
		if a.Pending {
			continue
		}
		n := schema.ServerPrivateNet{Network: a.Network, IP: a.IP.String(), AliasIPs: []string{}, MACAddress: a.MAC}
		for _, alias := range a.Aliases {
			n.AliasIPs = append(n.AliasIPs, alias.String())
		}
		v.PrivateNet = append(v.PrivateNet, n)
	}
	for _, vol := range byID(c.s.Volumes) {
		if vol.Server == s.ID {
			v.Volumes = append(v.Volumes, vol.ID)
		}
	}
	if g, ok := c.s.PlacementGroups[s.PlacementGroup]; ok {
		view := c.viewPlacementGroup(g)
		v.PlacementGroup = &view
	}
	if p, ok := c.s.PrimaryIPs[s.IPv4]; ok {
		v.PublicNet.IPv4 = &schema.ServerPublicNetIPv4{ID: p.ID, IP: p.Prefix.Addr().String(), DNSPtr: p.pointer(p.Prefix.Addr())}
	}
	if p, ok := c.s.PrimaryIPs[s.IPv6]; ok {
		ptrs := []schema.ServerPublicNetIPv6DNSPtr{}
		for _, ptr := range p.pointers() {
			ptrs = append(ptrs, schema.ServerPublicNetIPv6DNSPtr(ptr))
		}
		v.PublicNet.IPv6 = &schema.ServerPublicNetIPv6{ID: p.ID, IP: p.Prefix.String(), DNSPtr: ptrs}
	}
	for _, f := range byID(c.s.FloatingIPs) {
		if f.Server == s.ID {
			v.PublicNet.FloatingIPs = append(v.PublicNet.FloatingIPs, f.ID)
		}
	}
	for _, id := range c.s.firewallsOf(s) {
		status := "pending"
		if slices.Contains(s.Firewalls, id) {
			status = "applied"
		}
		v.PublicNet.Firewalls = append(v.PublicNet.Firewalls, schema.ServerFirewall{ID: id, Status: status})
	}
	if e.settings.Datacenter {
		v.Datacenter = e.catalog.datacenter(s.Location)
	}
	return v
}

func includedTraffic(t schema.ServerType, location string) uint64 {
	for _, p := range t.Prices {
		if p.Location == location {
			return p.IncludedTraffic
		}
	}
	return 0
}

func called(name string) idOrName { return idOrName{schema.IDOrName{Name: name}} }

func listServers(c *call) (reply, error) {
	return listRecords(c, "servers", c.s.Servers,
		func(s *server) bool { return c.oneOf("status", c.e.status(s)) },
		func(s *server) any { return c.viewServer(s) })
}

// pathServer is the server that the path names.
func (c *call) pathServer() (*server, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	return find(c.s.Servers, "server", id)
}

func getServer(c *call) (reply, error) {
	s, err := c.pathServer()
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, map[string]any{"server": c.viewServer(s)}}, nil
}

// hostName is a host name as in RFC 1123, with at least one character.
var hostName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$`)

func updateServer(c *call) (reply, error) {
	s, err := c.pathServer()
	if err != nil {
		return reply{}, err
	}
	var req schema.ServerUpdateRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if req.Name != "" && !hostName.MatchString(req.Name) {
		return reply{}, invalid("name", "'%s' is not a host name", req.Name)
	}
	before := c.s.firewallsOf(s)
	if err := rename(c.s.Servers, "server", s, req.Name, req.Labels); err != nil {
		return reply{}, err
	}
	// Labels may have brought the server under a firewall, or out from one.
	if !slices.Equal(before, c.s.firewallsOf(s)) {
		c.refreshFirewalls(s.ID)
	}
	return reply{http.StatusOK, map[string]any{"server": c.viewServer(s)}}, nil
}

func deleteServer(c *call) (reply, error) {
	s, err := c.pathServer()
	if err != nil {
		return reply{}, err
	}
	if s.Protected {
		return reply{}, protected("server")
	}
	if err := c.s.free(s.ref()); err != nil {
		return reply{}, err
	}
	s.Doing = "deleting"
	c.endShutdown(s.ID)
	a := c.start(&action{
		Command: "delete_server", Task: "delete_server", Queue: s.ref().key(),
		Resources: []resource{s.ref()}, Locks: []resource{s.ref()}, Args: actionArgs{Server: s.ID},
	})
	return reply{http.StatusOK, map[string]any{"action": a.view()}}, nil
}

// spec is a server as Machines sees it. The caller holds mu.
func (e *Emulator) spec(s *server) Server {
	t, _ := e.catalog.serverType(called(s.Type))
	spec := Server{
		ID: s.ID, Name: s.Name, Image: s.Image, UserData: s.UserData,
		SSHKeys: slices.Clone(s.SSHKeys), RootPassword: s.RootPassword,
		Cores: t.Cores, MemoryMB: int(t.Memory * 1024),
	}
	if p, ok := e.state.PrimaryIPs[s.IPv4]; ok {
		spec.IPv4 = p.Prefix.Addr()
	}
	if p, ok := e.state.PrimaryIPs[s.IPv6]; ok {
		spec.IPv6 = p.Prefix
	}
	return spec
}

// macAddress is a locally administered address, as those of the cloud's
// private networks.
func macAddress(id int64) string {
	return fmt.Sprintf("86:00:%02x:%02x:%02x:%02x", byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

// forgetServer takes a server out of all that refers to it.
func (s *state) forgetServer(id int64) {
	gone, ok := s.Servers[id]
	if !ok {
		return
	}
	delete(s.Servers, id)
	for _, f := range s.FloatingIPs {
		if f.Server == id {
			f.Server = 0
		}
	}
	for _, v := range s.Volumes {
		if v.Server == id {
			v.Server = 0
		}
	}
	for _, f := range s.Firewalls {
		f.Servers = slices.DeleteFunc(f.Servers, func(x int64) bool { return x == id })
	}
	for _, ip := range []int64{gone.IPv4, gone.IPv6} {
		if p, ok := s.PrimaryIPs[ip]; ok {
			if p.AutoDelete {
				delete(s.PrimaryIPs, ip)
			} else {
				p.Server = 0
			}
		}
	}
}

// serversOn lists the servers in a network, by ID.
func (s *state) serversOn(network int64) []int64 {
	out := []int64{}
	for _, id := range slices.Sorted(maps.Keys(s.Servers)) {
		if a := s.Servers[id].attached(network); a != nil {
			out = append(out, id)
		}
	}
	return out
}
