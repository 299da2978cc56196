package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/report"
)

// doctorTimeout bounds all checks together.
const doctorTimeout = time.Minute

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:         "doctor",
		Usage:        "say what is missing on this computer, and how to get it",
		UsageText:    "infractl doctor [--env NAME] [--json]",
		Flags:        []cli.Flag{envFlag(), resultFlag()},
		Action:       doctor,
		OnUsageError: usageError,
		BashComplete: completeFlags,
	}
}

func doctor(c *cli.Context) error {
	ctx, cancel := context.WithTimeout(c.Context, doctorTimeout)
	defer cancel()
	checks := engine.Diagnose(ctx, ".", c.String("env"), version().Version)
	checks = append(checks, labChecks(exec.LookPath, os.Geteuid())...)
	missing := 0
	for _, k := range checks {
		if k.Needed && !k.OK {
			missing++
		}
	}
	if c.Bool("json") {
		if err := writeJSON(os.Stdout, map[string]any{"checks": checks, "ok": missing == 0}); err != nil {
			return err
		}
	} else {
		writeChecks(checks, styleOf(c, os.Stdout))
	}
	if missing > 0 {
		return &engine.Error{Kind: engine.Missing, Err: fmt.Errorf("%d of %d things are missing", missing, len(checks))}
	}
	return nil
}

// labPrograms are what the lab runs, and the Debian packages that have them.
var labPrograms = []struct{ program, debian string }{
	{"mmdebstrap", "mmdebstrap"},
	{"systemd-nspawn", "systemd-container"},
	{"nft", "nftables"},
	{"ip", "iproute2"},
	{"sysctl", "procps"},
	{"ssh", "openssh-client"},
}

// labChecks look for what only the lab needs. Whoever does not use it can do
// without.
func labChecks(look func(string) (string, error), uid int) []engine.Check {
	var absent []string
	for _, p := range labPrograms {
		if _, err := look(p.program); errors.Is(err, exec.ErrNotFound) {
			absent = append(absent, p.debian)
		}
	}
	programs := engine.Check{Name: "lab: programs", OK: len(absent) == 0, Detail: "all there"}
	if !programs.OK {
		programs.Detail = "missing: " + strings.Join(absent, ", ")
		programs.Remedy = "apt-get install " + strings.Join(absent, " ")
	}
	root := engine.Check{Name: "lab: root", OK: uid == 0, Detail: "running as root"}
	if !root.OK {
		root.Detail, root.Remedy = "running as an ordinary user", "run infractl lab as root"
	}
	return []engine.Check{programs, root}
}

func writeChecks(checks []engine.Check, style report.Style) {
	for _, k := range checks {
		fmt.Fprintf(os.Stdout, "%s %-22s %s\n", style.Mark(k.OK, k.Needed), k.Name, k.Detail)
		if !k.OK && k.Remedy != "" {
			fmt.Fprintf(os.Stdout, "  %-22s → %s\n", "", k.Remedy)
		}
	}
}
