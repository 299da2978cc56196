package engine

import (
	"context"
	"fmt"
	"strings"

	"github.com/infractl/infractl/stacks"
)

const typeHostKey = "infractl:secret:HostKey"

// CheckReplace fails if a host cannot be replaced by a new server: one of the
// database, which holds data, and one that the configuration no longer has.
func (e *Engine) CheckReplace(name string) error {
	if tier, _, _ := strings.Cut(name, "-"); tier == stacks.TierDB {
		return fail(Invalid, fmt.Sprintf("To start over with an empty one, delete server %s-%s in the cloud console and run: infractl up --recreate %s", e.Environment, name, name),
			"%s holds the data, which a new server would not have", name)
	}
	for _, h := range e.Spec.Hosts() {
		if h.Name == name {
			return nil
		}
	}
	return fail(Invalid, "To remove it, run: infractl up --env "+e.Environment, "%s is not in the configuration any more, so no new one would take its place", name)
}

// Discard deletes a host's server in the cloud, and takes it out of the state
// with all that belongs to it, so that the next Up makes it anew, with another
// host key. The environment was opened with Ready. It may be cut off anywhere:
// what is gone from the cloud and not from the state, the next Ready takes out.
func (e *Engine) Discard(ctx context.Context, name string) error {
	if err := e.CheckReplace(name); err != nil {
		return err
	}
	server, urns := belongings(e.state, name)
	if server.ID != "" {
		// By its ID, whatever its labels: it is the one that the state knows.
		o, ok := e.inventory.find(typeServer, server.ID)
		if !ok {
			o = object{kind: typeServer, id: server.ID, name: text(server.Outputs["name"])}
		}
		if err := e.cloud.remove(ctx, o); err != nil {
			return err
		}
	}
	e.state.drop(urns)
	if err := e.importState(ctx); err != nil {
		return err
	}
	// Who holds the virtual IP, and which hosts are new, may be others now.
	var err error
	if e.inventory, err = e.cloud.inventory(ctx, e.Environment); err != nil {
		return err
	}
	return e.openStack(ctx)
}

// belongings are the server of a host as the state has it, and the names of all
// that has to be forgotten with it. What is deleted with the server need not be
// named.
func belongings(st *state, name string) (server record, urns map[string]bool) {
	urns = map[string]bool{}
	for _, r := range st.resources() {
		if r.name() != name {
			continue
		}
		switch r.Type {
		case typeServer:
			server = r
			urns[r.URN] = true
		case typeHostKey, typeConfiguration:
			urns[r.URN] = true
		}
	}
	return server, urns
}
