package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
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
	var servers []*hcloud.Server
	var ips []*hcloud.FloatingIP
	opts := selector(e.Environment)
	if err := parallel(
		func() (err error) {
			servers, err = e.cloud.client.Server.AllWithOpts(ctx, hcloud.ServerListOpts{ListOpts: opts})
			return err
		},
		func() (err error) {
			ips, err = e.cloud.client.FloatingIP.AllWithOpts(ctx, hcloud.FloatingIPListOpts{ListOpts: opts})
			return err
		},
	); err != nil {
		return "", false, e.cloud.explain("cannot ask the cloud for the virtual IP's holder", err)
	}
	if len(ips) == 0 {
		return "", false, fmt.Errorf("the cloud has no virtual IP of %s", e.Environment)
	}
	name, apart := holderOf(ips, servers)
	return strings.TrimPrefix(name, e.Environment+"-"), apart, nil
}

// holderOf is the name of the server that floating IPs are assigned to: that of
// IPv4 if there is one. apart says that they are not all assigned to the same.
func holderOf(ips []*hcloud.FloatingIP, servers []*hcloud.Server) (name string, apart bool) {
	names := map[int64]string{}
	for _, s := range servers {
		names[s.ID] = s.Name
	}
	first := true
	for _, ip := range ips {
		has := ""
		if ip.Server != nil {
			has = names[ip.Server.ID]
		}
		if !first && has != name {
			apart = true
		}
		if first || ip.Type == hcloud.FloatingIPTypeIPv4 {
			name = has
		}
		first = false
	}
	return name, apart
}
