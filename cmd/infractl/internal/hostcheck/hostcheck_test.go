package hostcheck

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/fleet/fleettest"
	"github.com/infractl/infractl/cmd/infractl/internal/inventory"
	"github.com/infractl/infractl/cmd/infractl/internal/report"
	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/provision/desired"
)

// rack is a server of which all is as the inventory says.
func rack() Server {
	return Server{
		Server: inventory.Server{
			Name: "rack-1", Lists: []string{"web"}, Hosts: []string{"web-1"}, Address: "192.0.2.1", Port: 22, User: "root",
			Private: "10.0.1.11", MemoryMB: 4096, Cores: 2, Debian: 13,
		},
		Environment: "shop",
		Ports:       map[int]string{80: "nginx", 5432: "PostgreSQL"},
		Desired: &desired.Host{Units: []desired.Unit{
			{Name: "nginx.service", Enabled: true, Active: true}, {Name: "haproxy.service"},
			{Name: "postgresql@17-main.service", Enabled: true, Active: true},
		}},
	}
}

// machine is what rack shows.
func machine(change func(*provision.Machine)) *provision.Machine {
	m := &provision.Machine{
		OS: "debian", Version: "13", Name: "Debian GNU/Linux 13 (trixie)", Kernel: "6.12", Cores: 2, MemoryMB: 3920, Systemd: true,
		ClockError: 50 * time.Millisecond, FreeRoot: 20 << 30, FreeVar: 20 << 30,
		Interfaces: []provision.Interface{
			{Name: "eth0", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}},
			{Name: "eth1", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.1.11/24")}},
		},
	}
	if change != nil {
		change(m)
	}
	return m
}

// brief is what was found, in short.
func brief(all []Finding) string {
	var out []string
	for _, f := range all {
		out = append(out, string(f.Level)+" "+f.Check)
	}
	return strings.Join(out, ", ")
}

func TestAVirtualIPThatAnotherMachineHasIsFound(t *testing.T) {
	vip, second := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")
	balancer := Server{VIPs: []netip.Addr{vip, second}}
	for _, c := range []struct {
		name string
		// has is who has the first of the virtual IPs, as each load balancer sees it.
		has  []string
		want int
	}{
		{"nobody", []string{"", ""}, 0},
		{"the other load balancer", []string{"02:00:00:00:00:02", ""}, 0},
		{"a stranger", []string{"02:00:00:00:00:99", "02:00:00:00:00:99"}, 2},
		{"a stranger that only one of them sees", []string{"", "02:00:00:00:00:99"}, 1},
		{"a server of another tier", []string{"02:00:00:00:00:03", ""}, 0},
		{"perhaps the load balancer that could not be looked at", []string{"02:00:00:00:00:99"}, 0},
	} {
		servers := []Server{balancer, balancer, {}}
		results := []Result{{macs: []string{"", "02:00:00:00:00:01"}}, {macs: []string{"02:00:00:00:00:02"}}, {macs: []string{"02:00:00:00:00:03"}}}
		for i, mac := range c.has {
			results[i].neighbours = map[string]string{}
			if mac != "" {
				results[i].neighbours[vip.String()] = mac
			}
		}
		strangers(servers, results)
		n := 0
		for _, r := range results {
			for _, f := range r.Findings {
				if f.Level != Problem || f.Check != "vip" || !strings.Contains(f.Message, "192.0.2.10") || !strings.Contains(f.Message, "02:00:00:00:00:99") {
					t.Errorf("%s: %+v", c.name, f)
				}
				n++
			}
		}
		if n != c.want {
			t.Errorf("%s: %d findings", c.name, n)
		}
	}
}

func TestMachinesAreHeldAgainstTheInventory(t *testing.T) {
	for _, c := range []struct {
		name, want, words string
		change            func(*provision.Machine)
	}{
		{"as it should be", "", "", nil},
		{"another distribution", "problem debian", "it runs Ubuntu 24.04", func(m *provision.Machine) { m.OS, m.Name = "ubuntu", "Ubuntu 24.04" }},
		{"a release that is too old", "problem debian", "infractl needs Debian 13 or 12", func(m *provision.Machine) { m.Version = "11" }},
		{"the other release", "problem debian", "set debian: 12", func(m *provision.Machine) { m.Version = "12" }},
		{"no systemd", "problem systemd", "systemd-sysv", func(m *provision.Machine) { m.Systemd = false }},
		{"a clock within what the question took", "", "", func(m *provision.Machine) { m.ClockOffset = 1040 * time.Millisecond }},
		{"a clock that is a little off", "warning clock", "2.5s behind", func(m *provision.Machine) { m.ClockOffset = -2500 * time.Millisecond }},
		{"a clock that is minutes off", "problem clock", "5m10s ahead of", func(m *provision.Machine) { m.ClockOffset = 310 * time.Second }},
		{"a clock that is an hour off", "problem clock", "timedatectl set-local-rtc 0", func(m *provision.Machine) { m.ClockOffset = time.Hour + 3*time.Second }},
		{"a full disk", "problem disk", "/ has 100 MiB free", func(m *provision.Machine) { m.FreeRoot, m.FreeVar = 100<<20, 100<<20 }},
		{"a full disk of its own for /var", "warning disk", "/var has only 1.5 GiB free", func(m *provision.Machine) { m.FreeVar = 3 << 29 }},
		{"half of the memory", "problem memory", "set memory: 2048", func(m *provision.Machine) { m.MemoryMB = 2048 }},
		{"a little less memory", "warning memory", "", func(m *provision.Machine) { m.MemoryMB = 3300 }},
		{"much more memory", "warning memory", "only 4096 would be used", func(m *provision.Machine) { m.MemoryMB = 16000 }},
		{"fewer cores", "warning cores", "set cores: 1", func(m *provision.Machine) { m.Cores = 1 }},
		{"no private address", "problem private", "it has 192.0.2.1", func(m *provision.Machine) { m.Interfaces = m.Interfaces[:1] }},
		{"a private address on an interface that is down", "problem private", "eth1, which is down", func(m *provision.Machine) { m.Interfaces[1].Up = false }},
		{"packages half-way", "problem dpkg", "dpkg --configure -a", func(m *provision.Machine) {
			m.Unfinished = "The following packages are only half configured:\n half                 fails"
		}},
		{"dpkg cut off", "problem dpkg", "dpkg was interrupted", func(m *provision.Machine) { m.Unfinished = "dpkg was interrupted" }},
		{"apt at work", "problem dpkg", "unattended-upgr (process 77) holds the lock /var/lib/dpkg/lock", func(m *provision.Machine) {
			m.Busy = []provision.Holder{{File: "/var/lib/dpkg/lock", PID: 77, Name: "unattended-upgr"}, {File: "/var/lib/dpkg/lock-frontend", PID: 77, Name: "unattended-upgr"}}
		}},
	} {
		found := judge(rack(), machine(c.change))
		text := ""
		for _, f := range found {
			text += f.Message + "; " + f.Advice + "\n"
		}
		if got := brief(found); got != c.want || !strings.Contains(text, c.words) {
			t.Errorf("%s: %q, not %q\n%s", c.name, got, c.want, text)
		}
	}
}

func TestWhatIsInTheWayIsFound(t *testing.T) {
	for _, c := range []struct{ name, said, want, words string }{
		{"nothing", "", "", ""},
		{"it is this environment's", "owner shop app-1\n", "", ""},
		{"it is another environment's", "owner prod web-2\n", "problem owner", "prod web-2"},
		{"chrony", "clock chrony\n", "problem time", "apt-get remove chrony"},
		{"no namespaces", "namespace unshare: unshare failed: Operation not permitted\n", "problem kernel", "Operation not permitted"},
		{"no nftables", "nftables there is no module nf_tables\n", "problem kernel", "no module nf_tables"},
		{"sshd that reads no other files", "noinclude /etc/ssh/sshd_config\n", "problem sshd", "Include /etc/ssh/sshd_config.d/*.conf"},
		{"sshd settings that come first", "sshd /etc/ssh/sshd_config.d/01-own.conf\n", "warning sshd", "01-own.conf"},
		{"the daemon itself", `listen LISTEN 0 511 10.0.1.11:80 0.0.0.0:* users:(("nginx",pid=9,fd=5),("nginx",pid=8,fd=5)) cgroup:/system.slice/nginx.service` + "\n", "", ""},
		{"a daemon that is to be stopped", `listen LISTEN 0 511 *:80 *:* users:(("haproxy",pid=9,fd=5)) cgroup:/system.slice/haproxy.service` + "\n", "", ""},
		{"somebody else on both families", `listen LISTEN 0 511 0.0.0.0:80 0.0.0.0:* users:(("apache2",pid=9,fd=5)) cgroup:/system.slice/apache2.service` + "\n" +
			`listen LISTEN 0 511 [::]:80 [::]:* users:(("apache2",pid=9,fd=5)) cgroup:/system.slice/apache2.service` + "\n",
			"problem ports", "apache2 (apache2.service) listens there, on 0.0.0.0; on the server: systemctl disable --now apache2.service"},
		{"somebody whose unit is not known", `listen LISTEN 0 511 127.0.0.1:5432 0.0.0.0:* users:(("docker-proxy",pid=9,fd=5))` + "\n", "problem ports", "port 5432 is for PostgreSQL, but docker-proxy listens there"},
		{"another cluster on the port", `listen LISTEN 0 511 127.0.0.1:5432 0.0.0.0:* users:(("postgres",pid=9,fd=5)) cgroup:/system.slice/system-postgresql.slice/postgresql@15-main.service` + "\n" + "cluster 15/main\n",
			"problem ports, warning database", "pg_dropcluster --stop 15 main"},
		{"a cluster that would be taken over", "cluster 17/main\n", "warning database", "takes it over, with its data"},
		{"a cluster that was taken over", "cluster 17/main\nowner shop web-1\n", "", ""},
		{"a port that nobody wants", `listen LISTEN 0 511 *:8443 *:* users:(("java",pid=9,fd=5)) cgroup:/` + "\n", "", ""},
	} {
		v, err := parseSurvey(c.said + "end\n")
		if err != nil {
			t.Fatal(err)
		}
		found := v.judge(rack())
		text := ""
		for _, f := range found {
			text += f.Message + "; " + f.Advice + "\n"
		}
		if got := brief(found); got != c.want || !strings.Contains(text, c.words) {
			t.Errorf("%s: %q, not %q\n%s", c.name, got, c.want, text)
		}
	}
	if _, err := parseSurvey("clock chrony\n"); err == nil {
		t.Error("an answer without its end is taken for complete")
	}
}

func TestFilesOfOthersAreShownWithWhatTheyWouldBecome(t *testing.T) {
	h := desired.Host{
		Files: map[string]desired.File{
			"/etc/hosts": {Content: "new\n"}, "/etc/same": {Content: "same\n"}, "/etc/ours": {Content: "new\n"}, "/etc/none": {Content: "new\n"},
			"/etc/secret": {Content: "new\n"}, "/etc/link": {Link: "/srv/app"}, "/etc/dir": {Content: "new\n"}, "/etc/rightlink": {Link: "/srv/app"},
			"/etc/infractl/host": {Content: "shop web-1\n"},
		},
		Units: []desired.Unit{{Name: "haproxy.service"}},
	}
	text := func(content, mode string) provision.File {
		return provision.File{Kind: 'f', Mode: mode, Content: content, Known: true}
	}
	a := &provision.Actual{
		Files: map[string]provision.File{
			"/etc/hosts": text("old\n", "0644"), "/etc/same": text("same\n", "0644"), "/etc/ours": text("by hand\n", "0644"),
			"/etc/secret": text("password\n", "0640"), "/etc/link": text("old\n", "0644"), "/etc/dir": {Kind: 'd', Mode: "0755"},
			"/etc/rightlink":     {Kind: 'l', Link: "/srv/app"},
			"/etc/infractl/host": text("prod web-1\n", "0644"),
		},
		Units: map[string]provision.Unit{"haproxy.service": {Active: "active"}},
	}
	files := foreignFiles(h, a)
	var paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
		if strings.Contains(f.Diff+f.Note, "password") {
			t.Errorf("the text of a file that not everybody may read is shown: %+v", f)
		}
	}
	if want := []string{"/etc/dir", "/etc/hosts", "/etc/link", "/etc/ours", "/etc/secret"}; !slices.Equal(paths, want) {
		t.Errorf("%v, not %v", paths, want)
	}
	if want := "--- /etc/hosts on the server\n+++ /etc/hosts of infractl\n@@ -1 +1 @@\n-old\n+new\n"; files[1].Diff != want {
		t.Errorf("%s", files[1].Diff)
	}
	if got := brief(takenOver(h, a, files)); got != "problem files, warning files, warning units" {
		t.Errorf("%s", got)
	}
	// What infractl has written itself is drift, and is shown by preview.
	a.Manifest = []string{"/etc/ours", "/etc/hosts"}
	if files := foreignFiles(h, a); len(files) != 3 {
		t.Errorf("%+v", files)
	}
	if got := brief(takenOver(h, a, nil)); got != "" {
		t.Errorf("%s", got)
	}
}

func TestLongDiffsAreCut(t *testing.T) {
	r := []Result{{Title: "rack-1", OK: true, Files: []File{{Path: "/etc/hosts", Diff: "--- a\n" + strings.Repeat("+line\n", 99)}}}}
	lines := Lines(r, report.Style{}, 0)
	if got := lines[len(lines)-3]; got != "… and 60 more lines; --json has them" {
		t.Errorf("%q", got)
	}
}

func TestClockOfThisComputerIsBlamedIfAllServersAgree(t *testing.T) {
	results := func(offsets ...float64) []Result {
		var out []Result
		for _, o := range offsets {
			r := Result{System: "Debian", ClockOffset: o}
			r.Findings = judgeClock(&provision.Machine{ClockOffset: time.Duration(o * float64(time.Second))})
			out = append(out, r)
		}
		return out
	}
	for _, c := range []struct {
		offsets []float64
		want    bool
	}{{[]float64{3600, 3600.5}, true}, {[]float64{3600}, false}, {[]float64{3600, 0.1}, false}, {[]float64{-90, -91}, true}} {
		r := results(c.offsets...)
		agree(r)
		if got := strings.Contains(r[0].Findings[0].Advice, "this computer's clock"); got != c.want {
			t.Errorf("%v: %v", c.offsets, r[0].Findings)
		}
	}
}

// reachable are servers in this process, as an inventory has them.
func reachable(t *testing.T, names ...string) ([]Server, map[string]*fleettest.Host) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte("Host *\n  UserKnownHostsFile none\n  GlobalKnownHostsFile none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, hosts := fleettest.New(t, names...)
	t.Setenv("INFRACTL_SSH_CONFIG", config)
	var out []Server
	for _, h := range f.Hosts {
		out = append(out, Server{Server: inventory.Server{
			Name: h.Server, Hosts: []string{h.Name}, Address: h.Public, Port: f.Port, User: f.User, HostKey: h.HostKey, MemoryMB: 1, Cores: 1, Debian: 13,
		}})
	}
	return out, hosts
}

func TestEveryServerIsLookedAtWhateverIsWrongWithOthers(t *testing.T) {
	servers, hosts := reachable(t, "web-1", "web-2", "web-3", "web-4", "web-5")
	hosts["web-2"].Stop()
	servers[2].HostKey = servers[0].HostKey
	servers[3].HostKey = ""
	servers[4].Jump = "not a host"
	results := Check(t.Context(), servers)
	if r := results[0]; r.System == "" || r.MemoryMB == 0 || r.Cores == 0 || r.BecomesRoot != "sudo" || r.DiskFree == 0 {
		t.Errorf("test-web-1: %+v", r)
	}
	for i, want := range map[int]Finding{
		1: {Problem, "connection", "cannot be reached", "check that it runs"},
		2: {Problem, "hostKey", "the host key is not the expected one", "do not go on"},
		3: {Problem, "hostKey", "the host's key is not known", "ssh-keygen -lf"},
		4: {Problem, "sshConfig", "", ""},
	} {
		r := results[i]
		if len(r.Findings) != 1 || r.OK {
			t.Errorf("%s: %+v", r.Title, r)
			continue
		}
		f := r.Findings[0]
		if f.Level != want.Level || f.Check != want.Check || !strings.Contains(f.Message, want.Message) || !strings.Contains(f.Advice, want.Advice) || strings.HasPrefix(f.Message, r.Title) {
			t.Errorf("%s: %+v, not %+v", r.Title, f, want)
		}
	}
}

func TestScriptsAnswerIsComplete(t *testing.T) {
	servers, _ := reachable(t, "web-1")
	conn, err := provision.Connect(t.Context(), provision.Target{Name: "web-1", Address: servers[0].Address, Port: servers[0].Port, User: servers[0].User, HostKey: servers[0].HostKey, Own: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	text, err := conn.Run(t.Context(), "survey", script+"survey\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseSurvey(string(text)); err != nil {
		t.Error(err)
	}
	text, err = conn.Run(t.Context(), "packaged", script+"packaged /etc/nowhere\n")
	if err != nil || string(text) != "end\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestOneScreenShowsWhatWasFound(t *testing.T) {
	results := []Result{
		{Title: "rack-1", Hosts: []string{"web-1"}, Address: "192.0.2.1", OK: true, System: "Debian GNU/Linux 13 (trixie)", MemoryMB: 3920, Cores: 2, DiskFree: 20 << 30, BecomesRoot: "root",
			Findings: []Finding{{Warning, "files", "infractl up writes over /etc/hosts", "keep it"}}, Files: []File{{Path: "/etc/hosts", Diff: "--- a\n+++ b\n@@ -1 +1 @@\n-\x1b[2Jold\n+new\n"}}},
		{Title: "rack-2", Hosts: []string{}, Address: "192.0.2.2", Findings: []Finding{{Problem, "connection", "it cannot be reached", "turn it on"}}},
	}
	want := []string{
		"   SERVER  USED AS  ADDRESS    SYSTEM                        ROOT BY  MEMORY  CORES      FREE   CLOCK",
		"!  rack-1  web-1    192.0.2.1  Debian GNU/Linux 13 (trixie)  root       3920      2  20.0 GiB  +0.0 s",
		"✗  rack-2  -        192.0.2.2",
		"",
		"✗ rack-2: it cannot be reached; turn it on",
		"",
		"! rack-1: infractl up writes over /etc/hosts; keep it",
		"",
		"rack-1: /etc/hosts",
		"--- a", "+++ b", "@@ -1 +1 @@", `-\x1b[2Jold`, "+new",
		"",
		"1 problem and 1 warning; of 2 servers, 1 cannot be used so",
	}
	if got := Lines(results, report.Style{}, 0); !reflect.DeepEqual(got, want) {
		t.Errorf("\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
