package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
)

// planned is a preview's event about a host.
func planned(op, name string, old, new map[string]any) apitype.EngineEvent {
	m := step(op, ConfigurationType, name)
	if old != nil {
		m.Old = &apitype.StepEventStateMetadata{Outputs: old}
	}
	if new != nil {
		m.New = &apitype.StepEventStateMetadata{Inputs: new}
	}
	return apitype.EngineEvent{ResourcePreEvent: &apitype.ResourcePreEvent{Metadata: m, Planning: true}}
}

func files(content map[string]string) map[string]any {
	out := map[string]any{}
	for path, c := range content {
		out[path] = map[string]any{"content": c}
	}
	return out
}

// examplePlan has one of everything.
func examplePlan() *Plan {
	units := []any{
		map[string]any{"name": "nginx.service", "enabled": true, "active": true, "reloadOn": []any{"/etc/nginx/"}},
		map[string]any{"name": "sshd.service", "enabled": true, "active": true, "restartOn": []any{"/etc/ssh/sshd_config"}},
	}
	p := &Plan{Project: "infractl", Environment: "lab"}
	resize := step("update", server, "web-1")
	resize.DetailedDiff = map[string]apitype.PropertyDiff{"serverType": {Kind: apitype.DiffUpdate}}
	resize.Old = &apitype.StepEventStateMetadata{Outputs: map[string]any{"serverType": "cx23"}}
	resize.New = &apitype.StepEventStateMetadata{Inputs: map[string]any{"serverType": "cx33"}}
	for _, e := range []apitype.EngineEvent{
		pre("same", network, "network"),
		pre("create", stack, "infractl-lab"),
		pre("refresh", ConfigurationType, "web-1"),
		{ResourcePreEvent: &apitype.ResourcePreEvent{Metadata: resize}},
		planned("create", "web-2", nil, map[string]any{
			"packages": []any{"nginx"},
			"files":    files(map[string]string{"/etc/nginx/nginx.conf": "worker_processes 2;\n"}),
			"units":    units,
			"secrets":  "[secret]",
			"address":  unknown,
		}),
		planned("update", "web-1",
			map[string]any{"files": files(map[string]string{"/etc/nginx/nginx.conf": "one;\ntwo;\nthree;\n", "/etc/old": "x\n"}), "units": units, "packages": []any{"nginx"}},
			map[string]any{"files": files(map[string]string{"/etc/nginx/nginx.conf": "one;\n2;\nthree;\n", "/etc/ssh/sshd_config": "Port 22\n"}), "units": units, "packages": []any{"nginx", "chrony"},
				"trees": map[string]any{"/srv/shop/releases/abc": map[string]any{"digest": "sha256:abc"}}}),
		planned("update", "lb-1", map[string]any{"secrets": "[secret]"}, map[string]any{"secrets": "[secret]"}),
		planned("delete", "web-3", map[string]any{"files": files(map[string]string{"/etc/x": "y"})}, nil),
	} {
		if e.ResourcePreEvent.Metadata.URN == urn(ConfigurationType, "lb-1") {
			e.ResourcePreEvent.Metadata.Diffs = []string{"secrets"}
		}
		p.Event(e)
	}
	p.Sort()
	return p
}

func TestPlanShowsFilesAndWhatFollows(t *testing.T) {
	var out bytes.Buffer
	p := examplePlan()
	p.Write(&out, Style{}, PlanOptions{})
	out.WriteString(p.Summary() + "\n")
	golden(t, out.String())
}

func TestPlanShowsEveryFileInFull(t *testing.T) {
	var out bytes.Buffer
	examplePlan().Write(&out, Style{}, PlanOptions{Files: true})
	if !strings.Contains(out.String(), "+ /etc/nginx/nginx.conf\n        +worker_processes 2;\n") {
		t.Errorf("the plan is\n%s", out.String())
	}
}

func TestEmptyPlanIsSaid(t *testing.T) {
	p := &Plan{Environment: "lab"}
	p.Event(pre("same", network, "network"))
	if got := p.Summary(); got != "lab: no changes; 1 resource is as they should be" {
		t.Error(got)
	}
}

func TestColoursAreUsedOnlyWhereTheyAreWanted(t *testing.T) {
	for _, color := range []bool{true, false} {
		var out bytes.Buffer
		examplePlan().Write(&out, Style{Color: color}, PlanOptions{})
		if strings.Contains(out.String(), "\x1b[") != color {
			t.Errorf("colour %v:\n%q", color, out.String())
		}
	}
}
