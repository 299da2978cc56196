package engine

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/stacks"
)

// Member is a host that infractl has configured, with the way to it that
// worked last.
type Member struct {
	fleet.Host
	// Fleet is the host alone: hosts may differ in how they are reached while a
	// change of that is under way.
	Fleet *fleet.Fleet
	// HoldsVIP says that the virtual IP was assigned to it when the cloud was asked last.
	HoldsVIP bool
}

// Members are all hosts that infractl has configured, load balancers first, by
// the state: also those that the configuration no longer has. A server on which
// nothing was configured yet is none of them; nobody uses it.
func (e *Engine) Members() []Member {
	out := members(e.state)
	for i := range out {
		out[i].HoldsVIP = out[i].Name == e.vipHolder()
	}
	return out
}

func members(st *state) []Member {
	names := map[string]string{}
	for _, r := range st.resources() {
		if r.Type == typeServer {
			names[r.name()] = text(r.Outputs["name"])
		}
	}
	var out []Member
	for _, r := range st.resources() {
		if r.Type != typeConfiguration || r.Replaced {
			continue
		}
		m := Member{Host: fleet.Host{
			Name: r.name(), Server: names[r.name()],
			Public: text(r.Outputs["address"]), HostKey: text(r.Outputs["hostKey"]),
		}}
		m.Own, _ = r.Outputs["own"].(bool)
		m.Jump = text(r.Outputs["jump"])
		m.Tier, m.Index = place(m.Name)
		if m.Public == "" || m.HostKey == "" && !m.Own {
			continue // it was never reached
		}
		port := 0
		if n, ok := r.Outputs["port"].(json.Number); ok {
			port, _ = strconv.Atoi(n.String()) // 0 is the usual one
		}
		if m.Own {
			m.User, m.Port = text(r.Outputs["user"]), port
		}
		m.Fleet = &fleet.Fleet{Hosts: []fleet.Host{m.Host}, User: text(r.Outputs["user"]), Port: port}
		out = append(out, m)
	}
	slices.SortStableFunc(out, func(a, b Member) int {
		if a.Tier != b.Tier {
			return slices.Index(stacks.TierNames(), a.Tier) - slices.Index(stacks.TierNames(), b.Tier)
		}
		return a.Index - b.Index
	})
	return out
}

// Servers are the short names of the servers that there are, by tier, in order.
func (e *Engine) Servers() map[string][]string {
	out := map[string][]string{}
	if e.state == nil {
		return out
	}
	for _, r := range e.state.resources() {
		if r.Type == typeServer {
			tier, _ := place(r.name())
			out[tier] = append(out[tier], r.name())
		}
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b string) int {
			_, i := place(a)
			_, j := place(b)
			return i - j
		})
	}
	return out
}

// place is the tier of a host's short name, and its index in it.
func place(name string) (tier string, index int) {
	tier, number, _ := strings.Cut(name, "-")
	index, _ = strconv.Atoi(number)
	return tier, index
}
