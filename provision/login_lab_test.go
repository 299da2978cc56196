//go:build lab

package provision

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/infractl/infractl/provision/ask"
)

// forgetPassword makes this process one that has not asked for a password yet.
func forgetPassword(t *testing.T) {
	t.Helper()
	sudoPassword.mu.Lock()
	defer sudoPassword.mu.Unlock()
	sudoPassword.text, sudoPassword.known, sudoPassword.proven, sudoPassword.wrong = "", false, false, ""
	clear(sudoPassword.refused)
}

// anna makes a user who may use sudo with a password only, and returns how she
// logs in: the machine is one of her own.
func anna(t *testing.T, c *Conn) Target {
	t.Helper()
	on(t, c, `id anna >/dev/null 2>&1 || useradd -m -s /bin/sh anna
printf 'anna:%s\n' 'open sesame' | chpasswd
install -d -m 700 -o anna -g anna /home/anna/.ssh
install -m 600 -o anna -g anna "$(getent passwd `+c.user+` | cut -d: -f6)/.ssh/authorized_keys" /home/anna/.ssh/
printf 'anna ALL=(ALL) ALL\n' >/etc/sudoers.d/anna
chmod 440 /etc/sudoers.d/anna`)
	t.Cleanup(func() {
		on(t, c, "rm -f /etc/sudoers.d/anna; userdel -rf anna 2>/dev/null || true")
		forgetPassword(t)
	})
	forgetPassword(t)
	configFile(t, "")
	t.Setenv(sudoVariable, "")
	t.Setenv(ask.Variable, "")
	target := c.Target()
	target.User, target.Own = "anna", true
	return target
}

func TestLabSudoWithAPassword(t *testing.T) {
	root := connect(t)
	target := anna(t, root)
	_, err := Connect(t.Context(), target)
	if err == nil || !strings.Contains(err.Error(), "sudo asks user anna for a password") {
		t.Fatalf("without a password: %v", err)
	}
	t.Setenv(sudoVariable, "open sesame")
	c, err := Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// What follows the script is the script's, and the password is nowhere.
	s, err := c.start(t.Context(), "test", "printf '@infractl\\n'; id -un; head -c 5; env; ps axeww -o args; grep -als 'open sesame' /proc/[0-9]*/cmdline /proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	go io.WriteString(s.in, "input")
	out, _ := io.ReadAll(s.out)
	s.wait()
	if !strings.HasPrefix(string(out), "root\ninput") || strings.Contains(strings.ReplaceAll(string(out), "grep -als 'open sesame'", ""), "open sesame\n") || strings.Contains(string(out), "/proc/") && strings.Contains(string(out), "/environ\n") {
		t.Errorf("got %q", out)
	}
	if logs := on(t, root, "journalctl --since -5min --no-pager | grep -c 'open sesame'; grep -rls 'open sesame' /var/log/*.log /var/log/sudo* || true"); logs != "0" {
		t.Errorf("it is in a log: %s", logs)
	}
	m, err := c.Facts(t.Context())
	if err != nil || m.Sudo != PasswordSudo {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestLabWrongPasswordDoesNotLockTheAccount has a host that locks an account
// after three failures, as administrators set it up.
func TestLabWrongPasswordDoesNotLockTheAccount(t *testing.T) {
	root := connect(t)
	target := anna(t, root)
	on(t, root, `cp /etc/pam.d/sudo /etc/pam.d/sudo.before
{
	printf 'auth required pam_faillock.so preauth silent deny=3 unlock_time=600\n'
	printf 'auth [success=1 default=ignore] pam_unix.so\n'
	printf 'auth [default=die] pam_faillock.so authfail deny=3 unlock_time=600\n'
	printf 'auth sufficient pam_faillock.so authsucc deny=3 unlock_time=600\n'
	printf '@include common-account\n@include common-session-noninteractive\n'
} >/etc/pam.d/sudo
faillock --user anna --reset`)
	t.Cleanup(func() {
		on(t, root, "mv /etc/pam.d/sudo.before /etc/pam.d/sudo; faillock --user anna --reset || true")
	})
	t.Setenv(sudoVariable, "wrong")
	for range 3 {
		_, err := Connect(t.Context(), target)
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Fatalf("got %v", err)
		}
	}
	// sudo asks again after a wrong password, and that nobody answers counts too.
	failures := on(t, root, "faillock --user anna | grep -c ' V$'")
	t.Logf("failures that pam_faillock counts after one wrong password and three connections: %s", failures)
	if failures > "2" {
		t.Errorf("%s failures are counted", failures)
	}
	forgetPassword(t)
	t.Setenv(sudoVariable, "open sesame")
	c, err := Connect(t.Context(), target)
	if err != nil {
		t.Fatalf("the account is locked: %v", err)
	}
	c.Close()
}

func TestLabThroughAJumpHost(t *testing.T) {
	root := connect(t)
	jump := root.Target()
	configFile(t, fmt.Sprintf("Host jump\nHostName %s\nUser %s\nUserKnownHostsFile none\nGlobalKnownHostsFile none\n", jump.Address, jump.User))
	target := jump
	target.Address, target.Jump, target.KnownHosts = "127.0.0.1", "jump", jump.Address+" "+jump.HostKey
	c, err := Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if from := on(t, c, "who -m; cat /proc/$PPID/environ | tr '\\0' '\\n' | grep -a SSH_CLIENT || ss -Htn state established sport = :22"); !strings.Contains(from, "127.0.0.1") {
		t.Errorf("not through the jump host: %s", from)
	}
}

func TestLabFacts(t *testing.T) {
	c := connect(t)
	// A package that dpkg could not configure.
	on(t, c, `mkdir -p /tmp/half/DEBIAN
printf 'Package: half\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.com>\nDescription: fails\n' >/tmp/half/DEBIAN/control
printf '#!/bin/sh\nexit 1\n' >/tmp/half/DEBIAN/postinst
chmod 755 /tmp/half/DEBIAN /tmp/half/DEBIAN/postinst
dpkg-deb --build /tmp/half /tmp/half.deb >/dev/null
dpkg -i /tmp/half.deb >/dev/null 2>&1 || true`)
	defer on(t, c, "dpkg --purge half >/dev/null 2>&1; rm -rf /tmp/half /tmp/half.deb")
	// Somebody installs packages just now, until the test's end.
	const holding = "/run/test-holds-dpkg"
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		aside(t, "perl -MFcntl=:flock,F_SETLK,F_WRLCK -e 'open my $f, q(>>), q(/var/lib/dpkg/lock-frontend) or die; my $l = pack(q(s s x4 q q i), F_WRLCK, 0, 0, 0, 0); fcntl($f, F_SETLK, $l) or die; open my $h, q(>), q("+holding+"); for (1..600) { select undef, undef, undef, 0.1; last unless -e q("+holding+") }' || true")
	}()
	defer func() {
		on(t, c, "rm -f "+holding)
		<-ended
	}()
	on(t, c, "for i in $(seq 200); do [ ! -e "+holding+" ] || exit 0; sleep 0.1; done; exit 1")
	m, err := c.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", *m)
	if m.OS != "debian" || m.Version == "" || m.Codename == "" || !m.Systemd || m.Sudo != FreeSudo || m.Cores < 1 || m.MemoryMB < 100 || m.Uptime <= 0 {
		t.Errorf("%+v", *m)
	}
	if m.ClockOffset.Abs() > m.ClockError+100*time.Millisecond || m.ClockError > 5*time.Second {
		t.Errorf("clock: %s ± %s", m.ClockOffset, m.ClockError)
	}
	if !slices.ContainsFunc(m.Listening, func(l Listener) bool {
		return l.Protocol == "tcp" && l.Port == 22 && slices.Contains(l.Processes, "sshd")
	}) {
		t.Errorf("listening: %+v", m.Listening)
	}
	if i := slices.IndexFunc(m.Interfaces, func(i Interface) bool { return i.Name == m.DefaultRoute }); i < 0 || len(m.Interfaces[i].Addresses) == 0 || !m.Interfaces[i].Up || m.Interfaces[i].MAC == "" {
		t.Errorf("interfaces: %+v, default %s", m.Interfaces, m.DefaultRoute)
	}
	if len(m.Busy) != 1 || m.Busy[0].Name != "perl" || m.Busy[0].PID == 0 {
		t.Errorf("locks: %+v", m.Busy)
	}
	if !strings.Contains(m.Unfinished, "half") {
		t.Errorf("unfinished: %q", m.Unfinished)
	}
	if name := os.Getenv("INFRACTL_TEST_RECORD"); name != "" {
		out, err := c.output(t.Context(), "record", factsScript("@@0123456789abcdef"))
		if err == nil {
			err = os.WriteFile(name, out, 0o644)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// aside runs a command over a connection of its own.
func aside(t *testing.T, command string) {
	c, err := Connect(t.Context(), target(t))
	if err != nil {
		return
	}
	defer c.Close()
	c.Run(t.Context(), "test", command)
}
