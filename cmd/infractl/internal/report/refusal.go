package report

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
)

const floatingIPType = "hcloud:index/floatingIp:FloatingIp"

// refuse notes that a step deletes or replaces what holds data or the
// environment's address. The engine refuses the protected ones too, but in
// words that name neither host nor way out.
func (p *Plan) refuse(m apitype.StepEventMetadata) {
	stateful := m.Type == serverType && strings.HasPrefix(name(m.URN), "db-")
	if !stateful && !m.Old.Protect {
		return
	}
	var keys []string
	_, new := states(m)
	for key, v := range properties(m, []map[string]any{m.Old.Outputs, m.Old.Inputs}, []map[string]any{new.Inputs}) {
		if v.Replaces {
			keys = append(keys, key)
		}
	}
	because := ""
	switch {
	case m.Op == "delete":
		because = "the configuration no longer has it"
	case m.Old.Taint:
		because = "it is marked as tainted in the state"
	case len(keys) > 0:
		slices.Sort(keys)
		because = strings.Join(keys, ", ") + " cannot be changed in place"
	}
	p.addRefusal(m.URN, string(m.Op), because)
}

// protectedWords are how the engine says that a plan is against protection:
// of a resource, or of one that would be replaced together with another.
var protectedWords = regexp.MustCompile(`unable to replace resource "(urn:[^"]+)"|resource "(urn:[^"]+)" cannot be deleted\s+because it is protected`)

// said takes a message of the engine: where it stops before the step that it
// refuses, that is all there is.
func (p *Plan) said(d apitype.DiagnosticEvent) {
	if d.Severity != "error" {
		return
	}
	found := protectedWords.FindStringSubmatch(d.Message)
	switch {
	case found == nil:
	case found[1] != "":
		p.addRefusal(found[1], "replace", "")
	default:
		p.addRefusal(found[2], "delete", "the configuration no longer has it")
	}
}

func (p *Plan) addRefusal(urn, operation, because string) {
	for i, r := range p.Refusals {
		if r.urn == urn {
			if r.Reason == refusalReason(r, "") && because != "" {
				p.Refusals[i].Reason = refusalReason(r, because)
			}
			return
		}
	}
	r := Refusal{Name: name(urn), Kind: noun(typeOf(urn)), Operation: operation, urn: urn}
	r.Reason, r.Advice = refusalReason(r, because), refusalAdvice(r)
	p.Refusals = append(p.Refusals, r)
}

func refusalReason(r Refusal, because string) string {
	does := "would be deleted"
	if r.Operation == "replace" {
		does = "would be deleted and made anew"
	}
	switch typeOf(r.urn) {
	case serverType:
		does += ", and the data on it with it"
	case floatingIPType:
		does += ", and the environment's address would be lost"
	}
	if because != "" {
		does += ", because " + because
	}
	return does
}

func refusalAdvice(r Refusal) string {
	switch {
	case typeOf(r.urn) == serverType && r.Operation == "replace":
		return fmt.Sprintf("Put the configuration back to what it was. If the host is really to be made anew, and empty: "+
			"save its data, delete its server in the cloud console, and run: infractl up --recreate %s", r.Name)
	case typeOf(r.urn) == serverType:
		return "Put it back into the configuration. Nothing but `infractl destroy` deletes a database host."
	}
	return fmt.Sprintf("Put the configuration back to what it was. If it is really to go, lift its protection, "+
		"in the cloud console and with `pulumi state unprotect '%s'`.", r.urn)
}

// Title is the refusal's first line.
func (r Refusal) Title() string {
	return fmt.Sprintf("%s: %s: %s", r.Name, r.Kind, r.Reason)
}

// refused says whether a failure only repeats a refusal.
func (p *Plan) refused(f Failure) bool {
	for _, r := range p.Refusals {
		if strings.Contains(f.Message, r.urn) || f.Name == r.Name && strings.Contains(f.Message, "protect") {
			return true
		}
	}
	return false
}

// AddFailures keeps what went wrong while the plan was made, but for what the
// refusals say better.
func (p *Plan) AddFailures(failures []Failure) {
	for _, f := range failures {
		if !p.refused(f) {
			p.Failures = append(p.Failures, f)
		}
	}
}
