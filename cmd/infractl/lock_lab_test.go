//go:build lab

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/runlog"
)

// slowHosts makes every host take so long that a run can be met in the middle.
const slowHosts = "HOSTLESS_DELAY=4s"

// history is what is recorded, the newest first.
func (s *site) history() []runlog.Entry {
	s.t.Helper()
	r := s.must(0, "history", "--json")
	var doc struct{ Runs []runlog.Entry }
	if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil {
		s.t.Fatalf("%v\n%s", err, r.stdout)
	}
	return doc.Runs
}

// ends waits for a command and says how it ended.
func ends(t *testing.T, cmd *exec.Cmd, within time.Duration) int {
	t.Helper()
	timer := time.AfterFunc(within, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait() // the exit code says it
	return cmd.ProcessState.ExitCode()
}

// The tests of the lock run alone: in them one run has to last as long as others
// take to meet it.

func TestSecondRunNamesTheFirstAndItsCommand(t *testing.T) {
	s := newSite(t, 0)
	s.env = append(s.env, slowHosts)
	first, _, firstErr := s.start("up", "--yes")
	firstErr.await("configuration", time.Minute)
	began := time.Now()
	r := s.must(4, "up", "--yes", "--lock-timeout", "0")
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it has waited for %s", took)
	}
	named := regexp.MustCompile(`the environment is being changed by \S+@\S+ \(infractl up, process ` + pid(first) + `\) since 20\d\d-`)
	if !named.MatchString(r.stderr) {
		t.Errorf("it does not name the first:\n%s", r.stderr)
	}
	s.must(4, "destroy", "--yes", "--env", "test", "--lock-timeout", "1s")
	s.must(4, "refresh", "--lock-timeout", "0")
	s.must(0, "preview") // which changes nothing
	if runs := s.history(); len(runs) != 1 || runs[0].Outcome != runlog.Running {
		t.Errorf("recorded: %+v", runs)
	}
	r = s.must(0, "up", "--yes", "--lock-timeout", "2m")
	if !strings.Contains(r.stderr, "waiting up to 120 s for ") || !strings.Contains(r.stderr, "no changes") {
		t.Errorf("the second run:\n%s", r.stderr)
	}
	if code := ends(t, first, time.Minute); code != 0 {
		t.Errorf("the first run: %d\n%s", code, firstErr)
	}
	s.agree()
	s.must(0, "destroy", "--yes", "--env", "test")
	var got []string
	for _, r := range s.history() {
		got = append(got, r.Command+" "+string(r.Outcome))
		if r.Changes == nil || r.Config == "" || !slices.Contains(r.Args, "--yes") || len(r.Hosts) != 6 {
			t.Errorf("the record says too little: %+v", r)
		}
	}
	if want := []string{"destroy done", "up done", "up done"}; !slices.Equal(got, want) {
		t.Errorf("recorded: %q", got)
	}
}

func pid(cmd *exec.Cmd) string { return strconv.Itoa(cmd.Process.Pid) }

func TestLockOfAKilledRunIsTakenOverAtOnce(t *testing.T) {
	s := newSite(t, 0)
	s.env = append(s.env, slowHosts)
	cmd, _, stderr := s.start("up", "--yes")
	stderr.await("configuration", time.Minute)
	kill(cmd, true)
	s.env = append(s.env, "HOSTLESS_DELAY=0s")
	r := s.must(0, "up", "--yes", "--lock-timeout", "0")
	if !regexp.MustCompile(`took over the lock of \S+@\S+ \(infractl up, process \d+\) since .*, which is no longer running`).MatchString(r.stderr) {
		t.Errorf("it does not say so:\n%s", r.stderr)
	}
	s.agree()
	runs := s.history()
	if len(runs) != 2 || runs[0].Outcome != runlog.Done || runs[1].Outcome != runlog.Killed {
		t.Errorf("recorded: %+v", runs)
	}
}

func TestRunThatWasSuspendedForLongerThanItsLockLivesStops(t *testing.T) {
	s := newSite(t, 0)
	s.env = append(s.env, slowHosts)
	first, _, firstErr := s.start("up", "--yes")
	firstErr.await("configuration", time.Minute)
	if err := first.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	second, _, secondErr := s.start("up", "--yes", "--lock-timeout", "3m")
	began := time.Now()
	secondErr.await("took over the lock", time.Minute)
	t.Logf("taken over after %s", time.Since(began))
	if !strings.Contains(secondErr.String(), "which has given no sign of life for 30 s") {
		t.Errorf("the second run does not say why:\n%s", secondErr)
	}
	_ = first.Process.Signal(syscall.SIGCONT)
	if code := ends(t, first, time.Minute); code != 4 {
		t.Errorf("the first run: %d\n%s", code, firstErr)
	}
	named := regexp.MustCompile(`the environment's lock was taken over by \S+ \(infractl up, process ` + pid(second) + `\) since .*; what had begun was finished`)
	if !named.MatchString(firstErr.String()) {
		t.Errorf("the first run does not name the second:\n%s", firstErr)
	}
	if code := ends(t, second, 3*time.Minute); code != 0 {
		t.Errorf("the second run: %d\n%s", code, secondErr)
	}
	s.agree()
	runs := s.history()
	if len(runs) != 2 || runs[0].Outcome != runlog.Done || runs[1].Outcome != runlog.Interrupted {
		t.Errorf("recorded: %+v", runs)
	}
}

func TestUnlockStopsTheRunThatHoldsTheLock(t *testing.T) {
	s := newSite(t, 0)
	s.env = append(s.env, slowHosts)
	r := s.must(0, "unlock", "--yes")
	if !strings.Contains(r.stderr, "test: nobody holds the lock") {
		t.Errorf("with nothing to unlock:\n%s", r.stderr)
	}
	first, _, firstErr := s.start("up", "--yes")
	firstErr.await("configuration", time.Minute)
	r = s.must(2, "unlock") // nobody to ask
	if !strings.Contains(r.stderr, "test: the lock is held by ") || !strings.Contains(r.stderr, "test: Pulumi's own lock is held by ") || !strings.Contains(r.stderr, "say --yes") {
		t.Errorf("it does not show the holder:\n%s", r.stderr)
	}
	r = s.must(0, "unlock", "--yes")
	if !strings.Contains(r.stderr, "test: unlocked") {
		t.Errorf("unlock says:\n%s", r.stderr)
	}
	if code := ends(t, first, time.Minute); code != 4 || !strings.Contains(firstErr.String(), "the environment's lock was removed by ") {
		t.Errorf("the first run: %d\n%s", code, firstErr)
	}
	s.must(0, "up", "--yes", "--lock-timeout", "0")
	s.agree()
	var got []string
	for _, r := range s.history() {
		got = append(got, r.Command+" "+string(r.Outcome))
	}
	if want := []string{"up done", "unlock done", "up interrupted"}; !slices.Equal(got, want) {
		t.Errorf("recorded: %q", got)
	}
}

func TestInterruptedRunSaysWhatIsDoneAndWhatIsNot(t *testing.T) {
	s := newSite(t, 0)
	s.env = append(s.env, slowHosts)
	cmd, _, stderr := s.start("up", "--yes")
	// The application waits for the others, which begin together.
	for _, host := range []string{"db-1", "web-1", "web-2", "lb-1", "lb-2"} {
		stderr.await(fmt.Sprintf("%-18s configuration      creating", host), time.Minute)
	}
	_ = cmd.Process.Signal(os.Interrupt)
	if code := ends(t, cmd, time.Minute); code != 130 {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	for _, want := range []string{"test: ", " created", "infractl: interrupted; what had begun was finished\nNot done: app-1\nThe next run goes on from here."} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, stderr)
		}
	}
	s.env = append(s.env, "HOSTLESS_DELAY=30s")
	cmd, _, stderr = s.start("up", "--yes", "--lock-timeout", "0")
	stderr.await("configuration", time.Minute)
	_ = cmd.Process.Signal(os.Interrupt)
	time.Sleep(300 * time.Millisecond)
	_ = cmd.Process.Signal(os.Interrupt)
	began := time.Now()
	if code := ends(t, cmd, time.Minute); code != 130 || time.Since(began) > 15*time.Second {
		t.Errorf("exit code %d after %s\n%s", code, time.Since(began), stderr)
	}
	for _, want := range []string{"stopping at once", "infractl: stopped at once; what had begun may be half done\nNot done: "} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, stderr)
		}
	}
	s.env = append(s.env, "HOSTLESS_DELAY=0s")
	s.must(0, "up", "--yes", "--lock-timeout", "0")
	s.agree()
	var got []string
	for _, r := range s.history() {
		got = append(got, string(r.Outcome))
	}
	if want := []string{"done", "interrupted", "interrupted"}; !slices.Equal(got, want) {
		t.Errorf("recorded: %q", got)
	}
}

func TestRunsThatBeginTogetherTakeTurns(t *testing.T) {
	s := newSite(t, 0)
	s.env = append(s.env, "HOSTLESS_DELAY=500ms")
	var all []*exec.Cmd
	var said []*buffer
	for range 4 {
		cmd, _, stderr := s.start("up", "--yes", "--lock-timeout", "4m")
		all, said = append(all, cmd), append(said, stderr)
	}
	made := 0
	for i, cmd := range all {
		if code := ends(t, cmd, 5*time.Minute); code != 0 {
			t.Errorf("exit code %d\n%s", code, said[i])
		}
		if strings.Contains(said[i].String(), " created (") {
			made++
		}
	}
	if made != 1 {
		t.Errorf("%d runs have made something", made)
		for _, text := range said {
			t.Log(text)
		}
	}
	s.agree()
	s.must(0, "up", "--yes", "--lock-timeout", "0")
}
