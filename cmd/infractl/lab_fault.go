package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/lab"
	"github.com/infractl/infractl/lab/machine"
)

// labFaultCommand is `infractl lab fault`: what can go wrong with hosts, to order.
func labFaultCommand() *cli.Command {
	scope := &cli.StringFlag{Name: "network", Value: string(machine.Both), Usage: "where: `public`, private or both"}
	return &cli.Command{
		Name:  "fault",
		Usage: "make hosts and their network fail",
		Subcommands: []*cli.Command{
			{
				Name: "cut", Usage: "let packets between two hosts vanish", ArgsUsage: "HOST HOST",
				Flags: []cli.Flag{scope, &cli.BoolFlag{Name: "one-way", Usage: "only those from the first host to the second"}},
				Action: faultAction(2, func(ctx context.Context, l *lab.Client, c *cli.Context) (string, error) {
					a, b, oneWay := c.Args().Get(0), c.Args().Get(1), c.Bool("one-way")
					way := "between " + a + " and " + b
					if oneWay {
						way = "from " + a + " to " + b
					}
					return "packets " + way + " vanish", l.Cut(ctx, a, b, oneWay, machine.Scope(c.String("network")))
				}),
			},
			{
				Name: "isolate", Usage: "let all packets from and to a host vanish", ArgsUsage: "HOST", Flags: []cli.Flag{scope},
				Action: faultAction(1, func(ctx context.Context, l *lab.Client, c *cli.Context) (string, error) {
					return c.Args().First() + " is cut from everything", l.Isolate(ctx, c.Args().First(), machine.Scope(c.String("network")))
				}),
			},
			{
				Name: "freeze", Usage: "halt a host: it does nothing, and packets to it vanish", ArgsUsage: "HOST",
				Action: faultAction(1, func(ctx context.Context, l *lab.Client, c *cli.Context) (string, error) {
					return c.Args().First() + " stands still", l.Freeze(ctx, c.Args().First())
				}),
			},
			{
				Name: "thaw", Usage: "let a frozen host go on", ArgsUsage: "HOST",
				Action: faultAction(1, func(ctx context.Context, l *lab.Client, c *cli.Context) (string, error) {
					return c.Args().First() + " goes on", l.Thaw(ctx, c.Args().First())
				}),
			},
			{
				Name: "kill", Usage: "cut a host's power", ArgsUsage: "HOST",
				Action: faultAction(1, func(ctx context.Context, l *lab.Client, c *cli.Context) (string, error) {
					return c.Args().First() + " is off", l.Kill(ctx, c.Args().First())
				}),
			},
			{
				Name: "heal", Usage: "end all cuts and isolations, and thaw frozen hosts; killed ones stay off",
				Action: faultAction(0, func(ctx context.Context, l *lab.Client, _ *cli.Context) (string, error) {
					return "no cut, isolated or frozen host is left", l.Heal(ctx)
				}),
			},
		},
	}
}

// faultAction checks the number of hosts, orders the fault and says what is now so.
func faultAction(hosts int, order func(context.Context, *lab.Client, *cli.Context) (string, error)) cli.ActionFunc {
	return labAction(func(c *cli.Context) error {
		if c.NArg() != hosts {
			return usage("infractl lab fault %s takes %d host names, not %d (options come before them)", c.Command.Name, hosts, c.NArg())
		}
		client, err := lab.Connect(lab.Options{})
		if err != nil {
			return err
		}
		done, err := order(c.Context, client, c)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.App.ErrWriter, done)
		return nil
	})
}
