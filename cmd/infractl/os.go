package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/cmd/infractl/internal/rolling"
	"github.com/infractl/infractl/stacks"
)

const (
	// bootVariable names the environment variable that says how long a host may
	// take to boot; bootPatience is its value where it is not set.
	bootVariable = "INFRACTL_BOOT_TIMEOUT"
	bootPatience = 5 * time.Minute
	// listParallel is how many hosts read their package lists at the same time.
	// It costs some seconds of a core each, of hosts that serve meanwhile.
	listParallel = 2
)

func osCommand() *cli.Command {
	return &cli.Command{
		Name:  "os",
		Usage: "the operating system of the hosts",
		Subcommands: []*cli.Command{{
			Name:      "upgrade",
			Usage:     "upgrade the packages of the hosts, one host at a time, and reboot those that need it",
			UsageText: "infractl os upgrade [HOST…] [--tier TIER]… [--reboot auto|always|never] [--dry-run] [--env NAME]",
			Description: "Each host is drained, upgraded, rebooted if it has to be, and has to be well again before the\n" +
				"next one follows: application hosts, then web hosts, then load balancers, the one that holds\n" +
				"the virtual IP last of all. Hosts with nothing to do are left alone. No package is removed, and\n" +
				"files that were changed stay as they are. Database hosts, and hosts that are the only one of\n" +
				"their tier, are left out unless they or their tier are named: nobody serves in their place.",
			Flags: []cli.Flag{envFlag(), resultFlag(), tiersFlag(), drainTimeoutFlag(), lockTimeoutFlag(), noColorFlag(),
				&cli.StringFlag{Name: "reboot", Value: "auto", Usage: "auto: if a new kernel or a package needs it; always; never"},
				&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be upgraded"},
			},
			Action:       osUpgrade,
			OnUsageError: usageError,
			BashComplete: completeHosts,
		}},
	}
}

// upgrading is one run of os upgrade.
type upgrading struct {
	*operation
	timeout time.Duration
	boot    time.Duration
	// reboot is auto, always or never.
	reboot string
	// plans say what there is to do, by host.
	plans map[string]fleet.Upgrade
	how   map[string]fleet.Condition
}

func osUpgrade(c *cli.Context) error {
	names, err := arguments(c)
	if err != nil {
		return err
	}
	u := &upgrading{reboot: c.String("reboot"), boot: bootPatience, plans: map[string]fleet.Upgrade{}}
	if !slices.Contains([]string{"auto", "always", "never"}, u.reboot) {
		return usage("--reboot must be auto, always or never, not %q", u.reboot)
	}
	if u.timeout, err = drainTimeout(c); err != nil {
		return err
	}
	if text := os.Getenv(bootVariable); text != "" {
		if u.boot, err = time.ParseDuration(text); err != nil || u.boot <= 0 {
			return usage("%s must be a time such as 5m, not %q", bootVariable, text)
		}
	}
	dry := c.Bool("dry-run")
	if u.operation, err = operate(c, dry); err != nil {
		return err
	}
	hosts, err := u.choose(c.StringSlice("tier"), names, dry)
	if err == nil {
		err = u.list(hosts)
	}
	if err != nil {
		u.reporter.Finish()
		return err
	}
	if dry {
		return u.tell(hosts)
	}
	u.write(sayer{u.operation}, hosts)
	return u.roll(rolling.Work{Do: u.host, Missing: u.lacking}, hosts, "upgraded", "nothing to do",
		map[string]any{"upgrades": u.plans}, func(rolling.Report) string {
			return strings.Join(slices.Concat([]string{"infractl os upgrade --env", u.engine.Environment}, names), " ")
		})
}

// choose finds the hosts to upgrade and leaves out those for which nobody
// serves meanwhile, unless they were asked for.
func (u *upgrading) choose(tiers, names []string, dry bool) ([]fleet.Host, error) {
	ctx := u.c.Context
	chosen, asked, err := u.chosen(tiers, names)
	if err != nil {
		return nil, err
	}
	if !dry {
		// Who is left drained here and cannot serve is told of at its turn.
		if err := u.fleet.UndrainStaying(ctx, everyHost, u.say); err != nil {
			u.say("%v", err)
		}
	}
	if u.how, err = u.conditions(u.fleet.Hosts); err != nil {
		return nil, err
	}
	var hosts []fleet.Host
	web := false
	for _, h := range rolling.Sort(chosen) {
		switch {
		case asked:
		case h.Tier == stacks.TierDB:
			u.say("%s: left out, since the upgrade of the database interrupts the service; name it to upgrade it", h.Name)
			continue
		case len(u.others(h)) == 0:
			u.say("%s: left out, since it is the only host of its tier and nobody would serve; name it to upgrade it", h.Name)
			continue
		}
		hosts = append(hosts, h)
		web = web || h.Tier == stacks.TierWeb
	}
	if err := refuseUnreachable(hosts, u.how); err != nil {
		return nil, err
	}
	if web && !dry {
		return hosts, refuseUnreachable(u.fleet.Tier(stacks.TierLB), u.how)
	}
	return hosts, nil
}

// list asks all hosts what there is to do.
func (u *upgrading) list(hosts []fleet.Host) error {
	if len(hosts) == 0 {
		return nil
	}
	u.reporter.Phase("reading the package lists of %s", countOf(len(hosts), "host"))
	var mu sync.Mutex
	slots := make(chan struct{}, listParallel)
	err := fleet.Each(u.c.Context, hosts, func(ctx context.Context, h fleet.Host) error {
		slots <- struct{}{}
		defer func() { <-slots }()
		plan, err := u.fleet.Upgradable(ctx, h, func(step string) { u.say("%s: %s", h.Name, step) })
		mu.Lock()
		defer mu.Unlock()
		u.plans[h.Name] = plan
		return err
	})
	switch {
	case u.c.Context.Err() != nil:
		return u.stopped("nothing was upgraded", "")
	case err != nil:
		return &engine.Error{Kind: engine.Failed, Err: fmt.Errorf("nothing was upgraded: %w", err), Advice: "Put that right, then run it again."}
	}
	return nil
}

// sayer writes lines to the user above the live display.
type sayer struct{ *operation }

func (s sayer) Write(p []byte) (int, error) {
	s.say("%s", strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// tell ends a dry run.
func (u *upgrading) tell(hosts []fleet.Host) error {
	u.reporter.Finish()
	if u.c.Bool("json") {
		return writeJSON(os.Stdout, map[string]any{"environment": u.engine.Environment, "upgrades": u.plans})
	}
	u.write(os.Stdout, hosts)
	return nil
}

// write says what there is to do. Hosts with the same packages share a list.
func (u *upgrading) write(w io.Writer, hosts []fleet.Host) {
	var lists []string
	who := map[string][]string{}
	for _, h := range hosts {
		var b strings.Builder
		for _, p := range u.plans[h.Name].Packages {
			fmt.Fprintf(&b, "\n  %s", p)
		}
		if who[b.String()] == nil {
			lists = append(lists, b.String())
		}
		who[b.String()] = append(who[b.String()], h.Name)
	}
	for _, text := range lists {
		if n := strings.Count(text, "\n"); n > 0 {
			fmt.Fprintf(w, "%s: %s%s\n", strings.Join(who[text], " "), countOf(n, "package"), text)
		} else {
			fmt.Fprintf(w, "%s: no package to upgrade\n", strings.Join(who[text], " "))
		}
	}
	for _, h := range hosts {
		p := u.plans[h.Name]
		if p.Unfinished {
			fmt.Fprintf(w, "%s: an earlier upgrade was cut off and has to be finished\n", h.Name)
		}
		if len(p.Stale) > 0 {
			fmt.Fprintf(w, "%s: still run code that was replaced, and are to be restarted: %s\n", h.Name, strings.Join(p.Stale, " "))
		}
		if p.Reboot != "" {
			fmt.Fprintf(w, "%s: a reboot is pending: %s\n", h.Name, p.Reboot)
		}
		if len(p.Kept) > 0 {
			fmt.Fprintf(w, "%s: kept as they are, since others would have to be removed: %s\n", h.Name, strings.Join(p.Kept, " "))
		}
	}
}

// needsReboot says whether a host is to be rebooted.
func (u *upgrading) needsReboot(p fleet.Upgrade) bool {
	return u.reboot == "always" || u.reboot == "auto" && p.Reboot != ""
}

// host upgrades one host.
func (u *upgrading) host(ctx context.Context, h fleet.Host) (changed bool, note string, err error) {
	plan := u.plans[h.Name]
	install := len(plan.Packages) > 0 || plan.Unfinished
	if !install && len(plan.Stale) == 0 && !u.needsReboot(plan) {
		if plan.Reboot != "" {
			note = "a reboot is pending: " + plan.Reboot
		}
		return false, note, nil
	}
	step := func(text string) { u.reporter.Phase("%s: %s", h.Name, text) }
	if len(plan.Packages) > 0 {
		step("downloading " + countOf(len(plan.Packages), "package"))
		if err := u.fleet.Fetch(ctx, h, step); err != nil {
			return false, "", err
		}
	}
	drained, err := u.drain(ctx, h)
	if err != nil {
		return false, "", err
	}
	note, rebooted, err := u.work(ctx, h, plan, install, step)
	switch {
	case err != nil && drained:
		return false, "", fmt.Errorf("%w\n%s stays drained", err, h.Name)
	case err != nil:
		return false, "", err
	}
	// A host that has booted is not drained.
	if drained && !rebooted {
		step("undraining")
		if err := u.fleet.Undrain(ctx, h); err != nil {
			return false, "", err
		}
	}
	if how := u.how[h.Name]; how.KeptDrained() && rebooted {
		if _, err := u.fleet.Drain(ctx, h, u.timeout, how.Drained); err != nil {
			return false, "", err
		}
	}
	return true, note, nil
}

// drain drains a host, if somebody serves in its place. It says whether it did:
// one that a user has drained stays as it is.
func (u *upgrading) drain(ctx context.Context, h fleet.Host) (bool, error) {
	if h.Tier == stacks.TierDB || len(u.others(h)) == 0 || u.how[h.Name].KeptDrained() {
		return false, nil
	}
	now, err := u.standIn(ctx, h, "upgraded")
	if err != nil {
		return false, err
	}
	u.reporter.Phase("%s: draining", h.Name)
	left, err := u.fleet.Drain(ctx, h, u.timeout, fleet.ForUpgrade+", "+operator())
	switch {
	case err != nil && now.Unwell != "" && ctx.Err() == nil:
		// What is broken need not be able to leave in order.
		u.say("%s: cannot be drained, and is upgraded as it is (%v)", h.Name, err)
	case err != nil:
		// It may be drained half.
		undo, cancel := u.cleanup()
		defer cancel()
		return false, errors.Join(err, u.fleet.Undrain(undo, h))
	case left != "":
		u.say("%s: after %s this is left, and is cut off: %s", h.Name, u.timeout, strings.ReplaceAll(left, "\n", "; "))
	}
	return true, nil
}

// work upgrades the packages of a host that serves nobody, and reboots it or
// restarts what has to be restarted.
func (u *upgrading) work(ctx context.Context, h fleet.Host, plan fleet.Upgrade, install bool, step func(string)) (note string, rebooted bool, err error) {
	var done []string
	if install {
		step("installing " + countOf(len(plan.Packages), "package"))
		after, err := u.fleet.Install(ctx, h, step)
		if err != nil {
			return "", false, err
		}
		done = append(done, countOf(len(plan.Packages), "package"))
		plan.Reboot, plan.Stale = after.Reboot, after.Stale
	}
	if u.needsReboot(plan) {
		step("rebooting")
		if err := u.fleet.Reboot(ctx, h, u.boot, step); err != nil {
			return "", false, err
		}
		done = append(done, "rebooted")
		return strings.Join(done, ", "), true, nil
	}
	if len(plan.Stale) > 0 {
		if err := u.fleet.Renew(ctx, h, step); err != nil {
			return "", false, err
		}
		done = append(done, countOf(len(plan.Stale), "service")+" restarted")
	}
	if plan.Reboot != "" {
		done = append(done, "a reboot is pending: "+plan.Reboot)
	}
	return strings.Join(done, ", "), false, nil
}

// lacking says what a host still lacks after its upgrade. One that somebody has
// drained cannot be told to be well.
func (u *upgrading) lacking(ctx context.Context, h fleet.Host) string {
	if u.how[h.Name].KeptDrained() {
		return ""
	}
	return u.fleet.Lacking(ctx, h)
}
