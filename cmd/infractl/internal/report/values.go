package report

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
)

// Values are a property's values before and after. A value that only the run
// itself will know is {"unknown": true}, one that must not be shown is
// {"secret": true}.
type Values struct {
	Old any `json:"old,omitempty"`
	New any `json:"new,omitempty"`
	// Replaces says that the resource cannot change in this property, and is
	// made anew.
	Replaces bool `json:"replaces,omitempty"`
}

// unknown is how the engine writes a value that is not known yet
// (plugin.UnknownStringValue in pulumi/sdk).
const unknown = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

// Keys of the objects that stand for a value that is not there to be shown.
const (
	unknownKey = "unknown"
	secretKey  = "secret"
)

// showable turns a value of the engine's into one that may be shown and
// compared: without the bookkeeping of bridged providers, and with an object in
// the place of what is secret or not known.
func showable(v any) any {
	switch v := v.(type) {
	case string:
		if v == unknown {
			return map[string]any{unknownKey: true}
		}
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = showable(e)
		}
		return out
	case map[string]any:
		if v[resource.SigKey] == resource.SecretSig {
			return map[string]any{secretKey: true}
		}
		out := map[string]any{}
		for k, e := range v {
			if !strings.HasPrefix(k, "__") {
				out[k] = showable(e)
			}
		}
		return out
	}
	return v
}

// marked says whether a value stands for one that is not there to be shown.
func marked(v any, key string) bool {
	m, ok := v.(map[string]any)
	return ok && len(m) == 1 && m[key] == true
}

// properties are what changes of a resource, by top-level property. old and new
// are where to look for the values; the first that has one counts.
func properties(m apitype.StepEventMetadata, old, new []map[string]any) map[string]Values {
	out := map[string]Values{}
	note := func(key string, kind apitype.DiffKind) {
		v := out[key]
		v.Old, v.New = first(old, key), first(new, key)
		if strings.HasSuffix(string(kind), "-replace") {
			v.Replaces = true
		}
		out[key] = v
	}
	for path, d := range m.DetailedDiff {
		note(top(path), d.Kind)
	}
	if len(out) == 0 {
		for _, key := range m.Diffs {
			note(key, "")
		}
	}
	for _, key := range m.Keys {
		note(key, apitype.DiffUpdateReplace)
	}
	return out
}

func first(from []map[string]any, key string) any {
	for _, m := range from {
		if v, ok := m[key]; ok && v != nil {
			return showable(v)
		}
	}
	return nil
}

// top is the property that a path begins with.
func top(path string) string {
	p, err := resource.ParsePropertyPath(path)
	if err != nil || len(p) == 0 {
		return path
	}
	if key, ok := p[0].(string); ok {
		return key
	}
	return path
}

// below are the names of the elements of a property whose change a diff tells
// of, such as the names of the secrets that change. whole says that the
// property changes without its elements being told.
func below(m apitype.StepEventMetadata, property string) (names []string, whole bool) {
	found := map[string]bool{}
	for path := range m.DetailedDiff {
		p, err := resource.ParsePropertyPath(path)
		if err != nil || len(p) == 0 || p[0] != property {
			continue
		}
		if len(p) == 1 {
			whole = true
		} else if name, ok := p[1].(string); ok {
			found[name] = true
		}
	}
	if len(m.DetailedDiff) == 0 {
		for _, key := range m.Diffs {
			whole = whole || key == property
		}
	}
	return sortedNames(found), whole
}

// describe writes how a property changes: on one line if that will do, else
// with a line for each element that goes or comes.
func (v Values) describe() (line string, elements []string) {
	if marked(v.Old, secretKey) || marked(v.New, secretKey) {
		return "a secret changes", nil
	}
	var lines []string
	switch {
	case isList(v.Old) || isList(v.New):
		lines = elementChanges(listLines(v.Old), listLines(v.New))
	case isObject(v.Old) || isObject(v.New):
		lines = elementChanges(objectLines(v.Old), objectLines(v.New))
	}
	if len(lines) > 0 {
		return "", lines
	}
	return compact(v.Old) + " → " + compact(v.New), nil
}

func isList(v any) bool {
	list, ok := v.([]any)
	return ok && len(list) > 0
}

func isObject(v any) bool {
	m, ok := v.(map[string]any)
	return ok && len(m) > 0 && !marked(v, unknownKey) && !marked(v, secretKey)
}

func listLines(v any) []string {
	list, ok := v.([]any)
	if !ok {
		return wholeLine(v)
	}
	var out []string
	for _, e := range list {
		out = append(out, long(filled(e)))
	}
	return out
}

func objectLines(v any) []string {
	m, ok := v.(map[string]any)
	if !ok || !isObject(v) {
		return wholeLine(v)
	}
	var out []string
	for _, k := range sortedNames(m) {
		out = append(out, k+": "+long(filled(m[k])))
	}
	return out
}

// wholeLine is what stands in the place of a list or an object that is not one.
func wholeLine(v any) []string {
	if v == nil {
		return nil
	}
	if list, ok := v.([]any); ok && len(list) == 0 {
		return nil
	}
	return []string{long(v)}
}

// filled takes from an object what says nothing: a provider gives back more
// empty properties than were set.
func filled(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	out := map[string]any{}
	for k, e := range m {
		switch e := e.(type) {
		case nil:
			continue
		case string:
			if e == "" {
				continue
			}
		case []any:
			if len(e) == 0 {
				continue
			}
		case map[string]any:
			if len(e) == 0 {
				continue
			}
		}
		out[k] = filled(e)
	}
	return out
}

// elementChanges are the lines that only one side has, with a sign before them.
// Order means nothing.
func elementChanges(old, new []string) []string {
	var out []string
	count := map[string]int{}
	for _, l := range new {
		count[l]++
	}
	for _, l := range old {
		if count[l] > 0 {
			count[l]--
		} else {
			out = append(out, "- "+l)
		}
	}
	for _, l := range new {
		if count[l] > 0 {
			count[l]--
			out = append(out, "+ "+l)
		}
	}
	return out
}

// compact writes a property's value on one short line.
func compact(v any) string {
	const most = 100 // characters
	text := []rune(long(v))
	if len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(text)
}

// long writes a value on one line, however long.
func long(v any) string {
	switch {
	case v == nil:
		return "none"
	case marked(v, unknownKey):
		return "known later"
	case marked(v, secretKey):
		return "secret"
	}
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = long(e)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		parts := make([]string, 0, len(v))
		for _, k := range sortedNames(v) {
			parts = append(parts, k+": "+long(v[k]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}

// factKeys are the properties that tell at a glance what a resource is, by type.
var factKeys = map[string][]string{
	"hcloud:index/server:Server":               {"serverType", "image", "location"},
	"hcloud:index/serverNetwork:ServerNetwork": {"ip"},
	"hcloud:index/network:Network":             {"ipRange"},
	"hcloud:index/networkSubnet:NetworkSubnet": {"ipRange"},
	"hcloud:index/floatingIp:FloatingIp":       {"ipAddress"},
}

// facts are the values of factKeys.
func facts(typ string, from ...map[string]any) []string {
	var out []string
	for _, key := range factKeys[typ] {
		if s, ok := first(from, key).(string); ok && s != "" {
			out = append(out, s)
		}
	}
	return out
}

func union[V any](a, b map[string]V) []string {
	all := map[string]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return sortedNames(all)
}

func sortedNames[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
