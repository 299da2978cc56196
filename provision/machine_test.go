package provision

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/infractl/infractl/provision/desired"
)

// machine is a machine on this computer on which changes can really be made: a
// mount namespace whose /etc, /run, /srv and /var/lib are its own. There is no
// systemd in it, and units are what testdata/machine/systemctl makes of them. The
// tests with the build tag lab have the real one.
type machine struct {
	*host
	t *testing.T
	// enter is the command that runs another one there.
	enter []string
	// groups are the process groups of the commands that run there.
	mu     sync.Mutex
	groups map[int]bool
}

// newMachine makes a machine, or skips the test where that is not allowed.
func newMachine(t *testing.T) *machine {
	t.Helper()
	alone := []string{"--mount"}
	into := []string{"--mount"}
	if os.Geteuid() != 0 {
		alone = []string{"--user", "--map-root-user", "--mount"}
		into = []string{"--user", "--preserve-credentials", "--mount"}
	}
	setup, err := filepath.Abs("testdata/machine/setup.sh")
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("unshare", append(alone, "sh", setup, t.TempDir())...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaint strings.Builder
	c.Stderr = &complaint
	if err := c.Start(); err != nil {
		t.Skipf("no machine can be made here: %v", err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		c.Process.Kill()
		c.Wait()
		t.Skipf("no machine can be made here: %s", complaint.String())
	}
	m := &machine{t: t, groups: map[int]bool{}, enter: append(append([]string{"nsenter", "--target", fmt.Sprint(c.Process.Pid)}, into...), "--")}
	m.host = newHost(t, func(h *host) {
		h.run = func(command string, in io.Reader, out, errors io.Writer) int {
			return m.run(command, in, out, errors)
		}
	})
	return m
}

// run runs a command on the machine, as the session of a login would.
func (m *machine) run(command string, in io.Reader, out, errors io.Writer) int {
	c := exec.Command(m.enter[0], append(m.enter[1:], "sh", "-c", strings.Replace(command, "sudo -n --", "", 1))...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Stdout, c.Stderr = out, errors
	stdin, err := c.StdinPipe()
	if err != nil || c.Start() != nil {
		return 126
	}
	m.mu.Lock()
	m.groups[c.Process.Pid] = true
	m.mu.Unlock()
	go func() { io.Copy(stdin, in); stdin.Close() }()
	c.Wait()
	m.mu.Lock()
	delete(m.groups, c.Process.Pid)
	m.mu.Unlock()
	return c.ProcessState.ExitCode()
}

// kill ends everything that runs there at once, but for timers.
func (m *machine) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for group := range m.groups {
		syscall.Kill(-group, syscall.SIGKILL)
	}
}

// reboot is what a machine goes through that is switched off and on: whatever ran
// is gone, and so is /run. Enabled units start, and then the one that was wanted.
func (m *machine) reboot() {
	m.t.Helper()
	m.kill()
	m.sh(`for timer in /run/units/.timers/*.timer; do [ ! -e "$timer" ] || systemctl stop "${timer##*/}"; done
rm -rf /run/infractl /run/units/.timers
for unit in /run/units/*; do
	rm -f "$unit/running"
	echo inactive >"$unit/active"
	[ "$(cat "$unit/enabled")" != enabled ] || systemctl start "${unit##*/}"
done
late=/etc/systemd/system/multi-user.target.wants/infractl-unconfirmed.service
if [ -e "$late" ] && [ -e "$(sed -n 's/^ConditionPathExists=//p' "$late")" ]; then
	$(sed -n 's/^ExecStart=//p' "$late")
fi`)
}

// sh runs a command on the machine and returns its output.
func (m *machine) sh(command string) string {
	m.t.Helper()
	var out, errors strings.Builder
	m.run("PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin\n"+command, strings.NewReader(""), &out, &errors)
	if errors.Len() > 0 {
		m.t.Logf("%s: %s", command, errors.String())
	}
	return strings.TrimSpace(out.String())
}

// unit makes a unit that reads a file when it starts, in the state given.
func (m *machine) unit(name, conf, active, enabled string) {
	m.t.Helper()
	m.sh(fmt.Sprintf(`mkdir -p /run/units/%[1]s && cd /run/units/%[1]s && printf '%%s\n' %[2]s >conf && printf '%%s\n' %[3]s >active && printf '%%s\n' %[4]s >enabled
[ %[3]s != active ] || cat %[2]s >running 2>/dev/null`, name, quote(conf), active, enabled))
}

// everything is a listing of all that is on the machine: type, mode, owner, time,
// link and content of each file, and how units are. Links that mask units are made
// by systemctl.
func (m *machine) everything() string {
	m.t.Helper()
	return m.sh(`find /etc /srv -type d -printf 'd %m %p\n' | sort
find /etc /srv \( -type f -o -type l \) ! -lname /dev/null -printf '%y %m %u:%g %T@ %p %l\n' -type f -exec sha256sum {} \; | sort
cd /run/units && for u in *; do echo "$u $(cat $u/active) $(cat $u/enabled)"; cat $u/running 2>/dev/null; done`)
}

func (m *machine) connect() *Conn {
	m.t.Helper()
	c, err := Connect(m.t.Context(), m.target())
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(c.Close)
	return c
}

func (m *machine) apply(h desired.Host) Result {
	m.t.Helper()
	r, err := m.connect().Apply(m.t.Context(), h, Options{Progress: func(s string) { m.t.Log(s) }})
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

func (m *machine) remove(h desired.Host) Result {
	m.t.Helper()
	r, err := m.connect().Remove(m.t.Context(), h, Options{Progress: func(s string) { m.t.Log(s) }})
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

// lockOut lets nobody log in any more while a command succeeds on the machine.
func (m *machine) lockOut(command string) {
	let := m.config.PublicKeyCallback
	m.config.PublicKeyCallback = func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if m.run(command, strings.NewReader(""), io.Discard, io.Discard) == 0 {
			return nil, fmt.Errorf("locked out")
		}
		return let(c, key)
	}
}
