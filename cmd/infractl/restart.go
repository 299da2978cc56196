package main

import (
	"context"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/cmd/infractl/internal/rolling"
	"github.com/infractl/infractl/stacks"
)

func restartCommand() *cli.Command {
	return &cli.Command{
		Name:      "restart",
		Usage:     "restart the serving daemons, one host at a time, without dropping a request",
		UsageText: "infractl restart [HOST…] [--tier TIER]… [--env NAME]",
		Description: "Application hosts come first, then web hosts, then load balancers, the one that holds the\n" +
			"virtual IP last of all. The next host follows when the last one is well. Database hosts are\n" +
			"left out unless they or their tier are named: their restart interrupts the service.",
		Flags:        []cli.Flag{envFlag(), resultFlag(), tiersFlag(), lockTimeoutFlag()},
		Action:       restart,
		OnUsageError: usageError,
		BashComplete: completeHosts,
	}
}

func restart(c *cli.Context) error {
	names, err := arguments(c)
	if err != nil {
		return err
	}
	o, err := operate(c, false)
	if err != nil {
		return err
	}
	hosts, how, err := o.restartable(c.StringSlice("tier"), names)
	if err != nil {
		o.reporter.Finish()
		return err
	}
	return o.roll(rolling.Work{
		Do: func(ctx context.Context, h fleet.Host) (bool, string, error) {
			now, err := o.standIn(ctx, h, "restarted")
			if err != nil && !o.processes(h) {
				return false, "", err
			}
			o.reporter.Phase("%s: restarting", h.Name)
			if err := o.fleet.Restart(ctx, h); err != nil {
				return false, "", err
			}
			if fleet.Passing(now.Drained) {
				return true, "", o.fleet.Undrain(ctx, h)
			}
			return true, "", nil
		},
		Missing: func(ctx context.Context, h fleet.Host) string {
			if how[h.Name].KeptDrained() {
				return ""
			}
			return o.fleet.Lacking(ctx, h)
		},
	}, hosts, "restarted", "unchanged", nil, func(r rolling.Report) string {
		return "infractl restart --env " + o.engine.Environment + " " + strings.Join(r.Names(rolling.Failed, rolling.Untouched), " ")
	})
}

// processes says whether a host has several processes that serve, which are
// restarted one after the other.
func (o *operation) processes(h fleet.Host) bool {
	return h.Tier == stacks.TierApp && o.engine.Spec.Application.Processes > 1
}

// restartable are the chosen hosts without those that are left out, after a look
// at all of them.
func (o *operation) restartable(tiers, names []string) ([]fleet.Host, map[string]fleet.Condition, error) {
	chosen, asked, err := o.chosen(tiers, names)
	if err != nil {
		return nil, nil, err
	}
	// Who cannot take work again may do so once it was restarted.
	if err := o.fleet.UndrainStaying(o.c.Context, everyHost, o.say); err != nil {
		o.say("%v", err)
	}
	how, err := o.conditions(o.fleet.Hosts)
	if err != nil {
		return nil, nil, err
	}
	var hosts []fleet.Host
	web := false
	for _, h := range rolling.Sort(chosen) {
		switch {
		case asked:
		case h.Tier == stacks.TierDB:
			o.say("%s: left out, since its restart interrupts the service; name it to restart it", h.Name)
			continue
		case len(o.others(h)) == 0 && !o.processes(h):
			o.say("%s: left out, since it is the only host of its tier and nobody would serve; name it to restart it", h.Name)
			continue
		}
		hosts = append(hosts, h)
		web = web || h.Tier == stacks.TierWeb
	}
	if err := refuseUnreachable(hosts, how); err != nil {
		return nil, nil, err
	}
	if web {
		if err := refuseUnreachable(o.fleet.Tier(stacks.TierLB), how); err != nil {
			return nil, nil, err
		}
	}
	return hosts, how, nil
}

func everyHost(fleet.Host) bool { return true }
