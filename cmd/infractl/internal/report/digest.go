package report

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
)

// hash is the SHA-256 of a value as JSON, in which encoding/json sorts the keys
// of objects.
func hash(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // what came as JSON can be written as JSON
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// parts identify a change piece by piece, so that of two plans can be said not
// only that they differ but where. What does not matter for what is done is
// left out: where on this computer a release lies, and the order of things. Of
// secrets there is no trace in them: that one changes is all that the engine
// tells.
func parts(c Change, m apitype.StepEventMetadata) map[string]string {
	out := map[string]string{}
	old, new := states(m)
	if old.ID != "" {
		out["resource"] = hash(old.ID)
	}
	for key, v := range c.Properties {
		out[key] = hash(v)
	}
	for key, v := range new.Inputs {
		if key == "files" && c.typ == ConfigurationType || strings.HasPrefix(key, "__") {
			continue // file by file, below
		}
		v = showable(v)
		if key == "trees" {
			v = withoutSources(v)
		}
		out[key] = hash([]any{out[key], v})
	}
	for _, f := range c.Files {
		out[f.Path] = hash([]any{f.Operation, f.Attributes, f.print})
	}
	for _, list := range []struct {
		name  string
		items []string
	}{{"packages", c.Packages}, {"users", c.Users}, {"trees", c.Trees}, {"units", c.Units}, {"actions", c.Actions}, {"notes", c.Notes}} {
		if len(list.items) > 0 {
			out[list.name] = hash([]any{out[list.name], list.items})
		}
	}
	return out
}

// withoutSources takes from trees where they come from.
func withoutSources(trees any) any {
	m, ok := trees.(map[string]any)
	if !ok {
		return trees
	}
	out := map[string]any{}
	for name, tree := range m {
		if t, ok := tree.(map[string]any); ok {
			copied := map[string]any{}
			for k, v := range t {
				if k != "source" {
					copied[k] = v
				}
			}
			tree = copied
		}
		out[name] = tree
	}
	return out
}

// digested is what the digest is made of.
type digested struct {
	Version     int             `json:"version"`
	Project     string          `json:"project"`
	Environment string          `json:"environment"`
	Drift       bool            `json:"drift"`
	Settle      []Settling      `json:"settle"`
	Changes     []changeDigests `json:"changes"`
}

// changeDigests identify one change.
type changeDigests struct {
	URN       string `json:"urn"`
	Operation string `json:"operation"`
	// Parts are digests of what changes, by name: a property, a file's path, or
	// packages, users, trees, actions and notes.
	Parts map[string]string `json:"parts"`
}

// Digest identifies what the plan would do: two plans with the same digest do
// the same. It does not depend on the order in which the engine tells of things.
func (p *Plan) Digest() string {
	return digest(digested{Version: documentVersion, Project: p.Project, Environment: p.Environment, Drift: p.Drift,
		Settle: p.Settle, Changes: p.digests()})
}

func digest(d digested) string {
	d.Settle = append([]Settling{}, d.Settle...)
	slices.SortFunc(d.Settle, func(a, b Settling) int {
		return strings.Compare(a.Operation+"\x00"+a.Kind+"\x00"+a.ID+"\x00"+a.Name, b.Operation+"\x00"+b.Kind+"\x00"+b.ID+"\x00"+b.Name)
	})
	return "sha256:" + hash(d)
}

func (p *Plan) digests() []changeDigests {
	out := []changeDigests{}
	for _, c := range p.Changes {
		out = append(out, changeDigests{URN: c.URN, Operation: c.Operation, Parts: c.parts})
	}
	slices.SortFunc(out, func(a, b changeDigests) int {
		if d := strings.Compare(a.URN, b.URN); d != 0 {
			return d
		}
		return strings.Compare(a.Operation, b.Operation)
	})
	return out
}
