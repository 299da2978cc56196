//go:build lab

package e2e

import (
	"strings"
	"testing"
	"time"
)

func TestAHostThatCannotBeReachedIsNamedBeforeAnythingIsChanged(t *testing.T) {
	// What is spoiled for SSH cannot be mended over SSH, so the host does that itself.
	spoilFor := func(spoil, mend string) func(t *testing.T) {
		return func(t *testing.T) {
			site.on(t, "web-2", "touch /root/spoiled && systemd-run --quiet --on-active=20s --timer-property=AccuracySec=100ms sh -c "+shellQuote(mend+" && rm /root/spoiled")+" && "+spoil)
		}
	}
	type fault struct {
		name  string
		spoil func(t *testing.T)
		says  []string
	}
	faults := []fault{
		{"frozen", func(t *testing.T) {
			freezeHost(t, "web-2")
			time.AfterFunc(20*time.Second, func() { thawHost(t, "web-2") })
		}, []string{"web-2", "cannot be reached"}},
		{"another host key", spoilFor(
			"cd /etc/ssh && mv ssh_host_ed25519_key /root/key && ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key && systemctl restart ssh",
			"mv -f /root/key /etc/ssh/ssh_host_ed25519_key && ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key >/etc/ssh/ssh_host_ed25519_key.pub && systemctl restart ssh"),
			[]string{"web-2", "host key"}},
	}
	if loginNeedsSudo {
		faults = append(faults, fault{"no sudo", spoilFor(
			"mkdir -p /root/sudoers && mv /etc/sudoers.d/* /root/sudoers/",
			"mv /root/sudoers/* /etc/sudoers.d/"),
			[]string{"web-2", "sudo"}})
	}
	for _, c := range faults {
		t.Run(c.name, func(t *testing.T) {
			before := site.on(t, "web-1", "stat -c %Z /etc/nginx/nginx.conf")
			if err := site.configure(map[string]string{"infractl:debugHeaders": "false"}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := site.configure(nil); err != nil {
					t.Error(err)
				}
				eventually(t, time.Minute, "web-2 is well again", func() error {
					_, err := lab("ssh", site.machine("web-2"), "sudo", "sh", "-c", "'[ ! -e /root/spoiled ]'")
					return err
				})
				site.up(t)
			})
			c.spoil(t)
			r := site.infractl("up", "-e", site.env, "--yes")
			if r.code == 0 {
				t.Errorf("up succeeded")
			}
			for _, want := range c.says {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("the message does not name %q", want)
				}
			}
			if after := site.on(t, "web-1", "stat -c %Z /etc/nginx/nginx.conf"); after != before {
				t.Errorf("web-1 was changed although web-2 could not be")
			}
			if t.Failed() {
				t.Logf("%v", r)
			}
		})
	}
}
