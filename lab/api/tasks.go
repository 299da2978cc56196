package api

import (
	"context"
	"net/netip"
	"slices"
)

// tasks are what actions are carried out by, under the names in the state file.
var tasks map[string]task

func init() { // not a literal: tasks refer to it through the methods they name
	tasks = map[string]task{
		"create_server":       (*Emulator).createServer,
		"start_server":        (*Emulator).startServer,
		"stop_server":         (*Emulator).stopServer,
		"reset_server":        (*Emulator).resetServer,
		"reboot_server":       (*Emulator).rebootServer,
		"rebuild_server":      (*Emulator).rebuildServer,
		"change_server_type":  (*Emulator).changeServerType,
		"delete_server":       (*Emulator).deleteServer,
		"attach_to_network":   (*Emulator).attachToNetwork,
		"detach_from_network": (*Emulator).detachFromNetwork,
		"change_alias_ips":    (*Emulator).changeAliasIPs,
		"set_firewall":        (*Emulator).firewallTask,
		"assign_floating_ip":  (*Emulator).assignFloatingIP,
		"renew_addresses":     (*Emulator).renewAddresses,
		"create_volume":       (*Emulator).createVolume,
		"attach_volume":       (*Emulator).attachVolume,
		"resize_volume":       (*Emulator).resizeVolume,
	}
}

// failedTask is what the state says when an action was ordered to fail: what
// it would have been about is at rest, and not attached.
func (e *Emulator) failedTask(a action) func(*state) {
	running := a.Args.Server != 0 && e.world.Running(a.Args.Server)
	return func(s *state) {
		if srv, ok := s.Servers[a.Args.Server]; ok && slices.Contains(a.Locks, srv.ref()) {
			srv.Doing, srv.On, srv.Dead = "", running, false
			srv.Networks = slices.DeleteFunc(srv.Networks, func(n attachment) bool {
				return n.Pending && n.Network == a.Args.Network
			})
			for i := range srv.Networks {
				srv.Networks[i].Leaving = false
			}
		}
		if v, ok := s.Volumes[a.Args.Volume]; ok {
			v.Creating, v.Leaving = false, false
			if a.Command == "attach_volume" {
				v.Server = 0
			}
		}
	}
}

// reconcile begins to bring the world to what the state says, and to go on
// with the actions that were running when the emulator ended. Each server's
// own jobs come in order: first what it is, then its power, then its actions.
func (e *Emulator) reconcile() {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state
	for _, v := range byID(s.Volumes) {
		if v.Creating {
			continue // its action does that
		}
		id, size, format := v.ID, v.Size, v.Format
		key := v.ref().key()
		if v.Server != 0 {
			key = serverRef(v.Server).key()
		}
		e.background(key, "volume not brought back", func(ctx context.Context) error {
			return e.world.CreateVolume(ctx, id, size, format)
		})
	}
	for _, srv := range byID(s.Servers) {
		e.restore(srv)
	}
	for _, f := range byID(s.FloatingIPs) {
		if s.busy(f.ref()) {
			continue
		}
		prefix, to := f.Prefix, f.Server
		e.background(f.ref().key(), "floating IP not brought back", func(ctx context.Context) error {
			return e.world.RouteFloatingIP(ctx, prefix, to)
		})
	}
	for _, n := range byID(s.Networks) {
		if n.Deleting {
			e.removeNetwork(n.ID, s.serversOn(n.ID))
		}
	}
	for _, l := range s.Leftovers {
		e.cleanUp(l)
	}
	var running []int64
	for id, a := range s.Actions {
		if a.Status == "running" && a.Queue != "" {
			running = append(running, id)
		}
	}
	slices.Sort(running)
	for _, id := range running {
		e.enqueue(id, s.Actions[id].Queue)
	}
	if len(s.Servers) > 0 || len(running) > 0 {
		e.log.Info("emulator resumes", "servers", len(s.Servers), "running_actions", len(running))
	}
}

// restore brings one server back. A power that is being changed is left to the
// action that does so, and all of a server that is being made or deleted. The
// caller holds mu.
func (e *Emulator) restore(srv *server) {
	if srv.Doing == "initializing" || srv.Doing == "deleting" {
		return
	}
	id := srv.ID
	busy := e.state.busy(srv.ref())
	shuttingDown := srv.Doing == "stopping" && !busy
	on, dead := srv.On, srv.Dead
	e.background(srv.ref().key(), "server not brought back", func(ctx context.Context) error {
		apply, err := e.converge(ctx, id)
		if err != nil {
			return err
		}
		if err := e.update(apply); err != nil || busy {
			return err
		}
		if on && !dead && !e.world.Running(id) {
			return e.world.Start(ctx, id)
		}
		if !on && !shuttingDown && e.world.Running(id) {
			return e.world.Stop(ctx, id, false)
		}
		return nil
	})
	if shuttingDown {
		e.jobs.add(srv.ref().key(), func() { e.shutDown(id) })
	}
}

// leftover is something of a deleted resource that the world still has.
type leftover struct {
	Of resource `json:"of"`
	// Prefix is the address to be routed nowhere, where it is a floating IP;
	// else it is a volume.
	Prefix netip.Prefix `json:"prefix,omitzero"`
}

// leave notes a leftover and begins to clean it up. It stays in the state
// until that is done, also over a restart.
func (c *call) leave(l leftover) {
	c.s.Leftovers = append(c.s.Leftovers, l)
	c.after = append(c.after, func() { c.e.cleanUp(l) })
}

func (e *Emulator) cleanUp(l leftover) {
	e.background(l.Of.key(), "the rest of a deleted resource is still there", func(ctx context.Context) error {
		var err error
		if l.Prefix.IsValid() {
			err = e.world.RouteFloatingIP(ctx, l.Prefix, 0)
		} else {
			err = e.world.DeleteVolume(ctx, l.Of.ID)
		}
		if err != nil {
			return err
		}
		return e.update(func(s *state) {
			s.Leftovers = slices.DeleteFunc(s.Leftovers, func(o leftover) bool { return o == l })
		})
	})
}

// background runs a job that has no action; what goes wrong is logged.
func (e *Emulator) background(key, trouble string, run func(ctx context.Context) error) {
	e.jobs.add(key, func() {
		ctx, cancel := context.WithTimeout(e.ctx, e.cfg.ActionTimeout)
		defer cancel()
		if err := run(ctx); err != nil && e.ctx.Err() == nil {
			e.log.Error(trouble, "what", key, "error", err)
		}
	})
}
