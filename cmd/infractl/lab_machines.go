package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/lab"
	"github.com/infractl/infractl/lab/machine"
)

// labMachinesCommand is `infractl lab machines`: servers that no API made.
func labMachinesCommand() *cli.Command {
	return &cli.Command{
		Name:  "machines",
		Usage: "plain machines on one layer-2 wire, without any cloud",
		Description: "They stand for servers that you already have. Root logs in with the lab's key, which is\n" +
			"INFRACTL_SSH_IDENTITY in .env.lab. They share the networks " + machine.Wire4.String() + " and " + machine.Wire6.String() + ",\n" +
			"whose addresses from .100 on, and ::100 on, are free for virtual IPs.",
		Subcommands: []*cli.Command{
			{
				Name: "up", Usage: "make machines until there are as many as you say", ArgsUsage: "N",
				Flags:  []cli.Flag{&cli.StringFlag{Name: "image", Usage: "base `IMAGE` of new ones: " + strings.Join(machine.Images(), ", ")}, jsonFlag()},
				Action: labAction(labMachinesUp),
			},
			{
				Name: "start", Usage: "power a machine on", ArgsUsage: "MACHINE",
				Action: labAction(func(c *cli.Context) error {
					if c.NArg() != 1 {
						return usage("name the machine: infractl lab machines start MACHINE")
					}
					client, err := lab.Connect(lab.Options{})
					if err != nil {
						return err
					}
					if err := client.StartPlain(c.Context, c.Args().First()); err != nil {
						return err
					}
					fmt.Fprintln(c.App.ErrWriter, c.Args().First(), "is on")
					return nil
				}),
			},
			{
				Name: "down", Usage: "remove machines with their disks: all, or those that you name", ArgsUsage: "[MACHINE…]",
				Action: labAction(labMachinesDown),
			},
		},
	}
}

func labMachinesUp(c *cli.Context) error {
	args, err := arguments(c)
	if err != nil {
		return err
	}
	n := 0
	if len(args) == 1 {
		n, _ = strconv.Atoi(args[0])
	}
	if n < 1 {
		return usage("say how many machines there are to be: infractl lab machines up 6")
	}
	all, err := lab.MachinesUp(c.Context, lab.Options{Progress: labProgress(c)}, n, c.String("image"))
	if err != nil {
		return err
	}
	made := 0
	for _, m := range all {
		if m.Made {
			made++
		}
	}
	switch {
	case made == 0:
		fmt.Fprintf(c.App.ErrWriter, "there were %d machines already; nothing changed\n", len(all))
	default:
		fmt.Fprintf(c.App.ErrWriter, "made %d machines\n", made)
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, all)
	}
	return printPlain(c.App.Writer, all)
}

func printPlain(out io.Writer, all []lab.PlainMachine) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "MACHINE\tADDRESS\tIPV6\tIMAGE\tHOST KEY\n")
	for _, m := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", m.Name, m.IPv4, m.IPv6, m.Image, m.Fingerprint)
	}
	return w.Flush()
}

func labMachinesDown(c *cli.Context) error {
	client, err := lab.Connect(lab.Options{})
	if err != nil {
		return err
	}
	var gone []string
	if c.NArg() == 0 {
		gone, err = client.RemoveAllPlain(c.Context)
	}
	for _, name := range c.Args().Slice() {
		if err = client.RemovePlain(c.Context, name); err != nil {
			break
		}
		gone = append(gone, name)
	}
	switch {
	case len(gone) > 0:
		fmt.Fprintln(c.App.ErrWriter, "removed", strings.Join(gone, ", "))
	case err == nil:
		fmt.Fprintln(c.App.ErrWriter, "there were no such machines; nothing changed")
	}
	return err
}
