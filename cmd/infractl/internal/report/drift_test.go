package report

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
)

// seen is what a refresh that only looks says of a resource at the end: old is
// what was applied, new what is there.
func seen(op, typ, name string, old, new map[string]any) apitype.EngineEvent {
	m := step(op, typ, name)
	m.Old = &apitype.StepEventStateMetadata{ID: "7", Inputs: old, Outputs: map[string]any{}}
	m.DetailedDiff = map[string]apitype.PropertyDiff{}
	for _, key := range union(old, new) {
		if hash(old[key]) != hash(new[key]) {
			m.DetailedDiff[key] = apitype.PropertyDiff{Kind: apitype.DiffUpdate}
		}
	}
	if new != nil {
		m.New = &apitype.StepEventStateMetadata{ID: "7", Inputs: old, Outputs: new}
	}
	return apitype.EngineEvent{ResOutputsEvent: &apitype.ResOutputsEvent{Metadata: m, Planning: true}}
}

func driftPlan(events ...apitype.EngineEvent) *Plan {
	p := &Plan{Project: "infractl", Environment: "lab", Drift: true}
	for _, e := range events {
		p.Event(e)
	}
	p.Sort()
	return p
}

func TestDriftIsToldAsWhatIsThereNow(t *testing.T) {
	unit := func(name string, active, enabled bool) map[string]any {
		return map[string]any{"name": name, "active": active, "enabled": enabled}
	}
	applied := map[string]any{
		"packages": []any{"nginx", "chrony"},
		"users":    []any{map[string]any{"name": "shop", "groups": []any{"adm"}}, map[string]any{"name": "gone"}},
		"files": map[string]any{
			"/etc/a":      map[string]any{"content": "1\n"},
			"/etc/b":      map[string]any{"content": "1\n", "mode": "0600"},
			"/etc/c":      map[string]any{"content": "1\n"},
			"/etc/secret": map[string]any{"content": "@@secret.x@@\n"},
		},
		"trees": map[string]any{"/srv/a": map[string]any{"digest": "sha256:1"}, "/srv/b": map[string]any{"digest": "sha256:1"}},
		"units": []any{unit("a.service", true, true), unit("b.service", true, true), unit("c.service", false, false), unit("d.service", true, true)},
	}
	pending := unit("d.service", true, true)
	pending["pending"] = "restart"
	there := map[string]any{
		"packages": []any{"nginx"},
		"users":    []any{map[string]any{"name": "shop"}},
		"files": map[string]any{
			"/etc/a":      map[string]any{"content": "2\n", "mode": "0644", "owner": "root", "group": "root"},
			"/etc/b":      map[string]any{"content": "1\n", "mode": "0644", "owner": "root", "group": "root"},
			"/etc/secret": map[string]any{"content": "(differs; not shown, because it is large, no text, or may hold a secret; SHA-256 00)\n"},
		},
		"trees": map[string]any{"/srv/a": map[string]any{"digest": "sha256:2"}},
		"units": []any{unit("a.service", false, true), unit("b.service", true, false), unit("c.service", true, true), pending},
	}
	p := driftPlan(
		pre("refresh", server, "web-1"),
		seen("same", server, "web-1", map[string]any{}, map[string]any{}),
		seen("update", ConfigurationType, "web-1", applied, there),
		seen("delete", server, "web-2", map[string]any{"serverType": "cx23"}, nil),
		seen("update", "hcloud:index/firewall:Firewall", "web", map[string]any{"rules": []any{map[string]any{"port": "22"}}}, map[string]any{"rules": []any{}}),
	)
	p.Settle = []Settling{{Operation: "leave", Kind: "server", Name: "lab-x", ID: "9", Reason: "it carries this environment's labels, but is not in its state"}}
	var out bytes.Buffer
	p.Write(&out, Style{}, PlanOptions{})
	out.WriteString(p.Summary() + "\n")
	golden(t, out.String())
	for _, never := range []string{"reload", "restart a", "@@secret.x@@"} {
		if strings.Contains(out.String(), never) {
			t.Errorf("the drift says %q", never)
		}
	}
}

func TestNoDriftIsSaid(t *testing.T) {
	p := driftPlan(seen("same", server, "web-1", nil, nil), seen("refresh", stack, "infractl-lab", nil, nil))
	if got := p.Summary(); got != "lab: no drift; 1 resource is as applied last" || p.Any() {
		t.Error(got)
	}
	if d := p.Document(); d.Kind != "drift" || d.Changes == nil || d.Settle == nil {
		t.Errorf("the document is %+v", d)
	}
}

func TestDriftGoesFromWhatWasAppliedToWhatIsThere(t *testing.T) {
	p := driftPlan(seen("update", ConfigurationType, "web-1",
		map[string]any{"files": files(map[string]string{"/etc/a": "applied\n"})}, map[string]any{"files": files(map[string]string{"/etc/a": "edited\n"})}))
	want := []string{"@@ -1 +1 @@", "-applied", "+edited"}
	if got := p.Changes[0].Files[0].body(); !slices.Equal(got, want) {
		t.Errorf("the diff is %q", got)
	}
	p = driftPlan(seen("update", server, "web-1", map[string]any{"serverType": "cx23"}, map[string]any{"serverType": "cx33"}))
	if v := p.Changes[0].Properties["serverType"]; v.Old != "cx23" || v.New != "cx33" {
		t.Errorf("the property is %+v", v)
	}
}
