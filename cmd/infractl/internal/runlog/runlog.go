// Package runlog keeps the record of what was done to an environment: a file
// next to its state, to which every command that changes something appends what
// it is about to do, and at its end how that went. Lines are only ever added.
package runlog

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Outcome is how a run ended.
type Outcome string

const (
	// Running is what a run says at its beginning. If nothing comes after that,
	// it is still under way, or was killed.
	Running Outcome = "running"
	// Done means that it did what it was to do.
	Done Outcome = "done"
	// Failed means that it did not, and that what it had begun is finished or
	// taken back.
	Failed Outcome = "failed"
	// Partly means that a part of it was done.
	Partly Outcome = "partly"
	// Interrupted means that somebody stopped it.
	Interrupted Outcome = "interrupted"
	// Killed is never written: it is what readers call a run that has not said
	// how it ended, and is no longer under way.
	Killed Outcome = "killed"
)

// Entry is one run.
type Entry struct {
	ID      string  `json:"id"`
	Outcome Outcome `json:"outcome"`
	// Began and Ended are in UTC.
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended,omitzero"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds,omitempty"`
	// Who is user@host.
	Who string `json:"who"`
	// Command is its name, and Args is the whole command line without the
	// program's name.
	Command string   `json:"command"`
	Args    []string `json:"args"`
	// Version is infractl's own.
	Version string `json:"version"`
	// Commit is the project's in Git; empty if there is none. Dirty says that
	// its files were not what was committed.
	Commit string `json:"commit,omitempty"`
	Dirty  bool   `json:"dirty,omitempty"`
	// Config and Plan are the digests of the configuration's file and of the
	// plan that was carried out; there may be no plan.
	Config string `json:"config,omitempty"`
	Plan   string `json:"plan,omitempty"`
	// Error is what was wrong; Failures are the parts of it.
	Error    string    `json:"error,omitempty"`
	Failures []string  `json:"failures,omitempty"`
	Changes  *Changes  `json:"changes,omitempty"`
	Hosts    []HostRun `json:"hosts,omitempty"`
}

// Changes counts what was done to resources.
type Changes struct {
	Created   int `json:"created"`
	Updated   int `json:"updated"`
	Replaced  int `json:"replaced"`
	Deleted   int `json:"deleted"`
	Unchanged int `json:"unchanged"`
}

// HostRun is what came of one host.
type HostRun struct {
	Name string `json:"name"`
	// Result is one word or two, such as updated or failed.
	Result string `json:"result"`
	Error  string `json:"error,omitempty"`
}

// NewID names a run that begins now: names sort by time, and can be typed.
func NewID(now time.Time) string {
	b := make([]byte, 3)
	_, _ = rand.Read(b) // never fails
	return now.UTC().Format("20060102-150405-") + hex.EncodeToString(b)
}

// Log is the record in a file.
type Log struct{ path string }

// In is the record that is kept in a directory.
func In(dir string) Log { return Log{path: filepath.Join(dir, "history.jsonl")} }

// Append adds what is known of a run now. The line is written at once and is on
// the disk when this returns.
func (l Log) Append(e Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if torn(f) {
		// Somebody was killed while writing: what is left must not spoil this line.
		line = append([]byte{'\n'}, line...)
	}
	_, err = f.Write(line)
	return errors.Join(err, f.Sync(), f.Close())
}

// torn says whether a file's last line has no end.
func torn(f *os.File) bool {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || end == 0 {
		return false
	}
	last := make([]byte, 1)
	_, err = f.ReadAt(last, end-1)
	return err == nil && last[0] != '\n'
}

// Read returns all runs in the order in which they began. Lines that cannot be
// read are left out and counted: the last one may not be whole.
func (l Log) Read() (entries []Entry, unreadable int, err error) {
	text, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("cannot read the record of earlier runs: %w", err)
	}
	at := map[string]int{}
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		var e Entry
		if json.Unmarshal(line, &e) != nil || e.ID == "" {
			unreadable++
			continue
		}
		if i, known := at[e.ID]; known {
			entries[i] = e // the end of a run says everything again
			continue
		}
		at[e.ID] = len(entries)
		entries = append(entries, e)
	}
	return entries, unreadable, nil
}
