package engine

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/infractl/infractl/stacks"
)

// clockSlack is how far an object's time of creation may lie before the
// beginning of the run that made it: the cloud tells whole seconds.
const clockSlack = 2 * time.Second

// holderTime is how long load balancers are asked who has the virtual IP; knowing
// it only saves a hand-over.
const holderTime = 5 * time.Second

// settlement is what has to be done about a run that was cut off, before the
// next one: the state and the cloud must agree on what there is.
type settlement struct {
	// remove are objects that the last run made and that never got into the
	// state. They were never configured, so that they hold nothing.
	remove []object
	// gone are resources of the state that are no longer in the cloud.
	gone []record
	// stray are objects with the environment's labels that nobody knows. They
	// are reported, and left alone.
	stray []object
	// pending are operations of the state that were cut off.
	pending []pendingOperation
}

func (s settlement) nothing() bool {
	return len(s.remove) == 0 && len(s.gone) == 0 && len(s.pending) == 0
}

// plan compares the state with the cloud. since is when the last run began if
// it did not end well, else the zero time. exists confirms that something
// which is not listed is really gone, since labels can be taken off by hand.
func plan(st *state, inv inventory, since time.Time, exists func(kind, id string) (bool, error)) (settlement, error) {
	var s settlement
	known := map[string]bool{} // kind and ID
	for _, r := range st.resources() {
		if nouns[r.Type] == "" || r.ID == "" {
			continue
		}
		known[r.Type+" "+r.ID] = true
		if _, ok := inv.find(r.Type, r.ID); ok {
			continue
		}
		there, err := exists(r.Type, r.ID)
		if err != nil {
			return s, err
		}
		if !there {
			s.gone = append(s.gone, r)
		}
	}
	networks := map[string]bool{}
	for _, r := range st.resources() {
		if r.Type == typeNetwork {
			networks[r.ID] = true
		}
	}
	s.pending = st.pending()
	begun := map[string]bool{} // kind and name
	for _, p := range s.pending {
		if p.kind != "creating" {
			continue
		}
		begun[p.Type+" "+pendingName(p)] = true
	}
	for _, o := range inv.objects {
		if known[o.kind+" "+o.id] {
			continue
		}
		if o.kind == typeSubnet {
			// A subnet has neither labels nor a time. It is this environment's if
			// its network is; one with servers in it is in use, whoever made it.
			network, _, _ := strings.Cut(o.id, "-")
			if !networks[network] {
				continue // goes with its network, or stays with it
			}
			if (begun[o.kind+" "+o.name] || !since.IsZero()) && inv.attached[o.id] == 0 {
				s.remove = append(s.remove, o)
			} else {
				s.stray = append(s.stray, o)
			}
			continue
		}
		recent := !since.IsZero() && !o.created.Before(since.Add(-clockSlack))
		if begun[o.kind+" "+o.name] || recent {
			s.remove = append(s.remove, o)
		} else {
			s.stray = append(s.stray, o)
		}
	}
	order := map[string]int{}
	for i, k := range deletionOrder {
		order[k] = i
	}
	sort.SliceStable(s.remove, func(i, j int) bool { return order[s.remove[i].kind] < order[s.remove[j].kind] })
	return s, nil
}

// pendingName is the name in the cloud of what was being made.
func pendingName(p pendingOperation) string {
	if p.Type == typeSubnet {
		return text(p.Inputs["ipRange"])
	}
	return text(p.Inputs["name"])
}

// lost says whether the state and the cloud have nothing in common, which is
// more likely another project's token than an accident.
func lost(st *state, s settlement) bool {
	total := 0
	for _, r := range st.resources() {
		if nouns[r.Type] != "" && r.ID != "" {
			total++
		}
	}
	return total > 0 && len(s.gone) == total
}

func (e *Engine) lostError(s settlement) error {
	return fail(Invalid, "Use the token of the project that it is in. If everything was deleted by hand, run: infractl destroy --forget --env "+e.Environment,
		"nothing of %s is in the cloud project that HCLOUD_TOKEN belongs to, but the state knows %d objects", e.Environment, len(s.gone))
}

// settleForDestroy makes the state and the cloud agree before everything is
// deleted: what is gone is no loss then. If everything is, forget has to say
// that it is meant.
func (e *Engine) settleForDestroy(ctx context.Context, forget bool) error {
	s, err := e.compare(ctx)
	if err != nil {
		return err
	}
	if lost(e.state, s) && !forget {
		return e.lostError(s)
	}
	return e.carryOut(ctx, s)
}

// compare plans the settlement with the last run's journal.
func (e *Engine) compare(ctx context.Context) (settlement, error) {
	last, err := e.journal.read()
	if err != nil {
		return settlement{}, err
	}
	var since time.Time
	if last != nil && last.Endpoint == e.cloud.endpoint {
		since = last.Since
	}
	return plan(e.state, e.inventory, since, func(kind, id string) (bool, error) {
		return e.cloud.exists(ctx, kind, id)
	})
}

// carryOut makes the state and the cloud agree.
func (e *Engine) carryOut(ctx context.Context, s settlement) error {
	if s.nothing() {
		return nil
	}
	if len(s.pending) > 0 || len(s.remove) > 0 {
		e.say("the last run was cut off; clearing up before going on")
	}
	for _, o := range s.remove {
		e.say("deleting %s: the last run made it, but could not keep track of it", o)
		if err := e.cloud.remove(ctx, o); err != nil {
			return err
		}
	}
	drop := map[string]bool{}
	for _, r := range s.gone {
		e.say("%s %s is gone from the cloud; forgetting it, so that it is made again", nouns[r.Type], r.name())
		drop[r.URN] = true
	}
	e.state.drop(drop)
	e.state.clearPending()
	if len(drop) > 0 || len(s.pending) > 0 {
		return e.importState(ctx)
	}
	return nil
}

// refuseLostData fails if a database host is gone and nobody said that an
// empty one is wanted in its place.
func refuseLostData(gone []record, recreate []string) error {
	named := map[string]bool{}
	for _, r := range recreate {
		named[r] = true
	}
	for _, r := range gone {
		if r.Type == typeServer && r.Protect && !named[r.name()] {
			return fail(Invalid, fmt.Sprintf("To make a new and empty one, name it: --recreate %s", r.name()),
				"database host %s (server %s) is gone from the cloud, and its data with it", r.name(), r.ID)
		}
	}
	return nil
}

// newHosts are the short names of hosts that the state has no configuration of.
func (e *Engine) newHosts() map[string]bool {
	configured := map[string]bool{}
	for _, r := range e.state.resources() {
		if r.Type == typeConfiguration {
			configured[r.name()] = true
		}
	}
	fresh := map[string]bool{}
	for _, h := range e.Spec.Hosts() {
		if !configured[h.Name] {
			fresh[h.Name] = true
		}
	}
	return fresh
}

// vipHolder is the short name of the load balancer that holds the virtual IP.
func (e *Engine) vipHolder() string {
	return strings.TrimPrefix(e.inventory.vipHolder, e.Environment+"-")
}

// holderNow is the same in the moment in which it is asked.
func (e *Engine) holderNow() string {
	if e.Spec.Tiers[stacks.TierLB].Target == stacks.TargetCloud {
		return e.vipHolder()
	}
	outputs := e.Recorded()
	if outputs == nil || e.settings.Holder == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), holderTime)
	defer cancel()
	return e.settings.Holder(ctx, outputs)
}

// refuseResize fails if a host of the state has another server type than the
// configuration: the change powers the host off, and all of a tier at once.
func refuseResize(st *state, spec stacks.Environment, resize []string) error {
	named := map[string]bool{}
	for _, r := range resize {
		named[r] = true
	}
	for _, r := range st.resources() {
		if r.Type != typeServer || named[r.name()] {
			continue
		}
		tier, _, _ := strings.Cut(r.name(), "-")
		t, ok := spec.Tiers[tier]
		if is := text(r.Outputs["serverType"]); ok && is != "" && is != t.Type {
			return fail(Invalid, fmt.Sprintf("Put %s back, or name one host at a time: --resize %s", is, r.name()),
				"infractl:tiers.%s.type: is %s, but %s is a %s; changing it powers the host off for a minute or more", tier, t.Type, r.name(), is)
		}
	}
	return nil
}
