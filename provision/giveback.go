package provision

import (
	"context"
	"slices"
	"strings"

	"github.com/infractl/infractl/provision/desired"
)

// Remove gives a host back: what h put there goes, what stood in its places
// before comes back, and units are as they were found. Packages, users and data
// stay. The way to the host is given back too, as a guarded change: unless a new
// connection gets in by it, everything is as h wants it again, and the error is
// ErrUnconfirmed.
//
// A host of which nothing is infractl's is left alone, so that Remove can be
// repeated, also after it was interrupted.
func (c *Conn) Remove(ctx context.Context, h desired.Host, o Options) (Result, error) {
	return c.change(ctx, desired.Host{Units: h.Units, Values: h.Values, Secrets: h.Secrets}, o, true)
}

// taken says whether anything on the host is infractl's.
func taken(a *Actual) bool {
	return len(a.Manifest) > 0
}

// touchedBefore are units that infractl has changed on the host once, and that
// h does not name any more.
func touchedBefore(h desired.Host, a *Actual) []desired.Unit {
	var others []desired.Unit
	for _, name := range sortedKeys(a.Found) {
		if !slices.ContainsFunc(h.Units, func(u desired.Unit) bool { return u.Name == name }) {
			others = append(others, desired.Unit{Name: name})
		}
	}
	return others
}

// remains is what is left of h on a host that is given back: units as they were
// found, in the opposite order. Where that is not known, those that are the way to
// the host or parts of Debian that run anyway stay up, and others are stopped.
func remains(h desired.Host, a *Actual) desired.Host {
	rest := desired.Host{Values: h.Values, Secrets: h.Secrets}
	for _, u := range slices.Backward(h.Units) {
		u.Health, u.AtOnce, u.Before, u.After = "", false, "", ""
		if !u.Guarded {
			// What was there before is as good as it was.
			u.Validate = ""
		}
		was, noted := a.Found[u.Name]
		switch {
		case noted:
			unit := Unit{Active: was.Active, File: was.File}
			u.Active, u.Enabled = unit.Running(), unit.Enabled()
		case !u.Guarded && !system(u.Name):
			u.Active, u.Enabled = false, false
		}
		rest.Units = append(rest.Units, u)
	}
	return rest
}

// system says whether a unit is a part of Debian that runs on every host.
func system(unit string) bool {
	return strings.HasPrefix(unit, "systemd-") || strings.HasPrefix(unit, "apt-")
}

// redefined says whether a unit's own unit file or drop-ins change.
func redefined(u desired.Unit, changed map[string]bool) bool {
	for name := range changed {
		if own := unitOf(name); own != "" && (own == u.Name || own == template(u.Name)) {
			return true
		}
	}
	return false
}

// planHalt stops a unit before its files go, since how it is stopped may be said
// in them: one that did not run before infractl, and one that is to be started
// with a definition of its own again.
func planHalt(u desired.Unit, a *Actual, changed map[string]bool) []Action {
	actual := a.Units[u.Name]
	if !actual.Running() && actual.Active != "activating" {
		return nil
	}
	switch _, noted := a.Found[u.Name]; {
	case !u.Active && noted:
		return []Action{{Kind: HaltUnit, Subject: u.Name, Reason: "it did not run before"}}
	case !u.Active:
		return []Action{{Kind: HaltUnit, Subject: u.Name, Reason: "it must not run"}}
	case redefined(u, changed):
		return []Action{{Kind: HaltUnit, Subject: u.Name, Reason: "its previous definition comes back"}}
	}
	return nil
}

// planReturn makes a unit as it was found, once its files are as they were.
func planReturn(u desired.Unit, a *Actual, changed map[string]bool) []Action {
	var plan []Action
	add := func(kind Kind, reason string) {
		plan = append(plan, Action{Kind: kind, Subject: u.Name, Reason: reason})
	}
	actual := a.Units[u.Name]
	switch {
	case actual.Fixed(), actual.File == "masked":
	case u.Enabled && !actual.Enabled():
		add(EnableUnit, "")
	case !u.Enabled && actual.Enabled():
		add(DisableUnit, "")
	}
	if u.Active {
		if !actual.Running() || redefined(u, changed) {
			add(StartUnit, "it is to run as before")
		} else if kind, why := unloads(u, a, changed); kind != "" {
			add(kind, why)
		}
	}
	// Last, since nothing else can be done to a masked unit.
	if a.Found[u.Name].File == "masked" && actual.File != "masked" {
		add(MaskUnit, "it was masked before")
	}
	return plan
}

// unloads says what makes a unit that runs drop infractl's files: RestartUnit,
// ReloadUnit or nothing.
func unloads(u desired.Unit, a *Actual, changed map[string]bool) (kind Kind, why string) {
	var names []string
	for _, name := range sortedKeys(changed) {
		asked := asksFor(u, name)
		if asked != "" {
			names = append(names, name)
		}
		if asked == RestartUnit || kind == "" {
			kind = asked
		}
	}
	if kind != "" {
		return kind, strings.Join(names, ", ") + " changed"
	}
	// Files that an interrupted run has removed already are in no list any more.
	switch l, noted := a.Loaded[u.Name]; {
	case noted && l.Restart != "-":
		return RestartUnit, "what it has loaded is gone"
	case noted:
		return ReloadUnit, "what it has loaded is gone"
	}
	return "", ""
}

// waysBack are the ways to a host that is given back: the one by which it is
// reached now, and the port that sshd listens on unless it is told otherwise.
func waysBack(now Target) []Target {
	if now.Port == 0 || now.Port == 22 {
		return []Target{now}
	}
	usual := now
	usual.Port = 22
	return []Target{now, usual}
}
