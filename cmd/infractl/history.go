package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/runlog"
)

func historyCommand() *cli.Command {
	return &cli.Command{
		Name:      "history",
		Usage:     "show who changed the environment, when, and how it went",
		UsageText: "infractl history [--env NAME] [-n N] [--json] [ID]",
		Description: "Lists the runs that changed something, the newest first; with the ID of one, or its\n" +
			"beginning, shows the whole of it. A run that is called killed never said how it ended.",
		Flags: []cli.Flag{envFlag(), resultFlag(),
			&cli.IntFlag{Name: "number", Aliases: []string{"n"}, Value: 20, Usage: "show the newest `N` runs; 0 shows all"},
		},
		Action:       history,
		OnUsageError: usageError,
		BashComplete: completeFlags,
	}
}

func history(c *cli.Context) error {
	if c.NArg() > 1 {
		return usage("history takes one ID, but there are %d", c.NArg())
	}
	if c.Int("number") < 0 {
		return usage("-n must not be negative, but is %d", c.Int("number"))
	}
	h, err := engine.ReadHistory(".", c.String("env"))
	if err != nil {
		return err
	}
	if h.Unreadable > 0 {
		fmt.Fprintf(os.Stderr, "infractl: left out what cannot be read of the record: %d lines, written by runs that were killed meanwhile\n", h.Unreadable)
	}
	if id := c.Args().First(); id != "" {
		run, err := find(h, id)
		if err != nil {
			return err
		}
		if c.Bool("json") {
			return writeJSON(os.Stdout, run)
		}
		return writeRun(os.Stdout, run)
	}
	runs := h.Runs
	if n := c.Int("number"); n > 0 && n < len(runs) {
		runs = runs[:n]
	}
	if c.Bool("json") {
		if runs == nil {
			runs = []runlog.Entry{}
		}
		return writeJSON(os.Stdout, map[string]any{"environment": h.Environment, "runs": runs})
	}
	if len(runs) == 0 {
		fmt.Fprintf(os.Stderr, "%s: nothing is recorded\n", h.Environment)
		return nil
	}
	return writeRuns(os.Stdout, runs, time.Now())
}

// find is the run whose ID begins like this.
func find(h engine.History, id string) (runlog.Entry, error) {
	found := slices.DeleteFunc(slices.Clone(h.Runs), func(r runlog.Entry) bool { return !strings.HasPrefix(r.ID, id) })
	switch len(found) {
	case 0:
		return runlog.Entry{}, usage("there is no run %q in the record of %s", id, h.Environment)
	case 1:
		return found[0], nil
	}
	return runlog.Entry{}, usage("%d runs of %s begin with %q", len(found), h.Environment, id)
}

// timeLayout is how times are written for people, who read them where they are.
const timeLayout = "2006-01-02 15:04:05"

func writeRuns(out io.Writer, runs []runlog.Entry, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tWHEN\tWHO\tCOMMAND\tOUTCOME\tDURATION\tCHANGES")
	for _, r := range runs {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			r.ID, r.Began.Local().Format(timeLayout), r.Who, r.Command, r.Outcome, duration(r, now), changes(r))
	}
	return w.Flush()
}

// duration is how long a run took, or has been running.
func duration(r runlog.Entry, now time.Time) string {
	seconds := r.Seconds
	switch r.Outcome {
	case runlog.Killed:
		return "?"
	case runlog.Running:
		seconds = now.Sub(r.Began).Seconds()
	}
	if seconds < 100 {
		return fmt.Sprintf("%.1f s", seconds)
	}
	return fmt.Sprintf("%d min %02d s", int(seconds)/60, int(seconds)%60)
}

// changes are what a run did, in a few words.
func changes(r runlog.Entry) string {
	var parts []string
	if c := r.Changes; c != nil {
		for _, p := range []struct {
			n    int
			what string
		}{{c.Created, "created"}, {c.Updated, "updated"}, {c.Replaced, "replaced"}, {c.Deleted, "deleted"}} {
			if p.n > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
			}
		}
	} else {
		for _, h := range r.Hosts {
			parts = append(parts, h.Name+" "+h.Result)
		}
	}
	switch {
	case len(parts) > 0:
		return strings.Join(parts, ", ")
	case r.Outcome == runlog.Running || r.Outcome == runlog.Killed:
		return "?"
	}
	return "none"
}

// writeRun writes everything that is known of a run.
func writeRun(out io.Writer, r runlog.Entry) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, strings.ReplaceAll(value, "\n", "\n\t"))
		}
	}
	line("id", r.ID)
	line("command", "infractl "+strings.Join(r.Args, " "))
	line("who", r.Who)
	line("began", r.Began.UTC().Format(time.RFC3339))
	if !r.Ended.IsZero() {
		line("ended", r.Ended.UTC().Format(time.RFC3339))
	}
	line("took", duration(r, time.Now()))
	line("outcome", string(r.Outcome))
	line("changes", changes(r))
	line("infractl", r.Version)
	commit := r.Commit
	if r.Dirty {
		commit += ", and changes that are not committed"
	}
	line("commit", commit)
	line("configuration", r.Config)
	line("plan", r.Plan)
	line("error", r.Error)
	for _, f := range r.Failures {
		line("failed", f)
	}
	for i, h := range r.Hosts {
		name := ""
		if i == 0 {
			name = "hosts"
		}
		text := h.Name + ": " + h.Result
		if h.Error != "" {
			text += ": " + h.Error
		}
		fmt.Fprintf(w, "%s\t%s\n", name, strings.ReplaceAll(text, "\n", "\n\t"))
	}
	return w.Flush()
}
