// Package scaling reads what a user wants of the tiers' sizes, and plans it:
// which hosts come and which go.
package scaling

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/infractl/infractl/stacks"
)

// Change is what a user wants of one tier.
type Change struct {
	Tier string
	// Relative says that N is added to the count that the configuration has.
	Relative bool
	N        int
}

// count is a number with or without a sign. How large it may be is for the
// environment's specification to say.
var count = regexp.MustCompile(`^[+-]?[0-9]{1,9}$`)

// Parse reads arguments such as web=4, app=+2 and lb=-1.
func Parse(args []string) ([]Change, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("say which tier should have how many hosts: web=4, app=+2 or lb=-1; the tiers are %s", tiers())
	}
	var out []Change
	for _, arg := range args {
		tier, n, ok := strings.Cut(arg, "=")
		if !slices.Contains(stacks.TierNames(), tier) {
			return nil, fmt.Errorf("%q: there is no tier %q; the tiers are %s", arg, tier, tiers())
		}
		if !ok || !count.MatchString(n) {
			return nil, fmt.Errorf("%q does not say how many hosts: write %s=4, or %s=+1 and %s=-1 for more and fewer than there are", arg, tier, tier, tier)
		}
		if slices.ContainsFunc(out, func(c Change) bool { return c.Tier == tier }) {
			return nil, fmt.Errorf("%q: tier %s stands there twice", arg, tier)
		}
		c := Change{Tier: tier, Relative: n[0] == '+' || n[0] == '-'}
		var err error
		if c.N, err = strconv.Atoi(n); err != nil {
			return nil, fmt.Errorf("%q: %w", arg, err)
		}
		out = append(out, c)
	}
	return out, nil
}

func tiers() string { return strings.Join(stacks.TierNames(), ", ") }

// Counts are the counts that the tiers that are named should have, when the
// configuration has those of e. It refuses to make the database smaller.
func Counts(e stacks.Environment, changes []Change) (map[string]int, error) {
	out := map[string]int{}
	for _, c := range changes {
		n := c.N
		if c.Relative {
			n += e.Tiers[c.Tier].Count
		}
		if c.Tier == stacks.TierDB && n < e.Tiers[c.Tier].Count {
			return nil, fmt.Errorf("db=%d: a database host is never removed by a count: %s has data on it, and may have the only copy", n, lastHost(e, c.Tier))
		}
		out[c.Tier] = n
	}
	return out, nil
}

// lastHost is the name of the host that would go first.
func lastHost(e stacks.Environment, tier string) string {
	return tier + "-" + strconv.Itoa(e.Tiers[tier].Count)
}
