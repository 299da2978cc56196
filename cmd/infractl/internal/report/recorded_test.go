package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
)

// recorded makes a plan of events that the engine told of real hosts in the
// lab. They were cut to what a plan reads, and files to what changes in them:
//
//	plan.jsonl   web scaled from 2 to 3 and app from 2 to 1, another token for
//	             the virtual IP, and a firewall that is made anew
//	drift.jsonl  a server deleted, a firewall's rules and a file changed, a
//	             package removed, units stopped, all by hand
func recorded(t *testing.T, file string, drift bool) *Plan {
	t.Helper()
	f, err := os.Open("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := &Plan{Project: "infractl", Environment: "lab", Drift: drift}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var ev apitype.EngineEvent
		if err := json.Unmarshal(lines.Bytes(), &ev); err != nil {
			t.Fatal(err)
		}
		p.Event(ev)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	p.Sort()
	return p
}

func recordedPlan(t *testing.T) *Plan {
	p := recorded(t, "plan.jsonl", false)
	p.Settle = []Settling{
		{Operation: "delete", Kind: "server", Name: "lab-web-4", ID: "10000170", Reason: "the last run made it, but could not keep track of it"},
		{Operation: "forget", Kind: "placement group", Name: "web", ID: "10000150", Reason: "it is gone from the cloud; what the configuration has is made again"},
	}
	return p
}

func terminalText(p *Plan, style Style) string {
	var out bytes.Buffer
	p.Write(&out, style, PlanOptions{})
	out.WriteString(p.Summary() + "\n")
	return out.String()
}

func documentText(t *testing.T, p *Plan) string {
	t.Helper()
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(p.Document()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestRecordedPlanWithoutColours(t *testing.T) {
	golden(t, terminalText(recordedPlan(t), Style{}))
}

func TestRecordedPlanInColours(t *testing.T) {
	golden(t, terminalText(recordedPlan(t), Style{Color: true}))
}

func TestRecordedPlanAsJSON(t *testing.T) {
	golden(t, documentText(t, recordedPlan(t)))
}

func TestRecordedPlanAsMarkdown(t *testing.T) {
	golden(t, markdown(t, recordedPlan(t), MarkdownLimit))
}

func TestRecordedDriftWithoutColours(t *testing.T) {
	golden(t, terminalText(recorded(t, "drift.jsonl", true), Style{}))
}

func TestRecordedDriftAsMarkdown(t *testing.T) {
	golden(t, markdown(t, recorded(t, "drift.jsonl", true), MarkdownLimit))
}

func TestRecordedPlanHasNoSecret(t *testing.T) {
	p := recordedPlan(t)
	saved, err := json.Marshal(saved(t, p))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"terminal": terminalText(p, Style{}), "JSON": documentText(t, p), "Markdown": markdown(t, p, MarkdownLimit), "plan file": string(saved)} {
		for _, never := range []string{"ciphertext", "[secret]", "ffff", "4dabf18193072939515e22adb298388d"} {
			if strings.Contains(text, never) {
				t.Errorf("%s holds %q", name, never)
			}
		}
	}
}
