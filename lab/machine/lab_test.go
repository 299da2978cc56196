//go:build lab

package machine

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/infractl/infractl/lab/api"
	"github.com/infractl/infractl/lab/internal/traces"
)

// world is a fleet for one test, and what a client needs to log in to its machines.
type world struct {
	*Fleet
	t      *testing.T
	ctx    context.Context
	cfg    Config
	signer ssh.Signer
}

// newWorld opens a fleet in a directory of the test and sweeps it away afterwards.
func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cache := os.Getenv("INFRACTL_LAB_CACHE")
	if cache == "" {
		cache = "/var/cache/infractl-lab"
	}
	// Not t.TempDir: /tmp may be a file system that cannot carry disks.
	dir, err := os.MkdirTemp("/var/lib", "infractl-lab-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := MarkStateDir(dir); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	w := &world{t: t, ctx: ctx, cfg: Config{Dir: dir, Cache: cache, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}}
	t.Cleanup(func() {
		cancel()
		if w.Fleet != nil {
			w.Close()
		}
		// Never another's lab.
		if marker, err := ReadMarker(); err == nil && marker.Dir != dir {
			os.RemoveAll(dir)
			return
		}
		if _, err := Sweep(context.WithoutCancel(ctx), dir); err != nil {
			t.Errorf("sweep: %v", err)
		}
	})
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if w.signer, err = ssh.NewSignerFromKey(private); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	return w
}

// reopen is what a restart of the daemon does.
func (w *world) reopen() {
	w.t.Helper()
	if w.Fleet != nil {
		w.Close()
	}
	f, err := Open(w.ctx, w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Fleet = f
}

// server describes a server whose host key is known beforehand.
func (w *world) server(id int64, image string) (api.Server, ssh.PublicKey) {
	w.t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		w.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		w.t.Fatal(err)
	}
	data, err := json.Marshal(map[string]any{
		"ssh_keys": map[string]string{
			"ed25519_private": string(pem.EncodeToMemory(block)),
			"ed25519_public":  string(ssh.MarshalAuthorizedKey(signer.PublicKey())),
		},
		"write_files": []map[string]string{{"path": "/etc/from-user-data", "content": "yes\n"}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return api.Server{
		ID: id, Name: fmt.Sprintf("test-%d", id), Image: image,
		UserData: "#cloud-config\n" + string(data),
		SSHKeys:  []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(w.signer.PublicKey())))},
		IPv4:     netip.AddrFrom4([4]byte{198, 18, 77, byte(id)}),
		IPv6:     netip.MustParsePrefix(fmt.Sprintf("2001:db8:1ab:%x::/64", id)),
		Cores:    2, MemoryMB: 2048,
	}, signer.PublicKey()
}

// guest is a booted machine.
type guest struct {
	w   *world
	s   api.Server
	key ssh.PublicKey
}

// boot creates and starts a machine and waits until it answers.
func (w *world) boot(id int64, image string) *guest {
	w.t.Helper()
	s, key := w.server(id, image)
	g := &guest{w, s, key}
	start := time.Now()
	if err := errors.Join(w.Create(w.ctx, s), w.Start(w.ctx, id)); err != nil {
		w.t.Fatal(err)
	}
	g.await()
	w.t.Logf("%s (%s): ssh answers %d ms after its order", s.Name, image, time.Since(start).Milliseconds())
	return g
}

func (g *guest) dial(limit time.Duration) (*ssh.Client, error) {
	return ssh.Dial("tcp", netip.AddrPortFrom(g.s.IPv4, 22).String(), &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(g.w.signer)},
		HostKeyCallback: ssh.FixedHostKey(g.key), HostKeyAlgorithms: []string{ssh.KeyAlgoED25519}, Timeout: limit,
	})
}

func (g *guest) await() {
	g.w.t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var c *ssh.Client
		if c, err = g.dial(time.Second); err == nil {
			c.Close()
			return
		}
	}
	g.w.t.Fatalf("%s does not answer ssh: %v\n%s", g.s.Name, err, tailOf(consoleFile(g.w.dir(g.s.ID))))
}

// try runs a shell script in the machine, for at most a minute.
func (g *guest) try(script string) (string, error) {
	return g.tryFor(time.Minute, script)
}

func (g *guest) tryFor(limit time.Duration, script string) (string, error) {
	c, err := g.dial(3 * time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	defer time.AfterFunc(limit, func() { c.Close() }).Stop()
	session, err := c.NewSession()
	if err != nil {
		return "", err
	}
	defer session.Close()
	session.Stdin = strings.NewReader(script)
	out, err := session.CombinedOutput("sh -s")
	return string(out), err
}

func (g *guest) run(script string) string {
	g.w.t.Helper()
	out, err := g.try(script)
	if err != nil {
		g.w.t.Fatalf("%s: %s: %v\n%s", g.s.Name, script, err, out)
	}
	return out
}

func (g *guest) pings(a netip.Addr) bool {
	_, err := g.try("ping -q -c 1 -W 1 " + a.String())
	return err == nil
}

// order has the machine turn itself off, which may be before it has answered.
func (g *guest) order(verb string) {
	_, _ = g.tryFor(time.Second, "systemctl --no-block "+verb)
}

// reaches says whether a TCP connection from this computer is accepted within 300 ms.
func reaches(addr netip.Addr, port uint16) error {
	c, err := net.DialTimeout("tcp", netip.AddrPortFrom(addr, port).String(), 300*time.Millisecond)
	if err == nil {
		c.Close()
	}
	return err
}

// network is the private network of the tests.
func (w *world) attach(network int64, guests ...*guest) []netip.Addr {
	w.t.Helper()
	var addrs []netip.Addr
	for _, g := range guests {
		ip := netip.AddrFrom4([4]byte{10, byte(network), 2, byte(g.s.ID)})
		addrs = append(addrs, ip)
		err := w.Attach(w.ctx, g.s.ID, api.Attachment{
			Network: network, Range: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(network), 0, 0}), 16),
			Gateway: netip.AddrFrom4([4]byte{10, byte(network), 0, 1}), IP: ip, MAC: fmt.Sprintf("86:00:00:00:%02x:%02x", network, g.s.ID),
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return addrs
}

func TestMachineIsAComputerWithSystemd(t *testing.T) {
	for id, image := range []string{"debian-13", "debian-12"} {
		t.Run(image, func(t *testing.T) {
			w := newWorld(t)
			g := w.boot(int64(id+1), image)
			g.run("cloud-init status --wait")
			if got := strings.TrimSpace(g.run("cat /etc/from-user-data; hostname; systemctl is-system-running")); got != fmt.Sprintf("yes\ntest-%d\nrunning", id+1) {
				t.Errorf("unexpected: %q\n%s", got, g.run("systemctl --failed"))
			}
			for name, script := range map[string]string{
				"network parameters":      "sysctl -w net.ipv4.ip_nonlocal_bind=1 net.core.somaxconn=1234 && test $(cat /proc/sys/net/core/somaxconn) = 1234",
				"overlay in own mounts":   "mkdir -p /stage/etc && echo x >/stage/etc/staged && unshare --mount sh -c 'mount -t overlay overlay -o lowerdir=/stage/etc:/etc /etc && cat /etc/staged /etc/hostname'",
				"timer":                   "systemd-run --on-active=100ms --timer-property=AccuracySec=10ms touch /run/fired && sleep 1 && ls /run/fired",
				"limits":                  "systemd-run --wait --pipe -p MemoryMax=100M -p CPUQuota=50% -p TasksMax=20 -p LimitNOFILE=100000 true",
				"sandbox":                 "systemd-run --wait --pipe -p DynamicUser=yes -p ProtectSystem=strict -p PrivateTmp=yes -p PrivateDevices=yes -p ProtectKernelTunables=yes -p ProtectKernelModules=yes -p ProtectControlGroups=yes -p RestrictNamespaces=yes -p MemoryDenyWriteExecute=yes -p SystemCallFilter=@system-service -p ProtectHome=yes -p StateDirectory=x -p NoNewPrivileges=yes -p AmbientCapabilities=CAP_NET_BIND_SERVICE id",
				"firewall":                "nft add table inet x && nft list table inet x && nft delete table inet x",
				"journal on disk":         "journalctl --flush; ls /var/log/journal/*/system.journal",
				"no login prompt":         "! systemctl is-active console-getty.service",
				"package sources, silent": "apt-get update 2>&1",
			} {
				if out, err := g.try(script); err != nil {
					t.Errorf("%s: %v\n%s", name, err, out)
				}
			}
		})
	}
}

func TestALargerMachineGetsMoreOfABusyComputer(t *testing.T) {
	w := newWorld(t)
	small, large := w.boot(1, "debian-13"), w.boot(2, "debian-13")
	large.s.Cores = 2 * small.s.Cores
	if err := w.Create(w.ctx, large.s); err != nil { // it is resized
		t.Fatal(err)
	}
	if !slices.ContainsFunc(w.group(1).dirs(), func(dir string) bool {
		_, shares := os.Stat(filepath.Join(dir, "cpu.shares"))
		_, weight := os.Stat(filepath.Join(dir, "cpu.weight"))
		return shares == nil || weight == nil
	}) {
		t.Skip("this computer has no control groups for processor time")
	}
	busy := fmt.Sprintf("for i in $(seq %d); do timeout 3 sh -c 'while :; do :; done' & done; wait; times >/run/times; tail -n 1 /run/times", runtime.NumCPU())
	var used [2]time.Duration
	var both sync.WaitGroup
	for i, g := range []*guest{small, large} {
		both.Go(func() {
			out, err := g.try(busy)
			user, _, _ := strings.Cut(out, " ")
			used[i], _ = time.ParseDuration(user)
			if err != nil || used[i] == 0 {
				t.Errorf("%v: %q", err, out)
			}
		})
	}
	both.Wait()
	t.Logf("%s and %s", used[0], used[1])
	if ratio := used[1].Seconds() / used[0].Seconds(); ratio < 1.4 || ratio > 3 {
		t.Errorf("a machine of twice the cores gets %.1f times the processor time", ratio)
	}
}

func TestMachineReachesMirrorAndNothingElse(t *testing.T) {
	w := newWorld(t)
	g := w.boot(1, "debian-13")
	g.run("apt-get update && apt-get install -y --no-install-recommends haproxy keepalived && haproxy -v && keepalived --version")
	// Another port of the mirror is refused at once.
	out, err := g.try(`uri=$(awk '/^deb /{print $3; exit}' /etc/apt/sources.list); host=${uri#*://}; curl -s -m 2 telnet://${host%%/*}:22 </dev/null; echo $?`)
	if err != nil || strings.TrimSpace(out) != "7" { // CURLE_COULDNT_CONNECT
		t.Errorf("port 22 of the mirror: %v %s", err, out)
	}
	start := time.Now()
	if out, err := g.try("ping -c 1 -W 2 " + Computer4.Addr().String()); err != nil {
		t.Errorf("ping of this computer: %v\n%s", err, out)
	}
	if out, _ := g.try("curl -s -m 2 http://" + Computer4.Addr().String() + ":4081; echo $?"); strings.TrimSpace(out) != "7" {
		t.Errorf("a port of this computer that is not the API's: %s", out)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("refusals took %v", took)
	}
}

func TestNetworksBehaveAsInTheCloud(t *testing.T) {
	w := newWorld(t)
	a, b := w.boot(1, "debian-13"), w.boot(2, "debian-13")

	// Public: /32 behind a gateway, IPv6 behind fe80::1.
	for _, want := range []string{"default via 172.31.1.1 dev eth0 onlink", "172.31.1.1 dev eth0 scope link"} {
		if out := a.run("ip route"); !strings.Contains(strings.ReplaceAll(out, "  ", " "), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if !a.pings(b.s.IPv4) || !a.pings(firstHost(b.s.IPv6)) {
		t.Error("servers do not reach each other by their public addresses")
	}
	if err := reaches(firstHost(a.s.IPv6), 22); err != nil {
		t.Errorf("IPv6 from this computer: %v", err)
	}

	// Private: /32 addresses behind a gateway, MTU 1450.
	private := w.attach(9, a, b)
	if !a.pings(private[1]) || !b.pings(private[0]) {
		t.Error("servers do not reach each other by their private addresses")
	}
	if out := a.run("ip -o addr show enp7s0; ip link show enp7s0; ip route show dev enp7s0"); !strings.Contains(out, private[0].String()+"/32") ||
		!strings.Contains(out, "mtu 1450") || !strings.Contains(out, "10.9.0.0/16 via 10.9.0.1") {
		t.Errorf("private interface:\n%s", out)
	}
	if out, err := a.try("ping -q -c 1 -W 1 -M do -s 1422 " + private[1].String()); err != nil {
		t.Errorf("1450 byte packet: %v\n%s", err, out)
	}
	if _, err := a.try("ping -q -c 1 -W 1 -M do -s 1423 " + private[1].String()); err == nil {
		t.Error("a packet of 1451 bytes passed")
	}
	// An address is not moved by claiming it.
	a.run("ip addr add " + private[1].String() + "/32 dev enp7s0; ip neigh flush all; arping -h >/dev/null 2>&1 || true")
	if a.run("ip addr del " + private[1].String() + "/32 dev enp7s0"); !b.pings(private[0]) {
		t.Error("claiming an address broke the network")
	}
	// A second network is a second interface; networks are apart from each other.
	w.attach(8, a)
	if out := a.run("ip -o -4 addr show enp8s0"); !strings.Contains(out, "10.8.2.1/32") {
		t.Errorf("second private interface:\n%s", out)
	}
	if err := w.Detach(w.ctx, a.s.ID, 8); err != nil {
		t.Fatal(err)
	}
	if out, err := a.try("ip link show enp8s0"); err == nil {
		t.Errorf("detached interface is there:\n%s", out)
	}
	if err := w.DeleteNetwork(w.ctx, 8); err != nil {
		t.Fatal(err)
	}

	// A floating IP goes to whom it is routed, whoever has it configured.
	floating := netip.MustParsePrefix("198.18.200.1/32")
	for _, g := range []*guest{a, b} {
		g.run("ip addr add 198.18.200.1/32 dev lo; systemd-run --unit=who sh -c 'while true; do hostname | timeout 5 nc -l 80; done' 2>/dev/null; true")
	}
	for _, g := range []*guest{a, b, a} {
		start := time.Now()
		if err := w.RouteFloatingIP(w.ctx, floating, g.s.ID); err != nil {
			t.Fatal(err)
		}
		took := time.Since(start)
		c, err := ssh.Dial("tcp", "198.18.200.1:22", &ssh.ClientConfig{
			User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(w.signer)}, HostKeyCallback: ssh.FixedHostKey(g.key), HostKeyAlgorithms: []string{ssh.KeyAlgoED25519}, Timeout: time.Second,
		})
		if err != nil {
			t.Fatalf("floating IP routed to %s: %v", g.s.Name, err)
		}
		c.Close()
		t.Logf("floating IP routed to %s in %v", g.s.Name, took)
	}
	if err := w.RouteFloatingIP(w.ctx, floating, 0); err != nil {
		t.Fatal(err)
	}
	if err := reaches(floating.Addr(), 22); err == nil || !isTimeout(err) {
		t.Errorf("an unassigned floating IP: %v, want silence", err)
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestCloudFirewallIsEnforced(t *testing.T) {
	w := newWorld(t)
	a, b := w.boot(1, "debian-13"), w.boot(2, "debian-13")
	private := w.attach(9, a, b)
	computer := host(Computer4.Addr())
	ssh := api.FirewallRule{Protocol: "tcp", First: 22, Last: 22, Peers: []netip.Prefix{computer}}
	if err := w.SetFirewall(w.ctx, 1, &api.FirewallRules{In: []api.FirewallRule{ssh}}); err != nil {
		t.Fatal(err)
	}
	if a.run("true"); b.pings(a.s.IPv4) {
		t.Error("ping passes a firewall that has no rule for it")
	}
	if out, _ := b.try("curl -s -m 1 telnet://" + a.s.IPv4.String() + ":22 </dev/null; echo $?"); strings.TrimSpace(out) != "28" { // CURLE_OPERATION_TIMEDOUT
		t.Errorf("ssh from a peer not in the rule: %s", out)
	}
	if !a.pings(b.s.IPv4) {
		t.Error("outbound and its replies do not pass a firewall without outbound rules")
	}
	if !b.pings(private[0]) {
		t.Error("the firewall is enforced in the private network")
	}
	// Outbound rules forbid the rest, but not replies.
	out := api.FirewallRule{Protocol: "icmp", Peers: []netip.Prefix{netip.MustParsePrefix("::/0")}}
	if err := w.SetFirewall(w.ctx, 1, &api.FirewallRules{In: []api.FirewallRule{ssh}, Out: []api.FirewallRule{out}}); err != nil {
		t.Fatal(err)
	}
	if a.pings(b.s.IPv4) || !a.pings(firstHost(b.s.IPv6)) {
		t.Error("outbound rules are not enforced as they are")
	}
	if err := w.SetFirewall(w.ctx, 1, nil); err != nil {
		t.Fatal(err)
	}
	if !b.pings(a.s.IPv4) {
		t.Error("without a firewall not all is let through")
	}
}

func TestFaultsCutFreezeAndKill(t *testing.T) {
	w := newWorld(t)
	a, b := w.boot(1, "debian-13"), w.boot(2, "debian-13")
	private := w.attach(9, a, b)
	check := func(when string, public, inner, computer bool) {
		t.Helper()
		if got := a.pings(b.s.IPv4); got != public {
			t.Errorf("%s: public ping %v", when, got)
		}
		if got := a.pings(private[1]); got != inner {
			t.Errorf("%s: private ping %v", when, got)
		}
		if err := reaches(b.s.IPv4, 22); (err == nil) != computer || err != nil && !isTimeout(err) {
			t.Errorf("%s: from this computer: %v", when, err)
		}
	}
	heal := func() {
		t.Helper()
		if err := w.Heal(w.ctx); err != nil {
			t.Fatal(err)
		}
		check("healed", true, true, true)
	}
	order := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check("at first", true, true, true)
	order(w.Cut(w.ctx, Cut{1, 2, Private}))
	check("cut in the private network", true, false, true)
	heal()
	order(w.Cut(w.ctx, Cut{2, 1, Public}))
	check("cut in the public network, other direction", false, true, true)
	heal()
	order(w.Isolate(w.ctx, Isolation{2, Private}))
	check("isolated in the private network", true, false, true)
	order(w.Isolate(w.ctx, Isolation{2, Both}))
	check("isolated", false, false, false)
	heal()
	order(w.Freeze(w.ctx, 2))
	check("frozen", false, false, false)
	if s := w.List()[1]; s.Status != "frozen" {
		t.Errorf("state %+v", s)
	}
	w.reopen()
	check("frozen, after a restart of the daemon", false, false, false)
	order(w.Thaw(w.ctx, 2))
	check("thawed", true, true, true)
	start := time.Now()
	order(w.Kill(w.ctx, 2))
	t.Logf("killed in %v", time.Since(start))
	check("killed", false, false, false)
	if w.Running(2) {
		t.Error("a killed machine runs")
	}
	order(w.Start(w.ctx, 2))
	b.await()
	check("started again", true, true, true)
	// A frozen machine can be killed, and is not frozen when it is back.
	order(w.Freeze(w.ctx, 2))
	order(w.Kill(w.ctx, 2))
	order(w.Start(w.ctx, 2))
	b.await()
	check("killed while frozen", true, true, true)
}

func TestPowerDiskAndReboot(t *testing.T) {
	w := newWorld(t)
	g := w.boot(1, "debian-13")
	w.attach(9, g)
	g.run("echo kept >/root/file; ip addr add 198.18.5.5/32 dev lo; nft add table inet gone")
	boot := g.run("cat /proc/sys/kernel/random/boot_id")
	g.order("reboot")
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if out, err := g.try("cat /proc/sys/kernel/random/boot_id"); err == nil && out != boot {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not come back from a reboot")
		}
	}
	if out := g.run("cat /root/file; ip addr show dev lo; nft list ruleset; ip -o addr show enp7s0"); !strings.Contains(out, "kept") ||
		strings.Contains(out, "198.18.5.5") || strings.Contains(out, "gone") || !strings.Contains(out, "10.9.2.1/32") {
		t.Errorf("after a reboot:\n%s", out)
	}
	start := time.Now()
	if err := w.Stop(w.ctx, 1, true); err != nil {
		t.Fatal(err)
	}
	t.Logf("orderly shutdown in %v", time.Since(start))
	if w.Running(1) {
		t.Fatal("it runs after a shutdown")
	}
	if err := w.Start(w.ctx, 1); err != nil {
		t.Fatal(err)
	}
	g.await()
	g.run("grep kept /root/file")
	// A machine that powers itself off is off.
	g.order("poweroff")
	if err := poll(w.ctx, 10*time.Second, func() bool { return !w.Running(1) }); err != nil {
		t.Fatal("it does not go off by itself")
	}
	if err := poll(w.ctx, time.Second, func() bool { return !namespaceExists(machineNamespace(1)) }); err != nil {
		t.Error("its network is there after it went off")
	}
	s := g.s
	s.Image = "debian-12"
	if err := errors.Join(w.Rebuild(w.ctx, s), w.Start(w.ctx, 1)); err != nil {
		t.Fatal(err)
	}
	g.await()
	if out := g.run("cat /etc/debian_version; ls /root"); !strings.HasPrefix(out, "12") || strings.Contains(out, "file") {
		t.Errorf("after a rebuild:\n%s", out)
	}
	if err := w.Delete(w.ctx, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(w.dir(1)); err == nil || w.Running(1) {
		t.Error("something is left of a deleted machine")
	}
}

func TestMachinesOutliveTheDaemon(t *testing.T) {
	w := newWorld(t)
	g := w.boot(1, "debian-13")
	boot := g.run("cat /proc/sys/kernel/random/boot_id")
	w.reopen()
	if !w.Running(1) || g.run("cat /proc/sys/kernel/random/boot_id") != boot {
		t.Error("a restart of the daemon touched a machine")
	}
	// A reboot asked for while no daemon was there is done by the next.
	w.Close()
	g.order("reboot")
	if err := poll(w.ctx, 10*time.Second, func() bool { return !w.Running(1) }); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	g.await()
}

func TestVolumeIsABlockDevice(t *testing.T) {
	w := newWorld(t)
	g := w.boot(1, "debian-13")
	if err := w.CreateVolume(w.ctx, 5, 1, "ext4"); err != nil {
		t.Fatal(err)
	}
	if err := w.AttachVolume(w.ctx, 5, 1); err != nil {
		t.Fatal(err)
	}
	g.run("mkdir -p /mnt/v && mount /dev/disk/by-id/scsi-0HC_Volume_5 /mnt/v && echo data >/mnt/v/f && sync")
	if err := errors.Join(w.Stop(w.ctx, 1, false), w.ResizeVolume(w.ctx, 5, 2), w.Start(w.ctx, 1)); err != nil {
		t.Fatal(err)
	}
	g.await()
	if out := g.run("mkdir -p /mnt/v && mount /dev/disk/by-id/scsi-0HC_Volume_5 /mnt/v && cat /mnt/v/f && blockdev --getsize64 /dev/disk/by-id/scsi-0HC_Volume_5; umount /mnt/v"); out != "data\n2000000000\n" {
		t.Errorf("after a power cut and a resize: %q", out)
	}
	if err := errors.Join(w.AttachVolume(w.ctx, 5, 0), w.DeleteVolume(w.ctx, 5)); err != nil {
		t.Fatal(err)
	}
	if out, err := g.try("ls /dev/disk/by-id/"); err == nil && strings.Contains(out, "Volume") {
		t.Errorf("a detached volume is there: %s", out)
	}
}

func TestEightMachinesBootSideBySide(t *testing.T) {
	w := newWorld(t)
	start := time.Now()
	var group sync.WaitGroup
	for id := int64(1); id <= 8; id++ {
		s, key := w.server(id, "debian-13")
		g := &guest{w, s, key}
		group.Go(func() {
			if err := errors.Join(w.Create(w.ctx, s), w.Start(w.ctx, s.ID)); err != nil {
				t.Error(err)
				return
			}
			for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
				if c, err := g.dial(time.Second); err == nil {
					c.Close()
					return
				}
			}
			t.Errorf("%s does not answer", s.Name)
		})
	}
	group.Wait()
	t.Logf("ssh answers on all 8 after %d ms", time.Since(start).Milliseconds())
}

func TestNamespaceCanBeOpenedAsSoonAsItHasItsName(t *testing.T) {
	w := newWorld(t)
	const networks = 20
	var ready, done sync.WaitGroup
	for id := range int64(networks) {
		name := networkNamespace(id + 1)
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			for {
				n, err := openNamespace(name)
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				n.Close()
				return
			}
		})
		ready.Wait()
		n, err := ensureNamespace(w.ctx, name, nil)
		if err != nil {
			t.Fatal(err)
		}
		n.Close()
	}
	done.Wait()
}

func TestSweepLeavesNothing(t *testing.T) {
	before, err := traces.Take()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("lab", func(t *testing.T) {
		w := newWorld(t)
		a, b := w.boot(1, "debian-13"), w.boot(2, "debian-13")
		w.attach(9, a, b)
		if err := errors.Join(
			w.RouteFloatingIP(w.ctx, netip.MustParsePrefix("198.18.200.1/32"), 1),
			w.CreateVolume(w.ctx, 5, 1, ""), w.AttachVolume(w.ctx, 5, 1),
			w.Freeze(w.ctx, 2),
		); err != nil {
			t.Fatal(err)
		}
		// A creation in the middle of which the daemon died, and one without its record.
		if err := os.MkdirAll(filepath.Join(w.cfg.Dir, "machines", ".new-3", "upper"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(w.dir(2), recordFile)); err != nil {
			t.Fatal(err)
		}
	})
	after, err := traces.Take()
	if err != nil {
		t.Fatal(err)
	}
	for _, difference := range traces.Differences(before, after) {
		t.Error(difference)
	}
}

func TestConflictsAreNamed(t *testing.T) {
	w := newWorld(t)
	other := w.cfg
	other.Dir += "-other"
	if _, err := Open(w.ctx, other); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), w.cfg.Dir) {
		t.Errorf("a second lab: %v", err)
	}
	w.Close()
	if _, err := Sweep(w.ctx, w.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ip", "route", "add", "unreachable", "198.18.7.0/24").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	_, err := Open(w.ctx, w.cfg)
	if out, err := exec.Command("ip", "route", "del", "unreachable", "198.18.7.0/24").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "198.18.7.0/24") {
		t.Errorf("a route in the lab's range: %v", err)
	}
}

func TestGuardKeepsLabAddressesOnThisComputer(t *testing.T) {
	if _, err := ReadMarker(); err == nil {
		t.Fatal("a lab is up, and these tests need the computer for themselves")
	}
	// Whoever asked for the guard before this test keeps it all the time.
	before := Guarded()
	if err := Guard(true); err != nil {
		t.Fatal(err)
	}
	if _, err := Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := reaches(netip.MustParseAddr("198.18.1.1"), 80)
	if err == nil || isTimeout(err) {
		t.Errorf("a lab address with the guard on: %v", err)
	}
	if before {
		return
	}
	if err := Unguard(); err != nil {
		t.Fatal(err)
	}
	out, _ := exec.Command("ip", "route").Output()
	if bytes.Contains(out, []byte("198.18")) {
		t.Errorf("after the guard is off:\n%s", out)
	}
}
