//go:build lab

package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/infractl/infractl/provision/desired"
)

// These tests change a real Debian machine that is thrown away afterwards.

// target is the machine under test: INFRACTL_TEST_TARGET holds a Target as
// JSON, INFRACTL_SSH_IDENTITY the key that it lets in.
func target(t *testing.T) Target {
	t.Helper()
	text := os.Getenv("INFRACTL_TEST_TARGET")
	if text == "" {
		t.Skip("INFRACTL_TEST_TARGET is not set")
	}
	var target Target
	if err := json.Unmarshal([]byte(text), &target); err != nil {
		t.Fatal(err)
	}
	return target
}

func connect(t *testing.T) *Conn {
	t.Helper()
	c, err := Connect(t.Context(), target(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// on runs a command on the machine as root and returns its output.
func on(t *testing.T, c *Conn, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := c.output(ctx, "test", "printf '@infractl\\n'\n"+command+"\n")
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return strings.TrimSpace(string(out))
}

// clean takes everything away that an earlier test left on the machine.
func clean(t *testing.T, c *Conn) {
	t.Helper()
	if _, err := c.Apply(t.Context(), desired.Host{}, Options{}); err != nil {
		t.Fatal(err)
	}
	on(t, c, "systemctl disable --now haproxy nginx infractl-test >/dev/null 2>&1 || :")
}

func apply(t *testing.T, c *Conn, h desired.Host) Result {
	t.Helper()
	r, err := c.Apply(t.Context(), h, Options{Progress: func(s string) { t.Log(s) }})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const haproxyText = `global
    log stdout local0
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
    # @@value.colour@@
listen test
    bind @@value.address@@:8081
    http-request return status 200 content-type text/plain string "@@secret.word@@"
`

// balancer is a small host with everything but packages: a daemon with its
// checker and a health check, a secret, a link, a tree, a user and a unit of our own.
func balancer(t *testing.T) desired.Host {
	t.Helper()
	release := t.TempDir()
	write(t, filepath.Join(release, "bin", "run"), "#!/bin/sh\nexec sleep infinity\n", 0o755)
	write(t, filepath.Join(release, "text"), "hello\n", 0o644)
	sum, err := desired.Digest(release)
	if err != nil {
		t.Fatal(err)
	}
	tree := "/srv/test/releases/" + sum[7:19]
	return desired.Host{
		Packages: []string{"haproxy", "curl"},
		Users:    []desired.User{{Name: "testapp", Home: "/srv/test", Groups: []string{"haproxy"}}},
		Trees:    map[string]desired.Tree{tree: {Source: release, Digest: sum}},
		Files: map[string]desired.File{
			"/etc/haproxy/haproxy.cfg":                  {Content: haproxyText, Mode: "0640", Group: "haproxy"},
			"/srv/test/current":                         {Link: tree},
			"/etc/test dir/it's $(odd) `name`":          {Content: "x\n", Mode: "0600", Owner: "testapp", Group: "testapp"},
			"/etc/systemd/system/infractl-test.service": {Content: "[Service]\nUser=testapp\nExecStart=/srv/test/current/bin/run\n[Install]\nWantedBy=multi-user.target\n"},
		},
		Units: []desired.Unit{
			{Name: "infractl-test.service", Enabled: true, Active: true, RestartOn: []string{"/srv/test/current"}},
			{
				Name: "haproxy.service", Enabled: true, Active: true,
				ReloadOn: []string{"/etc/haproxy/"},
				Validate: "haproxy -c -f /etc/haproxy/haproxy.cfg",
				Health:   "curl -sf http://127.0.0.1:8081/",
			},
		},
		Values:  map[string]string{"address": "127.0.0.1", "colour": "blue"},
		Secrets: map[string]string{"word": "a secret word 4711"},
	}
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestApplyMakesHostAsDesiredAndThenHasNothingToDo(t *testing.T) {
	c := connect(t)
	clean(t, c)
	h := balancer(t)
	start := time.Now()
	r := apply(t, c, h)
	t.Logf("first apply: %s, %d actions", time.Since(start).Round(time.Millisecond), len(r.Plan))
	if got := on(t, c, "curl -s http://127.0.0.1:8081/"); got != "a secret word 4711" {
		t.Errorf("haproxy answers %q", got)
	}
	if got := on(t, c, "stat -c '%a %U %G' /etc/haproxy/haproxy.cfg"); got != "640 root haproxy" {
		t.Errorf("attributes are %q", got)
	}
	if got := on(t, c, `cat "/etc/test dir/it's \$(odd) `+"\\`name\\`"+`"; id testapp`); !strings.Contains(got, "(haproxy)") {
		t.Errorf("got %q", got)
	}
	start = time.Now()
	if r := apply(t, c, h); len(r.Plan) != 0 {
		t.Errorf("second apply does %v", r.Plan)
	}
	t.Logf("second apply: %s", time.Since(start).Round(time.Millisecond))
	if got := on(t, c, "ls -A /var/lib/infractl/tx /run/infractl; find / -xdev -name '.infractl*'"); strings.Contains(got, "new") {
		t.Errorf("left behind: %s", got)
	}
}

func TestDriftIsSeenWithoutSecretsAndPutBack(t *testing.T) {
	c := connect(t)
	clean(t, c)
	h := balancer(t)
	apply(t, c, h)
	on(t, c, "sed -i 's/timeout client 1s/timeout client 9s/' /etc/haproxy/haproxy.cfg; chmod 0600 '/srv/test/current/text'")
	a, err := c.Inspect(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	f := a.Files["/etc/haproxy/haproxy.cfg"]
	if !f.Known || !strings.Contains(f.Content, "client 9s") || !strings.Contains(f.Content, "@@secret.word@@") || !strings.Contains(f.Content, "bind @@value.address@@:8081") {
		t.Errorf("fetched text: %v %s", f.Known, f.Content)
	}
	plan, err := Plan(h, a)
	if err != nil {
		t.Fatal(err)
	}
	if len(plan) != 2 || plan[1].Kind != ReloadUnit || !strings.Contains(plan[0].Diff, "-    timeout client 9s\n+    timeout client 1s\n") {
		t.Errorf("plan is %v\n%s", plan, plan[0].Diff)
	}
	on(t, c, "sed -i 's/secret word/other word/' /etc/haproxy/haproxy.cfg")
	a, err = c.Inspect(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if f := a.Files["/etc/haproxy/haproxy.cfg"]; f.Known {
		t.Errorf("a text that may hold an old secret is shown: %s", f.Content)
	}
	apply(t, c, h)
	if got := on(t, c, "curl -s http://127.0.0.1:8081/"); got != "a secret word 4711" {
		t.Errorf("haproxy answers %q", got)
	}
}

func TestRefusedConfigurationLeavesHostUntouched(t *testing.T) {
	c := connect(t)
	clean(t, c)
	h := balancer(t)
	apply(t, c, h)
	before := on(t, c, "sha256sum /etc/haproxy/haproxy.cfg; systemctl show -p MainPID,InvocationID haproxy; cat /var/lib/infractl/manifest")
	bad := h.Files["/etc/haproxy/haproxy.cfg"]
	bad.Content = strings.Replace(bad.Content, "mode http", "mode htpp", 1)
	h.Files["/etc/haproxy/haproxy.cfg"] = bad
	r, err := c.Apply(t.Context(), h, Options{})
	t.Log(err)
	if !errors.Is(err, ErrValidation) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"haproxy.service", "/etc/haproxy/haproxy.cfg:4", "htpp"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "4711") {
		t.Errorf("the error holds a secret: %v", err)
	}
	if after := on(t, c, "sha256sum /etc/haproxy/haproxy.cfg; systemctl show -p MainPID,InvocationID haproxy; cat /var/lib/infractl/manifest"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if r.Actual == nil || !strings.Contains(r.Actual.Files["/etc/haproxy/haproxy.cfg"].Content, "mode http") {
		t.Errorf("the result does not say what is there: %+v", r.Actual)
	}
}

func TestUnhealthyUnitBringsPreviousFilesBack(t *testing.T) {
	c := connect(t)
	clean(t, c)
	h := balancer(t)
	apply(t, c, h)
	bad := h.Files["/etc/haproxy/haproxy.cfg"]
	bad.Content = strings.Replace(bad.Content, "status 200", "status 500", 1)
	h.Files["/etc/haproxy/haproxy.cfg"] = bad
	h.Files["/etc/new file"] = desired.File{Content: "new\n"}
	h.Units[1].HealthTimeout = 2
	r, err := c.Apply(t.Context(), h, Options{})
	t.Log(err)
	if !errors.Is(err, ErrUnhealthy) || !errors.Is(err, ErrReverted) || !r.Reverted {
		t.Fatalf("got %v", err)
	}
	if got := on(t, c, "curl -sf http://127.0.0.1:8081/; test ! -e '/etc/new file'"); got != "a secret word 4711" {
		t.Errorf("haproxy answers %q", got)
	}
	if _, ok := r.Actual.Files["/etc/new file"]; ok {
		t.Error("the result claims a file that is not there")
	}
}

func TestUnitThatCrashesAtFirstInstallIsTakenBack(t *testing.T) {
	c := connect(t)
	clean(t, c)
	h := balancer(t)
	f := h.Files["/etc/systemd/system/infractl-test.service"]
	f.Content = strings.Replace(f.Content, "bin/run", "bin/nothing", 1)
	h.Files["/etc/systemd/system/infractl-test.service"] = f
	_, err := c.Apply(t.Context(), h, Options{})
	t.Log(err)
	if !errors.Is(err, ErrReverted) {
		t.Fatalf("got %v", err)
	}
	if got := on(t, c, "ls /etc/systemd/system/infractl-test.service /etc/systemd/system/multi-user.target.wants/infractl-test.service 2>/dev/null || :"); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

func TestFilesAndUnitsNoLongerDesiredAreRemoved(t *testing.T) {
	c := connect(t)
	clean(t, c)
	h := balancer(t)
	apply(t, c, h)
	h.Units = h.Units[1:]
	delete(h.Files, "/etc/systemd/system/infractl-test.service")
	delete(h.Files, "/srv/test/current")
	h.Trees = nil
	r := apply(t, c, h)
	t.Log(r.Plan)
	if got := on(t, c, "systemctl is-active infractl-test; ls -d /etc/systemd/system/infractl-test.service /srv/test/current /srv/test/releases/* 2>/dev/null; :"); got != "inactive" {
		t.Errorf("left behind: %s", got)
	}
	if r := apply(t, c, h); len(r.Plan) != 0 {
		t.Errorf("second apply does %v", r.Plan)
	}
}

func TestOldTreesArePruned(t *testing.T) {
	c := connect(t)
	clean(t, c)
	h := balancer(t)
	var names []string
	for i := range 5 {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "n"), fmt.Sprint(i), 0o644)
		sum, err := desired.Digest(dir)
		if err != nil {
			t.Fatal(err)
		}
		name := "/srv/test/releases/" + sum[7:19]
		names = append(names, name)
		host := desired.Host{
			Trees: map[string]desired.Tree{name: {Source: dir, Digest: sum}},
			Files: map[string]desired.File{"/srv/test/current": {Link: name}},
		}
		apply(t, c, host)
		time.Sleep(1100 * time.Millisecond) // uploads are told apart by the second
		h = host
	}
	if r := apply(t, c, h); len(r.Plan) != 0 {
		t.Errorf("second apply does %v", r.Plan)
	}
	got := strings.Fields(on(t, c, "ls -d /srv/test/releases/*"))
	if len(got) != 3 {
		t.Errorf("%d trees are left: %v of %v", len(got), got, names)
	}
}

func TestRunKilledBetweenRenameAndReloadIsNoticed(t *testing.T) {
	c := connect(t)
	clean(t, c)
	h := balancer(t)
	apply(t, c, h)
	// What a host looks like that lost power at that moment.
	on(t, c, "sed -i 's/ [^ ]*$/ 0/' /var/lib/infractl/loaded/haproxy.service")
	r := apply(t, c, h)
	if len(r.Plan) != 1 || r.Plan[0].Kind != ReloadUnit {
		t.Errorf("plan is %v", r.Plan)
	}
}

func TestGuardedChangeIsConfirmedOverNewConnection(t *testing.T) {
	c := connect(t)
	clean(t, c)
	h := sshd("# a harmless change\n")
	r := apply(t, c, h)
	if got := on(t, c, "systemctl list-units --all --no-legend 'infractl-revert*'; cat /etc/ssh/sshd_config.d/50-infractl.conf"); got != "# a harmless change" {
		t.Errorf("got %q after %v", got, r.Plan)
	}
}

func sshd(text string) desired.Host {
	return desired.Host{
		Files: map[string]desired.File{"/etc/ssh/sshd_config.d/50-infractl.conf": {Content: text}},
		Units: []desired.Unit{{
			Name: "ssh.service", Enabled: true, Active: true, Guarded: true,
			ReloadOn: []string{"/etc/ssh/sshd_config.d/"}, Validate: "sshd -t",
		}},
	}
}

func TestLockOutIsTakenBack(t *testing.T) {
	c := connect(t)
	clean(t, c)
	apply(t, c, sshd("# fine\n"))
	start := time.Now()
	_, err := c.Apply(t.Context(), sshd("DenyUsers *\n"), Options{})
	t.Logf("after %s: %v", time.Since(start).Round(time.Second), err)
	if !errors.Is(err, ErrUnconfirmed) || !errors.Is(err, ErrReverted) {
		t.Fatalf("got %v", err)
	}
	fresh := connect(t)
	if got := on(t, fresh, "cat /etc/ssh/sshd_config.d/50-infractl.conf"); got != "# fine" {
		t.Errorf("sshd has %q", got)
	}
}

func TestFirewallThatCutsTheConnectionIsTakenBack(t *testing.T) {
	c := connect(t)
	clean(t, c)
	// Not nftables.service: what that flushes is the machine's own affair.
	firewall := func(rule string) desired.Host {
		return desired.Host{
			Packages: []string{"nftables"},
			Files: map[string]desired.File{
				"/etc/test-firewall.nft":                    {Content: "table inet test\ndelete table inet test\ntable inet test {\n\tchain input {\n\t\ttype filter hook input priority 0;\n\t\t" + rule + "\n\t}\n}\n"},
				"/etc/systemd/system/test-firewall.service": {Content: "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=nft -f /etc/test-firewall.nft\nExecReload=nft -f /etc/test-firewall.nft\nExecStop=nft delete table inet test\n"},
			},
			Units: []desired.Unit{{Name: "test-firewall.service", Active: true, Guarded: true, ReloadOn: []string{"/etc/test-firewall.nft"}, Validate: "nft -c -f /etc/test-firewall.nft"}},
		}
	}
	apply(t, c, firewall("tcp dport 22 accept"))
	start := time.Now()
	r, err := c.Apply(t.Context(), firewall("tcp dport 22 drop"), Options{Progress: func(s string) { t.Log(s) }})
	t.Logf("after %s: %v", time.Since(start).Round(time.Second), err)
	if !errors.Is(err, ErrUnconfirmed) || !errors.Is(err, ErrReverted) {
		t.Fatalf("got %v", err)
	}
	if r.Actual == nil || !strings.Contains(r.Actual.Files["/etc/test-firewall.nft"].Content, "accept") {
		t.Errorf("the result is %+v", r.Actual)
	}
	clean(t, connect(t))
}

// unconfirmed leaves a guarded change on the machine that nobody confirmed,
// because both sides of it died.
func unconfirmed(t *testing.T, c *Conn) {
	t.Helper()
	clean(t, c)
	apply(t, c, sshd("# before\n"))
	victim := connect(t)
	_, err := victim.Apply(t.Context(), sshd("# after\n"), Options{
		// A connection that fails, so that the change stays unconfirmed.
		Confirm: &Target{Name: "nowhere", Address: "127.0.0.1", Port: 1, HostKey: target(t).HostKey},
		Progress: func(s string) {
			if strings.HasPrefix(s, "confirming") {
				on(t, c, `for p in /proc/[0-9]*; do [ "$(readlink $p/fd/9)" != /run/infractl/lock ] || kill -KILL "${p#/proc/}"; done`)
				victim.Close()
			}
		},
	})
	if err == nil {
		t.Fatal("it was confirmed")
	}
	if got := on(t, c, "cat /etc/ssh/sshd_config.d/50-infractl.conf"); got != "# after" {
		t.Fatalf("sshd has %q", got)
	}
}

func TestTimerTakesAnUnconfirmedChangeBack(t *testing.T) {
	c := connect(t)
	unconfirmed(t, c)
	// What the timer starts when its time has come.
	on(t, c, "systemctl start $(systemctl list-units --all --plain --no-legend 'infractl-revert-*.timer' | sed 's/\\.timer.*/.service/'); sleep 1")
	if got := on(t, c, "cat /etc/ssh/sshd_config.d/50-infractl.conf"); got != "# before" {
		t.Errorf("sshd has %q", got)
	}
	apply(t, c, sshd("# later\n"))
	if got := on(t, c, "cat /etc/ssh/sshd_config.d/50-infractl.conf; ls -A /var/lib/infractl/tx; systemctl list-units --all --no-legend 'infractl-revert*'"); got != "# later" {
		t.Errorf("got %q", got)
	}
}

func TestNextRunTakesAnUnconfirmedChangeBackFirst(t *testing.T) {
	c := connect(t)
	unconfirmed(t, c)
	apply(t, c, sshd("# later\n"))
	if got := on(t, c, "cat /etc/ssh/sshd_config.d/50-infractl.conf; ls -A /var/lib/infractl/tx; systemctl list-units --all --no-legend 'infractl-revert*'"); got != "# later" {
		t.Errorf("got %q", got)
	}
}

func TestPortChangeIsConfirmedOnNewPort(t *testing.T) {
	c := connect(t)
	clean(t, c)
	moved := target(t)
	moved.Port = 2222
	if _, err := c.Apply(t.Context(), sshd("Port 2222\n"), Options{Confirm: &moved}); err != nil {
		t.Fatal(err)
	}
	fresh, err := Connect(t.Context(), moved)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	back := target(t)
	if _, err := fresh.Apply(t.Context(), sshd("Port 22\n"), Options{Confirm: &back}); err != nil {
		t.Fatal(err)
	}
	connect(t)
}

func TestHostLockedByAnotherRunSaysWho(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the lock")
	}
	c := connect(t)
	clean(t, c)
	on(t, c, "mkdir -p /run/infractl; systemd-run --quiet --unit=test-lock flock /run/infractl/lock sleep 4; sleep 0.5; echo 'anna@laptop since noon' >/run/infractl/holder")
	var steps []string
	h := desired.Host{Files: map[string]desired.File{"/etc/locked": {Content: "x"}}}
	start := time.Now()
	if _, err := c.Apply(t.Context(), h, Options{Progress: func(s string) { steps = append(steps, s) }}); err != nil {
		t.Fatal(err)
	}
	if time.Since(start) < 3*time.Second || !strings.Contains(strings.Join(steps, "\n"), "anna@laptop") {
		t.Errorf("after %s: %q", time.Since(start), steps)
	}
}

func TestFullDiskIsNoticedBeforeAnythingChanges(t *testing.T) {
	c := connect(t)
	clean(t, c)
	on(t, c, "mkdir -p /etc/small && mount -t tmpfs -o size=64k tmpfs /etc/small")
	defer on(t, c, "umount /etc/small")
	h := desired.Host{Files: map[string]desired.File{
		"/etc/a first": {Content: "x"}, "/etc/small/big": {Content: strings.Repeat("0123456789abcdef", 8000)},
	}}
	_, err := c.Apply(t.Context(), h, Options{})
	t.Log(err)
	if !errors.Is(err, ErrNoSpace) {
		t.Fatalf("got %v", err)
	}
	if got := on(t, c, "ls -A /etc/small; ls '/etc/a first' 2>/dev/null; :"); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

// TestConnectionLossDuringChangeDoesNotStopIt cuts the connection after the
// point of no return.
func TestConnectionLossDuringChangeDoesNotStopIt(t *testing.T) {
	c := connect(t)
	clean(t, c)
	h := balancer(t)
	apply(t, c, h)
	victim := connect(t)
	f := h.Files["/etc/haproxy/haproxy.cfg"]
	f.Content += "# more\n"
	h.Files["/etc/haproxy/haproxy.cfg"] = f
	h.Units[1].Health = "sleep 1.5 && " + h.Units[1].Health
	r, err := victim.Apply(t.Context(), h, Options{Progress: func(s string) {
		if strings.Contains(s, "healthy") {
			victim.Close()
		}
		t.Log(s)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Actual == nil || !strings.Contains(r.Actual.Files["/etc/haproxy/haproxy.cfg"].Content, "# more") {
		t.Errorf("the result is %+v", r)
	}
}

func TestCancelBeforeCommitChangesNothing(t *testing.T) {
	c := connect(t)
	clean(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h := balancer(t)
	h.Units[1].Validate = "sleep 2"
	_, err := c.Apply(ctx, h, Options{Progress: func(s string) {
		if strings.HasPrefix(s, "checking") {
			cancel()
		}
	}})
	t.Log(err)
	if !errors.Is(err, ErrCanceled) {
		t.Fatalf("got %v", err)
	}
	time.Sleep(3 * time.Second)
	if got := on(t, c, "ls -A /var/lib/infractl/tx; ls /etc/systemd/system/infractl-test.service 2>/dev/null; :"); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

func TestPackagesComeWithoutTheirDaemonsRunning(t *testing.T) {
	c := connect(t)
	clean(t, c)
	on(t, c, "DEBIAN_FRONTEND=noninteractive apt-get -qq -y purge nginx nginx-common lighttpd >/dev/null 2>&1; rm -rf /var/lib/apt/lists/*; printf '#!/bin/sh\n# of the machine itself\nexit 0\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d")
	h := desired.Host{Packages: []string{"nginx"}, Units: []desired.Unit{{Name: "nginx.service"}, {Name: "not-there.service"}}}
	r := apply(t, c, h)
	if again := apply(t, c, h); len(again.Plan) > 0 {
		t.Errorf("second apply does %v", again.Plan)
	}
	if got := on(t, c, "systemctl is-active nginx; cat /usr/sbin/policy-rc.d"); got != "inactive\n#!/bin/sh\n# of the machine itself\nexit 0" {
		t.Errorf("got %q after %v", got, r.Plan)
	}
	on(t, c, "rm /usr/sbin/policy-rc.d")
	_, err := c.Apply(t.Context(), desired.Host{Packages: []string{"no-such-package"}}, Options{})
	t.Log(err)
	if !errors.Is(err, ErrPackages) || !strings.Contains(err.Error(), "no-such-package") {
		t.Errorf("got %v", err)
	}
	if got := on(t, c, "ls /usr/sbin/policy-rc.d 2>/dev/null; :"); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

func TestInterruptedPackageInstallationIsRepaired(t *testing.T) {
	c := connect(t)
	clean(t, c)
	// What a machine looks like that lost power while dpkg was at work, before it
	// came to what the package needs.
	on(t, c, `export DEBIAN_FRONTEND=noninteractive
		apt-get -qq -y purge nginx nginx-common >/dev/null 2>&1
		apt-get -qq -y install --download-only nginx >/dev/null 2>&1
		dpkg --unpack /var/cache/apt/archives/nginx_*.deb >/dev/null 2>&1
		dpkg-query -Wf '${db:Status-Status}' nginx | grep -x unpacked
		touch /var/lib/dpkg/updates/0001`)
	r := apply(t, c, desired.Host{Packages: []string{"nginx"}})
	if got := on(t, c, "dpkg-query -Wf '${db:Status-Status}' nginx; ls /var/lib/dpkg/updates"); got != "installed" {
		t.Errorf("got %q after %v", got, r.Plan)
	}
}

// version is one of two configurations that a test goes back and forth between.
// Its files are large enough to be caught half-written if they ever were.
func version(t *testing.T, n string) desired.Host {
	h := balancer(t)
	h.Trees = nil
	delete(h.Files, "/srv/test/current")
	delete(h.Files, "/etc/systemd/system/infractl-test.service")
	h.Units = h.Units[1:]
	f := h.Files["/etc/haproxy/haproxy.cfg"]
	f.Content += strings.Repeat("# version "+n+"\n", 20000)
	h.Files["/etc/haproxy/haproxy.cfg"] = f
	for i := range 10 {
		h.Files[fmt.Sprintf("/etc/test dir/%d", i)] = desired.File{Content: strings.Repeat("version "+n+"\n", 20000)}
	}
	return h
}

// TestApplyInAnotherProcess is what TestKillingEitherSideLeavesNoHalfWrittenFile
// runs and kills.
func TestApplyInAnotherProcess(t *testing.T) {
	n := os.Getenv("INFRACTL_TEST_VERSION")
	if n == "" {
		return // nothing to do unless that test runs it
	}
	apply(t, connect(t), version(t, n))
}

func TestKillingEitherSideLeavesNoHalfWrittenFile(t *testing.T) {
	c := connect(t)
	clean(t, c)
	start := time.Now()
	apply(t, c, version(t, "a"))
	whole := time.Since(start)
	const moments = 12
	left := t.TempDir() // what a killed one cannot remove
	for i := range moments {
		n := string("ba"[i%2])
		child := exec.Command(os.Args[0], "-test.run", "^TestApplyInAnotherProcess$")
		child.Env = append(os.Environ(), "INFRACTL_TEST_VERSION="+n, "TMPDIR="+left)
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(whole * time.Duration(i+1) / moments)
		if i%3 == 2 {
			// The host's side dies too, as if the host had lost power.
			on(t, c, `for p in /proc/[0-9]*; do [ "$(readlink $p/fd/9)" != /run/infractl/lock ] || kill -KILL "${p#/proc/}"; done`)
		}
		child.Process.Kill()
		child.Wait()
		// Whatever is on the host now, every file is one version or the other.
		got := on(t, c, "cd '/etc/test dir'; for f in [0-9]; do sort -u $f | tr '\\n' ' '; wc -l <$f; done | sort | uniq -c")
		for _, line := range strings.Split(got, "\n") {
			if f := strings.Fields(line); len(f) != 4 || f[1] != "version" || f[3] != "20000" {
				t.Errorf("moment %d: half-written: %q", i, got)
			}
		}
		if answer := on(t, c, "curl -sf http://127.0.0.1:8081/"); answer != "a secret word 4711" {
			t.Errorf("moment %d: haproxy answers %q", i, answer)
		}
		if i%2 == 1 {
			apply(t, c, version(t, n))
			if r := apply(t, c, version(t, n)); len(r.Plan) > 0 {
				t.Errorf("moment %d: it did not converge: %v", i, r.Plan)
			}
		}
	}
	if got := on(t, c, "ls -A /var/lib/infractl/tx; find / -xdev -name '.infractl*'; ls /usr/sbin/policy-rc.d 2>/dev/null; systemctl list-units --all --no-legend 'infractl*'"); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

func TestTwoRunsAtOnceEndInTheStateOfOne(t *testing.T) {
	clean(t, connect(t))
	for range 3 {
		var wg sync.WaitGroup
		for _, n := range []string{"a", "b"} {
			c := connect(t)
			wg.Go(func() {
				if _, err := c.Apply(t.Context(), version(t, n), Options{}); err != nil {
					t.Errorf("%s: %v", n, err)
				}
			})
		}
		wg.Wait()
		c := connect(t)
		got := on(t, c, "cd '/etc/test dir'; cat [0-9] | sort -u; cat /etc/haproxy/haproxy.cfg | sed -n 's/^# version/version/p' | sort -u")
		n := got[len(got)-1:]
		if got != "version "+n+"\nversion "+n {
			t.Fatalf("the host has a mixture: %q", got)
		}
		if r := apply(t, c, version(t, n)); len(r.Plan) > 0 {
			t.Errorf("the host is not as the last run wanted it: %v", r.Plan)
		}
	}
}

func TestRemoveTakesEverythingAway(t *testing.T) {
	c := connect(t)
	clean(t, c)
	h := balancer(t)
	apply(t, c, h)
	if _, err := c.Remove(t.Context(), h, Options{}); err != nil {
		t.Fatal(err)
	}
	if got := on(t, c, "systemctl is-active haproxy infractl-test; ls -d /srv/test/current '/etc/test dir/'* 2>/dev/null; grep -c 4711 /etc/haproxy/haproxy.cfg; :"); got != "inactive\ninactive\n0" {
		t.Errorf("got %q", got)
	}
}

// BenchmarkNothingToDo measures what a preview costs on one host.
func BenchmarkNothingToDo(b *testing.B) {
	text := os.Getenv("INFRACTL_TEST_TARGET")
	var target Target
	if json.Unmarshal([]byte(text), &target) != nil {
		b.Skip("INFRACTL_TEST_TARGET is not set")
	}
	h := desired.Host{Packages: []string{"haproxy", "nginx", "keepalived"}, Units: []desired.Unit{{Name: "haproxy.service"}, {Name: "nginx.service"}, {Name: "ssh.service"}, {Name: "keepalived.service"}}, Files: map[string]desired.File{}}
	for i := range 30 {
		h.Files[fmt.Sprintf("/etc/file-%d", i)] = desired.File{Content: "x"}
	}
	for b.Loop() {
		c, err := Connect(b.Context(), target)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Inspect(b.Context(), h); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

// BenchmarkSSHTrue is the measure for BenchmarkNothingToDo.
func BenchmarkSSHTrue(b *testing.B) {
	text := os.Getenv("INFRACTL_TEST_TARGET")
	var target Target
	if json.Unmarshal([]byte(text), &target) != nil {
		b.Skip("INFRACTL_TEST_TARGET is not set")
	}
	known := filepath.Join(b.TempDir(), "known_hosts")
	if err := os.WriteFile(known, []byte(target.Address+" "+target.HostKey+"\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		out, err := exec.Command("ssh", "-F", "none", "-o", "UserKnownHostsFile="+known, "-i", os.Getenv(identityVariable), target.User+"@"+target.Address, "true").CombinedOutput()
		if err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
}
