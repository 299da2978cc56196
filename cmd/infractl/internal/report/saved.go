package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// savedKind says in a plan file what it is.
const savedKind = "infractl plan"

// SavedOptions are the options with which a plan was made, and with which it
// is carried out.
type SavedOptions struct {
	Refresh         bool     `json:"refresh,omitempty"`
	SkipUnreachable bool     `json:"skipUnreachable,omitempty"`
	Recreate        []string `json:"recreate,omitempty"`
	Resize          []string `json:"resize,omitempty"`
}

// Saved is a plan file. It holds digests of what was previewed, and no text of
// any file: so it has no secrets, and what it allows is what was seen.
type Saved struct {
	Version     int          `json:"version"`
	Kind        string       `json:"kind"`
	Project     string       `json:"project"`
	Environment string       `json:"environment"`
	Made        time.Time    `json:"made"`
	Options     SavedOptions `json:"options"`
	Summary     Summary      `json:"summary"`
	// Digest is that of the plan, which the fields below add up to.
	Digest  string          `json:"digest"`
	Settle  []Settling      `json:"settle"`
	Changes []changeDigests `json:"changes"`
}

// Save makes the plan's file.
func (p *Plan) Save(made time.Time, o SavedOptions) Saved {
	return Saved{
		Version: documentVersion, Kind: savedKind, Project: p.Project, Environment: p.Environment,
		Made: made.UTC().Truncate(time.Second), Options: o, Summary: p.Counts(),
		Digest: p.Digest(), Settle: list(p.Settle), Changes: p.digests(),
	}
}

// ReadSaved reads a plan file and makes sure that it is whole.
func ReadSaved(text []byte) (Saved, error) {
	var s Saved
	var head struct {
		Version int
		Kind    string
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return s, fmt.Errorf("it is damaged: %w", err)
	}
	if head.Kind != savedKind {
		return s, errors.New("it is not a plan that infractl preview --save has written")
	}
	if head.Version != documentVersion {
		return s, fmt.Errorf("it is of version %d, but this infractl knows version %d", head.Version, documentVersion)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("it is damaged: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return s, errors.New("it is damaged: something follows the plan")
	}
	if s.Environment == "" || s.digest() != s.Digest {
		return s, errors.New("it is damaged: its digest does not fit its content")
	}
	return s, nil
}

func (s Saved) digest() string {
	return digest(digested{Version: s.Version, Project: s.Project, Environment: s.Environment, Settle: s.Settle, Changes: s.Changes})
}

// Differences are where a plan that was made now differs from the saved one, a
// line for each resource. There are none if both do the same.
func (s Saved) Differences(now *Plan) []string {
	if s.Digest == now.Digest() {
		return nil
	}
	var out []string
	if s.Project != now.Project {
		out = append(out, fmt.Sprintf("the plan is for project %s, not %s", s.Project, now.Project))
	}
	if s.Environment != now.Environment {
		out = append(out, fmt.Sprintf("the plan is for environment %s, not %s", s.Environment, now.Environment))
	}
	for _, x := range now.Settle {
		if !slices.Contains(s.Settle, x) {
			out = append(out, "new: "+x.words())
		}
	}
	for _, x := range s.Settle {
		if !slices.Contains(now.Settle, x) {
			out = append(out, "no longer needed: "+x.words())
		}
	}
	then, is := byResource(s.Changes), byResource(now.digests())
	urns := union(then, is)
	slices.SortFunc(urns, compareURNs)
	for _, urn := range urns {
		a, was := then[urn]
		b, still := is[urn]
		what := title(urn)
		switch {
		case !was:
			out = append(out, fmt.Sprintf("%s: the plan does not %s it", what, b.Operation))
		case !still:
			out = append(out, fmt.Sprintf("%s: there is nothing to %s any more", what, a.Operation))
		case a.Operation != b.Operation:
			out = append(out, fmt.Sprintf("%s: to %s, and no longer to %s", what, b.Operation, a.Operation))
		default:
			var differ []string
			for _, name := range union(a.Parts, b.Parts) {
				if a.Parts[name] != b.Parts[name] {
					differ = append(differ, name)
				}
			}
			if len(differ) > 0 {
				out = append(out, fmt.Sprintf("%s: changes in another way: %s", what, strings.Join(differ, ", ")))
			}
		}
	}
	if len(out) == 0 {
		// Of two changes of one resource, such as the end of an earlier
		// replacement and an update, only one was compared.
		out = append(out, "a resource with several changes changes in another way")
	}
	return out
}

// title is what a resource is called among others.
func title(urn string) string {
	n, kind := name(urn), noun(typeOf(urn))
	if typeOf(urn) == ConfigurationType {
		kind = "host"
	}
	if n == kind {
		return n
	}
	return n + " " + kind
}

func byResource(changes []changeDigests) map[string]changeDigests {
	out := map[string]changeDigests{}
	for _, c := range changes {
		out[c.URN] = c
	}
	return out
}
