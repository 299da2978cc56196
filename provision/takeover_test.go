package provision

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/infractl/infractl/provision/desired"
)

// inherited makes a machine with a web server that somebody has set up, and
// returns what infractl wants of it.
func inherited(t *testing.T) (*machine, desired.Host) {
	t.Helper()
	m := newMachine(t)
	m.sh(`mkdir -p /etc/nginx /etc/ssh/sshd_config.d /etc/systemd/system/nginx.service.d
printf 'theirs\n' >/etc/nginx/nginx.conf && chmod 0640 /etc/nginx/nginx.conf
printf 'the same\n' >/etc/same && chmod 0644 /etc/same
printf 'old-name\n' >/etc/hostname
printf 'flush\n' >/etc/nftables.conf && chmod 0700 /etc/nftables.conf
ln -s ../somewhere/else /etc/link
printf '[Service]\nNice=5\n' >/etc/systemd/system/nginx.service.d/infractl.conf
printf 'their sshd\n' >/etc/ssh/sshd_config
printf 'leave me\n' >/etc/bystander
chown 1:1 /etc/hostname 2>/dev/null
touch -h -d '2021-03-04 05:06:07.123456789' /etc/nginx/nginx.conf /etc/same /etc/hostname /etc/link /etc/bystander`)
	m.unit("nginx.service", "/etc/nginx/nginx.conf", "active", "enabled")
	m.unit("nftables.service", "/etc/nftables.conf", "inactive", "disabled")
	m.unit("ssh.service", "/etc/ssh/sshd_config.d/10-infractl.conf", "active", "enabled")
	m.unit("apache.service", "/etc/apache.conf", "inactive", "masked")
	m.sh("ln -s /dev/null /etc/systemd/system/apache.service")
	return m, desired.Host{
		Files: map[string]desired.File{
			"/etc/nginx/nginx.conf": {Content: "ours\n"},
			"/etc/same":             {Content: "the same\n"},
			"/etc/hostname":         {Content: "web-1\n"},
			"/etc/link":             {Content: "a file now\n"},
			"/etc/new/file":         {Content: "new\n"},
			"/etc/nftables.conf":    {Content: "table\n"},
			"/etc/ssh/sshd_config.d/10-infractl.conf":           {Content: "our sshd\n"},
			"/etc/systemd/system/nginx.service.d/infractl.conf": {Content: "[Service]\nNice=0\n"},
			"/etc/apache.conf": {Content: "ours\n"},
		},
		Units: []desired.Unit{
			{Name: "nftables.service", Enabled: true, Active: true, Guarded: true, ReloadOn: []string{"/etc/nftables.conf"}},
			{Name: "ssh.service", Enabled: true, Active: true, Guarded: true, ReloadOn: []string{"/etc/ssh/"}},
			{Name: "apache.service", Enabled: true, Active: true, ReloadOn: []string{"/etc/apache.conf"}},
			{Name: "nginx.service", Enabled: true, Active: true, ReloadOn: []string{"/etc/nginx/"}},
		},
	}
}

func TestServerThatIsTakenOverIsGivenBackBitForBit(t *testing.T) {
	m, h := inherited(t)
	before := m.everything()
	a, err := m.connect().Inspect(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := Plan(h, a)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, action := range plan {
		if strings.Contains(action.Reason, "it is not infractl's yet, and a copy is kept") {
			told = append(told, action.Subject)
		}
		if action.Subject == "/etc/hostname" && !strings.Contains(action.Diff, "-old-name\n+web-1\n") {
			t.Errorf("the diff is %q", action.Diff)
		}
	}
	if want := []string{"/etc/hostname", "/etc/link", "/etc/nftables.conf", "/etc/nginx/nginx.conf", "/etc/systemd/system/nginx.service.d/infractl.conf"}; !slices.Equal(told, want) {
		t.Errorf("told of %q", told)
	}
	m.apply(h)
	if got := m.sh("cat /etc/nginx/nginx.conf /run/units/nginx.service/running /run/units/apache.service/active /run/units/apache.service/enabled; stat -c '%a %U' /var/lib/infractl/originals"); got != "ours\nours\nactive\nenabled\n700 root" {
		t.Errorf("after the first apply: %s", got)
	}
	// What is kept is what was there first, whatever happens later.
	changed := h
	changed.Files = map[string]desired.File{}
	for name, f := range h.Files {
		changed.Files[name] = f
	}
	changed.Files["/etc/nginx/nginx.conf"] = desired.File{Content: "ours, again\n"}
	m.apply(changed)
	m.sh("printf 'edited by hand\n' >/etc/nginx/nginx.conf; rm /etc/hostname")
	m.apply(h)
	m.sh("printf 'edited by hand\n' >/etc/nginx/nginx.conf; rm /etc/hostname")
	m.remove(h)
	if after := m.everything(); after != before {
		t.Errorf("before:\n%s\n\nafter:\n%s", before, after)
	}
	if got := m.sh("ls -A /var/lib/infractl/originals /var/lib/infractl/tx 2>/dev/null; cat /var/lib/infractl/manifest; find /etc /srv /run /var/lib -name '.infractl*'"); got != "/var/lib/infractl/tx:" && got != "" {
		t.Errorf("left behind: %s", got)
	}
	// Once more changes nothing.
	m.sh("cp -a /etc/nginx/nginx.conf /etc/before; : >/run/systemctl.log")
	if r := m.remove(h); len(r.Plan) > 0 {
		t.Errorf("giving it back again does %v", r.Plan)
	}
}

func TestGivingBackTheWayInIsUndoneIfNobodyGetsInByIt(t *testing.T) {
	m, h := inherited(t)
	before := m.everything()
	m.apply(h)
	applied := m.everything()
	let := m.config.PublicKeyCallback
	m.lockOut("! test -e /etc/ssh/sshd_config.d/10-infractl.conf")
	_, err := m.connect().Remove(t.Context(), h, Options{})
	t.Log(err)
	if !errors.Is(err, ErrUnconfirmed) || !errors.Is(err, ErrReverted) || !strings.Contains(err.Error(), "~/.ssh/authorized_keys") {
		t.Errorf("got %v", err)
	}
	if after := m.everything(); after != applied {
		t.Errorf("as applied:\n%s\n\nafter:\n%s", applied, after)
	}
	m.config.PublicKeyCallback = let
	m.remove(h)
	if after := m.everything(); after != before {
		t.Errorf("before:\n%s\n\nafter:\n%s", before, after)
	}
}

func TestTakingOverThatLocksOutIsTakenBack(t *testing.T) {
	m, h := inherited(t)
	before := m.everything()
	c := m.connect()
	m.lockOut("grep -q table /etc/nftables.conf")
	_, err := c.Apply(t.Context(), h, Options{})
	if !errors.Is(err, ErrUnconfirmed) || !errors.Is(err, ErrReverted) {
		t.Errorf("got %v", err)
	}
	if after := m.everything(); after != before {
		t.Errorf("before:\n%s\n\nafter:\n%s", before, after)
	}
	if got := m.sh("ls /etc/systemd/system/multi-user.target.wants /var/lib/infractl/tx /run/units/.timers"); strings.Contains(got, "infractl-") {
		t.Errorf("left behind: %s", got)
	}
	// What its owner does afterwards counts as what was there before.
	m.sh("printf 'theirs, later\n' >/etc/nginx/nginx.conf; systemctl stop nginx.service")
	before = m.everything()
	h.Files["/etc/nftables.conf"] = desired.File{Content: "rules\n"}
	m.apply(h)
	m.remove(h)
	if after := m.everything(); after != before {
		t.Errorf("before:\n%s\n\nafter:\n%s", before, after)
	}
}

func TestInterruptedTakingOverAndGivingBackConverge(t *testing.T) {
	m, h := inherited(t)
	before := m.everything()
	// at makes a change and kills it on the host when it comes to a step.
	at := func(step string, change func(c *Conn, o Options)) {
		hit := false
		c := m.connect()
		change(c, Options{Progress: func(s string) {
			if !hit && strings.HasPrefix(s, step) {
				hit = true
				m.kill()
			}
		}})
		if !hit {
			t.Errorf("it did not come to %q", step)
		}
	}
	for _, step := range []string{"enable nftables", "restart apache", "confirming"} {
		at(step, func(c *Conn, o Options) { c.Apply(t.Context(), h, o) })
		if step == "restart apache" {
			m.reboot()
			if after := m.everything(); after != before {
				t.Errorf("rebooted at %s:\n%s\n\ninstead of:\n%s", step, after, before)
			}
		}
	}
	m.apply(h)
	applied := m.everything()
	for _, step := range []string{"stop nginx", "restart nginx", "disable nftables", "confirming"} {
		at(step, func(c *Conn, o Options) { c.Remove(t.Context(), h, o) })
		if step == "restart nginx" {
			m.reboot()
			if after := m.everything(); after != applied {
				t.Errorf("rebooted at %s:\n%s\n\ninstead of:\n%s", step, after, applied)
			}
		}
	}
	m.remove(h)
	if after := m.everything(); after != before {
		t.Errorf("before:\n%s\n\nafter:\n%s", before, after)
	}
}

func TestGivingBackThatDiesInItsLastStepIsFinished(t *testing.T) {
	m, h := inherited(t)
	before := m.everything()
	m.apply(h)
	m.sh("cp -a /var/lib/infractl/originals /var/lib/kept")
	m.remove(h)
	// The host lost power when the manifest was empty and the index still there.
	m.sh("mv /var/lib/kept /var/lib/infractl/originals; printf 'later\n' >/etc/hostname")
	if r := m.remove(h); len(r.Plan) > 0 {
		t.Errorf("giving it back again does %v", r.Plan)
	}
	if got := m.sh("cat /etc/hostname"); got != "later" {
		t.Errorf("got %s", got)
	}
	// What was left says nothing when the host is taken over anew.
	m.sh("systemctl stop nginx.service")
	m.apply(h)
	m.remove(h)
	if got := m.sh("cat /etc/hostname; cat /run/units/nginx.service/active; ls -d /var/lib/infractl/originals 2>/dev/null"); got != "later\ninactive" {
		t.Errorf("got %s", got)
	}
	m.sh("systemctl start nginx.service")
	m.sh("printf 'old-name\n' >/etc/hostname; chown 1:1 /etc/hostname 2>/dev/null; touch -d '2021-03-04 05:06:07.123456789' /etc/hostname")
	if after := m.everything(); after != before {
		t.Errorf("before:\n%s\n\nafter:\n%s", before, after)
	}
}

func TestFileNoLongerDesiredBecomesWhatItWas(t *testing.T) {
	m, h := inherited(t)
	h.Units = nil
	m.apply(h)
	delete(h.Files, "/etc/nginx/nginx.conf")
	delete(h.Files, "/etc/link")
	delete(h.Files, "/etc/new/file")
	m.apply(h)
	if got := m.sh("cat /etc/nginx/nginx.conf; stat -c '%a %y' /etc/nginx/nginx.conf; readlink /etc/link; cat /etc/new/file 2>/dev/null; grep -c ^file /var/lib/infractl/originals/index; ls /var/lib/infractl/originals | grep -cv index"); got != "theirs\n640 2021-03-04 05:06:07.123456789 +0000\n../somewhere/else\n4\n4" {
		t.Errorf("got %s", got)
	}
	// From here on it is its owner's, and kept anew when it is taken again.
	m.sh("printf 'theirs, later\n' >/etc/nginx/nginx.conf")
	h.Files["/etc/nginx/nginx.conf"] = desired.File{Content: "ours\n"}
	m.apply(h)
	m.remove(h)
	if got := m.sh("cat /etc/nginx/nginx.conf"); got != "theirs, later" {
		t.Errorf("got %s", got)
	}
}
