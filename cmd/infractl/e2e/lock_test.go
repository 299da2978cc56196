//go:build lab && !hosts

package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// background starts a command and does not wait for it.
func (p *project) background(t *testing.T, args ...string) (*exec.Cmd, *text) {
	t.Helper()
	cmd := p.command(t.Context(), args...)
	out := &text{}
	cmd.Stdout, cmd.Stderr = out, out
	// What it has started must not keep the test waiting after it was killed.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// history are the outcomes that are recorded, the newest first.
func (p *project) history(t *testing.T) []string {
	t.Helper()
	r := p.infractl("history", "-e", p.env, "--json")
	var doc struct {
		Runs []struct{ Command, Outcome string }
	}
	if err := json.Unmarshal([]byte(r.stdout), &doc); r.code != 0 || err != nil {
		t.Fatalf("%v: %v", err, r)
	}
	var out []string
	for _, run := range doc.Runs {
		out = append(out, run.Command+" "+run.Outcome)
	}
	return out
}

// TestOneRunAtATime meets runs in the middle of a change, so each part changes
// something on all hosts. What becomes of runs that are suspended, unlocked or
// interrupted is seen in the command's own tests, which need no machines.
func TestOneRunAtATime(t *testing.T) {
	t.Parallel()
	p := newSmall(t, "lock")
	p.up(t)
	headers := false
	change := func(t *testing.T) {
		t.Helper()
		headers = !headers
		config := maps.Clone(small)
		config["infractl:debugHeaders"] = strconv.FormatBool(!headers)
		if err := p.configure(config); err != nil {
			t.Fatal(err)
		}
	}
	newest := func(t *testing.T, want ...string) {
		t.Helper()
		got := p.history(t)
		if len(got) < len(want) || strings.Join(got[:len(want)], ", ") != strings.Join(want, ", ") {
			t.Errorf("recorded: %q, want %q first", got, want)
		}
	}

	t.Run("the second names the first and waits", func(t *testing.T) {
		change(t)
		first, said := p.background(t, "up", "-e", p.env, "--yes")
		said.await(t, "reading the hosts", time.Minute)
		second := p.up(t)
		named := regexp.MustCompile(`waiting up to 60 s for \S+@\S+ \(infractl up, process ` + strconv.Itoa(first.Process.Pid) + `\) since 20`)
		if !named.MatchString(second.stderr) || !strings.Contains(second.stderr, "no changes") {
			t.Errorf("%v", second)
		}
		if err := first.Wait(); err != nil {
			t.Errorf("the first: %v\n%s", err, said)
		}
		newest(t, "up done", "up done")
		requireWhole(t, p)
	})

	t.Run("after a kill the next takes over at once", func(t *testing.T) {
		change(t)
		first, said := p.background(t, "up", "-e", p.env, "--yes")
		said.await(t, "reading the hosts", time.Minute)
		time.Sleep(time.Second)
		_ = first.Process.Kill()
		_ = first.Wait()
		r := p.up(t)
		if !strings.Contains(r.stderr, "took over the lock of ") || !strings.Contains(r.stderr, "which is no longer running") {
			t.Errorf("it does not say so: %v", r)
		}
		report(os.Stdout, "up after the one before it was killed", "%.1f s", r.took.Seconds())
		newest(t, "up done", "up killed")
		requireWhole(t, p)
	})
}
