package report

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func markdown(t *testing.T, p *Plan, limit int) string {
	t.Helper()
	var out bytes.Buffer
	if err := p.Markdown(&out, limit); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// hostPlan is a plan with a change of one file on each of some hosts.
func hostPlan(texts map[string][2]string) *Plan {
	p := &Plan{Project: "infractl", Environment: "lab"}
	for name, text := range texts {
		p.Event(event("update", ConfigurationType, name,
			map[string]any{"files": files(map[string]string{"/etc/x": text[0]})},
			map[string]any{"files": files(map[string]string{"/etc/x": text[1]})}))
	}
	p.Sort()
	return p
}

var fences = regexp.MustCompile("^ {0,3}(`{3,})([^`]*)$")

// outsideOfCode is a Markdown text without its blocks of code, by the rules of
// CommonMark: a block ends with a fence that is at least as long as its first.
// It fails the test if a block does not end.
func outsideOfCode(t *testing.T, text string) string {
	t.Helper()
	var out []string
	open := 0
	for _, l := range strings.Split(text, "\n") {
		m := fences.FindStringSubmatch(l)
		switch {
		case open == 0 && m != nil:
			open = len(m[1])
		case open == 0:
			out = append(out, l)
		case m != nil && len(m[1]) >= open && strings.TrimSpace(m[2]) == "":
			open = 0
		}
	}
	if open > 0 {
		t.Errorf("a block of code does not end:\n%s", text)
	}
	return strings.Join(out, "\n")
}

func TestATextCannotBreakOutOfItsBlock(t *testing.T) {
	evil := "before\n```\n<b>out</b>\n`````\n</details>\n@everyone [x](y)\n~~~\n\x1b[31mred\u202e\r\nafter\n"
	text := markdown(t, hostPlan(map[string][2]string{"web-1": {"old\n", evil}, "web-2": {evil, "new\n"},
		// What stays the same has no sign before it, but a space.
		"web-3": {"a\n```\n@everyone\n", "b\n```\n@everyone\n"}}), MarkdownLimit)
	outside := outsideOfCode(t, text)
	for _, never := range []string{"<b>out", "@everyone", "after"} {
		if strings.Contains(outside, never) {
			t.Errorf("%q is outside of the code:\n%s", never, text)
		}
	}
	if n := strings.Count(outside, "</details>"); n != 3 {
		t.Errorf("%d sections end, not 3:\n%s", n, text)
	}
	for _, never := range []string{"\x1b", "\u202e", "\r"} {
		if strings.Contains(text, never) {
			t.Errorf("%q is in the text", never)
		}
	}
	if !strings.Contains(text, `\x1b[31mred\u202e\x0d`) {
		t.Errorf("what a browser would obey is not shown:\n%s", text)
	}
}

func TestNamesAndValuesAreEscaped(t *testing.T) {
	p := &Plan{Project: "infractl", Environment: "lab"}
	p.Event(event("update", server, "web-1", map[string]any{"labels": map[string]any{"a": "x"}},
		map[string]any{"labels": map[string]any{"a": "`x`|y</td>\n\n# z"}}))
	p.Event(event("update", "hcloud:index/odd:A|B_<i>", "we`b|2", map[string]any{"a": "1"}, map[string]any{"a": "``|``"}))
	p.Sort()
	text := markdown(t, p, MarkdownLimit)
	var rows []string
	for _, l := range strings.Split(text, "\n") {
		if strings.HasPrefix(l, "| `") {
			rows = append(rows, l)
			if bars := len(regexp.MustCompile(`(^|[^\\])\|`).FindAllString(l, -1)); bars != 5 {
				t.Errorf("a row has %d bars, not 5: %s", bars, l)
			}
		}
	}
	if len(rows) != 2 {
		t.Fatalf("the table has %d rows:\n%s", len(rows), text)
	}
	if !strings.Contains(rows[1], "`` we`b\\|2 ``") && !strings.Contains(rows[1], "``we`b\\|2``") {
		t.Errorf("the name is not a span of code: %s", rows[1])
	}
	if strings.Contains(rows[1], "<i>") || !strings.Contains(rows[1], "``` \"``\\|``\"") && !strings.Contains(rows[1], "```\"1\" → \"``\\|``\"```") {
		t.Errorf("the kind or the value is not escaped: %s", rows[1])
	}
}

func TestMarkdownBeginsWithAMarkOfItsEnvironment(t *testing.T) {
	p := hostPlan(map[string][2]string{"web-1": {"a\n", "b\n"}})
	if text := markdown(t, p, MarkdownLimit); !strings.HasPrefix(text, "<!-- infractl preview lab -->\n### infractl preview: `lab`: ~1 to update\n") {
		t.Errorf("the beginning is\n%s", text)
	}
	if text := markdown(t, &Plan{Environment: "lab", Drift: true}, MarkdownLimit); !strings.HasPrefix(text, "<!-- infractl drift lab -->\n### infractl drift: `lab`: no drift\n") {
		t.Errorf("the beginning is\n%s", text)
	}
}

func TestMarkdownThatIsTooLongSaysWhatIsMissing(t *testing.T) {
	texts := map[string][2]string{}
	for i := range 40 {
		texts[fmt.Sprintf("web-%d", i+1)] = [2]string{"", strings.Repeat(fmt.Sprintf("läuft auf %d\n", i), 300)}
	}
	p := hostPlan(texts)
	whole := markdown(t, p, 10_000_000)
	if strings.Contains(whole, "This is not all") || strings.Count(whole, "<details>") != 40 {
		t.Errorf("a plan that fits is cut:\n%.2000s", whole)
	}
	for _, limit := range []int{MarkdownLimit, 20_000, 5_000, 2_500} {
		text := markdown(t, p, limit)
		if len(text) > limit || !utf8.ValidString(text) {
			t.Errorf("with a limit of %d the text has %d bytes", limit, len(text))
		}
		outside := outsideOfCode(t, text)
		if a, b := strings.Count(outside, "<details>"), strings.Count(outside, "</details>"); a != b {
			t.Errorf("%d sections begin and %d end", a, b)
		}
		if !strings.Contains(outside, "**This is not all.**") || !strings.Contains(outside, "infractl preview -e lab") {
			t.Errorf("with a limit of %d it does not say that something is missing:\n%s", limit, outside)
		}
		if !strings.HasPrefix(text, "<!-- infractl preview lab -->\n") || !strings.Contains(text, "~40 to update") {
			t.Errorf("the title is missing:\n%.300s", text)
		}
	}
	if text := markdown(t, p, 20_000); !strings.Contains(text, "301 lines, not shown here") && !strings.Contains(text, "302 lines, not shown here") {
		t.Errorf("a diff that does not fit is not named:\n%s", outsideOfCode(t, text))
	}
}

func TestALongTableIsCutToo(t *testing.T) {
	p := &Plan{Project: "infractl", Environment: "lab"}
	for i := range 2000 {
		p.Event(event("create", server, fmt.Sprintf("web-%d", i+1), nil, map[string]any{"serverType": "cx23"}))
	}
	p.Sort()
	text := markdown(t, p, MarkdownLimit)
	if len(text) > MarkdownLimit || !strings.Contains(text, "lines are left out") {
		t.Errorf("%d bytes, which end\n%s", len(text), text[len(text)-400:])
	}
}
