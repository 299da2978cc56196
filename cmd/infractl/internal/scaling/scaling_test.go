package scaling

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/infractl/infractl/cmd/infractl/internal/price"
	"github.com/infractl/infractl/stacks"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestChangesAreRead(t *testing.T) {
	got, err := Parse([]string{"web=4", "app=+2", "lb=-1", "db=1"})
	want := []Change{{"web", false, 4}, {"app", true, 2}, {"lb", true, -1}, {"db", false, 1}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "lb, web, app, db"},
		{[]string{"cache=4"}, `no tier "cache"; the tiers are lb, web, app, db`},
		{[]string{"WEB=4"}, "the tiers are lb"},
		{[]string{"=4"}, "the tiers are lb"},
		{[]string{""}, "the tiers are lb"},
		{[]string{"4"}, "the tiers are lb"},
		{[]string{"web"}, "how many"},
		{[]string{"web="}, "how many"},
		{[]string{"web=+"}, "how many"},
		{[]string{"web=four"}, "how many"},
		{[]string{"web=1.5"}, "how many"},
		{[]string{"web=++1"}, "how many"},
		{[]string{"web= 4"}, "how many"},
		{[]string{"web=4=4"}, "how many"},
		{[]string{"web=99999999999999999999"}, "how many"},
		{[]string{"web=4", "app=1", "web=+1"}, "tier web stands there twice"},
		{[]string{"web=4", "web=4"}, "twice"},
	} {
		if got, err := Parse(c.args); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %+v, %v", c.args, got, err)
		}
	}
}

func environment(lb, web, app, db int) stacks.Environment {
	e := stacks.Environment{Name: "shop", VIP: stacks.VIP{IPv4: true}, Tiers: map[string]stacks.Tier{}}
	for i, n := range []int{lb, web, app, db} {
		name := stacks.TierNames()[i]
		typ := "cx23"
		if name == "app" {
			typ = "cx33"
		}
		e.Tiers[name] = stacks.Tier{Name: name, Count: n, Type: typ, Location: "fsn1", Subnet: netip.MustParsePrefix("10.0.1.0/24")}
	}
	return e
}

func hosts(e stacks.Environment) map[string][]string {
	out := map[string][]string{}
	for _, h := range e.Hosts() {
		out[h.Tier] = append(out[h.Tier], h.Name)
	}
	return out
}

func TestRelativeCountsAreCountedFromTheConfiguration(t *testing.T) {
	got, err := Counts(environment(2, 2, 2, 1), []Change{{"web", false, 4}, {"app", true, 3}, {"lb", true, -5}, {"db", true, 0}})
	if want := map[string]int{"web": 4, "app": 5, "lb": -3, "db": 1}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestADatabaseIsNeverMadeSmaller(t *testing.T) {
	for _, c := range []struct {
		count  int
		change Change
		host   string
	}{{1, Change{"db", false, 0}, "db-1"}, {1, Change{"db", true, -1}, "db-1"}, {3, Change{"db", false, 2}, "db-3"}} {
		_, err := Counts(environment(2, 2, 2, c.count), []Change{c.change})
		if err == nil || !strings.Contains(err.Error(), c.host+" has data on it") {
			t.Errorf("%+v: %v", c.change, err)
		}
	}
}

func TestHostsThatComeAndGoAreTheLastOnes(t *testing.T) {
	cases := []struct {
		name          string
		before, after stacks.Environment
		there         map[string][]string
		drained       []string
		changes       []Change
		tiers         []Tier
		already       []string
		nothing       bool
		back          string
	}{
		{name: "two more", before: environment(2, 2, 2, 1), after: environment(2, 4, 2, 1), changes: []Change{{Tier: "web"}},
			tiers: []Tier{{Name: "web", Type: "cx23", Location: "fsn1", Configured: 2, Before: 2, After: 4, Add: []string{"web-3", "web-4"}, Remove: []string{}, Return: []string{}}}, back: "web=2"},
		{name: "one fewer, and one more elsewhere", before: environment(3, 2, 2, 1), after: environment(2, 2, 3, 1), changes: []Change{{Tier: "lb"}, {Tier: "app"}},
			tiers: []Tier{
				{Name: "lb", Type: "cx23", Location: "fsn1", Configured: 3, Before: 3, After: 2, Add: []string{}, Remove: []string{"lb-3"}, Return: []string{}},
				{Name: "app", Type: "cx33", Location: "fsn1", Configured: 2, Before: 2, After: 3, Add: []string{"app-3"}, Remove: []string{}, Return: []string{}},
			}, back: "lb=3 app=2"},
		{name: "as it is already", before: environment(2, 2, 2, 1), after: environment(2, 2, 2, 1), changes: []Change{{Tier: "web"}},
			already: []string{"web"}, nothing: true},
		{name: "growing that was cut off is gone on with", before: environment(2, 4, 2, 1), after: environment(2, 4, 2, 1), changes: []Change{{Tier: "web"}},
			there: map[string][]string{"lb": {"lb-1", "lb-2"}, "web": {"web-1", "web-2", "web-4"}, "app": {"app-1", "app-2"}, "db": {"db-1"}},
			tiers: []Tier{{Name: "web", Type: "cx23", Location: "fsn1", Configured: 4, Before: 3, After: 4, Add: []string{"web-3"}, Remove: []string{}, Return: []string{}}}},
		{name: "shrinking that was cut off is taken back", before: environment(2, 2, 2, 1), after: environment(2, 4, 2, 1), changes: []Change{{Tier: "web"}},
			there: hosts(environment(2, 4, 2, 1)), drained: []string{"web-3"},
			tiers: []Tier{{Name: "web", Type: "cx23", Location: "fsn1", Configured: 2, Before: 4, After: 4, Add: []string{}, Remove: []string{}, Return: []string{"web-3"}}}, back: "web=2"},
		{name: "taken back, but not yet undrained", before: environment(2, 4, 2, 1), after: environment(2, 4, 2, 1), changes: []Change{{Tier: "web"}},
			drained: []string{"web-3"},
			tiers:   []Tier{{Name: "web", Type: "cx23", Location: "fsn1", Configured: 4, Before: 4, After: 4, Add: []string{}, Remove: []string{}, Return: []string{"web-3"}}}},
		{name: "what was not asked for is no reason to begin", before: environment(2, 2, 3, 1), after: environment(2, 2, 3, 1), changes: []Change{{Tier: "web"}},
			there: hosts(environment(2, 2, 2, 1)), already: []string{"web"}, nothing: true,
			tiers: []Tier{{Name: "app", Type: "cx33", Location: "fsn1", Configured: 3, Before: 2, After: 3, Add: []string{"app-3"}, Remove: []string{}, Return: []string{}}}},
		{name: "more than ten", before: environment(2, 9, 2, 1), after: environment(2, 11, 2, 1), changes: []Change{{Tier: "web"}},
			tiers: []Tier{{Name: "web", Type: "cx23", Location: "fsn1", Configured: 9, Before: 9, After: 11, Add: []string{"web-10", "web-11"}, Remove: []string{}, Return: []string{}}}, back: "web=9"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			there := c.there
			if there == nil {
				there = hosts(c.before)
			}
			p := New(c.before, c.after, there, c.drained, c.changes)
			if c.tiers == nil {
				c.tiers = []Tier{}
			}
			if !reflect.DeepEqual(p.Tiers, c.tiers) {
				t.Errorf("tiers are\n%+v\nnot\n%+v", p.Tiers, c.tiers)
			}
			var already []string
			for _, a := range p.Already {
				already = append(already, a.Name)
			}
			if !slices.Equal(already, c.already) || p.Nothing() != c.nothing || p.Back() != c.back {
				t.Errorf("already %v, nothing %v, back %q", already, p.Nothing(), p.Back())
			}
		})
	}
}

func TestThePlanAsPeopleReadIt(t *testing.T) {
	var out bytes.Buffer
	list := func(total string) *price.Bill {
		a, err := price.ParseAmount(total)
		if err != nil {
			t.Fatal(err)
		}
		return &price.Bill{Currency: "EUR", Total: a}
	}
	show := func(p Plan, before, after string) {
		p.Price = &Price{Before: list(before), After: list(after), Counts: price.Scope}
		p.Write(&out)
		out.WriteString("--\n")
	}
	both := environment(2, 2, 2, 1)
	show(New(both, environment(2, 4, 2, 1), hosts(both), nil, []Change{{Tier: "web"}}), "32.9300", "40.9100")
	show(New(environment(3, 2, 2, 1), environment(2, 2, 12, 1), hosts(environment(3, 2, 2, 1)), nil, []Change{{Tier: "lb"}, {Tier: "app"}, {Tier: "web"}}), "32.93", "30")
	show(New(both, environment(2, 4, 2, 1), hosts(environment(2, 4, 2, 1)), []string{"web-3", "web-4"}, []Change{{Tier: "web"}}), "40.91", "40.91")
	show(New(environment(2, 4, 2, 1), environment(2, 2, 2, 1), hosts(environment(2, 3, 2, 1)), nil, []Change{{Tier: "web"}}), "36.92", "32.93")
	unknown := New(both, environment(2, 3, 2, 1), hosts(both), nil, []Change{{Tier: "web"}})
	unknown.Price = &Price{Problem: "the cloud's price list has no server cx23 in fsn1"}
	unknown.Write(&out)
	out.WriteString("--\n")
	New(environment(2, 2, 3, 1), environment(2, 2, 3, 1), hosts(both), nil, []Change{{Tier: "web"}}).Write(&out)
	golden(t, out.Bytes())
}

func TestThePlanAsProgramsReadIt(t *testing.T) {
	both := environment(2, 2, 2, 1)
	p := New(both, environment(2, 3, 2, 1), hosts(both), nil, []Change{{Tier: "web"}, {Tier: "app"}})
	p.Price = &Price{Problem: "none"}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, append(text, '\n'))
}

func golden(t *testing.T, got []byte) {
	t.Helper()
	path := "testdata/" + t.Name() + ".golden"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAPlanThatWouldRemoveMoreThanWasShownIsFound(t *testing.T) {
	e := environment(2, 2, 2, 1)
	shown := New(environment(2, 3, 2, 1), e, hosts(environment(2, 3, 2, 1)), nil, []Change{{Tier: "web"}})
	now := New(environment(2, 3, 2, 1), e, hosts(environment(2, 4, 3, 1)), nil, []Change{{Tier: "web"}})
	if got := now.RemovesMore(shown); !slices.Equal(got, []string{"web-4", "app-3"}) {
		t.Errorf("%v", got)
	}
	if got := shown.RemovesMore(now); got != nil {
		t.Errorf("%v", got)
	}
}

func TestOnlyHostsThatAreThereArePaidFor(t *testing.T) {
	e := environment(2, 4, 2, 1)
	now := There(e, hosts(environment(2, 3, 2, 1)))
	if now.Tiers["web"].Count != 3 || now.Tiers["app"].Count != 2 || e.Tiers["web"].Count != 4 {
		t.Errorf("%+v", now.Tiers)
	}
}
