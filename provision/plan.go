package provision

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"

	"github.com/infractl/infractl/provision/desired"
)

// Kind is what an Action does.
type Kind string

// The kinds of action, in the order in which they are carried out.
const (
	InstallPackage Kind = "install"
	AddUser        Kind = "add user"
	ChangeUser     Kind = "change user"
	UploadTree     Kind = "upload"
	RetireUnit     Kind = "retire" // stop and disable a unit whose file is removed
	HaltUnit       Kind = "halt"   // stop a unit while what it was started with is there
	WriteFile      Kind = "write"
	MakeLink       Kind = "link"
	RestoreFile    Kind = "restore" // put back what stood there before infractl
	RemoveFile     Kind = "remove"
	DaemonReload   Kind = "daemon-reload"
	EnableUnit     Kind = "enable"
	DisableUnit    Kind = "disable"
	StopUnit       Kind = "stop"
	StartUnit      Kind = "start"
	RestartUnit    Kind = "restart"
	ReloadUnit     Kind = "reload"
	MaskUnit       Kind = "mask"
	RemoveTree     Kind = "remove tree"
	Record         Kind = "record" // only infractl's own notes on the host change
)

// Action is one thing to do on a host.
type Action struct {
	Kind Kind
	// Subject is the package, user, path or unit.
	Subject string
	// Reason says why, where that is not plain.
	Reason string
	// Diff is a unified diff of a file's text, with placeholders for secrets.
	Diff string
}

// String is one line for people, without the diff.
func (a Action) String() string {
	s := strings.TrimSpace(string(a.Kind) + " " + a.Subject)
	if a.Reason != "" {
		s += " (" + a.Reason + ")"
	}
	return s
}

// systemUnits is where unit files of the administrator are.
const systemUnits = "/etc/systemd/system/"

// keepTrees is how many trees beside the desired one stay in a directory, to
// go back to.
const keepTrees = 2

// Plan lists what has to be done so that a becomes h, in order. It is empty if
// nothing has to be done. It fails if a placeholder of h cannot be filled in.
func Plan(h desired.Host, a *Actual) ([]Action, error) {
	return planChange(h, a, false)
}

// planChange is Plan, or with leaving the plan to give the host back: then h is
// what remains makes of what was desired.
func planChange(h desired.Host, a *Actual, leaving bool) ([]Action, error) {
	texts, err := renderAll(h, a.Interfaces)
	if err != nil {
		return nil, err
	}
	var plan []Action
	add := func(kind Kind, subject, reason string) {
		plan = append(plan, Action{Kind: kind, Subject: subject, Reason: reason})
	}

	for _, name := range h.Packages {
		if _, ok := a.Packages[name]; !ok {
			add(InstallPackage, name, "")
		}
	}
	installs := len(plan) > 0
	for _, u := range h.Users {
		actual, ok := a.Users[u.Name]
		switch {
		case !ok:
			add(AddUser, u.Name, "")
		case actual.Home != home(u):
			add(ChangeUser, u.Name, "its home is "+actual.Home)
		default:
			for _, g := range u.Groups {
				if !slices.Contains(actual.Groups, g) {
					add(ChangeUser, u.Name, "not a member of "+g)
					break
				}
			}
		}
	}
	for _, name := range sortedKeys(h.Trees) {
		if a.Trees[name].Digest != h.Trees[name].Digest {
			add(UploadTree, name, "")
		}
	}

	retired := map[string]bool{}
	// changed holds the paths whose change makes units load them again.
	changed := map[string]bool{}
	var files []Action
	for _, name := range sortedKeys(h.Files) {
		actual, exists := a.Files[name]
		action, differs := compare(name, h.Files[name], texts[name], actual, exists)
		if differs {
			if exists && actual.Kind != 'd' && !slices.Contains(a.Manifest, name) {
				action.Reason += "; it is not infractl's yet, and a copy is kept"
			}
			changed[name] = true
			files = append(files, action)
		}
	}
	for _, name := range leftovers(h, a) {
		changed[name] = true
		if unit := unitOf(name); unit != "" && unit == path.Base(name) && !wanted(h, unit) {
			add(RetireUnit, unit, "it is no longer part of this host")
			retired[unit] = true
		}
		action := Action{Kind: RemoveFile, Subject: name, Reason: "no longer part of this host"}
		if a.Originals[name] != "" {
			action = Action{Kind: RestoreFile, Subject: name, Reason: "no longer part of this host; what was there before comes back"}
		}
		files = append(files, action)
	}
	if leaving {
		for _, u := range h.Units {
			if !retired[u.Name] {
				plan = append(plan, planHalt(u, a, changed)...)
			}
		}
	}
	plan = append(plan, files...)

	stale := slices.ContainsFunc(h.Units, func(u desired.Unit) bool { return a.Units[u.Name].Stale })
	for name := range changed {
		stale = stale || strings.HasPrefix(name, systemUnits)
	}
	if stale {
		add(DaemonReload, "", "")
	}
	for _, u := range h.Units {
		if retired[u.Name] {
			continue
		}
		if leaving {
			plan = append(plan, planReturn(u, a, changed)...)
		} else {
			plan = append(plan, planUnit(u, h, texts, a, changed, installs)...)
		}
	}
	for _, name := range oldTrees(h, a) {
		add(RemoveTree, name, "old")
	}
	if len(plan) == 0 && (leaving && taken(a) || !leaving && !noted(h, texts, a)) {
		add(Record, "", "infractl's notes on the host are incomplete")
	}
	return plan, nil
}

// wanted says whether a unit, or an instance of it, is to run or to be enabled.
func wanted(h desired.Host, unit string) bool {
	return slices.ContainsFunc(h.Units, func(u desired.Unit) bool {
		return (u.Name == unit || template(u.Name) == unit) && (u.Enabled || u.Active)
	})
}

func home(u desired.User) string {
	if u.Home == "" {
		return "/nonexistent"
	}
	return u.Home
}

// attributes are a desired file's mode and owners, with their defaults.
func attributes(f desired.File) (mode, owner, group string) {
	mode, owner, group = f.Mode, f.Owner, f.Group
	if mode == "" {
		mode = "0644"
	}
	if owner == "" {
		owner = "root"
	}
	if group == "" {
		group = "root"
	}
	return mode, owner, group
}

// compare says whether a file differs, and what to do then. Whether the content
// is equal is decided by digest; the texts are for showing only.
func compare(name string, want desired.File, text string, actual File, exists bool) (Action, bool) {
	if want.Link != "" {
		if exists && actual.Kind == 'l' && actual.Link == want.Link {
			return Action{}, false
		}
		action := Action{Kind: MakeLink, Subject: name, Reason: "to " + want.Link}
		return action, true
	}
	mode, owner, group := attributes(want)
	action := Action{Kind: WriteFile, Subject: name}
	switch {
	case !exists:
		action.Reason = "it does not exist"
		action.Diff = udiff.Unified("/dev/null", name, "", want.Content)
	case actual.Kind != 'f':
		action.Reason = "it is not a regular file"
	case actual.SHA256 != digest(text):
		action.Reason = "its text differs"
		if actual.Known {
			action.Diff = udiff.Unified(name, name, actual.Content, want.Content)
		}
	case actual.Mode != mode || actual.Owner != owner || actual.Group != group:
		action.Reason = fmt.Sprintf("%s %s:%s instead of %s %s:%s", actual.Mode, actual.Owner, actual.Group, mode, owner, group)
	default:
		return Action{}, false
	}
	return action, true
}

// leftovers are the files that infractl wrote once, that are no longer desired
// and that still exist, or in whose places something stood before.
func leftovers(h desired.Host, a *Actual) []string {
	var names []string
	for _, name := range a.Manifest {
		actual := a.Files[name]
		goes := actual.Kind == 'f' || actual.Kind == 'l' || a.Originals[name] != ""
		if _, desired := h.Files[name]; goes && !desired && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// unitOf returns the unit that a unit file or a drop-in belongs to, or "".
func unitOf(name string) string {
	rest, ok := strings.CutPrefix(name, systemUnits)
	if !ok {
		return ""
	}
	unit, below, nested := strings.Cut(rest, "/")
	if nested {
		if strings.Contains(below, "/") || !strings.HasSuffix(unit, ".d") || !strings.HasSuffix(below, ".conf") {
			return ""
		}
		return strings.TrimSuffix(unit, ".d")
	}
	return unit
}

// template returns the name of the template that a unit is an instance of, or "".
func template(unit string) string {
	prefix, instance, ok := strings.Cut(unit, "@")
	if !ok {
		return ""
	}
	return prefix + "@" + path.Ext(instance)
}

// asksFor says which action a change of the file name asks the unit for:
// RestartUnit, ReloadUnit or none.
func asksFor(u desired.Unit, name string) Kind {
	matches := func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			return p == name || strings.HasSuffix(p, "/") && strings.HasPrefix(name, p)
		})
	}
	own := unitOf(name)
	switch {
	case own != "" && (own == u.Name || own == template(u.Name)), matches(u.RestartOn):
		return RestartUnit
	case matches(u.ReloadOn):
		return ReloadUnit
	}
	return ""
}

// toLoad are the digests of the files that a unit has loaded once it runs with h.
func toLoad(u desired.Unit, h desired.Host, texts map[string]string) Loaded {
	restart, reload := sha256.New(), sha256.New()
	some := map[Kind]bool{}
	for _, name := range sortedKeys(h.Files) {
		kind := asksFor(u, name)
		var to io.Writer
		switch kind {
		case RestartUnit:
			to = restart
		case ReloadUnit:
			to = reload
		default:
			continue
		}
		some[kind] = true
		f := h.Files[name]
		mode, owner, group := attributes(f)
		fmt.Fprintf(to, "%q %q %s %s %s %s\n", name, f.Link, mode, owner, group, digest(texts[name]))
	}
	l := Loaded{"-", "-"}
	if some[RestartUnit] {
		l.Restart = hex.EncodeToString(restart.Sum(nil))
	}
	if some[ReloadUnit] {
		l.Reload = hex.EncodeToString(reload.Sum(nil))
	}
	return l
}

// Pending says what a running unit still has to do, RestartUnit or ReloadUnit,
// because it has not loaded files that are on the host already: a run was
// interrupted between writing them and telling the unit. It is "" if nothing,
// or if files differ, whose change will tell the unit anyway.
func Pending(u desired.Unit, h desired.Host, a *Actual) Kind {
	texts, err := renderAll(h, a.Interfaces)
	if err != nil || !u.Active || !a.Units[u.Name].Running() {
		return ""
	}
	for name, f := range h.Files {
		actual, exists := a.Files[name]
		if _, differs := compare(name, f, texts[name], actual, exists); differs && asksFor(u, name) != "" {
			return ""
		}
	}
	return outdated(u, h, texts, a)
}

// outdated says what a unit has to do so that it has loaded the desired files,
// going by what it loaded last.
func outdated(u desired.Unit, h desired.Host, texts map[string]string, a *Actual) Kind {
	want, have := toLoad(u, h, texts), a.Loaded[u.Name]
	switch {
	case want.Restart != "-" && want.Restart != have.Restart:
		return RestartUnit
	case want.Reload != "-" && want.Reload != have.Reload:
		return ReloadUnit
	}
	return ""
}

func planUnit(u desired.Unit, h desired.Host, texts map[string]string, a *Actual, changed map[string]bool, installs bool) []Action {
	var plan []Action
	actual := a.Units[u.Name]
	add := func(kind Kind, reason string) {
		plan = append(plan, Action{Kind: kind, Subject: u.Name, Reason: reason})
	}
	if !u.Active && (actual.Running() || actual.Active == "activating") {
		add(StopUnit, "it must not run")
	}
	switch {
	case actual.Load == "not-found" && !u.Enabled && installs:
		// Debian's packages enable their units.
		add(DisableUnit, "its package may enable it")
	case actual.Fixed():
	case u.Enabled && !actual.Enabled():
		add(EnableUnit, "")
	case !u.Enabled && actual.Enabled():
		add(DisableUnit, "")
	}
	if !u.Active {
		return plan
	}
	if !actual.Running() {
		reason := "it does not run"
		if actual.Active == "failed" {
			reason = "it has failed"
		}
		add(StartUnit, reason)
		return plan
	}
	var restart, reload []string
	for _, name := range sortedKeys(changed) {
		switch asksFor(u, name) {
		case RestartUnit:
			restart = append(restart, name)
		case ReloadUnit:
			reload = append(reload, name)
		}
	}
	pending := outdated(u, h, texts, a)
	switch {
	case len(restart) > 0:
		add(RestartUnit, strings.Join(restart, ", ")+" changed")
	case pending == RestartUnit:
		add(RestartUnit, "it has not loaded its files yet")
	case len(reload) > 0:
		add(ReloadUnit, strings.Join(reload, ", ")+" changed")
	case pending == ReloadUnit:
		add(ReloadUnit, "it has not loaded its files yet")
	}
	return plan
}

// oldTrees are uploaded trees that nothing needs: of those beside a desired
// tree all but the newest two, and all where no tree is desired any more. What
// a link points to stays.
func oldTrees(h desired.Host, a *Actual) []string {
	linked := map[string]bool{}
	for name, f := range a.Files {
		if _, ours := h.Files[name]; !ours && f.Kind == 'l' {
			linked[path.Join(path.Dir(name), f.Link)] = true
			linked[f.Link] = true
		}
	}
	for name, f := range h.Files {
		if f.Link != "" {
			linked[path.Join(path.Dir(name), f.Link)] = true
			linked[f.Link] = true
		}
	}
	// A link that is removed in the same change needs its target no more.
	for _, name := range leftovers(h, a) {
		delete(linked, a.Files[name].Link)
	}
	byParent := map[string][]string{}
	for name := range a.Trees {
		if _, ours := h.Trees[name]; !ours && !linked[name] {
			byParent[path.Dir(name)] = append(byParent[path.Dir(name)], name)
		}
	}
	var old []string
	for parent, names := range byParent {
		slices.SortFunc(names, func(x, y string) int {
			if c := a.Trees[y].Uploaded.Compare(a.Trees[x].Uploaded); c != 0 {
				return c
			}
			return strings.Compare(x, y)
		})
		keep := 0
		for name := range h.Trees {
			if path.Dir(name) == parent {
				keep = keepTrees
			}
		}
		old = append(old, names[min(keep, len(names)):]...)
	}
	slices.Sort(old)
	return old
}

// noted says whether the notes on the host are complete.
func noted(h desired.Host, texts map[string]string, a *Actual) bool {
	for name := range h.Files {
		if !slices.Contains(a.Manifest, name) {
			return false
		}
	}
	for _, u := range h.Units {
		if u.Active && toLoad(u, h, texts) != (Loaded{"-", "-"}) && a.Loaded[u.Name] != toLoad(u, h, texts) {
			return false
		}
	}
	return true
}
