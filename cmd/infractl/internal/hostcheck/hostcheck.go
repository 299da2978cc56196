// Package hostcheck looks at servers that the user has anyway, before infractl
// changes anything on them: whether they can be reached, whether they are what the
// inventory says, and what would be in the way.
package hostcheck

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/cmd/infractl/internal/inventory"
	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/provision/desired"
)

//go:embed look.sh
var script string

const (
	// limit is for everything that one server is asked.
	limit = 90 * time.Second
	// parallel is how many servers are looked at side by side.
	parallel = 32
)

// Server is a server to look at.
type Server struct {
	inventory.Server
	// Desired is what is to be on it, and Ports are the TCP ports that the environment
	// takes there, with who listens. They are nil if nothing is to be there, or if that
	// is not known.
	Desired *desired.Host
	Ports   map[int]string
	// VIPs are the virtual IPs that the environment's load balancers are to have, if
	// the server is one of these and all of them are looked at.
	VIPs []netip.Addr
	// Environment is whose the server is to be.
	Environment string
}

// Level says how bad something is.
type Level string

// Levels: what has to be put right before infractl up, and what one should know.
const (
	Problem Level = "problem"
	Warning Level = "warning"
)

// Finding is one thing that was found on a server.
type Finding struct {
	Level Level `json:"level"`
	// Check is what was looked at, in one word.
	Check   string `json:"check"`
	Message string `json:"message"`
	// Advice is the way out.
	Advice string `json:"advice,omitempty"`
}

// File is a file that was on a server before infractl, and that it would write over.
type File struct {
	Path string `json:"path"`
	// Diff is a unified diff from what is there to what would be; Note says why there is
	// none, or what else there is to know.
	Diff string `json:"diff,omitempty"`
	Note string `json:"note,omitempty"`
}

// Result is what was found on one server.
type Result struct {
	// Title is what the server is called in messages.
	Title   string   `json:"server"`
	Hosts   []string `json:"hosts"`
	Address string   `json:"address"`
	// OK says that there is no problem.
	OK bool `json:"ok"`
	// System is such as "Debian GNU/Linux 13 (trixie)"; it and the rest are empty if the
	// server could not be looked at.
	System   string `json:"system,omitempty"`
	MemoryMB int    `json:"memory,omitempty"`
	Cores    int    `json:"cores,omitempty"`
	// DiskFree is in bytes, the less of / and /var.
	DiskFree int64 `json:"diskFree,omitempty"`
	// ClockOffset is the server's clock minus this computer's, in seconds.
	ClockOffset float64 `json:"clockOffset"`
	// BecomesRoot is how the login user does.
	BecomesRoot string    `json:"becomesRoot,omitempty"`
	Findings    []Finding `json:"findings"`
	Files       []File    `json:"files"`

	// macs are those of the server's own interfaces, and neighbours those of whoever
	// has the virtual IPs now.
	macs       []string
	neighbours map[string]string
}

// Check looks at all servers side by side and changes nothing.
func Check(ctx context.Context, servers []Server) []Result {
	out := make([]Result, len(servers))
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			out[i] = check(ctx, s)
		})
	}
	wg.Wait()
	agree(out)
	strangers(servers, out)
	for i := range out {
		out[i].OK = !slices.ContainsFunc(out[i].Findings, func(f Finding) bool { return f.Level == Problem })
	}
	return out
}

// check looks at one server.
func check(ctx context.Context, s Server) Result {
	r := Result{Title: s.Title(), Hosts: s.Hosts, Address: s.Endpoint(), Findings: []Finding{}, Files: []File{}}
	conn, err := provision.Connect(ctx, provision.Target{
		Name: s.Title(), Address: s.Address, Port: s.Port, User: s.User, HostKey: s.HostKey, Jump: s.Jump, Own: true,
	})
	if err != nil {
		r.Findings = append(r.Findings, failure(s, err))
		return r
	}
	defer conn.Close()
	m, err := conn.Facts(ctx)
	if err != nil {
		r.Findings = append(r.Findings, failure(s, err))
		return r
	}
	r.System, r.MemoryMB, r.Cores, r.BecomesRoot = m.Name, m.MemoryMB, m.Cores, string(m.Sudo)
	r.DiskFree = min(m.FreeRoot, m.FreeVar)
	r.ClockOffset = m.ClockOffset.Round(time.Millisecond).Seconds()
	r.Findings = append(r.Findings, judge(s, m)...)
	if m.OS != "debian" || !m.Systemd {
		return r // nothing that follows would make sense
	}
	text, err := conn.Run(ctx, "look for what is in the way", script+"survey\n")
	if err == nil {
		var found survey
		if found, err = parseSurvey(string(text)); err == nil {
			r.Findings = append(r.Findings, found.judge(s)...)
		}
	}
	if err != nil {
		r.Findings = append(r.Findings, failure(s, err))
		return r
	}
	if r.macs, r.neighbours, err = neighbours(ctx, conn, s, m); err != nil {
		r.Findings = append(r.Findings, failure(s, err))
		return r
	}
	if s.Desired == nil {
		return r
	}
	files, more, err := compare(ctx, conn, s)
	if err != nil {
		r.Findings = append(r.Findings, failure(s, err))
		return r
	}
	r.Files = append(r.Files, files...)
	r.Findings = append(r.Findings, more...)
	return r
}

// neighbours finds who has the virtual IPs now: their MACs, after the server's own.
func neighbours(ctx context.Context, conn *provision.Conn, s Server, m *provision.Machine) (own []string, found map[string]string, err error) {
	for _, i := range m.Interfaces {
		own = append(own, i.MAC)
	}
	if len(s.VIPs) == 0 {
		return own, nil, nil
	}
	var addresses []string
	for _, a := range s.VIPs {
		addresses = append(addresses, a.String())
	}
	lines, err := ask(ctx, conn, s, "look who has the virtual IPs", "neighbours", addresses)
	if err != nil {
		return own, nil, err
	}
	found = map[string]string{}
	for _, line := range lines {
		if address, mac, ok := strings.Cut(line, " "); ok {
			found[address] = mac
		}
	}
	return own, found, nil
}

// ask calls a function of the script with arguments, and returns the lines that it
// prints before the one that says that these are all.
func ask(ctx context.Context, conn *provision.Conn, s Server, step, function string, arguments []string) ([]string, error) {
	call := function
	for _, a := range arguments {
		call += " " + fleet.Quote(a)
	}
	text, err := conn.Run(ctx, step, script+call+"\n")
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if lines[len(lines)-1] != "end" {
		return nil, fmt.Errorf("%s: the answer is incomplete: %q", s.Title(), text)
	}
	return lines[:len(lines)-1], nil
}

// compare finds the files and daemons that infractl up would take over.
func compare(ctx context.Context, conn *provision.Conn, s Server) ([]File, []Finding, error) {
	a, err := conn.Inspect(ctx, *s.Desired)
	if err != nil {
		return nil, nil, err
	}
	foreign := foreignFiles(*s.Desired, a)
	if len(foreign) == 0 {
		return nil, takenOver(*s.Desired, a, nil), nil
	}
	var paths []string
	for _, f := range foreign {
		paths = append(paths, f.Path)
	}
	lines, err := ask(ctx, conn, s, "look which files are as their packages brought them", "packaged", paths)
	if err != nil {
		return nil, nil, err
	}
	foreign = slices.DeleteFunc(foreign, func(f File) bool { return slices.Contains(lines, f.Path) })
	return foreign, takenOver(*s.Desired, a, foreign), nil
}

// failure is what was found about a server that could not be looked at.
func failure(s Server, err error) Finding {
	f := Finding{Level: Problem, Check: "connection", Message: err.Error()}
	for _, k := range []struct {
		kind error
		name string
	}{
		{provision.ErrHostKeyMismatch, "hostKey"}, {provision.ErrHostKeyUnknown, "hostKey"}, {provision.ErrSudo, "sudo"},
		{provision.ErrAuthFailed, "login"}, {provision.ErrSSHConfig, "sshConfig"},
	} {
		if errors.Is(err, k.kind) {
			f.Check = k.name
			break
		}
	}
	var e *provision.Error
	if errors.As(err, &e) {
		plain := *e
		plain.Hint = ""
		f.Message, f.Advice = plain.Error(), e.Hint
	}
	f.Message = strings.TrimPrefix(f.Message, s.Title()+": ")
	return f
}

// survey is what the script says.
type survey struct {
	owner     string
	clocks    []string
	namespace string
	nftables  string
	listeners []listener
	clusters  []string
	// before are files that sshd reads before infractl's; noInclude is set if it does
	// not read infractl's at all.
	before    []string
	noInclude bool
}

// listener is somebody who listens on TCP.
type listener struct {
	address string
	port    int
	// unit is systemd's, and process the program's name; either may be empty.
	unit, process string
}

func parseSurvey(text string) (survey, error) {
	var s survey
	complete := false
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "owner":
			s.owner = rest
		case "clock":
			s.clocks = append(s.clocks, rest)
		case "namespace":
			s.namespace = "it cannot be made: " + rest
		case "nftables":
			s.nftables = rest
		case "listen":
			if l, ok := parseListener(rest); ok {
				s.listeners = append(s.listeners, l)
			}
		case "cluster":
			s.clusters = append(s.clusters, rest)
		case "sshd":
			s.before = append(s.before, rest)
		case "noinclude":
			s.noInclude = true
		case "end":
			complete = true
		}
	}
	if !complete {
		return s, fmt.Errorf("the answer is incomplete: %q", text)
	}
	return s, nil
}

// parseListener reads a line of ss: state, two queues, the address, that of the peer,
// users:(("nginx",pid=1,fd=3)) and cgroup:/system.slice/nginx.service.
func parseListener(line string) (listener, bool) {
	f := strings.Fields(line)
	if len(f) < 5 {
		return listener{}, false
	}
	colon := strings.LastIndexByte(f[3], ':')
	if colon < 0 {
		return listener{}, false
	}
	port, err := strconv.Atoi(f[3][colon+1:])
	if err != nil {
		return listener{}, false
	}
	l := listener{address: f[3][:colon], port: port}
	for _, word := range f[5:] {
		if users, ok := strings.CutPrefix(word, `users:(("`); ok {
			l.process, _, _ = strings.Cut(users, `"`)
		}
		if group, ok := strings.CutPrefix(word, "cgroup:"); ok {
			for part := range strings.SplitSeq(group, "/") {
				if strings.HasSuffix(part, ".service") || strings.HasSuffix(part, ".scope") || strings.HasSuffix(part, ".socket") {
					l.unit = part // the innermost one
				}
			}
		}
	}
	return l, true
}

// who is the listener for people.
func (l listener) who() string {
	switch {
	case l.process != "" && l.unit != "":
		return fmt.Sprintf("%s (%s)", l.process, l.unit)
	case l.process != "":
		return l.process
	case l.unit != "":
		return l.unit
	}
	return "a process that cannot be seen"
}

// sortedPorts are ports in order.
func sortedPorts(ports map[int]string) []int { return slices.Sorted(maps.Keys(ports)) }
