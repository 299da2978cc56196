package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/process"
)

// lock is a lock of Pulumi's file backend.
type lock struct {
	path      string
	PID       int       `json:"pid"`
	Username  string    `json:"username"`
	Hostname  string    `json:"hostname"`
	Timestamp time.Time `json:"timestamp"`
}

func (l lock) String() string {
	return fmt.Sprintf("%s@%s (process %d) since %s", l.Username, l.Hostname, l.PID, l.Timestamp.Local().Format("2006-01-02 15:04:05"))
}

// locks are those that Pulumi itself takes while it works, where the state is in
// a directory. They also keep out people who run pulumi. What Pulumi lacks is a
// look at whether their holder is still alive.
type locks struct {
	dir      string
	hostname string
	// alive says whether a process lives that was there at the given time.
	alive func(pid int, since time.Time) bool
	// stuck says that a process does nothing any more; it is ended once that was so
	// for as long as grace.
	stuck func(pid int) bool
	end   func(pid int) error
	grace time.Duration
	// patience is how long to wait for a holder that may be finishing.
	patience time.Duration
	interval time.Duration
	say      func(format string, args ...any)
}

func newLocks(backend, project, environment string, say func(string, ...any)) *locks {
	dir := backendDir(backend)
	if dir == "" {
		return nil
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil // then no lock can be known to be this computer's
	}
	return &locks{
		dir:      filepath.Join(dir, ".pulumi", "locks", "organization", project, environment),
		hostname: hostname,
		alive:    process.AliveSince,
		// The CLI is interrupted when its infractl is killed, and finishes what it has
		// begun. But with its plugins ended, it may wait for itself forever.
		stuck:    func(pid int) bool { return process.Orphaned(pid) && !process.HasChildren(pid) },
		end:      func(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) },
		grace:    10 * time.Second,
		patience: DefaultLockTimeout,
		interval: 200 * time.Millisecond,
		say:      say,
	}
}

// within are the same locks, waited for no longer than this.
func (l *locks) within(patience time.Duration) *locks {
	if l == nil {
		return nil
	}
	brief := *l
	brief.patience = patience
	return &brief
}

// settle removes locks of dead processes of this computer and waits for live
// ones. It fails with kind Locked if somebody else holds one.
func (l *locks) settle(ctx context.Context) error {
	if l == nil {
		return nil
	}
	deadline := time.Now().Add(l.patience)
	told := false
	idle := map[int]time.Time{} // since when holders do nothing
	for {
		held, err := l.read()
		if err != nil {
			return err
		}
		var living []lock
		for _, k := range held {
			switch {
			case k.Hostname != l.hostname:
				return lockedBy(k)
			case l.alive(k.PID, k.Timestamp):
				living = append(living, k)
				if since, ok := idle[k.PID]; !l.stuck(k.PID) {
					delete(idle, k.PID)
				} else if !ok {
					idle[k.PID] = time.Now()
				} else if time.Since(since) >= l.grace {
					if err := l.end(k.PID); err != nil && !errors.Is(err, syscall.ESRCH) {
						return fmt.Errorf("cannot end Pulumi, which works for %s: %w", k, err)
					}
					l.say("ended Pulumi of a run that was killed (process %d): it had nothing to do any more, and did not end", k.PID)
				}
			default:
				if err := os.Remove(k.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("cannot remove a stale lock: %w", err)
				}
				l.say("removed the lock of %s, which is no longer running", k)
			}
		}
		if len(living) == 0 {
			return nil
		}
		if !time.Now().Before(deadline) {
			return lockedBy(living[0])
		}
		if !told {
			l.say("waiting up to %.0f s for Pulumi, which works for %s", l.patience.Seconds(), living[0])
			told = true
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(l.interval):
		}
	}
}

func lockedBy(k lock) error {
	return fail(Locked, waitOrUnlock, "the environment is being changed by Pulumi for %s", k)
}

// waitOrUnlock is what to do about somebody else's lock.
const waitOrUnlock = "Wait for it to end; --lock-timeout says how long. If it is known to be dead, run: infractl unlock"

// remove removes all locks of which it is known who holds them.
func (l *locks) remove(known []lock) error {
	now, err := l.read()
	if err != nil {
		return err
	}
	for _, k := range now {
		if !slices.ContainsFunc(known, func(other lock) bool { return other.path == k.path }) {
			continue // it was taken since
		}
		if err := os.Remove(k.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove Pulumi's lock: %w", err)
		}
	}
	return nil
}

func (l *locks) read() ([]lock, error) {
	if l == nil {
		return nil, nil
	}
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the environment's locks: %w", err)
	}
	var out []lock
	for _, e := range entries {
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		k := lock{path: filepath.Join(l.dir, e.Name())}
		text, err := os.ReadFile(k.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its holder has just ended
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read a lock: %w", err)
		}
		if err := json.Unmarshal(text, &k); err != nil {
			// A holder that was killed while it wrote, or one that is writing now.
			info, statErr := e.Info()
			if statErr != nil || time.Since(info.ModTime()) < time.Second {
				k.PID, k.Hostname, k.Timestamp = os.Getpid(), l.hostname, time.Now()
			} else {
				k.Hostname = l.hostname
			}
		}
		out = append(out, k)
	}
	return out, nil
}
