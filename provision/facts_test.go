package provision

import (
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// recordedMark is the mark in the recorded answers. TestLabFacts records them.
const recordedMark = "@@0123456789abcdef"

func recorded(t *testing.T, name string) *Machine {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "facts", name))
	if err != nil {
		t.Fatal(err)
	}
	asked := time.Date(2026, 11, 24, 3, 43, 0, 0, time.UTC)
	m, err := parseMachine(string(text), recordedMark, asked, asked.Add(200*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestFactsOfRealMachines(t *testing.T) {
	ssh := []Listener{
		{Protocol: "tcp", Address: netip.MustParseAddr("0.0.0.0"), Port: 22, Processes: []string{"sshd"}},
		{Protocol: "tcp", Address: netip.MustParseAddr("::"), Port: 22, Processes: []string{"sshd"}},
	}
	const half = `The following packages are only half configured, probably due to problems
configuring them the first time.  The configuration should be retried using
dpkg --configure <package> or the configure menu option in dselect:
 half                 fails`
	for name, want := range map[string]*Machine{
		"debian-12.txt": {
			OS: "debian", Version: "12", Codename: "bookworm", Name: "Debian GNU/Linux 12 (bookworm)",
			Interfaces: []Interface{
				{"eth0", "96:00:00:98:9c:66", 1500, true, []netip.Prefix{netip.MustParsePrefix("198.18.0.148/32"), netip.MustParsePrefix("2001:db8:1ab:83::1/64"), netip.MustParsePrefix("fe80::9400:ff:fe98:9c66/64")}},
				{"lo", "", 65536, true, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128")}},
			},
			FreeRoot: 14237328 * 4096, FreeVar: 14237328 * 4096,
			Busy: []Holder{{"/var/lib/dpkg/lock-frontend", 195, "perl"}},
		},
		"debian-13.txt": {
			OS: "debian", Version: "13", Codename: "trixie", Name: "Debian GNU/Linux 13 (trixie)",
			Interfaces: []Interface{
				{"eth0", "96:00:00:98:9c:6c", 1500, true, []netip.Prefix{netip.MustParsePrefix("198.18.0.149/32"), netip.MustParsePrefix("2001:db8:1ab:84::1/64"), netip.MustParsePrefix("fe80::9400:ff:fe98:9c6c/64")}},
				{"lo", "", 65536, true, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128")}},
			},
			Busy: []Holder{{"/var/lib/dpkg/lock-frontend", 231, "perl"}},
		},
	} {
		want.Kernel, want.Architecture, want.Cores, want.MemoryMB = "6.18.44-fc-v669", "x86_64", 2, 24105
		want.Disks = []Disk{{"vda", 536870912 * 512, true}}
		want.DefaultRoute, want.Systemd, want.Listening, want.Unfinished = "eth0", true, ssh, half
		got := recorded(t, name)
		if got.ClockError != 100*time.Millisecond || got.ClockOffset.Abs() > 30*time.Minute || got.Uptime < time.Hour {
			t.Errorf("%s: clock %s ± %s, up for %s", name, got.ClockOffset, got.ClockError, got.Uptime)
		}
		want.ClockOffset, want.ClockError, want.Uptime = got.ClockOffset, got.ClockError, got.Uptime
		if want.FreeRoot == 0 {
			want.FreeRoot, want.FreeVar = got.FreeRoot, got.FreeVar
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, *got, *want)
		}
	}
}

func TestClockIsReckonedFromTheMiddleOfTheQuestion(t *testing.T) {
	asked := time.Unix(1700000000, 0)
	var m Machine
	m.clock("1700003600.750000000", asked, asked.Add(500*time.Millisecond))
	if m.ClockOffset != time.Hour+500*time.Millisecond || m.ClockError != 250*time.Millisecond {
		t.Errorf("%s ± %s", m.ClockOffset, m.ClockError)
	}
	m = Machine{}
	m.clock("1700003600.%N", asked, asked) // not every date knows nanoseconds
	if m.ClockOffset != time.Hour {
		t.Errorf("%s", m.ClockOffset)
	}
	m = Machine{}
	m.clock("date: not found", asked, asked.Add(time.Second))
	if m.ClockOffset != 0 || m.ClockError != 0 {
		t.Errorf("%+v", m)
	}
}

func TestListenersInAllShapes(t *testing.T) {
	for line, want := range map[string]Listener{
		`tcp LISTEN 0 511 *:80 *:* users:(("nginx",pid=7,fd=6),("nginx",pid=6,fd=6))`:                    {"tcp", netip.Addr{}, 80, "", []string{"nginx"}},
		`udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:* users:(("systemd-resolve",pid=1,fd=13))`:              {"udp", netip.MustParseAddr("127.0.0.53"), 53, "lo", []string{"systemd-resolve"}},
		`udp UNCONN 0 0 [fe80::1]%eth0:546 [::]:* users:(("dhclient",pid=1,fd=5),("a b\"c",pid=2,fd=1))`: {"udp", netip.MustParseAddr("fe80::1"), 546, "eth0", []string{`a b\"c`, "dhclient"}},
		`tcp LISTEN 0 128 0.0.0.0:2024 0.0.0.0:*`:                                                        {"tcp", netip.MustParseAddr("0.0.0.0"), 2024, "", nil},
	} {
		var m Machine
		m.listening(line)
		if len(m.Listening) != 1 || !reflect.DeepEqual(m.Listening[0], want) {
			t.Errorf("%s: %+v", line, m.Listening)
		}
	}
	for _, line := range []string{"", "tcp", "nl UNCONN 0 0 rtnl:kernel *", "tcp LISTEN 0 1 nonsense 0.0.0.0:*", "tcp LISTEN 0 1 1.2.3.4:http 0.0.0.0:*", "tcp LISTEN 0 1 x:1 0.0.0.0:*"} {
		var m Machine
		m.listening(line)
		if len(m.Listening) > 0 {
			t.Errorf("%s: %+v", line, m.Listening)
		}
	}
}

func TestDisksAreDisks(t *testing.T) {
	var m Machine
	m.disks("/sys/block/sda/size:100\n/sys/block/sda/queue/rotational:1\n/sys/block/nvme0n1/size:200\n/sys/block/nvme0n1/queue/rotational:0\n" +
		"/sys/block/md0/size:100\n/sys/block/dm-0/size:1\n/sys/block/loop3/size:5\n/sys/block/sr0/size:9\n/sys/block/mmcblk0/size:7\n/sys/block/mmcblk0boot0/size:7\n/sys/block/sdb/size:0\n")
	if want := []Disk{{"mmcblk0", 7 * 512, false}, {"nvme0n1", 200 * 512, false}, {"sda", 100 * 512, true}}; !reflect.DeepEqual(m.Disks, want) {
		t.Errorf("%+v", m.Disks)
	}
}

func TestAddressesAndRoutesInAllShapes(t *testing.T) {
	var m Machine
	m.interfaces("/sys/class/net/eth0/address:02:00:00:00:00:01\n/sys/class/net/eth0/mtu:1450\n/sys/class/net/eth0/operstate:down\n/sys/class/net/tun0/mtu:1400\n/sys/class/net/tun0/operstate:unknown\n")
	m.addresses("2: eth0@if5    inet 10.0.0.1/24 brd 10.0.0.255 scope global eth0\n3: tun0    inet 10.1.0.1 peer 10.1.0.2/32 scope global tun0\n4: gone    inet 10.2.0.1/8 scope global gone\nnonsense\n")
	m.routes("default via fe80::1 dev tun0 metric 1024 pref medium\n")
	want := []Interface{
		{"eth0", "02:00:00:00:00:01", 1450, false, []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}},
		{"tun0", "", 1400, true, []netip.Prefix{netip.MustParsePrefix("10.1.0.1/32")}},
	}
	if !reflect.DeepEqual(m.Interfaces, want) || m.DefaultRoute != "tun0" {
		t.Errorf("%+v, %s", m.Interfaces, m.DefaultRoute)
	}
}

func TestAnswersThatAreNoneAreRefused(t *testing.T) {
	for _, text := range []string{"", "\n@@x clock\n1\n", "\n@@x end\n", "\n@@x system\nkernel\n\n@@x end\n", "\n@@x system\nkernel 1\n\n@@y end\n"} {
		if m, err := parseMachine(text, "@@x", time.Now(), time.Now()); err == nil {
			t.Errorf("%q: %+v", text, m)
		}
	}
}

func FuzzFacts(f *testing.F) {
	text, err := os.ReadFile(filepath.Join("testdata", "facts", "debian-13.txt"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Fuzz(func(t *testing.T, text string) {
		// Whatever a host says, reading it ends without a crash.
		_, _ = parseMachine(text, recordedMark, time.Now(), time.Now())
	})
}

// TestFactsOfThisComputer runs the script for real.
func TestFactsOfThisComputer(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("hosts have Linux")
	}
	h := newHost(t)
	c, err := Connect(t.Context(), h.target())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m, err := c.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	if m.Kernel != strings.TrimSpace(string(kernel)) || m.Cores != runtime.NumCPU() || m.MemoryMB == 0 || m.FreeRoot == 0 || m.Uptime == 0 || m.Sudo != FreeSudo {
		t.Errorf("%+v", *m)
	}
	if m.ClockOffset.Abs() > m.ClockError {
		t.Errorf("this computer's clock differs from itself by %s ± %s", m.ClockOffset, m.ClockError)
	}
}

func TestFactsOfAHostThatHangs(t *testing.T) {
	h := newHost(t, running(func(_ *host, _ string, in io.Reader, out, _ io.Writer) int {
		io.WriteString(out, hello+"\n\n")
		io.Copy(io.Discard, in)
		time.Sleep(time.Minute)
		return 0
	}))
	c, err := Connect(t.Context(), h.target())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := expiring(t)
	defer cancel()
	_, err = c.Facts(ctx)
	expect(t, err, ErrUnreachable, "in time", "look at the machine")
}
