package provision

import (
	"slices"
	"strings"
	"testing"

	"github.com/infractl/infractl/provision/desired"
)

// server is a host with a way to it, a daemon that was there before, one that
// infractl brought, and a part of Debian.
func server() desired.Host {
	return desired.Host{
		Files: map[string]desired.File{
			"/etc/ssh/sshd_config.d/10-infractl.conf":          {Content: "sshd\n"},
			"/etc/nftables.conf":                               {Content: "table\n"},
			"/etc/systemd/system/nftables.service.d/stop.conf": {Content: "[Service]\n"},
			"/etc/nginx/nginx.conf":                            {Content: "ours\n"},
			"/etc/haproxy/haproxy.cfg":                         {Content: "ours\n"},
			"/etc/systemd/system/gate.service":                 {Content: "[Service]\n"},
		},
		Units: []desired.Unit{
			{Name: "systemd-journald.service", Enabled: true, Active: true},
			{Name: "nftables.service", Enabled: true, Active: true, Guarded: true, ReloadOn: []string{"/etc/nftables.conf"}, Validate: "nft -c -f /etc/nftables.conf", Health: "true"},
			{Name: "ssh.service", Enabled: true, Active: true, Guarded: true, ReloadOn: []string{"/etc/ssh/"}, Validate: "sshd -t"},
			{Name: "gate.service", Enabled: true, Active: true},
			{Name: "haproxy.service", Enabled: true, Active: true, ReloadOn: []string{"/etc/haproxy/"}, Validate: "haproxy -c", Before: "step aside"},
			{Name: "nginx.service", Enabled: true, Active: true, ReloadOn: []string{"/etc/nginx/"}, Before: "step aside"},
		},
	}
}

// takenOver is what is on a host that ran nginx and sshd before server was applied.
func takenOver() *Actual {
	a := asDesired(server())
	a.Units["systemd-journald.service"] = Unit{Load: "loaded", Active: "active", File: "static"}
	a.Originals = map[string]string{"/etc/nginx/nginx.conf": "k1", "/etc/nftables.conf": "k2"}
	a.Made = []string{"/etc/haproxy", "/etc/ssh/sshd_config.d"}
	running := Found{Load: "loaded", Active: "active", File: "enabled"}
	a.Found = map[string]Found{
		"systemd-journald.service": {Load: "loaded", Active: "active", File: "static"},
		"nftables.service":         {Load: "loaded", Active: "inactive", File: "disabled"},
		"ssh.service":              running, "nginx.service": running,
		"gate.service": {Load: "not-found", Active: "inactive"}, "haproxy.service": {Load: "not-found", Active: "inactive"},
	}
	return a
}

func TestHostIsGivenBackAsItWasFound(t *testing.T) {
	for name, c := range map[string]struct {
		change func(a *Actual)
		want   []string
	}{
		"as applied": {func(*Actual) {}, []string{
			"retire gate.service (it is no longer part of this host)",
			"halt haproxy.service (it did not run before)",
			"halt nftables.service (it did not run before)",
			"remove /etc/haproxy/haproxy.cfg (no longer part of this host)",
			"restore /etc/nftables.conf (no longer part of this host; what was there before comes back)",
			"restore /etc/nginx/nginx.conf (no longer part of this host; what was there before comes back)",
			"remove /etc/ssh/sshd_config.d/10-infractl.conf (no longer part of this host)",
			"remove /etc/systemd/system/gate.service (no longer part of this host)",
			"remove /etc/systemd/system/nftables.service.d/stop.conf (no longer part of this host)",
			"daemon-reload",
			"reload nginx.service (/etc/nginx/nginx.conf changed)",
			"disable haproxy.service",
			"reload ssh.service (/etc/ssh/sshd_config.d/10-infractl.conf changed)",
			"disable nftables.service",
		}},
		"its firewall ran before, and nginx was masked": {
			func(a *Actual) {
				a.Found["nftables.service"] = Found{Load: "loaded", Active: "active", File: "enabled"}
				a.Found["nginx.service"] = Found{Load: "masked", Active: "inactive", File: "masked"}
			},
			[]string{
				"retire gate.service (it is no longer part of this host)",
				"halt nginx.service (it did not run before)",
				"halt haproxy.service (it did not run before)",
				"halt nftables.service (its previous definition comes back)",
				"remove /etc/haproxy/haproxy.cfg (no longer part of this host)",
				"restore /etc/nftables.conf (no longer part of this host; what was there before comes back)",
				"restore /etc/nginx/nginx.conf (no longer part of this host; what was there before comes back)",
				"remove /etc/ssh/sshd_config.d/10-infractl.conf (no longer part of this host)",
				"remove /etc/systemd/system/gate.service (no longer part of this host)",
				"remove /etc/systemd/system/nftables.service.d/stop.conf (no longer part of this host)",
				"daemon-reload",
				"disable nginx.service",
				"mask nginx.service (it was masked before)",
				"disable haproxy.service",
				"reload ssh.service (/etc/ssh/sshd_config.d/10-infractl.conf changed)",
				"start nftables.service (it is to run as before)",
			},
		},
		"cut off when all files were back": {
			func(a *Actual) {
				for name, f := range a.Files {
					if a.Originals[name] == "" {
						delete(a.Files, name)
					} else {
						f.SHA256 = "as before"
						a.Files[name] = f
					}
				}
				for name := range a.Units {
					if strings.HasPrefix(name, "gate") || strings.HasPrefix(name, "haproxy") || strings.HasPrefix(name, "nft") {
						a.Units[name] = Unit{Load: "loaded", Active: "inactive", File: "disabled"}
					}
				}
			},
			[]string{
				"restore /etc/nftables.conf (no longer part of this host; what was there before comes back)",
				"restore /etc/nginx/nginx.conf (no longer part of this host; what was there before comes back)",
				"reload nginx.service (/etc/nginx/nginx.conf changed)",
				"reload ssh.service (what it has loaded is gone)",
			},
		},
		"nothing is known of how its units were": {
			func(a *Actual) { a.Found, a.Originals = nil, nil },
			[]string{
				"retire gate.service (it is no longer part of this host)",
				"halt nginx.service (it must not run)",
				"halt haproxy.service (it must not run)",
				"halt nftables.service (its previous definition comes back)",
				"remove /etc/haproxy/haproxy.cfg (no longer part of this host)",
				"remove /etc/nftables.conf (no longer part of this host)",
				"remove /etc/nginx/nginx.conf (no longer part of this host)",
				"remove /etc/ssh/sshd_config.d/10-infractl.conf (no longer part of this host)",
				"remove /etc/systemd/system/gate.service (no longer part of this host)",
				"remove /etc/systemd/system/nftables.service.d/stop.conf (no longer part of this host)",
				"daemon-reload",
				"disable nginx.service",
				"disable haproxy.service",
				"reload ssh.service (/etc/ssh/sshd_config.d/10-infractl.conf changed)",
				"start nftables.service (it is to run as before)",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := takenOver()
			c.change(a)
			plan, err := planChange(remains(server(), a), a, true)
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
