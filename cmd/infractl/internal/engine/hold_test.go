package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"

	"github.com/infractl/infractl/cmd/infractl/internal/lease"
	"github.com/infractl/infractl/cmd/infractl/internal/process"
	"github.com/infractl/infractl/cmd/infractl/internal/report"
	"github.com/infractl/infractl/cmd/infractl/internal/runlog"
)

// holder is an engine that can do nothing but hold a lock and write the record.
func holder(t *testing.T, place, command string) *Engine {
	t.Helper()
	config := filepath.Join(t.TempDir(), "Pulumi.lab.yaml")
	if err := os.WriteFile(config, []byte("config: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := &Engine{
		Environment: "lab", Project: Project{Dir: filepath.Dir(config)}, Config: Config{File: config},
		say:      func(format string, args ...any) { t.Logf(format, args...) },
		settings: Settings{Command: command, Args: []string{command, "--env", "lab"}, Version: "1.2.3"},
	}
	e.hold.place = place
	t.Cleanup(func() { e.Close(nil) })
	return e
}

func lockOrFail(t *testing.T, e *Engine, command string) (context.Context, func()) {
	t.Helper()
	ctx, release, err := e.Lock(t.Context(), command)
	if err != nil {
		t.Fatal(err)
	}
	return ctx, release
}

func recorded(t *testing.T, place string) []runlog.Entry {
	t.Helper()
	runs, unreadable, err := runlog.In(place).Read()
	if err != nil || unreadable > 0 {
		t.Fatalf("%d, %v", unreadable, err)
	}
	return runs
}

func TestLockIsTakenAgainWithinTheCommandAndKeepsOthersOut(t *testing.T) {
	place := t.TempDir()
	e, other := holder(t, place, "scale"), holder(t, place, "up")
	_, outer := lockOrFail(t, e, "drain web-1")
	_, inner := lockOrFail(t, e, "up")
	refused := func() {
		t.Helper()
		_, _, err := other.Lock(t.Context(), "")
		if KindOf(err) != Locked || !strings.Contains(err.Error(), "the environment is being changed by ") || !strings.Contains(err.Error(), "(infractl drain web-1, process ") ||
			!strings.Contains(err.Error(), "infractl unlock") {
			t.Errorf("the other run: %v", err)
		}
	}
	refused()
	inner()
	inner() // twice is no mistake
	refused()
	outer()
	_, release := lockOrFail(t, other, "")
	release()
	if runs := recorded(t, place); len(runs) != 2 || runs[0].Command != "drain web-1" || runs[1].Command != "up" {
		t.Errorf("recorded: %+v", runs)
	}
}

func TestLockUntilCloseOutlastsTheOthers(t *testing.T) {
	place := t.TempDir()
	e, other := holder(t, place, "up"), holder(t, place, "up")
	inside, done, err := e.lockUntilClose(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done()
	if inside.Err() == nil {
		t.Error("its context goes on")
	}
	_, release := lockOrFail(t, e, "")
	release()
	if _, _, err := other.Lock(t.Context(), ""); KindOf(err) != Locked {
		t.Errorf("it was released before the end: %v", err)
	}
	e.Close(nil)
	lockOrFail(t, other, "")
}

func TestLockWaitsForPulumiTooAndGivesItselfBackIfInVain(t *testing.T) {
	place := t.TempDir()
	e := holder(t, place, "up")
	var said *[]string
	e.locks, said = testLocks(t, map[string]string{"a.json": lockText(7, "here")})
	e.settings.LockTimeout = 50 * time.Millisecond
	began := time.Now()
	_, _, err := e.Lock(t.Context(), "")
	if KindOf(err) != Locked || !strings.Contains(err.Error(), "by Pulumi for ann@here (process 7)") || time.Since(began) < e.settings.LockTimeout {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	if len(*said) != 1 {
		t.Errorf("said: %q", *said)
	}
	if s, err := lease.Look(place); s != nil || err != nil {
		t.Errorf("the lock is still held: %v, %v", s, err)
	}
	if runs := recorded(t, place); len(runs) != 0 {
		t.Errorf("a run was recorded that never began: %+v", runs)
	}
}

func TestRunThatLosesItsLockStopsAndNamesWhoHasIt(t *testing.T) {
	place := t.TempDir()
	e := holder(t, place, "up")
	e.hold.ttl = 300 * time.Millisecond
	ctx, _ := lockOrFail(t, e, "")
	seen, err := lease.Look(place)
	if err != nil || seen == nil {
		t.Fatal(seen, err)
	}
	by := lease.Holder{ID: "x", Owner: "bob@far", Command: "unlock", Process: process.ID{PID: 5}, Since: time.Now()}
	if err := lease.Remove(place, *seen, by); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
	err = e.finish(ctx, errors.New("failed to run update"), "web-1", "web-2")
	want := "the environment's lock was removed by bob@far with infractl unlock at "
	if KindOf(err) != Locked || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "; what had begun was finished\nNot done: web-1, web-2\nOnce nobody else changes") {
		t.Errorf("it says: %v", err)
	}
	if _, _, err := e.Lock(t.Context(), ""); KindOf(err) != Locked {
		t.Errorf("taking it again: %v", err)
	}
	e.Close(err)
	if runs := recorded(t, place); len(runs) != 1 || runs[0].Outcome != runlog.Interrupted || !strings.HasPrefix(runs[0].Error, want) {
		t.Errorf("recorded: %+v", runs)
	}
}

func TestInterruptedRunSaysWhatIsNotDone(t *testing.T) {
	force := make(chan struct{})
	e := &Engine{settings: Settings{Force: force}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := e.finish(ctx, context.Canceled, "web-2", "lb-1")
	if KindOf(err) != Interrupted || err.Error() != "interrupted; what had begun was finished\nNot done: web-2, lb-1\nThe next run goes on from here." {
		t.Errorf("once: %v", err)
	}
	close(force)
	err = e.finish(ctx, context.Canceled)
	if KindOf(err) != Interrupted || err.Error() != "stopped at once; what had begun may be half done\nThe next run clears up and goes on from here." {
		t.Errorf("twice: %v", err)
	}
}

func TestProgressSaysWhichHostsAreLeft(t *testing.T) {
	p := progress{HostResults: map[string]string{
		"db-1": report.HostUnchanged, "app-1": report.HostCreated, "app-2": report.HostUpdated, "web-1": report.HostFailed,
		"web-2": "updating", "lb-1": report.HostRead, "lb-2": report.HostBare, "app-3": report.HostReplaced,
	}}
	hosts := []string{"db-1", "app-1", "app-2", "app-3", "web-1", "web-2", "lb-1", "lb-2", "lb-3"}
	if got, want := p.left(hosts), []string{"web-1", "web-2", "lb-1", "lb-2", "lb-3"}; !slices.Equal(got, want) {
		t.Errorf("left: %v", got)
	}
	p = progress{HostResults: map[string]string{"web-1": report.HostDeleted, "web-2": "deleting"}}
	if got := p.leftStanding([]string{"web-1", "web-2", "db-1"}); !slices.Equal(got, []string{"web-2", "db-1"}) {
		t.Errorf("left standing: %v", got)
	}
}

func TestRecordSaysWhoDidWhatWithWhichResult(t *testing.T) {
	place := t.TempDir()
	e := holder(t, place, "scale")
	t.Setenv("HCLOUD_TOKEN", "secret-token")
	lockOrFail(t, e, "")
	runs := recorded(t, place)
	if len(runs) != 1 || runs[0].Outcome != runlog.Running || !runs[0].Ended.IsZero() {
		t.Fatalf("at the beginning: %+v", runs)
	}
	// A command that writes the configuration, and then brings it about.
	const config = "config: {a: 1}\n"
	if err := os.WriteFile(e.Config.File, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	e.hold.configure(e.Config.File)
	e.RecordPlan("sha256:1234")
	e.RecordHost("web-3", "drained", nil)
	e.RecordHost("web-4", "not drained", fail(Failed, "Do this.", "web-4: drain: no answer"))
	const typ = report.ConfigurationType
	for _, events := range [][]Event{
		{event("create", typ, "app-1"), event("update", typ, "web-1")},
		slices.Concat([]Event{event("same", typ, "app-1"), event("same", typ, "web-1")},
			failure("update", typ, "web-2", "nginx says no"), failure("create", typeNetwork, "network", "no")),
	} {
		sink, tally := e.tally(func(Event) {})
		for _, ev := range events {
			sink(ev)
		}
		tally()
	}
	err := &Error{Kind: Partial, Err: errors.New("lab is partly changed"), Advice: "Run it again."}
	e.Close(err)
	runs = recorded(t, place)
	if len(runs) != 1 {
		t.Fatalf("at the end: %+v", runs)
	}
	got := runs[0]
	if got.Ended.Before(got.Began) || got.Began.Location() != time.UTC || got.Who != who() || !strings.Contains(got.Who, "@") {
		t.Errorf("times and user: %+v", got)
	}
	want := runlog.Entry{
		ID: got.ID, Outcome: runlog.Partly, Began: got.Began, Ended: got.Ended, Seconds: got.Ended.Sub(got.Began).Seconds(), Who: who(),
		Command: "scale", Args: []string{"scale", "--env", "lab"}, Version: "1.2.3",
		Config: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(config))), Plan: "sha256:1234",
		Error: "lab is partly changed", Failures: []string{"network: cannot create: no"},
		Changes: &runlog.Changes{Created: 1, Updated: 1, Unchanged: 2},
		Hosts: []runlog.HostRun{
			{Name: "app-1", Result: "created"}, {Name: "web-1", Result: "updated"}, {Name: "web-2", Result: "failed", Error: "nginx says no"},
			{Name: "web-3", Result: "drained"}, {Name: "web-4", Result: "not drained", Error: "web-4: drain: no answer"},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	text, err2 := os.ReadFile(filepath.Join(place, "history.jsonl"))
	if err2 != nil || strings.Contains(string(text), "secret-token") {
		t.Errorf("the record holds the environment's variables: %v", err2)
	}
}

func event(op apitype.OpType, typ, name string) Event {
	return Event{ResOutputsEvent: &apitype.ResOutputsEvent{Metadata: apitype.StepEventMetadata{Op: op, Type: typ, URN: "urn:pulumi:lab::infractl::" + typ + "::" + name}}}
}

// failure is how an engine tells that a step has failed.
func failure(op apitype.OpType, typ, name, words string) []Event {
	urn := "urn:pulumi:lab::infractl::" + typ + "::" + name
	return []Event{
		{DiagnosticEvent: &apitype.DiagnosticEvent{URN: urn, Severity: "error", Message: words}},
		{ResOpFailedEvent: &apitype.ResOpFailedEvent{Metadata: apitype.StepEventMetadata{Op: op, Type: typ, URN: urn}}},
	}
}

func TestOutcomeFollowsFromTheError(t *testing.T) {
	for want, errs := range map[runlog.Outcome][]error{
		runlog.Done:        {nil},
		runlog.Failed:      {errors.New("any"), &Error{Kind: Invalid, Err: errors.New("x")}, &Error{Kind: Locked, Err: errors.New("x")}},
		runlog.Partly:      {fmt.Errorf("outside: %w", &Error{Kind: Partial, Err: errors.New("x")})},
		runlog.Interrupted: {context.Canceled, &Error{Kind: Interrupted, Err: errors.New("x")}, lostLock(&lease.LostError{})},
	} {
		for _, err := range errs {
			if got := outcome(err); got != want {
				t.Errorf("%v: %s, not %s", err, got, want)
			}
		}
	}
}

func TestUnlockShowsAndRemovesBothLocks(t *testing.T) {
	place := t.TempDir()
	e, other := holder(t, place, "up"), holder(t, place, "unlock")
	lockOrFail(t, e, "")
	other.locks, _ = testLocks(t, map[string]string{"a.json": lockText(8, "there")})
	held, err := other.LookAtLock()
	if err != nil {
		t.Fatal(err)
	}
	shown := held.Holders()
	if len(shown) != 2 || !strings.Contains(shown[0], "(infractl up, process ") || !strings.Contains(shown[0], "running on this computer") || !strings.Contains(shown[1], "ann@there (process 8)") {
		t.Errorf("shown: %q", shown)
	}
	// One that was taken after the user had looked stays.
	late := filepath.Join(other.locks.dir, "late.json")
	if err := os.WriteFile(late, []byte(lockText(9, "there")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := other.Unlock(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	other.Close(nil)
	if s, err := lease.Look(place); s != nil || err != nil {
		t.Errorf("still held: %v, %v", s, err)
	}
	left, err := os.ReadDir(other.locks.dir)
	if err != nil || len(left) != 1 || left[0].Name() != "late.json" {
		t.Errorf("Pulumi's locks: %v, %v", left, err)
	}
	if err := other.Unlock(t.Context(), held); err == nil {
		t.Error("a lock was removed that nobody has looked at")
	}
	runs := recorded(t, place)
	if len(runs) < 2 || runs[1].Command != "unlock" || runs[1].Outcome != runlog.Done {
		t.Errorf("recorded: %+v", runs)
	}
}

func TestRunsThatNeverSaidHowTheyEndedWereKilledUnlessTheyHoldTheLock(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	t.Setenv("PULUMI_BACKEND_URL", "file://"+state)
	for name, text := range map[string]string{"Pulumi.yaml": "name: shop\nruntime: go\n", "Pulumi.lab.yaml": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	place := filepath.Join(state, ".infractl", "shop", "lab")
	for _, r := range []runlog.Entry{{ID: "1", Outcome: runlog.Running}, {ID: "2", Outcome: runlog.Running}, {ID: "2", Outcome: runlog.Done}} {
		if err := runlog.In(place).Append(r); err != nil {
			t.Fatal(err)
		}
	}
	e := holder(t, place, "up")
	lockOrFail(t, e, "")
	h, err := ReadHistory(dir, "")
	if err != nil || len(h.Runs) != 3 || h.Environment != "lab" {
		t.Fatalf("%+v, %v", h, err)
	}
	got := map[string]runlog.Outcome{}
	for _, r := range h.Runs[1:] {
		got[r.ID] = r.Outcome
	}
	if h.Runs[0].Outcome != runlog.Running || !maps.Equal(got, map[string]runlog.Outcome{"1": runlog.Killed, "2": runlog.Done}) {
		t.Errorf("the newest is %s, before it %v", h.Runs[0].Outcome, got)
	}
}

func TestLockAndRecordLieBesideTheStateIfTheyCan(t *testing.T) {
	p := Project{Dir: "/home/ann/shop", Name: "shop"}
	for url, want := range map[string]string{
		"file:///var/lib/x":      "/var/lib/x/.infractl/shop/lab",
		"s3://bucket":            "/home/ann/shop/.infractl/lab",
		"https://api.pulumi.com": "/home/ann/shop/.infractl/lab",
	} {
		if got := besideState(url, p, "lab"); got != want {
			t.Errorf("%s: %s", url, got)
		}
	}
}
