package runlog

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func begun(id string) Entry {
	return Entry{
		ID: id, Outcome: Running, Began: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Who: "ann@desk",
		Command: "up", Args: []string{"up", "--env", "lab", "--yes"}, Version: "dev", Config: "sha256:00",
	}
}

// add appends to a file as somebody who is killed on the way does.
func add(t *testing.T, l Log, text string) {
	t.Helper()
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func appendTo(t *testing.T, l Log, e Entry) {
	t.Helper()
	if err := l.Append(e); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, l Log) ([]Entry, int) {
	t.Helper()
	all, unreadable, err := l.Read()
	if err != nil {
		t.Fatal(err)
	}
	return all, unreadable
}

func TestBeginningAndEndOfARunAreJoined(t *testing.T) {
	l := In(filepath.Join(t.TempDir(), "not", "there"))
	if all, unreadable := read(t, l); all != nil || unreadable != 0 {
		t.Errorf("without a file: %v, %d", all, unreadable)
	}
	appendTo(t, l, begun("a"))
	appendTo(t, l, begun("b"))
	end := begun("a")
	end.Outcome, end.Seconds, end.Ended = Partly, 2.5, end.Began.Add(2500*time.Millisecond)
	end.Error, end.Failures = "lab is partly changed", []string{"web-1: configuration: cannot update: no"}
	end.Changes = &Changes{Created: 3, Updated: 1}
	end.Hosts = []HostRun{{Name: "web-1", Result: "failed", Error: "no"}}
	appendTo(t, l, end)
	all, unreadable := read(t, l)
	if want := []Entry{end, begun("b")}; !reflect.DeepEqual(all, want) || unreadable != 0 {
		t.Errorf("got %+v\nwant %+v", all, want)
	}
	text, err := os.ReadFile(l.path)
	if err != nil || strings.Count(string(text), "\n") != 3 {
		t.Errorf("the file: %v\n%s", err, text)
	}
	if first, _, _ := strings.Cut(string(text), "\n"); strings.Contains(first, "ended") || !strings.Contains(first, `"began":"2026-01-02T03:04:05Z"`) {
		t.Errorf("the first line: %s", first)
	}
}

func TestTornLineSpoilsNothing(t *testing.T) {
	l := In(t.TempDir())
	appendTo(t, l, begun("a"))
	add(t, l, `{"id":"b","outcome":"runn`)
	if all, unreadable := read(t, l); len(all) != 1 || all[0].ID != "a" || unreadable != 1 {
		t.Errorf("after a torn line: %v, %d", all, unreadable)
	}
	appendTo(t, l, begun("c"))
	if all, unreadable := read(t, l); len(all) != 2 || all[1].ID != "c" || unreadable != 1 {
		t.Errorf("after the next run: %v, %d", all, unreadable)
	}
}

func TestManyAppendAtOnceWithoutALoss(t *testing.T) {
	l := In(t.TempDir())
	long := strings.Repeat("long ", 2000)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			e := begun(fmt.Sprint(i))
			e.Error = long
			if err := l.Append(e); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if all, unreadable := read(t, l); len(all) != 50 || unreadable != 0 {
		t.Errorf("%d runs, %d lines cannot be read", len(all), unreadable)
	}
}

func TestOnlyTheOwnerReadsTheRecord(t *testing.T) {
	l := In(filepath.Join(t.TempDir(), "own"))
	appendTo(t, l, begun("a"))
	for path, want := range map[string]os.FileMode{l.path: 0o600, filepath.Dir(l.path): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func TestNamesSortByTimeAndDiffer(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	a, b := NewID(now), NewID(now)
	if a == b || !strings.HasPrefix(a, "20260102-020405-") || NewID(now.Add(time.Second)) < a {
		t.Errorf("%s, %s", a, b)
	}
}

func TestRevisionSaysWhatWasCheckedOut(t *testing.T) {
	dir := t.TempDir()
	// No repository that this directory may be in counts, and no configuration.
	t.Setenv("GIT_CEILING_DIRECTORIES", filepath.Dir(dir))
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	if commit, dirty := Revision(t.Context(), dir); commit != "" || dirty {
		t.Errorf("outside of a repository: %q, %v", commit, dirty)
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=ann", "-c", "user.email=ann@localhost"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("init", "--quiet")
	if commit, _ := Revision(t.Context(), dir); commit != "" {
		t.Errorf("before the first commit: %q", commit)
	}
	file := filepath.Join(dir, "Pulumi.lab.yaml")
	if err := os.WriteFile(file, []byte("config: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("add", ".")
	run("commit", "--quiet", "--message", "one")
	head := run("rev-parse", "HEAD")
	if commit, dirty := Revision(t.Context(), dir); commit != head || dirty {
		t.Errorf("after a commit: %q, %v", commit, dirty)
	}
	if err := os.WriteFile(file, []byte("config: {a: 1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if commit, dirty := Revision(t.Context(), dir); commit != head || !dirty {
		t.Errorf("after a change: %q, %v", commit, dirty)
	}
	t.Setenv("PATH", t.TempDir())
	if commit, _ := Revision(t.Context(), dir); commit != "" {
		t.Errorf("without git: %q", commit)
	}
}
