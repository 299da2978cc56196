package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// state is all that the emulator knows, as it is in the state file.
type state struct {
	Format int   `json:"format"`
	NextID int64 `json:"next_id"`
	// NextIPv4 and NextIPv6 are where the search for a free address begins, so
	// that an address is not given out again as soon as it is free.
	NextIPv4 netip.Addr `json:"next_ipv4"`
	NextIPv6 uint64     `json:"next_ipv6"`

	Servers         map[int64]*server         `json:"servers"`
	Networks        map[int64]*network        `json:"networks"`
	Firewalls       map[int64]*firewall       `json:"firewalls"`
	FloatingIPs     map[int64]*floatingIP     `json:"floating_ips"`
	PrimaryIPs      map[int64]*primaryIP      `json:"primary_ips"`
	Volumes         map[int64]*volume         `json:"volumes"`
	PlacementGroups map[int64]*placementGroup `json:"placement_groups"`
	SSHKeys         map[int64]*sshKey         `json:"ssh_keys"`
	Actions         map[int64]*action         `json:"actions"`
	Faults          []*Fault                  `json:"faults"`
	Leftovers       []leftover                `json:"leftovers,omitempty"`
}

const stateFormat = 1

func newState() *state {
	return &state{
		Format: stateFormat,
		// Far above the IDs of the catalogue, so that no ID names two things.
		NextID:          10_000_001,
		Servers:         map[int64]*server{},
		Networks:        map[int64]*network{},
		Firewalls:       map[int64]*firewall{},
		FloatingIPs:     map[int64]*floatingIP{},
		PrimaryIPs:      map[int64]*primaryIP{},
		Volumes:         map[int64]*volume{},
		PlacementGroups: map[int64]*placementGroup{},
		SSHKeys:         map[int64]*sshKey{},
		Actions:         map[int64]*action{},
	}
}

func (s *state) id() int64 {
	id := s.NextID
	s.NextID++
	return id
}

func loadState(path string) (*state, error) {
	s := newState()
	if path == "" {
		return s, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the emulator's state: %w", err)
	}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("the emulator's state file %s is damaged (%w); take the lab down and up again", path, err)
	}
	if s.Format != stateFormat {
		return nil, fmt.Errorf("the emulator's state file %s has format %d, this build knows %d; take the lab down and up again", path, s.Format, stateFormat)
	}
	return s, nil
}

// stateFile writes versions of the state, each completely or not at all.
type stateFile struct {
	path string

	mu      sync.Mutex // one write at a time
	written uint64     // the newest version in the file
}

// flush returns when version of the state, or a newer one, is on disk. Requests
// that wait for each other's write share the next one.
func (e *Emulator) flush(version uint64) error {
	if e.file.path == "" {
		return nil
	}
	e.file.mu.Lock()
	defer e.file.mu.Unlock()
	if e.file.written >= version {
		return nil
	}
	e.mu.Lock()
	version = e.version
	b, err := json.Marshal(e.state)
	e.mu.Unlock()
	if err == nil {
		err = writeAtomically(e.file.path, b)
	}
	if err != nil {
		return fmt.Errorf("writing the emulator's state: %w", err)
	}
	e.file.written = version
	return nil
}

func writeAtomically(path string, b []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".state-*") // mode 0600: it holds user data and root passwords
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// update changes the state outside of a request and returns once that is on disk.
func (e *Emulator) update(change func(s *state)) error {
	e.mu.Lock()
	change(e.state)
	e.version++
	version := e.version
	e.mu.Unlock()
	return e.flush(version)
}

// base is what all resources have.
type base struct {
	ID      int64             `json:"id"`
	Name    string            `json:"name"`
	Labels  map[string]string `json:"labels"`
	Created time.Time         `json:"created"`
}

func (b *base) meta() *base { return b }

// record is a resource in the state.
type record interface{ meta() *base }

func (c *call) newBase(name string, labels *map[string]string) base {
	b := base{ID: c.s.id(), Name: name, Labels: map[string]string{}, Created: c.now}
	if labels != nil {
		b.Labels = maps.Clone(*labels)
	}
	return b
}

// find returns the record with an ID, or not_found.
func find[T record](m map[int64]T, kind string, id int64) (T, error) {
	if r, ok := m[id]; ok {
		return r, nil
	}
	var none T
	return none, notFound(kind, id)
}

// byID returns the records in the order of their making.
func byID[T record](m map[int64]T) []T {
	out := make([]T, 0, len(m))
	for _, id := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[id])
	}
	return out
}

// unique refuses a name that another record has.
func unique[T record](m map[int64]T, kind, name string, self int64) error {
	for id, r := range m {
		if id != self && r.meta().Name == name {
			return failure("uniqueness_error", "%s name '%s' is already used", kind, name)
		}
	}
	return nil
}

// rename is the update that all resources have: of name and labels.
func rename[T record](m map[int64]T, kind string, r T, name string, labels *map[string]string) error {
	b := r.meta()
	if name != "" && name != b.Name {
		if err := checkName(name); err != nil {
			return err
		}
		if err := unique(m, kind, name, b.ID); err != nil {
			return err
		}
	}
	if err := checkLabels(labels); err != nil {
		return err
	}
	if name != "" {
		b.Name = name
	}
	if labels != nil {
		b.Labels = maps.Clone(*labels)
	}
	return nil
}

func checkName(name string) error {
	if name == "" {
		return invalid("name", "must not be empty")
	}
	if len(name) > 128 {
		return invalid("name", "is longer than 128 characters")
	}
	return nil
}
