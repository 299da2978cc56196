//go:build lab

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBadInputIsRefusedBeforeAnythingIsChanged changes one thing in a good
// environment that does not exist yet, and asks for one clear message.
func TestBadInputIsRefusedBeforeAnythingIsChanged(t *testing.T) {
	for _, c := range []struct {
		name   string
		change map[string]string
		vars   []string
		says   []string
		code   int
	}{
		{"unknown key", map[string]string{"infractl:tears": "{}"}, nil, []string{"infractl:tears"}, 2},
		{"unknown key within", map[string]string{"infractl:vip": "{ipv4: true, ipv5: true}"}, nil, []string{"infractl:vip", "ipv5"}, 2},
		{"unknown tier", map[string]string{"infractl:tiers": "{lb: {count: 1}, cache: {count: 1}}"}, nil, []string{"infractl:tiers", "cache"}, 2},
		{"no hosts", map[string]string{"infractl:tiers": "{lb: {count: 1, type: cx23}, web: {count: 0, type: cx23}, app: {count: 1, type: cx23}, db: {count: 1, type: cx33}}"}, nil, []string{"infractl:tiers.web.count"}, 2},
		{"count is no number", map[string]string{"infractl:tiers": "{lb: {count: two, type: cx23}, web: {count: 1, type: cx23}, app: {count: 1, type: cx23}, db: {count: 1, type: cx33}}"}, nil, []string{"infractl:tiers.lb.count"}, 2},
		{"overlapping subnets", map[string]string{"infractl:tiers": "{lb: {count: 1, type: cx23, subnet: 10.0.2.0/24}, web: {count: 1, type: cx23}, app: {count: 1, type: cx23}, db: {count: 1, type: cx33}}"}, nil, []string{"infractl:tiers", "subnet", "overlap"}, 2},
		{"missing release", map[string]string{"infractl:application": "{name: guestbook, release: no/such/dir, command: bin/guestbook}"}, nil, []string{"infractl:application.release", "no/such/dir"}, 2},
		{"unknown server type", map[string]string{"infractl:tiers": "{lb: {count: 1, type: cx999}, web: {count: 1, type: cx23}, app: {count: 1, type: cx23}, db: {count: 1, type: cx33}}"}, nil, []string{"infractl:tiers.lb.type", "cx999"}, 2},
		{"unknown image", map[string]string{"infractl:image": "debian-9"}, nil, []string{"infractl:image", "debian-9"}, 2},
		{"unknown location", map[string]string{"infractl:location": "mars1"}, nil, []string{"infractl:location", "mars1"}, 2},
		{"bad range", map[string]string{"infractl:ssh": "{allowFrom: [300.0.0.0/8]}"}, nil, []string{"infractl:ssh.allowFrom", "300.0.0.0/8"}, 2},
		{"wrong token", nil, []string{"HCLOUD_TOKEN=" + strings.Repeat("x", 64)}, []string{"HCLOUD_TOKEN"}, 2},
		{"short token", nil, []string{"HCLOUD_TOKEN=short"}, []string{"HCLOUD_TOKEN", "64"}, 2},
		{"no load balancer token", nil, []string{"INFRACTL_VIP_TOKEN="}, []string{"INFRACTL_VIP_TOKEN"}, 2},
		{"no such SSH key", nil, []string{"INFRACTL_SSH_IDENTITY=/no/such/key"}, []string{"INFRACTL_SSH_IDENTITY", "/no/such/key"}, 2},
		{"the cloud's API is not there", nil, []string{"HCLOUD_ENDPOINT=http://127.0.0.1:1/v1"}, []string{"127.0.0.1:1"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := newProject(t.TempDir(), "bad", c.change)
			if err != nil {
				t.Fatal(err)
			}
			r := p.infractlWith(c.vars, "up", "-e", p.env, "--yes")
			if r.code != c.code {
				t.Errorf("exit code %d, want %d", r.code, c.code)
			}
			for _, want := range c.says {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("the message does not name %q", want)
				}
			}
			if lines := strings.Count(strings.TrimSpace(r.stderr), "\n"); lines > 8 {
				t.Errorf("%d lines for one mistake", lines+1)
			}
			if left := p.inCloud(t); len(left) > 0 {
				t.Errorf("something was made all the same: %v", left)
			}
			if t.Failed() {
				t.Logf("%v", r)
			}
		})
	}
}

func TestUsageMistakesExitWithTwo(t *testing.T) {
	for _, args := range [][]string{
		{"upp"}, {"up", "--no-such-flag"}, {"up", "-e", "nonesuch"}, {"up", "-e", "e2e"}, {"destroy", "-e", "e2e"}, {"preview", "surplus"},
	} {
		r := site.infractl(args...)
		if r.code != 2 {
			t.Errorf("%v", r)
		}
		if strings.TrimSpace(r.stderr) == "" || len(r.stderr) > 2000 {
			t.Errorf("infractl %v says %d bytes", args, len(r.stderr))
		}
	}
}

func TestAHostThatCannotBeReachedIsNamedBeforeAnythingIsChanged(t *testing.T) {
	// What is spoiled for SSH cannot be mended over SSH, so the host does that itself.
	spoilFor := func(spoil, mend string) func(t *testing.T) {
		return func(t *testing.T) {
			site.on(t, "web-2", "touch /root/spoiled && systemd-run --quiet --on-active=20s --timer-property=AccuracySec=100ms sh -c "+shellQuote(mend+" && rm /root/spoiled")+" && "+spoil)
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T)
		says  []string
	}{
		{"frozen", func(t *testing.T) {
			freezeHost(t, "web-2")
			time.AfterFunc(20*time.Second, func() { thawHost(t, "web-2") })
		}, []string{"web-2", "cannot be reached"}},
		{"another host key", spoilFor(
			"cd /etc/ssh && mv ssh_host_ed25519_key /root/key && ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key && systemctl restart ssh",
			"mv -f /root/key /etc/ssh/ssh_host_ed25519_key && ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key >/etc/ssh/ssh_host_ed25519_key.pub && systemctl restart ssh"),
			[]string{"web-2", "host key"}},
		{"no sudo", spoilFor(
			"mkdir -p /root/sudoers && mv /etc/sudoers.d/* /root/sudoers/",
			"mv /root/sudoers/* /etc/sudoers.d/"),
			[]string{"web-2", "sudo"}},
	} {
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
					_, err := lab("ssh", site.env+"-web-2", "sudo", "sh", "-c", "'[ ! -e /root/spoiled ]'")
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

func TestEnvironmentFilesThatOthersCanReadAreRefused(t *testing.T) {
	p, err := newProject(t.TempDir(), "bad", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(p.dir, ".env.bad"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := p.infractl("up", "-e", "bad", "--yes")
	if r.code != 2 || !strings.Contains(r.stderr, ".env.bad") || !strings.Contains(r.stderr, "chmod 600") {
		t.Errorf("%v", r)
	}
}

func TestCompletionKnowsCommandsAndEnvironments(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := site.infractl("completion", shell); r.code != 0 || !strings.Contains(r.stdout, "infractl") {
			t.Errorf("%v", r)
		}
	}
	r := site.infractl("up", "--env", "--generate-bash-completion")
	if !slices.Contains(strings.Fields(r.stdout), "e2e") {
		t.Errorf("environments are not completed: %v", r)
	}
}
