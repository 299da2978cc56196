package provision

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/infractl/infractl/provision/desired"
)

const (
	// inspectTimeout is for one look at a host that is up.
	inspectTimeout = 30 * time.Second
	// contentLimit is the size in bytes up to which the text of a differing
	// file is fetched.
	contentLimit = 256 << 10
)

// Inspect sees what is on the host of the things that h names. It takes one
// round trip, and a second one only if files differ, to fetch their text.
func (c *Conn) Inspect(ctx context.Context, h desired.Host) (*Actual, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	mark := "@@" + nonce()
	text, err := c.output(ctx, "inspect", inspectScript(mark, h))
	if err != nil {
		return nil, err
	}
	a, err := parseInspection(text, mark, h)
	if err != nil {
		return nil, &Error{Host: c.target.Name, Step: "inspect", Err: err, Hint: "this needs Debian 12 or newer with systemd"}
	}
	if err := c.fetch(ctx, h, a); err != nil {
		return nil, err
	}
	return a, nil
}

// inspectScript is the script that looks at everything that h names.
func inspectScript(mark string, h desired.Host) string {
	s := newScript("inspect")
	s.set("mark", mark)
	s.call("hello")
	s.call("remembered")
	paths := append(sortedKeys(h.Files), sortedKeys(h.Trees)...)
	s.call("files", paths...)
	if len(h.Units) > 0 {
		var names []string
		for _, u := range h.Units {
			names = append(names, u.Name)
		}
		s.call("units", names...)
	}
	if len(h.Packages) > 0 {
		s.call("packages", h.Packages...)
	}
	s.call("addresses")
	s.call("finish")
	return s.String()
}

// sections splits the output of a script at the lines that begin with mark.
// Each section is a name and a text without the newline before the next mark.
func sections(text []byte, mark string) (names []string, texts [][]byte) {
	parts := bytes.Split(text, []byte("\n"+mark+" "))
	for _, part := range parts[1:] {
		name, body, _ := bytes.Cut(part, []byte("\n"))
		names = append(names, string(name))
		texts = append(texts, body)
	}
	return names, texts
}

func parseInspection(text []byte, mark string, h desired.Host) (*Actual, error) {
	a := &Actual{
		Files: map[string]File{}, Trees: map[string]Tree{}, Packages: map[string]string{},
		Units: map[string]Unit{}, Users: map[string]User{}, Interfaces: map[netip.Addr]string{},
		Loaded: map[string]Loaded{}, Originals: map[string]string{}, Found: map[string]Found{},
	}
	names, texts := sections(text, mark)
	if len(names) == 0 || names[len(names)-1] != "end" {
		return nil, fmt.Errorf("the answer is incomplete: %q", tail(string(text), 200))
	}
	trees := map[string]Tree{}
	for i, name := range names {
		var err error
		switch name {
		case "remembered":
			parseRemembered(string(texts[i]), a, trees)
		case "facts":
			parseFacts(string(texts[i]), a)
		case "files":
			err = parseFiles(texts[i], a)
		case "units":
			err = parseUnits(string(texts[i]), h.Units, a)
		case "packages":
			parsePackages(string(texts[i]), a)
		case "addresses":
			parseAddresses(string(texts[i]), a)
		}
		if err != nil {
			return nil, err
		}
	}
	// A tree counts only if its directory is there; those not asked for are
	// known for pruning, where a directory that is gone does no harm.
	for path, tree := range trees {
		if _, asked := h.Trees[path]; asked && a.Files[path].Kind != 'd' {
			continue
		}
		a.Trees[path] = tree
	}
	for path := range h.Trees {
		delete(a.Files, path)
	}
	return a, nil
}

// parseRemembered reads lines of grep -H: the file's name, a colon, its text.
func parseRemembered(text string, a *Actual, trees map[string]Tree) {
	const state = "/var/lib/infractl/"
	release := map[string]string{}
	marker := map[string][]string{}
	groups := map[string][]string{}
	for line := range strings.Lines(text) {
		file, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if !ok {
			continue
		}
		switch {
		case file == state+"generation":
			a.generation = value
		case file == state+"manifest":
			a.Manifest = append(a.Manifest, value)
		case file == state+"originals/index":
			parseOriginal(value, a)
		case strings.HasPrefix(file, state+"loaded/"):
			restart, reload, _ := strings.Cut(value, " ")
			a.Loaded[strings.TrimPrefix(file, state+"loaded/")] = Loaded{restart, reload}
		case strings.HasPrefix(file, state+"trees/"):
			marker[file] = append(marker[file], value)
		case file == "/etc/passwd":
			if f := strings.Split(value, ":"); len(f) >= 6 {
				a.Users[f[0]] = User{Home: f[5]}
			}
		case file == "/etc/group":
			if f := strings.Split(value, ":"); len(f) >= 4 {
				for _, user := range strings.Split(f[3], ",") {
					groups[user] = append(groups[user], f[0])
				}
			}
		case file == "/etc/os-release":
			key, v, _ := strings.Cut(value, "=")
			release[key] = strings.Trim(v, `"`)
		case file == "/etc/debian_version":
			a.Facts.Version = value
		}
	}
	// A copy of what stood in a place that infractl did not take in the end, or
	// has given back, says nothing about what is there by now.
	if len(a.Manifest) == 0 {
		a.Found, a.Made = map[string]Found{}, nil
	}
	slices.Sort(a.Made)
	slices.Reverse(a.Made)
	maps.DeleteFunc(a.Originals, func(path, _ string) bool { return !slices.Contains(a.Manifest, path) })
	for name, user := range a.Users {
		user.Groups = groups[name]
		a.Users[name] = user
	}
	for _, lines := range marker {
		if len(lines) == 3 {
			seconds, _ := strconv.ParseInt(lines[2], 10, 64)
			trees[lines[0]] = Tree{Digest: lines[1], Uploaded: time.Unix(seconds, 0)}
		}
	}
	if release["ID"] == "debian" {
		a.Facts.Debian = release["VERSION_ID"]
	}
}

// parseOriginal reads a line of the index of originals; see originals.go.
func parseOriginal(line string, a *Actual) {
	kind, rest, _ := strings.Cut(line, " ")
	switch kind {
	case "file":
		if key, path, ok := strings.Cut(rest, " "); ok {
			a.Originals[path] = key
		}
	case "dir":
		if !slices.Contains(a.Made, rest) {
			a.Made = append(a.Made, rest)
		}
	case "unit":
		if f := strings.Fields(rest); len(f) == 4 {
			a.Found[f[3]] = Found{Load: strings.TrimPrefix(f[0], "-"), Active: strings.TrimPrefix(f[1], "-"), File: strings.TrimPrefix(f[2], "-")}
		}
	}
}

func parseFacts(text string, a *Actual) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		f := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "/proc/meminfo:MemTotal:") && len(f) >= 2:
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			a.Facts.Memory = kib << 10
		case strings.HasPrefix(line, "/proc/self/status:Cpus_allowed:") && len(f) >= 2:
			for _, word := range strings.Split(f[1], ",") {
				mask, _ := strconv.ParseUint(word, 16, 64)
				a.Facts.Cores += bits.OnesCount64(mask)
			}
		case len(f) == 2:
			blocks, _ := strconv.ParseInt(f[0], 10, 64)
			size, _ := strconv.ParseInt(f[1], 10, 64)
			a.Facts.DiskFree = blocks * size
		}
	}
}

// parseFiles reads the records of find and sha256sum. All end in NUL; those of
// sha256sum begin with 64 hexadecimal digits and two spaces.
func parseFiles(text []byte, a *Actual) error {
	records := strings.Split(string(text), "\x00")
	for i := 0; i < len(records)-1; {
		r := records[i]
		if len(r) > 66 && r[64:66] == "  " {
			if f, ok := a.Files[r[66:]]; ok {
				f.SHA256 = r[:64]
				a.Files[r[66:]] = f
			}
			i++
			continue
		}
		f := strings.Fields(r)
		if len(f) != 5 || len(f[0]) != 1 || i+2 >= len(records) {
			return fmt.Errorf("unexpected record of find: %q", r)
		}
		size, err := strconv.ParseInt(f[4], 10, 64)
		if err != nil {
			return fmt.Errorf("unexpected record of find: %q", r)
		}
		a.Files[records[i+2]] = File{
			Kind: f[0][0], Mode: strings.Repeat("0", max(0, 4-len(f[1]))) + f[1], Owner: f[2], Group: f[3], Size: size, Link: records[i+1],
		}
		i += 3
	}
	return nil
}

// parseUnits reads the blocks of systemctl show, one for each unit in the order asked.
func parseUnits(text string, asked []desired.Unit, a *Actual) error {
	blocks := strings.Split(strings.TrimSpace(text), "\n\n")
	if len(blocks) != len(asked) || !strings.Contains(text, "LoadState=") {
		return fmt.Errorf("systemctl said: %s", tail(strings.TrimSpace(text), 300))
	}
	for i, block := range blocks {
		var u Unit
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch key {
			case "LoadState":
				u.Load = value
			case "ActiveState":
				u.Active = value
			case "SubState":
				u.Sub = value
			case "UnitFileState":
				u.File = value
			case "NeedDaemonReload":
				u.Stale = value == "yes"
			case "CanReload":
				u.CanReload = value == "yes"
			}
		}
		a.Units[asked[i].Name] = u
	}
	return nil
}

func parsePackages(text string, a *Actual) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "installed" {
			a.Packages[f[1]] = f[2]
		}
	}
}

// parseAddresses reads "2: eth0    inet 10.0.2.11/32 scope …".
func parseAddresses(text string, a *Actual) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || f[2] != "inet" && f[2] != "inet6" {
			continue
		}
		address, _, _ := strings.Cut(f[3], "/")
		if ip, err := netip.ParseAddr(address); err == nil {
			a.Interfaces[ip.WithZone("")] = f[1]
		}
	}
}

// fetch gets the text of the files that differ from what is desired.
func (c *Conn) fetch(ctx context.Context, h desired.Host, a *Actual) error {
	var paths []string
	for _, path := range sortedKeys(h.Files) {
		actual, exists := a.Files[path]
		if !exists || actual.Kind != 'f' || h.Files[path].Link != "" || actual.Size > contentLimit {
			continue
		}
		wanted := h.Files[path].Content
		if text, err := render(wanted, h, a.Interfaces); err == nil && digest(text) == actual.SHA256 {
			actual.Content, actual.Known = wanted, true
			a.Files[path] = actual
			continue
		}
		if !slices.Contains(a.Manifest, path) && !public(actual.Mode) {
			continue // nobody but its owner is meant to see it
		}
		paths = append(paths, path)
	}
	if len(paths) == 0 {
		return nil
	}
	mark := "@@" + nonce()
	s := newScript("inspect")
	s.set("mark", mark)
	s.call("hello")
	s.call("contents", paths...)
	s.call("finish")
	text, err := c.output(ctx, "fetch changed files", s.String())
	if err != nil {
		return err
	}
	names, texts := sections(text, mark)
	if len(names) != len(paths)+1 {
		return &Error{Host: c.target.Name, Step: "fetch changed files", Detail: "the answer is incomplete", Hint: "run it again"}
	}
	for i, path := range paths {
		f := a.Files[path]
		f.Content, f.Known = unrender(string(texts[i]), h.Files[path].Content, h, a.Interfaces)
		a.Files[path] = f
	}
	return nil
}

// public says whether all users of a host may read a file with this mode. Others
// may hold a secret that is not infractl's.
func public(mode string) bool {
	return mode != "" && (mode[len(mode)-1]-'0')&4 != 0
}

// booted waits until cloud-init, if it runs on the host, has done its work.
func (c *Conn) booted(ctx context.Context, progress func(string)) error {
	s := newScript("boot")
	s.call("hello")
	s.call("booted")
	session, err := c.start(ctx, "wait for cloud-init", s.String())
	if err != nil {
		return err
	}
	line, _ := session.out.ReadString('\n')
	if strings.TrimSpace(line) == "@waiting" {
		report(progress, "waiting for cloud-init on "+c.target.Name)
	}
	result, _ := io.ReadAll(session.out)
	if err := session.wait(); err != nil {
		if _, gone := session.gone(err); gone {
			return session.lost(ctx, err)
		}
	}
	// Errors of cloud-init are told, but do not stop: what infractl needs of it
	// is the login, which has just worked.
	var status struct {
		V1 struct {
			Errors []string `json:"errors"`
		} `json:"v1"`
	}
	if json.Unmarshal(result, &status) == nil && len(status.V1.Errors) > 0 {
		report(progress, "cloud-init on "+c.target.Name+" reported: "+strings.Join(status.V1.Errors, "; "))
	}
	return nil
}

// inspectAttached looks again until every interface that h's files name is
// there: a private network is attached to a server some time after its boot.
func (c *Conn) inspectAttached(ctx context.Context, h desired.Host, limit time.Duration, progress func(string)) (*Actual, error) {
	deadline := time.Now().Add(limit)
	for {
		a, err := c.Inspect(ctx, h)
		if err != nil {
			return nil, err
		}
		_, err = renderAll(h, a.Interfaces)
		if err == nil {
			return a, nil
		}
		var missing *missingInterface
		if !errors.As(err, &missing) || time.Now().After(deadline) {
			return nil, &Error{Host: c.target.Name, Step: "render files", Kinds: []error{ErrDesired}, Err: err}
		}
		report(progress, "waiting for the network interface with "+missing.address)
		select {
		case <-ctx.Done():
			return nil, &Error{Host: c.target.Name, Step: "render files", Kinds: []error{ErrCanceled}, Err: context.Cause(ctx)}
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// tail returns the end of s, at most n bytes.
func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
