package api

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// maxUserData is in bytes, maxGroup and maxNetworks in servers and networks:
// limits that Hetzner documents.
const (
	maxUserData = 32 << 10
	maxGroup    = 10
	maxNetworks = 3
	maxVolumes  = 16
)

// serverCreateRequest is the schema's, as lenient as the API: IDs or names for
// keys, and options that are null.
type serverCreateRequest struct {
	Name             string                         `json:"name"`
	ServerType       idOrName                       `json:"server_type"`
	Image            idOrName                       `json:"image"`
	SSHKeys          []idOrName                     `json:"ssh_keys"`
	Location         idOrName                       `json:"location"`
	Datacenter       idOrName                       `json:"datacenter"`
	UserData         string                         `json:"user_data"`
	StartAfterCreate *bool                          `json:"start_after_create"`
	Labels           *map[string]string             `json:"labels"`
	Volumes          []int64                        `json:"volumes"`
	Networks         []int64                        `json:"networks"`
	Firewalls        []schema.ServerCreateFirewalls `json:"firewalls"`
	PlacementGroup   int64                          `json:"placement_group"`
	PublicNet        struct {
		EnableIPv4 *bool `json:"enable_ipv4"`
		EnableIPv6 *bool `json:"enable_ipv6"`
		IPv4       int64 `json:"ipv4"`
		IPv6       int64 `json:"ipv6"`
	} `json:"public_net"`
}

// serverPlan is a request that was found to be possible.
type serverPlan struct {
	serverType schema.ServerType
	image      schema.Image
	location   schema.Location
	keys       []*sshKey
	networks   []attachment
	// ipv4 and ipv6 are existing primary IPs; where nil and wanted, new ones
	// are made.
	ipv4, ipv6         *primaryIP
	wantIPv4, wantIPv6 bool
}

func createServer(c *call) (reply, error) {
	var req serverCreateRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	p, err := c.planServer(&req)
	if err != nil {
		return reply{}, err
	}

	s := &server{
		base: c.newBase(req.Name, req.Labels), Type: p.serverType.Name, Image: *p.image.Name,
		Location: p.location.Name, DiskGB: p.serverType.Disk, UserData: req.UserData,
		PlacementGroup: req.PlacementGroup, Networks: p.networks, Doing: "initializing",
	}
	for _, k := range p.keys {
		s.SSHKeys = append(s.SSHKeys, k.PublicKey)
	}
	if len(p.keys) == 0 {
		s.RootPassword = randomHex(12)
	}
	if s.IPv4, err = c.givePrimaryIP(s, "ipv4", p.wantIPv4, p.ipv4); err != nil {
		return reply{}, err
	}
	if s.IPv6, err = c.givePrimaryIP(s, "ipv6", p.wantIPv6, p.ipv6); err != nil {
		if p.ipv4 != nil {
			p.ipv4.Server = 0
		} else {
			delete(c.s.PrimaryIPs, s.IPv4)
		}
		return reply{}, err
	}
	for i := range s.Networks {
		s.Networks[i].MAC = macAddress(c.s.id())
	}
	c.s.Servers[s.ID] = s
	locks := []resource{s.ref()}
	for _, id := range req.Volumes {
		c.s.Volumes[id].Server = s.ID
		locks = append(locks, c.s.Volumes[id].ref())
	}
	for _, f := range req.Firewalls {
		fw := c.s.Firewalls[f.Firewall]
		fw.Servers = append(fw.Servers, s.ID)
	}

	start := req.StartAfterCreate == nil || *req.StartAfterCreate
	a := c.start(&action{
		Command: "create_server", Task: "create_server", Queue: s.ref().key(),
		Resources: []resource{s.ref()}, Locks: locks,
		Args: actionArgs{Server: s.ID, Start: start},
	})
	next := []*action{}
	for _, id := range req.Volumes {
		next = append(next, c.follow(a, "attach_volume", c.s.Volumes[id].ref(), s.ref()))
	}
	if start {
		next = append(next, c.follow(a, "start_server", s.ref()))
	}
	var password *string
	if s.RootPassword != "" {
		password = &s.RootPassword
	}
	return reply{http.StatusCreated, map[string]any{
		"server": c.viewServer(s), "action": a.view(), "next_actions": views(next), "root_password": password,
	}}, nil
}

// planServer checks a request and changes nothing.
func (c *call) planServer(req *serverCreateRequest) (*serverPlan, error) {
	var v problems
	var p serverPlan
	var ok bool
	if !hostName.MatchString(req.Name) || len(req.Name) > 63 {
		v.add("name", "'%s' is not a host name", req.Name)
	}
	if p.serverType, ok = c.e.catalog.serverType(req.ServerType); !ok {
		v.add("server_type", "server type '%s' is unknown", req.ServerType)
	}
	if p.image, ok = c.e.catalog.image(req.Image); !ok {
		v.add("image", "image '%s' is unknown", req.Image)
	}
	if len(req.UserData) > maxUserData {
		v.add("user_data", "is longer than 32 KiB")
	}
	if v.any() {
		return nil, v.err()
	}
	if err := checkLabels(req.Labels); err != nil {
		return nil, err
	}
	if err := unique(c.s.Servers, "server", req.Name, 0); err != nil {
		return nil, err
	}
	if err := c.planPublicNet(req, &p); err != nil {
		return nil, err
	}
	if err := c.planLocation(req, &p); err != nil {
		return nil, err
	}
	for _, want := range req.SSHKeys {
		k := c.sshKey(want)
		if k == nil {
			return nil, failure("not_found", "SSH key '%s' not found", want)
		}
		p.keys = append(p.keys, k)
	}
	if req.PlacementGroup != 0 {
		g, err := find(c.s.PlacementGroups, "placement group", req.PlacementGroup)
		if err != nil {
			return nil, err
		}
		if err := c.room(g); err != nil {
			return nil, err
		}
	}
	if len(req.Firewalls) > 0 && !p.wantIPv4 && !p.wantIPv6 {
		return nil, failure("private_net_only_server", "a server without public interface cannot have firewalls")
	}
	var seen []int64
	for _, f := range req.Firewalls {
		if _, err := find(c.s.Firewalls, "firewall", f.Firewall); err != nil {
			return nil, err
		}
		if slices.Contains(seen, f.Firewall) {
			return nil, failure("server_already_added", "firewall %d is given twice", f.Firewall)
		}
		seen = append(seen, f.Firewall)
	}
	if err := c.planVolumes(req, &p); err != nil {
		return nil, err
	}
	return &p, c.planNetworks(req, &p)
}

func (c *call) planPublicNet(req *serverCreateRequest, p *serverPlan) error {
	n := req.PublicNet
	p.wantIPv4 = n.EnableIPv4 == nil || *n.EnableIPv4
	p.wantIPv6 = n.EnableIPv6 == nil || *n.EnableIPv6
	if !p.wantIPv4 && !p.wantIPv6 && len(req.Networks) == 0 && (req.StartAfterCreate == nil || *req.StartAfterCreate) {
		return invalid("public_net", "a server without public and private network cannot be started")
	}
	for _, want := range []struct {
		kind, field string
		id          int64
		enabled     bool
		into        **primaryIP
	}{
		{"ipv4", "public_net.ipv4", n.IPv4, p.wantIPv4, &p.ipv4},
		{"ipv6", "public_net.ipv6", n.IPv6, p.wantIPv6, &p.ipv6},
	} {
		if want.id == 0 {
			continue
		}
		if !want.enabled {
			return invalid(want.field, "is given, but %s is not enabled", want.kind)
		}
		ip, err := find(c.s.PrimaryIPs, "primary IP", want.id)
		switch {
		case err != nil:
			return err
		case ip.Kind != want.kind:
			return failure("primary_ip_version_mismatch", "primary IP %d is not %s", ip.ID, want.kind)
		case ip.Server != 0:
			return failure("primary_ip_assigned", "primary IP %d is assigned to server %d", ip.ID, ip.Server)
		}
		*want.into = ip
	}
	return nil
}

// planLocation finds where the server goes: where the request says, else where
// its primary IPs and volumes are, else the first location that has its type.
func (c *call) planLocation(req *serverCreateRequest, p *serverPlan) error {
	if !req.Datacenter.empty() {
		name, ok := legacyDatacenter(req.Datacenter)
		switch {
		case !c.e.settings.Datacenter:
			return invalid("datacenter", "was removed from the API in July 2026; use location")
		case !req.Location.empty():
			return invalid("datacenter", "must not be used together with location")
		case !ok:
			return invalid("datacenter", "datacenter '%s' is unknown", req.Datacenter)
		}
		req.Location = called(name)
	}
	want := req.Location
	if want.empty() {
		for _, ip := range []*primaryIP{p.ipv4, p.ipv6} {
			if ip != nil {
				want = called(ip.Location)
			}
		}
	}
	if want.empty() && len(req.Volumes) > 0 {
		if v, ok := c.s.Volumes[req.Volumes[0]]; ok {
			want = called(v.Location)
		}
	}
	if want.empty() {
		want = called(p.serverType.Locations[0].Name)
	}
	var ok bool
	if p.location, ok = c.e.catalog.location(want); !ok {
		return invalid("location", "location '%s' is unknown", want)
	}
	if !soldIn(p.serverType, p.location.Name) {
		return invalid("server_type", "unsupported location for server type: %s is not available in %s", p.serverType.Name, p.location.Name)
	}
	for _, ip := range []*primaryIP{p.ipv4, p.ipv6} {
		if ip != nil && ip.Location != p.location.Name {
			return failure("primary_ip_datacenter_mismatch", "primary IP %d is in %s, the server would be in %s", ip.ID, ip.Location, p.location.Name)
		}
	}
	return nil
}

func (c *call) planVolumes(req *serverCreateRequest, p *serverPlan) error {
	if len(req.Volumes) > maxVolumes {
		return failure("resource_limit_exceeded", "a server has at most %d volumes", maxVolumes)
	}
	for _, id := range req.Volumes {
		v, err := find(c.s.Volumes, "volume", id)
		if err != nil {
			return err
		}
		if err := c.s.free(v.ref()); err != nil {
			return err
		}
		if v.Server != 0 {
			return failure("volume_already_attached", "volume %d is attached to server %d", id, v.Server)
		}
		if v.Location != p.location.Name {
			return invalid("volumes", "volume %d is in %s, the server would be in %s", id, v.Location, p.location.Name)
		}
	}
	return nil
}

func (c *call) planNetworks(req *serverCreateRequest, p *serverPlan) error {
	if len(req.Networks) > maxNetworks {
		return failure("resource_limit_exceeded", "a server is in at most %d networks", maxNetworks)
	}
	for i, id := range req.Networks {
		n, err := c.network(id)
		if err != nil {
			return err
		}
		if slices.Contains(req.Networks[:i], id) {
			return failure("server_already_attached", "network %d is given twice", id)
		}
		for _, other := range req.Networks[:i] {
			if o, ok := c.s.Networks[other]; ok && o.Range.Overlaps(n.Range) {
				return failure("networks_overlap", "network %d overlaps with network %d", id, other)
			}
		}
		ip, err := c.freeAddress(n, p.location.NetworkZone, nil)
		if err != nil {
			return err
		}
		p.networks = append(p.networks, attachment{Network: id, IP: ip, Pending: true})
	}
	return nil
}

// givePrimaryIP gives a new server a primary IP and returns its ID, 0 where
// none is wanted.
func (c *call) givePrimaryIP(s *server, kind string, wanted bool, given *primaryIP) (int64, error) {
	if !wanted {
		return 0, nil
	}
	if given == nil {
		prefix, err := c.takePublic(kind)
		if err != nil {
			return 0, err
		}
		given = &primaryIP{base: c.newBase("", nil), Kind: kind, Prefix: prefix, Location: s.Location, AutoDelete: true}
		given.Name = fmt.Sprintf("primary_ip-%d", given.ID)
		c.s.PrimaryIPs[given.ID] = given
	}
	given.Server = s.ID
	return given.ID, nil
}

// createServer is the task of create_server and, for a server that the world
// may know already, of reconcile.
func (e *Emulator) createServer(ctx context.Context, a action) (func(*state), error) {
	id := a.Args.Server
	settled, err := e.converge(ctx, id)
	dead := false
	if err == nil && a.Args.Start {
		dead, err = e.boot(ctx, id)
	}
	return func(s *state) {
		srv, ok := s.Servers[id]
		if !ok {
			return
		}
		if settled != nil {
			settled(s)
		}
		if err != nil {
			// It is in no network that it could not be attached to.
			srv.Networks = slices.DeleteFunc(srv.Networks, func(n attachment) bool { return n.Pending })
		}
		srv.Doing = ""
		srv.On = err == nil && a.Args.Start
		srv.Dead = dead
	}, err
}

// converge brings everything of a server but its power to what the state
// says, and returns what the state then has to say about the world.
func (e *Emulator) converge(ctx context.Context, id int64) (func(*state), error) {
	e.mu.Lock()
	s, ok := e.state.Servers[id]
	if !ok {
		e.mu.Unlock()
		return nil, notFound("server", id)
	}
	spec := e.spec(s)
	var nets []Attachment
	for _, a := range s.Networks {
		if !a.Leaving {
			nets = append(nets, e.attachmentSpec(a))
		}
	}
	var volumes []int64
	for _, v := range slices.Sorted(maps.Keys(e.state.Volumes)) {
		if vol := e.state.Volumes[v]; vol.Server == id && !vol.Leaving && !vol.Creating {
			volumes = append(volumes, v)
		}
	}
	e.mu.Unlock()

	if err := e.world.Create(ctx, spec); err != nil {
		return nil, fmt.Errorf("creating server %s: %w", spec.Name, err)
	}
	for _, n := range nets {
		if err := e.world.Attach(ctx, id, n); err != nil {
			return nil, fmt.Errorf("attaching server %s to network %d: %w", spec.Name, n.Network, err)
		}
	}
	for _, v := range volumes {
		if err := e.world.AttachVolume(ctx, v, id); err != nil {
			return nil, fmt.Errorf("attaching volume %d to server %s: %w", v, spec.Name, err)
		}
	}
	firewalled, err := e.setFirewall(ctx, id)
	if err != nil {
		return nil, err
	}
	return func(s *state) {
		firewalled(s)
		for _, n := range nets {
			s.attachedNow(id, n.Network)
		}
	}, nil
}

// attachedNow notes that the world has followed.
func (s *state) attachedNow(id, network int64) {
	if srv, ok := s.Servers[id]; ok {
		if a := srv.attached(network); a != nil {
			a.Pending = false
		}
	}
}

// boot starts a server, unless it was ordered never to boot: then it returns
// true and the server counts as running.
func (e *Emulator) boot(ctx context.Context, id int64) (dead bool, err error) {
	e.mu.Lock()
	s, ok := e.state.Servers[id]
	if !ok {
		e.mu.Unlock()
		return false, notFound("server", id)
	}
	name := s.Name
	dead = e.neverBoots(name)
	e.mu.Unlock()
	if dead {
		e.log.Info("server is reported running but not booted, as ordered", "server", name)
		return true, nil
	}
	if err := e.world.Start(ctx, id); err != nil {
		return false, fmt.Errorf("starting server %s: %w", name, err)
	}
	return false, nil
}
