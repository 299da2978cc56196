package provision

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// factsTime bounds one look at a machine. dpkg --audit takes seconds on slow disks.
const factsTime = 30 * time.Second

// Machine is what Conn.Facts sees. What the machine does not tell is empty or 0.
type Machine struct {
	// OS is the ID of its os-release, such as debian; Version and Codename are
	// such as 13 and trixie, and Name is for people.
	OS, Version, Codename, Name string
	Kernel                      string
	// Architecture is uname's, such as x86_64 or aarch64.
	Architecture string
	Cores        int
	// MemoryMB is in MiB.
	MemoryMB int
	Disks    []Disk
	// Interfaces are those of the network, by name, with the loopback.
	Interfaces []Interface
	// DefaultRoute is the interface of the IPv4 default route, or of that of
	// IPv6 if there is none.
	DefaultRoute string
	// ClockOffset is the machine's clock minus this computer's. It is right to
	// within ClockError, which is half of the time the question took.
	ClockOffset, ClockError time.Duration
	// FreeRoot and FreeVar are what is free for root on / and /var, in bytes.
	FreeRoot, FreeVar int64
	// Systemd says whether systemd runs.
	Systemd bool
	// Sudo is how the login user becomes root.
	Sudo      Sudo
	Uptime    time.Duration
	Listening []Listener
	// Unfinished is what dpkg says about packages that were left half-way, or is
	// empty.
	Unfinished string
	// Busy are the processes that hold a lock of dpkg or apt.
	Busy []Holder
}

// Sudo is how a login user becomes root.
type Sudo string

// Ways to become root.
const (
	// NoSudo: the user is root.
	NoSudo Sudo = "root"
	// FreeSudo: by sudo, without a password.
	FreeSudo Sudo = "sudo"
	// PasswordSudo: by sudo with a password.
	PasswordSudo Sudo = "sudo with a password"
)

// Disk is a disk, not a partition and nothing that is made of disks.
type Disk struct {
	Name string
	// Size is in bytes.
	Size int64
	// Rotational says that the kernel takes it for one that turns; it does so
	// with many virtual ones.
	Rotational bool
}

// Interface is a network interface.
type Interface struct {
	Name string
	// MAC is empty if it has none.
	MAC string
	MTU int
	Up  bool
	// Addresses have the length of their network.
	Addresses []netip.Prefix
}

// Listener is a socket that waits for others.
type Listener struct {
	// Protocol is tcp or udp.
	Protocol string
	// Address is invalid if it listens at all of both families.
	Address netip.Addr
	Port    int
	// Interface is what it is bound to, or empty.
	Interface string
	// Processes are the names of those that have it, sorted.
	Processes []string
}

// Holder is a process that holds a lock.
type Holder struct {
	// File is the lock.
	File string
	// PID is 0 and Name empty if the process is outside of the machine's view.
	PID  int
	Name string
}

// Facts looks at a machine that may be any, in one round trip and without changing
// anything.
func (c *Conn) Facts(ctx context.Context) (*Machine, error) {
	const step = "look at the machine"
	ctx, cancel := context.WithTimeout(ctx, factsTime)
	defer cancel()
	mark := "@@" + nonce()
	asked := time.Now()
	s, err := c.start(ctx, step, factsScript(mark))
	if err != nil {
		return nil, err
	}
	s.in.Close()
	// The clock is in the first section: an empty line, its name, the time.
	var head strings.Builder
	for range 3 {
		line, err := s.out.ReadString('\n')
		head.WriteString(line)
		if err != nil {
			break
		}
	}
	answered := time.Now()
	rest, readErr := io.ReadAll(s.out)
	err = s.wait()
	if _, gone := s.gone(err); gone || readErr != nil {
		return nil, s.lost(ctx, err)
	}
	m, err := parseMachine(head.String()+string(rest), mark, asked, answered)
	if err != nil {
		return nil, &Error{Host: c.target.Name, Step: step, Err: err, Detail: strings.TrimSpace(err.Error() + "\n" + s.errors.String()), Hint: "this needs a shell, grep, cat and stat as Debian has them"}
	}
	m.Sudo = map[becoming]Sudo{isRoot: NoSudo, bySudo: FreeSudo, byPassword: PasswordSudo}[c.root]
	return m, nil
}

func factsScript(mark string) string {
	s := newScript("facts")
	s.set("mark", mark)
	for _, function := range []string{"hello", "clock", "system", "disks", "network", "packages", "finish"} {
		s.call(function)
	}
	return s.String()
}

func parseMachine(text, mark string, asked, answered time.Time) (*Machine, error) {
	names, texts := sections([]byte(text), mark)
	if len(names) == 0 || names[len(names)-1] != "end" {
		return nil, fmt.Errorf("the answer is incomplete: %q", tail(text, 200))
	}
	m := new(Machine)
	for i, name := range names {
		text := strings.TrimSpace(string(texts[i]))
		switch name {
		case "clock":
			m.clock(text, asked, answered)
		case "release":
			m.release(text)
		case "system":
			m.system(text)
		case "disks":
			m.disks(text)
		case "free":
			m.free(text)
		case "interfaces":
			m.interfaces(text)
		case "addresses":
			m.addresses(text)
		case "routes":
			m.routes(text)
		case "listening":
			m.listening(text)
		case "audit":
			m.Unfinished = text
		case "locks":
			m.locks(text)
		}
	}
	if m.Kernel == "" {
		return nil, fmt.Errorf("the answer does not make sense: %q", tail(text, 200))
	}
	return m, nil
}

func (m *Machine) clock(text string, asked, answered time.Time) {
	seconds, fraction, _ := strings.Cut(text, ".")
	s, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return
	}
	ns, _ := strconv.ParseInt(fraction, 10, 64) // a date without %N leaves no number
	m.ClockError = answered.Sub(asked) / 2
	m.ClockOffset = time.Unix(s, ns).Sub(asked.Add(m.ClockError))
}

func (m *Machine) release(text string) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			m.OS = value
		case "VERSION_ID":
			m.Version = value
		case "VERSION_CODENAME":
			m.Codename = value
		case "PRETTY_NAME":
			m.Name = value
		}
	}
}

func (m *Machine) system(text string) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "kernel":
			m.Kernel = f[1]
		case "architecture":
			m.Architecture = f[1]
		case "cores":
			m.Cores, _ = strconv.Atoi(f[1])
		case "systemd":
			m.Systemd = true
		case "MemTotal:":
			kib, _ := strconv.Atoi(f[1])
			m.MemoryMB = kib / 1024
		case "uptime":
			seconds, _ := strconv.ParseFloat(f[1], 64)
			m.Uptime = time.Duration(seconds * float64(time.Second))
		}
	}
}

// derived are block devices that are no disks: parts of memory and of files,
// optical and network drives, and what is made of disks.
var derived = regexp.MustCompile(`^(loop|ram|zram|sr|fd|dm-|md|nbd|drbd|mmcblk[0-9]+(boot|rpmb))`)

// sysfs reads the lines of grep -H on files of /sys: by the name of the
// directory at the depth of the path, then by the file's name.
func sysfs(text string, depth int) (names []string, values map[string]map[string]string) {
	values = map[string]map[string]string{}
	for line := range strings.Lines(text) {
		file, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		parts := strings.Split(file, "/")
		if !ok || len(parts) <= depth+1 {
			continue
		}
		name := parts[depth]
		if values[name] == nil {
			values[name] = map[string]string{}
			names = append(names, name)
		}
		values[name][path.Base(file)] = value
	}
	slices.Sort(names)
	return names, values
}

func (m *Machine) disks(text string) {
	names, values := sysfs(text, 3)
	for _, name := range names {
		blocks, _ := strconv.ParseInt(values[name]["size"], 10, 64)
		if blocks > 0 && !derived.MatchString(name) {
			m.Disks = append(m.Disks, Disk{Name: name, Size: blocks * 512, Rotational: values[name]["rotational"] == "1"})
		}
	}
}

func (m *Machine) free(text string) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		blocks, _ := strconv.ParseInt(f[0], 10, 64)
		size, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[2] {
		case "/":
			m.FreeRoot = blocks * size
		case "/var":
			m.FreeVar = blocks * size
		}
	}
}

func (m *Machine) interfaces(text string) {
	names, values := sysfs(text, 4)
	for _, name := range names {
		v := values[name]
		i := Interface{Name: name, MAC: v["address"]}
		if strings.Trim(i.MAC, "0:") == "" {
			i.MAC = ""
		}
		i.MTU, _ = strconv.Atoi(v["mtu"])
		// The loopback and tunnels are of unknown state while they work.
		i.Up = v["operstate"] == "up" || v["operstate"] == "unknown"
		m.Interfaces = append(m.Interfaces, i)
	}
}

// addresses reads "2: eth0    inet 10.0.2.11/24 brd … scope …" and
// "3: tun0    inet 10.1.0.1 peer 10.1.0.2/32 …".
func (m *Machine) addresses(text string) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || f[2] != "inet" && f[2] != "inet6" {
			continue
		}
		prefix, err := netip.ParsePrefix(f[3])
		if err != nil {
			address, err := netip.ParseAddr(f[3])
			if err != nil {
				continue
			}
			prefix = netip.PrefixFrom(address, address.BitLen())
		}
		name, _, _ := strings.Cut(f[1], "@")
		for i := range m.Interfaces {
			if m.Interfaces[i].Name == name {
				m.Interfaces[i].Addresses = append(m.Interfaces[i].Addresses, prefix)
			}
		}
	}
}

// routes reads "default via 192.0.2.1 dev eth0 proto …"; IPv4 comes first.
func (m *Machine) routes(text string) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if i := slices.Index(f, "dev"); m.DefaultRoute == "" && i >= 0 && i+1 < len(f) {
			m.DefaultRoute = f[i+1]
		}
	}
}

var processNames = regexp.MustCompile(`\("((?:[^"\\]|\\.)*)",pid=`)

// listening reads ss: protocol, state, two queues, the address, that of the peer,
// and users:(("sshd",pid=1,fd=3),…).
func (m *Machine) listening(text string) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 6 || f[0] != "tcp" && f[0] != "udp" {
			continue
		}
		colon := strings.LastIndexByte(f[4], ':')
		if colon < 0 {
			continue
		}
		l := Listener{Protocol: f[0]}
		var err error
		if l.Port, err = strconv.Atoi(f[4][colon+1:]); err != nil {
			continue
		}
		address := f[4][:colon]
		// A socket is bound to an interface after a percent sign.
		if a, bound, ok := strings.Cut(address, "%"); ok {
			address, l.Interface = a, strings.TrimSuffix(bound, "]")
		}
		if address != "*" {
			if l.Address, err = netip.ParseAddr(strings.Trim(address, "[]")); err != nil {
				continue
			}
		}
		for _, found := range processNames.FindAllStringSubmatch(line, -1) {
			if !slices.Contains(l.Processes, found[1]) {
				l.Processes = append(l.Processes, found[1])
			}
		}
		slices.Sort(l.Processes)
		m.Listening = append(m.Listening, l)
	}
}

func (m *Machine) locks(text string) {
	for line := range strings.Lines(text) {
		file, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		pid, name, _ := strings.Cut(rest, " ")
		if file == "" {
			continue
		}
		h := Holder{File: file, Name: name}
		h.PID, _ = strconv.Atoi(pid)
		m.Busy = append(m.Busy, h)
	}
}
