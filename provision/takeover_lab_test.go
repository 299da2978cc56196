//go:build lab

package provision

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/infractl/infractl/provision/desired"
)

// everything on the machine that these tests may touch: type, mode, owner, time and
// content of files, how units are, and what nginx answers.
const everything = `find /etc/nginx /etc/ssh /etc/haproxy /etc/hostname /etc/hosts /etc/test-link /etc/systemd/system/nginx.service.d \( -type f -o -type l \) \
	-printf '%y %m %u:%g %T@ %p %l\n' -type f -exec sha256sum {} \; 2>/dev/null | sort
command -v getfattr >/dev/null && getfattr -d -m - /etc/nginx/nginx.conf 2>/dev/null
for u in nginx.service haproxy.service ssh.service; do echo "$u $(systemctl is-active $u) $(systemctl is-enabled $u)"; done
curl -s http://127.0.0.1:8088/; :`

// inheritedNginx makes the machine one where somebody runs an nginx, and returns
// what infractl wants of it: haproxy besides, which is not installed, and sshd.
func inheritedNginx(t *testing.T, c *Conn) desired.Host {
	t.Helper()
	clean(t, c)
	on(t, c, `DEBIAN_FRONTEND=noninteractive
export DEBIAN_FRONTEND
systemctl unmask haproxy >/dev/null 2>&1
# Also where an earlier test has removed parts of it.
! dpkg-query -W haproxy >/dev/null 2>&1 || dpkg --purge --force-all haproxy >&2
if dpkg-query -W haproxy >/dev/null 2>&1; then
	echo "haproxy is still there: $(dpkg-query -W -f '${Status}' haproxy)" >&2
	exit 1
fi
rm -rf /etc/haproxy /etc/ssh/sshd_config.d/50-infractl.conf /etc/systemd/system/nginx.service.d
apt-get -qq -y install nginx curl >/dev/null 2>&1
mkdir -p /etc/systemd/system/nginx.service.d
printf '[Service]\nNice=5\n' >/etc/systemd/system/nginx.service.d/infractl.conf
printf 'events {}\nhttp { server { listen 127.0.0.1:8088; return 200 "theirs\n"; } }\n' >/etc/nginx/nginx.conf
chown root:www-data /etc/nginx/nginx.conf && chmod 0640 /etc/nginx/nginx.conf
! command -v setfattr >/dev/null || setfattr -n user.note -v theirs /etc/nginx/nginx.conf || :
ln -sfn ../some/where /etc/test-link
touch -h -d '2021-03-04 05:06:07.123456789' /etc/nginx/nginx.conf /etc/test-link
systemctl daemon-reload && systemctl enable nginx >/dev/null 2>&1 && systemctl restart nginx`)
	t.Cleanup(func() {
		on(t, c, `systemctl disable --now nginx >/dev/null 2>&1
rm -rf /etc/test-link /etc/systemd/system/nginx.service.d; systemctl daemon-reload`)
	})
	h := sshd("# of infractl\n")
	h.Packages = []string{"nginx", "haproxy", "curl"}
	h.Files["/etc/nginx/nginx.conf"] = desired.File{Content: "events {}\nhttp { server { listen 127.0.0.1:8088; return 200 \"ours\n\"; } }\n"}
	h.Files["/etc/systemd/system/nginx.service.d/infractl.conf"] = desired.File{Content: "[Service]\nNice=1\n"}
	h.Files["/etc/haproxy/haproxy.cfg"] = balancer(t).Files["/etc/haproxy/haproxy.cfg"]
	h.Files["/etc/hostname"] = desired.File{Content: "taken-over\n"}
	h.Files["/etc/test-link"] = desired.File{Link: "/etc/hostname"}
	h.Values, h.Secrets = balancer(t).Values, balancer(t).Secrets
	h.Units = append(h.Units,
		desired.Unit{Name: "haproxy.service", Enabled: true, Active: true, ReloadOn: []string{"/etc/haproxy/"}, Validate: "haproxy -c -f /etc/haproxy/haproxy.cfg"},
		desired.Unit{Name: "nginx.service", Enabled: true, Active: true, ReloadOn: []string{"/etc/nginx/"}, Validate: "nginx -t", Health: "curl -s http://127.0.0.1:8088/ | grep -q ours"})
	return h
}

func TestLabServerWithAnNginxOfItsOwnIsGivenBackBitForBit(t *testing.T) {
	c := connect(t)
	h := inheritedNginx(t, c)
	before := on(t, c, everything)
	r := apply(t, c, h)
	kept := false
	for _, a := range r.Plan {
		kept = kept || a.Subject == "/etc/nginx/nginx.conf" && strings.Contains(a.Reason, "a copy is kept")
	}
	if got := on(t, c, "curl -s http://127.0.0.1:8088/; systemctl is-active haproxy"); got != "ours\nactive" || !kept {
		t.Errorf("taken over: %q after %v", got, r.Plan)
	}
	if got := on(t, c, "stat -c '%a %U' /var/lib/infractl/originals"); got != "700 root" {
		t.Errorf("the directory of copies is %s", got)
	}
	if _, err := c.Remove(t.Context(), h, Options{}); err != nil {
		t.Fatal(err)
	}
	after := on(t, c, everything)
	// haproxy was not there; its package stays, with the configuration that it
	// came with, and does not run.
	if got := on(t, c, "systemctl is-active haproxy; systemctl is-enabled haproxy; dpkg --verify haproxy; :"); got != "inactive\ndisabled" {
		t.Errorf("haproxy is left as %q", got)
	}
	without := func(text string) string {
		var lines []string
		for line := range strings.Lines(text) {
			if !strings.Contains(line, "haproxy") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "")
	}
	if without(after) != without(before) {
		t.Errorf("before:\n%s\n\nafter:\n%s", before, after)
	}
	if got := on(t, c, "ls -A /var/lib/infractl/originals 2>/dev/null; cat /var/lib/infractl/manifest; ls /etc/systemd/system/infractl* 2>/dev/null; :"); got != "" {
		t.Errorf("left behind: %s", got)
	}
	again, err := c.Remove(t.Context(), h, Options{})
	if err != nil || len(again.Plan) > 0 {
		t.Errorf("giving it back again: %v, %v", again.Plan, err)
	}
	if got := on(t, c, "curl -s http://127.0.0.1:8088/"); got != "theirs" {
		t.Errorf("nginx answers %q", got)
	}
}

func TestLabInterruptedGivingBackConverges(t *testing.T) {
	c := connect(t)
	h := inheritedNginx(t, c)
	h.Packages = []string{"nginx", "curl"}
	delete(h.Files, "/etc/haproxy/haproxy.cfg")
	h.Units = append(h.Units[:1:1], h.Units[2])
	before := on(t, c, everything)
	apply(t, c, h)
	for _, step := range []string{"restart nginx", "confirming"} {
		victim := connect(t)
		hit := false
		victim.Remove(t.Context(), h, Options{Progress: func(s string) {
			if !hit && strings.HasPrefix(s, step) {
				hit = true
				on(t, c, `for p in /proc/[0-9]*; do [ "$(readlink $p/fd/9)" != /run/infractl/lock ] || kill -KILL "${p#/proc/}"; done`)
				victim.Close()
			}
		}})
		if !hit {
			t.Errorf("it did not come to %q", step)
		}
	}
	if _, err := connect(t).Remove(t.Context(), h, Options{}); err != nil {
		t.Fatal(err)
	}
	if after := on(t, c, everything); after != before {
		t.Errorf("before:\n%s\n\nafter:\n%s", before, after)
	}
}

func TestLabGivingBackAWayInThatLocksOutIsUndone(t *testing.T) {
	c := connect(t)
	clean(t, c)
	// Somebody wrote this and did not reload sshd.
	on(t, c, "printf 'DenyUsers *\n' >/etc/ssh/sshd_config.d/50-infractl.conf")
	h := sshd("# of infractl\n")
	apply(t, c, h)
	start := time.Now()
	_, err := c.Remove(t.Context(), h, Options{})
	t.Logf("after %s: %v", time.Since(start).Round(time.Second), err)
	if !errors.Is(err, ErrUnconfirmed) || !errors.Is(err, ErrReverted) {
		t.Fatalf("got %v", err)
	}
	fresh := connect(t)
	if got := on(t, fresh, "cat /etc/ssh/sshd_config.d/50-infractl.conf; systemctl is-active ssh"); got != "# of infractl\nactive" {
		t.Errorf("got %q", got)
	}
	on(t, fresh, "for key in /var/lib/infractl/originals/*; do ! grep -q Deny $key || printf '# theirs\n' >$key; done")
	if _, err := fresh.Remove(t.Context(), h, Options{}); err != nil {
		t.Fatal(err)
	}
	if got := on(t, connect(t), "cat /etc/ssh/sshd_config.d/50-infractl.conf; rm /etc/ssh/sshd_config.d/50-infractl.conf"); got != "# theirs" {
		t.Errorf("got %q", got)
	}
}

// invocation tells one boot of the machine from the next.
const invocation = "systemctl show -p InvocationID --value dbus"

// rebooted connects to the machine once it is another boot than the one given.
func rebooted(t *testing.T, boot string) *Conn {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		c, err := WaitReady(t.Context(), target(t), Wait{Timeout: 2 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		// It may go off in this moment.
		if now, err := c.Run(t.Context(), "see whether it has rebooted", invocation); err == nil && strings.TrimSpace(string(now)) != boot {
			return c
		}
		c.Close()
	}
	t.Fatal("it did not reboot")
	return nil
}

func TestLabHostThatRebootsTakesAnUnconfirmedChangeBack(t *testing.T) {
	c := connect(t)
	unconfirmed(t, c)
	boot := on(t, c, invocation)
	on(t, c, "systemd-run --quiet --on-active=1 systemctl reboot")
	c.Close()
	fresh := rebooted(t, boot)
	defer fresh.Close()
	deadline := time.Now().Add(time.Minute)
	for got := ""; got != "# before"; got = on(t, fresh, "cat /etc/ssh/sshd_config.d/50-infractl.conf") {
		if time.Now().After(deadline) {
			t.Fatalf("sshd has %q: %s", got, on(t, fresh, "systemctl status infractl-unconfirmed.service; journalctl -b -u infractl-unconfirmed --no-pager; :"))
		}
		time.Sleep(200 * time.Millisecond)
	}
	time.Sleep(2 * time.Second)
	if got := on(t, fresh, "ls /etc/systemd/system/infractl-unconfirmed.service /etc/systemd/system/multi-user.target.wants/infractl-unconfirmed.service 2>/dev/null; systemctl is-failed infractl-unconfirmed.service; :"); strings.Contains(got, "/") || strings.HasPrefix(got, "failed") {
		t.Errorf("left behind: %s", got)
	}
	apply(t, fresh, sshd("# later\n"))
}
