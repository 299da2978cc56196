package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testLocks(t *testing.T, files map[string]string) (*locks, *[]string) {
	t.Helper()
	var said []string
	l := &locks{
		dir:      put(t, files),
		hostname: "here",
		alive:    func(pid int, _ time.Time) bool { return pid == 7 },
		stuck:    func(int) bool { return false },
		patience: 100 * time.Millisecond,
		interval: 5 * time.Millisecond,
		say:      func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) },
	}
	return l, &said
}

func lockText(pid int, host string) string {
	return fmt.Sprintf(`{"pid":%d,"username":"ann","hostname":%q,"timestamp":"2026-01-02T03:04:05Z"}`, pid, host)
}

func TestLockOfADeadProcessIsRemoved(t *testing.T) {
	l, said := testLocks(t, map[string]string{"a.json": lockText(8, "here")})
	if err := l.settle(context.Background()); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(l.dir); len(left) != 0 {
		t.Error("the lock is still there")
	}
	if len(*said) != 1 || !strings.Contains((*said)[0], "removed the lock of ann@here (process 8)") {
		t.Errorf("said: %v", *said)
	}
}

func TestLockOfALivingProcessIsWaitedFor(t *testing.T) {
	l, said := testLocks(t, map[string]string{"a.json": lockText(7, "here")})
	l.patience = 10 * time.Second
	time.AfterFunc(30*time.Millisecond, func() { os.Remove(filepath.Join(l.dir, "a.json")) })
	if err := l.settle(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(*said) != 1 || !strings.Contains((*said)[0], "waiting up to 10 s for Pulumi, which works for ann@here (process 7)") {
		t.Errorf("said: %v", *said)
	}
}

func TestPulumiThatDoesNothingAnyMoreIsEnded(t *testing.T) {
	l, said := testLocks(t, map[string]string{"a.json": lockText(7, "here")})
	l.patience, l.grace = 10*time.Second, 40*time.Millisecond
	lives, looks := true, 0
	l.alive = func(int, time.Time) bool { return lives }
	// It works again between the second and the fourth look.
	l.stuck = func(int) bool { looks++; return looks != 3 }
	var ended time.Time
	l.end = func(pid int) error { lives, ended = pid != 7, time.Now(); return nil }
	began := time.Now()
	if err := l.settle(context.Background()); err != nil {
		t.Fatal(err)
	}
	if ended.Sub(began) < 55*time.Millisecond { // three looks, and the grace
		t.Errorf("it was ended after %s", ended.Sub(began))
	}
	if len(*said) != 3 || !strings.Contains((*said)[1], "ended Pulumi of a run that was killed (process 7)") || !strings.Contains((*said)[2], "removed the lock") {
		t.Errorf("said: %q", *said)
	}
}

func TestLockThatStaysIsSaidWithItsHolder(t *testing.T) {
	l, _ := testLocks(t, map[string]string{"a.json": lockText(7, "here")})
	err := l.settle(context.Background())
	if KindOf(err) != Locked || !strings.Contains(err.Error(), "ann@here (process 7) since") {
		t.Errorf("the error is %v", err)
	}
}

func TestLockOfAnotherComputerIsNeverRemoved(t *testing.T) {
	l, _ := testLocks(t, map[string]string{"a.json": lockText(8, "there")})
	began := time.Now()
	err := l.settle(context.Background())
	if KindOf(err) != Locked || time.Since(began) > 50*time.Millisecond {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	if left, _ := os.ReadDir(l.dir); len(left) != 1 {
		t.Error("the lock was removed")
	}
}

func TestHalfWrittenLockOfADeadProcessIsRemoved(t *testing.T) {
	l, _ := testLocks(t, map[string]string{"a.json": `{"pid":8,"hostn`})
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(filepath.Join(l.dir, "a.json"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := l.settle(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestNoLocksNoTrouble(t *testing.T) {
	l, _ := testLocks(t, nil)
	l.dir = filepath.Join(l.dir, "none")
	if err := l.settle(context.Background()); err != nil {
		t.Error(err)
	}
	var none *locks
	if err := none.settle(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestBackendDirectory(t *testing.T) {
	home, err := os.UserHomeDir()
	if err != nil {
		t.Skip(err)
	}
	for url, want := range map[string]string{
		"file:///var/lib/x":           "/var/lib/x",
		"file:///var/lib/x?no_tmp=1":  "/var/lib/x",
		"file://~":                    home,
		"file://~/state":              filepath.Join(home, "state"),
		"file:///with%20blank":        "/with blank",
		"s3://bucket":                 "",
		"https://api.pulumi.com":      "",
		"file://relative/to/whatever": "",
	} {
		if got := backendDir(url); got != want {
			t.Errorf("%s: %q, not %q", url, got, want)
		}
	}
}
