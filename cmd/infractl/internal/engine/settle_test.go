package engine

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/infractl/infractl/stacks"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// exported is a small environment's state, as `pulumi stack export` prints it.
const exported = `{"version":3,"deployment":{
 "manifest":{"time":"2026-01-02T12:00:00Z","magic":"m","version":"v3.259.0"},
 "secrets_providers":{"type":"passphrase","state":{"salt":"v1:s"}},
 "resources":[
  {"urn":"urn:pulumi:lab::infractl::pulumi:pulumi:Stack::infractl-lab","custom":false,"type":"pulumi:pulumi:Stack"},
  {"urn":"urn:pulumi:lab::infractl::hcloud:index/network:Network::network","custom":true,"id":"10","type":"hcloud:index/network:Network"},
  {"urn":"urn:pulumi:lab::infractl::hcloud:index/network:Network$hcloud:index/networkSubnet:NetworkSubnet::web","custom":true,"id":"10-10.0.2.0/24","type":"hcloud:index/networkSubnet:NetworkSubnet","parent":"urn:pulumi:lab::infractl::hcloud:index/network:Network::network"},
  {"urn":"urn:pulumi:lab::infractl::infractl:tier:WebServer$infractl:secret:HostKey::web-1","custom":true,"id":"k1","type":"infractl:secret:HostKey"},
  {"urn":"urn:pulumi:lab::infractl::infractl:tier:WebServer$infractl:secret:HostKey::web-2","custom":true,"id":"k2","type":"infractl:secret:HostKey"},
  {"urn":"urn:pulumi:lab::infractl::hcloud:index/server:Server::web-1","custom":true,"id":"21","type":"hcloud:index/server:Server","outputs":{"serverType":"cx23"}},
  {"urn":"urn:pulumi:lab::infractl::hcloud:index/server:Server::db-1","custom":true,"id":"22","type":"hcloud:index/server:Server","protect":true,"outputs":{"serverType":"cx33"}},
  {"urn":"urn:pulumi:lab::infractl::hcloud:index/serverNetwork:ServerNetwork::web-1","custom":true,"id":"21-10","type":"hcloud:index/serverNetwork:ServerNetwork","deletedWith":"urn:pulumi:lab::infractl::hcloud:index/server:Server::web-1"},
  {"urn":"urn:pulumi:lab::infractl::infractl:host:Configuration::web-1","custom":true,"id":"c1","type":"infractl:host:Configuration","deletedWith":"urn:pulumi:lab::infractl::hcloud:index/server:Server::web-1","outputs":{"big":12345678901234567890}},
  {"urn":"urn:pulumi:lab::infractl::infractl:host:Configuration::lb-1","custom":true,"id":"c2","type":"infractl:host:Configuration",
   "dependencies":["urn:pulumi:lab::infractl::infractl:host:Configuration::web-1","urn:pulumi:lab::infractl::hcloud:index/network:Network::network"],
   "propertyDependencies":{"files":["urn:pulumi:lab::infractl::infractl:host:Configuration::web-1"]}}
 ],
 "pending_operations":[
  {"resource":{"urn":"urn:pulumi:lab::infractl::hcloud:index/server:Server::web-2","custom":true,"type":"hcloud:index/server:Server","inputs":{"name":"lab-web-2"}},"type":"creating"},
  {"resource":{"urn":"urn:pulumi:lab::infractl::hcloud:index/server:Server::web-1","custom":true,"id":"21","type":"hcloud:index/server:Server","inputs":{"name":"lab-web-1"}},"type":"updating"}
 ]}}`

func testState(t *testing.T) *state {
	t.Helper()
	s, err := parseState([]byte(exported))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// everything is what the cloud has when it agrees with the state.
func everything() inventory {
	return inventory{
		now:      noon,
		attached: map[string]int{"10-10.0.2.0/24": 1},
		objects: []object{
			{kind: typeNetwork, id: "10", name: "lab", created: noon.Add(-time.Hour)},
			{kind: typeSubnet, id: "10-10.0.2.0/24", name: "10.0.2.0/24"},
			{kind: typeServer, id: "21", name: "lab-web-1", created: noon.Add(-time.Hour)},
			{kind: typeServer, id: "22", name: "lab-db-1", created: noon.Add(-time.Hour), protected: true},
		},
	}
}

func nowhere(string, string) (bool, error) { return false, nil }

func TestAgreementNeedsNoSettlement(t *testing.T) {
	st := testState(t)
	st.clearPending()
	s, err := plan(st, everything(), time.Time{}, nowhere)
	if err != nil || !s.nothing() || len(s.stray) > 0 {
		t.Errorf("settlement %+v, %v", s, err)
	}
}

func TestWhatACutOffRunMadeIsRemoved(t *testing.T) {
	before, after := noon.Add(-time.Hour), noon.Add(time.Minute)
	cases := []struct {
		name          string
		object        object
		since         time.Time
		removed       bool
		strayReported bool
	}{
		{"a server whose creation is pending in the state", object{kind: typeServer, id: "30", name: "lab-web-2", created: before}, time.Time{}, true, false},
		{"a server made after the run began", object{kind: typeServer, id: "30", name: "lab-web-3", created: after}, noon, true, false},
		{"a server made in the second in which the run began", object{kind: typeServer, id: "30", name: "lab-web-3", created: noon.Add(-time.Second)}, noon, true, false},
		{"a server that is older than the run", object{kind: typeServer, id: "30", name: "lab-web-3", created: before}, noon, false, true},
		{"a server when the last run ended well", object{kind: typeServer, id: "30", name: "lab-web-3", created: after}, time.Time{}, false, true},
		{"a network made after the run began", object{kind: typeNetwork, id: "31", name: "lab", created: after}, noon, true, false},
		{"an empty subnet of the environment's network", object{kind: typeSubnet, id: "10-10.0.9.0/24", name: "10.0.9.0/24"}, noon, true, false},
		{"a subnet when the last run ended well", object{kind: typeSubnet, id: "10-10.0.9.0/24", name: "10.0.9.0/24"}, time.Time{}, false, true},
		{"a subnet of a network that goes itself", object{kind: typeSubnet, id: "31-10.0.9.0/24", name: "10.0.9.0/24"}, noon, false, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inv := everything()
			inv.objects = append(inv.objects, c.object)
			s, err := plan(testState(t), inv, c.since, nowhere)
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.Contains(s.remove, c.object); got != c.removed {
				t.Errorf("removed: %v (%v)", got, s.remove)
			}
			if got := slices.Contains(s.stray, c.object); got != c.strayReported {
				t.Errorf("reported: %v (%v)", got, s.stray)
			}
			for _, o := range s.remove {
				if o != c.object {
					t.Errorf("%v would be removed", o)
				}
			}
		})
	}
}

func TestSubnetWithServersInItIsLeftAlone(t *testing.T) {
	inv := everything()
	o := object{kind: typeSubnet, id: "10-10.0.9.0/24", name: "10.0.9.0/24"}
	inv.objects = append(inv.objects, o)
	inv.attached[o.id] = 1
	s, err := plan(testState(t), inv, noon, nowhere)
	if err != nil || len(s.remove) > 0 || len(s.stray) != 1 {
		t.Errorf("settlement %+v, %v", s, err)
	}
}

func TestServersGoBeforeWhatTheyUse(t *testing.T) {
	inv := everything()
	after := noon.Add(time.Minute)
	for i, kind := range []string{typeSSHKey, typeNetwork, typeGroup, typeFirewall, typeFloatingIP, typeServer} {
		inv.objects = append(inv.objects, object{kind: kind, id: fmt.Sprint(40 + i), name: "x", created: after})
	}
	s, err := plan(testState(t), inv, noon, nowhere)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, o := range s.remove {
		order = append(order, nouns[o.kind])
	}
	if got := strings.Join(order, ", "); got != "server, floating IP, firewall, placement group, network, SSH key" {
		t.Errorf("the order is %s", got)
	}
}

func TestWhatIsGoneIsForgottenWithWhatBelongsToIt(t *testing.T) {
	st := testState(t)
	inv := everything()
	inv.objects = slices.DeleteFunc(inv.objects, func(o object) bool { return o.id == "21" })
	s, err := plan(st, inv, time.Time{}, nowhere)
	if err != nil || len(s.gone) != 1 || s.gone[0].name() != "web-1" {
		t.Fatalf("settlement %+v, %v", s, err)
	}
	dropped := st.drop(map[string]bool{s.gone[0].URN: true})
	var names []string
	for _, r := range dropped {
		names = append(names, r.Type)
	}
	if got := strings.Join(names, " "); got != "hcloud:index/server:Server hcloud:index/serverNetwork:ServerNetwork infractl:host:Configuration" {
		t.Errorf("dropped: %s", got)
	}
	text, err := st.encode()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "Configuration::web-1") {
		t.Errorf("a reference to what was dropped is left:\n%s", text)
	}
	if !strings.Contains(string(text), "Configuration::lb-1") || !strings.Contains(string(text), "::db-1") {
		t.Error("too much was dropped")
	}
}

func TestPartsGoWithTheWhole(t *testing.T) {
	st := testState(t)
	dropped := st.drop(map[string]bool{"urn:pulumi:lab::infractl::hcloud:index/network:Network::network": true})
	if len(dropped) != 2 {
		t.Errorf("dropped: %v", dropped)
	}
}

func TestLabelsThatWereTakenOffDoNotMakeAServerGone(t *testing.T) {
	inv := everything()
	inv.objects = slices.DeleteFunc(inv.objects, func(o object) bool { return o.id == "21" })
	s, err := plan(testState(t), inv, time.Time{}, func(kind, id string) (bool, error) { return kind == typeServer && id == "21", nil })
	if err != nil || len(s.gone) > 0 {
		t.Errorf("gone: %v, %v", s.gone, err)
	}
}

func TestAnotherProjectIsNotTakenForADisaster(t *testing.T) {
	st := testState(t)
	s, err := plan(st, inventory{}, time.Time{}, nowhere)
	if err != nil || !lost(st, s) {
		t.Errorf("lost: %v, %v", s.gone, err)
	}
	inv := everything()
	inv.objects = inv.objects[:1]
	s, err = plan(st, inv, time.Time{}, nowhere)
	if err != nil || lost(st, s) {
		t.Errorf("one object is left, but: %v, %v", s.gone, err)
	}
}

func TestDatabaseHostThatIsGoneHasToBeNamed(t *testing.T) {
	gone := []record{{URN: "x::db-1", Type: typeServer, ID: "22", Protect: true}, {URN: "x::web-1", Type: typeServer, ID: "21"}}
	if err := refuseLostData(gone, nil); KindOf(err) != Invalid || !strings.Contains(err.Error(), "--recreate db-1") {
		t.Errorf("the error is %v", err)
	}
	if err := refuseLostData(gone, []string{"db-1"}); err != nil {
		t.Error(err)
	}
}

func TestResizeHasToBeNamed(t *testing.T) {
	spec := stacks.Environment{Tiers: map[string]stacks.Tier{
		"web": {Name: "web", Type: "cx33"}, "db": {Name: "db", Type: "cx33"},
	}}
	err := refuseResize(testState(t), spec, nil)
	if KindOf(err) != Invalid || !strings.Contains(err.Error(), "infractl:tiers.web.type: is cx33, but web-1 is a cx23") {
		t.Errorf("the error is %v", err)
	}
	if err := refuseResize(testState(t), spec, []string{"web-1"}); err != nil {
		t.Error(err)
	}
}

func TestStateGoesBackAsItCame(t *testing.T) {
	st := testState(t)
	text, err := st.encode()
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	for in, out := range map[string]*any{exported: &a, string(text): &b} {
		d := json.NewDecoder(strings.NewReader(in))
		d.UseNumber()
		if err := d.Decode(out); err != nil {
			t.Fatal(err)
		}
	}
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	if string(x) != string(y) {
		t.Errorf("the state has changed:\n%s\n%s", x, y)
	}
	if len(st.pending()) != 2 {
		t.Errorf("pending: %v", st.pending())
	}
	st.clearPending()
	if len(st.pending()) != 0 {
		t.Errorf("pending: %v", st.pending())
	}
	if !st.unprotect() || st.unprotect() {
		t.Error("unprotect does not say what it did")
	}
}

func TestJournalKeepsTheEarlierTime(t *testing.T) {
	j := journal{path: t.TempDir() + "/run.json"}
	if e, err := j.read(); e != nil || err != nil {
		t.Errorf("%v, %v", e, err)
	}
	for _, at := range []time.Time{noon, noon.Add(time.Hour)} {
		if err := j.begin(entry{Since: at, Endpoint: "a", Operation: "up"}); err != nil {
			t.Fatal(err)
		}
	}
	if e, err := j.read(); err != nil || e == nil || !e.Since.Equal(noon) {
		t.Errorf("%v, %v", e, err)
	}
	if err := j.end(); err != nil {
		t.Fatal(err)
	}
	if e, err := j.read(); e != nil || err != nil {
		t.Errorf("%v, %v", e, err)
	}
	if err := j.end(); err != nil {
		t.Error(err)
	}
}
