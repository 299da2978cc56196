package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
)

// Change is one thing that a run would do, or one that has drifted.
type Change struct {
	URN string `json:"urn"`
	// Operation is create, update, delete or replace.
	Operation string `json:"operation"`
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	// Properties are those that change, or all of what is created, by name.
	Properties map[string]Values `json:"properties,omitempty"`
	// Files are the files that change on a host, by path.
	Files []FileChange `json:"files,omitempty"`
	// Packages, Users and Trees are what else changes on a host, in words.
	Packages []string `json:"packages,omitempty"`
	Users    []string `json:"users,omitempty"`
	Trees    []string `json:"trees,omitempty"`
	// Units are what is different about units after a drift, in words.
	Units []string `json:"units,omitempty"`
	// Actions are what happens to units then, such as "reload nginx.service".
	Actions []string `json:"actions,omitempty"`
	// Notes are changes that have no better place.
	Notes []string `json:"notes,omitempty"`

	typ string
	// stands says that the host is there already and was looked at, although
	// its configuration is new.
	stands bool
	// facts tell at a glance what is created or deleted.
	facts []string
	// parts identify the change piece by piece: see parts.
	parts map[string]string
}

// Settling is what has to be done about an earlier run that was cut off, or
// about what others have done to the cloud, before a change.
type Settling struct {
	// Operation is delete, forget or leave.
	Operation string `json:"operation"`
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	ID        string `json:"id,omitempty"`
	Reason    string `json:"reason"`
}

// Refusal says that a plan must not be carried out, and why.
type Refusal struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Operation is delete or replace.
	Operation string `json:"operation"`
	Reason    string `json:"reason"`
	Advice    string `json:"advice"`

	urn string
}

// Plan collects what a preview says, or what has drifted.
type Plan struct {
	Project     string
	Environment string
	// Drift says that the changes are not what a run would do, but what others
	// have done since the last one.
	Drift bool
	// Settle is what a run does first.
	Settle  []Settling
	Changes []Change
	// Unchanged is how many resources stay as they are.
	Unchanged int
	// Refusals are why the plan must not be carried out.
	Refusals []Refusal
	// Failures are why what is shown may not be all.
	Failures []Failure
}

// Event takes one event of a preview or, for a drift, of a refresh that only
// looks.
func (p *Plan) Event(ev apitype.EngineEvent) {
	switch {
	case p.Drift:
		// What a refresh has found is known only at the end of a step.
		if ev.ResOutputsEvent != nil {
			p.drifted(ev.ResOutputsEvent.Metadata)
		}
	case ev.ResourcePreEvent != nil:
		p.planned(ev.ResourcePreEvent.Metadata)
	case ev.ResOutputsEvent != nil:
		p.found(ev.ResOutputsEvent.Metadata)
	case ev.DiagnosticEvent != nil:
		p.said(*ev.DiagnosticEvent)
	}
}

func (p *Plan) planned(m apitype.StepEventMetadata) {
	if hidden(m.Type) {
		return
	}
	if m.Old != nil && (m.Op == "delete" || m.Op == "replace") {
		p.refuse(m)
	}
	switch m.Op {
	case "same":
		p.Unchanged++
		return
	case "create", "update", "delete", "replace":
	default:
		return // parts of a replacement, and reading
	}
	c := Change{URN: m.URN, Operation: string(m.Op), Name: name(m.URN), Kind: noun(m.Type), typ: m.Type}
	old, new := states(m)
	switch {
	case m.Type == ConfigurationType:
		hostChange(&c, m)
	case m.Op == "create":
		c.Properties = map[string]Values{}
		for _, key := range sortedNames(new.Inputs) {
			if strings.HasPrefix(key, "__") {
				continue
			}
			c.Properties[key] = Values{New: showable(new.Inputs[key])}
		}
		c.facts = facts(m.Type, new.Inputs)
	case m.Op == "delete":
		c.facts = facts(m.Type, old.Inputs, old.Outputs)
	default:
		c.Properties = properties(m, []map[string]any{old.Outputs, old.Inputs}, []map[string]any{new.Inputs})
		if old.Taint {
			// The engine names the ID as the property that asks for it.
			delete(c.Properties, "id")
			c.Notes = append(c.Notes, "it is marked as tainted in the state")
		}
	}
	c.parts = parts(c, m)
	p.Changes = append(p.Changes, c)
}

// found corrects what is planned for a host by what was found there, which is
// known only at the end of the step.
func (p *Plan) found(m apitype.StepEventMetadata) {
	if m.Type != ConfigurationType || m.Op != "create" && m.Op != "update" {
		return
	}
	if _, ok := found(m); !ok {
		return
	}
	for i, planned := range p.Changes {
		if planned.URN == m.URN && planned.Operation == string(m.Op) {
			c := Change{URN: m.URN, Operation: planned.Operation, Name: planned.Name, Kind: planned.Kind, typ: m.Type}
			hostChange(&c, m)
			c.parts = parts(c, m)
			p.Changes[i] = c
		}
	}
}

func (p *Plan) drifted(m apitype.StepEventMetadata) {
	if hidden(m.Type) {
		return
	}
	switch m.Op {
	case "update", "delete":
	case "same":
		p.Unchanged++
		return
	default:
		return
	}
	c := Change{URN: m.URN, Operation: string(m.Op), Name: name(m.URN), Kind: noun(m.Type), typ: m.Type}
	old, new := states(m)
	switch {
	case m.Type == ConfigurationType:
		hostDrift(&c, m)
	case m.Op == "delete":
		c.facts = facts(m.Type, old.Inputs, old.Outputs)
	default:
		c.Properties = properties(m, []map[string]any{old.Inputs, old.Outputs}, []map[string]any{new.Outputs, new.Inputs})
		for key, v := range c.Properties {
			v.Replaces = false // an observation replaces nothing
			c.Properties[key] = v
		}
	}
	c.parts = parts(c, m)
	p.Changes = append(p.Changes, c)
}

// states are a step's states before and after, empty where there is none.
func states(m apitype.StepEventMetadata) (old, new apitype.StepEventStateMetadata) {
	if m.Old != nil {
		old = *m.Old
	}
	if m.New != nil {
		new = *m.New
	}
	return old, new
}

// Any says whether there is anything to do or to tell.
func (p *Plan) Any() bool { return len(p.Changes)+len(p.Settle) > 0 }

// Sort puts the changes into the order in which they are shown: what is in the
// cloud by kind, then hosts by tier, and each by number. It is called once all
// events have come, and makes what is written the same each time.
func (p *Plan) Sort() {
	slices.SortStableFunc(p.Changes, func(a, b Change) int {
		if d := compareURNs(a.URN, b.URN); d != 0 {
			return d
		}
		return strings.Compare(a.Operation, b.Operation)
	})
}

// compareURNs compares resources by kind, then by name.
func compareURNs(a, b string) int {
	for _, d := range []int{
		rank(kindOrder, typeOf(a)) - rank(kindOrder, typeOf(b)),
		strings.Compare(typeOf(a), typeOf(b)),
		compareNames(name(a), name(b)),
		strings.Compare(a, b),
	} {
		if d != 0 {
			return d
		}
	}
	return 0
}

// kindOrder is the order of types in a plan: what others need comes first.
var kindOrder = []string{
	"hcloud:index/network:Network",
	"hcloud:index/networkSubnet:NetworkSubnet",
	"hcloud:index/sshKey:SshKey",
	"hcloud:index/floatingIp:FloatingIp",
	"hcloud:index/firewall:Firewall",
	"hcloud:index/placementGroup:PlacementGroup",
	"hcloud:index/server:Server",
	"hcloud:index/serverNetwork:ServerNetwork",
	"infractl:secret:HostKey",
	"infractl:secret:Password",
	"infractl:secret:Authority",
	"infractl:secret:Certificate",
	"", // whatever else there is
	ConfigurationType,
}

// tierOrder is the order of tiers: from the clients to the data.
var tierOrder = []string{"lb", "web", "app", "db"}

func rank(order []string, s string) int {
	if i := slices.Index(order, s); i >= 0 {
		return i
	}
	if i := slices.Index(order, ""); i >= 0 {
		return i
	}
	return len(order)
}

// compareNames compares names of hosts by tier and number, others as text.
func compareNames(a, b string) int {
	tierA, numberA := splitName(a)
	tierB, numberB := splitName(b)
	if d := rank(tierOrder, tierA) - rank(tierOrder, tierB); d != 0 {
		return d
	}
	if d := strings.Compare(tierA, tierB); d != 0 {
		return d
	}
	if d := numberA - numberB; d != 0 {
		return d
	}
	return strings.Compare(a, b)
}

func splitName(name string) (string, int) {
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		if n, err := strconv.Atoi(name[i+1:]); err == nil {
			return name[:i], n
		}
	}
	return name, 0
}

// Summary counts changes.
type Summary struct {
	Create    int `json:"create"`
	Update    int `json:"update"`
	Replace   int `json:"replace"`
	Delete    int `json:"delete"`
	Unchanged int `json:"unchanged"`
	// Hosts is on how many hosts something changes.
	Hosts int `json:"hosts"`
	// Settle is how much has to be done before.
	Settle int `json:"settle"`
}

// Counts counts the plan's changes.
func (p *Plan) Counts() Summary {
	s := Summary{Unchanged: p.Unchanged, Settle: len(p.Settle)}
	for _, c := range p.Changes {
		switch c.Operation {
		case "create":
			s.Create++
		case "update":
			s.Update++
		case "replace":
			s.Replace++
		case "delete":
			s.Delete++
		}
		if c.typ == ConfigurationType {
			s.Hosts++
		}
	}
	return s
}

// Summary is one line about the whole plan.
func (p *Plan) Summary() string {
	if !p.Any() {
		if p.Drift {
			return fmt.Sprintf("%s: no drift; %s as applied last", p.Environment, are(p.Unchanged, "resource"))
		}
		return fmt.Sprintf("%s: no changes; %s as they should be", p.Environment, are(p.Unchanged, "resource"))
	}
	words, head, rest := planWords, p.Environment+": ", "unchanged"
	if p.Drift {
		words, head, rest = driftWords, p.Environment+": drift: ", "as applied"
	}
	return head + strings.Join(append(p.signedCounts(words), fmt.Sprintf("%d %s", p.Unchanged, rest)), ", ")
}

// planWords and driftWords say what the counts are of, by operation.
var (
	planWords  = map[string]string{"create": "to create", "update": "to update", "replace": "to replace", "delete": "to delete", "settle": "to clear up before"}
	driftWords = map[string]string{"create": "new", "update": "changed", "replace": "replaced", "delete": "gone", "settle": "not in the state"}
)

// signedCounts are the counts of operations, such as "+2 to create".
func (p *Plan) signedCounts(words map[string]string) []string {
	s := p.Counts()
	var out []string
	for _, n := range []struct {
		operation string
		count     int
	}{{"create", s.Create}, {"update", s.Update}, {"replace", s.Replace}, {"delete", s.Delete}} {
		if n.count > 0 {
			out = append(out, fmt.Sprintf("%s%d %s", signs[n.operation].sign, n.count, words[n.operation]))
		}
	}
	if s.Settle > 0 {
		out = append(out, fmt.Sprintf("%d %s", s.Settle, words["settle"]))
	}
	return out
}

// signs mark operations, as in a diff.
var signs = map[string]struct{ sign, color string }{
	"create":  {"+", green},
	"update":  {"~", yellow},
	"delete":  {"-", red},
	"replace": {"±", red},
}

// count says how many there are of something.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// are says how many things are, and with which verb.
func are(n int, what string) string {
	if n == 1 {
		return "1 " + what + " is"
	}
	return count(n, what) + " are"
}
