package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// state is a stack's exported state. It is kept as it came, with secrets
// encrypted, so that whatever this program does not know goes back unchanged.
type state struct {
	whole      map[string]any
	deployment map[string]any
}

// record is what matters here of a resource in the state.
type record struct {
	URN         string
	Type        string
	ID          string
	DeletedWith string
	Parent      string
	Protect     bool
	// Replaced says that another has taken its place, and that it is still to be deleted.
	Replaced bool
	Inputs   map[string]any
	Outputs  map[string]any
}

// name is the resource's name: the last part of its URN.
func (r record) name() string {
	return r.URN[strings.LastIndex(r.URN, "::")+2:]
}

func parseState(text []byte) (*state, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	s := &state{}
	if err := d.Decode(&s.whole); err != nil {
		return nil, fmt.Errorf("the environment's state cannot be read: %w", err)
	}
	s.deployment, _ = s.whole["deployment"].(map[string]any)
	if s.deployment == nil {
		s.deployment = map[string]any{}
	}
	return s, nil
}

func (s *state) encode() ([]byte, error) { return json.Marshal(s.whole) }

func text(v any) string {
	t, _ := v.(string)
	return t
}

func toRecord(v any) record {
	m, _ := v.(map[string]any)
	r := record{
		URN:         text(m["urn"]),
		Type:        text(m["type"]),
		ID:          text(m["id"]),
		DeletedWith: text(m["deletedWith"]),
		Parent:      text(m["parent"]),
	}
	r.Protect, _ = m["protect"].(bool)
	r.Replaced, _ = m["delete"].(bool)
	r.Inputs, _ = m["inputs"].(map[string]any)
	r.Outputs, _ = m["outputs"].(map[string]any)
	return r
}

// resources are all resources in the state, in its order.
func (s *state) resources() []record {
	list, _ := s.deployment["resources"].([]any)
	out := make([]record, 0, len(list))
	for _, v := range list {
		out = append(out, toRecord(v))
	}
	return out
}

// pending are the operations that had begun and not ended when the state was
// last saved.
func (s *state) pending() []pendingOperation {
	list, _ := s.deployment["pending_operations"].([]any)
	out := make([]pendingOperation, 0, len(list))
	for _, v := range list {
		m, _ := v.(map[string]any)
		out = append(out, pendingOperation{record: toRecord(m["resource"]), kind: text(m["type"])})
	}
	return out
}

type pendingOperation struct {
	record
	// kind is creating, updating, deleting, reading or importing.
	kind string
}

func (s *state) clearPending() { delete(s.deployment, "pending_operations") }

// drop takes resources out of the state, together with what is deleted with
// them or is a part of them, and all references to them.
func (s *state) drop(urns map[string]bool) []record {
	gone := make(map[string]bool, len(urns))
	for u := range urns {
		gone[u] = true
	}
	all := s.resources()
	for changed := true; changed; {
		changed = false
		for _, r := range all {
			if !gone[r.URN] && (gone[r.DeletedWith] || gone[r.Parent]) {
				gone[r.URN] = true
				changed = true
			}
		}
	}
	var dropped []record
	var kept []any
	list, _ := s.deployment["resources"].([]any)
	for _, v := range list {
		r := toRecord(v)
		if gone[r.URN] {
			dropped = append(dropped, r)
			continue
		}
		m := v.(map[string]any)
		if deps, ok := m["dependencies"].([]any); ok {
			m["dependencies"] = without(deps, gone)
		}
		if props, ok := m["propertyDependencies"].(map[string]any); ok {
			for k, deps := range props {
				if list, ok := deps.([]any); ok {
					props[k] = without(list, gone)
				}
			}
		}
		if gone[text(m["deletedWith"])] {
			delete(m, "deletedWith")
		}
		kept = append(kept, v)
	}
	s.deployment["resources"] = kept
	return dropped
}

func without(list []any, gone map[string]bool) []any {
	out := make([]any, 0, len(list))
	for _, v := range list {
		if !gone[text(v)] {
			out = append(out, v)
		}
	}
	return out
}

// unprotect lets everything in the state be deleted and says whether anything changed.
func (s *state) unprotect() bool {
	list, _ := s.deployment["resources"].([]any)
	changed := false
	for _, v := range list {
		m, _ := v.(map[string]any)
		if p, _ := m["protect"].(bool); p {
			delete(m, "protect")
			changed = true
		}
	}
	return changed
}
