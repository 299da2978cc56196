package report

// documentVersion is the version of what --json writes. A field may be added
// without a new one; none is taken away or changes its meaning.
const documentVersion = 1

// Document is a plan for programs: see docs/preview.md.
type Document struct {
	Version     int    `json:"version"`
	Kind        string `json:"kind"` // preview or drift
	Project     string `json:"project"`
	Environment string `json:"environment"`
	Digest      string `json:"digest"`
	// Summary counts what changes.
	Summary Summary         `json:"summary"`
	Settle  []Settling      `json:"settle"`
	Changes []Change        `json:"changes"`
	Groups  []DocumentGroup `json:"groups"`
	// Refusals are why up would not carry this out.
	Refusals []Refusal `json:"refusals"`
	// Failures are why the document may not hold everything.
	Failures []Failure `json:"failures"`
}

// DocumentGroup are hosts on which the very same changes.
type DocumentGroup struct {
	Hosts     []string `json:"hosts"`
	Operation string   `json:"operation"`
	// Changes are the URNs of the hosts' changes, in the order of Hosts.
	Changes []string `json:"changes"`
}

// Document makes the plan's document.
func (p *Plan) Document() Document {
	d := Document{
		Version: documentVersion, Kind: p.kind(), Project: p.Project, Environment: p.Environment,
		Digest: p.Digest(), Summary: p.Counts(),
		Settle: list(p.Settle), Changes: list(p.Changes), Groups: []DocumentGroup{},
		Refusals: list(p.Refusals), Failures: list(p.Failures),
	}
	for _, g := range p.Groups() {
		out := DocumentGroup{Hosts: g.Hosts, Operation: g.Changes[0].Operation}
		for _, c := range g.Changes {
			out.Changes = append(out.Changes, c.URN)
		}
		d.Groups = append(d.Groups, out)
	}
	return d
}

// list is never null in JSON.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func (p *Plan) kind() string {
	if p.Drift {
		return "drift"
	}
	return "preview"
}
