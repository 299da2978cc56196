package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Package is one package that would be installed or upgraded.
type Package struct {
	Name string `json:"name"`
	// Old is empty for a package that is new on the host.
	Old string `json:"old,omitempty"`
	New string `json:"new"`
}

func (p Package) String() string {
	if p.Old == "" {
		return p.Name + " " + p.New + " (new)"
	}
	return p.Name + " " + p.Old + " → " + p.New
}

// Upgrade is what there is to do about a host's packages.
type Upgrade struct {
	Packages []Package `json:"packages"`
	// Kept are packages that cannot be upgraded without removing others. They
	// stay as they are.
	Kept []string `json:"kept,omitempty"`
	// Unfinished says that an earlier upgrade was cut off.
	Unfinished bool `json:"unfinished,omitempty"`
	// Reboot is why the host needs a reboot; empty if it does not.
	Reboot string `json:"reboot,omitempty"`
	// Stale are services that run code which was replaced on the disk.
	Stale []string `json:"stale,omitempty"`
}

// take takes in a line of maintenance/upgrade.sh.
func (u *Upgrade) take(line string, step func(string)) {
	word, rest, _ := strings.Cut(strings.TrimPrefix(line, "@"), " ")
	switch word {
	case "step":
		step(rest)
	case "package":
		if p := strings.Fields(rest); len(p) == 3 {
			u.Packages = append(u.Packages, Package{Name: p[0], Old: strings.TrimPrefix(p[1], "-"), New: p[2]})
		}
	case "kept":
		u.Kept = append(u.Kept, rest)
	case "unfinished":
		u.Unfinished = true
	case "reboot":
		u.Reboot = rest
	case "stale":
		u.Stale = append(u.Stale, rest)
	}
}

// Times that bound an upgrade's steps. apt itself gives up earlier where it
// waits for others.
const (
	listTimeout    = 12 * time.Minute
	fetchTimeout   = 30 * time.Minute
	installTimeout = time.Hour
	renewTimeout   = 10 * time.Minute
	restartTimeout = 10 * time.Minute
)

func (f *Fleet) upgrade(ctx context.Context, h Host, patience time.Duration, step, what string, progress func(string)) (Upgrade, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var u Upgrade
	err := f.follow(ctx, h, step, program("upgrade", "upgrade", what), func(line string) { u.take(line, progress) })
	return u, err
}

// Upgradable reads the package lists anew and says what there is to do.
func (f *Fleet) Upgradable(ctx context.Context, h Host, progress func(string)) (Upgrade, error) {
	return f.upgrade(ctx, h, listTimeout, "look for upgrades", "list", progress)
}

// Fetch downloads what Install would install.
func (f *Fleet) Fetch(ctx context.Context, h Host, progress func(string)) error {
	_, err := f.upgrade(ctx, h, fetchTimeout, "download packages", "fetch", progress)
	return err
}

// Install upgrades the packages, and finishes an upgrade that was cut off. It
// removes none and keeps files that were changed. What it returns is what is
// still to do: a reboot, or services to restart.
func (f *Fleet) Install(ctx context.Context, h Host, progress func(string)) (Upgrade, error) {
	return f.upgrade(ctx, h, installTimeout, "upgrade packages", "install", progress)
}

// Renew restarts the services that run code which was replaced on the disk.
func (f *Fleet) Renew(ctx context.Context, h Host, progress func(string)) error {
	_, err := f.upgrade(ctx, h, renewTimeout, "restart services that run replaced code", "renew", progress)
	return err
}

// Restart restarts a host's serving daemons: without dropping a request, except
// on a database host.
func (f *Fleet) Restart(ctx context.Context, h Host) error {
	ctx, cancel := context.WithTimeout(ctx, restartTimeout)
	defer cancel()
	_, err := f.Run(ctx, h, "restart its daemons", scripts+"restart </dev/null >/dev/null")
	return err
}

// Reboot reboots a host and waits, for patience at most, until it can be logged
// in to after another boot.
func (f *Fleet) Reboot(ctx context.Context, h Host, patience time.Duration, progress func(string)) error {
	began, told := time.Now(), 0
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	before, err := f.bootID(ctx, h)
	if err != nil {
		return err
	}
	// The connection may end before the answer comes; the boot's ID tells.
	ordering, done := context.WithTimeout(ctx, 20*time.Second)
	_, orderErr := f.Run(ordering, h, "reboot", program("reboot", "reboot_host"))
	done()
	for {
		if tens := int(time.Since(began).Seconds()) / 10 * 10; tens > told {
			progress(fmt.Sprintf("rebooting, %d s", tens))
			told = tens
		}
		now, err := f.bootID(ctx, h)
		if err == nil && now != before {
			return nil
		}
		select {
		case <-ctx.Done():
			switch {
			case !errors.Is(context.Cause(ctx), context.DeadlineExceeded):
				return fmt.Errorf("%s: reboot: %w", h.Name, context.Cause(ctx))
			case err == nil && orderErr != nil:
				return orderErr
			case err == nil:
				return fmt.Errorf("%s: reboot: it was told to, but it has not gone down within %s", h.Name, patience)
			}
			return fmt.Errorf("%s: reboot: it did not come back within %s; look at the server's console: %w", h.Name, patience, err)
		case <-time.After(time.Second):
		}
	}
}

func (f *Fleet) bootID(ctx context.Context, h Host) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	out, err := f.Run(ctx, h, "see which boot this is", program("reboot", "boot_id"))
	return strings.TrimSpace(string(out)), err
}
