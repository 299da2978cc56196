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
		Flags:        []cli.Flag{envFlag(), resultFlag(), tierFlag()},
		Action:       restart,
		OnUsageError: usageError,
		BashComplete: completeFlags,
	}
}

func tierFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "tier", Usage: "only the hosts of `TIER`: lb, web, app or db"}
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
	hosts, err := o.restartable(c.StringSlice("tier"), names)
	if err != nil {
		o.reporter.Finish()
		return err
	}
	return o.roll(rolling.Work{
		Do: func(ctx context.Context, h fleet.Host) (bool, string, error) {
			o.reporter.Phase("%s: restarting", h.Name)
			return true, "", o.fleet.Restart(ctx, h)
		},
		Missing: o.fleet.Lacking,
	}, hosts, "restarted", "unchanged", nil, func(r rolling.Report) string {
		return "infractl restart --env " + o.engine.Environment + " " + strings.Join(r.Names(rolling.Failed, rolling.Untouched), " ")
	})
}

// restartable are the chosen hosts without those that are left out, after a look
// at all of them.
func (o *operation) restartable(tiers, names []string) ([]fleet.Host, error) {
	chosen, asked, err := o.chosen(tiers, names)
	if err != nil {
		return nil, err
	}
	o.reporter.Phase("looking at the hosts")
	if err := o.fleet.UndrainStaying(o.c.Context, everyHost, o.say); err != nil {
		return nil, err
	}
	how := o.fleet.Conditions(o.c.Context, o.fleet.Hosts)
	var hosts []fleet.Host
	web := false
	for _, h := range chosen {
		switch drained := how[h.Name].Drained; {
		case h.Tier == stacks.TierDB && !asked:
			o.say("%s: left out, since its restart interrupts the service; name it to restart it", h.Name)
			continue
		case drained != "":
			// Whether it is well again could not be told.
			o.say("%s: left out, since it is drained (%s)", h.Name, drained)
			continue
		}
		hosts = append(hosts, h)
		web = web || h.Tier == stacks.TierWeb
	}
	if err := refuseUnreachable(hosts, how); err != nil {
		return nil, err
	}
	if web {
		if err := refuseUnreachable(o.fleet.Tier(stacks.TierLB), how); err != nil {
			return nil, err
		}
	}
	return hosts, nil
}

func everyHost(fleet.Host) bool { return true }
