package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// Recorded are the outputs of the last run, as the loaded state has them; nil
// if it has none.
func (e *Engine) Recorded() map[string]any {
	for _, r := range e.state.resources() {
		if r.Type != "pulumi:pulumi:Stack" || r.Outputs == nil {
			continue
		}
		// The state keeps numbers as text; others expect what JSON gives.
		text, err := json.Marshal(r.Outputs)
		if err != nil {
			return nil
		}
		var out map[string]any
		if json.Unmarshal(text, &out) != nil {
			return nil
		}
		return out
	}
	return nil
}

// VIPHolder asks the cloud which load balancer the virtual IP is routed to. It
// returns its short name, or nothing if the virtual IP is routed to none. The
// virtual IPs of both families go together; while they are apart, that of IPv4
// counts, and apart is set.
func (e *Engine) VIPHolder(ctx context.Context) (holder string, apart bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	all, err := e.VIPHolders(ctx)
	if err != nil {
		return "", false, err
	}
	if len(all) == 0 {
		return "", false, fmt.Errorf("the cloud has no virtual IP of %s", e.Environment)
	}
	name, apart := together(all)
	return strings.TrimPrefix(name, e.Environment+"-"), apart, nil
}

// together is the server that all virtual IPs are routed to. If they are apart,
// it is that of IPv4.
func together(all []Holder) (server string, apart bool) {
	server = all[0].Server
	for _, h := range all {
		if h.Server != all[0].Server {
			apart = true
		}
		if h.Family == "ipv4" {
			server = h.Server
		}
	}
	return server, apart
}
