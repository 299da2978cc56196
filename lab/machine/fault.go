package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"
)

// Scope says which of the lab's networks a fault is in.
type Scope string

// Public is the public network, Private all private ones.
const (
	Both    Scope = "both"
	Public  Scope = "public"
	Private Scope = "private"
)

func (s Scope) check() error {
	switch s {
	case Both, Public, Private:
		return nil
	}
	return fmt.Errorf("%q is no scope of a fault: it is public, private or both", s)
}

// Cut is a one-way cut: packets from one server to the other vanish.
type Cut struct {
	From  int64 `json:"from"`
	To    int64 `json:"to"`
	Scope Scope `json:"scope"`
}

// Isolation cuts a server from everything.
type Isolation struct {
	Server int64 `json:"server"`
	Scope  Scope `json:"scope"`
}

// faults are the faults in force, but for frozen machines, which the kernel knows of.
type faults struct {
	Cuts       []Cut       `json:"cuts"`
	Isolations []Isolation `json:"isolations"`
}

// forget drops what is about a server.
func (x *faults) forget(id int64) {
	x.Cuts = slices.DeleteFunc(x.Cuts, func(c Cut) bool { return c.From == id || c.To == id })
	x.Isolations = slices.DeleteFunc(x.Isolations, func(i Isolation) bool { return i.Server == id })
}

// faultRules turns faults into rules for the public router or for private ones.
// The caller holds f.mu.
func (f *Fleet) faultRules(public bool) routerRules {
	in := func(s Scope) bool { return s == Both || public == (s == Public) }
	var rules routerRules
	for _, i := range f.faults.Isolations {
		if in(i.Scope) {
			rules.Dead = append(rules.Dead, `"`+portName(i.Server)+`"`)
		}
	}
	for id := range f.machines {
		// The kernel would go on to acknowledge for a frozen machine.
		if f.group(id).event("frozen") {
			rules.Dead = append(rules.Dead, `"`+portName(id)+`"`)
		}
	}
	for _, c := range f.faults.Cuts {
		if in(c.Scope) {
			rules.Cuts = append(rules.Cuts, fmt.Sprintf("%q . %q", portName(c.From), portName(c.To)))
		}
	}
	slices.Sort(rules.Dead)
	rules.Dead = slices.Compact(rules.Dead)
	slices.Sort(rules.Cuts)
	rules.Cuts = slices.Compact(rules.Cuts)
	return rules
}

// Cut makes packets from one server to another vanish, in that direction only.
func (f *Fleet) Cut(ctx context.Context, c Cut) error {
	if err := c.Scope.check(); err != nil {
		return err
	}
	from, err := f.find(c.From)
	if err != nil {
		return err
	}
	to, err := f.find(c.To)
	if err != nil {
		return err
	}
	switch {
	case c.From == c.To:
		return errors.New("a server cannot be cut from itself: name two servers")
	case from.Plain != to.Plain:
		return errors.New("a machine on the wire and a server of the cloud share no network to be cut in: isolate one of them")
	}
	f.mu.Lock()
	if !slices.Contains(f.faults.Cuts, c) {
		f.faults.Cuts = append(f.faults.Cuts, c)
	}
	f.mu.Unlock()
	return f.applyFaults(ctx)
}

// Isolate makes all packets from and to a server vanish.
func (f *Fleet) Isolate(ctx context.Context, i Isolation) error {
	if err := i.Scope.check(); err != nil {
		return err
	}
	if _, err := f.find(i.Server); err != nil {
		return err
	}
	f.mu.Lock()
	if !slices.Contains(f.faults.Isolations, i) {
		f.faults.Isolations = append(f.faults.Isolations, i)
	}
	f.mu.Unlock()
	return f.applyFaults(ctx)
}

// Freeze stops a running server as if its host had halted: it does nothing
// more, and packets to it vanish. Thaw lets it go on.
func (f *Fleet) Freeze(ctx context.Context, id int64) error {
	m, err := f.find(id)
	if err != nil {
		return err
	}
	m.op.Lock()
	defer m.op.Unlock()
	if !f.running(id) {
		return fmt.Errorf("server %s is off and cannot be frozen: power it on", m.Server.Name)
	}
	if err := f.group(id).freeze(ctx, true); err != nil {
		return fmt.Errorf("freeze server %s: %w", m.Server.Name, err)
	}
	return f.applyFaults(ctx)
}

// Thaw lets a frozen server go on.
func (f *Fleet) Thaw(ctx context.Context, id int64) error {
	m, err := f.find(id)
	if err != nil {
		return err
	}
	m.op.Lock()
	defer m.op.Unlock()
	if f.running(id) {
		if err := f.group(id).freeze(ctx, false); err != nil {
			return fmt.Errorf("thaw server %s: %w", m.Server.Name, err)
		}
	}
	return f.applyFaults(ctx)
}

// Kill ends a server at once, as when its host loses power. The API learns of
// it when it asks.
func (f *Fleet) Kill(ctx context.Context, id int64) error { return f.Stop(ctx, id, false) }

// Heal ends all cuts and isolations and thaws all frozen servers. Killed ones stay off.
func (f *Fleet) Heal(ctx context.Context) error {
	f.mu.Lock()
	f.faults = faults{}
	var ids []int64
	for id := range f.machines {
		ids = append(ids, id)
	}
	f.mu.Unlock()
	var errs []error
	for _, id := range ids {
		if f.group(id).event("frozen") {
			errs = append(errs, f.Thaw(ctx, id))
		}
	}
	return errors.Join(append(errs, f.applyFaults(ctx))...)
}

// FaultList is the faults in force.
type FaultList struct {
	Cuts       []Cut       `json:"cuts"`
	Isolations []Isolation `json:"isolations"`
	Frozen     []int64     `json:"frozen"`
}

// Faults returns the faults in force.
func (f *Fleet) Faults() FaultList {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := FaultList{
		Cuts:       append([]Cut{}, f.faults.Cuts...),
		Isolations: append([]Isolation{}, f.faults.Isolations...),
		Frozen:     []int64{},
	}
	for id := range f.machines {
		if f.group(id).event("frozen") {
			list.Frozen = append(list.Frozen, id)
		}
	}
	slices.Sort(list.Frozen)
	return list
}

// applyFaults writes the faults down and loads the rules of all routers.
func (f *Fleet) applyFaults(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	f.mu.Lock()
	err := saveJSON(filepath.Join(f.cfg.Dir, "faults.json"), f.faults)
	networks := map[int64]bool{}
	for _, m := range f.machines {
		for _, a := range m.Attachments {
			networks[a.Network] = true
		}
	}
	f.mu.Unlock()
	if err != nil {
		return err
	}
	errs := []error{f.loadRouterRules(ctx), f.loadWireRules(ctx)}
	for network := range networks {
		router, err := openNamespace(networkNamespace(network))
		if errors.Is(err, fs.ErrNotExist) {
			continue // made, with the rules, when its first machine starts
		}
		if err == nil {
			err = f.loadNetworkRules(ctx, network, router)
			router.Close()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
