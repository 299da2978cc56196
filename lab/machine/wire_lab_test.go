//go:build lab

package machine

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// plain makes a machine on the wire and waits until it answers.
func (w *world) plain(image string) *guest {
	w.t.Helper()
	s, err := w.MakePlain(w.ctx, Plain{Image: image, Keys: []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(w.signer.PublicKey())))}})
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := w.find(s.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	g := &guest{w: w, s: m.Server}
	for deadline := time.Now().Add(20 * time.Second); g.key == nil; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(s.Disk, "etc/ssh/ssh_host_ed25519_key.pub"))
		if err == nil {
			g.key, _, _, _, err = ssh.ParseAuthorizedKey(text)
		}
		if err != nil && time.Now().After(deadline) {
			w.t.Fatalf("%s has no host key: %v", s.Name, err)
		}
	}
	g.await()
	return g
}

// announce sends gratuitous ARP for an address from a machine that has it, as a
// load balancer does that has just taken it.
func (g *guest) announce(a netip.Addr) {
	g.w.t.Helper()
	g.run(`python3 - <<'END'
import socket
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(("eth0", 0))
mac = link.getsockname()[4]
ip = socket.inet_aton("` + a.String() + `")
link.send(b"\xff" * 6 + mac + b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01" + mac + ip + b"\xff" * 6 + ip)
END`)
}

func TestWireIsALayer2Network(t *testing.T) {
	w := newWorld(t)
	a, b := w.plain("debian-13"), w.plain("debian-12")
	if a.s.Name != "rack-1" || a.s.IPv4.String() != "198.19.0.11" || b.s.IPv4.String() != "198.19.0.12" {
		t.Errorf("machines are %s %s and %s", a.s.Name, a.s.IPv4, b.s.IPv4)
	}
	if !a.pings(b.s.IPv4) || !a.pings(wireAddresses(b.s.ID)[1].Addr()) {
		t.Error("the machines do not reach each other")
	}
	a.run("apt-get update 2>&1")
	// An address moves with the one who has it and says so.
	vip := netip.MustParseAddr("198.19.0.100")
	name := func() string {
		t.Helper()
		if err := reaches(vip, 22); err != nil {
			t.Fatalf("%s: %v", vip, err)
		}
		for _, g := range []*guest{a, b} {
			g := *g
			g.s.IPv4 = vip
			if out, err := g.try("hostname"); err == nil {
				return strings.TrimSpace(out)
			}
		}
		return ""
	}
	a.run("ip address add 198.19.0.100/24 dev eth0")
	if got := name(); got != "rack-1" {
		t.Errorf("%s is %q", vip, got)
	}
	a.run("ip address del 198.19.0.100/24 dev eth0")
	b.run("ip address add 198.19.0.100/24 dev eth0")
	b.announce(vip)
	if got := name(); got != "rack-2" {
		t.Errorf("%s is %q", vip, got)
	}
	// At its next boot nothing of the installation is done again.
	a.run("rm /etc/hostname")
	a.order("reboot")
	time.Sleep(time.Second)
	a.await()
	if out := a.run("test -e /etc/hostname || echo gone"); out != "gone\n" {
		t.Error("cloud-init has run again")
	}
}

func TestFaultsOfTheWire(t *testing.T) {
	w := newWorld(t)
	a, b, cloud := w.plain("debian-13"), w.plain("debian-13"), w.boot(1, "debian-13")
	order := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, there, back, computer bool) {
		t.Helper()
		if got := a.pings(b.s.IPv4); got != (there && back) {
			t.Errorf("%s: ping %v", when, got)
		}
		if err := reaches(b.s.IPv4, 22); (err == nil) != computer || err != nil && !isTimeout(err) {
			t.Errorf("%s: from this computer: %v", when, err)
		}
	}
	check("at first", true, true, true)
	order(w.Cut(w.ctx, Cut{a.s.ID, b.s.ID, Both}))
	check("cut", false, true, true)
	order(w.Heal(w.ctx))
	check("healed", true, true, true)
	order(w.Isolate(w.ctx, Isolation{b.s.ID, Both}))
	check("isolated", false, false, false)
	order(w.Heal(w.ctx))
	order(w.Freeze(w.ctx, b.s.ID))
	w.reopen()
	check("frozen, after a restart of the daemon", false, false, false)
	order(w.Thaw(w.ctx, b.s.ID))
	check("thawed", true, true, true)
	order(w.Kill(w.ctx, b.s.ID))
	if w.Running(b.s.ID) || a.pings(b.s.IPv4) {
		t.Error("a killed machine goes on")
	}
	order(w.StartPlain(w.ctx, b.s.ID))
	b.await()
	check("started again", true, true, true)
	if !cloud.pings(a.s.IPv4) || !a.pings(cloud.s.IPv4) {
		t.Error("servers of the cloud and machines on the wire do not reach each other through the router")
	}
	if err := w.Cut(w.ctx, Cut{a.s.ID, 1, Both}); err == nil || !strings.Contains(err.Error(), "isolate") {
		t.Errorf("a cut between the wire and the cloud: %v", err)
	}
	if err := w.DeletePlain(w.ctx, 1); err == nil || !strings.Contains(err.Error(), "API") {
		t.Errorf("a server of the cloud was removed as a machine of the wire: %v", err)
	}
	order(w.DeletePlain(w.ctx, a.s.ID))
	if _, err := w.MakePlain(w.ctx, Plain{Name: b.s.Name}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("two machines of one name: %v", err)
	}
	// The number is free again at once, and nothing that looked after its former
	// machine does anything to its next one.
	for range 8 {
		again, err := w.MakePlain(w.ctx, Plain{})
		order(err)
		if again.Name != "rack-1" || !w.Running(again.ID) {
			t.Errorf("the next machine is %+v", again)
		}
		order(w.DeletePlain(w.ctx, again.ID))
	}
	if again := w.plain("debian-13"); again.s.Name != "rack-1" || !again.pings(b.s.IPv4) {
		t.Errorf("the next machine is %s", again.s.Name)
	}
}
