package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// journal says on disk that a run is changing an environment, from before its
// first change until it has ended well. If it is still there at the next run,
// the last one was cut off or failed, and what it left in the cloud can be told
// from what others have put there.
type journal struct {
	path string
}

// entry is what a journal holds.
type entry struct {
	// Since is when the run began, by the cloud's clock.
	Since time.Time `json:"since"`
	// Endpoint is the cloud that it ran against.
	Endpoint string `json:"endpoint"`
	// Operation is up, destroy or refresh.
	Operation string `json:"operation"`
}

// read returns the entry of a run that has not ended well, or nil.
func (j journal) read() (*entry, error) {
	text, err := os.ReadFile(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the journal of the last run: %w", err)
	}
	var e entry
	if err := json.Unmarshal(text, &e); err != nil || e.Since.IsZero() {
		// It was cut off while it was written, which comes before any change.
		return nil, nil
	}
	return &e, nil
}

// begin notes that a run begins. A run before it that has not ended well and
// was not settled stays noted, since the earlier time is the one that counts.
func (j journal) begin(e entry) error {
	if old, err := j.read(); err == nil && old != nil && old.Endpoint == e.Endpoint && old.Since.Before(e.Since) {
		e.Since = old.Since
	}
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := replaceFile(j.path, append(text, '\n')); err != nil {
		return fmt.Errorf("cannot note the beginning of the run: %w", err)
	}
	return nil
}

// end notes that the run has ended well.
func (j journal) end() error {
	if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot note the end of the run: %w", err)
	}
	return nil
}

// replaceFile writes a file so that it has either the old content or the new.
func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once the file has its name
	if _, err := f.Write(content); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
