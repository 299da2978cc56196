package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/auto"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/optrefresh"
	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"

	"github.com/infractl/infractl/stacks"
)

// Settling is one thing that has to be done before a change, so that the state
// and the cloud agree; or, found by Drift, what somebody has left in the cloud.
type Settling struct {
	// Operation is delete (from the cloud), forget (from the state) or leave.
	Operation string
	// Kind and Name say what it is, for people; ID is the cloud's.
	Kind, Name, ID string
	Reason         string
}

// settlings are the steps of a settlement, in its order.
func (s settlement) settlings() []Settling {
	var out []Settling
	for _, o := range s.remove {
		out = append(out, Settling{"delete", nouns[o.kind], o.name, o.id, "the last run made it, but could not keep track of it"})
	}
	for _, r := range s.gone {
		out = append(out, Settling{"forget", nouns[r.Type], r.name(), r.ID, "it is gone from the cloud; what the configuration has is made again"})
	}
	return out
}

// Look opens the environment to plan a change, and changes nothing. The plan
// that Preview makes then is that of a run which settles first what Look
// returns.
func (e *Engine) Look(ctx context.Context, o UpOptions) ([]Settling, error) {
	if err := e.Load(ctx, true); err != nil {
		return nil, err
	}
	if err := refuseResize(e.state, e.Spec, o.Resize); err != nil {
		return nil, err
	}
	s, err := e.acceptable(ctx, o)
	if err != nil {
		return nil, err
	}
	if len(s.gone)+len(s.pending) > 0 {
		if err := e.openSettled(ctx, s); err != nil {
			return nil, errors.Join(err, e.removeCopy())
		}
	}
	return s.settlings(), nil
}

// acceptable plans the settlement and fails if it, or a change after it, would
// lose what must not be lost.
func (e *Engine) acceptable(ctx context.Context, o UpOptions) (settlement, error) {
	s, err := e.compare(ctx)
	if err != nil {
		return s, err
	}
	if lost(e.state, s) {
		return s, e.lostError(s)
	}
	if err := refuseLostData(s.gone, o.Recreate); err != nil {
		return s, err
	}
	if err := refuseRemoval(e.state, e.Spec, s.gone); err != nil {
		return s, err
	}
	for _, o := range s.stray {
		e.say("%s carries this environment's labels, but is not in its state; it is left alone", o)
	}
	return s, nil
}

// refuseRemoval fails if the configuration no longer has what holds data or the
// environment's address. The engine would refuse to delete it too, but only
// after it has made all other changes.
func refuseRemoval(st *state, spec stacks.Environment, gone []record) error {
	wanted := map[string]bool{}
	for _, h := range spec.Hosts() {
		wanted[typeServer+" "+h.Name] = true
	}
	wanted[typeFloatingIP+" vip-ipv4"] = spec.VIP.IPv4
	wanted[typeFloatingIP+" vip-ipv6"] = spec.VIP.IPv6
	missing := map[string]bool{}
	for _, r := range gone {
		missing[r.URN] = true
	}
	for _, r := range st.resources() {
		if missing[r.URN] || wanted[r.Type+" "+r.name()] {
			continue
		}
		switch {
		case r.Type == typeServer && (r.Protect || strings.HasPrefix(r.name(), "db-")):
			return fail(Invalid, "Put it back into the configuration. Nothing but `infractl destroy` deletes a database host.",
				"%s would be deleted, and the data on it with it, because the configuration no longer has it", r.name())
		case r.Type == typeFloatingIP && r.Protect:
			key := strings.TrimPrefix(r.name(), "vip-")
			return fail(Invalid, fmt.Sprintf("Put infractl:vip.%s: true back. If the address is really to go, lift its protection, in the cloud console and with `pulumi state unprotect '%s'`.", key, r.URN),
				"the virtual IP %s (%s) would be deleted, and the address lost, because infractl:vip.%s is no longer true", r.name(), text(r.Outputs["ipAddress"]), key)
		}
	}
	return nil
}

// openSettled opens, in the place of the environment's stack, a copy of it in
// which the settlement was made, so that a change can be planned that comes
// after it. Secrets in the copy are as encrypted as in the state.
func (e *Engine) openSettled(ctx context.Context, s settlement) error {
	providers, _ := e.state.deployment["secrets_providers"].(map[string]any)
	if text(providers["type"]) == "service" {
		e.say("the plan is made as if nothing were gone: a state whose secrets the Pulumi service encrypts cannot be copied")
		return nil
	}
	drop := map[string]bool{}
	for _, r := range s.gone {
		drop[r.URN] = true
	}
	whole, err := e.state.encode()
	if err != nil {
		return err
	}
	if e.state, err = parseState(whole); err != nil {
		return err
	}
	e.state.drop(drop)
	e.state.clearPending()
	if whole, err = e.state.encode(); err != nil {
		return err
	}
	var deployment apitype.UntypedDeployment
	if err := json.Unmarshal(whole, &deployment); err != nil {
		return fmt.Errorf("the environment's state cannot be read: %w", err)
	}
	if err := e.makeCopyDir(); err != nil {
		return fmt.Errorf("cannot make a copy of the state to plan with: %w", err)
	}
	variables := e.Tools.variables()
	variables["PULUMI_BACKEND_URL"] = "file://" + filepath.Join(e.copyDir, "state")
	ws, err := e.workspace(ctx, e.copyDir, variables)
	if err != nil {
		return err
	}
	if e.stack, err = auto.NewStack(ctx, e.Environment, ws); err != nil {
		return explainCLI(err)
	}
	return explainCLI(e.stack.Import(ctx, deployment))
}

// makeCopyDir makes the directory that openSettled works in.
func (e *Engine) makeCopyDir() error {
	e.copyDir = filepath.Join(e.workDir, "settled")
	if err := os.RemoveAll(e.copyDir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(e.copyDir, "state"), 0o700); err != nil {
		return err
	}
	for _, name := range []string{"Pulumi.yaml", "Pulumi." + e.Environment + ".yaml"} {
		content, err := os.ReadFile(filepath.Join(e.workDir, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(e.copyDir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// removeCopy removes what openSettled has made.
func (e *Engine) removeCopy() error {
	if e.copyDir == "" {
		return nil
	}
	return os.RemoveAll(e.copyDir)
}

// Drift looks for what is different in the cloud and on the hosts from what was
// applied last. The events say so; the result is what is in the cloud and not
// in the state. It changes nothing. The environment must be open.
func (e *Engine) Drift(ctx context.Context, sink Sink) ([]Settling, error) {
	var err error
	if e.inventory, err = e.cloud.inventory(ctx, e.Environment); err != nil {
		return nil, err
	}
	s, err := e.compare(ctx)
	if err != nil {
		return nil, err
	}
	if lost(e.state, s) {
		return nil, e.lostError(s)
	}
	var found []Settling
	for _, o := range s.remove {
		found = append(found, Settling{"delete", nouns[o.kind], o.name, o.id, "the last run made it, but could not keep track of it; the next up deletes it"})
	}
	for _, o := range s.stray {
		found = append(found, Settling{"leave", nouns[o.kind], o.name, o.id, "it carries this environment's labels, but is not in its state"})
	}
	ch, done := pump(sink)
	opts := []optrefresh.Option{optrefresh.EventStreams(ch), optrefresh.Parallel(parallelism), optrefresh.SuppressProgress()}
	if hosts := configurationsOn(e.state, s.gone); len(hosts) > 0 {
		opts = append(opts, optrefresh.Exclude(hosts)) // there is nothing to log in to
	}
	_, err = e.stack.PreviewRefresh(ctx, opts...)
	done(err)
	if ctx.Err() != nil {
		return found, &Error{Kind: Interrupted, Err: errors.New("interrupted")}
	}
	return found, explainCLI(err)
}

// configurationsOn are the URNs of what was on servers that are gone.
func configurationsOn(st *state, gone []record) []string {
	servers := map[string]bool{}
	for _, r := range gone {
		if r.Type == typeServer {
			servers[r.URN] = true
		}
	}
	var out []string
	for _, r := range st.resources() {
		if r.Type == "infractl:host:Configuration" && servers[r.DeletedWith] {
			out = append(out, r.URN)
		}
	}
	return out
}
