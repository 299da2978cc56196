package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/lease"
	"github.com/infractl/infractl/cmd/infractl/internal/process"
	"github.com/infractl/infractl/cmd/infractl/internal/runlog"
)

// Holding is who keeps others from changing an environment.
type Holding struct {
	lease  *lease.State
	pulumi []lock
	// unknown says that Pulumi may have a lock where infractl cannot look.
	unknown bool
}

// LookAtLock says who holds the environment's lock, and Pulumi's.
func (e *Engine) LookAtLock() (Holding, error) {
	l := Holding{unknown: e.locks == nil}
	var err error
	if l.lease, err = lease.Look(e.hold.place); err != nil {
		return l, err
	}
	l.pulumi, err = e.locks.read()
	return l, err
}

// Holders are sentences about who holds the locks; there are none if nobody does.
func (l Holding) Holders() []string {
	var out []string
	if l.lease != nil {
		text := fmt.Sprintf("the lock is held by %s; renewed %s", (&lease.HeldError{State: *l.lease}).Error(), l.lease.RenewedAt.Local().Format("15:04:05"))
		switch {
		case l.lease.Process.Gone():
			text += "; the process is no longer running, so the next run takes the lock over"
		case l.lease.Process.Here():
			text += "; the process is running on this computer, and stops after its current step if the lock is removed"
		}
		out = append(out, text)
	}
	for _, k := range l.pulumi {
		out = append(out, "Pulumi's own lock is held by "+k.String())
	}
	if l.unknown {
		out = append(out, "Pulumi's own lock is where infractl cannot look; it is removed all the same")
	}
	return out
}

// Unlock takes the locks away from those who were looked at, and records it.
func (e *Engine) Unlock(ctx context.Context, l Holding) error {
	now := time.Now()
	by := lease.Holder{ID: runlog.NewID(now), Owner: who(), Command: "unlock", Process: process.Self(), Since: now}
	if err := e.record(ctx, by.Command, by.ID); err != nil {
		return err
	}
	if l.lease != nil {
		if err := lease.Remove(e.hold.place, *l.lease, by); err != nil {
			return fmt.Errorf("cannot remove the environment's lock: %w", err)
		}
	}
	if !l.unknown {
		return e.locks.remove(l.pulumi)
	}
	if _, errText, _, err := e.run(ctx, "cancel", "--yes", "--stack", e.Environment); err != nil {
		return explainCLI(fmt.Errorf("cannot remove Pulumi's lock: %w", cliError(err, errText)))
	}
	return nil
}

// History is the record of an environment.
type History struct {
	Environment string
	// Runs are the newest first.
	Runs []runlog.Entry
	// Unreadable counts lines of the record that cannot be read.
	Unreadable int
}

// ReadHistory reads what was done to an environment. It needs neither Pulumi
// nor the cloud.
func ReadHistory(dir, environment string) (History, error) {
	var h History
	p, err := FindProject(dir)
	if err != nil {
		return h, err
	}
	if h.Environment, err = p.Choose(environment); err != nil {
		return h, err
	}
	if err := LoadVariables(p, h.Environment); err != nil {
		return h, err
	}
	place := besideState(backend(p), p, h.Environment)
	runs, unreadable, err := runlog.In(place).Read()
	if err != nil {
		return h, err
	}
	holder, err := lease.Look(place)
	if err != nil {
		return h, err
	}
	for i, r := range runs {
		current := holder != nil && holder.ID == r.ID && !holder.Process.Gone()
		if r.Outcome == runlog.Running && !current {
			runs[i].Outcome = runlog.Killed
		}
	}
	slices.Reverse(runs)
	h.Runs, h.Unreadable = runs, unreadable
	return h, nil
}
