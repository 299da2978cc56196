package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

func (l *lab) fault(f Fault) Fault {
	l.t.Helper()
	got, err := l.control.AddFault(l.t.Context(), f)
	if err != nil {
		l.t.Fatal(err)
	}
	return got
}

func TestErrorsAreAnsweredAsOftenAsOrdered(t *testing.T) {
	l := newLab(t)
	l.fault(Fault{Kind: FaultError, Match: Match{Method: "POST", Path: `^/placement_groups$`}, Code: "resource_unavailable", Message: "no more", Count: 2})
	post := func(name string) (int, string) {
		status, _, body := l.raw("POST", "/v1/placement_groups", testToken, fmt.Sprintf(`{"name":%q,"type":"spread"}`, name))
		return status, errorCode(body)
	}
	for range 2 {
		if status, code := post("a"); status != 412 || code != "resource_unavailable" {
			t.Errorf("answered %d %s", status, code)
		}
		if status, _, _ := l.raw("GET", "/v1/placement_groups", testToken, ""); status != 200 {
			t.Errorf("another method is answered %d", status)
		}
	}
	if status, _ := post("a"); status != 201 {
		t.Errorf("after the fault was over: %d", status)
	}
	if left, err := l.control.Faults(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	l.fault(Fault{Kind: FaultError, Match: Match{Path: "^/volumes"}, Status: 502, Code: "bad_gateway"})
	l.fault(Fault{Kind: FaultError, Code: "invalid_input", Match: Match{Path: "^/firewalls"}})
	if status, _, _ := l.raw("GET", "/v1/volumes", testToken, ""); status != 502 {
		t.Errorf("answered %d", status)
	}
	_, err := l.client.Firewall.All(t.Context())
	wantCode(t, err, "invalid_input") // with details.fields
	if err := l.control.ClearFaults(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := l.raw("GET", "/v1/volumes", testToken, ""); status != 200 {
		t.Errorf("after clearing: %d", status)
	}
}

func TestTheClientRetriesConflictsAndRateLimits(t *testing.T) {
	l := newLab(t)
	for _, f := range []Fault{
		{Kind: FaultError, Code: "conflict", Count: 1},
		{Kind: FaultRateLimit, Count: 2},
	} {
		l.fault(f)
		must(l.client.PlacementGroup.Create(t.Context(), hcloud.PlacementGroupCreateOpts{Name: f.Kind, Type: hcloud.PlacementGroupTypeSpread}))(t)
	}
	l.fault(Fault{Kind: FaultRateLimit})
	status, h, _ := l.raw("GET", "/v1/servers", testToken, "")
	if status != 429 || h.Get("RateLimit-Remaining") != "0" {
		t.Errorf("answered %d with %v", status, h)
	}
}

func TestDelaysAndDroppedConnections(t *testing.T) {
	l := newLab(t)
	l.fault(Fault{Kind: FaultDelay, DelayMS: 40, Count: 1, Match: Match{Path: "^/servers"}})
	began := time.Now()
	if status, _, _ := l.raw("GET", "/v1/servers", testToken, ""); status != 200 || time.Since(began) < 40*time.Millisecond {
		t.Errorf("answered %d after %s", status, time.Since(began))
	}
	post := func(name string) error {
		_, _, err := l.newClient(testToken).PlacementGroup.Create(t.Context(), hcloud.PlacementGroupCreateOpts{Name: name, Type: hcloud.PlacementGroupTypeSpread})
		return err
	}
	count := func() int { return len(must2(l.client.PlacementGroup.All(t.Context()))(t)) }
	l.fault(Fault{Kind: FaultDrop, Count: 1, Match: Match{Method: "POST"}})
	if err := post("a"); err == nil || count() != 0 {
		t.Errorf("dropped before: %v, there are %d", err, count())
	}
	l.fault(Fault{Kind: FaultDrop, After: true, Count: 1, Match: Match{Method: "POST"}})
	if err := post("b"); err == nil || count() != 1 {
		t.Errorf("dropped after: %v, there are %d", err, count())
	}
	l.fault(Fault{Kind: FaultError, Code: "server_error", After: true, Count: 1, Match: Match{Method: "POST"}})
	wantCode(t, post("c"), "server_error")
	if count() != 2 {
		t.Errorf("there are %d", count())
	}
	requests, _ := l.control.Requests(t.Context())
	dropped := 0
	for _, r := range requests {
		if r.Status == 0 {
			dropped++
		}
	}
	if dropped != 2 {
		t.Errorf("%d dropped requests are remembered", dropped)
	}
}

func TestAServerThatNeverBootsIsReportedRunning(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	f := l.fault(Fault{Kind: FaultNeverBoots, Name: "lab-web-*"})
	dead, fine := l.newServer("lab-web-1"), l.newServer("lab-app-1")
	if dead.Status != hcloud.ServerStatusRunning || l.world.Running(dead.ID) {
		t.Errorf("server is %s, runs %t", dead.Status, l.world.Running(dead.ID))
	}
	if !l.world.Running(fine.ID) {
		t.Error("the other server does not run")
	}
	l.wait(must(l.client.Server.Reset(ctx, dead))(t))
	if l.world.Running(dead.ID) {
		t.Error("it boots while the fault is in force")
	}
	if err := l.control.DeleteFault(ctx, f.ID); err != nil {
		t.Fatal(err)
	}
	if err := l.control.DeleteFault(ctx, f.ID); !HasCode(err, "not_found") {
		t.Errorf("deleting it twice: %v", err)
	}
	l.wait(must(l.client.Server.Reset(ctx, dead))(t))
	if !l.world.Running(dead.ID) || l.get(dead.ID).Status != hcloud.ServerStatusRunning {
		t.Error("it does not boot after the fault was deleted")
	}
	l.fault(Fault{Kind: FaultNeverBoots, Name: "*", Count: 1})
	l.wait(must(l.client.Server.Reset(ctx, fine))(t))
	l.wait(must(l.client.Server.Poweroff(ctx, fine))(t))
	if got := l.get(fine.ID).Status; got != hcloud.ServerStatusOff {
		t.Errorf("powered off it is %s", got)
	}
	l.wait(must(l.client.Server.Poweron(ctx, fine))(t))
	if !l.world.Running(fine.ID) {
		t.Error("it does not boot after the fault is over")
	}
}

func TestActionsEndWithTheErrorOrdered(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	n := l.newNetwork("private", "10.0.0.0/16", "10.0.1.0/24")
	s := l.newServer("web-1")
	l.fault(Fault{Kind: FaultAction, Command: "attach_*", Code: "timeout", Message: "too slow", Count: 1})
	a := must(l.client.Server.AttachToNetwork(ctx, s, hcloud.ServerAttachToNetworkOpts{Network: n}))(t)
	err := l.client.Action.WaitFor(ctx, a)
	if err == nil || !strings.Contains(err.Error(), "too slow") || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("it ended with %v", err)
	}
	if got := l.get(s.ID); len(got.PrivateNet) != 0 || got.Status != hcloud.ServerStatusRunning {
		t.Errorf("server is %s in %v", got.Status, got.PrivateNet)
	}
	l.wait(must(l.client.Server.AttachToNetwork(ctx, s, hcloud.ServerAttachToNetworkOpts{Network: n}))(t))

	l.fault(Fault{Kind: FaultAction, Command: "create_server", Count: 1})
	r := must(l.client.Server.Create(ctx, hcloud.ServerCreateOpts{Name: "web-2", ServerType: &hcloud.ServerType{Name: "cx23"}, Image: &hcloud.Image{Name: "debian-13"}}))(t)
	if err := l.client.Action.WaitFor(ctx, r.Action); err == nil {
		t.Error("create_server succeeds")
	}
	if got := l.get(r.Server.ID).Status; got != hcloud.ServerStatusOff || l.world.told("create web-2") {
		t.Errorf("the server is %s", got)
	}
	l.fault(Fault{Kind: FaultAction, Command: "change_protection", Count: 1})
	p := must(l.client.Network.ChangeProtection(ctx, n, hcloud.NetworkChangeProtectionOpts{Delete: hcloud.Ptr(false)}))(t)
	if err := l.client.Action.WaitFor(ctx, p); err == nil {
		t.Error("an action without machines succeeds")
	}
	l.wait(must(l.client.Server.DeleteWithResult(ctx, r.Server))(t).Action)
}

func TestFaultsSurviveARestartAndAreSometimesOnly(t *testing.T) {
	l := newLab(t, onDisk(t))
	l.fault(Fault{Kind: FaultError, Code: "maintenance", Probability: 0.5, Match: Match{Path: "^/locations$"}})
	l.crash()
	l.start()
	n := map[int]int{}
	for range 200 {
		status, _, _ := l.raw("GET", "/v1/locations", testToken, "")
		n[status]++
	}
	if n[200] < 50 || n[503] < 50 || n[200]+n[503] != 200 {
		t.Errorf("answers are %v", n)
	}
}

func TestFaultsThatCannotBeAreRefused(t *testing.T) {
	l := newLab(t)
	for _, f := range []Fault{
		{}, {Kind: "fire"}, {Kind: FaultDelay}, {Kind: FaultNeverBoots}, {Kind: FaultNeverBoots, Name: "["},
		{Kind: FaultError, Match: Match{Path: "("}}, {Kind: FaultError, Probability: 2}, {Kind: FaultError, Status: 200}, {Kind: FaultError, Count: -1},
	} {
		if _, err := l.control.AddFault(t.Context(), f); !HasCode(err, "invalid_input") {
			t.Errorf("%+v: %v", f, err)
		}
	}
}
