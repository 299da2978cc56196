package health

import (
	"context"

	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/provision/desired"
)

// drift looks for everything on a host that is not as h wants it.
func drift(ctx context.Context, conn *provision.Conn, h desired.Host) (*Drift, error) {
	actual, err := conn.Inspect(ctx, h)
	if err != nil {
		return nil, err
	}
	plan, err := provision.Plan(h, actual)
	if err != nil {
		return nil, err
	}
	return driftOf(plan), nil
}

// driftOf sorts what would have to be done. What follows from a changed file,
// and infractl's own notes and leftovers, do not count.
func driftOf(plan []provision.Action) *Drift {
	d := &Drift{Files: []string{}, Other: []string{}}
	var follows []string
	for _, a := range plan {
		switch a.Kind {
		case provision.WriteFile, provision.MakeLink, provision.RemoveFile:
			d.Files = append(d.Files, a.Subject)
		case provision.DaemonReload, provision.RestartUnit, provision.ReloadUnit:
			follows = append(follows, a.String())
		case provision.RemoveTree, provision.Record:
		default:
			d.Other = append(d.Other, a.String())
		}
	}
	if len(d.Files) == 0 {
		// A run that was cut off can leave files that their unit has not loaded.
		d.Other = append(d.Other, follows...)
	}
	return d
}
