// Package machine makes the machines and networks behind the lab's cloud API:
// real Debian systems with systemd in containers of this computer, each in a
// network namespace of its own, connected by routers that behave as the
// cloud's network does. It implements api.Machines. It needs root.
//
// A machine lives apart from the process that started it: it goes on when
// that ends, and is found again by its control group, its namespaces and its
// directory, whose names all follow from its ID.
package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/infractl/infractl/lab/api"
)

// Config says where a fleet keeps its things.
type Config struct {
	// Dir is the lab's state directory. Machines' disks are in it, so that it
	// must be on a file system that overlayfs can write to.
	Dir string
	// Cache is the directory of base images.
	Cache string
	// Logger may be nil.
	Logger *slog.Logger
}

// Fleet is all machines and networks of the lab.
type Fleet struct {
	cfg       Config
	log       *slog.Logger
	groups    hierarchies
	resolvers resolvers

	// ctx ends with the process that watches; stop ends it.
	ctx  context.Context
	stop context.CancelFunc
	// watchers are the goroutines that wait for machines to go off.
	watchers sync.WaitGroup

	// mu guards all below.
	mu       sync.Mutex
	machines map[int64]*machine
	floating map[netip.Prefix]int64
	faults   faults
	volumes  map[int64]*volume
	// stocked are patterns of servers' names, see Stock.
	stocked []string

	// floatingMu keeps the kernel's routes of floating IPs in step with floating.
	floatingMu sync.Mutex

	// rules are loaded by one at a time, so that the last change wins.
	rulesMu sync.Mutex
	// loaded is what was last loaded, by namespace and template.
	loaded map[[2]string]string

	// plainMu is held while a plain machine gets its number.
	plainMu sync.Mutex
}

// machine is one machine. The API never makes two calls for one server at
// once; the watcher and ordered faults come in between, which op keeps apart.
// The record is changed (by update) with both op and Fleet.mu held, and read
// with either.
type machine struct {
	op sync.Mutex
	record
}

// record is what is on disk about a machine.
type record struct {
	Server api.Server `json:"server"`
	// Root is the image's tree that the disk lies on.
	Root        string             `json:"root"`
	Attachments []attachment       `json:"attachments,omitempty"`
	Firewall    *api.FirewallRules `json:"firewall,omitempty"`
	Started     time.Time          `json:"started,omitzero"`
	// Plain says that no API made it: its public interface is on the wire.
	Plain bool `json:"plain,omitempty"`
}

// attachment is a machine's cable into a private network.
type attachment struct {
	api.Attachment
	Interface string `json:"interface"`
}

const recordFile = "machine.json"

// ErrUnknown is wrapped by errors about a server that the fleet does not have.
var ErrUnknown = errors.New("the lab has no such machine")

// newFleet reads what is in the state directory, and changes nothing.
func newFleet(cfg Config) (*Fleet, error) {
	if strings.ContainsAny(cfg.Dir+cfg.Cache, ",:\\\"' \t\n") {
		return nil, fmt.Errorf("the lab's directories %s and %s must not have spaces, commas, colons, quotes or backslashes in their names", cfg.Dir, cfg.Cache)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	groups, err := findHierarchies()
	if err != nil {
		return nil, err
	}
	f := &Fleet{
		cfg: cfg, log: cfg.Logger, groups: groups, resolvers: findResolvers(),
		machines: map[int64]*machine{}, floating: map[netip.Prefix]int64{}, volumes: map[int64]*volume{},
		loaded: map[[2]string]string{},
	}
	return f, f.load()
}

// Peek returns the state of the machines in a state directory, whether or not
// a daemon has them open, and changes nothing.
func Peek(dir string) ([]State, error) {
	f, err := newFleet(Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	return f.List(), nil
}

// Open connects this computer with the lab's network, making it if it is not
// there, and takes over the machines in cfg.Dir, running or not.
func Open(ctx context.Context, cfg Config) (*Fleet, error) {
	f, err := newFleet(cfg)
	if err != nil {
		return nil, err
	}
	f.ctx, f.stop = context.WithCancel(context.Background())
	if err := f.connectComputer(ctx); err != nil {
		return nil, err
	}
	// Disks that were being made or deleted when who did it died.
	halves, _ := filepath.Glob(filepath.Join(cfg.Dir, "machines", ".*"))
	for _, half := range halves {
		if err := os.RemoveAll(half); err != nil {
			return nil, err
		}
	}
	for _, m := range f.machines {
		if f.running(m.Server.ID) {
			if err := f.plugMachine(ctx, m); err != nil {
				return nil, fmt.Errorf("connect the running machine %s: %w", m.Server.Name, err)
			}
			f.watch(m)
			continue
		}
		// What went off while nobody watched is cleared away, and what asked
		// for a reboot is started.
		reboot := f.askedForReboot(m)
		if err := f.clear(ctx, m); err != nil {
			return nil, err
		}
		if reboot {
			if err := f.boot(ctx, m); err != nil {
				f.log.Error("a machine asked for a reboot and cannot be started", "machine", m.Server.Name, "error", err)
			}
		}
	}
	return f, f.loadRouterRules(ctx)
}

// Close ends the watching. The machines go on.
func (f *Fleet) Close() {
	f.stop()
	f.watchers.Wait()
}

func (f *Fleet) dir(id int64) string {
	return filepath.Join(f.cfg.Dir, "machines", strconv.FormatInt(id, 10))
}

// load reads the records of machines, floating IPs, volumes and faults.
func (f *Fleet) load() error {
	entries, err := os.ReadDir(filepath.Join(f.cfg.Dir, "machines"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		id, err := strconv.ParseInt(entry.Name(), 10, 64)
		if err != nil {
			continue // a disk that is being made or deleted
		}
		m := &machine{}
		if err := loadJSON(filepath.Join(f.dir(id), recordFile), &m.record); err != nil {
			return fmt.Errorf("read the record of machine %d: %w", id, err)
		}
		f.machines[id] = m
	}
	for file, v := range map[string]any{"floating.json": &f.floating, "faults.json": &f.faults, "volumes.json": &f.volumes} {
		if err := loadJSON(filepath.Join(f.cfg.Dir, file), v); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read %s: %w", file, err)
		}
	}
	return nil
}

func loadJSON(file string, v any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

func (f *Fleet) find(id int64) (*machine, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.machines[id]
	if !ok {
		return nil, fmt.Errorf("%w: %d", ErrUnknown, id)
	}
	return m, nil
}

// update changes a machine's record and writes it down; the caller holds m.op.
func (f *Fleet) update(m *machine, change func()) error {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	return saveJSON(filepath.Join(f.dir(m.Server.ID), recordFile), &m.record)
}

// Create makes the server's disk. See api.Machines.
func (f *Fleet) Create(ctx context.Context, s api.Server) error {
	f.mu.Lock()
	m, ok := f.machines[s.ID]
	f.mu.Unlock()
	if ok {
		return f.change(ctx, m, s)
	}
	root, err := f.image(ctx, s)
	if err != nil {
		return err
	}
	m = &machine{record: record{Server: s, Root: root}}
	if err := f.makeDisk(m); err != nil {
		return fmt.Errorf("make the disk of server %s: %w", s.Name, err)
	}
	f.mu.Lock()
	f.machines[s.ID] = m
	f.mu.Unlock()
	f.log.Info("created", "machine", s.Name, "id", s.ID, "image", s.Image)
	return nil
}

// change brings a server that is there to what s says. Its disk stays.
func (f *Fleet) change(ctx context.Context, m *machine, s api.Server) error {
	m.op.Lock()
	defer m.op.Unlock()
	old := m.Server
	if err := f.update(m, func() { m.Server = s }); err != nil {
		return err
	}
	if !f.running(s.ID) {
		return nil
	}
	if old.Cores != s.Cores || old.MemoryMB != s.MemoryMB {
		if err := f.group(s.ID).limit(s.Cores, s.MemoryMB); err != nil {
			return fmt.Errorf("limit the cores and memory of server %s: %w", s.Name, err)
		}
	}
	if old.IPv4 == s.IPv4 && old.IPv6 == s.IPv6 {
		return nil
	}
	// Pulled out and plugged in again with the new addresses.
	router, err := openNamespace(routerName)
	if err != nil {
		return err
	}
	err = router.unplug(portName(s.ID))
	router.Close()
	if err != nil {
		return err
	}
	return f.plugMachine(ctx, m)
}

// Stock makes servers whose names match a pattern (as of path.Match) from images that
// have the packages of a web infrastructure already, from now on until the lab ends.
func (f *Fleet) Stock(pattern string) error {
	if _, err := path.Match(pattern, ""); err != nil {
		return fmt.Errorf("%q: %w", pattern, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stocked = append(f.stocked, pattern)
	return nil
}

func (f *Fleet) image(ctx context.Context, s api.Server) (string, error) {
	b := Builder{Cache: f.cfg.Cache, Progress: func(line string) { f.log.Info(line) }}
	name := s.Image
	f.mu.Lock()
	if slices.ContainsFunc(f.stocked, func(pattern string) bool { ok, _ := path.Match(pattern, s.Name); return ok }) {
		name += stockedSuffix
	}
	f.mu.Unlock()
	img, err := b.Ensure(ctx, name, false)
	if err != nil {
		return "", fmt.Errorf("image of server %s: %w", s.Name, err)
	}
	return img.Root, nil
}

// Start boots the server. See api.Machines.
func (f *Fleet) Start(ctx context.Context, id int64) error {
	m, err := f.find(id)
	if err != nil {
		return err
	}
	m.op.Lock()
	defer m.op.Unlock()
	if f.running(id) {
		return nil
	}
	return f.boot(ctx, m)
}

// Stop powers the server off. See api.Machines.
func (f *Fleet) Stop(ctx context.Context, id int64, orderly bool) error {
	m, err := f.find(id)
	if err != nil {
		return err
	}
	if orderly {
		// Not holding m.op: cutting the power must be possible meanwhile.
		if err := f.shutDown(ctx, m); err != nil {
			return err
		}
	}
	m.op.Lock()
	defer m.op.Unlock()
	if f.running(id) {
		f.log.Info("power off", "machine", m.Server.Name, "id", id)
	}
	return errors.Join(f.clear(ctx, m), f.update(m, func() { m.Started = time.Time{} }))
}

// Running says whether the server is powered on.
func (f *Fleet) Running(id int64) bool { return f.running(id) }

func (f *Fleet) running(id int64) bool {
	return f.group(id).populated()
}

// group is the control group of one machine.
func (f *Fleet) group(id int64, below ...string) group {
	return f.groups.group(append([]string{strconv.FormatInt(id, 10)}, below...)...)
}

// Rebuild replaces the server's disk. See api.Machines. The server is off afterwards.
func (f *Fleet) Rebuild(ctx context.Context, s api.Server) error {
	m, err := f.find(s.ID)
	if err != nil {
		return f.Create(ctx, s)
	}
	root, err := f.image(ctx, s)
	if err != nil {
		return err
	}
	m.op.Lock()
	defer m.op.Unlock()
	if err := f.clear(ctx, m); err != nil {
		return err
	}
	f.mu.Lock()
	m.Server, m.Root, m.Started = s, root, time.Time{}
	f.mu.Unlock()
	if err := f.makeDisk(m); err != nil {
		return fmt.Errorf("make a new disk for server %s: %w", s.Name, err)
	}
	f.log.Info("rebuilt", "machine", s.Name, "id", s.ID, "image", s.Image)
	return nil
}

// Delete removes the server. See api.Machines.
func (f *Fleet) Delete(ctx context.Context, id int64) error {
	m, err := f.find(id)
	if err != nil {
		return nil
	}
	m.op.Lock()
	defer m.op.Unlock()
	if err := f.clear(ctx, m); err != nil {
		return err
	}
	// Renamed first: half a machine is not found by the next start.
	gone := filepath.Join(f.cfg.Dir, "machines", ".deleted-"+strconv.FormatInt(id, 10))
	if err := os.Rename(f.dir(id), gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	f.mu.Lock()
	delete(f.machines, id)
	for prefix, server := range f.floating {
		if server == id {
			delete(f.floating, prefix)
		}
	}
	f.faults.forget(id)
	err = f.saveShared()
	f.mu.Unlock()
	if err != nil {
		return err
	}
	f.log.Info("deleted", "machine", m.Server.Name, "id", id)
	return errors.Join(f.loadRouterRules(ctx), f.loadWireRules(ctx))
}

// saveShared writes what is not of one machine; the caller holds f.mu.
func (f *Fleet) saveShared() error {
	return errors.Join(
		saveJSON(filepath.Join(f.cfg.Dir, "floating.json"), f.floating),
		saveJSON(filepath.Join(f.cfg.Dir, "faults.json"), f.faults),
		saveJSON(filepath.Join(f.cfg.Dir, "volumes.json"), f.volumes),
	)
}

// State is what is to be seen of a machine from outside.
type State struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Image string `json:"image"`
	// Status is running, frozen or off.
	Status string `json:"status"`
	// Started is when it was powered on; zero when it is off.
	Started time.Time    `json:"started,omitzero"`
	IPv4    netip.Addr   `json:"ipv4,omitzero"`
	IPv6    netip.Addr   `json:"ipv6,omitzero"`
	Private []netip.Addr `json:"private"`
	// Floating are the addresses routed to it.
	Floating []netip.Prefix `json:"floating"`
	// Plain says that it is on the wire, and no API made it.
	Plain bool `json:"plain,omitempty"`
	// MAC is the link-layer address of its public interface.
	MAC string `json:"mac"`
	// Disk is the directory of what differs from the image on its disk.
	Disk string `json:"disk"`
}

// List returns the state of all machines, by name.
func (f *Fleet) List() []State {
	f.mu.Lock()
	defer f.mu.Unlock()
	states := make([]State, 0, len(f.machines))
	for id, m := range f.machines {
		s := m.state()
		s.Disk = filepath.Join(f.dir(id), "upper")
		switch g := f.group(id); {
		case !g.populated():
			s.Started = time.Time{}
		case g.event("frozen"):
			s.Status = "frozen"
		default:
			s.Status = "running"
		}
		for prefix, server := range f.floating {
			if server == id {
				s.Floating = append(s.Floating, prefix)
			}
		}
		slices.SortFunc(s.Floating, netip.Prefix.Compare)
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b State) int { return strings.Compare(a.Name, b.Name) })
	return states
}

func (r *record) state() State {
	s := State{
		ID: r.Server.ID, Name: r.Server.Name, Image: r.Server.Image, Status: "off",
		Started: r.Started, IPv4: r.Server.IPv4, Private: []netip.Addr{}, Floating: []netip.Prefix{},
		Plain: r.Plain, MAC: publicMAC(r.Server.ID).String(),
	}
	if r.Plain {
		s.IPv6 = wireAddresses(r.Server.ID)[1].Addr()
	}
	if r.Server.IPv6.IsValid() {
		s.IPv6 = firstHost(r.Server.IPv6)
	}
	for _, a := range r.Attachments {
		s.Private = append(s.Private, a.IP)
	}
	return s
}
