package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/infractl/infractl/stacks"
)

// Holder asks the load balancers which of them has the virtual IP on an interface;
// nobody else knows where it is on the wire. It returns its short name, or nothing
// if none of those that answer has it. While several have one, or the families are
// apart, that of IPv4 counts, and apart is set. It is an error if none answers.
func (f *Fleet) Holder(ctx context.Context) (holder string, apart bool, err error) {
	// IPv4 comes first.
	families := make([]string, 0, len(f.VIP))
	script := ""
	for family, address := range f.VIP {
		if address != "" {
			families = append(families, family)
		}
	}
	slices.Sort(families)
	for _, family := range families {
		script += fmt.Sprintf("[ -z \"$(ip -o addr show to %s)\" ] || echo %s\n", Quote(f.VIP[family]), family)
	}
	balancers := f.Tier(stacks.TierLB)
	var mu sync.Mutex
	holders := map[string][]string{}
	answered := 0
	err = Each(ctx, balancers, func(ctx context.Context, h Host) error {
		out, err := f.Run(ctx, h, "look for the virtual IP", script)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		answered++
		for _, family := range strings.Fields(string(out)) {
			holders[family] = append(holders[family], h.Name)
		}
		return nil
	})
	if answered == 0 {
		return "", false, errors.Join(errors.New("no load balancer can be asked who holds the virtual IP"), err)
	}
	for _, family := range families {
		has := holders[family]
		slices.Sort(has)
		switch {
		case len(has) == 0:
			apart = apart || holder != ""
			continue
		case holder == "":
			holder = has[0]
		}
		apart = apart || len(has) > 1 || has[0] != holder
	}
	return holder, apart, nil
}
