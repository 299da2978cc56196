package fleet

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// scripts is where every host has the scripts that its tier gives it: drain,
// undrain, ready and restart.
const scripts = "/usr/local/lib/infractl/"

// drained is the file that says on a host that it is drained, and why.
const drained = "/run/infractl/drained"

// Drain makes a host take no new work, and waits until it has none, for
// patience at most; it says then how much is left. The host stays drained until
// Undrain or until it boots. reason is one line for whoever wonders.
func (f *Fleet) Drain(ctx context.Context, h Host, patience time.Duration, reason string) (left string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience+time.Minute)
	defer cancel()
	out, err := f.Run(ctx, h, "drain", fmt.Sprintf("test -x %[1]sdrain || { echo 'this host cannot be drained: it is the only one of its kind' >&2; exit 1; }\n"+
		"%[1]sdrain %[2]d %[3]s >/dev/null || { status=$?; test $status -eq 3 || exit $status; cat %[4]s.left; }",
		scripts, int(patience.Seconds()), Quote(reason), drained))
	return strings.TrimSpace(string(out)), err
}

// Undrain makes a host take work again, and waits until it does.
func (f *Fleet) Undrain(ctx context.Context, h Host) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	_, err := f.Run(ctx, h, "undrain", scripts+"undrain >/dev/null")
	return err
}

// Drained says why a host is drained; it is empty if it is not.
func (f *Fleet) Drained(ctx context.Context, h Host) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := f.Run(ctx, h, "see whether it is drained", "! test -e "+drained+" || cat "+drained)
	return strings.TrimSpace(string(out)), err
}
