package scaling

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/infractl/infractl/cmd/infractl/internal/price"
	"github.com/infractl/infractl/stacks"
)

// Tier is what happens to one tier.
type Tier struct {
	Name     string `json:"tier"`
	Type     string `json:"type"`
	Location string `json:"location"`
	// Configured is the count in the configuration so far, Before is how many
	// hosts there really are, After is how many there should be.
	Configured int `json:"configured"`
	Before     int `json:"before"`
	After      int `json:"after"`
	// Add and Remove are the hosts that come and go. Return are those that a
	// scale that did not end has drained, and that stay.
	Add    []string `json:"add"`
	Remove []string `json:"remove"`
	Return []string `json:"return"`
}

func (t Tier) nothing() bool {
	return t.Configured == t.After && len(t.Add)+len(t.Remove)+len(t.Return) == 0
}

// Price is what a month costs, or why that is not known.
type Price struct {
	Before *price.Bill `json:"before,omitempty"`
	After  *price.Bill `json:"after,omitempty"`
	// Counts says what is counted.
	Counts  string `json:"counts,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// Plan is what scaling does.
type Plan struct {
	// Tiers are those that change.
	Tiers []Tier `json:"tiers"`
	// Already are the tiers that were named and are as they should be.
	Already []Tier `json:"already"`
	Price   *Price `json:"price,omitempty"`

	wanted bool
}

// New plans the way from what there is to what should be. before is the
// environment as it was configured, after as it should be; there are the hosts
// that exist, by tier; drained are those that a scale that did not end has
// drained; changes is what the user has named.
func New(before, after stacks.Environment, there map[string][]string, drained []string, changes []Change) Plan {
	p := Plan{Tiers: []Tier{}, Already: []Tier{}}
	for _, name := range stacks.TierNames() {
		t := after.Tiers[name]
		line := Tier{
			Name: name, Type: t.Type, Location: t.Location,
			Configured: before.Tiers[name].Count, Before: len(there[name]), After: t.Count,
			Add: []string{}, Remove: []string{}, Return: []string{},
		}
		var want []string
		for _, h := range after.TierHosts(name) {
			want = append(want, h.Name)
			switch {
			case !slices.Contains(there[name], h.Name):
				line.Add = append(line.Add, h.Name)
			case slices.Contains(drained, h.Name):
				line.Return = append(line.Return, h.Name)
			}
		}
		for _, h := range there[name] {
			if !slices.Contains(want, h) {
				line.Remove = append(line.Remove, h)
			}
		}
		named := slices.ContainsFunc(changes, func(c Change) bool { return c.Tier == name })
		switch {
		case !line.nothing():
			p.Tiers = append(p.Tiers, line)
			p.wanted = p.wanted || named
		case named:
			p.Already = append(p.Already, line)
		}
	}
	return p
}

// Nothing says whether every tier that was named is as it should be. What else
// there may be to do was not asked for.
func (p Plan) Nothing() bool { return !p.wanted }

// There is an environment with as many hosts as there are: what is paid for.
func There(e stacks.Environment, there map[string][]string) stacks.Environment {
	now := e
	now.Tiers = map[string]stacks.Tier{}
	for name, t := range e.Tiers {
		t.Count = len(there[name])
		now.Tiers[name] = t
	}
	return now
}

// Back are the arguments that take the plan back: the counts that the
// configuration had.
func (p Plan) Back() string {
	var out []string
	for _, t := range p.Tiers {
		if t.Configured != t.After {
			out = append(out, fmt.Sprintf("%s=%d", t.Name, t.Configured))
		}
	}
	return strings.Join(out, " ")
}

// RemovesMore are the hosts that go by this plan, and not by another one.
func (p Plan) RemovesMore(other Plan) []string {
	var out []string
	known := other.removes()
	for _, name := range p.removes() {
		if !slices.Contains(known, name) {
			out = append(out, name)
		}
	}
	return out
}

func (p Plan) removes() []string {
	var out []string
	for _, t := range p.Tiers {
		out = append(out, t.Remove...)
	}
	return out
}

// Write writes the plan for people.
func (p Plan) Write(w io.Writer) {
	for _, t := range p.Already {
		fmt.Fprintf(w, "%s is %d already\n", t.Name, t.After)
	}
	if p.Nothing() {
		for _, t := range p.Tiers {
			fmt.Fprintf(w, "%s has %d hosts of %d; infractl up sees to that\n", t.Name, t.Before, t.After)
		}
		return
	}
	for _, t := range p.Tiers {
		t.write(w)
	}
	if p.Price != nil {
		p.Price.write(w)
	}
}

func (t Tier) write(w io.Writer) {
	fmt.Fprintf(w, "%-3s  %d → %d", t.Name, t.Before, t.After)
	if n := t.After - t.Before; n != 0 {
		fmt.Fprintf(w, "  %+d %s", n, t.Type)
	}
	if t.Configured != t.Before {
		fmt.Fprintf(w, "  (the configuration says %d)", t.Configured)
	}
	fmt.Fprintln(w)
	for _, hosts := range []struct {
		sign, note string
		names      []string
	}{{"+", "", t.Add}, {"-", "", t.Remove}, {"~", ": back to work, after a scale that did not end", t.Return}} {
		if len(hosts.names) > 0 {
			fmt.Fprintf(w, "     %s %s%s\n", hosts.sign, strings.Join(hosts.names, ", "), hosts.note)
		}
	}
}

func (p Price) write(w io.Writer) {
	if p.Problem != "" {
		fmt.Fprintf(w, "a month costs: not known: %s\n", p.Problem)
		return
	}
	difference := ""
	if d := p.After.Total.Minus(p.Before.Total); d.Signed() != "+0.00" {
		difference = " (" + d.Signed() + ")"
	}
	fmt.Fprintf(w, "a month costs %s → %s %s%s\n     %s\n", p.Before.Total, p.After.Total, p.After.Currency, difference, p.Counts)
}
