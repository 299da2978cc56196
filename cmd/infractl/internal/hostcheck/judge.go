package hostcheck

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aymanbagabas/go-udiff"

	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/provision/desired"
)

const (
	// clockWarning is more than a time daemon leaves. clockProblem is where things begin
	// to fail: apt refuses lists that are not valid yet, logs of several hosts no longer
	// line up, and no daemon slews so far by itself (chrony and ntpsec step, or give up).
	clockWarning = time.Second
	clockProblem = time.Minute
	// diskProblem is less than the packages of a tier take while apt unpacks them,
	// diskWarning what a host soon needs for logs and releases. Both are in bytes.
	diskProblem = 512 << 20
	diskWarning = 2 << 30
)

// judge says what is wrong with a machine, going by what any machine tells.
func judge(s Server, m *provision.Machine) []Finding {
	var out []Finding
	add := func(level Level, check, advice, format string, args ...any) {
		out = append(out, Finding{level, check, fmt.Sprintf(format, args...), advice})
	}
	is := m.Name
	if is == "" {
		is = strings.TrimSpace(m.OS + " " + m.Version)
	}
	switch {
	case m.OS != "debian" || m.Version != "12" && m.Version != "13":
		add(Problem, "debian", "install Debian 13 or 12 there", "it runs %s, and infractl needs Debian 13 or 12", is)
	case m.Version != strconv.Itoa(s.Debian):
		add(Problem, "debian", fmt.Sprintf("set debian: %s in its entry", m.Version), "it runs Debian %s, but is taken for Debian %d", m.Version, s.Debian)
	}
	if !m.Systemd {
		add(Problem, "systemd", "boot the server with it (apt-get install systemd-sysv)", "systemd does not run there")
	}
	out = append(out, judgeClock(m)...)
	for _, d := range []struct {
		name string
		free int64
	}{{"/", m.FreeRoot}, {"/var", m.FreeVar}} {
		if d.name == "/var" && m.FreeVar == m.FreeRoot {
			continue // the same file system
		}
		advice := "make room, for example with apt-get clean and journalctl --vacuum-size=100M, or make the disk larger"
		switch {
		case d.free < diskProblem:
			add(Problem, "disk", advice, "%s has %s free, and packages, releases and logs need %s at least", d.name, size(d.free), size(diskProblem))
		case d.free < diskWarning:
			add(Warning, "disk", advice, "%s has only %s free", d.name, size(d.free))
		}
	}
	out = append(out, judgeSize(s, m)...)
	out = append(out, judgePrivate(s, m)...)
	if m.Unfinished != "" {
		first, _, _ := strings.Cut(m.Unfinished, "\n")
		names := ""
		if p := unfinishedPackages(m.Unfinished); len(p) > 0 {
			first, names = "dpkg was interrupted", " ("+strings.Join(p, ", ")+")"
		}
		add(Problem, "dpkg", "on the server: dpkg --configure -a, then apt-get -f install", "packages were left half-way%s: %s", names, first)
	}
	if len(m.Busy) > 0 {
		var who []string
		for _, h := range m.Busy {
			name := h.Name
			if h.PID == 0 {
				name = "a process outside of its view"
			} else {
				name = fmt.Sprintf("%s (process %d)", name, h.PID)
			}
			if !slices.Contains(who, name) {
				who = append(who, name)
			}
		}
		add(Problem, "dpkg", "wait until it is done; if it hangs, look at it with ps on the server", "packages cannot be installed now: %s holds the lock %s", strings.Join(who, " and "), m.Busy[0].File)
	}
	return out
}

// unfinishedPackages are the packages that dpkg --audit names: each on a line that
// begins with a space, before its description.
func unfinishedPackages(audit string) []string {
	var out []string
	for line := range strings.Lines(audit) {
		if strings.HasPrefix(line, " ") {
			if f := strings.Fields(line); len(f) > 0 {
				out = append(out, f[0])
			}
		}
	}
	return out
}

func judgeClock(m *provision.Machine) []Finding {
	off := m.ClockOffset.Abs()
	if off <= clockWarning+m.ClockError {
		return nil
	}
	f := Finding{Level: Warning, Check: "clock", Advice: "on the server: timedatectl set-ntp true"}
	if off > clockProblem {
		f.Level = Problem
	}
	direction := "ahead of"
	if m.ClockOffset < 0 {
		direction = "behind"
	}
	f.Message = fmt.Sprintf("its clock is %s %s this computer's", rounded(off), direction)
	hours := off.Round(time.Hour)
	if hours > 0 && (off-hours).Abs() < clockProblem {
		f.Advice = "that is a whole number of hours, so the clock was probably set to local time: on the server, timedatectl set-local-rtc 0 and timedatectl set-ntp true"
	}
	return []Finding{f}
}

func rounded(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

// agree notes where all servers' clocks differ by the same from this computer's: then
// it is this one that is wrong.
func agree(results []Result) {
	var least, most float64
	n := 0
	for _, r := range results {
		if r.System == "" {
			continue
		}
		if n == 0 {
			least, most = r.ClockOffset, r.ClockOffset
		}
		least, most = min(least, r.ClockOffset), max(most, r.ClockOffset)
		n++
	}
	if n < 2 || most-least > 2 || math.Abs(least) < clockWarning.Seconds() || math.Abs(most) < clockWarning.Seconds() {
		return
	}
	for i := range results {
		for k := range results[i].Findings {
			if f := &results[i].Findings[k]; f.Check == "clock" && strings.Contains(f.Message, "this computer") {
				f.Advice = "all servers say the same time, so it is this computer's clock that has to be put right"
			}
		}
	}
}

// strangers notes virtual IPs that a machine has which is none of the servers. A load
// balancer that could not be looked at may be that machine.
func strangers(servers []Server, results []Result) {
	ours := map[string]bool{}
	for i, r := range results {
		if r.neighbours == nil && len(servers[i].VIPs) > 0 {
			return
		}
		for _, mac := range r.macs {
			ours[mac] = true
		}
	}
	for i, s := range servers {
		for _, vip := range s.VIPs {
			if mac := results[i].neighbours[vip.String()]; mac != "" && !ours[mac] {
				results[i].Findings = append(results[i].Findings, Finding{
					Problem, "vip", fmt.Sprintf("another machine has the virtual IP %s already, the one with the MAC %s", vip, mac),
					"give the environment another address (infractl:vip), or take this one off that machine",
				})
			}
		}
	}
}

func judgeSize(s Server, m *provision.Machine) []Finding {
	var out []Finding
	add := func(level Level, check, advice, format string, args ...any) {
		out = append(out, Finding{level, check, fmt.Sprintf(format, args...), advice})
	}
	memory := fmt.Sprintf("set memory: %d in its entry", m.MemoryMB)
	// The kernel keeps some of the memory that is sold for itself.
	switch said := float64(s.MemoryMB); {
	case m.MemoryMB == 0:
	case float64(m.MemoryMB) < said*0.75:
		add(Problem, "memory", memory, "it has %d MiB of memory, but the inventory says %d, and the daemons would be sized by that", m.MemoryMB, s.MemoryMB)
	case float64(m.MemoryMB) < said*0.9:
		add(Warning, "memory", memory, "it has %d MiB of memory, but the inventory says %d", m.MemoryMB, s.MemoryMB)
	case float64(m.MemoryMB) > said*1.5:
		add(Warning, "memory", memory, "it has %d MiB of memory, but only %d would be used", m.MemoryMB, s.MemoryMB)
	}
	cores := fmt.Sprintf("set cores: %d in its entry", m.Cores)
	switch {
	case m.Cores == 0 || m.Cores == s.Cores:
	case m.Cores < s.Cores:
		add(Warning, "cores", cores, "it has %d cores, but the inventory says %d", m.Cores, s.Cores)
	case m.Cores > 2*s.Cores:
		add(Warning, "cores", cores, "it has %d cores, but only %d would be used", m.Cores, s.Cores)
	}
	return out
}

func judgePrivate(s Server, m *provision.Machine) []Finding {
	if s.Private == "" {
		return nil
	}
	private, err := netip.ParseAddr(s.Private)
	if err != nil {
		return nil // the configuration says so itself
	}
	var has []string
	for _, i := range m.Interfaces {
		for _, p := range i.Addresses {
			switch a := p.Addr(); {
			case a == private && !i.Up:
				return []Finding{{Problem, "private", fmt.Sprintf("its address %s is on %s, which is down", private, i.Name), "bring the interface up, also at boot"}}
			case a == private:
				return nil
			case a.Is4() && !a.IsLoopback():
				has = append(has, a.String())
			}
		}
	}
	there := "it has no IPv4 address at all"
	if len(has) > 0 {
		there = "it has " + strings.Join(has, ", ")
	}
	return []Finding{{Problem, "private", fmt.Sprintf("it does not have the address %s, by which the other hosts are to reach it; %s", private, there),
		"set private in its entry, or give the server that address"}}
}

// judge says what is in the way.
func (v survey) judge(s Server) []Finding {
	var out []Finding
	add := func(level Level, check, advice, format string, args ...any) {
		out = append(out, Finding{level, check, fmt.Sprintf(format, args...), advice})
	}
	// The file says the environment, and which of its hosts.
	owner, _, _ := strings.Cut(v.owner, " ")
	if owner != "" && owner != s.Environment {
		add(Problem, "owner", "take it out of the other environment first (infractl hosts remove and up there), or out of this one", "it belongs to another environment: %s", v.owner)
	}
	for _, name := range v.clocks {
		add(Problem, "time", "on the server: apt-get remove "+name, "%s keeps the time there, and cannot be installed beside systemd-timesyncd, which infractl uses", name)
	}
	if v.namespace != "" {
		add(Problem, "kernel", "use a kernel with mount namespaces and overlayfs; in a container, they must be allowed", "new configurations cannot be checked there, which takes an overlay in a mount namespace: %s", v.namespace)
	}
	if v.nftables != "" {
		add(Problem, "kernel", "use a kernel with nftables; in a container, it must be allowed", "the firewall cannot work there: %s", v.nftables)
	}
	if v.noInclude {
		add(Problem, "sshd", "put the line back: Include /etc/ssh/sshd_config.d/*.conf, before all others", "/etc/ssh/sshd_config does not include sshd_config.d, so sshd would not read infractl's settings")
	}
	if len(v.before) > 0 {
		add(Warning, "sshd", "remove what infractl is to decide: who logs in, and how", "sshd takes the first value it meets, and reads before infractl's settings: %s", strings.Join(v.before, ", "))
	}
	out = append(out, v.judgePorts(s)...)
	if s.Desired == nil || owner == s.Environment {
		return out
	}
	for _, u := range s.Desired.Units {
		name, is := strings.CutPrefix(u.Name, "postgresql@")
		if name = strings.TrimSuffix(name, ".service"); !is || !u.Active {
			continue
		}
		for _, c := range v.clusters {
			if strings.Replace(c, "/", "-", 1) == name {
				add(Warning, "database", "if its data are needed, make a backup first; if not: pg_dropcluster --stop "+strings.Replace(c, "/", " ", 1), "a PostgreSQL cluster %s is there already: infractl up takes it over, with its data, and replaces its pg_hba.conf", c)
			} else {
				add(Warning, "database", "move its data, or drop it: pg_dropcluster --stop "+strings.Replace(c, "/", " ", 1), "there is another PostgreSQL cluster, %s, which infractl leaves alone; it takes memory that is counted on", c)
			}
		}
	}
	return out
}

// judgePorts reports ports that the environment wants and somebody else has.
func (v survey) judgePorts(s Server) []Finding {
	wanted := map[string]bool{} // units of this server, and whether they are to run
	if s.Desired != nil {
		for _, u := range s.Desired.Units {
			wanted[u.Name] = u.Active
		}
	}
	var out []Finding
	for _, port := range sortedPorts(s.Ports) {
		var told []string
		for _, l := range v.listeners {
			if _, ours := wanted[l.unit]; l.port != port || ours || slices.Contains(told, l.who()) {
				continue // one that is not to run is stopped
			}
			if l.unit == "" && slices.Contains([]string{"haproxy", "nginx", "postgres"}, l.process) {
				continue // it is probably the daemon itself
			}
			told = append(told, l.who())
			advice := "stop it and keep it from starting again"
			if strings.HasSuffix(l.unit, ".service") {
				advice = "on the server: systemctl disable --now " + l.unit
			}
			out = append(out, Finding{Problem, "ports", fmt.Sprintf("port %d is for %s, but %s listens there, on %s", port, s.Ports[port], l.who(), l.address), advice})
		}
	}
	return out
}

// ownDir holds nothing but infractl's. Whose it is there is looked at by itself.
const ownDir = "/etc/infractl/"

// foreignFiles are files that are on a server, are not infractl's, and would be
// written over.
func foreignFiles(h desired.Host, a *provision.Actual) []File {
	var out []File
	for _, path := range sortedPaths(h.Files) {
		is, there := a.Files[path]
		if !there || slices.Contains(a.Manifest, path) || strings.HasPrefix(path, ownDir) {
			continue
		}
		want, f := h.Files[path], File{Path: path}
		switch {
		case want.Link != "" && is.Kind == 'l' && is.Link == want.Link:
			continue
		case is.Kind == 'd':
			f.Note = "it is a directory, and a file is to be there"
		case is.Kind == 'l':
			f.Note = "it is a link to " + is.Link + ", and a file takes its place"
		case is.Kind != 'f':
			f.Note = "it is no regular file"
		case want.Link != "":
			f.Note = "a link to " + want.Link + " takes its place"
		case is.Known && is.Content == want.Content:
			continue
		case !readable(is.Mode):
			f.Note = "its text is not shown, since not everybody on the server may read it (mode " + is.Mode + ")"
		case !is.Known:
			f.Note = "its text is not shown, because it is large or no text"
		default:
			f.Diff = udiff.Unified(path+" on the server", path+" of infractl", is.Content, want.Content)
		}
		out = append(out, f)
	}
	return out
}

// readable says whether everybody may read a file of a mode in octal digits.
func readable(mode string) bool {
	n, err := strconv.ParseUint(mode, 8, 32)
	return err == nil && n&0o004 != 0
}

// takenOver says which files are written over and which daemons are stopped.
func takenOver(h desired.Host, a *provision.Actual, files []File) []Finding {
	var out []Finding
	if len(files) > 0 {
		var paths []string
		for _, f := range files {
			paths = append(paths, f.Path)
			if a.Files[f.Path].Kind == 'd' {
				out = append(out, Finding{Problem, "files", f.Path + " is a directory, and a file is to be there", "move it away"})
			}
		}
		out = append(out, Finding{Warning, "files", "infractl up writes over what somebody has put there: " + strings.Join(paths, ", "), "a copy is kept there, and comes back with infractl destroy"})
	}
	if len(a.Manifest) > 0 {
		return out // it is infractl's already
	}
	for _, u := range h.Units {
		// One that guards the way in is stopped for another that listens in its place.
		if !u.Active && !u.Guarded && a.Units[u.Name].Running() {
			out = append(out, Finding{Warning, "units", u.Name + " runs there, and infractl up stops it, since no tier of this server needs it", "move what it does to another server first"})
		}
	}
	return out
}

func sortedPaths(files map[string]desired.File) []string {
	var out []string
	for path := range files {
		out = append(out, path)
	}
	slices.Sort(out)
	return out
}

// size is a number of bytes for people.
func size(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
