package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/infractl/infractl/stacks"
)

// What commands drain hosts for. A drain whose reason begins with one of these
// words ends with the command; one that a user asked for begins with "by" and
// ends when the user says so.
const (
	ForReplace  = "replace"
	ForScale    = "scale"
	ForUpgrade  = "upgrade"
	ForRestart  = "restart"
	ForFailover = "failover"
	// ForChange is what the SSH step drains a host for. It ends by itself after
	// some minutes, if the step is gone.
	ForChange = "change"
)

// Passing says whether a host with this reason was drained by a command, which
// would have undrained it if it had not been cut off.
func Passing(reason string) bool {
	word := reason
	if i := strings.IndexFunc(reason, func(r rune) bool { return r < 'a' || r > 'z' }); i >= 0 {
		word = reason[:i]
	}
	return slices.Contains([]string{ForReplace, ForScale, ForUpgrade, ForRestart, ForFailover, ForChange}, word)
}

// lookPatience is how long a host may take to say whether it is drained, where
// nobody should have to wait for one that is dead.
const lookPatience = 5 * time.Second

// UndrainStaying lets hosts take work again that a command drained and could
// not undrain, since it was cut off. stays says which hosts are there to stay.
// Hosts that do not answer are left out: whoever needs them will say so.
func (f *Fleet) UndrainStaying(ctx context.Context, stays func(Host) bool, say func(format string, args ...any)) error {
	var hosts []Host
	for _, h := range f.Hosts {
		if h.Tier != stacks.TierDB && stays(h) {
			hosts = append(hosts, h)
		}
	}
	return Each(ctx, hosts, func(ctx context.Context, h Host) error {
		looking, cancel := context.WithTimeout(ctx, lookPatience)
		reason, err := f.Drained(looking, h)
		cancel()
		if err != nil || !Passing(reason) {
			return nil
		}
		if err := f.Undrain(ctx, h); err != nil {
			return fmt.Errorf("%s was drained (%s) by a run that was cut off: %w", h.Name, reason, err)
		}
		say("%s: was drained (%s) by a run that was cut off; it takes work again", h.Name, reason)
		return nil
	})
}
