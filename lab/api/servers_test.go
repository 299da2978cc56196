package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

func TestAServerIsMadeAsAskedAndRuns(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	key := must(l.client.SSHKey.Create(ctx, hcloud.SSHKeyCreateOpts{Name: "ops", PublicKey: newPublicKey(t)}))(t)
	r := must(l.client.Server.Create(ctx, hcloud.ServerCreateOpts{
		Name: "lab-web-1", ServerType: &hcloud.ServerType{Name: "cx33"}, Image: &hcloud.Image{Name: "debian-13"},
		Location: &hcloud.Location{Name: "nbg1"}, SSHKeys: []*hcloud.SSHKey{key},
		UserData: "#cloud-config\n", Labels: map[string]string{"infractl-tier": "web"},
	}))(t)
	if r.Action.Command != "create_server" || r.RootPassword != "" || r.Server.Status != hcloud.ServerStatusInitializing {
		t.Errorf("answer is %+v with action %+v", r.Server.Status, r.Action)
	}
	if len(r.NextActions) != 1 || r.NextActions[0].Command != "start_server" {
		t.Errorf("next actions are %v", r.NextActions)
	}
	l.wait(append(r.NextActions, r.Action)...)
	s := l.get(r.Server.ID)
	if s.Status != hcloud.ServerStatusRunning || s.Locked || s.Location.Name != "nbg1" || s.ServerType.Name != "cx33" {
		t.Errorf("server is %+v", s)
	}
	got := look(l.world, func(r *recorder) Server { return r.servers[s.ID] })
	if got.Name != "lab-web-1" || got.Image != "debian-13" || got.Cores != 4 || got.MemoryMB != 8192 ||
		got.UserData != "#cloud-config\n" || len(got.SSHKeys) != 1 || got.RootPassword != "" {
		t.Errorf("the world was told %+v", got)
	}
	if got.IPv4.String() != s.PublicNet.IPv4.IP.String() || got.IPv6.String() != s.PublicNet.IPv6.Network.String() || got.IPv6.Bits() != 64 {
		t.Errorf("addresses: world %s %s, API %s %s", got.IPv4, got.IPv6, s.PublicNet.IPv4.IP, s.PublicNet.IPv6.Network)
	}
	if !l.config.IPv4Pool.IsValid() && !strings.HasPrefix(got.IPv4.String(), "198.18.") {
		t.Errorf("address %s is not of the pool", got.IPv4)
	}
}

func TestAServerWithoutKeysGetsARootPassword(t *testing.T) {
	l := newLab(t)
	r := must(l.client.Server.Create(t.Context(), hcloud.ServerCreateOpts{
		Name: "web-1", ServerType: &hcloud.ServerType{Name: "cx23"}, Image: &hcloud.Image{Name: "debian-13"},
		StartAfterCreate: hcloud.Ptr(false),
	}))(t)
	l.wait(r.Action)
	if r.RootPassword == "" || look(l.world, func(w *recorder) string { return w.servers[r.Server.ID].RootPassword }) != r.RootPassword {
		t.Errorf("root password is %q", r.RootPassword)
	}
	if s := l.get(r.Server.ID); s.Status != hcloud.ServerStatusOff {
		t.Errorf("status is %s", s.Status)
	}
	if len(r.NextActions) != 0 || l.world.told(fmt.Sprintf("start %d", r.Server.ID)) {
		t.Error("it was started though it should not be")
	}
}

func TestCreateRunsUntilTheMachineHasStarted(t *testing.T) {
	l := newLab(t)
	started := make(chan struct{})
	l.world.setBefore(func(ctx context.Context, call string) error {
		if strings.HasPrefix(call, "start ") {
			select {
			case <-started:
			case <-ctx.Done():
			}
		}
		return nil
	})
	r := must(l.client.Server.Create(t.Context(), hcloud.ServerCreateOpts{
		Name: "web-1", ServerType: &hcloud.ServerType{Name: "cx23"}, Image: &hcloud.Image{Name: "debian-13"},
	}))(t)
	time.Sleep(20 * time.Millisecond)
	a := must(l.client.Action.GetByID(t.Context(), r.Action.ID))(t)
	s := l.get(r.Server.ID)
	if a.Status != hcloud.ActionStatusRunning || s.Status != hcloud.ServerStatusInitializing || !s.Locked {
		t.Errorf("before the start: action %s, server %s, locked %t", a.Status, s.Status, s.Locked)
	}
	_, _, err := l.client.Server.Poweroff(t.Context(), s)
	wantCode(t, err, "locked")
	_, _, err = l.client.Server.DeleteWithResult(t.Context(), s)
	wantCode(t, err, "locked")
	close(started)
	l.wait(append(r.NextActions, r.Action)...)
	if s := l.get(r.Server.ID); s.Status != hcloud.ServerStatusRunning || s.Locked {
		t.Errorf("after the start: server %s, locked %t", s.Status, s.Locked)
	}
}

func TestAServerThatCannotBeStartedEndsItsActionsWithAnError(t *testing.T) {
	l := newLab(t)
	l.world.setBefore(func(_ context.Context, call string) error {
		if strings.HasPrefix(call, "start ") {
			return errors.New("no space left on device")
		}
		return nil
	})
	r := must(l.client.Server.Create(t.Context(), hcloud.ServerCreateOpts{
		Name: "web-1", ServerType: &hcloud.ServerType{Name: "cx23"}, Image: &hcloud.Image{Name: "debian-13"},
	}))(t)
	for _, a := range append(r.NextActions, r.Action) {
		err := l.client.Action.WaitFor(t.Context(), a)
		if err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("%s ended with %v", a.Command, err)
		}
	}
	if s := l.get(r.Server.ID); s.Status != hcloud.ServerStatusOff {
		t.Errorf("status is %s", s.Status)
	}
	l.world.setBefore(nil)
	l.wait(must(l.client.Server.Poweron(t.Context(), r.Server))(t))
	if s := l.get(r.Server.ID); s.Status != hcloud.ServerStatusRunning {
		t.Errorf("status after a second try is %s", s.Status)
	}
}

func TestPowerFollowsTheActions(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	s := l.newServer("web-1")
	status := func(want hcloud.ServerStatus) {
		t.Helper()
		if got := l.get(s.ID).Status; got != want {
			t.Errorf("status is %s, want %s", got, want)
		}
	}
	from := l.world.count()
	l.wait(must(l.client.Server.Poweroff(ctx, s))(t))
	status(hcloud.ServerStatusOff)
	l.wait(must(l.client.Server.Poweron(ctx, s))(t))
	status(hcloud.ServerStatusRunning)
	l.wait(must(l.client.Server.Poweron(ctx, s))(t)) // is on already
	l.wait(must(l.client.Server.Reset(ctx, s))(t))
	status(hcloud.ServerStatusRunning)
	l.wait(must(l.client.Server.Reboot(ctx, s))(t))
	status(hcloud.ServerStatusRunning)
	l.wait(must(l.client.Server.Shutdown(ctx, s))(t))
	l.settle()
	status(hcloud.ServerStatusOff)
	start, cut, orderly := fmt.Sprintf("start %d", s.ID), fmt.Sprintf("stop %d orderly=false", s.ID), fmt.Sprintf("stop %d orderly=true", s.ID)
	want := []string{cut, start, cut, start, orderly, cut, start, orderly}
	if got := l.world.since(from); !slices.Equal(got, want) {
		t.Errorf("the world was told %q, want %q", got, want)
	}
}

func TestAMachineThatPowersItselfOffIsReportedOff(t *testing.T) {
	l := newLab(t)
	s := l.newServer("web-1")
	look(l.world, func(r *recorder) bool { r.running[s.ID] = false; return true })
	if got := l.get(s.ID).Status; got != hcloud.ServerStatusOff {
		t.Errorf("status is %s", got)
	}
}

func TestPoweroffEndsAShutdownThatIsNotObeyed(t *testing.T) {
	l := newLab(t)
	s := l.newServer("web-1")
	l.world.setBefore(func(ctx context.Context, call string) error {
		if strings.HasSuffix(call, "orderly=true") {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	a := must(l.client.Server.Shutdown(t.Context(), s))(t)
	if a.Status != hcloud.ActionStatusSuccess {
		t.Errorf("shutdown's action is %s: it says only that the server was asked", a.Status)
	}
	if got := l.get(s.ID).Status; got != hcloud.ServerStatusStopping {
		t.Errorf("status is %s", got)
	}
	l.wait(must(l.client.Server.Poweroff(t.Context(), s))(t))
	if got := l.get(s.ID).Status; got != hcloud.ServerStatusOff {
		t.Errorf("status is %s", got)
	}
}

func TestRebuildMakesAFreshDiskAndStartsTheServer(t *testing.T) {
	l := newLab(t)
	s := l.newServer("web-1")
	r := must(l.client.Server.RebuildWithResult(t.Context(), s, hcloud.ServerRebuildOpts{
		Image: &hcloud.Image{Name: "debian-12"}, UserData: hcloud.Ptr("#cloud-config\nruncmd: []\n"),
	}))(t)
	if r.RootPassword == "" {
		t.Error("no new root password for a server without keys")
	}
	l.wait(r.Action)
	got := l.get(s.ID)
	if got.Status != hcloud.ServerStatusRunning || got.Image.Name != "debian-12" {
		t.Errorf("server is %s with %s", got.Status, got.Image.Name)
	}
	if !l.world.told("rebuild web-1 debian-12") {
		t.Error("the world was not told")
	}
	if ud := look(l.world, func(w *recorder) string { return w.servers[s.ID].UserData }); ud != "#cloud-config\nruncmd: []\n" {
		t.Errorf("user data is %q", ud)
	}
}

func TestChangeTypeNeedsAStoppedServerAndStartsItAgain(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	s := l.newServer("db-1")
	up := hcloud.ServerChangeTypeOpts{ServerType: &hcloud.ServerType{Name: "cx43"}, UpgradeDisk: false}
	_, _, err := l.client.Server.ChangeType(ctx, s, up)
	wantCode(t, err, "server_not_stopped")
	l.wait(must(l.client.Server.Poweroff(ctx, s))(t))
	_, _, err = l.client.Server.ChangeType(ctx, s, hcloud.ServerChangeTypeOpts{ServerType: &hcloud.ServerType{Name: "cpx21"}})
	wantCode(t, err, "invalid_server_type") // not sold in fsn1
	l.wait(must(l.client.Server.ChangeType(ctx, s, up))(t))
	got := l.get(s.ID)
	if got.ServerType.Name != "cx43" || got.PrimaryDiskSize != 40 || got.Status != hcloud.ServerStatusRunning {
		t.Errorf("server is %s, %d GB, %s", got.ServerType.Name, got.PrimaryDiskSize, got.Status)
	}
	if spec := look(l.world, func(w *recorder) Server { return w.servers[s.ID] }); spec.Cores != 8 || spec.MemoryMB != 16384 {
		t.Errorf("the world was told %d cores, %d MB", spec.Cores, spec.MemoryMB)
	}
}

func TestProtectionRefusesDeletionAndRebuild(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	s := l.newServer("db-1")
	_, _, err := l.client.Server.ChangeProtection(ctx, s, hcloud.ServerChangeProtectionOpts{Delete: hcloud.Ptr(true), Rebuild: hcloud.Ptr(false)})
	wantCode(t, err, "invalid_input")
	l.wait(must(l.client.Server.ChangeProtection(ctx, s, hcloud.ServerChangeProtectionOpts{Delete: hcloud.Ptr(true), Rebuild: hcloud.Ptr(true)}))(t))
	_, _, err = l.client.Server.DeleteWithResult(ctx, s)
	wantCode(t, err, "protected")
	_, _, err = l.client.Server.RebuildWithResult(ctx, s, hcloud.ServerRebuildOpts{Image: &hcloud.Image{Name: "debian-13"}})
	wantCode(t, err, "protected")
	l.wait(must(l.client.Server.ChangeProtection(ctx, s, hcloud.ServerChangeProtectionOpts{Delete: hcloud.Ptr(false), Rebuild: hcloud.Ptr(false)}))(t))
	l.wait(must(l.client.Server.DeleteWithResult(ctx, s))(t).Action)
}

func TestADeletedServerLeavesNothingBehind(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	kept := must(l.client.PrimaryIP.Create(ctx, hcloud.PrimaryIPCreateOpts{Name: "kept", Type: hcloud.PrimaryIPTypeIPv4, Location: "fsn1", AssigneeType: "server"}))(t).PrimaryIP
	network := l.newNetwork("net", "10.0.0.0/16", "10.0.1.0/24")
	group := must(l.client.PlacementGroup.Create(ctx, hcloud.PlacementGroupCreateOpts{Name: "lb", Type: hcloud.PlacementGroupTypeSpread}))(t).PlacementGroup
	fw := must(l.client.Firewall.Create(ctx, hcloud.FirewallCreateOpts{Name: "lb"}))(t).Firewall
	s := l.newServer("lb-1", func(o *hcloud.ServerCreateOpts) {
		o.PublicNet = &hcloud.ServerCreatePublicNet{EnableIPv4: true, EnableIPv6: true, IPv4: kept}
		o.Networks = []*hcloud.Network{network}
		o.PlacementGroup = group
		o.Firewalls = []*hcloud.ServerCreateFirewall{{Firewall: *fw}}
	})
	fip := must(l.client.FloatingIP.Create(ctx, hcloud.FloatingIPCreateOpts{Type: hcloud.FloatingIPTypeIPv4, Server: s}))(t)
	l.wait(fip.Action)
	vol := must(l.client.Volume.Create(ctx, hcloud.VolumeCreateOpts{Name: "data", Size: 10, Server: s}))(t)
	l.wait(append(vol.NextActions, vol.Action)...)

	r := must(l.client.Server.DeleteWithResult(ctx, s))(t)
	l.wait(r.Action)
	if got := must(l.client.Server.GetByID(ctx, s.ID))(t); got != nil {
		t.Errorf("server is %s", got.Status)
	}
	if list := must(l.client.Server.List(ctx, hcloud.ServerListOpts{Name: fmt.Sprint(s.ID)}))(t); len(list) != 0 {
		t.Errorf("a server is named like the old one's ID: %v", list)
	}
	_, _, err := l.client.Server.DeleteWithResult(ctx, s)
	wantCode(t, err, "not_found")
	if got := must(l.client.PrimaryIP.GetByID(ctx, kept.ID))(t); got == nil || got.AssigneeID != 0 {
		t.Errorf("the primary IP that was made by hand is %+v", got)
	}
	if got := must(l.client.PrimaryIP.GetByID(ctx, s.PublicNet.IPv6.ID))(t); got != nil {
		t.Errorf("the primary IP that came with the server is still there: %+v", got)
	}
	if got := must(l.client.FloatingIP.GetByID(ctx, fip.FloatingIP.ID))(t); got.Server != nil {
		t.Errorf("floating IP is assigned to %v", got.Server)
	}
	if got := must(l.client.Volume.GetByID(ctx, vol.Volume.ID))(t); got.Server != nil {
		t.Errorf("volume is attached to %v", got.Server)
	}
	if got := must(l.client.Firewall.GetByID(ctx, fw.ID))(t); len(got.AppliedTo) != 0 {
		t.Errorf("firewall is applied to %v", got.AppliedTo)
	}
	if got := must(l.client.PlacementGroup.GetByID(ctx, group.ID))(t); len(got.Servers) != 0 {
		t.Errorf("placement group has %v", got.Servers)
	}
	if got := must(l.client.Network.GetByID(ctx, network.ID))(t); len(got.Servers) != 0 {
		t.Errorf("network has %v", got.Servers)
	}
	if n := look(l.world, func(w *recorder) int { return len(w.servers) }); n != 0 {
		t.Errorf("the world has %d servers", n)
	}
	for _, to := range look(l.world, func(w *recorder) map[string]int64 {
		m := map[string]int64{}
		for p, to := range w.routes {
			m[p.String()] = to
		}
		return m
	}) {
		if to != 0 {
			t.Errorf("the floating IP is still routed to %d", to)
		}
	}
}

func TestServersAreListedByNameLabelAndStatus(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	for _, name := range []string{"web-2", "web-1", "db-1"} {
		l.newServer(name, func(o *hcloud.ServerCreateOpts) {
			tier, _, _ := strings.Cut(name, "-")
			o.Labels = map[string]string{"tier": tier}
		})
	}
	names := func(o hcloud.ServerListOpts) string {
		var out []string
		for _, s := range must(l.client.Server.List(ctx, o))(t) {
			out = append(out, s.Name)
		}
		return strings.Join(out, " ")
	}
	for _, c := range []struct {
		opts hcloud.ServerListOpts
		want string
	}{
		{hcloud.ServerListOpts{}, "web-2 web-1 db-1"},
		{hcloud.ServerListOpts{Name: "db-1"}, "db-1"},
		{hcloud.ServerListOpts{Name: "db"}, ""},
		{hcloud.ServerListOpts{ListOpts: hcloud.ListOpts{LabelSelector: "tier=web"}}, "web-2 web-1"},
		{hcloud.ServerListOpts{ListOpts: hcloud.ListOpts{LabelSelector: "tier in (db, lb)"}}, "db-1"},
		{hcloud.ServerListOpts{Status: []hcloud.ServerStatus{hcloud.ServerStatusOff}}, ""},
		{hcloud.ServerListOpts{Sort: []string{"name"}}, "db-1 web-1 web-2"},
		{hcloud.ServerListOpts{Sort: []string{"name:desc"}}, "web-2 web-1 db-1"},
	} {
		if got := names(c.opts); got != c.want {
			t.Errorf("%+v lists %q, want %q", c.opts, got, c.want)
		}
	}
	_, _, err := l.client.Server.List(ctx, hcloud.ServerListOpts{Sort: []string{"colour"}})
	wantCode(t, err, "invalid_input")
	_, _, err = l.client.Server.List(ctx, hcloud.ServerListOpts{ListOpts: hcloud.ListOpts{LabelSelector: "tier=(web"}})
	wantCode(t, err, "invalid_input")
}

func TestAServerIsRenamedAndRelabelled(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	l.newServer("web-1")
	s := l.newServer("web-2")
	got := must(l.client.Server.Update(ctx, s, hcloud.ServerUpdateOpts{Name: "web-3", Labels: map[string]string{"a": "b"}}))(t)
	if got.Name != "web-3" || got.Labels["a"] != "b" {
		t.Errorf("server is %s %v", got.Name, got.Labels)
	}
	_, _, err := l.client.Server.Update(ctx, s, hcloud.ServerUpdateOpts{Name: "web-1"})
	wantCode(t, err, "uniqueness_error")
	_, _, err = l.client.Server.Update(ctx, s, hcloud.ServerUpdateOpts{Name: "web_1"})
	wantCode(t, err, "invalid_input")
	_, _, err = l.client.Server.Update(ctx, s, hcloud.ServerUpdateOpts{Labels: map[string]string{"a b": "c"}})
	wantCode(t, err, "invalid_input")
}

func TestImpossibleServersAreRefused(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	l.newServer("taken")
	other := must(l.client.PrimaryIP.Create(ctx, hcloud.PrimaryIPCreateOpts{Name: "hel", Type: hcloud.PrimaryIPTypeIPv4, Location: "hel1", AssigneeType: "server"}))(t).PrimaryIP
	for _, c := range []struct {
		why    string
		code   string
		change func(*hcloud.ServerCreateOpts)
	}{
		{"name is taken", "uniqueness_error", func(o *hcloud.ServerCreateOpts) { o.Name = "taken" }},
		{"name is no host name", "invalid_input", func(o *hcloud.ServerCreateOpts) { o.Name = "web_1" }},
		{"type is unknown", "invalid_input", func(o *hcloud.ServerCreateOpts) { o.ServerType = &hcloud.ServerType{Name: "cx22"} }},
		{"type is not sold there", "invalid_input", func(o *hcloud.ServerCreateOpts) { o.Location = &hcloud.Location{Name: "ash"} }},
		{"image is unknown", "invalid_input", func(o *hcloud.ServerCreateOpts) { o.Image = &hcloud.Image{Name: "debian-14"} }},
		{"location is unknown", "invalid_input", func(o *hcloud.ServerCreateOpts) { o.Location = &hcloud.Location{Name: "lab1"} }},
		{"user data is too long", "invalid_input", func(o *hcloud.ServerCreateOpts) { o.UserData = strings.Repeat("x", 32<<10+1) }},
		{"label is invalid", "invalid_input", func(o *hcloud.ServerCreateOpts) { o.Labels = map[string]string{"a": "b c"} }},
		{"key is unknown", "not_found", func(o *hcloud.ServerCreateOpts) { o.SSHKeys = []*hcloud.SSHKey{{ID: 7}} }},
		{"network is unknown", "not_found", func(o *hcloud.ServerCreateOpts) { o.Networks = []*hcloud.Network{{ID: 7}} }},
		{"firewall is unknown", "not_found", func(o *hcloud.ServerCreateOpts) {
			o.Firewalls = []*hcloud.ServerCreateFirewall{{Firewall: hcloud.Firewall{ID: 7}}}
		}},
		{"no network at all", "invalid_input", func(o *hcloud.ServerCreateOpts) { o.PublicNet = &hcloud.ServerCreatePublicNet{} }},
		{"primary IP is elsewhere", "primary_ip_datacenter_mismatch", func(o *hcloud.ServerCreateOpts) {
			o.PublicNet = &hcloud.ServerCreatePublicNet{EnableIPv4: true, IPv4: other}
		}},
		{"primary IP is of the other kind", "primary_ip_version_mismatch", func(o *hcloud.ServerCreateOpts) {
			o.PublicNet = &hcloud.ServerCreatePublicNet{EnableIPv6: true, IPv6: other}
		}},
	} {
		opts := hcloud.ServerCreateOpts{Name: "web-1", ServerType: &hcloud.ServerType{Name: "cx23"}, Image: &hcloud.Image{Name: "debian-13"}, Location: &hcloud.Location{Name: "fsn1"}}
		c.change(&opts)
		_, _, err := l.client.Server.Create(ctx, opts)
		if err == nil {
			t.Errorf("%s: it is made", c.why)
			continue
		}
		t.Run(c.why, func(t *testing.T) { wantCode(t, err, c.code) })
	}
	if got := must(l.client.Server.List(ctx, hcloud.ServerListOpts{}))(t); len(got) != 1 {
		t.Errorf("there are %d servers", len(got))
	}
	if got := must(l.client.PrimaryIP.List(ctx, hcloud.PrimaryIPListOpts{}))(t); len(got) != 3 {
		t.Errorf("refused requests have left primary IPs: there are %d", len(got))
	}
}

func TestBackupsAndReverseDNSAreNoted(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	s := l.newServer("web-1")
	l.wait(must(l.client.Server.EnableBackup(ctx, s, ""))(t))
	if l.get(s.ID).BackupWindow == "" {
		t.Error("no backup window")
	}
	l.wait(must(l.client.Server.DisableBackup(ctx, s))(t))
	if w := l.get(s.ID).BackupWindow; w != "" {
		t.Errorf("backup window is %q", w)
	}
	v6 := s.PublicNet.IPv6.IP.String() + "1"
	for _, ip := range []string{s.PublicNet.IPv4.IP.String(), v6} {
		l.wait(must(l.client.Server.ChangeDNSPtr(ctx, s, ip, hcloud.Ptr("www.example.com")))(t))
	}
	got := l.get(s.ID)
	if got.PublicNet.IPv4.DNSPtr != "www.example.com" || got.PublicNet.IPv6.DNSPtrForIP(net.ParseIP(v6)) != "www.example.com" {
		t.Errorf("names are %s and %v", got.PublicNet.IPv4.DNSPtr, got.PublicNet.IPv6.DNSPtr)
	}
	l.wait(must(l.client.Server.ChangeDNSPtr(ctx, s, s.PublicNet.IPv4.IP.String(), nil))(t))
	if name := l.get(s.ID).PublicNet.IPv4.DNSPtr; !strings.HasSuffix(name, ".clients.your-server.de") {
		t.Errorf("name is %s", name)
	}
	_, _, err := l.client.Server.ChangeDNSPtr(ctx, s, "192.0.2.7", nil)
	wantCode(t, err, "invalid_input")
}

func TestASpreadGroupHasAtMostTenServers(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	g := must(l.client.PlacementGroup.Create(ctx, hcloud.PlacementGroupCreateOpts{Name: "web", Type: hcloud.PlacementGroupTypeSpread}))(t).PlacementGroup
	in := func(o *hcloud.ServerCreateOpts) { o.PlacementGroup = g }
	var last *hcloud.Server
	for i := range 10 {
		last = l.newServer(fmt.Sprintf("web-%d", i+1), in)
	}
	if last.PlacementGroup == nil || len(last.PlacementGroup.Servers) != 10 {
		t.Errorf("group is %+v", last.PlacementGroup)
	}
	_, _, err := l.client.Server.Create(ctx, hcloud.ServerCreateOpts{
		Name: "web-11", ServerType: &hcloud.ServerType{Name: "cx23"}, Image: &hcloud.Image{Name: "debian-13"}, PlacementGroup: g,
	})
	wantCode(t, err, "placement_error")
	_, err = l.client.PlacementGroup.Delete(ctx, g)
	wantCode(t, err, "resource_in_use")
	l.wait(must(l.client.Server.RemoveFromPlacementGroup(ctx, last))(t))
	_, _, err = l.client.Server.AddToPlacementGroup(ctx, last, g)
	wantCode(t, err, "server_not_stopped")
	l.wait(must(l.client.Server.Poweroff(ctx, last))(t))
	l.wait(must(l.client.Server.AddToPlacementGroup(ctx, last, g))(t))
	got := must(l.client.PlacementGroup.Update(ctx, g, hcloud.PlacementGroupUpdateOpts{Name: "webs"}))(t)
	if got.Name != "webs" || len(got.Servers) != 10 {
		t.Errorf("group is %+v", got)
	}
	_, _, err = l.client.PlacementGroup.Create(ctx, hcloud.PlacementGroupCreateOpts{Name: "webs", Type: hcloud.PlacementGroupTypeSpread})
	wantCode(t, err, "uniqueness_error")
	if l := must(l.client.PlacementGroup.List(ctx, hcloud.PlacementGroupListOpts{Name: "webs"}))(t); len(l) != 1 {
		t.Errorf("listed %d groups", len(l))
	}
}
