// Package api emulates the Hetzner Cloud API for the lab: same paths, JSON
// shapes, error codes and asynchronous actions, so that the real provider and
// client libraries work against it unmodified. What it says happens, happens:
// it drives Machines, which boots real machines and moves real routes.
//
// Every change is written to a state file before it is answered and before
// Machines is called, so that the emulator can be killed at any moment: after a
// restart it brings Machines to what the state file says and goes on with the
// actions that were running.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Config says what an Emulator answers for and with.
type Config struct {
	// StateFile is where the state is kept, mode 0600. Empty means in memory only.
	StateFile string
	// Machines is the world that the API drives.
	Machines Machines
	// Tokens are the bearer tokens let in, each of exactly 64 characters.
	// All of them belong to one project and share its request budget.
	Tokens []string
	// IPv4Pool and IPv6Pool are what public addresses are taken from:
	// single IPv4 addresses, and a /64 for each IPv6.
	// Default: 198.18.0.0/16 and 2001:db8:1ab::/48.
	IPv4Pool netip.Prefix
	IPv6Pool netip.Prefix
	// Reserved is never given out, though it lies in a pool.
	Reserved []netip.Prefix
	// Images are the system images offered. Default: debian-13, debian-12.
	Images []string

	// RateLimit is the number of requests that a project may make per hour,
	// and at once when it was idle. Default 3600, as in the real cloud;
	// negative means without limit.
	RateLimit int
	// Datacenter brings back the datacenter of servers and primary IPs,
	// which the API had until July 2026.
	Datacenter bool
	// UnassignOnDelete brings back what the API did until May 2026: deleting
	// an assigned floating or primary IP unassigned it. Today such a request
	// is refused with must_be_unassigned.
	UnassignOnDelete bool
	// ActionDelay is the least time that any action is running. At 0, actions
	// in which no machine has a part are finished when they are answered.
	ActionDelay time.Duration
	// ActionTimeout is how long one action may take. Default 2 minutes.
	ActionTimeout time.Duration
	// CloseGrace is how long Close waits for running actions before it leaves
	// them to the next start. Default 5 seconds.
	CloseGrace time.Duration

	// Control serves what is under /_lab/ and not the emulator's own, such as
	// faults of hosts. The caller is authenticated before. It may be nil.
	Control http.Handler
	// Logger gets what the operator of the lab may want to know. May be nil.
	Logger *slog.Logger
}

// TokenLength is the length of an API token. The provider refuses all others.
const TokenLength = 64

func (c *Config) setDefaults() error {
	if c.Machines == nil {
		return errors.New("api: Config.Machines is missing")
	}
	if len(c.Tokens) == 0 {
		return errors.New("api: Config.Tokens is empty: nobody could call the API")
	}
	for i, t := range c.Tokens {
		if len(t) != TokenLength {
			return fmt.Errorf("api: token %d has %d characters; the provider accepts only %d", i, len(t), TokenLength)
		}
	}
	if !c.IPv4Pool.IsValid() {
		c.IPv4Pool = netip.MustParsePrefix("198.18.0.0/16")
	}
	if !c.IPv6Pool.IsValid() {
		c.IPv6Pool = netip.MustParsePrefix("2001:db8:1ab::/48")
	}
	if !c.IPv4Pool.Addr().Is4() {
		return fmt.Errorf("api: IPv4Pool %s is not IPv4", c.IPv4Pool)
	}
	if !c.IPv6Pool.Addr().Is6() || c.IPv6Pool.Bits() > 63 {
		return fmt.Errorf("api: IPv6Pool %s does not hold several /64", c.IPv6Pool)
	}
	c.IPv4Pool, c.IPv6Pool = c.IPv4Pool.Masked(), c.IPv6Pool.Masked()
	if len(c.Images) == 0 {
		c.Images = []string{"debian-13", "debian-12"}
	}
	if c.RateLimit == 0 {
		c.RateLimit = 3600
	}
	if c.ActionTimeout == 0 {
		c.ActionTimeout = 2 * time.Minute
	}
	if c.CloseGrace == 0 {
		c.CloseGrace = 5 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Emulator is the emulated API. It is an http.Handler for everything under
// /v1/ and /_lab/.
type Emulator struct {
	cfg     Config
	log     *slog.Logger
	world   Machines
	catalog catalog
	handler http.Handler
	budget  *budget
	recent  *recent
	jobs    *jobs

	// ctx ends when Close stops waiting for running actions.
	ctx    context.Context
	cancel context.CancelFunc

	// mu guards all below. It is never held during a call that can take time:
	// of Machines, only Running is called under it.
	mu       sync.Mutex
	state    *state
	version  uint64 // of state, counts changes
	settings Settings
	closed   bool
	// shutdowns are the orderly shutdowns under way, by server. Cutting the
	// power ends them.
	shutdowns map[int64]context.CancelFunc

	// file writes versions of state. See flush.
	file stateFile
}

// New makes an emulator with the state of cfg.StateFile, if there is one, and
// starts to bring Machines to that state and to go on with its actions. That
// happens in the background; Settle waits for it.
func New(cfg Config) (*Emulator, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	cat, err := newCatalog(cfg.Images)
	if err != nil {
		return nil, err
	}
	st, err := loadState(cfg.StateFile)
	if err != nil {
		return nil, err
	}
	e := &Emulator{
		cfg:     cfg,
		log:     cfg.Logger,
		world:   cfg.Machines,
		catalog: cat,
		recent:  newRecent(1000),
		state:   st,
		settings: Settings{
			RateLimit:        cfg.RateLimit,
			Datacenter:       cfg.Datacenter,
			UnassignOnDelete: cfg.UnassignOnDelete,
			ActionDelayMS:    cfg.ActionDelay.Milliseconds(),
		},
		shutdowns: map[int64]context.CancelFunc{},
		file:      stateFile{path: cfg.StateFile},
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.jobs = newJobs()
	e.budget = newBudget(cfg.RateLimit)
	e.handler = e.routes()
	e.reconcile()
	return e, nil
}

// ServeHTTP answers one request.
func (e *Emulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.handler.ServeHTTP(w, r)
}

// Settle waits until no action is running and Machines is in the state that
// the emulator reports. It returns ctx's error if that does not come about.
func (e *Emulator) Settle(ctx context.Context) error {
	if err := e.jobs.idle(ctx); err != nil {
		return fmt.Errorf("waiting for the emulator's running actions: %w", err)
	}
	return nil
}

// Close refuses further requests, waits for running actions as long as
// Config.CloseGrace, leaves the rest to the next start and writes the state.
// It does not touch the machines.
func (e *Emulator) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.mu.Unlock()

	// No job that has not begun is begun any more; those stay in the state as
	// running actions.
	e.jobs.stop()
	grace, done := context.WithTimeout(context.Background(), e.cfg.CloseGrace)
	defer done()
	if e.jobs.idle(grace) != nil {
		e.cancel()
		last, done := context.WithTimeout(context.Background(), 5*time.Second)
		defer done()
		if err := e.jobs.idle(last); err != nil {
			e.log.Warn("actions go on after Close: Machines does not heed its context")
		}
	}
	e.cancel()
	e.mu.Lock()
	version := e.version
	e.mu.Unlock()
	return e.flush(version)
}
