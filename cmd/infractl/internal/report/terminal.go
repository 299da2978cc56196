package report

import (
	"fmt"
	"io"
	"strings"
)

// PlanOptions say how much of a plan to write.
type PlanOptions struct {
	// Files writes the full text of every file that is created on a new host.
	Files bool
}

// Write writes the plan for people: what is in the cloud, then what is on
// hosts, the same on several hosts once.
func (p *Plan) Write(out io.Writer, style Style, o PlanOptions) {
	w := &planWriter{out: out, style: style, options: o, shown: shown{}}
	if p.Drift && p.Any() {
		w.line("%s", style.paint(dim, "From what was applied last (-) to what is there now (+):"))
	}
	if len(p.Settle) > 0 {
		title := "Before that"
		if p.Drift {
			title = "In the cloud, but not in the state"
		}
		w.section(title)
		for _, s := range p.Settle {
			mark := settleMark(s.Operation)
			w.line("%s %s", style.paint(mark.color, mark.sign), visible(s.words()))
		}
	}
	if cloud := p.cloud(); len(cloud) > 0 {
		w.section("Cloud")
		for _, c := range cloud {
			w.cloud(c)
		}
	}
	if groups := p.Groups(); len(groups) > 0 {
		w.section("Hosts")
		for _, g := range groups {
			w.group(g)
		}
	}
	if w.begun {
		fmt.Fprintln(out)
	}
}

func settleMark(operation string) struct{ sign, color string } {
	switch operation {
	case "delete":
		return signs["delete"]
	case "forget":
		return signs["update"]
	}
	return struct{ sign, color string }{"?", yellow}
}

// words are what is done in settling, and why.
func (s Settling) words() string {
	if s.Operation == "leave" {
		return fmt.Sprintf("%s %s: %s", s.Kind, s.Name, s.Reason)
	}
	return fmt.Sprintf("%s %s %s: %s", s.Operation, s.Kind, s.Name, s.Reason)
}

type planWriter struct {
	out     io.Writer
	style   Style
	options PlanOptions
	shown   shown
	begun   bool
}

func (w *planWriter) line(format string, args ...any) { fmt.Fprintf(w.out, format+"\n", args...) }

func (w *planWriter) section(title string) {
	if w.begun {
		fmt.Fprintln(w.out)
	}
	w.begun = true
	w.line("%s", w.style.paint(bold, title))
}

func (w *planWriter) title(operation, names, kind string, facts []string) {
	mark := signs[operation]
	text := fmt.Sprintf("%s %s", w.style.paint(mark.color, mark.sign), w.style.paint(bold, names))
	if kind != names {
		text += "  " + kind
	}
	if len(facts) > 0 {
		text += w.style.paint(dim, "  "+visible(strings.Join(facts, ", ")))
	}
	w.line("%s", text)
}

func (w *planWriter) cloud(c Change) {
	w.title(c.Operation, c.Name, c.Kind, c.facts)
	for _, n := range c.Notes {
		w.line("    %s", visible(n))
	}
	if c.Operation != "update" && c.Operation != "replace" {
		return
	}
	for _, key := range sortedNames(c.Properties) {
		line, elements := c.Properties[key].describe()
		head := key + ":"
		if line != "" {
			head += " " + visible(line)
		}
		if c.Properties[key].Replaces {
			head += w.style.paint(red, "  (cannot be changed in place)")
		}
		w.line("    %s", head)
		for _, l := range elements {
			w.line("        %s", w.diff(visible(l)))
		}
	}
}

func (w *planWriter) group(g Group) {
	c := g.Changes[0]
	w.title(c.Operation, strings.Join(g.Hosts, ", "), "host", nil)
	if c.fresh() && !w.options.Files {
		w.line("    %s", c.size())
		if !c.stands {
			return
		}
		// What is new on it can be asked for; what it had is not to be overlooked.
		for _, f := range c.taken() {
			w.file(f, g.Hosts[0])
		}
		if len(c.Actions) > 0 {
			w.line("    then: %s", visible(strings.Join(c.Actions, ", ")))
		}
		return
	}
	for _, list := range [][]string{c.Packages, c.Users, c.Trees} {
		for _, s := range list {
			w.line("    %s", visible(s))
		}
	}
	for _, f := range c.Files {
		w.file(f, g.Hosts[0])
	}
	if len(c.Actions) > 0 {
		w.line("    then: %s", visible(strings.Join(c.Actions, ", ")))
	}
	for _, list := range [][]string{c.Units, c.Notes} {
		for _, s := range list {
			w.line("    %s", visible(s))
		}
	}
}

// fresh says whether the change is a new host, of which everything is new.
func (c Change) fresh() bool { return c.Operation == "create" && len(c.Files) > 0 }

// taken are the files of a host that it had before.
func (c Change) taken() []FileChange {
	var out []FileChange
	for _, f := range c.Files {
		if f.Operation != "create" {
			out = append(out, f)
		}
	}
	return out
}

// size says how much is put on a new host.
func (c Change) size() string {
	files := count(len(c.Files), "file")
	if n := len(c.taken()); n > 0 {
		files += fmt.Sprintf(" (%d of them there already)", n)
	}
	return strings.Join([]string{count(len(c.Packages), "package"), files, count(len(c.Actions), "unit")}, ", ")
}

func (w *planWriter) file(f FileChange, host string) {
	mark := signs[f.Operation]
	line := visible(f.Path)
	if len(f.Attributes) > 0 {
		line += "  (" + visible(strings.Join(f.Attributes, ", ")) + ")"
	}
	first, body := w.shown.before(f)
	switch {
	case first == "":
		w.shown.add(f, host)
		body = f.body()
	case len(body) == 0:
		line += w.style.paint(dim, "  same as on "+first)
	default:
		line += w.style.paint(dim, "  same as on "+first+" but for:")
	}
	w.line("    %s %s", w.style.paint(mark.color, mark.sign), line)
	for _, l := range body {
		w.line("        %s", w.diff(l))
	}
}

// diff colours a line of a diff.
func (w *planWriter) diff(l string) string {
	switch {
	case strings.HasPrefix(l, "+"):
		return w.style.paint(green, l)
	case strings.HasPrefix(l, "-"):
		return w.style.paint(red, l)
	case strings.HasPrefix(l, "@@"):
		return w.style.paint(cyan, l)
	}
	return l
}

// WriteRefusals writes why a plan is not carried out, and what to do.
func (p *Plan) WriteRefusals(out io.Writer, style Style) {
	for _, r := range p.Refusals {
		fmt.Fprintf(out, "%s %s\n  %s\n", style.paint(red, "✗"), r.Title(), r.Advice)
	}
	Failures(out, style, p.Failures)
}
