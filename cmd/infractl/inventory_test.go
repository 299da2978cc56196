package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/infractl/infractl/cmd/infractl/internal/fleet/fleettest"
)

// rackConfig is an environment on servers that are there already.
const rackConfig = `# Ours.
config:
  infractl:target: hosts
  infractl:ssh: {allowFrom: [203.0.113.7], authorizedKeys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ"]}
  infractl:application: {name: shop, release: dist, command: bin/shop}
  infractl:tiers: {web: {count: 1}}
  infractl:hosts:
    lb: [{name: rack-1, address: 198.51.100.11, private: 10.0.1.11}]
    web:
      - {name: rack-2, address: 198.51.100.12, private: 10.0.1.12} # the first
      - {name: rack-3, address: 198.51.100.13, private: 10.0.1.13}
    app: [{name: rack-4, address: 198.51.100.14, private: 10.0.1.14}]
    db: [{name: rack-5, address: 198.51.100.15, private: 10.0.1.15}]
    spare: [{name: rack-6, address: 198.51.100.16, private: 10.0.1.16}]
`

// racks is a project with such an environment.
func racks(t *testing.T) string { return project(t, map[string]string{"Pulumi.shop.yaml": rackConfig}) }

func configOf(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "Pulumi.shop.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestMistakesInInventoryCommandsAreSaid(t *testing.T) {
	dir := racks(t)
	for _, c := range []struct{ line, want string }{
		{"hosts add web", "name a tier and a server: infractl hosts add TIER|spare"},
		{"hosts add cache 192.0.2.1", `there is no tier "cache"; there are lb, web, app, db, and spare`},
		{"hosts add web rack-9:ssh", "must end in a port between 1 and 65535"},
		{"hosts add web rack-9 --port 0", "--port must be between 1 and 65535, not 0"},
		{"hosts add web ada@rack-9 --user eve", "the user is ada in ada@rack-9, but eve in --user"},
		{"hosts add web rack-9 --private fe80::1", "--private must be an IPv4 address"},
		{"hosts add web rack-9 --host-key MD5:00", "--host-key: "},
		{"hosts add web rack-9 --fast", "flag provided but not defined: -fast"},
		{"hosts add web 198.51.100.12", "is in the inventory already: rack-2 (web)"},
		{"hosts add web 192.0.2.1 --name rack-5", "has a server rack-5 already"},
		{"hosts remove", "name one server: infractl hosts remove"},
		{"hosts remove web-2", "there is no terminal to ask on; say --yes"},
		{"hosts remove rack-9 --yes", `there is no server "rack-9"; there are rack-1`},
		{"hosts remove db-1 --yes", "say --leave-data db-1"},
		{"hosts list web", `hosts list takes no arguments, but there is "web"`},
		{"hosts check rack-9", `there is no server "rack-9"; there are rack-1`},
	} {
		stdout, stderr, code := command(t, dir, strings.Fields(c.line)...)
		if code != 2 || !strings.Contains(stderr, c.want) || stdout != "" {
			t.Errorf("infractl %s: exit code %d\nstdout: %s\nstderr: %s", c.line, code, stdout, stderr)
		}
	}
	if configOf(t, dir) != rackConfig {
		t.Errorf("the configuration was changed:\n%s", configOf(t, dir))
	}
}

func TestInventoryIsListedFromTheConfigurationAlone(t *testing.T) {
	dir := racks(t)
	t.Setenv("PATH", t.TempDir()) // neither Pulumi nor anything else
	stdout, stderr, code := command(t, dir, "hosts", "list")
	lines := strings.Split(stdout, "\n")
	if code != 0 || len(lines) != 8 || strings.Join(strings.Fields(lines[2]), " ") != "rack-2 web web-1 198.51.100.12 10.0.1.12 root 2048 2 13 known_hosts" ||
		!strings.Contains(lines[3], "rack-3  web     -") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	stdout, _, code = command(t, dir, "hosts", "list", "--json")
	var doc struct {
		Environment string
		Servers     []struct {
			Name, Address string
			Lists, Hosts  []string
		}
	}
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil || code != 0 || doc.Environment != "shop" || len(doc.Servers) != 6 || doc.Servers[5].Lists[0] != "spare" {
		t.Errorf("%v\n%s", err, stdout)
	}
}

func TestServerIsTakenOutOfTheConfiguration(t *testing.T) {
	dir := racks(t)
	stdout, stderr, code := command(t, dir, "hosts", "remove", "web-1", "--yes")
	want := strings.Replace(rackConfig, "      - {name: rack-2, address: 198.51.100.12, private: 10.0.1.12} # the first\n", "", 1)
	if code != 0 || configOf(t, dir) != want || !strings.Contains(stderr, "rack-3 was not used and is web-1 from the next up on") || !strings.Contains(stdout, "infractl preview --env shop") {
		t.Errorf("exit code %d\n%s%s\n%s", code, stdout, stderr, configOf(t, dir))
	}
}

// strangers are a server that nobody knows, and the project that it is to join.
func strangers(t *testing.T) (dir string, host *fleettest.Host, address string, port int) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte("Host *\n  UserKnownHostsFile none\n  GlobalKnownHostsFile none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, hosts := fleettest.New(t, "web-1")
	t.Setenv("INFRACTL_SSH_CONFIG", config)
	return racks(t), hosts["web-1"], fmt.Sprintf("infractl@%s:%d", hosts["web-1"].Public, f.Port), f.Port
}

func TestNoServerJoinsWhoseKeyNobodyKnows(t *testing.T) {
	dir, host, address, _ := strangers(t)
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(host.HostKey))
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := ssh.FingerprintSHA256(key)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "If it is the same, say --host-key " + fingerprint},
		{[]string{"--yes"}, 2, "no key is trusted because it came first"},
		{[]string{"--host-key", "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"}, 1, "the host key is not the expected one: it shows " + fingerprint},
	} {
		_, stderr, code := command(t, dir, append([]string{"hosts", "add", "web", address}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit code %d\n%s", c.args, code, stderr)
		}
	}
	host.Stop()
	if _, stderr, code := command(t, dir, "hosts", "add", "web", address); code != 1 || !strings.Contains(stderr, "the host cannot be reached") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	if configOf(t, dir) != rackConfig {
		t.Errorf("the configuration was changed:\n%s", configOf(t, dir))
	}
}

// typist is a terminal at which somebody answers the question about the host key.
// Standard input and standard error are on it until the end of the test.
func typist(t *testing.T, answer string) (shown func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo terminal: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	stdin, stderr := os.Stdin, os.Stderr
	os.Stdin, os.Stderr = slave, slave
	t.Setenv("TERM", "xterm")
	t.Setenv("CI", "1") // nothing is drawn again
	var mu sync.Mutex
	var text strings.Builder
	go func() {
		asked := false
		for b := make([]byte, 4096); ; {
			n, err := master.Read(b)
			mu.Lock()
			text.Write(b[:n])
			if !asked && strings.Contains(text.String(), "Is it right?") {
				asked = true
				fmt.Fprintln(master, answer)
			}
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		os.Stdin, os.Stderr = stdin, stderr
		slave.Close()
		master.Close()
	})
	return func() string {
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			mu.Lock()
			got := text.String()
			mu.Unlock()
			if strings.Contains(got, "infractl: ") || time.Now().After(deadline) {
				return got
			}
		}
	}
}

func TestWhoSitsAtATerminalIsAskedAboutTheKey(t *testing.T) {
	for _, c := range []struct{ answer, want string }{
		{"no", "not confirmed; nothing was changed"},
		{"SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU", "not confirmed; nothing was changed"},
		// Once the key is confirmed, it goes on to what must be wrong here.
		{"yes", "does not have the address 192.0.2.250"},
		{"fingerprint", "does not have the address 192.0.2.250"},
	} {
		t.Run(c.answer, func(t *testing.T) {
			dir, host, address, _ := strangers(t)
			key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(host.HostKey))
			if err != nil {
				t.Fatal(err)
			}
			if c.answer == "fingerprint" {
				c.answer = ssh.FingerprintSHA256(key)
			}
			t.Chdir(dir)
			shown := typist(t, c.answer)
			code := run([]string{"infractl", "hosts", "add", "web", address, "--private", "192.0.2.250"})
			text := shown()
			// What comes next depends on what this computer is.
			fit := strings.Contains(text, c.want) || c.want[0] == 'd' && strings.Contains(text, "infractl needs")
			if code == 0 || !fit || !strings.Contains(text, ssh.FingerprintSHA256(key)) || !strings.Contains(text, "ssh_host_ed25519_key.pub") || configOf(t, dir) != rackConfig {
				t.Errorf("exit code %d\n%s", code, text)
			}
		})
	}
}

func TestServerJoinsIfItIsFit(t *testing.T) {
	dir, host, address, port := strangers(t)
	private := ""
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range interfaces {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			private = n.IP.String()
		}
	}
	if private == "" {
		t.Skip("this computer has no IPv4 address but that of the loopback")
	}
	stdout, stderr, code := command(t, dir, "hosts", "add", "web", address, "--host-key", strings.TrimSpace(host.HostKey), "--private", private, "--name", "rack-9")
	release, _ := os.ReadFile("/etc/os-release")
	_, booted := os.Stat("/run/systemd/system")
	if text := string(release); booted != nil || !strings.Contains(text, "\nID=debian\n") {
		// Here the commands of the server run on a computer that infractl could not take.
		if code != 1 || configOf(t, dir) != rackConfig || !strings.Contains(stderr, "Nothing was changed.") {
			t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
		}
		return
	}
	got := configOf(t, dir)
	entry := fmt.Sprintf("      - {name: rack-9, address: %s, private: %s, hostKey: %q, user: infractl, port: %d, memory: ", host.Public, private, strings.TrimSpace(host.HostKey), port)
	if code != 0 || !strings.Contains(got, "private: 10.0.1.13}\n"+entry) || !strings.Contains(stdout, "infractl scale --env shop web=3") {
		t.Errorf("exit code %d\n%s%s\n%s", code, stdout, stderr, got)
	}
	if _, stderr, code := command(t, dir, "hosts", "add", "app", address, "--host-key", strings.TrimSpace(host.HostKey)); code != 2 || !strings.Contains(stderr, "is in the inventory already: rack-9 (web)") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}

func TestCheckTellsByItsExitCodeWhetherServersAreFit(t *testing.T) {
	dir, host, _, port := strangers(t)
	text := fmt.Sprintf("config:\n  infractl:target: hosts\n  infractl:hosts:\n    web: [{name: rack-1, address: %s, port: %d, user: infractl, private: 192.0.2.77, hostKey: %q}]\n", host.Public, port, strings.TrimSpace(host.HostKey))
	if err := os.WriteFile(filepath.Join(dir, "Pulumi.shop.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// The other tiers are missing, so nobody knows what is to be on this one.
	stdout, stderr, code := command(t, dir, "hosts", "check", "--json")
	var doc struct {
		OK      bool
		Servers []struct {
			Server, System string
			Findings       []struct{ Check, Message string }
		}
	}
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil || code != 1 || doc.OK || len(doc.Servers) != 1 || doc.Servers[0].System == "" {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if !strings.Contains(fmt.Sprint(doc.Servers[0].Findings), "it does not have the address 192.0.2.77") || !strings.Contains(stderr, "infractl:hosts.db: must name the hosts of tier db") ||
		!strings.Contains(stderr, "not fit for shop: rack-1") {
		t.Errorf("%s%s", stdout, stderr)
	}
	if err := os.WriteFile(filepath.Join(dir, "Pulumi.shop.yaml"), []byte(text+"    app: [{address: 7}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := command(t, dir, "hosts", "check"); code != 2 || !strings.Contains(stderr, "infractl:hosts.app[0].address: must be text") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}
