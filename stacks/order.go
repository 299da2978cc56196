package stacks

import "slices"

// turn are machines whose turn it is to be changed at the same time as far as
// nobody is missing them.
type turn struct {
	// standing are changed batch after batch.
	standing [][]Machine
	// fresh are new, so that nobody uses them until the tiers in front of them know
	// them: they wait for no machine of this turn.
	fresh []Machine
	// late are new load balancers: if the holder of the virtual IP does not know one
	// of them yet, that one hears nothing from the holder and takes the address. So
	// they wait for all that are standing.
	late []Machine
}

// turns is the order in which machines are changed. A machine takes its turn with
// the first of its tiers, and in a turn one goes first, to show that the change is
// good, then the others in batches. Two machines of one tier are never changed at
// the same time unless its MaxUnavailable allows it, whatever else is on them.
// fresh are the names of hosts that are new; holder has the virtual IP.
func turns(machines []Machine, tiers map[string]Tier, fresh map[string]bool, holder string) []turn {
	if !slices.ContainsFunc(machines, func(m Machine) bool { return !m.fresh(fresh) }) {
		return beginning(machines)
	}
	// Load balancers have an order of their own: as they are numbered, but the
	// holder after the others, and new ones last.
	var balancers []Machine
	rank := func(m Machine) (Host, int) {
		h, ok := m.host(TierLB)
		switch {
		case !ok:
			return h, -1
		case fresh[h.Name]:
			return h, 2
		case h.Name == holder:
			return h, 1
		}
		return h, 0
	}
	for _, m := range machines {
		if _, ok := m.host(TierLB); ok {
			balancers = append(balancers, m)
		}
	}
	slices.SortStableFunc(balancers, func(a, b Machine) int {
		x, i := rank(a)
		y, j := rank(b)
		if i != j {
			return i - j
		}
		return x.Index - y.Index
	})
	when := map[string]int{}
	for _, m := range machines {
		when[m.Name] = slices.Index(order, m.Hosts[0].Tier)
	}
	// So a machine with a load balancer has its turn no earlier than those before it
	// in that order. Only the database's cannot wait: its application needs it.
	latest := 0
	for _, m := range balancers {
		if _, database := m.host(TierDB); !database {
			when[m.Name] = max(when[m.Name], latest)
		}
		latest = max(latest, when[m.Name])
	}
	var out []turn
	for n := range order {
		var t turn
		var standing []Machine
		for _, m := range machines {
			if _, balancer := m.host(TierLB); when[m.Name] != n || balancer {
				continue
			}
			if m.fresh(fresh) {
				t.fresh = append(t.fresh, m)
			} else {
				standing = append(standing, m)
			}
		}
		for _, m := range balancers {
			switch {
			case when[m.Name] != n:
			case m.fresh(fresh):
				t.late = append(t.late, m)
			default:
				standing = append(standing, m)
			}
		}
		t.standing = batches(standing, tiers)
		out = append(out, t)
	}
	return out
}

// beginning is the order where all machines are new. Nobody is served yet who could
// notice, so all are set up at once but those with the application, which needs the
// database.
func beginning(machines []Machine) []turn {
	var first, then turn
	for _, m := range machines {
		_, application := m.host(TierApp)
		_, database := m.host(TierDB)
		if application && !database {
			then.fresh = append(then.fresh, m)
		} else {
			first.fresh = append(first.fresh, m)
		}
	}
	return []turn{first, then}
}

// fresh says whether all hosts on a machine are new.
func (m Machine) fresh(hosts map[string]bool) bool {
	return !slices.ContainsFunc(m.Hosts, func(h Host) bool { return !hosts[h.Name] })
}

// batches groups machines that may change together. The first goes alone, as the
// canary. A batch has at most MaxUnavailable hosts of a tier.
func batches(machines []Machine, tiers map[string]Tier) [][]Machine {
	var out [][]Machine
	hosts := map[string]int{} // in the last batch, by tier
	for i, m := range machines {
		full := i < 2 || slices.ContainsFunc(m.Hosts, func(h Host) bool { return hosts[h.Tier] >= tiers[h.Tier].MaxUnavailable })
		if full {
			out = append(out, nil)
			clear(hosts)
		}
		out[len(out)-1] = append(out[len(out)-1], m)
		for _, h := range m.Hosts {
			hosts[h.Tier]++
		}
	}
	return out
}
