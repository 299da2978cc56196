package main

import (
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/stacks"
)

func outputsCommand() *cli.Command {
	return &cli.Command{
		Name:         "outputs",
		Usage:        "print the environment's URL, virtual IP and hosts",
		UsageText:    "infractl outputs [--env NAME] [--json]",
		Flags:        []cli.Flag{envFlag(), resultFlag()},
		Action:       outputs,
		OnUsageError: usageError,
		BashComplete: completeFlags,
	}
}

func outputs(c *cli.Context) error {
	s, err := begin(c, true)
	if err != nil {
		return err
	}
	defer s.reporter.Finish()
	out, err := s.engine.Outputs(c.Context)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return writeJSON(os.Stdout, out)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "url\t%v\n", out["url"])
	if vip, ok := out["vip"].(map[string]any); ok {
		for _, family := range []string{"ipv4", "ipv6"} {
			if vip[family] != nil {
				fmt.Fprintf(w, "vip %s\t%v\n", family, vip[family])
			}
		}
	}
	if tiers, ok := out["hosts"].(map[string]any); ok {
		fmt.Fprintf(w, "\nHOST\tROLE\tPUBLIC\tPRIVATE\n")
		for _, tier := range stacks.TierNames() {
			hosts, _ := tiers[tier].([]any)
			for _, h := range hosts {
				if h, ok := h.(map[string]any); ok {
					fmt.Fprintf(w, "%v\t%v\t%v\t%v\n", h["name"], h["role"], h["public"], h["private"])
				}
			}
		}
	}
	return w.Flush()
}
