package engine

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/infractl/infractl/stacks"
)

func tierOf(count int) stacks.Tier {
	return stacks.Tier{Count: count, Subnet: netip.MustParsePrefix("10.0.4.0/24")}
}

func TestAPlanNeverTakesADatabaseHostOrTheAddressAway(t *testing.T) {
	const address = `{"urn":"urn:pulumi:lab::infractl::hcloud:index/floatingIp:FloatingIp::vip-ipv4","id":"40","type":"hcloud:index/floatingIp:FloatingIp","protect":true,"outputs":{"ipAddress":"198.18.0.9"}},`
	st, err := parseState([]byte(strings.Replace(exported, `"resources":[`, `"resources":[`+address, 1)))
	if err != nil {
		t.Fatal(err)
	}
	spec := func(web, db int, vip bool) stacks.Environment {
		return stacks.Environment{Tiers: map[string]stacks.Tier{"web": tierOf(web), "db": tierOf(db)}, VIP: stacks.VIP{IPv4: vip}}
	}
	var db record
	for _, r := range st.resources() {
		if r.Type == typeServer && r.name() == "db-1" {
			db = r
		}
	}
	for name, c := range map[string]struct {
		spec stacks.Environment
		gone []record
		want []string
	}{
		"nothing goes":                  {spec(1, 1, true), nil, nil},
		"a web server goes":             {spec(0, 1, true), nil, nil},
		"the database host goes":        {spec(1, 0, true), nil, []string{"db-1 would be deleted", "infractl destroy"}},
		"it is gone from the cloud too": {spec(1, 0, true), []record{db}, nil},
		"the address goes":              {spec(1, 1, false), nil, []string{"the virtual IP vip-ipv4 (198.18.0.9) would be deleted", "Put infractl:vip.ipv4: true back"}},
	} {
		err := refuseRemoval(st, c.spec, c.gone)
		if c.want == nil {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || KindOf(err) != Invalid {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: the error does not say %q: %v", name, w, err)
			}
		}
	}
}

func TestWhatWasOnAServerThatIsGoneIsNotLookedAt(t *testing.T) {
	inv := everything()
	inv.objects = slices.DeleteFunc(inv.objects, func(o object) bool { return o.name == "lab-web-1" })
	st := testState(t)
	s, err := plan(st, inv, time.Time{}, nowhere)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"urn:pulumi:lab::infractl::infractl:host:Configuration::web-1"}
	if got := configurationsOn(st, s.gone); !slices.Equal(got, want) {
		t.Errorf("left out are %v, not %v", got, want)
	}
	if got := configurationsOn(st, nil); len(got) > 0 {
		t.Errorf("left out are %v though nothing is gone", got)
	}
}

func TestASettlementIsToldStepByStep(t *testing.T) {
	s := settlement{
		remove:  []object{{kind: typeServer, id: "30", name: "lab-web-2"}},
		gone:    []record{{URN: "urn:pulumi:lab::infractl::hcloud:index/server:Server::web-1", Type: typeServer, ID: "21"}},
		stray:   []object{{kind: typeServer, id: "31", name: "lab-x"}},
		pending: []pendingOperation{{}},
	}
	got, err := json.Marshal(s.settlings())
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"Operation":"delete","Kind":"server","Name":"lab-web-2","ID":"30","Reason":"the last run made it, but could not keep track of it"},` +
		`{"Operation":"forget","Kind":"server","Name":"web-1","ID":"21","Reason":"it is gone from the cloud; what the configuration has is made again"}]`
	if string(got) != want {
		t.Errorf("told is\n%s\nnot\n%s", got, want)
	}
}
