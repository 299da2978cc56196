package provision

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/infractl/infractl/provision/desired"
)

const (
	// lockWait is how long a change waits for another one on the same host.
	// It covers an interrupted run whose packages are still being installed.
	lockWait = 3 * time.Minute
	// healthTimeout is a unit's HealthTimeout if it names none.
	healthTimeout = 15
	// confirmTimeout is how long, in seconds, a guarded change waits for a new connection.
	confirmTimeout = 30
	// actionTime is what an action on a unit may take, in seconds, in the
	// reckoning of the timer that takes a guarded change back.
	actionTime = 20
	// hookTime is how long, in seconds, a unit's Before or After may take; see
	// the function hook in scripts/common.sh.
	hookTime = 120
)

// transaction is a planned change in the form in which it goes to the host.
type transaction struct {
	// dir is the change's directory on the host.
	dir string
	// script is the program, archive what it unpacks first.
	script  string
	archive []byte
	log     string
}

// newTransaction makes the programs for a plan. holder is told to others that
// find the host locked. leaving says that the host is given back.
func newTransaction(id, holder string, h desired.Host, a *Actual, plan []Action, leaving bool) (*transaction, error) {
	texts, err := renderAll(h, a.Interfaces)
	if err != nil {
		return nil, err
	}
	t := &transaction{dir: "/var/lib/infractl/tx/" + id, log: "/var/lib/infractl/log/" + id}
	var files []Action
	var packages, swaps, removals, removedTrees []string
	acted := map[string]bool{} // units that something happens to
	loads := map[string]bool{} // units that load their files anew
	reload, needsNumber := false, map[string]int{}
	number := func(unit string) string {
		if _, ok := needsNumber[unit]; !ok {
			needsNumber[unit] = len(needsNumber)
		}
		return strconv.Itoa(needsNumber[unit])
	}
	for _, action := range plan {
		switch action.Kind {
		case InstallPackage:
			packages = append(packages, action.Subject)
		case WriteFile, MakeLink:
			files = append(files, action)
			swaps = append(swaps, action.Subject)
		case RemoveFile:
			files = append(files, action)
			removals = append(removals, action.Subject)
		case RestoreFile:
			files = append(files, action)
			swaps = append(swaps, action.Subject)
		case RemoveTree:
			removedTrees = append(removedTrees, action.Subject)
		case DaemonReload:
			reload = true
		case StartUnit, RestartUnit, ReloadUnit:
			acted[action.Subject], loads[action.Subject] = true, true
		case HaltUnit, StopUnit, EnableUnit, DisableUnit, MaskUnit:
			acted[action.Subject] = true
		}
	}
	var names []string
	for _, action := range files {
		names = append(names, action.Subject)
	}
	directories := parents(names)
	touches := func(u desired.Unit) bool {
		return acted[u.Name] || slices.ContainsFunc(files, func(f Action) bool { return asksFor(u, f.Subject) != "" })
	}

	s := newScript()
	s.set("tx", t.dir)
	s.set("holder", holder)
	s.load("change")
	s.call("hello")
	s.call("begin", strconv.Itoa(int(lockWait.Seconds())), a.generation)

	validate, err := t.validation(h, a, texts, files, touches, loads)
	if err != nil {
		return nil, err
	}
	rollback := t.rollback(h, a, plan, files, reload, number)
	if t.archive, err = stage(files, texts, validate, rollback); err != nil {
		return nil, err
	}
	s.call("receive", strconv.Itoa(len(t.archive)))
	// What infractl finds is kept before anything changes it, a package too.
	theirs, free, units := foreign(h, a), free(h, a), found(h, a)
	keeps := !leaving && (len(theirs)+len(free) > 0 || !maps.Equal(units, a.Found))
	if keeps {
		s.call("originals", index(a, units)...)
		for _, name := range theirs {
			s.call("keep", pathKey(name), name)
		}
		s.call("note_originals")
	}
	if len(packages) > 0 {
		s.call("install", packages...)
	}
	for _, action := range plan {
		switch action.Kind {
		case AddUser, ChangeUser:
			u := h.Users[slices.IndexFunc(h.Users, func(u desired.User) bool { return u.Name == action.Subject })]
			s.call("user", u.Name, home(u), strings.Join(u.Groups, ","))
		case UploadTree:
			s.call("tree", action.Subject, h.Trees[action.Subject].Digest, pathKey(action.Subject))
		}
	}
	if validate != "" {
		s.call("validate")
	}
	s.call("point_of_no_return")

	if keeps && len(free) > 0 {
		// A package may have brought them meanwhile.
		for _, name := range free {
			s.call("keep", pathKey(name), name)
		}
		s.call("made", parents(free)...)
		s.call("note_originals")
	}
	for i, action := range files {
		s.call("save", strconv.Itoa(i), action.Subject)
	}
	var flush []string
	for i, action := range files {
		f := h.Files[action.Subject]
		switch action.Kind {
		case WriteFile:
			mode, owner, group := attributes(f)
			s.call("prepare", strconv.Itoa(i), action.Subject, mode, owner, group)
			flush = append(flush, action.Subject)
		case MakeLink:
			s.call("prepare_link", action.Subject, f.Link)
		case RestoreFile:
			s.call("prepare_original", action.Subject, a.Originals[action.Subject])
			flush = append(flush, action.Subject)
		}
	}
	if len(flush) > 0 {
		s.call("flush", flush...)
	}
	// Both the files that come and those that go are infractl's while the
	// change is under way.
	s.call("manifest", union(sortedKeys(h.Files), a.Manifest)...)

	guarded, seconds := false, 60+confirmTimeout
	for _, u := range h.Units {
		if touches(u) {
			guarded = guarded || u.Guarded
			seconds += actionTime + health(u)
			if u.Before+u.After != "" {
				seconds += 2 * hookTime
			}
		}
	}
	if guarded {
		s.call("arm", strconv.Itoa(seconds))
	}
	for _, action := range plan {
		switch action.Kind {
		case RetireUnit:
			s.call("systemd", number(action.Subject), instances(action.Subject), "stop")
			s.call("systemd", number(action.Subject), action.Subject, "disable")
		case HaltUnit:
			s.call("systemd", number(action.Subject), action.Subject, "stop")
		}
	}
	for _, name := range swaps {
		s.call("swap", name)
	}
	for _, name := range removals {
		s.call("gone", name)
	}
	if len(directories) > 0 {
		s.call("flush_directories", directories...)
	}
	// What starts at boot is decided first, for all units together: systemd reads
	// everything anew after that, which takes a good part of a second each time.
	for _, action := range plan {
		if action.Kind == EnableUnit && a.Units[action.Subject].File == "masked" {
			s.call("systemd", number(action.Subject), action.Subject, "unmask")
		}
		if action.Kind == EnableUnit || action.Kind == DisableUnit {
			s.call("systemd", number(action.Subject), action.Subject, verbs[action.Kind])
		}
	}
	if reload || slices.ContainsFunc(plan, func(a Action) bool { return atBoot[a.Kind] }) {
		s.call("daemon_reload")
	}
	var settle []string // units that are looked at together, when all are done
	for _, u := range h.Units {
		for _, action := range plan {
			if action.Subject == u.Name && verbs[action.Kind] != "" && !atBoot[action.Kind] {
				if u.Before != "" && interrupts[action.Kind] {
					s.call("before", u.Name, string(action.Kind), u.Before)
				}
				s.call("systemd", number(u.Name), u.Name, verbs[action.Kind])
				if action.Kind == ReloadUnit && !u.AtOnce {
					s.call("reloaded", u.Name)
				}
			}
		}
		switch {
		case !loads[u.Name]:
		case u.Health != "":
			s.call("health", u.Name, strconv.Itoa(health(u)), u.Health)
		case u.After != "":
			s.call("settle", u.Name)
		default:
			settle = append(settle, u.Name)
		}
		if loads[u.Name] && u.After != "" {
			s.call("after", u.Name, string(loading(plan, u.Name)), u.After)
		}
	}
	if len(settle) > 0 {
		s.call("settle", settle...)
	}
	if guarded {
		s.call("confirm", strconv.Itoa(confirmTimeout))
	}
	for _, u := range h.Units {
		want := toLoad(u, h, texts)
		switch {
		case !u.Active || want == Loaded{"-", "-"}:
			if _, noted := a.Loaded[u.Name]; noted {
				s.call("forget", u.Name)
			}
		case a.Loaded[u.Name] != want:
			s.call("loaded", u.Name, want.Restart, want.Reload)
		}
	}
	for _, name := range sortedKeys(a.Loaded) {
		if !slices.ContainsFunc(h.Units, func(u desired.Unit) bool { return u.Name == name }) {
			s.call("forget", name)
		}
	}
	for _, name := range removedTrees {
		s.call("remove_tree", name, pathKey(name))
	}
	s.call("manifest", sortedKeys(h.Files)...)
	var released []string
	for _, name := range sortedKeys(a.Originals) {
		if _, wanted := h.Files[name]; !wanted {
			released = append(released, a.Originals[name])
		}
	}
	switch {
	case leaving:
		if len(a.Made) > 0 {
			s.call("unmake", a.Made...)
		}
		s.call("forget_originals")
	case len(released) > 0:
		s.call("release", released...)
	}
	s.call("finish")
	t.script = s.String()
	return t, nil
}

// verbs are the commands of systemctl for kinds of action. A unit that cannot
// reload is restarted instead.
var verbs = map[Kind]string{
	EnableUnit: "enable", DisableUnit: "disable", StopUnit: "stop",
	StartUnit: "restart", RestartUnit: "restart", ReloadUnit: "reload-or-restart", MaskUnit: "mask",
}

// atBoot are the kinds of action that change only what is started at boot.
var atBoot = map[Kind]bool{EnableUnit: true, DisableUnit: true, RetireUnit: true}

// interrupts are the actions that a unit which runs may want to prepare for.
var interrupts = map[Kind]bool{StopUnit: true, RestartUnit: true, ReloadUnit: true}

// loading is the action of a plan by which a unit loads its files.
func loading(plan []Action, unit string) Kind {
	for _, a := range plan {
		if a.Subject == unit && (a.Kind == StartUnit || a.Kind == RestartUnit || a.Kind == ReloadUnit) {
			return a.Kind
		}
	}
	return ""
}

// validation is the script that runs the checkers, or "" if there is nothing to check.
func (t *transaction) validation(h desired.Host, a *Actual, texts map[string]string, files []Action, touches func(desired.Unit) bool, loads map[string]bool) (string, error) {
	var units []desired.Unit
	for _, u := range h.Units {
		if u.Validate != "" && u.Active && (touches(u) || loads[u.Name]) {
			units = append(units, u)
		}
	}
	if len(units) == 0 {
		return "", nil
	}
	s := newScript()
	s.set("tx", t.dir)
	s.load("validate")
	for _, f := range files {
		s.call("layer", f.Subject)
	}
	s.call("assemble")
	for i, action := range files {
		f := h.Files[action.Subject]
		switch action.Kind {
		case WriteFile:
			mode, owner, group := attributes(f)
			s.call("place", strconv.Itoa(i), action.Subject, mode, owner, group)
		case MakeLink:
			s.call("place_link", action.Subject, f.Link)
		case RestoreFile:
			s.call("place_original", action.Subject, a.Originals[action.Subject])
		case RemoveFile:
			s.call("without", action.Subject)
		}
	}
	for _, u := range units {
		s.call("check", u.Name, u.Validate)
	}
	return s.String(), nil
}

// rollback is the script that takes the change back.
func (t *transaction) rollback(h desired.Host, a *Actual, plan, files []Action, reload bool, number func(string) string) string {
	s := newScript()
	s.set("tx", t.dir)
	s.load("rollback")
	for _, u := range h.Units {
		if slices.ContainsFunc(plan, func(a Action) bool { return a.Subject == u.Name && (a.Kind == HaltUnit || verbs[a.Kind] != "") }) {
			active := a.Units[u.Name].Active
			if a.Units[u.Name].Running() {
				active = "active"
			}
			s.call("was", number(u.Name), active, a.Units[u.Name].File)
		}
	}
	// In reverse, so that what depends on something stops before it.
	took := map[string]bool{}
	for _, name := range slices.Concat(foreign(h, a), free(h, a)) {
		took[name] = true
	}
	for _, action := range slices.Backward(plan) {
		if action.Kind == RetireUnit || action.Kind == HaltUnit || verbs[action.Kind] != "" {
			arguments := []string{number(action.Subject), action.Subject}
			if redefined(desired.Unit{Name: action.Subject}, took) {
				// What infractl's definition started, such as rules in the
				// kernel, only that definition can stop.
				arguments = append(arguments, "all")
			}
			s.call("halt", arguments...)
		}
	}
	// sshd looks for keys at each login, where the configuration that it has loaded
	// says: until it has loaded the one before, nobody could log in without them.
	isKey := func(path string) bool { return strings.HasPrefix(path, "/etc/ssh/authorized_keys.d/") }
	for i, action := range files {
		arguments := []string{strconv.Itoa(i), action.Subject}
		if isKey(action.Subject) {
			arguments = append(arguments, "yet")
		}
		s.call("restore", arguments...)
	}
	if reload {
		s.call("daemon_reload")
	}
	before := map[string]string{}
	for _, u := range h.Units {
		before[u.Name] = u.Before
	}
	for _, action := range plan {
		switch {
		case action.Kind == ReloadUnit:
			s.call("resume", number(action.Subject), action.Subject, "reload-or-restart", string(ReloadUnit), before[action.Subject])
		case action.Kind == HaltUnit && loading(plan, action.Subject) != "":
			// That says how it comes back.
		case action.Kind == RetireUnit, action.Kind == HaltUnit, action.Kind == StopUnit:
			s.call("resume", number(action.Subject), instances(action.Subject), "start")
		case action.Kind == StartUnit, action.Kind == RestartUnit:
			s.call("resume", number(action.Subject), action.Subject, "restart", string(RestartUnit), before[action.Subject])
		case verbs[action.Kind] != "":
			s.call("resume", number(action.Subject), action.Subject, "start")
		}
	}
	for _, u := range h.Units {
		if u.Health+u.After != "" && slices.ContainsFunc(plan, func(a Action) bool { return a.Subject == u.Name && verbs[a.Kind] != "" }) {
			kind := loading(plan, u.Name)
			if kind == "" {
				kind = StartUnit // it was stopped
			}
			s.call("verify", number(u.Name), u.Name, strconv.Itoa(health(u)), u.Health, string(kind), u.After)
		}
	}
	for i, action := range files {
		if isKey(action.Subject) {
			s.call("restore", strconv.Itoa(i), action.Subject)
		}
	}
	s.call("disown")
	s.call("over")
	return s.String()
}

// stage packs the new files, by number, and the scripts. The entry that says
// that it is complete comes last.
func stage(files []Action, texts map[string]string, validate, rollback string) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(name, text string) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(text)), Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		_, err := w.Write([]byte(text))
		return err
	}
	for i, action := range files {
		if action.Kind == WriteFile {
			if err := add(strconv.Itoa(i), texts[action.Subject]); err != nil {
				return nil, fmt.Errorf("packing %s: %w", action.Subject, err)
			}
		}
	}
	for _, f := range [][2]string{{"validate.sh", validate}, {"rollback.sh", rollback}, {"complete", ""}} {
		if err := add(f[0], f[1]); err != nil {
			return nil, fmt.Errorf("packing %s: %w", f[0], err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func health(u desired.Unit) int {
	if u.HealthTimeout == 0 {
		return healthTimeout
	}
	return u.HealthTimeout
}

// instances turns the name of a template into a pattern for its instances.
func instances(unit string) string {
	if t := template(unit); t == unit && t != "" {
		return unit[:len(unit)-len(path.Ext(unit))] + "*" + path.Ext(unit)
	}
	return unit
}

// pathKey is the name of a tree's marker, or of the copy of an original, on the host.
func pathKey(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:8])
}

func union(a, b []string) []string {
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	return slices.Compact(all)
}
