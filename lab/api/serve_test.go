package api

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

func TestOnlyKnownTokensAreLetIn(t *testing.T) {
	second := strings.Repeat("s", TokenLength)
	l := newLab(t, func(c *Config) { c.Tokens = append(c.Tokens, second) })
	for _, token := range []string{"", "x", strings.Repeat("x", TokenLength), testToken + "t"} {
		for _, path := range []string{"/v1/servers", "/v1/nowhere", "/_lab/faults"} {
			if status, _, body := l.raw("GET", path, token, ""); status != 401 || errorCode(body) != "unauthorized" {
				t.Errorf("%s with token %q is answered %d %v", path, token, status, body)
			}
		}
	}
	must2(l.newClient(second).Server.All(t.Context()))(t)
	_, err := New(Config{Machines: l.world, Tokens: []string{"short"}})
	if err == nil || strings.Contains(err.Error(), "short") {
		t.Errorf("a token of another length is refused with %v, without being told", err)
	}
}

// must2 is must for calls without response.
func must2[T any](v T, err error) func(t testing.TB) T { return must(v, nil, err) }

func TestListsComeInPages(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	for i := range 57 {
		must(l.client.PlacementGroup.Create(ctx, hcloud.PlacementGroupCreateOpts{Name: fmt.Sprintf("g-%02d", i), Type: hcloud.PlacementGroupTypeSpread}))(t)
	}
	all := must2(l.client.PlacementGroup.All(ctx))(t)
	if len(all) != 57 || all[56].Name != "g-56" {
		t.Errorf("all are %d", len(all))
	}
	for _, c := range []struct {
		query                          string
		n, page, per, prev, next, last int
	}{
		{"", 25, 1, 25, 0, 2, 3},
		{"?page=3", 7, 3, 25, 2, 0, 3},
		{"?per_page=20&page=2", 20, 2, 20, 1, 3, 3},
		{"?per_page=500", 50, 1, 50, 0, 2, 2},
		{"?page=9", 0, 9, 25, 3, 0, 3},
		{"?page=9223372036854775807", 0, 9223372036854775807, 25, 3, 0, 3},
		{"?name=g-03", 1, 1, 25, 0, 0, 1},
	} {
		_, _, body := l.raw("GET", "/v1/placement_groups"+c.query, testToken, "")
		p := body["meta"].(map[string]any)["pagination"].(map[string]any)
		num := func(k string) int {
			if p[k] == nil {
				return 0
			}
			return int(p[k].(float64))
		}
		got := []int{len(body["placement_groups"].([]any)), num("per_page"), num("previous_page"), num("next_page"), num("last_page")}
		want := []int{c.n, c.per, c.prev, c.next, c.last}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, want %v", c.query, got, want)
		}
	}
	for _, q := range []string{"?page=0", "?page=x", "?per_page=-1"} {
		if status, _, body := l.raw("GET", "/v1/placement_groups"+q, testToken, ""); status != 422 || errorCode(body) != "invalid_input" {
			t.Errorf("%s is answered %d %v", q, status, body)
		}
	}
}

func TestActionsAreFoundByIDAndByResource(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	s := l.newServer("web-1")
	l.newServer("web-2")
	off := must(l.client.Server.Poweroff(ctx, s))(t)
	l.wait(off)
	list := must(l.client.Action.List(ctx, hcloud.ActionListOpts{ID: []int64{off.ID, 424242}, Sort: []string{"status", "id"}, ListOpts: hcloud.ListOpts{PerPage: 50}}))(t)
	if len(list) != 1 || list[0].ID != off.ID || list[0].Progress != 100 || list[0].Resources[0].ID != s.ID {
		t.Errorf("listed %+v", list)
	}
	var commands []string
	for _, a := range must2(l.client.Server.Action.AllFor(ctx, s, hcloud.ActionListOpts{Sort: []string{"id:desc"}}))(t) {
		commands = append(commands, a.Command)
	}
	if got := strings.Join(commands, " "); got != "stop_server start_server create_server" {
		t.Errorf("the server's actions are %s", got)
	}
	if n := len(must2(l.client.Server.Action.All(ctx, hcloud.ActionListOpts{}))(t)); n != 5 {
		t.Errorf("all servers have %d actions", n)
	}
	if a := must(l.client.Server.Action.GetByID(ctx, off.ID))(t); a == nil {
		t.Error("not found among the actions of servers")
	}
	if a := must(l.client.Network.Action.GetByID(ctx, off.ID))(t); a != nil {
		t.Error("found among the actions of networks")
	}
	for path, want := range map[string]int{
		fmt.Sprintf("/v1/servers/%d/actions/%d", s.ID, off.ID): 200,
		fmt.Sprintf("/v1/servers/%d/actions/%d", s.ID, 7):      404,
		"/v1/servers/7/actions":                                404,
		"/v1/servers/7/nothing":                                404,
		"/v1/actions/7":                                        404,
		"/v1/actions":                                          410,
		"/v1/volumes/actions":                                  200,
		"/v1/floating_ips/actions":                             200,
		"/v1/primary_ips/actions":                              200,
		"/v1/firewalls/actions":                                200,
		"/v1/images/actions":                                   200,
	} {
		if status, _, body := l.raw("GET", path, testToken, ""); status != want {
			t.Errorf("%s is answered %d %v, want %d", path, status, body, want)
		}
	}
}

func TestEveryResourceTellsItsActions(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	n := l.newNetwork("private", "10.0.0.0/16")
	f := must(l.client.FloatingIP.Create(ctx, hcloud.FloatingIPCreateOpts{Type: hcloud.FloatingIPTypeIPv4, HomeLocation: &hcloud.Location{Name: "fsn1"}}))(t).FloatingIP
	p := must(l.client.PrimaryIP.Create(ctx, hcloud.PrimaryIPCreateOpts{Name: "p", Type: hcloud.PrimaryIPTypeIPv4, Location: "fsn1", AssigneeType: "server"}))(t).PrimaryIP
	v := must(l.client.Volume.Create(ctx, hcloud.VolumeCreateOpts{Name: "v", Size: 10, Location: &hcloud.Location{Name: "fsn1"}}))(t)
	l.wait(v.Action)
	fw := must(l.client.Firewall.Create(ctx, hcloud.FirewallCreateOpts{Name: "fw", Rules: []hcloud.FirewallRule{tcpRule("1", "::/0")}}))(t)
	for path, body := range map[string]string{
		fmt.Sprintf("networks/%d", n.ID):            "change_protection",
		fmt.Sprintf("floating_ips/%d", f.ID):        "change_protection",
		fmt.Sprintf("primary_ips/%d", p.ID):         "change_protection",
		fmt.Sprintf("volumes/%d", v.Volume.ID):      "change_protection",
		fmt.Sprintf("firewalls/%d", fw.Firewall.ID): "",
	} {
		if body != "" {
			if status, _, answer := l.raw("POST", "/v1/"+path+"/actions/"+body, testToken, `{"delete":true}`); status != 201 {
				t.Errorf("%s is answered %v", path, answer)
			}
		}
		_, _, answer := l.raw("GET", "/v1/"+path+"/actions", testToken, "")
		list, _ := answer["actions"].([]any)
		if len(list) == 0 {
			t.Errorf("%s has no actions: %v", path, answer)
			continue
		}
		id := int64(list[0].(map[string]any)["id"].(float64))
		kind, _, _ := strings.Cut(path, "/")
		for _, at := range []string{fmt.Sprintf("/v1/%s/actions/%d", path, id), fmt.Sprintf("/v1/%s/actions/%d", kind, id)} {
			if status, _, _ := l.raw("GET", at, testToken, ""); status != 200 {
				t.Errorf("%s is answered %d", at, status)
			}
		}
	}
}

func TestUnknownPathsAndBrokenRequestsAreToldAsErrors(t *testing.T) {
	l := newLab(t)
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/v1/load_balancers", "", 404, "not_found"},
		{"GET", "/v1/servers/abc", "", 404, "not_found"},
		{"PATCH", "/v1/nowhere", "", 404, "not_found"},
		{"POST", "/v1/servers", "{", 400, "json_error"},
		{"POST", "/v1/servers", "", 422, "invalid_input"},
		{"POST", "/v1/servers", `{"name":5}`, 422, "invalid_input"},
		{"POST", "/v1/servers", `[]`, 422, "invalid_input"},
		{"POST", "/v1/servers", `{"name":"a","server_type":{},"image":"debian-13"}`, 422, "invalid_input"},
		{"POST", "/v1/ssh_keys", strings.Repeat("x", 2<<20), 400, "json_error"},
	} {
		status, _, body := l.raw(c.method, c.path, testToken, c.body)
		if status != c.status || errorCode(body) != c.code {
			t.Errorf("%s %s %.40s is answered %d %v, want %d %s", c.method, c.path, c.body, status, body, c.status, c.code)
		}
	}
}

func TestTheProjectsBudgetOfRequestsIsLimited(t *testing.T) {
	second := strings.Repeat("s", TokenLength)
	l := newLab(t, func(c *Config) { c.RateLimit, c.Tokens = 36, append(c.Tokens, second) })
	for i := range 36 {
		token := testToken
		if i%2 == 1 {
			token = second // the budget is the project's, not the token's
		}
		status, h, _ := l.raw("GET", "/v1/locations", token, "")
		left, _ := strconv.Atoi(h.Get("RateLimit-Remaining"))
		if status != 200 || h.Get("RateLimit-Limit") != "36" || left > 35-i+1 || left < 35-i {
			t.Fatalf("request %d is answered %d with %v", i, status, h)
		}
		reset, err := strconv.ParseInt(h.Get("RateLimit-Reset"), 10, 64)
		if until := time.Until(time.Unix(reset, 0)); err != nil || until > time.Hour+time.Minute || until < -time.Second {
			t.Fatalf("RateLimit-Reset is %s", h.Get("RateLimit-Reset"))
		}
	}
	status, h, body := l.raw("GET", "/v1/locations", testToken, "")
	if status != 429 || errorCode(body) != "rate_limit_exceeded" || h.Get("RateLimit-Remaining") != "0" {
		t.Errorf("request 37 is answered %d %v with %v", status, body, h)
	}
	if _, err := l.control.Settings(t.Context()); err != nil {
		t.Errorf("the control API is limited too: %v", err)
	}
	s, err := l.control.Settings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.RateLimit = 100
	if err := l.control.ChangeSettings(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if status, h, _ := l.raw("GET", "/v1/locations", testToken, ""); status != 200 || h.Get("RateLimit-Remaining") != "99" {
		t.Errorf("after raising the limit: %d %v", status, h)
	}
}

func TestTheBudgetRefillsSteadily(t *testing.T) {
	b := newBudget(3600)
	at := b.filled
	h := http.Header{}
	for range 3600 {
		if !b.take(h, at) {
			t.Fatal("refused within the budget")
		}
	}
	if b.take(h, at) {
		t.Error("let through beyond the budget")
	}
	if h.Get("RateLimit-Reset") != strconv.FormatInt(at.Add(time.Hour).Unix(), 10) {
		t.Errorf("reset is %s", h.Get("RateLimit-Reset"))
	}
	if !b.take(h, at.Add(time.Second)) || b.take(h, at.Add(time.Second)) {
		t.Error("one second is not one request")
	}
	if !b.take(h, at.Add(100*time.Hour)) || h.Get("RateLimit-Remaining") != "3599" {
		t.Errorf("after a long time %s are left", h.Get("RateLimit-Remaining"))
	}
}

func TestRequestsAreRememberedWithoutTokens(t *testing.T) {
	l := newLab(t)
	l.raw("GET", "/v1/servers?name=a", testToken, "")
	l.raw("GET", "/v1/servers/7", "wrong-token", "")
	got, err := l.control.Requests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Path != "/v1/servers?name=a" || got[0].Status != 200 || got[1].Status != 401 || got[0].CorrelationID == "" || got[0].CorrelationID == got[1].CorrelationID {
		t.Errorf("requests are %+v", got)
	}
	if text := fmt.Sprintf("%+v", got); strings.Contains(text, testToken) || strings.Contains(text, "wrong-token") {
		t.Errorf("a token is among %s", text)
	}
	if err := l.control.ClearRequests(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, _ := l.control.Requests(t.Context()); len(got) != 0 {
		t.Errorf("after clearing: %v", got)
	}
	r := newRecent(3)
	for i := range 5 {
		r.add(Request{Status: i})
	}
	if got := fmt.Sprint(r.list()[0].Status, r.list()[2].Status, len(r.list())); got != "2 4 3" {
		t.Errorf("the ring has %s", got)
	}
}

func TestFurtherControlHandlersAreReached(t *testing.T) {
	l := newLab(t, func(c *Config) {
		c.Control = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"path":%q}`, r.URL.Path)
		})
	})
	var out struct{ Path string }
	if err := l.control.Do(t.Context(), "POST", "/cut", map[string]string{"from": "a"}, &out); err != nil || out.Path != "/_lab/cut" {
		t.Errorf("answered %v, %v", out, err)
	}
	plain := newLab(t)
	if err := plain.control.Do(t.Context(), "POST", "/cut", nil, nil); !HasCode(err, "not_found") {
		t.Errorf("without further handlers: %v", err)
	}
}

func TestTheStateFileIsPrivateAndAClosedEmulatorRefuses(t *testing.T) {
	l := newLab(t, onDisk(t))
	l.newServer("web-1")
	info, err := os.Stat(l.config.StateFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state file: %v %v", info, err)
	}
	if err := l.emulator.Close(); err != nil {
		t.Fatal(err)
	}
	if status, _, body := l.raw("GET", "/v1/servers", testToken, ""); status != 503 || errorCode(body) != "unavailable" {
		t.Errorf("answered %d %v", status, body)
	}
	if err := l.emulator.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

func TestADamagedStateFileIsToldAndNotOverwritten(t *testing.T) {
	path := t.TempDir() + "/state.json"
	for _, content := range []string{"{", `{"format":99}`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := New(Config{StateFile: path, Machines: newRecorder(t), Tokens: []string{testToken}})
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q is loaded with %v", content, err)
		}
		if b, _ := os.ReadFile(path); string(b) != content {
			t.Errorf("the file has become %q", b)
		}
	}
}

func TestAStateThatCannotBeSavedIsAnError(t *testing.T) {
	l := newLab(t, func(c *Config) { c.StateFile = t.TempDir() + "/gone/state.json" })
	status, _, body := l.raw("POST", "/v1/placement_groups", testToken, `{"name":"a","type":"spread"}`)
	if status != 500 || errorCode(body) != "server_error" {
		t.Errorf("answered %d %v", status, body)
	}
	l.emulator.file.path = "" // Close would fail as well
}

func TestActionsTakeAtLeastTheDelayOrdered(t *testing.T) {
	l := newLab(t, func(c *Config) { c.ActionDelay = 30 * time.Millisecond })
	n := l.newNetwork("private", "10.0.0.0/16")
	began := time.Now()
	a := must(l.client.Network.ChangeProtection(context.Background(), n, hcloud.NetworkChangeProtectionOpts{Delete: hcloud.Ptr(true)}))(t)
	if a.Status != hcloud.ActionStatusRunning {
		t.Errorf("action is %s at first", a.Status)
	}
	l.wait(a)
	if took := time.Since(began); took < 30*time.Millisecond {
		t.Errorf("it took %s", took)
	}
}

func TestOldActionsAreForgottenAndRunningOnesAreNot(t *testing.T) {
	s := newState()
	for i := range keptActions + keptActions/10 + 1 {
		a := &action{ID: s.id(), Status: "success"}
		if i == 0 {
			a.Status = "running"
		}
		s.Actions[a.ID] = a
	}
	oldest := s.NextID - int64(len(s.Actions))
	s.forgetActions()
	if len(s.Actions) != keptActions || s.Actions[oldest] == nil || s.Actions[oldest+1] != nil || s.Actions[s.NextID-1] == nil {
		t.Errorf("%d are left", len(s.Actions))
	}
}
