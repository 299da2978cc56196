package report

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// MarkdownLimit is how long a plan in Markdown is at most, in bytes. A comment
// on GitHub takes 65,536 characters, one on GitLab 1,000,000; the rest is for
// what a job may want to add.
const MarkdownLimit = 65_000

// markdownReserve is kept for titles, and for the lines after a plan that was cut.
const markdownReserve = 1000

// Markdown writes the plan for a comment on a merge request. It is never longer
// than limit bytes: what does not fit is left out, which it says.
func (p *Plan) Markdown(out io.Writer, limit int) error {
	m := &markdownWriter{left: limit - markdownReserve, shown: shown{}}
	m.must(p.markdownHead())
	m.settle(p)
	m.refusals(p)
	m.cloud(p.cloud())
	m.groups(p.Groups())
	if m.cut() {
		m.b.WriteString(fmt.Sprintf("\n**This is not all.** A comment takes %d characters, so %s left out. The whole plan: `infractl %s -e %s`.\n",
			limit, m.missing(), p.kind(), p.Environment))
	}
	if !p.Drift {
		fmt.Fprintf(&m.b, "\n<sub>plan %s</sub>\n", p.Digest())
	}
	_, err := io.WriteString(out, m.b.String())
	return err
}

// markdownHead is the title with the counts. It begins with a comment that a
// job can look for, to replace what it wrote before.
func (p *Plan) markdownHead() string {
	what, words := "preview", planWords
	if p.Drift {
		what, words = "drift", driftWords
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<!-- infractl %s %s -->\n", what, p.Environment)
	counts := "no changes"
	if p.Drift {
		counts = "no drift"
	}
	if p.Any() {
		counts = strings.Join(p.signedCounts(words), ", ")
	}
	fmt.Fprintf(&b, "### infractl %s: %s: %s\n\n", what, code(p.Environment), counts)
	switch {
	case p.Drift && p.Any():
		fmt.Fprintf(&b, "What differs from what was applied last. Diffs go from that (`-`) to what is there now (`+`). %s as applied.\n", capital(are(p.Unchanged, "resource")))
	case p.Drift:
		fmt.Fprintf(&b, "%s as applied last.\n", capital(are(p.Unchanged, "resource")))
	case p.Any():
		fmt.Fprintf(&b, "%s not changed.\n", capital(are(p.Unchanged, "resource")))
	default:
		fmt.Fprintf(&b, "%s as they should be.\n", capital(are(p.Unchanged, "resource")))
	}
	return b.String()
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// markdownWriter adds blocks as long as there is room for them.
type markdownWriter struct {
	b     strings.Builder
	left  int
	shown shown
	// What there was no room for.
	rows, hosts, diffs int
}

// must adds text that has to be there.
func (m *markdownWriter) must(text string) {
	m.b.WriteString(text)
	m.left -= len(text)
}

// fits adds text if there is room for it and for another reserve bytes.
func (m *markdownWriter) fits(text string, reserve int) bool {
	if len(text)+reserve > m.left {
		return false
	}
	m.must(text)
	return true
}

func (m *markdownWriter) cut() bool { return m.rows+m.hosts+m.diffs > 0 }

func (m *markdownWriter) missing() string {
	var out []string
	n := 0
	for _, x := range []struct {
		count int
		what  string
	}{{m.rows, "line"}, {m.hosts, "host"}, {m.diffs, "diff"}} {
		if x.count > 0 {
			out = append(out, count(x.count, x.what))
			n += x.count
		}
	}
	verb := " are"
	if n == 1 {
		verb = " is"
	}
	return strings.Join(out, " and ") + verb
}

func (m *markdownWriter) settle(p *Plan) {
	if len(p.Settle) == 0 {
		return
	}
	title := "Before that"
	if p.Drift {
		title = "In the cloud, but not in the state"
	}
	m.must("\n**" + title + "**\n\n")
	for _, s := range p.Settle {
		if !m.fits("- "+code(s.words())+"\n", 0) {
			m.rows++
		}
	}
}

func (m *markdownWriter) refusals(p *Plan) {
	if len(p.Refusals)+len(p.Failures) == 0 {
		return
	}
	m.must("\n**Errors**\n\n")
	for _, r := range p.Refusals {
		if !m.fits("- "+code(r.Title())+"  \n  "+code(r.Advice)+"\n", 0) {
			m.rows++
		}
	}
	for _, f := range p.Failures {
		if !m.fits("- "+code(f.Title())+"\n", 0) {
			m.rows++
		}
	}
}

// cloud writes a table.
func (m *markdownWriter) cloud(changes []Change) {
	if len(changes) == 0 {
		return
	}
	m.must("\n#### Cloud\n\n| | name | kind | change |\n|---|---|---|---|\n")
	for _, c := range changes {
		row := fmt.Sprintf("| %s | %s | %s | %s |\n", code(signs[c.Operation].sign), cell(code(c.Name)), cell(escape(c.Kind)), cell(c.cell()))
		if !m.fits(row, 0) {
			m.rows++
		}
	}
}

// cell is what a table says of a change in the cloud.
func (c Change) cell() string {
	var out []string
	for _, f := range c.facts {
		out = append(out, code(f))
	}
	for _, n := range c.Notes {
		out = append(out, escape(n))
	}
	if c.Operation == "update" || c.Operation == "replace" {
		for _, key := range sortedNames(c.Properties) {
			v := c.Properties[key]
			line, elements := v.describe()
			text := code(key)
			if line != "" {
				text += " " + code(line)
			}
			for _, e := range elements {
				text += "<br>" + code(e)
			}
			if v.Replaces {
				text += " (cannot be changed in place)"
			}
			out = append(out, text)
		}
	}
	return strings.Join(out, "<br>")
}

func (m *markdownWriter) groups(groups []Group) {
	if len(groups) == 0 {
		return
	}
	m.must("\n#### Hosts\n\n")
	for _, g := range groups {
		m.group(g)
	}
}

func (m *markdownWriter) group(g Group) {
	c := g.Changes[0]
	summary := fmt.Sprintf("<code>%s</code> <code>%s</code>", signs[c.Operation].sign, html.EscapeString(visible(strings.Join(g.Hosts, ", "))))
	if short := c.short(); short != "" {
		summary += ": " + html.EscapeString(short)
	}
	files := c.Files
	if c.fresh() {
		files = c.taken()
	}
	if c.fresh() && len(files) == 0 || c.empty() { // all there is to say is in the line itself
		if !m.fits("- "+summary+"\n\n", 0) {
			m.hosts += len(g.Hosts)
		}
		return
	}
	var tail strings.Builder
	if len(c.Actions) > 0 {
		tail.WriteString("\nthen: " + codes(c.Actions) + "\n")
	}
	for _, list := range [][]string{c.Units, c.Notes} {
		for _, s := range list {
			tail.WriteString("\n" + code(s) + "\n")
		}
	}
	tail.WriteString("\n</details>\n\n")
	head := "<details><summary>" + summary + "</summary>\n"
	for _, list := range [][]string{c.Packages, c.Users, c.Trees} {
		for _, s := range list {
			head += "\n" + code(s) + "\n"
		}
	}
	if !m.fits(head, tail.Len()) {
		m.hosts += len(g.Hosts)
		return
	}
	for _, f := range files {
		m.file(f, g.Hosts[0], tail.Len())
	}
	m.must(tail.String())
}

// short is what changes on a host, in a few words.
func (c Change) short() string {
	if c.fresh() {
		return c.size()
	}
	var out []string
	add := func(n int, what string) {
		if n > 0 {
			out = append(out, count(n, what))
		}
	}
	add(len(c.Packages), "package")
	add(len(c.Users), "user")
	add(len(c.Trees), "tree")
	add(len(c.Files), "file")
	add(len(c.Units), "unit")
	if len(c.Actions) > 0 {
		out = append(out, strings.Join(c.Actions, ", "))
	}
	if len(out) == 0 {
		out = c.Notes
	}
	return visible(strings.Join(out, "; "))
}

// file writes a file's change, without its diff if that does not fit.
func (m *markdownWriter) file(f FileChange, host string, reserve int) {
	line := "\n" + code(signs[f.Operation].sign) + " " + code(f.Path)
	if len(f.Attributes) > 0 {
		line += " (" + codes(f.Attributes) + ")"
	}
	body := f.body()
	if len(body) == 0 {
		if !m.fits(line+"\n", reserve) {
			m.diffs++
		}
		return
	}
	first, differing := m.shown.before(f)
	switch {
	case first == "":
		if m.fits(line+"\n\n"+fenced("diff", body)+"\n", reserve) {
			m.shown.add(f, host)
			return
		}
	case len(differing) == 0:
		if m.fits(line+" same as on "+code(first)+"\n", reserve) {
			return
		}
	default:
		body = differing
		if m.fits(line+" same as on "+code(first)+" but for:\n\n"+fenced("diff", body)+"\n", reserve) {
			return
		}
	}
	m.diffs++
	m.fits(fmt.Sprintf("%s %s, not shown here\n", line, count(len(body), "line")), reserve)
}

// fenced is a block of code. Its fence is longer than any in the text, so that
// the text cannot end it.
func fenced(language string, body []string) string {
	fence := "```"
	for _, l := range body {
		if run := backticks(l); run >= len(fence) {
			fence = strings.Repeat("`", run+1)
		}
	}
	return fence + language + "\n" + strings.Join(body, "\n") + "\n" + fence
}

// backticks is the length of the longest run of backticks in a text.
func backticks(s string) int {
	most, run := 0, 0
	for _, r := range s {
		if r == '`' {
			run++
			most = max(most, run)
		} else {
			run = 0
		}
	}
	return most
}

// code is a span of code, in which nothing has a meaning.
func code(s string) string {
	s = visible(strings.ReplaceAll(s, "\n", " "))
	if s == "" {
		return ""
	}
	fence := strings.Repeat("`", backticks(s)+1)
	if strings.HasPrefix(s, "`") || strings.HasSuffix(s, "`") || strings.HasPrefix(s, " ") && strings.HasSuffix(s, " ") {
		s = " " + s + " "
	}
	return fence + s + fence
}

func codes(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = code(s)
	}
	return strings.Join(out, ", ")
}

// cell escapes what would end a table's cell, in code too: GitHub's tables take
// the bar before they look at what is in it.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// escape writes plain words as Markdown.
func escape(s string) string {
	var b strings.Builder
	for _, r := range visible(strings.ReplaceAll(s, "\n", " ")) {
		if strings.ContainsRune("\\`*_{}[]<>()#+-!|~&@", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
