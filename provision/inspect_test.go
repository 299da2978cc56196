package provision

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/infractl/infractl/provision/desired"
)

// TestInspectSeesFilesAsTheyAre runs the real script, on this computer.
func TestInspectSeesFilesAsTheyAre(t *testing.T) {
	h := newHost(t)
	dir := filepath.Join(t.TempDir(), "it's a $(dir) \"named\" `oddly`")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, mode := range map[string]os.FileMode{"plain": 0o644, "tight": 0o600, "-n": 0o644} {
		if err := os.WriteFile(at(name), []byte("text of "+name+"\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a target\nwith a newline", at("link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at("dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	d := desired.Host{
		Packages: []string{"dpkg", "not-a-package"},
		Files: map[string]desired.File{
			at("plain"): {Content: "text of plain\n"}, at("tight"): {Content: "another text\n"}, at("-n"): {Content: "text of -n\n"},
			at("link"): {Link: "elsewhere"}, at("dir"): {}, at("missing"): {},
		},
	}
	c, err := Connect(t.Context(), h.target())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := c.Inspect(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]File{
		"plain": {Kind: 'f', Mode: "0644", Content: "text of plain\n", Known: true, SHA256: digest("text of plain\n")},
		// What may be a secret of somebody else's is not fetched.
		"tight": {Kind: 'f', Mode: "0600", SHA256: digest("text of tight\n")},
		"-n":    {Kind: 'f', Mode: "0644", Content: "text of -n\n", Known: true, SHA256: digest("text of -n\n")},
		"link":  {Kind: 'l', Link: "a target\nwith a newline"},
		"dir":   {Kind: 'd', Mode: "0700"},
	} {
		got := a.Files[at(name)]
		if got.Kind != want.Kind || got.Content != want.Content || got.Known != want.Known || got.SHA256 != want.SHA256 || got.Link != want.Link || want.Mode != "" && got.Mode != want.Mode {
			t.Errorf("%s is %+v", name, got)
		}
	}
	if _, ok := a.Files[at("missing")]; ok {
		t.Error("a file that is not there is reported")
	}
	if a.Packages["dpkg"] == "" || len(a.Packages) != 1 {
		t.Errorf("packages: %v", a.Packages)
	}
	if a.Users["root"].Home != "/root" || a.Facts.Memory == 0 || a.Facts.Cores == 0 || a.Facts.DiskFree == 0 {
		t.Errorf("facts: %+v, root: %+v", a.Facts, a.Users["root"])
	}
}

func TestInspectionIsParsed(t *testing.T) {
	const mark = "@@0011"
	text := strings.Join([]string{
		"\n" + mark + " remembered\n" +
			"/var/lib/infractl/manifest:/etc/a\n/var/lib/infractl/manifest:/etc/b: c\n" +
			"/var/lib/infractl/originals/index:file 00ff /etc/b: c\n/var/lib/infractl/originals/index:file 11ff /etc/void\n" +
			"/var/lib/infractl/originals/index:dir /srv\n/var/lib/infractl/originals/index:dir /srv/app\n/var/lib/infractl/originals/index:dir /srv\n" +
			"/var/lib/infractl/originals/index:unit loaded active enabled nginx.service\n/var/lib/infractl/originals/index:unit not-found inactive - x.service\n" +
			"/var/lib/infractl/loaded/nginx.service:r1 r2\n" +
			"/var/lib/infractl/trees/k:/srv/app/releases/1\n/var/lib/infractl/trees/k:sha256:1\n/var/lib/infractl/trees/k:1700000000\n" +
			"/var/lib/infractl/trees/l:/srv/app/releases/2\n/var/lib/infractl/trees/l:sha256:2\n/var/lib/infractl/trees/l:1700000001\n" +
			"/etc/passwd:root:x:0:0:root:/root:/bin/bash\n/etc/passwd:app:x:999:999::/srv/app:/usr/sbin/nologin\n" +
			"/etc/group:ssl-cert:x:100:app,postgres\n" +
			"/etc/os-release:ID=debian\n/etc/os-release:VERSION_ID=\"13\"\n/etc/debian_version:13.1\n",
		mark + " facts\n/proc/meminfo:MemTotal:        4000000 kB\n/proc/self/status:Cpus_allowed:\t0000,0000000f\n1000 4096\n",
		mark + " files\nf 644 root root 3\x00\x00/etc/a\x00l 777 root root 1\x00x\x00/etc/b: c\x00d 755 root root 1\x00\x00/srv/app/releases/1\x00" + strings.Repeat("a", 64) + "  /etc/a\x00",
		mark + " units\nId=nginx.service\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nNeedDaemonReload=no\nCanReload=yes\n\nId=x.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\nNeedDaemonReload=yes\nCanReload=no\n",
		mark + " packages\ninstalled nginx 1.26-1\nconfig-files haproxy 3.0\n",
		mark + " addresses\n1: lo    inet 127.0.0.1/8 scope host lo\n2: enp7s0    inet 10.0.2.11/32 brd 10.0.2.11 scope global enp7s0\n2: enp7s0    inet6 fe80::1/64 scope link\n",
		mark + " end\n",
	}, "\n")
	h := desired.Host{
		Trees: map[string]desired.Tree{"/srv/app/releases/1": {}, "/srv/app/releases/2": {}},
		Units: []desired.Unit{{Name: "nginx.service"}, {Name: "x.service"}},
	}
	a, err := parseInspection([]byte(text), mark, h)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.Manifest, []string{"/etc/a", "/etc/b: c"}) {
		t.Errorf("manifest: %q", a.Manifest)
	}
	if len(a.Originals) != 1 || a.Originals["/etc/b: c"] != "00ff" || !slices.Equal(a.Made, []string{"/srv/app", "/srv"}) {
		t.Errorf("originals: %v, made: %v", a.Originals, a.Made)
	}
	if a.Found["nginx.service"] != (Found{"loaded", "active", "enabled"}) || a.Found["x.service"] != (Found{"not-found", "inactive", ""}) {
		t.Errorf("found: %v", a.Found)
	}
	if got := a.Loaded["nginx.service"]; got != (Loaded{"r1", "r2"}) {
		t.Errorf("loaded: %v", got)
	}
	if got := a.Trees["/srv/app/releases/1"]; got.Digest != "sha256:1" || !got.Uploaded.Equal(time.Unix(1700000000, 0)) {
		t.Errorf("tree: %+v", got)
	}
	if _, ok := a.Trees["/srv/app/releases/2"]; ok {
		t.Error("a tree whose directory is gone is reported")
	}
	if f := a.Files["/etc/a"]; f.SHA256 != strings.Repeat("a", 64) || f.Mode != "0644" || f.Size != 3 {
		t.Errorf("file: %+v", f)
	}
	if f := a.Files["/etc/b: c"]; f.Kind != 'l' || f.Link != "x" {
		t.Errorf("link: %+v", f)
	}
	if u := a.Units["nginx.service"]; !u.Running() || !u.Enabled() || !u.CanReload || u.Stale {
		t.Errorf("unit: %+v", u)
	}
	if u := a.Units["x.service"]; u.Running() || u.Enabled() || !u.Stale {
		t.Errorf("unit: %+v", u)
	}
	if len(a.Packages) != 1 || a.Packages["nginx"] != "1.26-1" {
		t.Errorf("packages: %v", a.Packages)
	}
	if u := a.Users["app"]; u.Home != "/srv/app" || !slices.Equal(u.Groups, []string{"ssl-cert"}) {
		t.Errorf("user: %+v", u)
	}
	if a.Interfaces[netip.MustParseAddr("10.0.2.11")] != "enp7s0" || a.Interfaces[netip.MustParseAddr("fe80::1")] != "enp7s0" {
		t.Errorf("interfaces: %v", a.Interfaces)
	}
	if want := (Facts{Debian: "13", Version: "13.1", Memory: 4000000 << 10, Cores: 4, DiskFree: 4096000}); a.Facts != want {
		t.Errorf("facts: %+v", a.Facts)
	}
}

func TestInspectionOfABrokenHostIsAnError(t *testing.T) {
	const mark = "@@0011"
	for name, c := range map[string]struct{ text, want string }{
		"nothing":      {"", "incomplete"},
		"cut off":      {"\n" + mark + " files\nf 644", "incomplete"},
		"no systemd":   {"\n" + mark + " units\nSystem has not been booted with systemd\n\n" + mark + " end\n", "not been booted"},
		"odd find":     {"\n" + mark + " files\nwhat is this\x00\x00\x00\n" + mark + " end\n", "unexpected record"},
		"unit missing": {"\n" + mark + " units\n\n" + mark + " end\n", "systemctl said"},
	} {
		_, err := parseInspection([]byte(c.text), mark, desired.Host{Units: []desired.Unit{{Name: "a.service"}}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzInspectionDoesNotPanic(f *testing.F) {
	f.Add([]byte("\n@@ files\nf 644 root root 3\x00\x00/etc/a\x00\n@@ end\n"))
	f.Add([]byte("\n@@ units\nLoadState=x\n\n@@ addresses\n1: lo inet 1/2\n@@ facts\na b\n@@ end"))
	f.Fuzz(func(t *testing.T, text []byte) {
		parseInspection(text, "@@", desired.Host{Units: []desired.Unit{{Name: "a"}}})
	})
}

func ExampleAction_String() {
	fmt.Println(Action{Kind: ReloadUnit, Subject: "nginx.service", Reason: "/etc/nginx/nginx.conf changed"})
	// Output: reload nginx.service (/etc/nginx/nginx.conf changed)
}
