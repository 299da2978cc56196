package health

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/cmd/infractl/internal/report"
	"github.com/infractl/infractl/provision"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// recorded is what a machine answered to look.sh.
func recorded(t *testing.T, name string) *reading {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".look"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := parse(text, "@@0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// shop is an environment with two load balancers, two web hosts, an application
// host and a database host.
func shop() *fleet.Fleet {
	f := &fleet.Fleet{URL: "http://198.51.100.9/", VIP: map[string]string{"ipv4": "198.51.100.9"}, User: "infractl", Port: 22}
	for i, name := range []string{"lb-1", "lb-2", "web-1", "web-2", "app-1", "db-1"} {
		tier, _, _ := strings.Cut(name, "-")
		f.Hosts = append(f.Hosts, fleet.Host{Name: name, Server: "shop-" + name, Tier: tier, Public: fmt.Sprintf("198.51.100.%d", 10+i), Private: fmt.Sprintf("10.0.0.%d", 10+i)})
	}
	return f
}

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// well is what is found out about an environment in which everything is well.
func well(t *testing.T) facts {
	f := facts{
		site:     Site{URL: "http://198.51.100.9/", Asked: "http://198.51.100.9/healthz", Status: 200, Milliseconds: 3.2},
		holders:  []engine.Holder{{Family: "ipv4", Server: "shop-lb-1"}},
		readings: map[string]*reading{}, errors: map[string]error{}, drifts: map[string]*Drift{},
		limit: 2500 * time.Millisecond,
	}
	for host, name := range map[string]string{"lb-1": "lb-1", "lb-2": "lb-2", "web-1": "web-1", "web-2": "web-1", "app-1": "app-1", "db-1": "db-1"} {
		r := recorded(t, name)
		r.load = 0.3
		f.readings[host] = r
		f.drifts[host] = &Drift{Files: []string{}, Other: []string{}}
	}
	return f
}

// told are the problems as lines.
func told(s Snapshot) []string {
	var out []string
	for _, p := range s.Problems {
		out = append(out, string(p.Level)+": "+p.Message)
	}
	return out
}

func TestARecordedLoadBalancerIsRead(t *testing.T) {
	r := recorded(t, "lb-1.errors")
	if len(r.samples) != 2 || r.last().version != "3.0.11" {
		t.Fatalf("samples: %+v", r.samples)
	}
	want := row{proxy: "web", server: "web-2", status: "DOWN", check: "L4CON", responses: 21}
	if got, ok := r.last().row("web", "web-2"); !ok || got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
	if front, _ := r.last().row("public", "FRONTEND"); front.responses != 262 || front.errors != 35 {
		t.Errorf("%+v", front)
	}
	if r.cores != 2 || r.memoryTotal != 24684084 || r.diskAvailable == 0 || r.kernel != "6.12.48+deb13-cloud-amd64" || r.load == 0 {
		t.Errorf("%+v", r)
	}
	if r.balancer["vip-state"] != "MASTER" || r.balancer["alive"] != "200" || !r.active("keepalived.service") {
		t.Errorf("%v, %+v", r.balancer, r.units)
	}
	if r.drained || r.ready == nil || r.ready.status != 0 {
		t.Errorf("ready: %+v", r.ready)
	}
}

func TestARecordedDatabaseIsRead(t *testing.T) {
	r := recorded(t, "db-1")
	if r.database == nil || *r.database != (database{true, true, "17.12", 3}) {
		t.Errorf("%+v", r.database)
	}
	if len(r.certificates) != 1 || r.certificates[0].file != "/etc/infractl/postgresql/server.crt" || r.certificates[0].expires.Year() != 2028 {
		t.Errorf("%+v", r.certificates)
	}
}

func TestAnAnswerThatWasCutOffIsNoAnswer(t *testing.T) {
	text, err := os.ReadFile("testdata/web-1.look")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 10, len(text) / 2, len(text) - 30} {
		if _, err := parse(text[:n], "@@0123456789abcdef"); err == nil {
			t.Errorf("%d bytes were enough", n)
		}
	}
}

func TestASecondSampleMayBeMissing(t *testing.T) {
	text, err := os.ReadFile("testdata/lb-1.look")
	if err != nil {
		t.Fatal(err)
	}
	whole := strings.LastIndex(string(text), "sample")
	for _, n := range []int{whole, whole + 10, len(text) - 300} {
		r, err := parse(text[:n], "@@0123456789abcdef")
		if err != nil || len(r.samples) != 1 || len(r.units) != 4 || r.ready == nil {
			t.Errorf("%d bytes: %+v, %v", n, r, err)
		}
	}
}

func TestAHostThatSaysLessIsReadToo(t *testing.T) {
	text := "\n@@0123456789abcdef machine\nload 1.5\ncores 1\n\n@@0123456789abcdef sample\n100\n\n@@0123456789abcdef asked\n\n@@0123456789abcdef end\n"
	r, err := parse([]byte(text), "@@0123456789abcdef")
	if err != nil || r.load != 1.5 || r.ready != nil || r.last() != nil {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := parse([]byte("\n@@0123456789abcdef machine\nload much\n\n@@0123456789abcdef end\n"), "@@0123456789abcdef"); err == nil {
		t.Error("no number was no error")
	}
}

func TestAHealthyEnvironmentHasNoProblems(t *testing.T) {
	s := assess("shop", shop(), well(t), noon)
	if !s.Healthy || len(s.Problems) > 0 {
		t.Errorf("%q", told(s))
	}
	s.Seconds = 1.24
	for _, width := range []int{0, 80} {
		golden(t, fmt.Sprintf("healthy.%d", width), strings.Join(s.Lines(report.Style{}, width), "\n")+"\n")
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	down := fmt.Errorf("connect: %w", &net.OpError{Op: "dial", Net: "tcp", Err: &os.SyscallError{Syscall: "connect", Err: syscall.ECONNREFUSED}})
	unreachable := func(f *facts, host string, err error) {
		f.readings[host], f.errors[host], f.drifts[host] = nil, err, nil
	}
	set := func(r *reading, proxy, server, status, check string) {
		for i := range r.samples {
			for j, row := range r.samples[i].rows {
				if row.proxy == proxy && row.server == server {
					r.samples[i].rows[j].status, r.samples[i].rows[j].check = status, check
				}
			}
		}
	}
	for _, c := range []struct {
		name    string
		change  func(f *facts)
		healthy bool
		want    []string
	}{
		{"a dead load balancer that held the virtual IP", func(f *facts) {
			unreachable(f, "lb-1", context.DeadlineExceeded)
		}, false, []string{
			"problem: lb-1 cannot be reached: no answer within 2.5 s",
		}},
		{"the virtual IP is where nobody wants it", func(f *facts) {
			f.holders[0].Server = "shop-lb-2"
		}, false, []string{"problem: the cloud sends 198.51.100.9 to lb-2, but the master is lb-1"}},
		{"the virtual IP is nowhere", func(f *facts) {
			f.holders[0].Server = ""
		}, false, []string{"problem: the cloud sends 198.51.100.9 to no server"}},
		{"the virtual IP is somebody else's", func(f *facts) {
			f.holders[0].Server = "server 7, which is not of this environment"
			f.readings["lb-1"].balancer["vip-state"] = "BACKUP"
			unreachable(f, "lb-2", down)
		}, false, []string{
			"problem: the cloud sends 198.51.100.9 to server 7, which is not of this environment",
			"problem: lb-2 cannot be reached: connection refused",
		}},
		{"two masters", func(f *facts) {
			f.readings["lb-2"].balancer["vip-state"] = "MASTER"
		}, false, []string{"problem: lb-1 and lb-2 each believe to be the master of the virtual IP"}},
		{"no master", func(f *facts) {
			f.readings["lb-1"].balancer["vip-state"] = "BACKUP"
		}, false, []string{"problem: no load balancer believes to be the master of the virtual IP"}},
		{"keepalived does not run, and what it said last does not count", func(f *facts) {
			r := f.readings["lb-2"]
			r.balancer["vip-state"] = "MASTER"
			for i := range r.units {
				if r.units[i].name == "keepalived.service" {
					r.units[i].active, r.units[i].sub = "failed", "failed"
				}
			}
			r.ready = &answer{status: 1}
		}, false, []string{"problem: lb-2 is not ready: keepalived.service is failed (failed)"}},
		{"a load balancer whose own check does not see that it cannot claim the virtual IP", func(f *facts) {
			r := f.readings["lb-1"]
			for i := range r.units {
				if r.units[i].name == "infractl-vip.service" {
					r.units[i].active, r.units[i].sub = "inactive", "dead"
				}
			}
		}, false, []string{"problem: lb-1 is not ready: infractl-vip.service is inactive (dead)"}},
		{"the cloud does not answer", func(f *facts) {
			f.holders, f.cloudErr = nil, fmt.Errorf("cannot ask the cloud: %w", down)
		}, false, []string{"problem: nobody knows who holds the virtual IP: the cloud cannot be reached: connection refused"}},
		{"the cloud does not answer in time", func(f *facts) {
			f.holders, f.cloudErr = nil, fmt.Errorf("cannot ask the cloud: %w", context.DeadlineExceeded)
		}, false, []string{"problem: nobody knows who holds the virtual IP: the cloud gives no answer within 2.5 s"}},
		{"the cloud does not take the token", func(f *facts) {
			f.holders, f.cloudErr = nil, &engine.Error{Kind: engine.Invalid, Err: errors.New("the cloud does not accept the token"), Advice: "Make a new one"}
		}, false, []string{"problem: nobody knows who holds the virtual IP: the cloud does not accept the token"}},
		{"the database listens on this host only", func(f *facts) {
			f.readings["db-1"].database.listens = false
		}, false, []string{"problem: db-1 is down: PostgreSQL does not listen on 10.0.0.15"}},
		{"a web host is down", func(f *facts) {
			f.readings["lb-1"] = recorded(t, "lb-1.down")
			set(f.readings["lb-2"], "web", "web-2", "DOWN", "L4CON")
			f.readings["web-2"] = recorded(t, "web-2.down")
		}, false, []string{"problem: web-2 is down: nginx.service is inactive (dead)"}},
		{"a web host that only one load balancer reaches", func(f *facts) {
			set(f.readings["lb-2"], "web", "web-2", "DOWN", "L4TOUT")
		}, false, []string{
			"problem: web-2 is down: lb-1 UP, lb-2 DOWN (L4TOUT)",
			"problem: the load balancers do not agree on web-2: lb-1 UP, lb-2 DOWN (L4TOUT)",
		}},
		{"a host that only this computer does not reach", func(f *facts) {
			unreachable(f, "web-1", down)
		}, false, []string{"problem: web-1 cannot be reached: connection refused (the load balancers still reach it)"}},
		{"an operator has drained a host", func(f *facts) {
			f.readings["lb-1"] = recorded(t, "lb-1.drained")
			set(f.readings["lb-2"], "web", "web-2", "NOLB", "L7OKC")
			f.readings["web-2"] = recorded(t, "web-2.drained")
		}, true, []string{"warning: web-2 is drained: by ann@desk, 2026-11-24 03:25"}},
		{"a run was cut off and left a host drained", func(f *facts) {
			f.readings["web-2"] = recorded(t, "web-2.drained")
			f.readings["web-2"].reason = "change"
		}, false, []string{"problem: web-2 is still drained by a run (change) that seems to have been cut off"}},
		{"a run is under way", func(f *facts) {
			f.readings["web-2"] = recorded(t, "web-2.drained")
			f.readings["web-2"].reason = "upgrade, ann@desk"
			f.runs.Running = "ann@desk (process 7) since 11:59"
		}, true, []string{"warning: web-2 is drained for the time of a run (upgrade, ann@desk)"}},
		{"somebody took a host out by hand", func(f *facts) {
			set(f.readings["lb-1"], "web", "web-1", "MAINT", "")
			set(f.readings["lb-2"], "web", "web-1", "MAINT", "")
		}, false, []string{"problem: web-1 gets no new requests, though nobody has drained it: lb-1 and lb-2 MAINT"}},
		{"the application is down", func(f *facts) {
			f.site.Status = 503
			f.readings["app-1"] = recorded(t, "app-1.down")
		}, false, []string{
			"problem: http://198.51.100.9/healthz answers with status 503",
			"problem: app-1 is down: app-guestbook@1.service is inactive (dead)",
		}},
		{"a process of the application is down", func(f *facts) {
			set(f.readings["app-1"], "app", "2", "DOWN", "L7STS")
		}, false, []string{"problem: app-1: 1 of 2 processes answer"}},
		{"the gate is closed", func(f *facts) {
			set(f.readings["app-1"], "app", "FRONTEND", "STOP", "")
		}, false, []string{"problem: app-1 gets no new requests, though nobody has drained it: its gate is closed"}},
		{"the database does not answer", func(f *facts) {
			f.readings["db-1"].database = &database{}
			f.site.Status, f.site.Error = 0, "no answer within 2.0 s"
		}, false, []string{
			"problem: http://198.51.100.9/healthz does not answer: no answer within 2.0 s",
			"problem: db-1 is down: PostgreSQL does not answer",
		}},
		{"a host that is too busy", func(f *facts) {
			unreachable(f, "web-1", errSlow)
			f.slow = map[string]bool{"web-1": true}
		}, false, []string{"problem: web-1 is too slow: it lets in, but gives no answer within 2.5 s (the load balancers still reach it)"}},
		{"the wrong host key", func(f *facts) {
			unreachable(f, "db-1", &provision.Error{Host: "db-1", Kinds: []error{provision.ErrHostKeyMismatch}, Err: errors.New("it shows SHA256:x, expected is SHA256:y"), Hint: "do not go on"})
		}, false, []string{"problem: db-1 cannot be reached: the host key is not the expected one: it shows SHA256:x, expected is SHA256:y"}},
		{"what will be a problem some day", func(f *facts) {
			f.readings["web-1"].diskFree, f.readings["web-1"].diskAvailable = 7000000, 5000000
			f.readings["web-2"].nginx = "1.26.4"
			f.readings["app-1"].memoryAvailable = 1000
			f.readings["db-1"].certificates[0].expires = noon.Add(100 * time.Hour)
			f.readings["db-1"].newestKernel = "6.12.57+deb13-cloud-amd64"
			f.readings["lb-1"].units = append(f.readings["lb-1"].units, unit{"apt-daily.service", "loaded", "failed", "failed"})
			f.drifts["lb-2"] = &Drift{Files: []string{"/etc/a", "/etc/b"}, Other: []string{"start x.service"}}
			f.runs.Unfinished = &Unfinished{Operation: "up", Since: noon}
		}, true, []string{
			"warning: web-1: its disk is 92 % full",
			"warning: app-1: 100 % of its memory is in use",
			"warning: the last run (up, begun " + noon.Local().Format(time.DateTime) + ") has not ended well",
			"warning: lb-1: apt-daily.service has failed",
			"warning: lb-2 is not as the last run left it: /etc/a, /etc/b and 1 more",
			"warning: db-1: the certificate /etc/infractl/postgresql/server.crt expires on 2026-11-28",
			"warning: db-1 has to boot for its updates",
			"warning: tier web does not serve the same everywhere: web-1: nginx 1.26.3; web-2: nginx 1.26.4",
		}},
		{"what is one already", func(f *facts) {
			f.readings["db-1"].diskFree, f.readings["db-1"].diskAvailable = 1000, 1000
			f.readings["db-1"].certificates[0].expires = noon.Add(-time.Hour)
		}, false, []string{
			"problem: db-1: the certificate /etc/infractl/postgresql/server.crt expired on 2026-11-24",
			"problem: db-1: its disk is 100 % full",
		}},
		{"hosts from before there was draining", func(f *facts) {
			for _, r := range f.readings {
				r.ready = nil
			}
			f.readings["app-1"].samples = nil
			f.readings["app-1"].units = []unit{{"app-guestbook.service", "loaded", "active", "running"}}
		}, true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := well(t)
			c.change(&f)
			s := assess("shop", shop(), f, noon)
			if got := told(s); !slices.Equal(got, c.want) || s.Healthy != c.healthy {
				t.Errorf("healthy: %v\n%s\nwant\n%s", s.Healthy, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			for _, p := range s.Problems {
				if p.Advice == "" {
					t.Errorf("nobody says what to do: %s", p.Message)
				}
			}
		})
	}
}

func TestRatesAreThoseBetweenTwoSamples(t *testing.T) {
	f := well(t)
	f.readings["lb-1"] = recorded(t, "lb-1.errors")
	s := assess("shop", shop(), f, noon)
	by := map[string]Host{}
	for _, h := range s.Hosts {
		by[h.Name] = h
	}
	// Between the samples 23 responses came, all of them errors, within 1.03 s.
	lb := by["lb-1"]
	if lb.RequestsPerSecond == nil || *lb.RequestsPerSecond < 20 || *lb.RequestsPerSecond > 23 || lb.ErrorShare == nil || *lb.ErrorShare != 1 {
		t.Errorf("lb-1: %v, %v", value(lb.RequestsPerSecond), value(lb.ErrorShare))
	}
	// Those of web-1 are spread over the backends web and write.
	web := by["web-1"]
	if web.RequestsPerSecond == nil || *web.RequestsPerSecond < 20 || web.ErrorShare == nil || *web.ErrorShare != 1 {
		t.Errorf("web-1: %v, %v", value(web.RequestsPerSecond), value(web.ErrorShare))
	}
	if idle := by["lb-2"]; idle.RequestsPerSecond == nil || *idle.RequestsPerSecond != 0 || idle.ErrorShare != nil {
		t.Errorf("lb-2: %v, %v", value(idle.RequestsPerSecond), value(idle.ErrorShare))
	}

	// One sample is enough if there was one before.
	f.before = map[string]sample{"lb-1": f.readings["lb-1"].samples[0]}
	f.readings["lb-1"].samples = f.readings["lb-1"].samples[1:]
	again := assess("shop", shop(), f, noon).Hosts[0]
	if value(again.RequestsPerSecond) != value(lb.RequestsPerSecond) {
		t.Errorf("%v, not %v", value(again.RequestsPerSecond), value(lb.RequestsPerSecond))
	}
	// Nobody knows what came between a sample and a reload.
	f.before["lb-1"].rows[0].responses = 1000
	if h := assess("shop", shop(), f, noon).Hosts[0]; h.RequestsPerSecond != nil {
		t.Errorf("after a reload: %v", value(h.RequestsPerSecond))
	}
	delete(f.before, "lb-1")
	if h := assess("shop", shop(), f, noon).Hosts[0]; h.RequestsPerSecond != nil || h.Sessions == nil {
		t.Errorf("with one sample: %v", value(h.RequestsPerSecond))
	}
}

func value(n *float64) any {
	if n == nil {
		return nil
	}
	return *n
}

func TestAnUnhealthyEnvironmentFitsTheScreen(t *testing.T) {
	f := well(t)
	f.readings["lb-1"] = recorded(t, "lb-1.errors")
	f.readings["web-2"] = nil
	f.errors["web-2"] = context.DeadlineExceeded
	f.readings["app-1"] = recorded(t, "app-1.down")
	f.drifts["lb-2"] = &Drift{Files: []string{"/etc/haproxy/haproxy.cfg"}, Other: []string{}}
	f.drifts["db-1"] = nil
	f.holders[0].Server = "shop-lb-2"
	f.readings["web-1"].drained, f.readings["web-1"].reason = true, "by ann@desk \x1b[31m"
	f.runs = Runs{Running: "bob@desk (process 7) since 2026-11-24 11:59:00"}
	s := assess("shop", shop(), f, noon)
	s.Seconds = 2.61
	for _, width := range []int{0, 80} {
		lines := s.Lines(report.Style{}, width)
		for _, line := range lines {
			if n := len([]rune(line)); width > 0 && n >= width {
				t.Errorf("%d columns: %s", n, line)
			}
			if strings.Contains(line, "\x1b") {
				t.Errorf("%q", line)
			}
		}
		golden(t, fmt.Sprintf("unhealthy.%d", width), strings.Join(lines, "\n")+"\n")
	}
	// Colours change nothing but the colours.
	painted := strings.Join(s.Lines(report.Style{Color: true}, 80), "\n")
	for _, code := range []string{"0", "1", "2", "31", "32", "33"} {
		painted = strings.ReplaceAll(painted, "\x1b["+code+"m", "")
	}
	if plain := strings.Join(s.Lines(report.Style{}, 80), "\n"); painted != plain {
		t.Errorf("with colours\n%s\nwithout\n%s", painted, plain)
	}
}

func TestWhatFollowsFromAFileIsNoDriftOfItsOwn(t *testing.T) {
	plan := []provision.Action{
		{Kind: provision.InstallPackage, Subject: "nginx"},
		{Kind: provision.WriteFile, Subject: "/etc/a"},
		{Kind: provision.RemoveFile, Subject: "/etc/b"},
		{Kind: provision.DaemonReload},
		{Kind: provision.ReloadUnit, Subject: "nginx.service"},
		{Kind: provision.RemoveTree, Subject: "/srv/old"},
		{Kind: provision.Record},
	}
	d := driftOf(plan)
	if !slices.Equal(d.Files, []string{"/etc/a", "/etc/b"}) || !slices.Equal(d.Other, []string{"install nginx"}) {
		t.Errorf("%+v", d)
	}
	d = driftOf([]provision.Action{{Kind: provision.ReloadUnit, Subject: "nginx.service", Reason: "was not loaded"}})
	if !slices.Equal(d.Other, []string{"reload nginx.service (was not loaded)"}) || d.Count() != 1 {
		t.Errorf("%+v", d)
	}
	if (*Drift)(nil).Count() != 0 {
		t.Error("what is not known counts")
	}
}

func TestEveryTierIsAskedForWhatItHas(t *testing.T) {
	for _, h := range shop().Hosts {
		text := script(h, "@@x", false)
		got := map[string]bool{}
		for _, word := range []string{"balancer 8404", "\nweb\n", "\napplication\n", "database '10.0.0.15'", "between '/run/haproxy/admin.sock'", "between '/run/infractl-gate/admin.sock'"} {
			_, own, _ := strings.Cut(text, "\nmark=")
			got[strings.TrimSpace(word)] = strings.Contains(own, word)
		}
		want := map[string][]string{
			"lb":  {"balancer 8404", "between '/run/haproxy/admin.sock'"},
			"web": {"web"},
			"app": {"application", "between '/run/infractl-gate/admin.sock'"},
			"db":  {"database '10.0.0.15'"},
		}[h.Tier]
		if strings.Contains(script(h, "@@x", true), "between '") {
			t.Errorf("%s takes two samples when asked again", h.Name)
		}
		for word := range maps.Keys(got) {
			if got[word] != slices.Contains(want, word) {
				t.Errorf("%s: %q: %v", h.Name, word, got[word])
			}
		}
	}
}
