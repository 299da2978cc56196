package api

import (
	"fmt"
	"net"
	"reflect"
	"slices"
	"testing"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

func tcpRule(port string, from ...string) hcloud.FirewallRule {
	r := hcloud.FirewallRule{Direction: hcloud.FirewallRuleDirectionIn, Protocol: hcloud.FirewallRuleProtocolTCP, Port: hcloud.Ptr(port)}
	for _, f := range from {
		r.SourceIPs = append(r.SourceIPs, *ipNet(f))
	}
	return r
}

func onServer(s *hcloud.Server) hcloud.FirewallResource {
	return hcloud.FirewallResource{Type: hcloud.FirewallResourceTypeServer, Server: &hcloud.FirewallResourceServer{ID: s.ID}}
}

func onLabels(sel string) hcloud.FirewallResource {
	return hcloud.FirewallResource{Type: hcloud.FirewallResourceTypeLabelSelector, LabelSelector: &hcloud.FirewallResourceLabelSelector{Selector: sel}}
}

// worldRules are the rules that the world enforces for a server, as text.
func (l *lab) worldRules(id int64) string {
	return look(l.world, func(w *recorder) string {
		r, ok := w.rules[id]
		if !ok || r == nil {
			return "none"
		}
		return fmt.Sprintf("in %v out %v", r.In, r.Out)
	})
}

func TestFirewallRulesReachTheServersTheyAreAppliedTo(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	s := l.newServer("lb-1")
	if got := l.worldRules(s.ID); got != "none" {
		t.Errorf("a server without firewall has %s", got)
	}
	r := must(l.client.Firewall.Create(ctx, hcloud.FirewallCreateOpts{
		Name: "lb", Rules: []hcloud.FirewallRule{tcpRule("80", "0.0.0.0/0", "::/0")}, ApplyTo: []hcloud.FirewallResource{onServer(s)},
	}))(t)
	var commands []string
	for _, a := range r.Actions {
		commands = append(commands, a.Command)
	}
	if want := []string{"set_firewall_rules", "apply_firewall"}; !slices.Equal(commands, want) {
		t.Errorf("actions are %v, want %v", commands, want)
	}
	l.wait(r.Actions...)
	if got := l.worldRules(s.ID); got != "in [{tcp 80 80 [0.0.0.0/0 ::/0]}] out []" {
		t.Errorf("rules are %s", got)
	}
	if fws := l.get(s.ID).PublicNet.Firewalls; len(fws) != 1 || fws[0].Status != hcloud.FirewallStatusApplied {
		t.Errorf("server has firewalls %+v", fws)
	}

	out := hcloud.FirewallRule{Direction: hcloud.FirewallRuleDirectionOut, Protocol: hcloud.FirewallRuleProtocolICMP, DestinationIPs: []net.IPNet{*ipNet("192.0.2.0/24")}}
	l.wait(must(l.client.Firewall.SetRules(ctx, r.Firewall, hcloud.FirewallSetRulesOpts{Rules: []hcloud.FirewallRule{tcpRule("8000-8080", "10.0.0.0/8"), tcpRule("any", "10.0.0.0/8"), out}}))(t)...)
	if got := l.worldRules(s.ID); got != "in [{tcp 8000 8080 [10.0.0.0/8]} {tcp 1 65535 [10.0.0.0/8]}] out [{icmp 0 0 [192.0.2.0/24]}]" {
		t.Errorf("rules are %s", got)
	}
	second := must(l.client.Firewall.Create(ctx, hcloud.FirewallCreateOpts{Name: "ssh", ApplyTo: []hcloud.FirewallResource{onServer(s)}, Rules: []hcloud.FirewallRule{tcpRule("22", "192.0.2.0/24")}}))(t)
	l.wait(second.Actions...)
	if got := look(l.world, func(w *recorder) int { return len(w.rules[s.ID].In) }); got != 3 {
		t.Errorf("two firewalls have %d inbound rules", got)
	}

	_, _, err := l.client.Firewall.ApplyResources(ctx, r.Firewall, []hcloud.FirewallResource{onServer(s)})
	wantCode(t, err, "firewall_already_applied")
	_, err = l.client.Firewall.Delete(ctx, r.Firewall)
	wantCode(t, err, "resource_in_use")
	got := must(l.client.Firewall.GetByID(ctx, r.Firewall.ID))(t)
	l.wait(must(l.client.Firewall.RemoveResources(ctx, r.Firewall, got.AppliedTo))(t)...)
	l.wait(must(l.client.Firewall.RemoveResources(ctx, second.Firewall, []hcloud.FirewallResource{onServer(s)}))(t)...)
	if got := l.worldRules(s.ID); got != "none" {
		t.Errorf("rules after removal are %s", got)
	}
	if _, err := l.client.Firewall.Delete(ctx, r.Firewall); err != nil {
		t.Error(err)
	}
}

func TestAFirewallWithoutRulesLetsNothingIn(t *testing.T) {
	l := newLab(t)
	fw := must(l.client.Firewall.Create(t.Context(), hcloud.FirewallCreateOpts{Name: "closed"}))(t).Firewall
	s := l.newServer("db-1", func(o *hcloud.ServerCreateOpts) {
		o.Firewalls = []*hcloud.ServerCreateFirewall{{Firewall: *fw}}
	})
	if got := l.worldRules(s.ID); got != "in [] out []" {
		t.Errorf("rules are %s", got)
	}
	// The rules are in force before the server boots.
	calls := l.world.since(0)
	if slices.Index(calls, fmt.Sprintf("firewall %d", s.ID)) > slices.Index(calls, fmt.Sprintf("start %d", s.ID)) {
		t.Errorf("the server was started without its firewall: %q", calls)
	}
}

func TestLabelSelectorsApplyFirewallsAsLabelsChange(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	tier := func(v string) func(*hcloud.ServerCreateOpts) {
		return func(o *hcloud.ServerCreateOpts) { o.Labels = map[string]string{"tier": v} }
	}
	web := l.newServer("web-1", tier("web"))
	db := l.newServer("db-1", tier("db"))
	r := must(l.client.Firewall.Create(ctx, hcloud.FirewallCreateOpts{
		Name: "web", Rules: []hcloud.FirewallRule{tcpRule("80", "0.0.0.0/0")}, ApplyTo: []hcloud.FirewallResource{onLabels("tier=web")},
	}))(t)
	l.wait(r.Actions...)
	const open = "in [{tcp 80 80 [0.0.0.0/0]}] out []"
	later := l.newServer("web-2", tier("web"))
	for s, want := range map[*hcloud.Server]string{web: open, db: "none", later: open} {
		if got := l.worldRules(s.ID); got != want {
			t.Errorf("%s has %s, want %s", s.Name, got, want)
		}
	}
	must(l.client.Server.Update(ctx, db, hcloud.ServerUpdateOpts{Labels: map[string]string{"tier": "web"}}))(t)
	must(l.client.Server.Update(ctx, web, hcloud.ServerUpdateOpts{Labels: map[string]string{}}))(t)
	l.settle()
	if l.worldRules(db.ID) != open || l.worldRules(web.ID) != "none" {
		t.Errorf("after relabelling: db %s, web %s", l.worldRules(db.ID), l.worldRules(web.ID))
	}
	got := must(l.client.Firewall.GetByID(ctx, r.Firewall.ID))(t)
	if len(got.AppliedTo) != 1 || len(got.AppliedTo[0].AppliedToResources) != 2 {
		t.Errorf("applied to %+v", got.AppliedTo)
	}
	_, _, err := l.client.Firewall.RemoveResources(ctx, r.Firewall, []hcloud.FirewallResource{onServer(db)})
	wantCode(t, err, "firewall_managed_by_label_selector")
	_, _, err = l.client.Firewall.ApplyResources(ctx, r.Firewall, []hcloud.FirewallResource{onLabels("tier=web")})
	wantCode(t, err, "firewall_already_applied")
	l.wait(must(l.client.Firewall.RemoveResources(ctx, r.Firewall, []hcloud.FirewallResource{onLabels("tier=web")}))(t)...)
	if l.worldRules(db.ID) != "none" {
		t.Errorf("after removal: %s", l.worldRules(db.ID))
	}
}

func TestImpossibleFirewallsAreRefused(t *testing.T) {
	l := newLab(t)
	n := l.newNetwork("private", "10.0.0.0/16", "10.0.1.0/24")
	private := l.newServer("db-1", func(o *hcloud.ServerCreateOpts) {
		o.PublicNet, o.Networks = &hcloud.ServerCreatePublicNet{}, []*hcloud.Network{n}
	})
	must(l.client.Firewall.Create(t.Context(), hcloud.FirewallCreateOpts{Name: "taken"}))(t)
	rule := func(s string) string { return `{"name":"a","rules":[` + s + `]}` }
	for body, code := range map[string]string{
		`{"name":"taken"}`: "uniqueness_error",
		rule(`{"direction":"in","protocol":"tcp","port":"80"}`):                                   "invalid_input",
		rule(`{"direction":"in","protocol":"tcp","source_ips":["0.0.0.0/0"]}`):                    "invalid_input",
		rule(`{"direction":"in","protocol":"tcp","port":"0","source_ips":["0.0.0.0/0"]}`):         "invalid_input",
		rule(`{"direction":"in","protocol":"tcp","port":"90-80","source_ips":["0.0.0.0/0"]}`):     "invalid_input",
		rule(`{"direction":"in","protocol":"icmp","port":"80","source_ips":["0.0.0.0/0"]}`):       "invalid_input",
		rule(`{"direction":"in","protocol":"tcp","port":"80","source_ips":["10.0.0.1/8"]}`):       "invalid_input",
		rule(`{"direction":"up","protocol":"tcp","port":"80","source_ips":["10.0.0.0/8"]}`):       "invalid_input",
		rule(`{"direction":"in","protocol":"sctp","source_ips":["10.0.0.0/8"]}`):                  "invalid_input",
		`{"name":"a","apply_to":[{"type":"server","server":{"id":7}}]}`:                           "firewall_resource_not_found",
		`{"name":"a","apply_to":[{"type":"server"}]}`:                                             "invalid_input",
		`{"name":"a","apply_to":[{"type":"label_selector","label_selector":{"selector":"a=("}}]}`: "invalid_input",
		fmt.Sprintf(`{"name":"a","apply_to":[{"type":"server","server":{"id":%d}}]}`, private.ID): "private_net_only_server",
	} {
		if _, _, answer := l.raw("POST", "/v1/firewalls", testToken, body); errorCode(answer) != code {
			t.Errorf("%s is answered %v, want %s", body, answer, code)
		}
	}
	if got := must(l.client.Firewall.List(t.Context(), hcloud.FirewallListOpts{Name: "a"}))(t); len(got) != 0 {
		t.Errorf("refused requests have left %v", got)
	}
}

func TestFirewallsAreUpdatedAndListed(t *testing.T) {
	l := newLab(t)
	fw := must(l.client.Firewall.Create(t.Context(), hcloud.FirewallCreateOpts{Name: "a", Labels: map[string]string{"x": "y"}}))(t).Firewall
	got := must(l.client.Firewall.Update(t.Context(), fw, hcloud.FirewallUpdateOpts{Name: "b"}))(t)
	if got.Name != "b" || !reflect.DeepEqual(got.Labels, map[string]string{"x": "y"}) {
		t.Errorf("firewall is %s %v", got.Name, got.Labels)
	}
	if list := must(l.client.Firewall.List(t.Context(), hcloud.FirewallListOpts{ListOpts: hcloud.ListOpts{LabelSelector: "x"}}))(t); len(list) != 1 {
		t.Errorf("listed %d", len(list))
	}
}
