package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

// crash ends the emulator as kill -9 would: nothing more is written or begun.
func (l *lab) crash() {
	l.t.Helper()
	l.emulator.jobs.stop()
	l.emulator.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := l.emulator.jobs.idle(ctx); err != nil {
		l.t.Fatal(err)
	}
	l.server.Close()
}

// hang lets the world's calls that begin with a prefix hang until the emulator
// gives up on them, and tells when there is one.
func (l *lab) hang(prefix string) <-chan struct{} {
	reached := make(chan struct{}, 100)
	l.world.setBefore(func(ctx context.Context, call string) error {
		if strings.HasPrefix(call, prefix) {
			reached <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	return reached
}

func (l *lab) await(c <-chan struct{}) {
	l.t.Helper()
	select {
	case <-c:
	case <-time.After(5 * time.Second):
		l.t.Fatal("the call was not made")
	}
}

func TestActionsGoOnAfterTheEmulatorWasKilled(t *testing.T) {
	for _, c := range []struct {
		name  string
		hang  string
		begin func(t *testing.T, l *lab, s *hcloud.Server, n *hcloud.Network) *hcloud.Action
		check func(t *testing.T, l *lab, s *hcloud.Server, n *hcloud.Network)
	}{
		{"create, at the disk", "create new", beginCreate, checkCreated},
		{"create, at the network", "attach ", beginCreate, checkCreated},
		{"create, at the firewall", "firewall ", beginCreate, checkCreated},
		{"create, at the start", "start ", beginCreate, checkCreated},
		{"power off", "stop ", func(t *testing.T, l *lab, s *hcloud.Server, _ *hcloud.Network) *hcloud.Action {
			return must(l.client.Server.Poweroff(t.Context(), s))(t)
		}, func(t *testing.T, l *lab, s *hcloud.Server, _ *hcloud.Network) {
			if got := l.get(s.ID).Status; got != hcloud.ServerStatusOff || l.world.Running(s.ID) {
				t.Errorf("server is %s", got)
			}
		}},
		{"reboot", "stop ", func(t *testing.T, l *lab, s *hcloud.Server, _ *hcloud.Network) *hcloud.Action {
			return must(l.client.Server.Reboot(t.Context(), s))(t)
		}, checkRunning},
		{"rebuild", "rebuild ", func(t *testing.T, l *lab, s *hcloud.Server, _ *hcloud.Network) *hcloud.Action {
			return must(l.client.Server.RebuildWithResult(t.Context(), s, hcloud.ServerRebuildOpts{Image: &hcloud.Image{Name: "debian-12"}}))(t).Action
		}, checkRunning},
		{"delete", "delete ", func(t *testing.T, l *lab, s *hcloud.Server, _ *hcloud.Network) *hcloud.Action {
			return must(l.client.Server.DeleteWithResult(t.Context(), s))(t).Action
		}, func(t *testing.T, l *lab, s *hcloud.Server, _ *hcloud.Network) {
			if got := must(l.client.Server.GetByID(t.Context(), s.ID))(t); got != nil {
				t.Errorf("server is %s", got.Status)
			}
			if look(l.world, func(w *recorder) int { return len(w.servers) }) != 0 {
				t.Error("the world still has it")
			}
		}},
		{"attach", "attach ", func(t *testing.T, l *lab, s *hcloud.Server, n *hcloud.Network) *hcloud.Action {
			return must(l.client.Server.AttachToNetwork(t.Context(), s, hcloud.ServerAttachToNetworkOpts{Network: n}))(t)
		}, func(t *testing.T, l *lab, s *hcloud.Server, n *hcloud.Network) {
			if got := l.get(s.ID).PrivateNet; len(got) != 1 || look(l.world, func(w *recorder) string { return w.nets[s.ID][n.ID].IP.String() }) != "10.0.1.1" {
				t.Errorf("server is in %v", got)
			}
		}},
		{"firewall", "firewall ", func(t *testing.T, l *lab, s *hcloud.Server, _ *hcloud.Network) *hcloud.Action {
			return must(l.client.Firewall.Create(t.Context(), hcloud.FirewallCreateOpts{Name: "f", ApplyTo: []hcloud.FirewallResource{onServer(s)}}))(t).Actions[0]
		}, func(t *testing.T, l *lab, s *hcloud.Server, _ *hcloud.Network) {
			if got := l.worldRules(s.ID); got != "in [] out []" {
				t.Errorf("rules are %s", got)
			}
		}},
		{"floating IP", "route ", func(t *testing.T, l *lab, s *hcloud.Server, _ *hcloud.Network) *hcloud.Action {
			return must(l.client.FloatingIP.Create(t.Context(), hcloud.FloatingIPCreateOpts{Type: hcloud.FloatingIPTypeIPv4, Server: s}))(t).Action
		}, func(t *testing.T, l *lab, s *hcloud.Server, _ *hcloud.Network) {
			f := must2(l.client.FloatingIP.All(t.Context()))(t)[0]
			if f.Server == nil || f.Server.ID != s.ID || l.routedTo(f) != s.ID {
				t.Errorf("assigned to %v, routed to %d", f.Server, l.routedTo(f))
			}
		}},
		{"volume", "create volume", func(t *testing.T, l *lab, s *hcloud.Server, _ *hcloud.Network) *hcloud.Action {
			return must(l.client.Volume.Create(t.Context(), hcloud.VolumeCreateOpts{Name: "v", Size: 10, Server: s}))(t).Action
		}, func(t *testing.T, l *lab, s *hcloud.Server, _ *hcloud.Network) {
			if v := must2(l.client.Volume.All(t.Context()))(t)[0]; v.Status != hcloud.VolumeStatusAvailable || look(l.world, func(w *recorder) int64 { return w.volumes[v.ID] }) != s.ID {
				t.Errorf("volume is %+v", v)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, onDisk(t))
			n := l.newNetwork("private", "10.0.0.0/16", "10.0.1.0/24")
			var s *hcloud.Server
			if !strings.HasPrefix(c.name, "create") {
				s = l.newServer("old")
			}
			reached := l.hang(c.hang)
			a := c.begin(t, l, s, n)
			l.await(reached)
			l.crash()
			l.world.setBefore(nil)
			l.start()
			l.settle()
			got := must(l.client.Action.GetByID(t.Context(), a.ID))(t)
			if got == nil || got.Status != hcloud.ActionStatusSuccess {
				t.Errorf("action is %+v", got)
			}
			c.check(t, l, s, n)
			if _, _, body := l.raw("GET", "/v1/servers", testToken, ""); strings.Contains(fmt.Sprint(body["servers"]), "locked:true") {
				t.Errorf("a server is still locked: %v", body)
			}
		})
	}
}

func beginCreate(t *testing.T, l *lab, _ *hcloud.Server, n *hcloud.Network) *hcloud.Action {
	return must(l.client.Server.Create(t.Context(), hcloud.ServerCreateOpts{
		Name: "new", ServerType: &hcloud.ServerType{Name: "cx23"}, Image: &hcloud.Image{Name: "debian-13"}, Networks: []*hcloud.Network{n},
	}))(t).Action
}

func checkCreated(t *testing.T, l *lab, _ *hcloud.Server, _ *hcloud.Network) {
	s := must(l.client.Server.GetByName(t.Context(), "new"))(t)
	if s == nil || s.Status != hcloud.ServerStatusRunning || len(s.PrivateNet) != 1 || !l.world.Running(s.ID) {
		t.Errorf("server is %+v", s)
	}
	if n := look(l.world, func(w *recorder) int { return len(w.servers) }); n != 1 {
		t.Errorf("the world has %d servers", n)
	}
}

func checkRunning(t *testing.T, l *lab, s *hcloud.Server, _ *hcloud.Network) {
	if got := l.get(s.ID).Status; got != hcloud.ServerStatusRunning || !l.world.Running(s.ID) {
		t.Errorf("server is %s", got)
	}
}

func TestTheWorldIsBroughtBackAfterTheComputerWasRestarted(t *testing.T) {
	l := newLab(t, onDisk(t))
	ctx := t.Context()
	if _, err := l.control.AddFault(ctx, Fault{Kind: FaultNeverBoots, Name: "dead-*"}); err != nil {
		t.Fatal(err)
	}
	n := l.newNetwork("private", "10.0.0.0/16", "10.0.1.0/24")
	fw := must(l.client.Firewall.Create(ctx, hcloud.FirewallCreateOpts{Name: "f"}))(t).Firewall
	on := l.newServer("on-1", func(o *hcloud.ServerCreateOpts) {
		o.Networks, o.Firewalls, o.UserData = []*hcloud.Network{n}, []*hcloud.ServerCreateFirewall{{Firewall: *fw}}, "#cloud-config\n"
	})
	off, dead := l.newServer("off-1"), l.newServer("dead-1")
	l.wait(must(l.client.Server.Poweroff(ctx, off))(t))
	f := must(l.client.FloatingIP.Create(ctx, hcloud.FloatingIPCreateOpts{Type: hcloud.FloatingIPTypeIPv6, Server: on}))(t)
	v := must(l.client.Volume.Create(ctx, hcloud.VolumeCreateOpts{Name: "v", Size: 10, Server: on}))(t)
	l.wait(f.Action, v.Action)
	before := look(l.world, func(w *recorder) Server { return w.servers[on.ID] })
	if err := l.emulator.Close(); err != nil {
		t.Fatal(err)
	}
	l.server.Close()

	l.world = newRecorder(t)
	l.config.Machines = l.world
	l.start()
	l.settle()
	after := look(l.world, func(w *recorder) Server { return w.servers[on.ID] })
	if fmt.Sprint(before) != fmt.Sprint(after) || before.UserData == "" {
		t.Errorf("server was %+v and is %+v", before, after)
	}
	for s, want := range map[*hcloud.Server]bool{on: true, off: false, dead: false} {
		if got := l.world.Running(s.ID); got != want {
			t.Errorf("%s runs: %t, want %t", s.Name, got, want)
		}
	}
	if got := l.get(dead.ID).Status; got != hcloud.ServerStatusRunning {
		t.Errorf("the server that never booted is %s", got)
	}
	if l.worldRules(on.ID) != "in [] out []" || l.routedTo(f.FloatingIP) != on.ID ||
		look(l.world, func(w *recorder) int64 { return w.volumes[v.Volume.ID] }) != on.ID ||
		look(l.world, func(w *recorder) string { return w.nets[on.ID][n.ID].IP.String() }) != "10.0.1.1" {
		t.Error("firewall, floating IP, volume or network was not brought back")
	}
}

func TestARestartDoesNotTouchTheRunningWorld(t *testing.T) {
	l := newLab(t, onDisk(t))
	s := l.newServer("web-1")
	l.crash()
	from := l.world.count()
	l.start()
	l.settle()
	for _, call := range l.world.since(from) {
		if strings.HasPrefix(call, "start") || strings.HasPrefix(call, "stop") || strings.HasPrefix(call, "rebuild") {
			t.Errorf("the world was told to %s", call)
		}
	}
	if got := l.get(s.ID).Status; got != hcloud.ServerStatusRunning {
		t.Errorf("server is %s", got)
	}
}

func TestCloseLeavesUnfinishedActionsToTheNextStart(t *testing.T) {
	l := newLab(t, onDisk(t), func(c *Config) { c.CloseGrace = 20 * time.Millisecond })
	s := l.newServer("web-1")
	reached := l.hang("stop ")
	a := must(l.client.Server.Poweroff(t.Context(), s))(t)
	l.await(reached)
	began := time.Now()
	l.stop()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("Close took %s", took)
	}
	l.world.setBefore(nil)
	l.start()
	l.settle()
	if got := must(l.client.Action.GetByID(t.Context(), a.ID))(t); got.Status != hcloud.ActionStatusSuccess {
		t.Errorf("action is %+v", got)
	}
}

func TestCloseWaitsForWhatEndsInTime(t *testing.T) {
	l := newLab(t, onDisk(t))
	s := l.newServer("web-1")
	l.world.setBefore(func(_ context.Context, call string) error {
		if strings.HasPrefix(call, "stop ") {
			time.Sleep(50 * time.Millisecond)
		}
		return nil
	})
	must(l.client.Server.Poweroff(t.Context(), s))(t)
	time.Sleep(10 * time.Millisecond)
	l.stop()
	if times := l.world.times(fmt.Sprintf("stop %d orderly=false", s.ID)); times != 1 || l.world.Running(s.ID) {
		t.Errorf("told %d times", times)
	}
	l.start()
	l.settle()
	if got := l.get(s.ID).Status; got != hcloud.ServerStatusOff {
		t.Errorf("server is %s", got)
	}
}

func TestAShutdownGoesOnAfterARestart(t *testing.T) {
	l := newLab(t, onDisk(t))
	s := l.newServer("web-1")
	reached := l.hang("stop ")
	must(l.client.Server.Shutdown(t.Context(), s))(t)
	l.await(reached)
	l.crash()
	l.world.setBefore(nil)
	l.start()
	l.settle()
	if got := l.get(s.ID).Status; got != hcloud.ServerStatusOff || l.world.Running(s.ID) {
		t.Errorf("server is %s", got)
	}
}

func TestADeletedNetworkIsRemovedAfterARestart(t *testing.T) {
	l := newLab(t, onDisk(t))
	n := l.newNetwork("private", "10.0.0.0/16", "10.0.1.0/24")
	s := l.newServer("web-1", func(o *hcloud.ServerCreateOpts) { o.Networks = []*hcloud.Network{n} })
	reached := l.hang("detach ")
	if _, err := l.client.Network.Delete(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	l.await(reached)
	if got := must(l.client.Network.GetByID(t.Context(), n.ID))(t); got != nil {
		t.Error("the network is still shown")
	}
	l.crash()
	l.world.setBefore(nil)
	l.start()
	l.settle()
	if got := l.get(s.ID).PrivateNet; len(got) != 0 || !l.world.told(fmt.Sprintf("delete network %d", n.ID)) {
		t.Errorf("server is in %v", got)
	}
}

func TestADeletedVolumesDeviceIsRemovedAfterARestart(t *testing.T) {
	l := newLab(t, onDisk(t))
	r := must(l.client.Volume.Create(t.Context(), hcloud.VolumeCreateOpts{Name: "v", Size: 10, Location: &hcloud.Location{Name: "fsn1"}}))(t)
	l.wait(r.Action)
	reached := l.hang("delete volume")
	if _, err := l.client.Volume.Delete(t.Context(), r.Volume); err != nil {
		t.Fatal(err)
	}
	l.await(reached)
	l.crash()
	l.world.setBefore(nil)
	for range 2 { // the second start has nothing left to do
		l.start()
		l.settle()
		l.crash()
	}
	if n := l.world.times(fmt.Sprintf("delete volume %d", r.Volume.ID)); n != 2 {
		t.Errorf("the world was told %d times", n)
	}
	l.start()
}

func TestAServerIsKnownToTheWorldBeforeItsActionGoesOn(t *testing.T) {
	l := newLab(t, onDisk(t))
	s := l.newServer("web-1")
	l.wait(must(l.client.Server.Poweroff(t.Context(), s))(t))
	reached := l.hang("start ")
	a := must(l.client.Server.Poweron(t.Context(), s))(t)
	l.await(reached)
	l.crash()
	l.world = newRecorder(t) // the whole computer was restarted
	l.config.Machines = l.world
	l.start()
	l.settle()
	if got := must(l.client.Action.GetByID(t.Context(), a.ID))(t); got.Status != hcloud.ActionStatusSuccess || !l.world.Running(s.ID) {
		t.Errorf("action is %+v", got)
	}
}

func TestNothingIsDoneThatTheStateFileDoesNotKnow(t *testing.T) {
	l := newLab(t, onDisk(t))
	l.world.setBefore(func(_ context.Context, call string) error {
		if !strings.HasPrefix(call, "create ") {
			return nil
		}
		st, err := loadState(l.config.StateFile)
		if err != nil {
			return err
		}
		for _, s := range st.Servers {
			if call == "create "+s.Name {
				return nil
			}
		}
		return errors.New("the state file does not have the server yet")
	})
	for i := range 5 {
		l.newServer(fmt.Sprintf("web-%d", i))
	}
}
