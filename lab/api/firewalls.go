package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// firewall is a firewall, applied to servers and to all that selectors match.
type firewall struct {
	base
	Rules     []schema.FirewallRule `json:"rules"`
	Servers   []int64               `json:"servers,omitempty"`
	Selectors []string              `json:"selectors,omitempty"`
}

// maxRules and maxFirewalls are limits that Hetzner documents: rules of a
// firewall, and firewalls of a server.
const (
	maxRules     = 50
	maxFirewalls = 5
)

func (f *firewall) ref() resource { return resource{"firewall", f.ID} }

// firewallsOf are the firewalls that count for a server, by ID.
func (s *state) firewallsOf(srv *server) []int64 {
	out := []int64{}
	if srv.IPv4 == 0 && srv.IPv6 == 0 {
		return out // they are for public interfaces only
	}
	for _, f := range byID(s.Firewalls) {
		if slices.Contains(f.Servers, srv.ID) || slices.ContainsFunc(f.Selectors, func(sel string) bool { return selects(sel, srv) }) {
			out = append(out, f.ID)
		}
	}
	return out
}

func selects(raw string, srv *server) bool {
	sel, err := parseSelector(raw)
	return err == nil && len(sel) > 0 && sel.matches(srv.Labels)
}

// covered are the servers that a firewall counts for, by ID.
func (s *state) covered(f *firewall) []int64 {
	out := []int64{}
	for _, srv := range byID(s.Servers) {
		if slices.Contains(s.firewallsOf(srv), f.ID) {
			out = append(out, srv.ID)
		}
	}
	return out
}

func (c *call) viewFirewall(f *firewall) schema.Firewall {
	v := schema.Firewall{
		ID: f.ID, Name: f.Name, Labels: f.Labels, Created: f.Created,
		Rules: []schema.FirewallRule{}, AppliedTo: []schema.FirewallResource{},
	}
	v.Rules = append(v.Rules, f.Rules...)
	for _, id := range f.Servers {
		v.AppliedTo = append(v.AppliedTo, serverResource(id))
	}
	for _, sel := range f.Selectors {
		r := schema.FirewallResource{Type: "label_selector", LabelSelector: &schema.FirewallResourceLabelSelector{Selector: sel}}
		for _, srv := range byID(c.s.Servers) {
			if selects(sel, srv) {
				r.AppliedToResources = append(r.AppliedToResources, serverResource(srv.ID))
			}
		}
		v.AppliedTo = append(v.AppliedTo, r)
	}
	return v
}

func serverResource(id int64) schema.FirewallResource {
	return schema.FirewallResource{Type: "server", Server: &schema.FirewallResourceServer{ID: id}}
}

func (c *call) pathFirewall() (*firewall, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	return find(c.s.Firewalls, "firewall", id)
}

func listFirewalls(c *call) (reply, error) {
	return listRecords(c, "firewalls", c.s.Firewalls, nil, func(f *firewall) any { return c.viewFirewall(f) })
}

func getFirewall(c *call) (reply, error) {
	f, err := c.pathFirewall()
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, map[string]any{"firewall": c.viewFirewall(f)}}, nil
}

func createFirewall(c *call) (reply, error) {
	var req schema.FirewallCreateRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if err := checkName(req.Name); err != nil {
		return reply{}, err
	}
	if err := checkLabels(req.Labels); err != nil {
		return reply{}, err
	}
	if err := unique(c.s.Firewalls, "firewall", req.Name, 0); err != nil {
		return reply{}, err
	}
	rules, err := checkRules(req.Rules)
	if err != nil {
		return reply{}, err
	}
	f := &firewall{Rules: rules}
	if err := c.checkTargets(f, req.ApplyTo); err != nil {
		return reply{}, err
	}
	f.base = c.newBase(req.Name, req.Labels)
	c.s.Firewalls[f.ID] = f
	actions := []*action{}
	if len(rules) > 0 {
		actions = append(actions, c.done("set_firewall_rules", f.ref()))
	}
	actions = append(actions, c.applyTo(f, req.ApplyTo)...)
	return reply{http.StatusCreated, map[string]any{"firewall": c.viewFirewall(f), "actions": views(actions)}}, nil
}

func updateFirewall(c *call) (reply, error) {
	f, err := c.pathFirewall()
	if err != nil {
		return reply{}, err
	}
	var req schema.FirewallUpdateRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if err := rename(c.s.Firewalls, "firewall", f, deref(req.Name), req.Labels); err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, map[string]any{"firewall": c.viewFirewall(f)}}, nil
}

func deleteFirewall(c *call) (reply, error) {
	f, err := c.pathFirewall()
	if err != nil {
		return reply{}, err
	}
	if len(f.Servers) > 0 || len(f.Selectors) > 0 {
		return reply{}, failure("resource_in_use", "firewall with ID '%d' is still in use", f.ID)
	}
	delete(c.s.Firewalls, f.ID)
	return reply{status: http.StatusNoContent}, nil
}

func setRules(c *call) (reply, error) {
	f, err := c.pathFirewall()
	if err != nil {
		return reply{}, err
	}
	var req schema.FirewallActionSetRulesRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	rules, err := checkRules(req.Rules)
	if err != nil {
		return reply{}, err
	}
	f.Rules = rules
	actions := []*action{c.done("set_firewall_rules", f.ref())}
	for _, id := range c.s.covered(f) {
		actions = append(actions, c.firewallAction("apply_firewall", f, id))
	}
	return reply{http.StatusCreated, map[string]any{"actions": views(actions)}}, nil
}

// firewallAction tells the world of a server's firewalls as they are now.
func (c *call) firewallAction(command string, f *firewall, id int64) *action {
	return c.start(&action{
		Command: command, Task: "set_firewall", Queue: serverRef(id).key(),
		Resources: []resource{serverRef(id), f.ref()}, Args: actionArgs{Server: id},
	})
}

func applyFirewall(c *call) (reply, error) {
	f, err := c.pathFirewall()
	if err != nil {
		return reply{}, err
	}
	var req schema.FirewallActionApplyToResourcesRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if len(req.ApplyTo) == 0 {
		return reply{}, invalid("apply_to", "must not be empty")
	}
	if err := c.checkTargets(f, req.ApplyTo); err != nil {
		return reply{}, err
	}
	return reply{http.StatusCreated, map[string]any{"actions": views(c.applyTo(f, req.ApplyTo))}}, nil
}

// checkTargets refuses what a firewall cannot be applied to.
func (c *call) checkTargets(f *firewall, targets []schema.FirewallResource) error {
	var seen []int64
	for _, t := range targets {
		switch {
		case t.Type == "server" && t.Server != nil:
			srv, ok := c.s.Servers[t.Server.ID]
			switch {
			case !ok:
				return failure("firewall_resource_not_found", "server with ID '%d' not found", t.Server.ID)
			case slices.Contains(seen, srv.ID):
				return failure("server_already_added", "server %s is given twice", srv.Name)
			case slices.Contains(f.Servers, srv.ID):
				return failure("firewall_already_applied", "firewall %d is already applied to server %s", f.ID, srv.Name)
			case srv.IPv4 == 0 && srv.IPv6 == 0:
				return failure("private_net_only_server", "server %s has no public interface", srv.Name)
			case len(c.s.firewallsOf(srv)) >= maxFirewalls && !slices.Contains(c.s.firewallsOf(srv), f.ID):
				return failure("resource_limit_exceeded", "server %s has %d firewalls, which is the most it can have", srv.Name, maxFirewalls)
			}
			seen = append(seen, srv.ID)
		case t.Type == "label_selector" && t.LabelSelector != nil:
			sel, err := parseSelector(t.LabelSelector.Selector)
			switch {
			case err != nil:
				return invalid("apply_to.label_selector.selector", "%v", err)
			case len(sel) == 0:
				return invalid("apply_to.label_selector.selector", "must not be empty")
			case slices.Contains(f.Selectors, t.LabelSelector.Selector):
				return failure("firewall_already_applied", "firewall %d is already applied to %s", f.ID, t.LabelSelector.Selector)
			}
		default:
			return invalid("apply_to.type", "must be server or label_selector, with the field of that name")
		}
	}
	return nil
}

// applyTo applies a firewall to what was checked before.
func (c *call) applyTo(f *firewall, targets []schema.FirewallResource) []*action {
	var actions []*action
	before := c.s.covered(f)
	for _, t := range targets {
		if t.Type == "server" {
			f.Servers = append(f.Servers, t.Server.ID)
			actions = append(actions, c.firewallAction("apply_firewall", f, t.Server.ID))
			continue
		}
		f.Selectors = append(f.Selectors, t.LabelSelector.Selector)
		for _, id := range c.s.covered(f) {
			if !slices.Contains(before, id) && !slices.Contains(f.Servers, id) {
				actions = append(actions, c.firewallAction("apply_firewall", f, id))
			}
		}
	}
	return actions
}

func removeFirewall(c *call) (reply, error) {
	f, err := c.pathFirewall()
	if err != nil {
		return reply{}, err
	}
	var req schema.FirewallActionRemoveFromResourcesRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if len(req.RemoveFrom) == 0 {
		return reply{}, invalid("remove_from", "must not be empty")
	}
	for _, t := range req.RemoveFrom {
		switch {
		case t.Type == "server" && t.Server != nil:
			srv, ok := c.s.Servers[t.Server.ID]
			switch {
			case !ok:
				return reply{}, failure("firewall_resource_not_found", "server with ID '%d' not found", t.Server.ID)
			case slices.Contains(f.Servers, srv.ID):
			case slices.Contains(c.s.firewallsOf(srv), f.ID):
				return reply{}, failure("firewall_managed_by_label_selector", "firewall %d is applied to server %s by a label selector", f.ID, srv.Name)
			}
		case t.Type == "label_selector" && t.LabelSelector != nil:
			if !slices.Contains(f.Selectors, t.LabelSelector.Selector) {
				return reply{}, failure("firewall_resource_not_found", "firewall %d is not applied to %s", f.ID, t.LabelSelector.Selector)
			}
		default:
			return reply{}, invalid("remove_from.type", "must be server or label_selector, with the field of that name")
		}
	}
	before := c.s.covered(f)
	var asked []int64
	for _, t := range req.RemoveFrom {
		if t.Type == "server" {
			f.Servers = slices.DeleteFunc(f.Servers, func(id int64) bool { return id == t.Server.ID })
			asked = append(asked, t.Server.ID)
		} else {
			f.Selectors = slices.DeleteFunc(f.Selectors, func(s string) bool { return s == t.LabelSelector.Selector })
		}
	}
	after := c.s.covered(f)
	actions := []*action{}
	for _, id := range before {
		if !slices.Contains(after, id) || slices.Contains(asked, id) {
			actions = append(actions, c.firewallAction("remove_firewall", f, id))
		}
	}
	return reply{http.StatusCreated, map[string]any{"actions": views(actions)}}, nil
}

// checkRules checks rules and brings their addresses to the form that the API
// reports.
func checkRules(in []schema.FirewallRuleRequest) ([]schema.FirewallRule, error) {
	if len(in) > maxRules {
		return nil, invalid("rules", "has %d rules, the most is %d", len(in), maxRules)
	}
	var v problems
	out := []schema.FirewallRule{}
	for i, r := range in {
		at := func(field string) string { return fmt.Sprintf("rules[%d].%s", i, field) }
		rule := schema.FirewallRule{
			Direction: r.Direction, Protocol: r.Protocol, Port: r.Port, Description: r.Description,
			SourceIPs: []string{}, DestinationIPs: []string{},
		}
		peers, field, other := r.SourceIPs, "source_ips", r.DestinationIPs
		into := &rule.SourceIPs
		switch r.Direction {
		case "in":
		case "out":
			peers, field, other, into = r.DestinationIPs, "destination_ips", r.SourceIPs, &rule.DestinationIPs
		default:
			v.add(at("direction"), "must be in or out")
		}
		if len(other) > 0 {
			v.add(at("direction"), "an %s rule takes %s only", r.Direction, field)
		}
		if len(peers) == 0 {
			v.add(at(field), "must not be empty")
		}
		for _, p := range peers {
			prefix, err := netip.ParsePrefix(p)
			if err != nil || prefix != prefix.Masked() {
				v.add(at(field), "'%s' is not a range in CIDR notation without host bits", p)
				continue
			}
			*into = append(*into, prefix.String())
		}
		switch r.Protocol {
		case "tcp", "udp":
			if _, _, err := parsePorts(deref(r.Port)); err != nil {
				v.add(at("port"), "%v", err)
			}
		case "icmp", "esp", "gre":
			if r.Port != nil {
				v.add(at("port"), "is not allowed for %s", r.Protocol)
			}
		default:
			v.add(at("protocol"), "must be tcp, udp, icmp, esp or gre")
		}
		if len(deref(r.Description)) > 255 {
			v.add(at("description"), "is longer than 255 characters")
		}
		out = append(out, rule)
	}
	if v.any() {
		return nil, v.err()
	}
	return out, nil
}

// parsePorts reads a port, a range such as 8000-8080, or any.
func parsePorts(s string) (first, last uint16, err error) {
	if s == "any" {
		return 1, 65535, nil
	}
	from, to, ranged := strings.Cut(s, "-")
	if !ranged {
		to = from
	}
	a, erra := strconv.ParseUint(from, 10, 16)
	b, errb := strconv.ParseUint(to, 10, 16)
	if erra != nil || errb != nil || a == 0 || a > b {
		return 0, 0, fmt.Errorf("'%s' is not a port between 1 and 65535, a range of ports, or any", s)
	}
	return uint16(a), uint16(b), nil
}

// merged are the rules that count for a server, nil when it has no firewall.
func (s *state) merged(ids []int64) *FirewallRules {
	if len(ids) == 0 {
		return nil
	}
	out := &FirewallRules{}
	for _, id := range ids {
		for _, r := range s.Firewalls[id].Rules {
			rule := FirewallRule{Protocol: r.Protocol}
			if r.Port != nil {
				rule.First, rule.Last, _ = parsePorts(*r.Port) // was checked
			}
			peers := r.SourceIPs
			if r.Direction == "out" {
				peers = r.DestinationIPs
			}
			for _, p := range peers {
				rule.Peers = append(rule.Peers, netip.MustParsePrefix(p))
			}
			if r.Direction == "out" {
				out.Out = append(out.Out, rule)
			} else {
				out.In = append(out.In, rule)
			}
		}
	}
	return out
}

// setFirewall tells the world which rules count for a server.
func (e *Emulator) setFirewall(ctx context.Context, id int64) (func(*state), error) {
	e.mu.Lock()
	srv, ok := e.state.Servers[id]
	if !ok {
		e.mu.Unlock()
		return func(*state) {}, nil // deleted meanwhile, and its rules with it
	}
	ids := e.state.firewallsOf(srv)
	rules := e.state.merged(ids)
	e.mu.Unlock()
	if err := e.world.SetFirewall(ctx, id, rules); err != nil {
		return nil, fmt.Errorf("applying firewalls to server %d: %w", id, err)
	}
	return func(s *state) {
		if srv, ok := s.Servers[id]; ok {
			srv.Firewalls = ids
		}
	}, nil
}

func (e *Emulator) firewallTask(ctx context.Context, a action) (func(*state), error) {
	return e.setFirewall(ctx, a.Args.Server)
}

// refreshFirewalls tells the world again, without an action: what changed was
// not the firewall but whom it selects.
func (c *call) refreshFirewalls(id int64) {
	e := c.e
	c.later(serverRef(id).key(), func() {
		ctx, cancel := context.WithTimeout(e.ctx, e.cfg.ActionTimeout)
		defer cancel()
		apply, err := e.setFirewall(ctx, id)
		if err == nil {
			err = e.update(apply)
		}
		if err != nil {
			e.log.Error("firewalls not refreshed", "server", id, "error", err)
		}
	})
}
