package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/lab"
	"github.com/infractl/infractl/lab/machine"
)

// labCommand is `infractl lab`: a cloud on this computer.
func labCommand() *cli.Command {
	return &cli.Command{
		Name:  "lab",
		Usage: "a cloud on this computer, to rehearse in",
		Description: "The lab emulates the Hetzner Cloud API; its servers are real Debian machines on this\n" +
			"computer. It needs root. Its state is in $INFRACTL_LAB_DIR (default: that of the lab that\n" +
			"is up, else /var/lib/infractl-lab); base images are kept in $INFRACTL_LAB_CACHE (default /var/cache/infractl-lab).",
		Subcommands: []*cli.Command{
			labUpCommand(), labDownCommand(), labStatusCommand(), labSSHCommand(), labLogsCommand(),
			labMachinesCommand(), labRestartCommand(), labImageCommand(), labFaultCommand(), labGuardCommand(), labServeCommand(),
		},
	}
}

// labAction gives the lab's errors the kinds that exit codes are made of.
func labAction(action cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		err := action(c)
		var missing *lab.MissingError
		if errors.As(err, &missing) {
			return &engine.Error{Kind: engine.Missing, Err: err}
		}
		if err != nil && c.Context.Err() != nil {
			return &engine.Error{Kind: engine.Interrupted, Err: err}
		}
		return err
	}
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print JSON"}
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// labProgress tells of steps on stderr.
func labProgress(c *cli.Context) func(string) {
	return func(line string) { fmt.Fprintln(c.App.ErrWriter, line) }
}

func labUpCommand() *cli.Command {
	return &cli.Command{
		Name:  "up",
		Usage: "start the lab, and write its credentials to .env.lab in the current directory",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "image", Usage: "base `IMAGE` to make beforehand (default: " + machine.Images()[0] + ")"},
			jsonFlag(),
		},
		Action: labAction(func(c *cli.Context) error {
			project, err := os.Getwd()
			if err != nil {
				return err
			}
			start := time.Now()
			r, err := lab.Up(c.Context, lab.Options{Project: project, Images: c.StringSlice("image"), Progress: labProgress(c)})
			if err != nil {
				return err
			}
			for _, warning := range r.Warnings {
				fmt.Fprintln(c.App.ErrWriter, "warning:", warning)
			}
			switch {
			case r.Started:
				fmt.Fprintf(c.App.ErrWriter, "the lab is up after %.1f s\n", time.Since(start).Seconds())
			case r.EnvWritten:
				fmt.Fprintf(c.App.ErrWriter, "the lab was up already; wrote %s\n", r.EnvFile)
			default:
				fmt.Fprintln(c.App.ErrWriter, "the lab was up already; nothing changed")
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, r)
			}
			_, err = fmt.Fprintf(c.App.Writer, "endpoint     %s\ncredentials  %s\n", r.Endpoint, r.EnvFile)
			return err
		}),
	}
}

func labDownCommand() *cli.Command {
	return &cli.Command{
		Name:  "down",
		Usage: "remove the lab and everything of it; base images stay",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "keep", Usage: "keep the machines' disks and the API's state for the next up"},
			jsonFlag(),
		},
		Action: labAction(func(c *cli.Context) error {
			project, err := os.Getwd()
			if err != nil {
				return err
			}
			r, err := lab.Down(c.Context, lab.Options{Project: project, Progress: labProgress(c)}, lab.DownOptions{Keep: c.Bool("keep")})
			if err != nil {
				return err
			}
			if r.Any() {
				fmt.Fprintf(c.App.ErrWriter, "the lab is down: ended %d processes, removed %d network namespaces\n", r.Processes, r.Namespaces)
			} else {
				fmt.Fprintln(c.App.ErrWriter, "there was no lab; nothing changed")
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, r)
			}
			return nil
		}),
	}
}

func labStatusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "show the lab and its machines",
		Flags: []cli.Flag{jsonFlag()},
		Action: labAction(func(c *cli.Context) error {
			s, err := lab.GetStatus(c.Context, lab.Options{})
			if err != nil {
				return err
			}
			for _, warning := range s.Warnings {
				fmt.Fprintln(c.App.ErrWriter, "warning:", warning)
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, s)
			}
			return printStatus(c.App.Writer, s)
		}),
	}
}

func printStatus(out io.Writer, s lab.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "lab\t%s\n", s.State)
	if s.State != "down" {
		fmt.Fprintf(w, "endpoint\t%s\nstate\t%s\n", s.Endpoint, s.Dir)
	}
	if s.Guarded {
		fmt.Fprintf(w, "guard\ton\n")
	}
	if len(s.Machines) > 0 {
		fmt.Fprint(w, "\nHOST\tIMAGE\tSTATE\tUP\tPUBLIC\tPRIVATE\tFLOATING\n")
	}
	names := map[int64]string{}
	for _, m := range s.Machines {
		names[m.ID] = m.Name
		up := "-"
		if !m.Started.IsZero() {
			up = time.Since(m.Started).Round(time.Second).String()
		}
		public := "-"
		if m.IPv4.IsValid() {
			public = m.IPv4.String()
		} else if m.IPv6.IsValid() {
			public = m.IPv6.String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, m.Image, m.Status, up, public, list(m.Private), list(m.Floating))
	}
	if len(s.Faults.Cuts)+len(s.Faults.Isolations) > 0 {
		fmt.Fprint(w, "\nFAULT\tHOST\tTO\tNETWORK\n")
	}
	for _, cut := range s.Faults.Cuts {
		fmt.Fprintf(w, "cut\t%s\t%s\t%s\n", names[cut.From], names[cut.To], cut.Scope)
	}
	for _, isolation := range s.Faults.Isolations {
		fmt.Fprintf(w, "isolated\t%s\t-\t%s\n", names[isolation.Server], isolation.Scope)
	}
	return w.Flush()
}

func list[T fmt.Stringer](values []T) string {
	if len(values) == 0 {
		return "-"
	}
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = v.String()
	}
	return strings.Join(texts, " ")
}

func labSSHCommand() *cli.Command {
	return &cli.Command{
		Name:            "ssh",
		Usage:           "log in to a machine, or run a command there",
		ArgsUsage:       "HOST [COMMAND…]",
		SkipFlagParsing: true,
		Action: labAction(func(c *cli.Context) error {
			if c.NArg() == 0 || c.Args().First() == "--help" || c.Args().First() == "-h" {
				return usage("name the host: infractl lab ssh HOST [COMMAND…]")
			}
			return lab.SSH(lab.Options{}, c.Args().First(), c.Args().Tail())
		}),
	}
}

func labLogsCommand() *cli.Command {
	return &cli.Command{
		Name:            "logs",
		Usage:           "show a machine's journal, also of one that is off",
		ArgsUsage:       "HOST [JOURNALCTL OPTION…]",
		SkipFlagParsing: true,
		Action: labAction(func(c *cli.Context) error {
			if c.NArg() == 0 || c.Args().First() == "--help" || c.Args().First() == "-h" {
				return usage("name the host: infractl lab logs HOST [JOURNALCTL OPTION…]")
			}
			return lab.Logs(lab.Options{}, c.Args().First(), c.Args().Tail())
		}),
	}
}

func labRestartCommand() *cli.Command {
	return &cli.Command{
		Name:  "restart",
		Usage: "replace the lab's daemon by one of this build; the machines go on",
		Action: labAction(func(c *cli.Context) error {
			if err := lab.Restart(c.Context, lab.Options{Progress: labProgress(c)}); err != nil {
				return err
			}
			fmt.Fprintln(c.App.ErrWriter, "the lab's daemon was replaced")
			return nil
		}),
	}
}

func labImageCommand() *cli.Command {
	return &cli.Command{
		Name:  "image",
		Usage: "base images",
		Subcommands: []*cli.Command{{
			Name:      "build",
			Usage:     "make base images that are not there, from this computer's package mirror",
			ArgsUsage: "[IMAGE…] (default: " + strings.Join(machine.Images(), " ") + ")",
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "force", Usage: "make them anew"},
				jsonFlag(),
			},
			Action: labAction(func(c *cli.Context) error {
				names := c.Args().Slice()
				if len(names) == 0 {
					names = machine.Images()
				}
				images := []machine.Image{}
				for _, name := range names {
					image, err := lab.BuildImage(c.Context, lab.Options{Progress: labProgress(c)}, name, c.Bool("force"))
					if err != nil {
						return err
					}
					if !image.Built {
						fmt.Fprintf(c.App.ErrWriter, "image %s: there already\n", name)
					}
					images = append(images, image)
				}
				if c.Bool("json") {
					return printJSON(c.App.Writer, images)
				}
				for _, image := range images {
					fmt.Fprintf(c.App.Writer, "%s  %s\n", image.Name, image.Root)
				}
				return nil
			}),
		}},
	}
}

func labGuardCommand() *cli.Command {
	command := func(name, usage, done string, do func() error) *cli.Command {
		return &cli.Command{Name: name, Usage: usage, Action: labAction(func(c *cli.Context) error {
			if os.Geteuid() != 0 {
				return &lab.MissingError{What: []string{"only root can change routes: use sudo"}}
			}
			if err := do(); err != nil {
				return err
			}
			fmt.Fprintln(c.App.ErrWriter, done)
			return nil
		})}
	}
	return &cli.Command{
		Name:  "guard",
		Usage: "keep packets for lab addresses on this computer also while no lab is up",
		Subcommands: []*cli.Command{
			command("on", "put the guard routes in place, to stay", "the guard is on: packets for lab addresses do not leave this computer",
				func() error { return machine.Guard(true) }),
			command("off", "remove the guard routes, or let them go with the lab", "the guard is off", machine.Unguard),
		},
	}
}

func labServeCommand() *cli.Command {
	return &cli.Command{
		Name:   "serve",
		Usage:  "run the lab's daemon in the foreground",
		Hidden: true,
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "debug", Usage: "log every request"}},
		Action: labAction(func(c *cli.Context) error {
			ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			level := slog.LevelInfo
			if c.Bool("debug") {
				level = slog.LevelDebug
			}
			return lab.Serve(ctx, lab.Options{}, slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: level})))
		}),
	}
}
