package fleet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/infractl/infractl/stacks"
)

// Select returns the hosts that are in one of the tiers or have one of the
// names, each once and in the fleet's order.
func (f *Fleet) Select(tiers, names []string) ([]Host, error) {
	chosen := map[string]bool{}
	for _, tier := range tiers {
		if !slices.Contains(stacks.TierNames(), tier) {
			return nil, fmt.Errorf("there is no tier %q; there are %s", tier, strings.Join(stacks.TierNames(), ", "))
		}
		for _, h := range f.Tier(tier) {
			chosen[h.Name] = true
		}
	}
	for _, name := range names {
		h, err := f.Host(name)
		if err != nil {
			return nil, err
		}
		chosen[h.Name] = true
	}
	var out []Host
	for _, h := range f.Hosts {
		if chosen[h.Name] {
			out = append(out, h)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there is no host in tier %s", strings.Join(tiers, ", "))
	}
	return out, nil
}
