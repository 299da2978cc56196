package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
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

// locks guards an environment against two runs at a time, where the state is
// in a directory. Pulumi takes the locks; what it lacks is a look at whether
// their holder is still alive.
type locks struct {
	dir      string
	hostname string
	// alive says whether a process lives that was there at the given time.
	alive func(pid int, since time.Time) bool
	// patience is how long to wait for a holder that may be finishing.
	patience time.Duration
	interval time.Duration
	say      func(format string, args ...any)
}

// lockPatience is how long a run waits for another one on the same computer:
// one that was interrupted finishes its steps first.
const lockPatience = 60 * time.Second

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
		alive:    aliveSince,
		patience: lockPatience,
		interval: 200 * time.Millisecond,
		say:      say,
	}
}

// settle removes locks of dead processes of this computer and waits for live
// ones. It fails with kind Locked if somebody else holds one.
func (l *locks) settle(ctx context.Context) error {
	if l == nil {
		return nil
	}
	deadline := time.Now().Add(l.patience)
	told := false
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
		if time.Now().After(deadline) {
			return lockedBy(living[0])
		}
		if !told {
			l.say("waiting up to %d s for %s", int(l.patience.Seconds()), living[0])
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
	return fail(Locked, "Wait for it to end. If it is known to be dead, remove "+k.path, "the environment is being changed by %s", k)
}

func (l *locks) read() ([]lock, error) {
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

// aliveSince says whether process pid lives and started no later than since.
// A process that started later only has the same number.
func aliveSince(pid int, since time.Time) bool {
	if pid <= 0 {
		return false
	}
	started, err := startOf(pid)
	if err != nil {
		return false
	}
	return !started.After(since.Add(2 * time.Second)) // the boot time is known to the second only
}

// userHZ is the unit of times in /proc/PID/stat: 100 per second in every Linux
// ABI that Go supports (proc(5), sysconf(_SC_CLK_TCK)).
const userHZ = 100

// startOf is when a process started. It fails if the process is gone or only
// waits to be collected by its parent.
func startOf(pid int) (time.Time, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return time.Time{}, err
	}
	// The second field is the program's name in brackets, which may hold anything.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return time.Time{}, fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return time.Time{}, os.ErrProcessDone
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	boot, err := bootTime()
	if err != nil {
		return time.Time{}, err
	}
	return boot.Add(time.Duration(ticks) * time.Second / userHZ), nil
}

func bootTime() (time.Time, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return time.Unix(n, 0), err
		}
	}
	return time.Time{}, errors.New("/proc/stat does not say when the computer was started")
}
