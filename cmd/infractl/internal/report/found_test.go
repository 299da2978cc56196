package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
)

// foundOn is what a preview says of a host when it has looked at it.
func foundOn(op, name string, old, new, found map[string]any) apitype.EngineEvent {
	m := planned(op, name, old, new).ResourcePreEvent.Metadata
	m.New.Outputs = map[string]any{"files": new["files"], "found": found}
	return apitype.EngineEvent{ResOutputsEvent: &apitype.ResOutputsEvent{Metadata: m, Planning: true}}
}

func TestTakingAServerOverIsShownBeforeItHappens(t *testing.T) {
	wished := map[string]any{
		"packages": []any{"nginx", "nftables"},
		"files": files(map[string]string{
			"/etc/nginx/nginx.conf": "ours;\n", "/etc/hostname": "web-1\n", "/etc/new": "new\n", "/etc/secret": "@@secret.word@@\n",
		}),
		"units": []any{
			map[string]any{"name": "nginx.service", "enabled": true, "active": true, "reloadOn": []any{"/etc/nginx/"}},
			map[string]any{"name": "haproxy.service", "enabled": false, "active": false},
		},
	}
	found := map[string]any{
		"packages": []any{"nginx"},
		"files": map[string]any{
			"/etc/nginx/nginx.conf": map[string]any{"content": "theirs;\n", "mode": "0640", "foreign": true},
			"/etc/hostname":         map[string]any{"content": "web-1\n", "mode": "0644", "foreign": true},
			"/etc/secret":           map[string]any{"content": "(differs; not shown, because it is large, no text, or may hold a secret; SHA-256 ab)\n", "foreign": true},
		},
		"units": []any{
			map[string]any{"name": "nginx.service", "enabled": true, "active": true},
			map[string]any{"name": "haproxy.service", "enabled": true, "active": true},
		},
	}
	p := &Plan{Project: "infractl", Environment: "lab"}
	p.Event(planned("create", "web-1", nil, wished))
	blind := p.Digest()
	p.Event(foundOn("create", "web-1", nil, wished, found))
	// Another host gets a file in a place where something stands.
	before := map[string]any{"files": map[string]any{
		"/etc/a":   map[string]any{"content": "a\n"},
		"/etc/old": map[string]any{"content": "x\n", "original": true},
	}}
	after := map[string]any{"files": files(map[string]string{"/etc/a": "a\n", "/etc/b": "ours\n"})}
	p.Event(planned("update", "web-2", before, after))
	p.Event(foundOn("update", "web-2", before, after, map[string]any{"files": map[string]any{
		"/etc/b": map[string]any{"content": "theirs\n", "foreign": true},
	}}))
	p.Sort()
	if p.Digest() == blind || len(p.Changes) != 2 {
		t.Errorf("what was found is no part of the plan: %d changes", len(p.Changes))
	}
	var out bytes.Buffer
	p.Write(&out, Style{}, PlanOptions{})
	out.WriteString(p.Summary() + "\n\n")
	if err := p.Markdown(&out, MarkdownLimit); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if i := strings.Index(text, "<sub>plan"); i > 0 {
		text = text[:i]
	}
	golden(t, text)
}
