package stacks

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// line writes machines as "app-1,web-1" for each, hosts in the order of their tiers.
func line(machines []Machine) string {
	var out []string
	for _, m := range machines {
		var names []string
		for _, h := range m.Hosts {
			names = append(names, h.Name)
		}
		out = append(out, strings.Join(names, ","))
	}
	return strings.Join(out, " ")
}

// sketch makes machines of such a line, in any order.
func sketch(t *testing.T, text string) []Machine {
	t.Helper()
	e := Environment{Name: "prod", Tiers: map[string]Tier{}, Inventory: Inventory{Tiers: map[string][]*OwnServer{}}}
	placed := map[string]*OwnServer{}
	for i, machine := range strings.Fields(text) {
		s := &OwnServer{Address: fmt.Sprintf("192.0.2.%d", i)}
		for _, name := range strings.Split(machine, ",") {
			placed[name] = s
		}
	}
	for _, tier := range TierNames() {
		n := 0
		for ; placed[shortName(tier, n+1)] != nil; n++ {
			e.Inventory.Tiers[tier] = append(e.Inventory.Tiers[tier], placed[shortName(tier, n+1)])
		}
		e.Tiers[tier] = Tier{Target: TargetHosts, Count: n}
	}
	machines := e.Machines()
	if len(machines) != len(strings.Fields(text)) {
		t.Fatalf("%s becomes %s", text, line(machines))
	}
	return machines
}

func TestMachinesTakeTheirTurn(t *testing.T) {
	for _, tc := range []struct {
		name, machines, fresh, holder string
		// want has batches with | between them, turns with > between them, and after +
		// what waits for no batch, after ++ what waits for all.
		want string
	}{
		{"each tier on its own", "db-1 app-1 app-2 web-1 web-2 web-3 web-4 lb-1 lb-2", "", "lb-1",
			"db-1 > app-1|app-2 > web-1|web-2 web-3|web-4 > lb-2|lb-1"},
		{"all of it on two", "lb-1,web-1,app-1,db-1 lb-2,web-2,app-2", "", "",
			"db-1,app-1,web-1,lb-1 > app-2,web-2,lb-2"},
		{"all of it on two, and the database holds the virtual IP", "lb-1,web-1,app-1,db-1 lb-2,web-2,app-2", "", "lb-1",
			"db-1,app-1,web-1,lb-1 > app-2,web-2,lb-2"},
		{"all of it on two that are new", "lb-1,web-1,app-1,db-1 lb-2,web-2,app-2", "lb-1 web-1 app-1 db-1 lb-2 web-2 app-2", "",
			"+ db-1,app-1,web-1,lb-1 > + app-2,web-2,lb-2"},
		{"everything is new", "db-1 app-1,web-1 app-2 web-2 lb-1 lb-2", "db-1 app-1 app-2 web-1 web-2 lb-1 lb-2", "",
			"+ db-1 web-2 lb-1 lb-2 > + app-1,web-1 app-2"},
		{"a second one comes", "lb-1,web-1,app-1,db-1 lb-2,web-2,app-2", "lb-2 web-2 app-2", "lb-1",
			"db-1,app-1,web-1,lb-1 > ++ app-2,web-2,lb-2"},
		{"a new one beside a load balancer by itself", "db-1 app-1 web-1 lb-1 lb-2,web-2,app-2", "lb-2 web-2 app-2", "lb-1",
			"db-1 > app-1 > web-1 > lb-1 ++ app-2,web-2,lb-2"},
		{"a web host becomes a load balancer", "db-1 app-1 web-1 lb-1 web-2,lb-2", "lb-2", "lb-1",
			"db-1 > app-1 > web-1 > lb-1|web-2,lb-2"},
		{"nobody knows that it is new", "db-1 app-1 web-1 lb-1 web-2,lb-2", "", "",
			"db-1 > app-1 > web-1 > lb-1|web-2,lb-2"},
		{"the holder has the application, too", "db-1 app-1,lb-1 app-2 web-1 lb-2", "", "lb-1",
			"db-1 > app-2 > web-1 > lb-2|app-1,lb-1"},
		{"web and application share", "db-1 app-1,web-1 app-2,web-2 app-3,web-3 web-4 lb-1 lb-2", "", "lb-2",
			"db-1 > app-1,web-1|app-2,web-2|app-3,web-3 > web-4 > lb-1|lb-2"},
		{"new ones among them", "db-1 app-1,web-1 app-2,web-2 web-3 lb-1", "app-2 web-2 web-3", "lb-1",
			"db-1 > app-1,web-1 + app-2,web-2 > + web-3 > lb-1"},
		{"one that serves gets another job", "db-1 app-1 app-2,web-2 web-1 lb-1", "app-2", "lb-1",
			"db-1 > app-1|app-2,web-2 > web-1 > lb-1"},
	} {
		tiers := map[string]Tier{TierDB: {MaxUnavailable: 1}, TierApp: {MaxUnavailable: 1}, TierWeb: {MaxUnavailable: 2}, TierLB: {MaxUnavailable: 1}}
		fresh := map[string]bool{}
		for _, name := range strings.Fields(tc.fresh) {
			fresh[name] = true
		}
		var all []string
		for _, turn := range turns(sketch(t, tc.machines), tiers, fresh, tc.holder) {
			var batches []string
			for _, b := range turn.standing {
				batches = append(batches, line(b))
			}
			text := strings.Join(batches, "|")
			if len(turn.fresh) > 0 {
				text += " + " + line(turn.fresh)
			}
			if len(turn.late) > 0 {
				text += " ++ " + line(turn.late)
			}
			if text != "" {
				all = append(all, strings.TrimSpace(text))
			}
		}
		if got := strings.Join(all, " > "); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
	}
}

func TestNeverTwoMachinesOfOneTierAtOnceWhateverSharesThem(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		// Up to six machines with any of the tiers on each.
		next := map[string]int{}
		var machines []string
		for range 2 + random.IntN(5) {
			var names []string
			for _, tier := range order {
				if tier == TierDB && next[tier] > 0 || random.IntN(2) > 0 {
					continue
				}
				next[tier]++
				names = append(names, tier+"-"+strconv.Itoa(next[tier]))
			}
			if names != nil {
				machines = append(machines, strings.Join(names, ","))
			}
		}
		all := sketch(t, strings.Join(machines, " "))
		tiers := map[string]Tier{TierDB: {MaxUnavailable: 1}, TierLB: {MaxUnavailable: 1}, TierApp: {MaxUnavailable: 1 + random.IntN(2)}, TierWeb: {MaxUnavailable: 1 + random.IntN(3)}}
		holder := "lb-" + strconv.Itoa(random.IntN(4))
		seen := map[string]bool{}
		var order []string
		for _, turn := range turns(all, tiers, nil, holder) {
			if len(turn.fresh) > 0 || len(turn.late) > 0 {
				t.Fatalf("%s: there is something new", line(all))
			}
			for _, batch := range turn.standing {
				hosts := map[string]int{}
				for _, m := range batch {
					if seen[m.Name] {
						t.Fatalf("%s: %s has two turns", line(all), m.Name)
					}
					seen[m.Name] = true
					for _, h := range m.Hosts {
						order = append(order, h.Name)
						if hosts[h.Tier]++; hosts[h.Tier] > tiers[h.Tier].MaxUnavailable {
							t.Fatalf("%s: %s are changed at once", line(all), line(batch))
						}
					}
				}
			}
		}
		if len(seen) != len(all) {
			t.Fatalf("%s: only %v have a turn", line(all), seen)
		}
		// An application is never configured before its database.
		database, first := slices.Index(order, "db-1"), slices.IndexFunc(order, func(name string) bool { return strings.HasPrefix(name, "app-") })
		if database > first && first >= 0 {
			t.Fatalf("%s: the order is %v", line(all), order)
		}
	}
}
