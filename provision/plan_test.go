package provision

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/infractl/infractl/provision/desired"
)

// web is a host with one of everything.
func web() desired.Host {
	return desired.Host{
		Packages: []string{"nginx"},
		Users:    []desired.User{{Name: "app", Groups: []string{"ssl-cert"}}},
		Files: map[string]desired.File{
			"/etc/nginx/nginx.conf":                           {Content: "listen @@interface.10.0.2.11@@ @@secret.word@@\n", Mode: "0640"},
			"/etc/nginx/conf.d/site.conf":                     {Content: "site\n"},
			"/srv/app/current":                                {Link: "/srv/app/releases/aaa"},
			"/etc/systemd/system/app@.service":                {Content: "[Service]\n"},
			"/etc/systemd/system/nginx.service.d/limits.conf": {Content: "[Service]\n"},
		},
		Trees: map[string]desired.Tree{"/srv/app/releases/aaa": {Source: "/x", Digest: "sha256:aaa"}},
		Units: []desired.Unit{
			{Name: "nginx.service", Enabled: true, Active: true, ReloadOn: []string{"/etc/nginx/"}},
			{Name: "app@1.service", Enabled: true, Active: true, RestartOn: []string{"/srv/app/current"}, Before: "step aside", After: "come back"},
			{Name: "apache2.service"},
		},
		Secrets: map[string]string{"word": "xyzzy"},
	}
}

// asDesired is what is on a host where h has been applied.
func asDesired(h desired.Host) *Actual {
	a := &Actual{
		Files: map[string]File{}, Trees: map[string]Tree{}, Packages: map[string]string{}, Units: map[string]Unit{},
		Users:      map[string]User{"root": {Home: "/root"}},
		Interfaces: map[netip.Addr]string{netip.MustParseAddr("10.0.2.11"): "enp7s0"},
		Loaded:     map[string]Loaded{},
	}
	texts, err := renderAll(h, a.Interfaces)
	if err != nil {
		panic(err)
	}
	for _, name := range h.Packages {
		a.Packages[name] = "1.0"
	}
	for _, u := range h.Users {
		a.Users[u.Name] = User{Home: home(u), Groups: append([]string{"other"}, u.Groups...)}
	}
	for name, f := range h.Files {
		mode, owner, group := attributes(f)
		actual := File{Kind: 'f', Mode: mode, Owner: owner, Group: group, SHA256: digest(texts[name]), Content: f.Content, Known: true}
		if f.Link != "" {
			actual = File{Kind: 'l', Link: f.Link}
		}
		a.Files[name] = actual
		a.Manifest = append(a.Manifest, name)
	}
	for name, tree := range h.Trees {
		a.Trees[name] = Tree{Digest: tree.Digest, Uploaded: time.Unix(1000, 0)}
	}
	for _, u := range h.Units {
		a.Units[u.Name] = Unit{Load: "loaded", Active: "inactive", File: "disabled"}
		if u.Active {
			a.Units[u.Name] = Unit{Load: "loaded", Active: "active", File: "enabled", CanReload: true}
			if l := toLoad(u, h, texts); l != (Loaded{"-", "-"}) {
				a.Loaded[u.Name] = l
			}
		}
	}
	return a
}

func TestPlan(t *testing.T) {
	edit := func(a *Actual, name, text string) {
		f := a.Files[name]
		f.SHA256, f.Content, f.Known = digest(text), text, true
		a.Files[name] = f
	}
	for name, c := range map[string]struct {
		change func(h *desired.Host, a *Actual)
		want   []string
	}{
		"nothing to do":          {func(*desired.Host, *Actual) {}, nil},
		"a package is missing":   {func(_ *desired.Host, a *Actual) { delete(a.Packages, "nginx") }, []string{"install nginx"}},
		"a user is missing":      {func(_ *desired.Host, a *Actual) { delete(a.Users, "app") }, []string{"add user app"}},
		"a user left a group":    {func(_ *desired.Host, a *Actual) { a.Users["app"] = User{Home: "/nonexistent"} }, []string{"change user app (not a member of ssl-cert)"}},
		"a user lives elsewhere": {func(h *desired.Host, _ *Actual) { h.Users[0].Home = "/srv/app" }, []string{"change user app (its home is /nonexistent)"}},
		"a file differs": {
			func(_ *desired.Host, a *Actual) { edit(a, "/etc/nginx/conf.d/site.conf", "edited\n") },
			[]string{"write /etc/nginx/conf.d/site.conf (its text differs)", "reload nginx.service (/etc/nginx/conf.d/site.conf changed)"},
		},
		"only a mode differs": {
			func(_ *desired.Host, a *Actual) {
				f := a.Files["/etc/nginx/nginx.conf"]
				f.Mode = "0644"
				a.Files["/etc/nginx/nginx.conf"] = f
			},
			[]string{"write /etc/nginx/nginx.conf (0644 root:root instead of 0640 root:root)", "reload nginx.service (/etc/nginx/nginx.conf changed)"},
		},
		"a directory stands where a file should be": {
			func(_ *desired.Host, a *Actual) { a.Files["/etc/nginx/nginx.conf"] = File{Kind: 'd', Mode: "0755"} },
			[]string{"write /etc/nginx/nginx.conf (it is not a regular file)", "reload nginx.service (/etc/nginx/nginx.conf changed)"},
		},
		"a file and a link are missing": {
			func(_ *desired.Host, a *Actual) {
				delete(a.Files, "/etc/nginx/conf.d/site.conf")
				delete(a.Files, "/srv/app/current")
			},
			[]string{
				"write /etc/nginx/conf.d/site.conf (it does not exist)", "link /srv/app/current (to /srv/app/releases/aaa)",
				"reload nginx.service (/etc/nginx/conf.d/site.conf changed)", "restart app@1.service (/srv/app/current changed)",
			},
		},
		"a drop-in differs: restart, and no reload beside it": {
			func(_ *desired.Host, a *Actual) {
				edit(a, "/etc/systemd/system/nginx.service.d/limits.conf", "")
				edit(a, "/etc/nginx/conf.d/site.conf", "")
			},
			[]string{
				"write /etc/nginx/conf.d/site.conf (its text differs)", "write /etc/systemd/system/nginx.service.d/limits.conf (its text differs)",
				"daemon-reload", "restart nginx.service (/etc/systemd/system/nginx.service.d/limits.conf changed)",
			},
		},
		"a template differs: its instances restart": {
			func(_ *desired.Host, a *Actual) { edit(a, "/etc/systemd/system/app@.service", "") },
			[]string{"write /etc/systemd/system/app@.service (its text differs)", "daemon-reload", "restart app@1.service (/etc/systemd/system/app@.service changed)"},
		},
		"systemd has not read a unit file": {
			func(_ *desired.Host, a *Actual) {
				u := a.Units["nginx.service"]
				u.Stale = true
				a.Units["nginx.service"] = u
			},
			[]string{"daemon-reload"},
		},
		"a unit has failed": {
			func(_ *desired.Host, a *Actual) { a.Units["nginx.service"] = Unit{Active: "failed", File: "enabled"} },
			[]string{"start nginx.service (it has failed)"},
		},
		"a unit was stopped and disabled by hand": {
			func(_ *desired.Host, a *Actual) {
				a.Units["nginx.service"] = Unit{Active: "inactive", File: "disabled"}
			},
			[]string{"enable nginx.service", "start nginx.service (it does not run)"},
		},
		"a unit without [Install] counts as it is desired": {
			func(_ *desired.Host, a *Actual) { a.Units["nginx.service"] = Unit{Active: "active", File: "static"} },
			nil,
		},
		"a unit that must not run": {
			func(_ *desired.Host, a *Actual) { a.Units["apache2.service"] = Unit{Active: "active", File: "enabled"} },
			[]string{"stop apache2.service (it must not run)", "disable apache2.service"},
		},
		"a unit of a package that is yet to be installed": {
			func(_ *desired.Host, a *Actual) {
				delete(a.Packages, "nginx")
				a.Units["apache2.service"] = Unit{Load: "not-found", Active: "inactive"}
			},
			[]string{"install nginx", "disable apache2.service (its package may enable it)"},
		},
		"a unit that is not there and need not be": {
			func(_ *desired.Host, a *Actual) {
				a.Units["apache2.service"] = Unit{Load: "not-found", Active: "inactive"}
			},
			nil,
		},
		"killed between rename and reload": {
			func(_ *desired.Host, a *Actual) {
				a.Loaded["nginx.service"] = Loaded{a.Loaded["nginx.service"].Restart, "old"}
			},
			[]string{"reload nginx.service (it has not loaded its files yet)"},
		},
		"killed before the restart that came with a reload": {
			func(_ *desired.Host, a *Actual) {
				delete(a.Loaded, "nginx.service")
				edit(a, "/etc/nginx/conf.d/site.conf", "")
			},
			[]string{"write /etc/nginx/conf.d/site.conf (its text differs)", "restart nginx.service (it has not loaded its files yet)"},
		},
		"a file of ours is no longer desired": {
			func(h *desired.Host, _ *Actual) { delete(h.Files, "/etc/nginx/conf.d/site.conf") },
			[]string{"remove /etc/nginx/conf.d/site.conf (no longer part of this host)", "reload nginx.service (/etc/nginx/conf.d/site.conf changed)"},
		},
		"a unit of ours is no longer desired": {
			func(h *desired.Host, _ *Actual) {
				delete(h.Files, "/etc/systemd/system/app@.service")
				h.Units = slices.Delete(h.Units, 1, 2)
			},
			[]string{"retire app@.service (it is no longer part of this host)", "remove /etc/systemd/system/app@.service (no longer part of this host)", "daemon-reload"},
		},
		"files that are not infractl's yet": {
			func(_ *desired.Host, a *Actual) {
				edit(a, "/etc/nginx/conf.d/site.conf", "theirs\n")
				a.Files["/srv/app/current"] = File{Kind: 'f', Content: "theirs\n", Known: true}
				a.Manifest = slices.DeleteFunc(a.Manifest, func(name string) bool {
					return name == "/etc/nginx/conf.d/site.conf" || name == "/srv/app/current"
				})
			},
			[]string{
				"write /etc/nginx/conf.d/site.conf (its text differs; it is not infractl's yet, and a copy is kept)",
				"link /srv/app/current (to /srv/app/releases/aaa; it is not infractl's yet, and a copy is kept)",
				"reload nginx.service (/etc/nginx/conf.d/site.conf changed)", "restart app@1.service (/srv/app/current changed)",
			},
		},
		"a file that happens to be as desired and is not infractl's yet": {
			func(_ *desired.Host, a *Actual) {
				a.Manifest = slices.DeleteFunc(a.Manifest, func(name string) bool { return name == "/etc/nginx/conf.d/site.conf" })
			},
			[]string{"record (infractl's notes on the host are incomplete)"},
		},
		"a file that was there before is no longer desired": {
			func(h *desired.Host, a *Actual) {
				delete(h.Files, "/etc/nginx/conf.d/site.conf")
				delete(a.Files, "/etc/nginx/conf.d/site.conf") // by somebody
				a.Originals = map[string]string{"/etc/nginx/conf.d/site.conf": "k"}
			},
			[]string{
				"restore /etc/nginx/conf.d/site.conf (no longer part of this host; what was there before comes back)",
				"reload nginx.service (/etc/nginx/conf.d/site.conf changed)",
			},
		},
		"a file of ours is no longer desired and gone already": {
			func(h *desired.Host, a *Actual) {
				delete(h.Files, "/srv/app/current")
				delete(a.Files, "/srv/app/current")
				texts, _ := renderAll(*h, a.Interfaces)
				a.Loaded["app@1.service"] = toLoad(h.Units[1], *h, texts)
			},
			nil,
		},
		"a new release": {
			func(h *desired.Host, _ *Actual) {
				h.Trees = map[string]desired.Tree{"/srv/app/releases/bbb": {Digest: "sha256:bbb"}}
				h.Files["/srv/app/current"] = desired.File{Link: "/srv/app/releases/bbb"}
			},
			[]string{"upload /srv/app/releases/bbb", "link /srv/app/current (to /srv/app/releases/bbb)", "restart app@1.service (/srv/app/current changed)"},
		},
		"old releases, one of them still linked": {
			func(h *desired.Host, a *Actual) {
				for i, name := range []string{"one", "two", "three", "four"} {
					a.Trees["/srv/app/releases/"+name] = Tree{Uploaded: time.Unix(int64(i), 0)}
				}
				h.Files["/srv/app/previous"] = desired.File{Link: "releases/one"}
				a.Files["/srv/app/previous"] = File{Kind: 'l', Link: "releases/one"}
				a.Manifest = append(a.Manifest, "/srv/app/previous")
			},
			[]string{"remove tree /srv/app/releases/two (old)"},
		},
		"the notes are incomplete": {
			func(_ *desired.Host, a *Actual) { a.Manifest = nil },
			[]string{"record (infractl's notes on the host are incomplete)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := web()
			a := asDesired(h)
			c.change(&h, a)
			plan, err := Plan(h, a)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, action := range plan {
				got = append(got, action.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
			}
		})
	}
}

func TestPlanShowsDiffsWithPlaceholders(t *testing.T) {
	h := web()
	a := asDesired(h)
	f := a.Files["/etc/nginx/nginx.conf"]
	f.SHA256, f.Content = "other", "listen @@interface.10.0.2.11@@ @@secret.word@@\nmore\n"
	a.Files["/etc/nginx/nginx.conf"] = f
	plan, err := Plan(h, a)
	if err != nil {
		t.Fatal(err)
	}
	const want = "--- /etc/nginx/nginx.conf\n+++ /etc/nginx/nginx.conf\n@@ -1,2 +1 @@\n listen @@interface.10.0.2.11@@ @@secret.word@@\n-more\n"
	if plan[0].Diff != want {
		t.Errorf("diff is\n%s", plan[0].Diff)
	}
	f.Known = false
	a.Files["/etc/nginx/nginx.conf"] = f
	if plan, _ = Plan(h, a); plan[0].Diff != "" || plan[0].Reason != "its text differs" {
		t.Errorf("a text that must not be shown: %+v", plan[0])
	}
}

func TestPlanFailsOnAMissingInterface(t *testing.T) {
	h := web()
	a := asDesired(h)
	a.Interfaces = nil
	if _, err := Plan(h, a); err == nil || !strings.Contains(err.Error(), "10.0.2.11") {
		t.Errorf("got %v", err)
	}
}

func TestPendingIsSilentWhereAFileDiffersAnyway(t *testing.T) {
	h := web()
	a := asDesired(h)
	a.Loaded["nginx.service"] = Loaded{}
	if got := Pending(h.Units[0], h, a); got != RestartUnit {
		t.Errorf("got %q", got)
	}
	delete(a.Files, "/etc/nginx/nginx.conf")
	if got := Pending(h.Units[0], h, a); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestUnitOfFile(t *testing.T) {
	for name, want := range map[string]string{
		"/etc/systemd/system/a.service":                 "a.service",
		"/etc/systemd/system/a@.service":                "a@.service",
		"/etc/systemd/system/a.service.d/x.conf":        "a.service",
		"/etc/systemd/system/a.service.d/README":        "",
		"/etc/systemd/system/multi-user.target.wants/a": "",
		"/usr/lib/systemd/system/a.service":             "",
		"/etc/a.service":                                "",
	} {
		if got := unitOf(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
