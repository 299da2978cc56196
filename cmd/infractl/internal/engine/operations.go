package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
)

// Event is one event of the Pulumi engine.
type Event = apitype.EngineEvent

// noStackError is what commands say that need an environment that exists.
func (e *Engine) noStackError() error {
	return fail(Invalid, "Run: infractl up --env "+e.Environment, "%s does not exist yet", e.Environment)
}

// Known opens an environment that must exist. A command that is going to change
// something takes the lock first.
func (e *Engine) Known(ctx context.Context) error {
	if err := e.Load(ctx, false); err != nil {
		return err
	}
	if !e.exists {
		return e.noStackError()
	}
	return nil
}

// ReadyToDestroy opens an environment to destroy it, and clears up after a run
// that was cut off, so that nothing of it stays behind. It takes the lock, which
// it keeps until Close. forget accepts that the cloud project has nothing of what
// the state knows.
func (e *Engine) ReadyToDestroy(ctx context.Context, forget bool) error {
	ctx, done, err := e.lockUntilClose(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := e.Load(ctx, false); err != nil {
		return err
	}
	if e.inventory, err = e.cloud.inventory(ctx, e.Environment); err != nil {
		return err
	}
	if !e.exists {
		return nil
	}
	return e.settleForDestroy(ctx, forget)
}

// Holdings counts what the state knows: servers and objects in all in the cloud,
// and servers of the user's own that infractl has configured.
func (e *Engine) Holdings() (servers, objects, own int) {
	for _, r := range e.state.resources() {
		if r.Type == typeServer {
			servers++
		}
		if r.ID != "" && nouns[r.Type] != "" {
			objects++
		}
		if yes, _ := r.Outputs["own"].(bool); yes && r.Type == typeConfiguration {
			own++
		}
	}
	return servers, objects, own
}

// Leftovers reports what still carries the environment's labels.
func (e *Engine) Leftovers(ctx context.Context) error {
	inv, err := e.cloud.inventory(ctx, e.Environment)
	if err != nil {
		return err
	}
	for _, o := range inv.objects {
		e.say("%s still carries the environment's labels, but was not in its state; delete it by hand if nobody needs it", o)
	}
	return nil
}

// Outputs are the outputs of the last run.
func (e *Engine) Outputs(ctx context.Context) (map[string]any, error) {
	if e.outputs != nil {
		return e.outputs, nil
	}
	out, errText, _, err := e.run(ctx, "stack", "output", "--json", "--stack", e.Environment)
	if err != nil {
		err = explainCLI(cliError(err, errText))
		if isNoStack(err) {
			return nil, e.noStackError()
		}
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		return nil, fmt.Errorf("the environment's outputs cannot be read: %w", err)
	}
	return m, nil
}

func isNoStack(err error) bool {
	return errors.Is(err, errNoStack)
}
