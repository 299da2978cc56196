package api

import (
	"context"
	"math/rand/v2"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The kinds of faults that can be ordered.
const (
	// FaultError answers matching requests with an error.
	FaultError = "error"
	// FaultDelay answers them later than usual.
	FaultDelay = "delay"
	// FaultRateLimit answers them as if the project's budget were used up.
	FaultRateLimit = "rate_limit"
	// FaultDrop closes the connection without an answer.
	FaultDrop = "drop"
	// FaultNeverBoots makes servers that are reported as running, but whose
	// machine is never started.
	FaultNeverBoots = "never_boots"
	// FaultAction lets actions end with an error, without doing anything.
	FaultAction = "action_error"
)

// Fault is something that shall go wrong.
type Fault struct {
	// ID is given by the emulator.
	ID   int64  `json:"id,omitempty"`
	Kind string `json:"kind"`
	// Match says which requests are meant. Not for never_boots and action_error.
	Match Match `json:"match,omitzero"`
	// Code, Message and Status are the error's, for error and action_error.
	// Without Status it is the code's own. Default: server_error, status 500.
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	Status  int    `json:"status,omitempty"`
	// DelayMS is how much later the answer comes, in milliseconds.
	DelayMS int `json:"delay_ms,omitempty"`
	// After lets error and drop do what was asked first and only then lose the
	// answer.
	After bool `json:"after,omitempty"`
	// Count is how often it happens; 0 means until it is deleted.
	Count int `json:"count,omitempty"`
	// Probability is how likely it is at each matching request, between 0 and
	// 1; 0 means always.
	Probability float64 `json:"probability,omitempty"`
	// Name is a shell pattern of the names of servers, for never_boots. It
	// counts whenever a server is started: a server that is reset after the
	// fault was deleted boots.
	Name string `json:"name,omitempty"`
	// Command is a shell pattern of the commands of actions, such as
	// create_server, for action_error.
	Command string `json:"command,omitempty"`
	// Hits is how often it has happened.
	Hits int `json:"hits,omitempty"`
}

// Match says which requests a fault is meant for.
type Match struct {
	// Method is an HTTP method; empty means any.
	Method string `json:"method,omitempty"`
	// Path is a regular expression for the path after /v1, such as
	// ^/servers/\d+$; empty means any.
	Path string `json:"path,omitempty"`
}

func (f *Fault) check() error {
	var v problems
	switch f.Kind {
	case FaultError, FaultRateLimit, FaultDrop, FaultAction:
	case FaultDelay:
		if f.DelayMS <= 0 {
			v.add("delay_ms", "must be more than 0")
		}
	case FaultNeverBoots:
		if f.Name == "" {
			v.add("name", "must be the name of a server or a pattern such as prod-*")
		}
	default:
		v.add("kind", "must be one of error, delay, rate_limit, drop, never_boots, action_error")
	}
	if _, err := regexp.Compile(f.Match.Path); err != nil {
		v.add("match.path", "is not a regular expression: %v", err)
	}
	for name, pattern := range map[string]string{"name": f.Name, "command": f.Command} {
		if _, err := path.Match(pattern, ""); err != nil {
			v.add(name, "is not a shell pattern: %v", err)
		}
	}
	if f.Probability < 0 || f.Probability > 1 {
		v.add("probability", "must be between 0 and 1")
	}
	if f.Count < 0 {
		v.add("count", "must not be negative")
	}
	if f.Status != 0 && (f.Status < 400 || f.Status > 599) {
		v.add("status", "must be between 400 and 599")
	}
	if v.any() {
		return v.err()
	}
	return nil
}

func (f *Fault) error(fallback string) *apiError {
	err := &apiError{Code: f.Code, Message: f.Message, Status: f.Status}
	if err.Code == "" {
		err.Code = "server_error"
	}
	if err.Message == "" {
		err.Message = fallback
	}
	if err.Code == "invalid_input" {
		err.Details = map[string]any{"fields": []field{{Name: "fault", Messages: []string{err.Message}}}}
	}
	return err
}

// meant says whether a fault applies to a request.
func (f *Fault) meant(r *http.Request) bool {
	switch f.Kind {
	case FaultNeverBoots, FaultAction:
		return false
	}
	if f.Match.Method != "" && !strings.EqualFold(f.Match.Method, r.Method) {
		return false
	}
	ok, err := regexp.MatchString(f.Match.Path, strings.TrimPrefix(r.URL.Path, "/v1"))
	return err == nil && ok
}

// hit counts a fault and drops it when it has happened often enough. The
// caller holds mu. Counts are saved with the next change of the state.
func (e *Emulator) hit(f *Fault) {
	f.Hits++
	if f.Count > 0 && f.Hits >= f.Count {
		e.state.Faults = slices.DeleteFunc(e.state.Faults, func(g *Fault) bool { return g == f })
	}
}

// faultsFor takes the faults that apply to a request.
func (e *Emulator) faultsFor(r *http.Request) []Fault {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []Fault
	for _, f := range slices.Clone(e.state.Faults) {
		if f.meant(r) && (f.Probability == 0 || rand.Float64() < f.Probability) {
			out = append(out, *f)
			e.hit(f)
			if f.Kind != FaultDelay {
				break // what comes after it would not show
			}
		}
	}
	return out
}

// faulty lets go wrong what was ordered to.
func (e *Emulator) faulty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, f := range e.faultsFor(r) {
			if f.After {
				next.ServeHTTP(newDiscarded(), r)
			}
			switch f.Kind {
			case FaultDelay:
				if !sleep(r.Context(), time.Duration(f.DelayMS)*time.Millisecond) {
					return
				}
			case FaultError:
				writeError(w, f.error("fault ordered by a test"))
				return
			case FaultRateLimit:
				w.Header().Set("RateLimit-Remaining", "0")
				writeError(w, failure("rate_limit_exceeded", "limit of requests reached (fault ordered by a test)"))
				return
			case FaultDrop:
				panic(http.ErrAbortHandler)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// discarded is an answer that nobody gets.
type discarded struct{ header http.Header }

func newDiscarded() *discarded                   { return &discarded{http.Header{}} }
func (d *discarded) Header() http.Header         { return d.header }
func (d *discarded) Write(b []byte) (int, error) { return len(b), nil }
func (d *discarded) WriteHeader(int)             {}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// neverBoots takes the fault that keeps a server from booting, if there is
// one. The caller holds mu.
func (e *Emulator) neverBoots(name string) bool {
	for _, f := range e.state.Faults {
		if ok, _ := path.Match(f.Name, name); ok && f.Kind == FaultNeverBoots {
			e.hit(f)
			return true
		}
	}
	return false
}

func (e *Emulator) findActionFault(command string) *Fault {
	for _, f := range e.state.Faults {
		if f.Kind != FaultAction {
			continue
		}
		if ok, _ := path.Match(f.Command, command); ok || f.Command == "" {
			return f
		}
	}
	return nil
}

// actionFault says whether an action is going to fail. The caller holds mu.
func (e *Emulator) actionFault(command string) bool { return e.findActionFault(command) != nil }

// takeActionFault takes the error that an action is to end with. The caller
// holds mu. It returns the interface, so that nil is nil.
func (e *Emulator) takeActionFault(command string) error {
	f := e.findActionFault(command)
	if f == nil {
		return nil
	}
	e.hit(f)
	err := f.error("fault ordered by a test")
	if f.Code == "" {
		err.Code = "action_failed"
	}
	return err
}
