package stacks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
)

// value is a piece of configuration together with the key that names it.
// Its readers report what does not fit and return the fallback then, so that
// reading goes on and finds the next mistake.
type value struct {
	key  string
	data any // nil if absent, else what encoding/json makes of it, with numbers as json.Number
	p    *problems
}

// parse reads a configuration value as Pulumi hands it over: structured values
// are JSON, all others plain text.
func parse(key, text string, p *problems) value {
	trimmed := strings.TrimSpace(text)
	if text == SecretPlaceholder || !strings.HasPrefix(trimmed, "{") && !strings.HasPrefix(trimmed, "[") {
		return value{key: key, data: text, p: p}
	}
	d := json.NewDecoder(bytes.NewReader([]byte(trimmed)))
	d.UseNumber()
	var data any
	if err := d.Decode(&data); err != nil {
		p.add(key, "cannot be read: %v", err)
		return value{key: key, p: p}
	}
	if _, err := d.Token(); err != io.EOF {
		p.add(key, "has something after its end")
	}
	return value{key: key, data: data, p: p}
}

func (v value) absent() bool { return v.data == nil }

func kind(data any) string {
	switch data.(type) {
	case string:
		return "text"
	case json.Number:
		return "a number"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "a group of keys"
	}
	return "nothing"
}

func (v value) wrong(want string) {
	v.p.add(v.key, "must be %s, not %s", want, kind(v.data))
}

// fields reads a group of keys. Keys other than the known ones are reported.
func (v value) fields(known ...string) map[string]value {
	out := make(map[string]value, len(known))
	for _, k := range known {
		out[k] = value{key: v.key + "." + k, p: v.p}
	}
	if v.absent() {
		return out
	}
	m, ok := v.data.(map[string]any)
	if !ok {
		v.wrong("a group of keys")
		return out
	}
	for _, k := range sortedKeys(m) {
		if _, ok := out[k]; !ok {
			v.p.add(v.key+"."+k, "is not a known key; known here: %s", oneOf(known))
			continue
		}
		out[k] = value{key: v.key + "." + k, data: m[k], p: v.p}
	}
	return out
}

// text reads a piece of text.
func (v value) text(fallback string) string {
	switch d := v.data.(type) {
	case nil:
		return fallback
	case string:
		return d
	}
	v.wrong("text")
	return fallback
}

// number reads a whole number. Text that is a number is taken only at the top
// level, where Pulumi knows nothing but text.
func (v value) number(fallback int) int {
	var s string
	switch d := v.data.(type) {
	case nil:
		return fallback
	case json.Number:
		s = d.String()
	default:
		v.wrong("a whole number")
		return fallback
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		v.p.add(v.key, "must be a whole number, not %s", s)
		return fallback
	}
	return n
}

// yes reads true or false. At the top level Pulumi hands it over as text.
func (v value) yes(fallback bool) bool {
	switch d := v.data.(type) {
	case nil:
		return fallback
	case bool:
		return d
	case string:
		switch d {
		case "true":
			return true
		case "false":
			return false
		}
		v.p.add(v.key, "must be true or false, not %q", d)
		return fallback
	}
	v.wrong("true or false")
	return fallback
}

// list reads a list, each element with the key that names it. An element is never
// absent, so that a null in the list is reported by whoever reads it.
func (v value) list() []value {
	if v.absent() {
		return nil
	}
	list, ok := v.data.([]any)
	if !ok {
		v.wrong("a list")
		return nil
	}
	out := make([]value, 0, len(list))
	for i, d := range list {
		item := value{key: fmt.Sprintf("%s[%d]", v.key, i), data: d, p: v.p}
		if d == nil {
			item.p.add(item.key, "must not be empty")
			continue
		}
		out = append(out, item)
	}
	return out
}

// texts reads a list of texts, each with the key that names it.
func (v value) texts() []value {
	var out []value
	for _, item := range v.list() {
		if _, ok := item.data.(string); !ok {
			item.wrong("text")
			continue
		}
		out = append(out, item)
	}
	return out
}

// named reads a group of keys that the user names, with texts, numbers or
// true/false as values; the latter two become text.
func (v value) named() map[string]string {
	if v.absent() {
		return nil
	}
	m, ok := v.data.(map[string]any)
	if !ok {
		v.wrong("a group of keys")
		return nil
	}
	out := make(map[string]string, len(m))
	for k, d := range m {
		switch d := d.(type) {
		case string:
			out[k] = d
		case json.Number:
			out[k] = d.String()
		case bool:
			out[k] = strconv.FormatBool(d)
		default:
			value{key: v.key + "." + k, data: d, p: v.p}.wrong("text")
		}
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func oneOf(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
