//go:build lab

package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"github.com/infractl/infractl/lab/internal/traces"
	"github.com/infractl/infractl/lab/machine"
)

// daemonVariable makes the test binary be the lab's daemon.
const daemonVariable = "INFRACTL_LAB_TEST_DAEMON"

func TestMain(m *testing.M) {
	if os.Getenv(daemonVariable) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := Serve(ctx, Options{}, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// options are those of a lab for one test, which must not meet another one.
func options(t *testing.T) Options {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if marker, err := machine.ReadMarker(); err == nil {
		t.Fatalf("a lab is up in %s, and these tests need the computer for themselves", marker.Dir)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/var/lib", "infractl-lab-test-")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Dir: dir, Project: t.TempDir(), Daemon: []string{"env", daemonVariable + "=1", self},
		Progress: func(line string) { t.Log(line) },
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := Down(ctx, o, DownOptions{}); err != nil {
			t.Errorf("down: %v", err)
		}
		os.RemoveAll(dir)
	})
	return o
}

// cloud is a client of the lab's API, and what servers of the tests have in common.
type cloud struct {
	t *testing.T
	*hcloud.Client
	o       Options
	key     *hcloud.SSHKey
	network *hcloud.Network
}

func newCloud(t *testing.T, o Options) *cloud {
	t.Helper()
	client, err := Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	c := &cloud{t: t, o: o, Client: hcloud.NewClient(
		hcloud.WithEndpoint(Endpoint), hcloud.WithToken(client.Token()),
		hcloud.WithPollOpts(hcloud.PollOpts{BackoffFunc: hcloud.ConstantBackoff(20 * time.Millisecond)}),
	)}
	public, err := os.ReadFile(filepath.Join(o.Dir, "id_ed25519.pub"))
	if err != nil {
		t.Fatal(err)
	}
	if c.key, _, err = c.SSHKey.Create(t.Context(), hcloud.SSHKeyCreateOpts{Name: "operator", PublicKey: string(public)}); err != nil {
		t.Fatal(err)
	}
	_, network, err := net.ParseCIDR("10.0.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	_, subnet, err := net.ParseCIDR("10.0.1.0/24")
	if err != nil {
		t.Fatal(err)
	}
	c.network, _, err = c.Network.Create(t.Context(), hcloud.NetworkCreateOpts{
		Name: "private", IPRange: network,
		Subnets: []hcloud.NetworkSubnet{{Type: hcloud.NetworkSubnetTypeCloud, NetworkZone: hcloud.NetworkZoneEUCentral, IPRange: subnet}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// order orders a server, and does not wait for it.
func (c *cloud) order(name, image string) hcloud.ServerCreateResult {
	c.t.Helper()
	r, _, err := c.Server.Create(c.t.Context(), hcloud.ServerCreateOpts{
		Name: name, ServerType: &hcloud.ServerType{Name: "cx23"}, Image: &hcloud.Image{Name: image},
		Location: &hcloud.Location{Name: "fsn1"}, SSHKeys: []*hcloud.SSHKey{c.key}, Networks: []*hcloud.Network{c.network},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

func (c *cloud) done(err error, actions ...*hcloud.Action) {
	c.t.Helper()
	if err == nil {
		err = c.Action.WaitFor(c.t.Context(), actions...)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// ssh runs a command on a host as `infractl lab ssh` does.
func (c *cloud) ssh(host, command string) (string, error) {
	c.t.Helper()
	argv, err := SSHCommand(c.o, host, []string{command})
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(c.t.Context(), argv[0], argv[1:]...).CombinedOutput()
	return string(out), err
}

// await waits until a host answers, and returns what the command then printed.
func (c *cloud) await(host, command string) string {
	c.t.Helper()
	var out string
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if out, err = c.ssh(host, command); err == nil {
			return out
		}
	}
	c.t.Fatalf("%s does not answer: %v\n%s", host, err, out)
	return ""
}

func (c *cloud) status(id int64) hcloud.ServerStatus {
	c.t.Helper()
	s, _, err := c.Server.GetByID(c.t.Context(), id)
	if err != nil || s == nil {
		c.t.Fatal(err)
	}
	return s.Status
}

func TestUpTwiceChangesNothing(t *testing.T) {
	o := options(t)
	start := time.Now()
	first, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up in %d ms", time.Since(start).Milliseconds())
	before, err := os.Stat(first.EnvFile)
	if err != nil || !first.Started || !first.EnvWritten {
		t.Fatalf("%+v %v", first, err)
	}
	second, err := Up(t.Context(), o)
	if err != nil || second.Started || second.EnvWritten || len(second.Warnings) > 0 {
		t.Errorf("%+v %v", second, err)
	}
	if after, err := os.Stat(first.EnvFile); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("the second up wrote %s", first.EnvFile)
	}
	other := o
	other.Dir += "-other"
	if _, err := Up(t.Context(), other); !errors.Is(err, machine.ErrConflict) {
		t.Errorf("a second lab: %v", err)
	}
	if _, err := Down(t.Context(), other, DownOptions{}); !errors.Is(err, machine.ErrConflict) {
		t.Errorf("end of a lab that is not up: %v", err)
	}
}

func TestServersThroughTheAPI(t *testing.T) {
	o := options(t)
	if _, err := Up(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	c := newCloud(t, o)
	start := time.Now()
	a, b, d := c.order("lab-web-1", "debian-13"), c.order("lab-web-2", "debian-13"), c.order("lab-old-1", "debian-12")
	for _, r := range []hcloud.ServerCreateResult{a, b, d} {
		c.done(nil, append(r.NextActions, r.Action)...)
	}
	if got := c.await("web-1", "cat /etc/debian_version")[:2] + c.await("web-2", "hostname") + c.await("old-1", "cat /etc/debian_version")[:2]; got != "13lab-web-2\n12" {
		t.Errorf("%q", got)
	}
	t.Logf("three servers answer %d ms after their order", time.Since(start).Milliseconds())
	server, _, err := c.Server.GetByID(t.Context(), b.Server.ID)
	if err != nil {
		t.Fatal(err)
	}
	ping := "ping -q -c 1 -W 1 " + server.PrivateNet[0].IP.String()
	if out, err := c.ssh("web-1", ping); err != nil {
		t.Errorf("private network: %v\n%s", err, out)
	}

	// A floating IP is a route, changed by the API alone.
	fip, _, err := c.FloatingIP.Create(t.Context(), hcloud.FloatingIPCreateOpts{Type: hcloud.FloatingIPTypeIPv4, Server: a.Server})
	if err != nil {
		t.Fatal(err)
	}
	c.done(nil, fip.Action)
	for _, host := range []string{"web-1", "web-2"} {
		c.await(host, "ip addr add "+fip.FloatingIP.IP.String()+"/32 dev lo")
	}
	for _, s := range []*hcloud.Server{b.Server, a.Server} {
		action, _, err := c.FloatingIP.Assign(t.Context(), fip.FloatingIP, s)
		c.done(err, action)
		address, _ := netip.AddrFromSlice(fip.FloatingIP.IP.To4())
		key, err := exec.Command("ssh-keyscan", "-t", "ed25519", address.String()).Output()
		own, _ := c.ssh(s.Name, "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub")
		if err != nil || !strings.Contains(string(key), strings.TrimSpace(own)) || own == "" {
			t.Errorf("the floating IP does not answer from %s: %v\n%s", s.Name, err, key)
		}
	}

	// Faults, through the daemon.
	client, err := Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Cut(t.Context(), "web-2", "web-1", true, machine.Private); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ssh("web-1", ping); err == nil {
		t.Error("replies pass a cut")
	}
	if err := errors.Join(client.Freeze(t.Context(), "web-2"), client.Heal(t.Context())); err != nil {
		t.Fatal(err)
	}
	if out, err := c.ssh("web-1", ping); err != nil {
		t.Errorf("after healing: %v\n%s", err, out)
	}
	if err := client.Freeze(t.Context(), "db-1"); err == nil || !strings.Contains(err.Error(), "lab-old-1, lab-web-1, lab-web-2") {
		t.Errorf("a fault of a host that is not there: %v", err)
	}
	if err := client.Kill(t.Context(), "web-2"); err != nil {
		t.Fatal(err)
	}
	if got := c.status(b.Server.ID); got != hcloud.ServerStatusOff {
		t.Errorf("a killed server is %s", got)
	}

	// A server that powers itself off is off; its journal can still be read.
	if out, err := c.ssh("web-1", "logger -t witness it was me; journalctl --flush; systemctl --no-block poweroff"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for deadline := time.Now().Add(20 * time.Second); c.status(a.Server.ID) != hcloud.ServerStatusOff; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a server that powered itself off is not reported as off")
		}
	}
	argv, err := LogsCommand(o, "web-1", []string{"-t", "witness", "-o", "cat"})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(argv[0], argv[1:]...).Output(); err != nil || !strings.Contains(string(out), "it was me") {
		t.Errorf("journal: %v\n%s", err, out)
	}
	if _, err := SSHCommand(o, "web-1", nil); err == nil || !strings.Contains(err.Error(), "off") {
		t.Errorf("ssh to a server that is off: %v", err)
	}
	action, _, err := c.Server.Poweron(t.Context(), a.Server)
	c.done(err, action)
	boot := c.await("web-1", "cat /proc/sys/kernel/random/boot_id")
	action, _, err = c.Server.Reboot(t.Context(), a.Server)
	c.done(err, action)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if now, err := c.ssh("web-1", "cat /proc/sys/kernel/random/boot_id"); err == nil && now != boot {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a reboot by the API did not happen")
		}
	}

	// Another daemon takes over what is there.
	running := c.await("web-1", "cat /proc/sys/kernel/random/boot_id")
	if err := Restart(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got := c.await("web-1", "cat /proc/sys/kernel/random/boot_id"); got != running || c.status(a.Server.ID) != hcloud.ServerStatusRunning {
		t.Error("a restart of the daemon touched a server")
	}
	deleted, _, err := c.Server.DeleteWithResult(t.Context(), d.Server)
	c.done(err, deleted.Action)
	if s, err := GetStatus(t.Context(), o); err != nil || s.State != "up" || len(s.Machines) != 2 {
		t.Errorf("%+v %v", s, err)
	}

	// Down and up again with the state kept: the same servers.
	if _, err := Down(t.Context(), o, DownOptions{Keep: true}); err != nil {
		t.Fatal(err)
	}
	if s, err := GetStatus(t.Context(), o); err != nil || s.State != "down" {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := Up(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got := c.await("web-1", "hostname"); got != "lab-web-1\n" {
		t.Errorf("%q", got)
	}
}

func TestDownLeavesNothingWhateverHappened(t *testing.T) {
	for name, accident := range map[string]func(t *testing.T, c *cloud, o Options){
		"nothing": func(*testing.T, *cloud, Options) {},
		"daemon killed while servers are made": func(t *testing.T, c *cloud, _ Options) {
			for i := range 4 {
				c.order(fmt.Sprintf("lab-app-%d", i+2), "debian-13")
			}
			time.Sleep(60 * time.Millisecond)
			killDaemon(t)
		},
		"daemon killed, state lost": func(t *testing.T, c *cloud, o Options) {
			killDaemon(t)
			// The directory itself stays, with its mark: Down removes only what is a lab's.
			for _, name := range []string{"api.json", "credentials.json", "machines", "floating.json"} {
				if err := os.RemoveAll(filepath.Join(o.Dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			before, err := traces.Take()
			if err != nil {
				t.Fatal(err)
			}
			t.Run("lab", func(t *testing.T) {
				o := options(t)
				if _, err := Up(t.Context(), o); err != nil {
					t.Fatal(err)
				}
				c := newCloud(t, o)
				r := c.order("lab-app-1", "debian-13")
				c.done(nil, append(r.NextActions, r.Action)...)
				accident(t, c, o)
			})
			after, err := traces.Take()
			if err != nil {
				t.Fatal(err)
			}
			for _, difference := range traces.Differences(before, after) {
				t.Error(difference)
			}
		})
	}
}

func killDaemon(t *testing.T) {
	t.Helper()
	found, err := filepath.Glob("/sys/fs/cgroup/*/infractl-lab/daemon/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	own, err := filepath.Glob("/sys/fs/cgroup/infractl-lab/daemon/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(found, own...) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range strings.Fields(string(data)) {
			var pid int
			if _, err := fmt.Sscan(field, &pid); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("no daemon to kill")
}

func TestDaemonThatCannotStartSaysWhy(t *testing.T) {
	o := options(t)
	out, err := exec.Command("ip", "route", "add", "unreachable", "198.18.7.0/24").CombinedOutput()
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	_, upErr := Up(t.Context(), o)
	if out, err := exec.Command("ip", "route", "del", "unreachable", "198.18.7.0/24").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if upErr == nil || !strings.Contains(upErr.Error(), "198.18.7.0/24") {
		t.Errorf("%v", upErr)
	}
}

func TestUpWarnsOfAFirewallThatKeepsMachinesIn(t *testing.T) {
	o := options(t)
	const table = "ilab-test-firewall"
	rules := exec.Command("nft", "-f", "-")
	rules.Stdin = strings.NewReader(`table inet ` + table + ` {
		chain forward { type filter hook forward priority filter; policy drop; }
		chain input { type filter hook input priority filter; policy accept; iifname "ilab-*" tcp dport 4080 drop; }
	}`)
	if out, err := rules.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	r, err := Up(t.Context(), o)
	if out, err := exec.Command("nft", "delete", "table", "inet", table).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"machines do not reach the API", "machines do not reach the package mirror"} {
		if !strings.Contains(strings.Join(r.Warnings, "\n"), want) {
			t.Errorf("no %q in %q", want, r.Warnings)
		}
	}
}
