package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/lease"
	"github.com/infractl/infractl/cmd/infractl/internal/process"
	"github.com/infractl/infractl/cmd/infractl/internal/report"
	"github.com/infractl/infractl/cmd/infractl/internal/runlog"
)

// DefaultLockTimeout is how long a run waits for another one: one that was
// interrupted finishes its steps first.
const DefaultLockTimeout = 60 * time.Second

// hold is this process's holding of the environment's lock, and the record of
// what it does in that time.
type hold struct {
	// place is the directory of the lock and of the record.
	place string
	// ttl is for tests; 0 means the lock's own time to live.
	ttl time.Duration

	mu    sync.Mutex
	lease *lease.Lease
	// depth counts the commands within the command that want the lock.
	depth int
	// untilClose are releases that are due at the command's end.
	untilClose []func()
	// waited says that another run had the lock first.
	waited bool

	run     *runlog.Entry // nil until something is recorded
	results []report.Result
	hosts   []runlog.HostRun
}

// ownDir is infractl's own directory for an environment in a project.
func ownDir(p Project, environment string) string {
	return filepath.Join(p.Dir, ".infractl", environment)
}

// besideState is the directory next to the state where everybody who uses that
// state looks for its lock and its record. Where infractl cannot write there, it
// is the project's own, which others on other computers do not see.
func besideState(backend string, p Project, environment string) string {
	if dir := backendDir(backend); dir != "" {
		return filepath.Join(dir, ".infractl", p.Name, environment)
	}
	return ownDir(p, environment)
}

// who is the user as user@host.
func who() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return name + "@" + host
}

// Lock takes the environment's lock for a command that changes something, and
// begins the record of it. command is what others read who have to wait; empty
// means the command line's name. The context ends if somebody takes the lock
// away: what has begun may be finished then, and nothing else begun. A command
// that has the lock may take it again. Whatever a command reads before it has
// the lock may be outdated when it does.
func (e *Engine) Lock(ctx context.Context, command string) (context.Context, func(), error) {
	h := &e.hold
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lease == nil {
		if err := e.take(ctx, command); err != nil {
			return ctx, func() {}, err
		}
	}
	if err := h.lease.Err(); err != nil {
		return ctx, func() {}, lostLock(err)
	}
	h.depth++
	held := h.lease
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-held.Lost():
			cancel(lostLock(held.Err()))
		case <-ctx.Done():
		}
	}()
	var once sync.Once
	return ctx, func() {
		once.Do(func() {
			cancel(nil)
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.depth--; h.depth == 0 {
				e.giveBack()
			}
		})
	}, nil
}

// lostLock is the error of a run whose lock was taken away.
func lostLock(err error) error {
	return &Error{Kind: Locked, Err: err, Advice: "Once nobody else changes the environment, run the same command again: it goes on from there."}
}

// lockUntilClose takes the lock for the rest of the command. done ends only the
// context.
func (e *Engine) lockUntilClose(ctx context.Context) (_ context.Context, done func(), err error) {
	outside, release, err := e.Lock(ctx, "")
	if err != nil {
		return ctx, nil, err
	}
	inside, cancel := context.WithCancel(outside)
	e.hold.mu.Lock()
	defer e.hold.mu.Unlock()
	e.hold.untilClose = append(e.hold.untilClose, release)
	return inside, cancel, nil
}

// take waits for the lock and begins the record.
func (e *Engine) take(ctx context.Context, command string) error {
	h := &e.hold
	if command == "" {
		command = e.settings.Command
	}
	began := time.Now()
	holder := lease.Holder{ID: runlog.NewID(began), Owner: who(), Command: command, Process: process.Self(), Since: began}
	if h.run != nil {
		holder.ID = h.run.ID
	}
	patience := e.settings.LockTimeout
	l, err := lease.Take(ctx, h.place, holder, lease.Options{TTL: h.ttl, Patience: patience, Say: e.say})
	var held *lease.HeldError
	if errors.As(err, &held) {
		return fail(Locked, waitOrUnlock, "the environment is being changed by %w", held)
	}
	if err != nil {
		return err
	}
	h.lease, h.waited = l, l.Waited()
	settling := time.Now()
	if err := e.locks.within(max(0, patience-time.Since(began))).settle(ctx); err != nil {
		e.giveBack()
		return err
	}
	if e.locks != nil && time.Since(settling) >= e.locks.interval {
		h.waited = true
	}
	if h.run == nil {
		if err := e.record(ctx, command, holder.ID); err != nil {
			e.giveBack()
			return err
		}
	}
	return nil
}

// giveBack releases the lock, if it was not lost.
func (e *Engine) giveBack() {
	h := &e.hold
	if h.lease == nil {
		return
	}
	if err := h.lease.Release(); err != nil {
		e.say("the environment's lock could not be released: %v", err)
	}
	h.lease = nil
}

// record notes that the command begins.
func (e *Engine) record(ctx context.Context, command, id string) error {
	run := &runlog.Entry{
		ID: id, Outcome: runlog.Running, Began: time.Now().UTC().Truncate(time.Millisecond), Who: who(),
		Command: command, Args: e.settings.Args, Version: e.settings.Version, Config: digest(e.Config.File),
	}
	run.Commit, run.Dirty = runlog.Revision(ctx, e.Project.Dir)
	if err := runlog.In(e.hold.place).Append(*run); err != nil {
		return fmt.Errorf("cannot note in %s that the run begins: %w", e.hold.place, err)
	}
	e.hold.run = run
	return nil
}

// configure notes the configuration as it is used. A command may have written
// it after it took the lock.
func (h *hold) configure(file string) {
	if h.run != nil {
		h.run.Config = digest(file)
	}
}

// digest names a file's content; it is empty if it cannot be read.
func digest(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// RecordPlan notes the digest of the plan that is carried out.
func (e *Engine) RecordPlan(digest string) {
	if e.hold.run != nil {
		e.hold.run.Plan = digest
	}
}

// RecordHost notes what came of a host, for commands that do something to hosts
// without Pulumi: result is one word or two, such as drained, and err is why it
// failed. The command has the lock. It may be called by several goroutines.
func (e *Engine) RecordHost(name, result string, err error) {
	run := runlog.HostRun{Name: name, Result: result}
	if err != nil {
		run.Error = words(err)
	}
	e.hold.mu.Lock()
	defer e.hold.mu.Unlock()
	e.hold.hosts = append(e.hold.hosts, run)
}

// Close ends a command: it releases the lock and notes how the command ended.
func (e *Engine) Close(err error) {
	h := &e.hold
	h.mu.Lock()
	if h.run != nil {
		ended := h.ended(err, time.Now())
		if err := runlog.In(h.place).Append(ended); err != nil {
			e.say("how the run ended could not be noted: %v", err)
		}
		h.run = nil
	}
	due := h.untilClose
	h.untilClose = nil
	h.mu.Unlock()
	for _, release := range due {
		release()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	e.giveBack()
}

// ended is the record at a command's end.
func (h *hold) ended(err error, now time.Time) runlog.Entry {
	run := *h.run
	run.Ended = now.UTC().Truncate(time.Millisecond)
	run.Seconds = run.Ended.Sub(run.Began).Seconds()
	run.Outcome = outcome(err)
	if err != nil {
		run.Error = words(err)
	}
	fates := map[string]string{}
	reasons := map[string]string{}
	for _, r := range h.results {
		if run.Changes == nil {
			run.Changes = &runlog.Changes{}
		}
		run.Changes.Created += r.Created
		run.Changes.Updated += r.Updated
		run.Changes.Replaced += r.Replaced
		run.Changes.Deleted += r.Deleted
		run.Changes.Unchanged = r.Unchanged // of the last one, which has looked at all
		for host, fate := range r.HostResults {
			// What was done before is not undone by a second look.
			if fates[host] == "" || fate != report.HostUnchanged && fate != report.HostRead {
				fates[host] = fate
			}
		}
		for _, f := range r.Failures {
			if r.HostResults[f.Name] == report.HostFailed && reasons[f.Name] == "" {
				reasons[f.Name] = f.Message
				continue
			}
			run.Failures = append(run.Failures, f.Title())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fates)) {
		run.Hosts = append(run.Hosts, runlog.HostRun{Name: name, Result: fates[name], Error: reasons[name]})
	}
	run.Hosts = append(run.Hosts, h.hosts...)
	return run
}

// outcome is what an error at a command's end means for the record.
func outcome(err error) runlog.Outcome {
	var lost *lease.LostError
	switch kind := KindOf(err); {
	case err == nil:
		return runlog.Done
	case kind == Interrupted, errors.Is(err, context.Canceled), errors.As(err, &lost):
		return runlog.Interrupted
	case kind == Partial:
		return runlog.Partly
	}
	return runlog.Failed
}

// words are an error's words without the advice.
func words(err error) string {
	var own *Error
	if errors.As(err, &own) {
		return own.Err.Error()
	}
	return err.Error()
}
