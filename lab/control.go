package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/infractl/infractl/lab/api"
	"github.com/infractl/infractl/lab/machine"
)

// daemonStatus is what the daemon tells of itself and its machines.
type daemonStatus struct {
	Dir      string   `json:"dir"`
	PID      int      `json:"pid"`
	Build    string   `json:"build"`
	Warnings []string `json:"warnings"`
	// Checked says whether the daemon has looked for all that it warns of.
	Checked  bool              `json:"checked"`
	Machines []machine.State   `json:"machines"`
	Faults   machine.FaultList `json:"faults"`
}

// hostFault is the order of a fault of one host or between two.
type hostFault struct {
	// Host is a server's name, or its name without the environment.
	Host string `json:"host,omitempty"`
	// To is the other host of a cut.
	To string `json:"to,omitempty"`
	// OneWay cuts only packets from Host to To.
	OneWay bool `json:"one_way,omitempty"`
	// Scope is public, private or both, which is the default.
	Scope machine.Scope `json:"scope,omitempty"`
}

// routes are the lab's own controls, beside those of the API emulator, which
// lets in only callers with a token.
func (d *daemon) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_lab/status", func(w http.ResponseWriter, _ *http.Request) {
		s := daemonStatus{Dir: d.dir, PID: os.Getpid(), Build: buildID(), Machines: d.fleet.List(), Faults: d.fleet.Faults()}
		d.mu.Lock()
		s.Warnings, s.Checked = append([]string{}, d.warnings...), d.checked
		d.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s) // the caller has gone; nothing to be done
	})
	for verb, order := range map[string]func(*http.Request, hostFault) error{
		"cut":     d.cut,
		"isolate": d.isolate,
		"freeze":  d.freeze,
		"thaw":    d.thaw,
		"kill":    d.kill,
		"heal":    func(r *http.Request, _ hostFault) error { return d.fleet.Heal(r.Context()) },
		"stock":   func(_ *http.Request, f hostFault) error { return d.fleet.Stock(f.Host) },
		"start":   d.startPlain,
		"remove":  d.removePlain,
	} {
		mux.HandleFunc("POST /_lab/hosts/"+verb, func(w http.ResponseWriter, r *http.Request) {
			var f hostFault
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&f); err != nil {
				answerError(w, http.StatusBadRequest, "json_error", err)
				return
			}
			if f.Scope == "" {
				f.Scope = machine.Both
			}
			if err := order(r, f); err != nil {
				status, code := http.StatusConflict, "conflict"
				if errors.Is(err, errUnknownHost) {
					status, code = http.StatusNotFound, "not_found"
				}
				answerError(w, status, code, err)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		})
	}
	mux.HandleFunc("POST /_lab/machines", d.makePlain)
	mux.HandleFunc("POST /_lab/machines/{host}/attach", d.attachPlain)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answerError(w, http.StatusNotFound, "not_found", fmt.Errorf("the lab has no %s %s", r.Method, r.URL.Path))
	})
	return mux
}

// answerError answers in the API's shape.
func answerError(w http.ResponseWriter, status int, code string, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"code": code, "message": err.Error()}})
}

func (d *daemon) find(name string) (int64, error) {
	s, err := findHost(d.fleet.List(), name)
	return s.ID, err
}

func (d *daemon) cut(r *http.Request, f hostFault) error {
	from, err := d.find(f.Host)
	if err != nil {
		return err
	}
	to, err := d.find(f.To)
	if err != nil {
		return err
	}
	if err := d.fleet.Cut(r.Context(), machine.Cut{From: from, To: to, Scope: f.Scope}); err != nil || f.OneWay {
		return err
	}
	return d.fleet.Cut(r.Context(), machine.Cut{From: to, To: from, Scope: f.Scope})
}

func (d *daemon) isolate(r *http.Request, f hostFault) error {
	id, err := d.find(f.Host)
	if err != nil {
		return err
	}
	return d.fleet.Isolate(r.Context(), machine.Isolation{Server: id, Scope: f.Scope})
}

func (d *daemon) freeze(r *http.Request, f hostFault) error {
	id, err := d.find(f.Host)
	if err != nil {
		return err
	}
	return d.fleet.Freeze(r.Context(), id)
}

func (d *daemon) thaw(r *http.Request, f hostFault) error {
	id, err := d.find(f.Host)
	if err != nil {
		return err
	}
	return d.fleet.Thaw(r.Context(), id)
}

func (d *daemon) kill(r *http.Request, f hostFault) error {
	id, err := d.find(f.Host)
	if err != nil {
		return err
	}
	return d.fleet.Kill(r.Context(), id)
}

func (d *daemon) startPlain(r *http.Request, f hostFault) error {
	id, err := d.find(f.Host)
	if err != nil {
		return err
	}
	return d.fleet.StartPlain(r.Context(), id)
}

func (d *daemon) removePlain(r *http.Request, f hostFault) error {
	id, err := d.find(f.Host)
	if err != nil {
		return err
	}
	return d.fleet.DeletePlain(r.Context(), id)
}

// makePlain makes a machine on the wire, for the lab's own key.
func (d *daemon) makePlain(w http.ResponseWriter, r *http.Request) {
	var p machine.Plain
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&p); err != nil {
		answerError(w, http.StatusBadRequest, "json_error", err)
		return
	}
	o := Options{Dir: d.dir}
	key, err := os.ReadFile(o.identityFile() + ".pub")
	if err != nil {
		answerError(w, http.StatusInternalServerError, "server_error", err)
		return
	}
	p.Keys = append(p.Keys, strings.TrimSpace(string(key)))
	made, err := d.fleet.MakePlain(r.Context(), p)
	if err != nil {
		answerError(w, http.StatusConflict, "conflict", err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(made) // the caller has gone; nothing to be done
}

// attachPlain gives a machine on the wire an address in a private network.
func (d *daemon) attachPlain(w http.ResponseWriter, r *http.Request) {
	var a api.Attachment
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&a); err != nil {
		answerError(w, http.StatusBadRequest, "json_error", err)
		return
	}
	id, err := d.find(r.PathValue("host"))
	if err == nil {
		err = d.fleet.AttachPlain(r.Context(), id, a)
	}
	if err != nil {
		answerError(w, http.StatusConflict, "conflict", err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// errUnknownHost is wrapped by errors about a name that no machine has.
var errUnknownHost = errors.New("the lab has no such host")

// findHost finds a machine by its name, or by its name without the
// environment where only one machine has it.
func findHost(machines []machine.State, name string) (machine.State, error) {
	var found, names []string
	i := -1
	for j, m := range machines {
		names = append(names, m.Name)
		if m.Name == name {
			return m, nil
		}
		if strings.HasSuffix(m.Name, "-"+name) && name != "" {
			found = append(found, m.Name)
			i = j
		}
	}
	slices.Sort(names)
	switch {
	case len(found) == 1:
		return machines[i], nil
	case len(found) > 1:
		slices.Sort(found)
		return machine.State{}, fmt.Errorf("%w: %q could be %s: give the whole name", errUnknownHost, name, strings.Join(found, " or "))
	case len(names) == 0:
		return machine.State{}, fmt.Errorf("%w: %q: there are none yet", errUnknownHost, name)
	}
	return machine.State{}, fmt.Errorf("%w: %q: there are %s", errUnknownHost, name, strings.Join(names, ", "))
}
