package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/runlog"
)

// recorded is a project with one environment, of which these runs are recorded.
func recorded(t *testing.T, runs ...runlog.Entry) string {
	t.Helper()
	dir := project(t, map[string]string{"Pulumi.lab.yaml": ""})
	t.Setenv("PULUMI_BACKEND_URL", "file://"+filepath.Join(dir, "state"))
	for _, r := range runs {
		if err := runlog.In(filepath.Join(dir, "state/.infractl/infractl/lab")).Append(r); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func exampleRuns() []runlog.Entry {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	first := runlog.Entry{ID: "20260102-030405-aaaaaa", Outcome: runlog.Running, Began: began, Who: "ann@desk", Command: "up", Args: []string{"up", "--yes"}, Version: "1.2.3",
		Commit: "0123456789abcdef", Dirty: true, Config: "sha256:77"}
	killed := first
	killed.ID, killed.Began = "20260102-040405-bbbbbb", began.Add(time.Hour)
	failed := killed
	failed.ID, failed.Began = "20260102-050405-cccccc", began.Add(2*time.Hour)
	failed.Outcome, failed.Ended, failed.Seconds = runlog.Partly, failed.Began.Add(125*time.Second), 125
	failed.Error, failed.Failures = "lab is partly changed", []string{"network: cannot create: no"}
	failed.Changes = &runlog.Changes{Created: 2, Updated: 1, Unchanged: 5}
	failed.Hosts = []runlog.HostRun{{Name: "web-1", Result: "updated"}, {Name: "web-2", Result: "failed", Error: "nginx:\nline 3"}}
	drained := first
	drained.ID, drained.Began, drained.Command = "20260102-060405-dddddd", began.Add(3*time.Hour), "drain web-1"
	drained.Outcome, drained.Seconds = runlog.Done, 4.25
	drained.Hosts = []runlog.HostRun{{Name: "web-1", Result: "drained"}}
	nothing := first
	nothing.Outcome, nothing.Seconds, nothing.Changes = runlog.Done, 2.5, &runlog.Changes{Unchanged: 9}
	return []runlog.Entry{first, nothing, killed, failed, drained}
}

func TestHistoryListsTheNewestFirst(t *testing.T) {
	t.Setenv("TZ", "UTC")
	dir := recorded(t, exampleRuns()...)
	stdout, stderr, code := command(t, dir, "history")
	var got [][]string
	for line := range strings.Lines(stdout) {
		got = append(got, strings.Fields(line))
	}
	if code != 0 || stderr != "" || len(got) != 5 {
		t.Fatalf("%d, %q\n%s", code, stderr, stdout)
	}
	for i, want := range []string{
		"ID WHEN WHO COMMAND OUTCOME DURATION CHANGES",
		"ann@desk drain web-1 done 4.2 s web-1 drained",
		"ann@desk up partly 2 min 05 s 2 created, 1 updated",
		"ann@desk up killed ? ?",
		"ann@desk up done 2.5 s none",
	} {
		line := strings.Join(got[i], " ")
		if !strings.HasSuffix(line, want) {
			t.Errorf("line %d is %q, not %q", i, line, want)
		}
	}
	stdout, _, _ = command(t, dir, "history", "-n", "1", "--json")
	var doc struct {
		Environment string
		Runs        []runlog.Entry
	}
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil || doc.Environment != "lab" || len(doc.Runs) != 1 || doc.Runs[0].Command != "drain web-1" {
		t.Errorf("%v\n%s", err, stdout)
	}
}

func TestHistoryShowsOneRunWhole(t *testing.T) {
	dir := recorded(t, exampleRuns()...)
	stdout, stderr, code := command(t, dir, "history", "20260102-05")
	if code != 0 || stderr != "" {
		t.Fatalf("%d, %s", code, stderr)
	}
	for _, want := range []string{
		"command        infractl up --yes\n", "began          2026-01-02T05:04:05Z\n", "ended          2026-01-02T05:06:10Z\n", "took           2 min 05 s\n",
		"commit         0123456789abcdef, and changes that are not committed\n", "configuration  sha256:77\n", "error          lab is partly changed\n",
		"failed         network: cannot create: no\n", "hosts          web-1: updated\n               web-2: failed: nginx:\n               line 3\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("it lacks %q:\n%s", want, stdout)
		}
	}
	for id, want := range map[string]string{"2": `4 runs of lab begin with "2"`, "x": `there is no run "x" in the record of lab`} {
		if _, stderr, code := command(t, dir, "history", id); code != 2 || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d, %s", id, code, stderr)
		}
	}
	for _, args := range [][]string{{"a", "b"}, {"-n", "-1"}} {
		if _, stderr, code := command(t, dir, append([]string{"history"}, args...)...); code != 2 {
			t.Errorf("%v: %d, %s", args, code, stderr)
		}
	}
}

func TestHistoryOfAnEnvironmentWithoutOne(t *testing.T) {
	dir := recorded(t)
	stdout, stderr, code := command(t, dir, "history")
	if code != 0 || stdout != "" || stderr != "lab: nothing is recorded\n" {
		t.Errorf("%d, %q, %q", code, stdout, stderr)
	}
	if stdout, _, _ := command(t, dir, "history", "--json"); !strings.Contains(stdout, `"runs": []`) {
		t.Errorf("as JSON: %s", stdout)
	}
}

func TestHistorySaysThatLinesAreLost(t *testing.T) {
	dir := recorded(t, exampleRuns()...)
	f, err := os.OpenFile(filepath.Join(dir, "state/.infractl/infractl/lab/history.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(`{"id":"20260102-0704`); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := command(t, dir, "history")
	if code != 0 || strings.Count(stdout, "\n") != 5 || !strings.Contains(stderr, "1 lines") {
		t.Errorf("%d, %q\n%s", code, stderr, stdout)
	}
}
