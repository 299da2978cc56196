package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// volume is a block device that is attached to one server at a time.
type volume struct {
	base
	Size      int    `json:"size"` // GB
	Format    string `json:"format,omitempty"`
	Location  string `json:"location"`
	Server    int64  `json:"server,omitempty"`
	Protected bool   `json:"protected,omitempty"`
	// Creating and Leaving say that the world has not followed yet.
	Creating bool `json:"creating,omitempty"`
	Leaving  bool `json:"leaving,omitempty"`
}

// Sizes of volumes, in GB.
const (
	minVolume = 10
	maxVolume = 10240
)

func (v *volume) ref() resource { return resource{"volume", v.ID} }

func (c *call) viewVolume(v *volume) schema.Volume {
	out := schema.Volume{
		ID: v.ID, Name: v.Name, Labels: v.Labels, Created: v.Created, Status: "available", Size: v.Size,
		Location: c.e.catalog.locationNamed(v.Location), Protection: schema.VolumeProtection{Delete: v.Protected},
		LinuxDevice: fmt.Sprintf("/dev/disk/by-id/scsi-0HC_Volume_%d", v.ID),
	}
	if v.Creating {
		out.Status = "creating"
	}
	if v.Server != 0 {
		out.Server = &v.Server
	}
	if v.Format != "" {
		out.Format = &v.Format
	}
	return out
}

func (c *call) pathVolume() (*volume, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	return find(c.s.Volumes, "volume", id)
}

// idleVolume is the volume that the path names, if nothing is done to it.
func (c *call) idleVolume() (*volume, error) {
	v, err := c.pathVolume()
	if err != nil {
		return nil, err
	}
	return v, c.s.free(v.ref())
}

func listVolumes(c *call) (reply, error) {
	return listRecords(c, "volumes", c.s.Volumes,
		func(v *volume) bool { return c.oneOf("status", c.viewVolume(v).Status) },
		func(v *volume) any { return c.viewVolume(v) })
}

func getVolume(c *call) (reply, error) {
	v, err := c.pathVolume()
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, map[string]any{"volume": c.viewVolume(v)}}, nil
}

func createVolume(c *call) (reply, error) {
	var req struct {
		Name     string             `json:"name"`
		Size     int                `json:"size"`
		Server   int64              `json:"server"`
		Location idOrName           `json:"location"`
		Labels   *map[string]string `json:"labels"`
		Format   string             `json:"format"`
	}
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	var v problems
	if req.Size < minVolume || req.Size > maxVolume {
		v.add("size", "must be between %d and %d GB", minVolume, maxVolume)
	}
	if req.Format != "" && req.Format != "ext4" && req.Format != "xfs" {
		v.add("format", "must be ext4 or xfs")
	}
	if (req.Server == 0) == req.Location.empty() {
		v.add("location", "must be given when there is no server, and only then")
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
	if err := unique(c.s.Volumes, "volume", req.Name, 0); err != nil {
		return reply{}, err
	}
	var location string
	if req.Server != 0 {
		srv, err := c.volumeTarget(req.Server)
		if err != nil {
			return reply{}, err
		}
		location = srv.Location
	} else {
		l, ok := c.e.catalog.location(req.Location)
		if !ok {
			return reply{}, invalid("location", "location '%s' is unknown", req.Location)
		}
		location = l.Name
	}
	vol := &volume{base: c.newBase(req.Name, req.Labels), Size: req.Size, Format: req.Format, Location: location, Server: req.Server, Creating: true}
	c.s.Volumes[vol.ID] = vol
	create := &action{
		Command: "create_volume", Task: "create_volume", Queue: vol.ref().key(),
		Resources: []resource{vol.ref()}, Locks: []resource{vol.ref()}, Args: actionArgs{Volume: vol.ID},
	}
	next := []*action{}
	if req.Server != 0 {
		// The server's queue, since the device appears in the server.
		create.Queue = serverRef(req.Server).key()
		create.Args.Server = req.Server
		create.Locks = append(create.Locks, serverRef(req.Server))
	}
	c.start(create)
	if req.Server != 0 {
		next = append(next, c.follow(create, "attach_volume", vol.ref(), serverRef(req.Server)))
	}
	return reply{http.StatusCreated, map[string]any{
		"volume": c.viewVolume(vol), "action": create.view(), "next_actions": views(next),
	}}, nil
}

// volumeTarget is a server that a volume can be attached to now.
func (c *call) volumeTarget(id int64) (*server, error) {
	srv, err := c.target(id)
	if err != nil {
		return nil, err
	}
	if err := c.s.free(srv.ref()); err != nil {
		return nil, err
	}
	n := 0
	for _, v := range c.s.Volumes {
		if v.Server == id {
			n++
		}
	}
	if n >= maxVolumes {
		return nil, failure("resource_limit_exceeded", "server %s has %d volumes, which is the most it can have", srv.Name, maxVolumes)
	}
	return srv, nil
}

// createVolume is also the task of reconcile, for a volume that the world may
// know already.
func (e *Emulator) createVolume(ctx context.Context, a action) (func(*state), error) {
	id := a.Args.Volume
	e.mu.Lock()
	v, ok := e.state.Volumes[id]
	if !ok {
		e.mu.Unlock()
		return nil, notFound("volume", id)
	}
	size, format := v.Size, v.Format
	e.mu.Unlock()
	err := e.world.CreateVolume(ctx, id, size, format)
	if err == nil && a.Args.Server != 0 {
		err = e.world.AttachVolume(ctx, id, a.Args.Server)
	}
	if err != nil {
		err = fmt.Errorf("creating volume %d: %w", id, err)
	}
	return func(s *state) {
		if v, ok := s.Volumes[id]; ok {
			v.Creating = false
			if err != nil {
				v.Server = 0
			}
		}
	}, err
}

func updateVolume(c *call) (reply, error) {
	v, err := c.pathVolume()
	if err != nil {
		return reply{}, err
	}
	var req schema.VolumeUpdateRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if err := rename(c.s.Volumes, "volume", v, req.Name, req.Labels); err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, map[string]any{"volume": c.viewVolume(v)}}, nil
}

func deleteVolume(c *call) (reply, error) {
	v, err := c.idleVolume()
	if err != nil {
		return reply{}, err
	}
	if v.Protected {
		return reply{}, protected("volume")
	}
	if v.Server != 0 {
		return reply{}, failure("service_error", "volume with ID '%d' is still attached to server %d", v.ID, v.Server)
	}
	delete(c.s.Volumes, v.ID)
	c.leave(leftover{Of: v.ref()})
	return reply{status: http.StatusNoContent}, nil
}

func attachVolume(c *call) (reply, error) {
	v, err := c.idleVolume()
	if err != nil {
		return reply{}, err
	}
	var req schema.VolumeActionAttachVolumeRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if v.Server != 0 {
		return reply{}, failure("volume_already_attached", "volume with ID '%d' is attached to server %d", v.ID, v.Server)
	}
	srv, err := c.volumeTarget(req.Server)
	if err != nil {
		return reply{}, err
	}
	if srv.Location != v.Location {
		return reply{}, invalid("server", "server %s is in %s, the volume in %s", srv.Name, srv.Location, v.Location)
	}
	v.Server = srv.ID
	return c.created(c.volumeAction("attach_volume", v, srv.ID, srv.ID))
}

func detachVolume(c *call) (reply, error) {
	v, err := c.idleVolume()
	if err != nil {
		return reply{}, err
	}
	if v.Server == 0 {
		return reply{}, failure("service_error", "volume with ID '%d' is not attached to any server", v.ID)
	}
	if err := c.s.free(serverRef(v.Server)); err != nil {
		return reply{}, err
	}
	v.Leaving = true
	return c.created(c.volumeAction("detach_volume", v, v.Server, 0))
}

// volumeAction attaches a volume to a server, or (to 0) detaches it from at.
func (c *call) volumeAction(command string, v *volume, at, to int64) *action {
	return c.start(&action{
		Command: command, Task: "attach_volume", Queue: serverRef(at).key(),
		Resources: []resource{v.ref(), serverRef(at)}, Locks: []resource{v.ref(), serverRef(at)},
		Args: actionArgs{Volume: v.ID, Server: to},
	})
}

func (e *Emulator) attachVolume(ctx context.Context, a action) (func(*state), error) {
	err := e.world.AttachVolume(ctx, a.Args.Volume, a.Args.Server)
	if err != nil {
		err = fmt.Errorf("attaching volume %d to server %d: %w", a.Args.Volume, a.Args.Server, err)
	}
	attach := a.Args.Server != 0
	return func(s *state) {
		v, ok := s.Volumes[a.Args.Volume]
		if !ok {
			return
		}
		v.Leaving = false
		if attach == (err != nil) {
			v.Server = 0 // not attached, or detached
		}
	}, err
}

func resizeVolume(c *call) (reply, error) {
	v, err := c.idleVolume()
	if err != nil {
		return reply{}, err
	}
	var req schema.VolumeActionResizeVolumeRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if req.Size <= v.Size || req.Size > maxVolume {
		return reply{}, invalid("size", "must be more than the %d GB it has, and at most %d", v.Size, maxVolume)
	}
	a := &action{
		Command: "resize_volume", Task: "resize_volume", Queue: v.ref().key(),
		Resources: []resource{v.ref()}, Locks: []resource{v.ref()},
		Args: actionArgs{Volume: v.ID, Size: req.Size},
	}
	if v.Server != 0 {
		a.Queue = serverRef(v.Server).key()
	}
	return c.created(c.start(a))
}

func (e *Emulator) resizeVolume(ctx context.Context, a action) (func(*state), error) {
	if err := e.world.ResizeVolume(ctx, a.Args.Volume, a.Args.Size); err != nil {
		return nil, fmt.Errorf("resizing volume %d: %w", a.Args.Volume, err)
	}
	return func(s *state) {
		if v, ok := s.Volumes[a.Args.Volume]; ok {
			v.Size = a.Args.Size
		}
	}, nil
}

func changeVolumeProtection(c *call) (reply, error) {
	v, err := c.pathVolume()
	if err != nil {
		return reply{}, err
	}
	var req schema.VolumeActionChangeProtectionRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if req.Delete != nil {
		v.Protected = *req.Delete
	}
	return c.created(c.done("change_protection", v.ref()))
}
