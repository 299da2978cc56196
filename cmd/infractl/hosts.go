package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/stacks"
)

// Flags that choose hosts.
func tiersFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "tier", Usage: "the hosts of tier `NAME`: " + strings.Join(stacks.TierNames(), ", ")}
}

func hostsFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "host", Usage: "host `NAME`, such as web-1"}
}

// theFleet reads the hosts from the state.
func (s *session) theFleet() (*fleet.Fleet, error) {
	out, err := s.engine.Outputs(s.c.Context)
	if err != nil {
		return nil, err
	}
	f, err := fleet.New(out)
	if err != nil {
		return nil, &engine.Error{Kind: engine.Invalid, Err: err}
	}
	return f, nil
}

// chosen are the hosts that --tier and --host name; all if neither does.
func chosen(c *cli.Context, f *fleet.Fleet) ([]fleet.Host, error) {
	tiers, names := c.StringSlice("tier"), c.StringSlice("host")
	if len(tiers)+len(names) == 0 {
		return f.Hosts, nil
	}
	hosts, err := f.Select(tiers, names)
	if err != nil {
		return nil, usage("%w", err)
	}
	return hosts, nil
}

// width is the length of the longest name.
func width(hosts []fleet.Host) int {
	n := 0
	for _, h := range hosts {
		n = max(n, len(h.Name))
	}
	return n
}

// completesHost says whether the shell asks for the value of --host, and of which
// environment. The flag parser cannot tell: for it, the value is missing.
func completesHost(args []string) (environment string, asks bool) {
	if !completes(args, "--host") {
		return "", false
	}
	for i, flag := range args[:len(args)-2] {
		if flag == "--env" || flag == "-e" {
			environment = args[i+1]
		}
	}
	return environment, true
}

// completes says whether the shell asks for the value of a flag.
func completes(args []string, flag string) bool {
	n := len(args)
	return n >= 3 && args[n-1] == "--generate-bash-completion" && args[n-2] == flag
}

// completeHosts completes the hosts and the flags of a command.
func completeHosts(c *cli.Context) {
	printHosts(c.App.Writer, c.String("env"))
	completeFlags(c)
}

// printHosts writes the names of an environment's hosts.
func printHosts(w io.Writer, environment string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	e, err := engine.Open(ctx, engine.Settings{
		Dir: ".", Environment: environment, Version: version().Version, Say: func(string, ...any) {}, SkipFiles: true,
	})
	if err != nil {
		return // there is nothing to offer
	}
	out, err := e.Outputs(ctx)
	if err != nil {
		return
	}
	f, err := fleet.New(out)
	if err != nil {
		return
	}
	for _, h := range f.Hosts {
		fmt.Fprintln(w, h.Name)
	}
}
