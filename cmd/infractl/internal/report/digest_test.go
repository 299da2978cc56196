package report

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
)

// scene is a preview whose parts a test can change.
type scene struct {
	events []apitype.EngineEvent
	settle []Settling
}

func event(op, typ, name string, old, new map[string]any) apitype.EngineEvent {
	m := step(op, typ, name)
	if old != nil {
		m.Old = &apitype.StepEventStateMetadata{ID: "7", Inputs: old, Outputs: old}
	}
	if new != nil {
		m.New = &apitype.StepEventStateMetadata{Inputs: new}
	}
	m.DetailedDiff = map[string]apitype.PropertyDiff{}
	for key := range new {
		if op == "update" && hash(old[key]) != hash(new[key]) {
			m.DetailedDiff[key] = apitype.PropertyDiff{Kind: apitype.DiffUpdate}
		}
	}
	return apitype.EngineEvent{ResourcePreEvent: &apitype.ResourcePreEvent{Metadata: m, Planning: true}}
}

func secretValue() map[string]any {
	return map[string]any{"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "[secret]"}
}

func newScene() *scene {
	units := []any{map[string]any{"name": "haproxy.service", "enabled": true, "active": true, "reloadOn": []any{"/etc/haproxy/"}}}
	host := func(text, digest, source string) map[string]any {
		return map[string]any{
			"files": files(map[string]string{"/etc/haproxy/haproxy.cfg": text}), "units": units,
			"address": "198.18.0.5", "secrets": secretValue(),
			"trees": map[string]any{"/srv/shop/releases/1": map[string]any{"digest": digest, "source": source}},
		}
	}
	return &scene{
		events: []apitype.EngineEvent{
			pre("same", network, "network"),
			event("create", server, "web-3", nil, map[string]any{"serverType": "cx23", "name": "lab-web-3", "userData": secretValue(), "__defaults": []any{}}),
			event("update", server, "web-1", map[string]any{"labels": map[string]any{"a": "1"}}, map[string]any{"labels": map[string]any{"a": "2"}}),
			event("update", ConfigurationType, "lb-1", host("one\n", "sha256:1", "/here/dist"), host("two\n", "sha256:1", "/here/dist")),
			event("update", ConfigurationType, "lb-2", host("one\n", "sha256:1", "/here/dist"), host("two\n", "sha256:1", "/here/dist")),
			event("delete", server, "app-2", map[string]any{"serverType": "cx23"}, nil),
		},
		settle: []Settling{{Operation: "delete", Kind: "server", Name: "lab-web-9", ID: "9"}, {Operation: "forget", Kind: "server", Name: "web-2", ID: "2"}},
	}
}

func (s *scene) plan() *Plan {
	p := &Plan{Project: "infractl", Environment: "lab", Settle: s.settle}
	for _, e := range s.events {
		p.Event(e)
	}
	p.Sort()
	return p
}

// meta is the step of an event about a resource.
func (s *scene) meta(t *testing.T, op, typ, name string) *apitype.StepEventMetadata {
	t.Helper()
	for i := range s.events {
		m := &s.events[i].ResourcePreEvent.Metadata
		if m.URN == urn(typ, name) && string(m.Op) == op {
			return m
		}
	}
	t.Fatalf("there is no %s of %s", op, name)
	return nil
}

func TestDigestDoesNotDependOnTheOrderOfEvents(t *testing.T) {
	want := newScene().plan().Digest()
	if !strings.HasPrefix(want, "sha256:") || len(want) != len("sha256:")+64 {
		t.Fatalf("the digest is %q", want)
	}
	for range 20 {
		s := newScene()
		rand.Shuffle(len(s.events), func(i, j int) { s.events[i], s.events[j] = s.events[j], s.events[i] })
		slices.Reverse(s.settle)
		if got := s.plan().Digest(); got != want {
			t.Fatalf("another order gives another digest: %s, not %s", got, want)
		}
	}
}

func TestDigestDoesNotDependOnWhatDoesNotMatter(t *testing.T) {
	want := newScene().plan().Digest()
	for name, change := range map[string]func(*scene){
		"what stays as it is": func(s *scene) { s.events = append(s.events, pre("same", server, "db-1")) },
		"where a release lies on this computer": func(s *scene) {
			for _, n := range []string{"lb-1", "lb-2"} {
				m := s.meta(t, "update", ConfigurationType, n)
				tree := m.New.Inputs["trees"].(map[string]any)["/srv/shop/releases/1"].(map[string]any)
				tree["source"] = "/elsewhere/dist"
			}
		},
		"a bridged provider's bookkeeping": func(s *scene) {
			s.meta(t, "create", server, "web-3").New.Inputs["__defaults"] = []any{"x"}
		},
		"parts of a replacement that are told besides": func(s *scene) { s.events = append(s.events, pre("delete-replaced", server, "x")) },
	} {
		s := newScene()
		change(s)
		if got := s.plan().Digest(); got != want {
			t.Errorf("the digest depends on %s", name)
		}
	}
}

func TestDigestDependsOnEverythingThatIsDone(t *testing.T) {
	want := newScene().plan().Digest()
	seen := map[string]string{want: "nothing"}
	for name, change := range map[string]func(*scene){
		"a property of what is created": func(s *scene) { s.meta(t, "create", server, "web-3").New.Inputs["serverType"] = "cx33" },
		"a property's new value":        func(s *scene) { s.meta(t, "update", server, "web-1").New.Inputs["labels"] = map[string]any{"a": "3"} },
		"a property's old value":        func(s *scene) { s.meta(t, "update", server, "web-1").Old.Outputs["labels"] = map[string]any{"a": "0"} },
		"a file's new text":             func(s *scene) { setFile(s.meta(t, "update", ConfigurationType, "lb-1").New.Inputs, "three\n") },
		"a file's text on the host":     func(s *scene) { setFile(s.meta(t, "update", ConfigurationType, "lb-1").Old.Outputs, "zero\n") },
		"a file's mode":                 func(s *scene) { fileOf(s.meta(t, "update", ConfigurationType, "lb-1").New.Inputs)["mode"] = "0600" },
		"a release's content":           func(s *scene) { treeOf(s.meta(t, "update", ConfigurationType, "lb-1"))["digest"] = "sha256:2" },
		"how a unit is handled":         func(s *scene) { unitOf(s.meta(t, "update", ConfigurationType, "lb-1"))["health"] = "true" },
		"whether a unit runs":           func(s *scene) { unitOf(s.meta(t, "update", ConfigurationType, "lb-2"))["active"] = false },
		"that a secret changes": func(s *scene) {
			s.meta(t, "update", ConfigurationType, "lb-1").DetailedDiff["secrets"] = apitype.PropertyDiff{}
		},
		"the host's address":             func(s *scene) { s.meta(t, "update", ConfigurationType, "lb-1").New.Inputs["address"] = "198.18.0.6" },
		"another operation":              func(s *scene) { s.meta(t, "update", server, "web-1").Op = "replace" },
		"one change more":                func(s *scene) { s.events = append(s.events, event("delete", server, "app-3", map[string]any{}, nil)) },
		"one change less":                func(s *scene) { s.events = s.events[:len(s.events)-1] },
		"which server it is":             func(s *scene) { s.meta(t, "delete", server, "app-2").Old.ID = "8" },
		"another name":                   func(s *scene) { s.meta(t, "delete", server, "app-2").URN = urn(server, "app-4") },
		"what is cleared up before":      func(s *scene) { s.settle[0].ID = "10" },
		"whether something is forgotten": func(s *scene) { s.settle = s.settle[:1] },
	} {
		s := newScene()
		change(s)
		got := s.plan().Digest()
		if other, ok := seen[got]; ok {
			t.Errorf("%s gives the same digest as %s", name, other)
		}
		seen[got] = name
	}
	for name, p := range map[string]*Plan{
		"environment": {Project: "infractl", Environment: "production"},
		"project":     {Project: "shop", Environment: "lab"},
		"drift":       {Project: "infractl", Environment: "lab", Drift: true},
	} {
		if p.Digest() == (&Plan{Project: "infractl", Environment: "lab"}).Digest() {
			t.Errorf("another %s gives the same digest", name)
		}
	}
}

func fileOf(properties map[string]any) map[string]any {
	return properties["files"].(map[string]any)["/etc/haproxy/haproxy.cfg"].(map[string]any)
}

func setFile(properties map[string]any, text string) { fileOf(properties)["content"] = text }

func treeOf(m *apitype.StepEventMetadata) map[string]any {
	tree := maps.Clone(m.New.Inputs["trees"].(map[string]any)["/srv/shop/releases/1"].(map[string]any))
	m.New.Inputs["trees"] = map[string]any{"/srv/shop/releases/1": tree}
	return tree
}

func unitOf(m *apitype.StepEventMetadata) map[string]any {
	unit := maps.Clone(m.New.Inputs["units"].([]any)[0].(map[string]any))
	m.New.Inputs["units"] = []any{unit}
	return unit
}

func saved(t *testing.T, p *Plan) Saved {
	t.Helper()
	text, err := json.Marshal(p.Save(time.Now(), SavedOptions{Recreate: []string{"db-1"}}))
	if err != nil {
		t.Fatal(err)
	}
	s, err := ReadSaved(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestASavedPlanHoldsWhatWasPreviewed(t *testing.T) {
	s := saved(t, newScene().plan())
	if d := s.Differences(newScene().plan()); len(d) > 0 {
		t.Errorf("the same plan differs: %q", d)
	}
	if len(s.Options.Recreate) != 1 || s.Summary.Update != 3 {
		t.Errorf("the saved plan is %+v", s)
	}
	text, _ := json.Marshal(s)
	for _, never := range []string{"one", "two", "secret]", "cx23"} {
		if strings.Contains(string(text), `"`+never) {
			t.Errorf("the file holds %q:\n%s", never, text)
		}
	}
}

func TestASavedPlanSaysWhereTheWorldHasMoved(t *testing.T) {
	s := saved(t, newScene().plan())
	now := newScene()
	setFile(now.meta(t, "update", ConfigurationType, "lb-2").Old.Outputs, "edited\n")
	now.meta(t, "update", server, "web-1").Op = "replace"
	now.meta(t, "delete", server, "app-2").URN = urn(server, "app-3")
	now.meta(t, "create", server, "web-3").New.Inputs["serverType"] = "cx33"
	now.settle = now.settle[:1]
	want := []string{
		"no longer needed: forget server web-2: ",
		"web-1 server: to replace, and no longer to update",
		"web-3 server: changes in another way: serverType",
		"app-2 server: there is nothing to delete any more",
		"app-3 server: the plan does not delete it",
		"lb-2 host: changes in another way: /etc/haproxy/haproxy.cfg",
	}
	if got := s.Differences(now.plan()); !slices.Equal(got, want) {
		t.Errorf("the differences are\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestADamagedPlanIsRefused(t *testing.T) {
	whole, err := json.MarshalIndent(newScene().plan().Save(time.Now(), SavedOptions{}), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	change := func(old, new string) string {
		t.Helper()
		if !strings.Contains(string(whole), old) {
			t.Fatalf("the plan does not hold %q", old)
		}
		return strings.Replace(string(whole), old, new, 1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":                {"", "damaged"},
		"cut off":              {string(whole[:len(whole)/2]), "damaged"},
		"no plan":              {`{"version": 1, "kind": "preview"}`, "not a plan"},
		"of a later version":   {change(`"version": 1`, `"version": 2`), "version 2"},
		"another environment":  {change(`"environment": "lab"`, `"environment": "production"`), "digest does not fit"},
		"another operation":    {change(`"operation": "create"`, `"operation": "delete"`), "digest does not fit"},
		"another part":         {change(`"serverType": "`, `"serverTypo": "`), "digest does not fit"},
		"something after it":   {string(whole) + "{}", "damaged"},
		"a field nobody knows": {change(`"options": {`, `"options": {"force": true`), "damaged"},
	} {
		if _, err := ReadSaved([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
