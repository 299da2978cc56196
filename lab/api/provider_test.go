package api

import (
	"fmt"
	"sync"
	"testing"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

// The requests of this file are those that terraform-provider-hcloud makes for
// one operation, in their order and with their queries.

// ask sends a request and returns the answer's body, which must have a status.
func (l *lab) ask(method, path, body string, want int) map[string]any {
	l.t.Helper()
	status, _, answer := l.raw(method, "/v1"+path, testToken, body)
	if status != want {
		l.t.Fatalf("%s %s is answered %d %v, want %d", method, path, status, answer, want)
	}
	return answer
}

// field walks into an answer: names of objects and numbers of lists.
func walk(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			list, _ := v.([]any)
			if p >= len(list) {
				return nil
			}
			v = list[p]
		}
	}
	return v
}

func idOf(v any) int64 {
	n, _ := walk(v, "id").(float64)
	return int64(n)
}

// poll waits for actions as the provider does: all at once, by ID.
func (l *lab) poll(actions ...any) {
	l.t.Helper()
	for range 1000 {
		query, running := "", 0
		for _, a := range actions {
			if walk(a, "status") == "running" {
				query += fmt.Sprintf("id=%d&", idOf(a))
				running++
			}
		}
		if running == 0 {
			return
		}
		answer := l.ask("GET", "/actions?"+query+"page=1&per_page=50&sort=status&sort=id", "", 200)
		actions = walk(answer, "actions").([]any)
		if len(actions) != running {
			l.t.Fatalf("asked for %d actions, got %d", running, len(actions))
		}
		for _, a := range actions {
			if walk(a, "status") == "error" {
				l.t.Fatalf("action failed: %v", a)
			}
		}
	}
	l.t.Fatal("actions never end")
}

func TestTheProvidersWayToMakeAndDeleteAServer(t *testing.T) {
	l := newLab(t)
	key := walk(l.ask("POST", "/ssh_keys", fmt.Sprintf(`{"name":"ops","public_key":%q,"labels":{}}`, newPublicKey(t)), 201), "ssh_key")
	group := walk(l.ask("POST", "/placement_groups", `{"name":"web","type":"spread"}`, 201), "placement_group")

	if st := walk(l.ask("GET", "/server_types?name=cx23", "", 200), "server_types", 0); walk(st, "architecture") != "x86" {
		t.Fatalf("server type is %v", st)
	}
	image := walk(l.ask("GET", "/images?architecture=x86&include_deprecated=true&name=debian-13", "", 200), "images", 0)
	l.ask("GET", "/ssh_keys/ops", "", 404)
	if found := walk(l.ask("GET", "/ssh_keys?name=ops", "", 200), "ssh_keys", 0); idOf(found) != idOf(key) {
		t.Fatalf("found %v", found)
	}
	l.ask("GET", fmt.Sprintf("/placement_groups/%d", idOf(group)), "", 200)
	made := l.ask("POST", "/servers", fmt.Sprintf(
		`{"name":"lab-web-1","server_type":"cx23","image":%d,"ssh_keys":[%d],"location":"fsn1","user_data":"#cloud-config","start_after_create":true,"labels":{"infractl-tier":"web"},"placement_group":%d,"public_net":{"enable_ipv4":true,"enable_ipv6":true}}`,
		idOf(image), idOf(key), idOf(group)), 201)
	if walk(made, "root_password") != nil {
		t.Error("a root password is given although there is a key")
	}
	l.poll(walk(made, "action"))
	for _, a := range walk(made, "next_actions").([]any) {
		l.poll(a)
	}
	id := idOf(walk(made, "server"))
	read := walk(l.ask("GET", fmt.Sprintf("/servers/%d", id), "", 200), "server")
	for _, c := range []struct {
		path []any
		want any
	}{
		{[]any{"status"}, "running"},
		{[]any{"location", "name"}, "fsn1"},
		{[]any{"server_type", "name"}, "cx23"},
		{[]any{"image", "name"}, "debian-13"},
		{[]any{"backup_window"}, nil},
		{[]any{"placement_group", "name"}, "web"},
		{[]any{"datacenter"}, nil},
	} {
		if got := walk(read, c.path...); got != c.want {
			t.Errorf("%v is %v, want %v", c.path, got, c.want)
		}
	}

	l.ask("PUT", fmt.Sprintf("/servers/%d", id), `{"labels":{"infractl-tier":"web","x":"y"}}`, 200)
	l.ask("POST", fmt.Sprintf("/servers/%d/actions/shutdown", id), "", 201)
	l.settle()
	if got := walk(l.ask("GET", fmt.Sprintf("/servers/%d", id), "", 200), "server", "status"); got != "off" {
		t.Errorf("status is %v", got)
	}
	l.poll(walk(l.ask("DELETE", fmt.Sprintf("/servers/%d", id), "", 200), "action"))
	l.ask("GET", fmt.Sprintf("/servers/%d", id), "", 404)
	if list := walk(l.ask("GET", fmt.Sprintf("/servers?name=%d", id), "", 200), "servers").([]any); len(list) != 0 {
		t.Errorf("found %v", list)
	}
	l.ask("DELETE", fmt.Sprintf("/placement_groups/%d", idOf(group)), "", 204)
	l.ask("DELETE", fmt.Sprintf("/ssh_keys/%d", idOf(key)), "", 204)
}

func TestTheProvidersWayToMakeAndDeleteANetwork(t *testing.T) {
	l := newLab(t)
	id := idOf(walk(l.ask("POST", "/networks", `{"name":"lab","ip_range":"10.0.0.0/16","labels":{},"expose_routes_to_vswitch":false}`, 201), "network"))
	at := fmt.Sprintf("/networks/%d", id)
	// Pulumi makes the subnets of all tiers at once; none may be refused.
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			l.ask("GET", at, "", 200)
			l.poll(walk(l.ask("POST", at+"/actions/add_subnet", fmt.Sprintf(`{"type":"cloud","ip_range":"10.0.%d.0/24","network_zone":"eu-central"}`, i+1), 201), "action"))
		})
	}
	wg.Wait()
	if n := len(walk(l.ask("GET", at, "", 200), "network", "subnets").([]any)); n != 4 {
		t.Errorf("there are %d subnets", n)
	}
	s := l.newServer("lab-db-1")
	srv := fmt.Sprintf("/servers/%d", s.ID)
	l.poll(walk(l.ask("POST", srv+"/actions/attach_to_network", fmt.Sprintf(`{"network":%d,"ip":"10.0.4.11","alias_ips":[]}`, id), 201), "action"))
	l.ask("POST", srv+"/actions/attach_to_network", fmt.Sprintf(`{"network":%d,"ip":"10.0.4.11"}`, id), 422)
	if got := walk(l.ask("GET", srv, "", 200), "server", "private_net", 0, "ip"); got != "10.0.4.11" {
		t.Errorf("address is %v", got)
	}
	refused := l.ask("POST", at+"/actions/delete_subnet", `{"ip_range":"10.0.4.0/24"}`, 422)
	if errorCode(refused) != "service_error" || walk(refused, "error", "message") != "cannot remove subnet because servers are attached to it" {
		t.Errorf("answered %v; the provider looks for these words and tries again", refused)
	}
	l.poll(walk(l.ask("POST", srv+"/actions/detach_from_network", fmt.Sprintf(`{"network":%d}`, id), 201), "action"))
	for i := range 4 {
		l.poll(walk(l.ask("POST", at+"/actions/delete_subnet", fmt.Sprintf(`{"ip_range":"10.0.%d.0/24"}`, i+1), 201), "action"))
	}
	l.ask("DELETE", at, "", 204)
	l.ask("DELETE", at, "", 404)
	l.ask("POST", srv+"/actions/detach_from_network", fmt.Sprintf(`{"network":%d}`, id), 404)
}

func TestTheProvidersWayToApplyAndDeleteAFirewall(t *testing.T) {
	l := newLab(t)
	s := l.newServer("lab-lb-1")
	made := l.ask("POST", "/firewalls", `{"name":"lab-lb","labels":{},"rules":[{"direction":"in","protocol":"tcp","port":"80","source_ips":["0.0.0.0/0","::/0"],"description":"HTTP"}]}`, 201)
	l.poll(walk(made, "actions").([]any)...)
	at := fmt.Sprintf("/firewalls/%d", idOf(walk(made, "firewall")))
	to := fmt.Sprintf(`[{"type":"server","server":{"id":%d}}]`, s.ID)
	l.poll(walk(l.ask("POST", at+"/actions/apply_to_resources", `{"apply_to":`+to+`}`, 201), "actions").([]any)...)
	if again := l.ask("POST", at+"/actions/apply_to_resources", `{"apply_to":`+to+`}`, 422); errorCode(again) != "firewall_already_applied" {
		t.Errorf("answered %v", again)
	}
	got := walk(l.ask("GET", at, "", 200), "firewall")
	if walk(got, "applied_to", 0, "server", "id") != float64(s.ID) || walk(got, "rules", 0, "description") != "HTTP" {
		t.Errorf("firewall is %v", got)
	}
	l.poll(walk(l.ask("POST", at+"/actions/set_rules", `{"rules":[]}`, 201), "actions").([]any)...)
	l.ask("DELETE", at, "", 422)
	l.poll(walk(l.ask("POST", at+"/actions/remove_from_resources", `{"remove_from":`+to+`}`, 201), "actions").([]any)...)
	l.ask("DELETE", at, "", 204)
}

func TestTheProvidersWayToAssignAFloatingIPAndItsReverseDNS(t *testing.T) {
	l := newLab(t)
	s := l.newServer("lab-lb-1")
	made := l.ask("POST", "/floating_ips", `{"type":"ipv4","home_location":"fsn1","name":"lab-vip","labels":{}}`, 201)
	if walk(made, "action") != nil {
		t.Errorf("action is %v", walk(made, "action"))
	}
	id := idOf(walk(made, "floating_ip"))
	at := fmt.Sprintf("/floating_ips/%d", id)
	l.poll(walk(l.ask("POST", at+"/actions/assign", fmt.Sprintf(`{"server":%d}`, s.ID), 201), "action"))
	l.ask("GET", fmt.Sprintf("/servers/%d", s.ID), "", 200)
	ip := walk(l.ask("GET", at, "", 200), "floating_ip", "ip").(string)
	for _, name := range []string{`"www.example.com"`, "null"} {
		l.poll(walk(l.ask("POST", at+"/actions/change_dns_ptr", fmt.Sprintf(`{"ip":%q,"dns_ptr":%s}`, ip, name), 201), "action"))
	}
	if walk(l.ask("GET", fmt.Sprintf("/servers/%d", s.ID), "", 200), "server", "public_net", "floating_ips", 0) != float64(id) {
		t.Error("the server does not have it")
	}
	l.poll(walk(l.ask("POST", at+"/actions/unassign", "", 201), "action"))
	l.ask("DELETE", at, "", 204)
}

func TestActionsThatNeedNoMachineAreFinishedWhenAnswered(t *testing.T) {
	l := newLab(t)
	n := l.newNetwork("private", "10.0.0.0/16")
	a := must(l.client.Network.ChangeProtection(t.Context(), n, hcloud.NetworkChangeProtectionOpts{Delete: hcloud.Ptr(true)}))(t)
	if a.Status != hcloud.ActionStatusSuccess || a.Progress != 100 || a.Finished.IsZero() {
		t.Errorf("action is %+v", a)
	}
}
