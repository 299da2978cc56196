package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/sig"

	"github.com/infractl/infractl/cmd/infractl/internal/lease"
	"github.com/infractl/infractl/provision/desired"
)

const typeStack = "pulumi:pulumi:Stack"

// Deployed is what the state tells of an environment.
type Deployed struct {
	// Outputs are the outputs of the last run.
	Outputs map[string]any
	// Changed is when the state was last written.
	Changed time.Time
	// Unfinished is a run from this computer that has not ended well; nil if
	// there is none, or if another run is under way.
	Unfinished *Unfinished
	// Running says who is changing the environment now; empty if nobody is, as
	// far as can be known.
	Running string
}

// Unfinished is a run that has not ended well.
type Unfinished struct {
	// Operation is up or destroy.
	Operation string
	Since     time.Time
}

// Deployed reads the state without waiting for a run that is changing it. It
// needs neither the cloud nor the passphrase.
func (e *Engine) Deployed(ctx context.Context) (Deployed, error) {
	var d Deployed
	text, err := e.export(ctx)
	if isNoStack(err) {
		return d, e.noStackError()
	}
	if err != nil {
		return d, err
	}
	var doc struct {
		Deployment struct {
			Manifest struct {
				Time time.Time `json:"time"`
			} `json:"manifest"`
			Resources []struct {
				Type    string         `json:"type"`
				Outputs map[string]any `json:"outputs"`
			} `json:"resources"`
		} `json:"deployment"`
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		return d, fmt.Errorf("the environment's state cannot be read: %w", err)
	}
	d.Changed = doc.Deployment.Manifest.Time
	for _, r := range doc.Deployment.Resources {
		if r.Type == typeStack {
			d.Outputs = r.Outputs
		}
	}
	d.Running = e.running()
	if run, err := e.journal.read(); err == nil && run != nil && d.Running == "" {
		d.Unfinished = &Unfinished{Operation: run.Operation, Since: run.Since}
	}
	return d, nil
}

// running says who is changing the environment now; it is empty if nobody is.
func (e *Engine) running() string {
	if l, err := lease.Look(e.hold.place); err == nil && l != nil && !l.Process.Gone() {
		return (&lease.HeldError{State: *l}).Error()
	}
	return e.locks.living()
}

// living says who holds the lock and is alive, or may be: a process of another
// computer cannot be looked for.
func (l *locks) living() string {
	if l == nil {
		return ""
	}
	held, err := l.read()
	if err != nil {
		return ""
	}
	for _, k := range held {
		if k.Hostname != l.hostname || l.alive(k.PID, k.Timestamp) {
			return k.String()
		}
	}
	return ""
}

// Described says what the last run wanted to be on each host, by its short
// name. The secrets in it are in the clear.
func (e *Engine) Described(ctx context.Context) (map[string]desired.Host, error) {
	out, errText, _, err := e.run(ctx, "stack", "export", "--show-secrets", "--stack", e.Environment)
	if err != nil {
		return nil, explainCLI(cliError(err, errText))
	}
	return describedIn([]byte(out))
}

func describedIn(text []byte) (map[string]desired.Host, error) {
	st, err := parseState(text)
	if err != nil {
		return nil, err
	}
	hosts := map[string]desired.Host{}
	for _, r := range st.resources() {
		if r.Type != typeConfiguration {
			continue
		}
		open, err := revealed(r.Inputs)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.name(), err)
		}
		text, err := json.Marshal(open)
		if err != nil {
			return nil, err
		}
		var h desired.Host
		if err := json.Unmarshal(text, &h); err != nil {
			return nil, fmt.Errorf("%s: its configuration in the state cannot be read: %w", r.name(), err)
		}
		hosts[r.name()] = h
	}
	return hosts, nil
}

var errEncrypted = errors.New("a secret in the state is still encrypted")

// revealed is a value of the state with its secrets in their places.
func revealed(v any) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		// A secret stands in an exported state as an object with a signature
		// and, decrypted, the value's JSON text in plaintext.
		if v[sig.Key] == sig.Secret {
			plain, ok := v["plaintext"].(string)
			if !ok {
				return nil, errEncrypted
			}
			var inner any
			if err := json.Unmarshal([]byte(plain), &inner); err != nil {
				return nil, errors.New("a secret in the state is not JSON") // the error itself would show a part of it
			}
			return revealed(inner)
		}
		out := make(map[string]any, len(v))
		for k, element := range v {
			open, err := revealed(element)
			if err != nil {
				return nil, err
			}
			out[k] = open
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, element := range v {
			open, err := revealed(element)
			if err != nil {
				return nil, err
			}
			out[i] = open
		}
		return out, nil
	}
	return v, nil
}

// Holder is where the cloud sends a virtual IP.
type Holder struct {
	// Family is ipv4 or ipv6.
	Family string
	// Server is the name of the server; empty if the cloud sends it nowhere.
	Server string
}

// VIPHolders asks the cloud which servers it sends the virtual IPs to.
func (e *Engine) VIPHolders(ctx context.Context) ([]Holder, error) {
	return e.cloud.holders(ctx, e.Environment)
}

func (h *hetzner) holders(ctx context.Context, environment string) ([]Holder, error) {
	if h.none() {
		return nil, nil
	}
	var servers []*hcloud.Server
	var ips []*hcloud.FloatingIP
	opts := selector(environment)
	err := parallel(
		func() (err error) {
			servers, err = h.client.Server.AllWithOpts(ctx, hcloud.ServerListOpts{ListOpts: opts})
			return err
		},
		func() (err error) {
			ips, err = h.client.FloatingIP.AllWithOpts(ctx, hcloud.FloatingIPListOpts{ListOpts: opts})
			return err
		},
	)
	if err != nil {
		return nil, h.explain("cannot ask the cloud who holds the virtual IP", err)
	}
	names := map[int64]string{}
	for _, s := range servers {
		names[s.ID] = s.Name
	}
	var out []Holder
	for _, f := range ips {
		holder := Holder{Family: string(f.Type)}
		if f.Server != nil {
			if holder.Server = names[f.Server.ID]; holder.Server == "" {
				holder.Server = fmt.Sprintf("server %d, which is not of this environment", f.Server.ID)
			}
		}
		out = append(out, holder)
	}
	return out, nil
}

// Dir is infractl's own directory for the environment, which only its user can read.
func (e *Engine) Dir() string { return e.workDir }
