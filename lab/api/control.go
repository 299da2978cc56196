package api

import (
	"encoding/json"
	"net/http"
	"slices"
)

// Settings can be changed while the emulator runs.
type Settings struct {
	// RateLimit, Datacenter, UnassignOnDelete and ActionDelayMS are those of Config.
	RateLimit        int   `json:"rate_limit"`
	Datacenter       bool  `json:"datacenter"`
	UnassignOnDelete bool  `json:"unassign_on_delete"`
	ActionDelayMS    int64 `json:"action_delay_ms"`
}

// controlRoutes is what the lab and its tests may ask besides the API itself.
func (e *Emulator) controlRoutes() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]handler{
		"POST /_lab/faults":        addFault,
		"GET /_lab/faults":         listFaults,
		"DELETE /_lab/faults":      clearFaults,
		"DELETE /_lab/faults/{id}": deleteFault,
		"GET /_lab/settings":       getSettings,
		"PUT /_lab/settings":       putSettings,
		"GET /_lab/requests":       listRequests,
		"DELETE /_lab/requests":    clearRequests,
	} {
		mux.Handle(pattern, e.serve(h))
	}
	if e.cfg.Control != nil {
		mux.Handle("/_lab/", e.cfg.Control)
	} else {
		mux.HandleFunc("/_lab/", noSuchRoute)
	}
	return mux
}

func addFault(c *call) (reply, error) {
	var f Fault
	if err := c.decode(&f); err != nil {
		return reply{}, err
	}
	if err := f.check(); err != nil {
		return reply{}, err
	}
	f.ID, f.Hits = c.s.id(), 0
	c.s.Faults = append(c.s.Faults, &f)
	return reply{http.StatusCreated, map[string]any{"fault": f}}, nil
}

func listFaults(c *call) (reply, error) {
	out := []Fault{}
	for _, f := range c.s.Faults {
		out = append(out, *f)
	}
	return reply{http.StatusOK, map[string]any{"faults": out}}, nil
}

func clearFaults(c *call) (reply, error) {
	c.s.Faults = nil
	return reply{status: http.StatusNoContent}, nil
}

func deleteFault(c *call) (reply, error) {
	id, err := c.pathID("id")
	if err != nil {
		return reply{}, err
	}
	before := len(c.s.Faults)
	c.s.Faults = slices.DeleteFunc(c.s.Faults, func(f *Fault) bool { return f.ID == id })
	if len(c.s.Faults) == before {
		return reply{}, notFound("fault", id)
	}
	return reply{status: http.StatusNoContent}, nil
}

func getSettings(c *call) (reply, error) {
	return reply{http.StatusOK, c.e.settings}, nil
}

// putSettings changes what the request names and leaves the rest.
func putSettings(c *call) (reply, error) {
	next := c.e.settings
	if err := c.decode(&next); err != nil {
		return reply{}, err
	}
	if next.ActionDelayMS < 0 {
		return reply{}, invalid("action_delay_ms", "must not be negative")
	}
	var named map[string]json.RawMessage
	if err := c.decode(&named); err != nil {
		return reply{}, err
	}
	if _, ok := named["rate_limit"]; ok {
		c.e.budget.set(next.RateLimit)
	}
	c.e.settings = next
	return reply{http.StatusOK, next}, nil
}

func listRequests(c *call) (reply, error) {
	return reply{http.StatusOK, map[string]any{"requests": c.e.recent.list()}}, nil
}

func clearRequests(c *call) (reply, error) {
	c.e.recent.clear()
	return reply{status: http.StatusNoContent}, nil
}
