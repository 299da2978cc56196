package engine

import (
	"slices"
	"strings"
	"testing"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"github.com/infractl/infractl/stacks"
)

const peopled = `{"version":3,"deployment":{"resources":[
  {"urn":"u::hcloud:index/server:Server::web-10","type":"hcloud:index/server:Server","id":"1","outputs":{"name":"lab-web-10"}},
  {"urn":"u::hcloud:index/server:Server::web-2","type":"hcloud:index/server:Server","id":"2","outputs":{"name":"lab-web-2"}},
  {"urn":"u::hcloud:index/server:Server::lb-1","type":"hcloud:index/server:Server","id":"3","outputs":{"name":"lab-lb-1"}},
  {"urn":"u::hcloud:index/server:Server::web-11","type":"hcloud:index/server:Server","id":"4","outputs":{"name":"lab-web-11"}},
  {"urn":"u::infractl:host:Configuration::web-10","type":"infractl:host:Configuration","id":"web-10",
   "inputs":{"port":22},"outputs":{"name":"web-10","address":"198.51.100.10","port":2222,"user":"ops","hostKey":"ssh-ed25519 A"}},
  {"urn":"u::infractl:host:Configuration::web-2","type":"infractl:host:Configuration","id":"web-2",
   "outputs":{"name":"web-2","address":"198.51.100.2","port":22,"user":"ops","hostKey":"ssh-ed25519 B"}},
  {"urn":"u::infractl:host:Configuration::lb-1","type":"infractl:host:Configuration","id":"lb-1",
   "outputs":{"name":"lb-1","address":"198.51.100.1","port":22,"user":"ops","hostKey":"ssh-ed25519 C"}},
  {"urn":"u::infractl:host:Configuration::web-11","type":"infractl:host:Configuration","id":"web-11","inputs":{"address":"198.51.100.11"}}
]}}`

func TestMembersAreTheConfiguredHostsAndHowTheyAreReached(t *testing.T) {
	st, err := parseState([]byte(peopled))
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{Environment: "lab", state: st, inventory: inventory{vipHolder: "lab-lb-1"}}
	var got []string
	for _, m := range e.Members() {
		target := m.Fleet.Target(m.Host)
		got = append(got, strings.Join([]string{m.Name, m.Server, target.Address, target.User, target.HostKey}, " "))
		if (m.Name == "web-10") != (target.Port == 2222) {
			t.Errorf("%s is reached at port %d", m.Name, target.Port)
		}
		if m.HoldsVIP != (m.Name == "lb-1") {
			t.Errorf("%s holds the virtual IP: %v", m.Name, m.HoldsVIP)
		}
	}
	want := []string{
		"lb-1 lab-lb-1 198.51.100.1 ops ssh-ed25519 C",
		"web-2 lab-web-2 198.51.100.2 ops ssh-ed25519 B",
		"web-10 lab-web-10 198.51.100.10 ops ssh-ed25519 A",
	} // nothing was ever seen on web-11
	if !slices.Equal(got, want) {
		t.Errorf("members are\n%s", strings.Join(got, "\n"))
	}
	if got := e.Servers(); !slices.Equal(got["web"], []string{"web-2", "web-10", "web-11"}) || !slices.Equal(got["lb"], []string{"lb-1"}) {
		t.Errorf("servers are %v", got)
	}
}

// offer is a server type and where it is, sold out where a place begins with "-".
func offer(places ...string) *hcloud.ServerType {
	t := &hcloud.ServerType{}
	for _, p := range places {
		name, soldOut := strings.CutPrefix(p, "-")
		t.Locations = append(t.Locations, hcloud.ServerTypeLocation{Location: &hcloud.Location{Name: name}, Available: !soldOut})
	}
	return t
}

func TestATypeThatIsSoldOutIsNoticedWhereHostsAreMissing(t *testing.T) {
	spec := stacks.Environment{Tiers: map[string]stacks.Tier{
		"web": {Name: "web", Count: 4, Type: "cx23", Location: "fsn1"},
		"app": {Name: "app", Count: 2, Type: "cx33", Location: "fsn1"},
	}}
	types := map[string]*hcloud.ServerType{"cx23": offer("-fsn1", "nbg1", "hel1"), "cx33": offer("-fsn1", "-hel1")}
	got := checkStock(spec, catalog{types: types}, map[string]int{"web": 2, "app": 1})
	want := []string{
		"tier web needs 2 more, but cx23 is sold out in fsn1 at the moment; it is to be had in nbg1, hel1",
		"tier app needs 1 more, but cx33 is sold out in fsn1 at the moment; it is to be had nowhere",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for name, missing := range map[string]map[string]int{"nothing is missing": {}, "the tier is another": {"db": 1}} {
		if got := checkStock(spec, catalog{types: types}, missing); got != nil {
			t.Errorf("%s: %q", name, got)
		}
	}
	silent := map[string]*hcloud.ServerType{"cx23": offer("-fsn1", "-nbg1"), "cx33": offer("-fsn1")}
	if got := checkStock(spec, catalog{types: silent}, map[string]int{"web": 2}); got != nil {
		t.Errorf("an API that does not tell: %q", got)
	}
}

func TestServersOfOthersTakeRoomInTheNetwork(t *testing.T) {
	e := configured(t, smallConfig) // seven hosts
	for foreign, full := range map[int]bool{0: false, 93: false, 94: true} {
		problems := checkNetwork(e.Spec, inventory{foreign: foreign})
		if (len(problems) > 0) != full {
			t.Errorf("%d others: %v", foreign, problems)
		}
		if full && !strings.Contains(problems[0].Message, "has 94 that are not this environment's") {
			t.Errorf("%v", problems)
		}
	}
}
