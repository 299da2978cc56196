package keepalived

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What has to do with interfaces runs in a network namespace of its own, which
// needs no privileges: there are interfaces "near" and "far", joined by a cable.

const inside = "INFRACTL_TEST_NAMESPACE"

// namespace runs the calling test again in a network namespace. It says whether
// the caller is in there.
func namespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		for _, command := range []string{
			"ip link set lo up",
			"ip link add near type veth peer name far",
			"ip link set near up", "ip link set far up",
			"ip address add 198.18.0.11/24 dev near",
		} {
			run(t, command)
		}
		return true
	}
	needs(t, "ip", "nft", "flock")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=yes")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended):
		t.Errorf("%v\n%s", err, out)
	case err != nil:
		t.Skipf("this computer allows no network namespace: %v", err)
	case !bytes.Contains(out, []byte("--- PASS")):
		t.Errorf("nothing was tested\n%s", out)
	}
	return false
}

func run(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

// advertise sends VRRP adverts from an address, out of the interface far, until
// the test ends.
func advertise(t *testing.T, from string, router byte) {
	t.Helper()
	far, err := net.InterfaceByName("far")
	if err != nil {
		t.Fatal(err)
	}
	source := netip.MustParseAddr(from)
	vrrp := []byte{0x31, router, 100, 1, 0, 100, 0, 0, 192, 0, 2, 9}
	var packet []byte
	kind := uint16(syscall.ETH_P_IP)
	to := [8]byte{0x01, 0x00, 0x5e, 0, 0, 0x12}
	if source.Is4() {
		header := make([]byte, 20)
		header[0], header[8], header[9] = 0x45, 255, 112
		binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(vrrp)))
		copy(header[12:], source.AsSlice())
		copy(header[16:], []byte{224, 0, 0, 18})
		sum := uint32(0)
		for i := 0; i < len(header); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(header[i:]))
		}
		binary.BigEndian.PutUint16(header[10:], ^uint16(sum>>16+sum&0xffff))
		packet = append(header, vrrp...)
	} else {
		kind, to = syscall.ETH_P_IPV6, [8]byte{0x33, 0x33, 0, 0, 0, 0x12}
		header := make([]byte, 40)
		header[0], header[6], header[7] = 0x60, 112, 255
		binary.BigEndian.PutUint16(header[4:], uint16(len(vrrp)))
		copy(header[8:], source.AsSlice())
		copy(header[24:], netip.MustParseAddr("ff02::12").AsSlice())
		packet = append(header, vrrp...)
	}
	network := kind<<8 | kind>>8
	socket, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM, int(network))
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			if err := syscall.Sendto(socket, packet, 0, &syscall.SockaddrLinklayer{Protocol: network, Ifindex: far.Index, Halen: 6, Addr: to}); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
		syscall.Close(socket)
	})
}

func TestStrangersWithOurRouterIDAreHeard(t *testing.T) {
	if !namespace(t) {
		return
	}
	listen := func(args ...string) (string, error) {
		out, err := exec.Command("sh", append([]string{"vrrp-listen.sh", "0.3"}, args...)...).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := listen("51", "198.18.0.11", "198.18.0.12"); err != nil || out != "" {
		t.Errorf("in silence: %v\n%s", err, out)
	}
	before := run(t, "ip maddress show dev near")
	advertise(t, "198.18.0.12", 51)
	advertise(t, "198.18.0.77", 52)
	advertise(t, "fe80::77", 53)
	for _, tc := range []struct {
		name, routers string
		friends       []string
		want          string
	}{
		{"a peer of ours", "51", []string{"198.18.0.11", "198.18.0.12"}, ""},
		{"another router ID", "50,54", nil, ""},
		{"a stranger", "51,52", []string{"198.18.0.12"}, "198.18.0.77 speaks VRRP with router ID 52; give the virtual IP another one (infractl:vip.routerId)"},
		{"a stranger with IPv6", "53", []string{"2001:db8::12"}, "fe80::77 speaks VRRP with router ID 53; give the virtual IP another one (infractl:vip.routerId)"},
	} {
		out, err := listen(append([]string{tc.routers}, tc.friends...)...)
		if out != tc.want || (err == nil) != (tc.want == "") {
			t.Errorf("%s: %v\n%s", tc.name, err, out)
		}
	}
	out, _ := listen("51,52")
	if strings.Count(out, "\n") != 1 {
		t.Errorf("of two strangers it says\n%s", out)
	}
	if tables := run(t, "nft list tables"); tables != "" {
		t.Errorf("it leaves %s", tables)
	}
	if after := run(t, "ip maddress show dev near"); after != before {
		t.Errorf("it leaves groups joined:\n%s\nnot\n%s", after, before)
	}
	if _, err := listen(); err == nil {
		t.Error("no router ID is taken for one that nobody uses")
	}
}

// state is what vip-state has noted.
func state(folder, suffix string) string { return content(filepath.Join(folder, "vip-state"+suffix)) }

func TestStateIsWhatTheAddressesSay(t *testing.T) {
	if !namespace(t) {
		return
	}
	folder := t.TempDir()
	t.Setenv("VIP_ADDRESSES", "vip=198.18.0.10 vip=2001:db8:1ab::10 vip-2=198.18.0.20")
	tell := func(name, word string) {
		t.Helper()
		run(t, fmt.Sprintf("sh vip-state.sh %s INSTANCE %s %s 200", folder, name, word))
	}
	expect := func(when, vip, second, whole string) {
		t.Helper()
		if got := [3]string{state(folder, ".vip"), state(folder, ".vip-2"), state(folder, "")}; got != [3]string{vip, second, whole} {
			t.Errorf("%s: %v", when, got)
		}
	}
	tell("vip", "BACKUP")
	expect("at first", "BACKUP", "", "BACKUP")
	tell("vip-2", "FAULT")
	expect("one is a backup", "BACKUP", "FAULT", "BACKUP")
	run(t, "ip address add 198.18.0.20/32 dev near")
	tell("vip-2", "MASTER")
	expect("one is the master", "BACKUP", "MASTER", "MASTER")
	tell("vip", "FAULT")
	expect("the other has failed", "FAULT", "MASTER", "MASTER")
	// The news came in the wrong order.
	tell("vip-2", "BACKUP")
	expect("the address is still here", "FAULT", "MASTER", "MASTER")
	run(t, "ip address delete 198.18.0.20/32 dev near")
	tell("vip-2", "MASTER")
	expect("the address is gone", "FAULT", "BACKUP", "BACKUP")
	run(t, "ip address add 2001:db8:1ab::10/128 dev near nodad")
	tell("vip", "FAULT")
	expect("half of it is here", "MASTER", "BACKUP", "MASTER")
	tell("vip-2", "DELETED")
	expect("one is no more", "MASTER", "", "MASTER")
	tell("vip", "DELETED") // the address is there all the same
	run(t, "ip address delete 2001:db8:1ab::10/128 dev near")
	tell("vip", "DELETED")
	expect("none is left", "", "", "")
}

func TestWhatAKilledKeepalivedLeftIsTakenAway(t *testing.T) {
	if !namespace(t) {
		return
	}
	folder := t.TempDir()
	t.Setenv("VIP_ADDRESSES", "vip=198.18.0.10 vip=2001:db8:1ab::10 vip-2=198.18.0.20")
	run(t, "ip address add 198.18.0.10/32 dev near && ip address add 2001:db8:1ab::10/64 dev far nodad && ip address add 198.18.0.100/32 dev near")
	run(t, "sh vip-state.sh "+folder+" INSTANCE vip MASTER 200")
	out := run(t, "sh vip-drop.sh "+folder)
	if want := "took 198.18.0.10/32 off near\ntook 2001:db8:1ab::10/64 off far"; out != want {
		t.Errorf("it says\n%s", out)
	}
	left := run(t, "ip -oneline address show scope global")
	for address, there := range map[string]bool{"198.18.0.10/": false, "2001:db8:1ab::10/": false, "198.18.0.11/": true, "198.18.0.100/": true} {
		if strings.Contains(left, " "+address) != there {
			t.Errorf("%s is there: %v\n%s", address, !there, left)
		}
	}
	if state(folder, "") != "" || state(folder, ".vip") != "" {
		t.Error("it still counts as the master")
	}
	run(t, "sh vip-drop.sh "+folder) // nothing is left to do
}

// duties runs a command with the functions of the load balancer's duties, as they
// are on a host, but with the environment of the test.
func duties(t *testing.T, in Input, command string) (string, error) {
	t.Helper()
	host, err := Render(in)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	text := host.Files["/usr/local/lib/infractl/tiers/lb"].Content
	text = strings.ReplaceAll(text, "/etc/infractl/vip.env", filepath.Join(folder, "vip.env"))
	if err := os.WriteFile(filepath.Join(folder, "lb"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "vip.env"), []byte(host.Files["/etc/infractl/vip.env"].Content), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-euc", ". "+folder+"/lb; "+command).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func TestWhoHasTheVirtualIPIsSeenLocally(t *testing.T) {
	if !namespace(t) {
		return
	}
	in := onWire(13)
	in.Wire.VIPs[0].Addresses = []Address{{Prefix: netip.MustParsePrefix("198.18.0.10/32")}, {Prefix: netip.MustParsePrefix("2001:db8:1ab::10/128")}}
	in.Wire.VIPs[0].Source = netip.MustParseAddr("198.18.0.11")
	in.Wire.VIPs[0].Peers = []netip.Addr{netip.MustParseAddr("198.18.0.12")}
	has := func() bool {
		out, err := duties(t, in, "if ours; then echo yes; else echo no; fi")
		if err != nil || out != "yes" && out != "no" {
			t.Fatalf("%v\n%s", err, out)
		}
		return out == "yes"
	}
	if has() {
		t.Error("it has the virtual IP that is nowhere")
	}
	for _, address := range []string{"198.18.0.10/32", "2001:db8:1ab::10/128"} {
		run(t, "ip address add "+address+" dev near")
		if !has() {
			t.Errorf("it does not have %s", address)
		}
		run(t, "ip address delete "+address+" dev near")
	}
	// Whoever gave it up and sees it nowhere still answers for it.
	if out, err := duties(t, in, "if kept; then echo yes; else echo no; fi"); err != nil || out != "yes" {
		t.Errorf("given up and taken by nobody: %v\n%s", err, out)
	}
}
