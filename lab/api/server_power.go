package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// serverAction begins an action on a server that nothing else is done to.
// doing is the server's status meanwhile; empty leaves it as it is.
func (c *call) serverAction(s *server, command, doing string, args actionArgs, also ...resource) *action {
	s.Doing = doing
	c.endShutdown(s.ID)
	args.Server = s.ID
	return c.start(&action{
		Command: command, Task: command, Queue: s.ref().key(),
		Resources: append([]resource{s.ref()}, also...), Locks: []resource{s.ref()}, Args: args,
	})
}

// idleServer is the server that the path names, if nothing is done to it.
func (c *call) idleServer() (*server, error) {
	s, err := c.pathServer()
	if err != nil {
		return nil, err
	}
	return s, c.s.free(s.ref())
}

// stoppedServer is the server that the path names, if it is off.
func (c *call) stoppedServer() (*server, error) {
	s, err := c.idleServer()
	if err != nil {
		return nil, err
	}
	return s, c.stopped(s)
}

func (c *call) stopped(s *server) error {
	if c.e.status(s) != "off" {
		return failure("server_not_stopped", "server %s must be powered off first", s.Name)
	}
	return nil
}

func powerOn(c *call) (reply, error) {
	s, err := c.idleServer()
	if err != nil {
		return reply{}, err
	}
	if s.IPv4 == 0 && s.IPv6 == 0 && len(s.Networks) == 0 {
		return reply{}, failure("service_error", "server %s has no network and cannot be powered on", s.Name)
	}
	if c.e.status(s) == "running" {
		return c.created(c.done("start_server", s.ref()))
	}
	return c.created(c.serverAction(s, "start_server", "starting", actionArgs{}))
}

func powerOff(c *call) (reply, error) {
	s, err := c.idleServer()
	if err != nil {
		return reply{}, err
	}
	return c.created(c.serverAction(s, "stop_server", "stopping", actionArgs{}))
}

func reset(c *call) (reply, error) {
	s, err := c.idleServer()
	if err != nil {
		return reply{}, err
	}
	return c.created(c.serverAction(s, "reset_server", "starting", actionArgs{}))
}

func reboot(c *call) (reply, error) {
	s, err := c.idleServer()
	if err != nil {
		return reply{}, err
	}
	return c.created(c.serverAction(s, "reboot_server", "running", actionArgs{}))
}

// shutdown asks a server to shut down. The action says only that it was asked;
// the server's status tells whether and when it has.
func shutdown(c *call) (reply, error) {
	s, err := c.idleServer()
	if err != nil {
		return reply{}, err
	}
	a := c.done("shutdown_server", s.ref())
	if c.e.status(s) == "running" && !s.Dead {
		s.Doing, s.On = "stopping", false
		id := s.ID
		c.later(s.ref().key(), func() { c.e.shutDown(id) })
	}
	return c.created(a)
}

// shutDown stops a server in an orderly way, for as long as that takes. What
// does not obey stays on, as in the cloud.
func (e *Emulator) shutDown(id int64) {
	ctx, cancel := context.WithTimeout(e.ctx, e.cfg.ActionTimeout)
	defer cancel()
	e.mu.Lock()
	if s, ok := e.state.Servers[id]; !ok || s.On || s.Doing != "stopping" || e.state.busy(s.ref()) {
		e.mu.Unlock()
		return // powered off, or on again, before its turn came
	}
	e.shutdowns[id] = cancel
	e.mu.Unlock()

	err := e.world.Stop(ctx, id, true)
	if e.ctx.Err() != nil {
		return // the next start goes on
	}
	if serr := e.update(func(s *state) {
		delete(e.shutdowns, id)
		srv, ok := s.Servers[id]
		if !ok || srv.Doing != "stopping" || s.busy(srv.ref()) {
			return // somebody else has taken over
		}
		srv.Doing = ""
		srv.On = err != nil
	}); serr != nil {
		e.log.Error("state not saved after a shutdown", "server", id, "error", serr)
	}
	if err != nil {
		e.log.Warn("server did not shut down", "server", id, "error", err)
	}
}

// endShutdown ends an orderly shutdown: something harder is coming.
func (c *call) endShutdown(id int64) {
	if cancel, ok := c.e.shutdowns[id]; ok {
		cancel()
		delete(c.e.shutdowns, id)
	}
}

// powered is what the state says after a task has set a server's power.
func powered(id int64, on, dead bool) func(*state) {
	return func(s *state) {
		if srv, ok := s.Servers[id]; ok {
			srv.Doing, srv.On, srv.Dead = "", on, dead
		}
	}
}

// atRest is what the state says after a task has failed: the world knows
// whether the server runs.
func (e *Emulator) atRest(id int64) func(*state) {
	on := e.world.Running(id)
	return powered(id, on, false)
}

func (e *Emulator) startServer(ctx context.Context, a action) (func(*state), error) {
	dead, err := e.boot(ctx, a.Args.Server)
	if err != nil {
		return e.atRest(a.Args.Server), err
	}
	return powered(a.Args.Server, true, dead), nil
}

func (e *Emulator) stopServer(ctx context.Context, a action) (func(*state), error) {
	if err := e.cutPower(ctx, a.Args.Server); err != nil {
		return e.atRest(a.Args.Server), err
	}
	return powered(a.Args.Server, false, false), nil
}

func (e *Emulator) resetServer(ctx context.Context, a action) (func(*state), error) {
	if err := e.cutPower(ctx, a.Args.Server); err != nil {
		return e.atRest(a.Args.Server), err
	}
	return e.startServer(ctx, a)
}

// orderlyStop is how long a reboot waits before it cuts the power.
const orderlyStop = 30 * time.Second

func (e *Emulator) rebootServer(ctx context.Context, a action) (func(*state), error) {
	id := a.Args.Server
	if e.world.Running(id) {
		polite, cancel := context.WithTimeout(ctx, orderlyStop)
		err := e.world.Stop(polite, id, true)
		cancel()
		if err != nil {
			e.log.Warn("server did not shut down for its reboot, its power is cut", "server", id, "error", err)
		}
	}
	return e.resetServer(ctx, a)
}

func (e *Emulator) cutPower(ctx context.Context, id int64) error {
	if err := e.world.Stop(ctx, id, false); err != nil {
		return fmt.Errorf("powering off server %d: %w", id, err)
	}
	return nil
}

func rebuild(c *call) (reply, error) {
	s, err := c.idleServer()
	if err != nil {
		return reply{}, err
	}
	var req struct {
		Image    idOrName `json:"image"`
		UserData *string  `json:"user_data"`
	}
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if s.Protected {
		return reply{}, protected("server")
	}
	image, ok := c.e.catalog.image(req.Image)
	if !ok {
		return reply{}, invalid("image", "image '%s' is unknown", req.Image)
	}
	if req.UserData != nil {
		if len(*req.UserData) > maxUserData {
			return reply{}, invalid("user_data", "is longer than 32 KiB")
		}
		s.UserData = *req.UserData
	}
	s.Image = *image.Name
	var password *string
	if len(s.SSHKeys) == 0 {
		s.RootPassword = randomHex(12)
		password = &s.RootPassword
	}
	a := c.serverAction(s, "rebuild_server", "rebuilding", actionArgs{})
	return reply{http.StatusCreated, map[string]any{"action": a.view(), "root_password": password}}, nil
}

func (e *Emulator) rebuildServer(ctx context.Context, a action) (func(*state), error) {
	id := a.Args.Server
	e.mu.Lock()
	s, ok := e.state.Servers[id]
	if !ok {
		e.mu.Unlock()
		return nil, notFound("server", id)
	}
	spec := e.spec(s)
	e.mu.Unlock()
	if err := e.cutPower(ctx, id); err != nil {
		return e.atRest(id), err
	}
	if err := e.world.Rebuild(ctx, spec); err != nil {
		return e.atRest(id), fmt.Errorf("rebuilding server %s: %w", spec.Name, err)
	}
	settled, err := e.converge(ctx, id)
	if err != nil {
		return e.atRest(id), err
	}
	started, err := e.startServer(ctx, a)
	return func(s *state) { settled(s); started(s) }, err
}

func changeType(c *call) (reply, error) {
	s, err := c.stoppedServer()
	if err != nil {
		return reply{}, err
	}
	var req struct {
		ServerType  idOrName `json:"server_type"`
		UpgradeDisk bool     `json:"upgrade_disk"`
	}
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	t, ok := c.e.catalog.serverType(req.ServerType)
	switch {
	case !ok:
		return reply{}, invalid("server_type", "server type '%s' is unknown", req.ServerType)
	case t.Name == s.Type:
		return reply{}, failure("invalid_server_type", "server %s is a %s already", s.Name, t.Name)
	case !soldIn(t, s.Location):
		return reply{}, failure("invalid_server_type", "%s is not available in %s", t.Name, s.Location)
	case t.Disk < s.DiskGB:
		return reply{}, failure("invalid_server_type", "%s has a disk of %d GB, the server's has %d GB", t.Name, t.Disk, s.DiskGB)
	}
	s.Type = t.Name
	if req.UpgradeDisk {
		s.DiskGB = t.Disk
	}
	return c.created(c.serverAction(s, "change_server_type", "migrating", actionArgs{}))
}

// changeServerType moves a stopped server to its new type, and starts it.
func (e *Emulator) changeServerType(ctx context.Context, a action) (func(*state), error) {
	settled, err := e.converge(ctx, a.Args.Server)
	if err != nil {
		return e.atRest(a.Args.Server), err
	}
	started, err := e.startServer(ctx, a)
	return func(s *state) { settled(s); started(s) }, err
}

func (e *Emulator) deleteServer(ctx context.Context, a action) (func(*state), error) {
	id := a.Args.Server
	e.mu.Lock()
	var floating []resource
	for _, f := range byID(e.state.FloatingIPs) {
		if f.Server == id {
			floating = append(floating, f.ref())
		}
	}
	var volumes []int64
	for _, v := range byID(e.state.Volumes) {
		if v.Server == id {
			volumes = append(volumes, v.ID)
		}
	}
	e.mu.Unlock()
	failed := func(err error) (func(*state), error) { return e.atRest(id), err }
	for _, f := range floating {
		if err := e.unroute(ctx, f, id); err != nil {
			return failed(err)
		}
	}
	for _, v := range volumes {
		if err := e.world.AttachVolume(ctx, v, 0); err != nil {
			return failed(fmt.Errorf("detaching volume %d: %w", v, err))
		}
	}
	if err := e.world.Delete(ctx, id); err != nil {
		return failed(fmt.Errorf("deleting server %d: %w", id, err))
	}
	return func(s *state) { s.forgetServer(id) }, nil
}

func changeServerProtection(c *call) (reply, error) {
	s, err := c.pathServer()
	if err != nil {
		return reply{}, err
	}
	var req schema.ServerActionChangeProtectionRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	// Hetzner: "currently delete and rebuild attribute needs to have the same value".
	if req.Delete == nil || req.Rebuild == nil || *req.Delete != *req.Rebuild {
		return reply{}, invalid("delete", "must be given and the same as rebuild")
	}
	s.Protected = *req.Delete
	return c.created(c.done("change_protection", s.ref()))
}

// backupWindow is when the cloud would make backups: in UTC, 22 to 2 o'clock.
const backupWindow = "22-02"

func enableBackup(c *call) (reply, error)  { return c.setBackup("enable_backup", backupWindow) }
func disableBackup(c *call) (reply, error) { return c.setBackup("disable_backup", "") }

// setBackup notes the option. The lab makes no backups of its machines.
func (c *call) setBackup(command, window string) (reply, error) {
	s, err := c.idleServer()
	if err != nil {
		return reply{}, err
	}
	s.BackupWindow = nil
	if window != "" {
		s.BackupWindow = &window
	}
	return c.created(c.done(command, s.ref()))
}
