package lease

import (
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

// place is the directory where an environment's leases are kept.
type place string

func (p place) path(number int) string {
	return filepath.Join(string(p), "lease-"+strconv.Itoa(number)+".json")
}

// numbers are those of the leases that have files, in no order.
func (p place) numbers() ([]int, error) {
	entries, err := os.ReadDir(string(p))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the environment's lock: %w", err)
	}
	var out []int
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), "lease-")
		digits, json := strings.CutSuffix(digits, ".json")
		if n, err := strconv.Atoi(digits); ok && json && err == nil && n > 0 {
			out = append(out, n)
		}
	}
	return out, nil
}

func (p place) highest() (int, error) {
	all, err := p.numbers()
	highest := 0
	for _, n := range all {
		highest = max(highest, n)
	}
	return highest, err
}

// last reads the lease that counts. Its number is 0 if there never was one.
func (p place) last() (State, error) {
	for try := 1; ; try++ {
		n, err := p.highest()
		if err != nil || n == 0 {
			return State{}, err
		}
		text, err := os.ReadFile(p.path(n))
		if errors.Is(err, fs.ErrNotExist) && try < 100 {
			// There is a higher one by now, which a network file system may show
			// a little later.
			time.Sleep(time.Duration(try) * time.Millisecond)
			continue
		}
		if err != nil {
			return State{}, fmt.Errorf("cannot read the environment's lock: %w", err)
		}
		var s State
		if json.Unmarshal(text, &s) != nil {
			s = State{}
		}
		s.number, s.raw = n, string(text)
		return s, nil
	}
}

// claim makes the file of a lease. It fails with fs.ErrExist if somebody else
// has the number, or a higher one.
func (p place) claim(s State) error {
	text, err := encode(s)
	if err != nil {
		return err
	}
	path := p.path(s.number)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	// Somebody who looked long ago may get a number that was deleted since,
	// because there are higher ones.
	all, err := p.numbers()
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	for _, n := range all {
		if n > s.number {
			return errors.Join(fs.ErrExist, os.Remove(path))
		}
	}
	for _, n := range all {
		if n < s.number {
			// Whoever takes the next one tries again.
			_ = os.Remove(p.path(n))
		}
	}
	return nil
}

// rewrite writes a lease's file anew, in place: the directory does not change,
// so whoever lists it cannot miss the file. It fails if the file is gone.
func (p place) rewrite(s State) error {
	text, err := encode(s)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(p.path(s.number), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	// The text never gets shorter, so nothing of the old one is left behind it.
	_, err = f.WriteAt(text, 0)
	return errors.Join(err, f.Close())
}

func encode(s State) ([]byte, error) {
	text, err := json.Marshal(s)
	return append(text, '\n'), err
}
