package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// result is what became of one test or package.
type result struct{ outcome, name string }

// test is a test that has begun.
type test struct {
	output  strings.Builder
	outcome string // empty while it runs
	parent  bool   // has subtests, and so is not counted itself
}

// pkg is a package whose tests have begun.
type pkg struct {
	order  []string // tests as they began
	tests  map[string]*test
	output strings.Builder // outside of tests
	done   bool
}

// reader collects events and prints what is worth reading.
type reader struct {
	out     io.Writer
	each    bool // print a line when a test ends
	order   []string
	pkgs    map[string]*pkg
	build   map[string]*strings.Builder // compiler's words by package
	results []result
}

func newReader(out io.Writer) *reader {
	return &reader{out: out, pkgs: map[string]*pkg{}, build: map[string]*strings.Builder{}}
}

// line takes one line of input. What is no event, such as a message of the go
// command itself, is passed on.
func (r *reader) line(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil || e.Action == "" {
		fmt.Fprintf(r.out, "%s", line)
		return
	}
	switch {
	case strings.HasPrefix(e.Action, "build-"):
		if e.Action == "build-output" {
			// The path of a test variant ends with the tested package.
			name, _, _ := strings.Cut(e.ImportPath, " ")
			if r.build[name] == nil {
				r.build[name] = &strings.Builder{}
			}
			r.build[name].WriteString(e.Output)
		}
	case e.Package == "":
	case e.Test != "":
		r.test(e)
	default:
		r.pkg(e)
	}
}

func (r *reader) get(name string) *pkg {
	p := r.pkgs[name]
	if p == nil {
		p = &pkg{tests: map[string]*test{}}
		r.pkgs[name] = p
		r.order = append(r.order, name)
	}
	return p
}

func (r *reader) test(e event) {
	p := r.get(e.Package)
	t := p.tests[e.Test]
	if t == nil {
		t = &test{}
		p.tests[e.Test] = t
		p.order = append(p.order, e.Test)
		if i := strings.LastIndexByte(e.Test, '/'); i >= 0 && p.tests[e.Test[:i]] != nil {
			p.tests[e.Test[:i]].parent = true
		}
	}
	switch e.Action {
	case "output":
		t.output.WriteString(e.Output)
	case "pass", "fail", "skip":
		t.outcome = map[string]string{"pass": "passed", "fail": "failed", "skip": "skipped"}[e.Action]
		if r.each && !strings.Contains(e.Test, "/") {
			fmt.Fprintf(r.out, "      %s %s (%.1f s)\n", t.outcome, e.Test, e.Elapsed)
		}
	}
}

func (r *reader) pkg(e event) {
	p := r.get(e.Package)
	switch e.Action {
	case "output":
		p.output.WriteString(e.Output)
	case "pass", "skip", "fail":
		r.finish(e.Package, p, e.Action, e.Elapsed)
	}
}

// finish prints and counts a package.
func (r *reader) finish(name string, p *pkg, action string, elapsed float64) {
	p.done = true
	count := map[string]int{}
	var found []result
	for _, testName := range p.order {
		t := p.tests[testName]
		outcome := t.outcome
		if outcome == "" {
			outcome = "failed" // the process ended in the middle of it
		}
		if t.parent && !(outcome == "failed" && !p.childFailed(testName)) {
			continue
		}
		full := name + " " + testName
		switch outcome {
		case "skipped":
			full += ": " + reason(t.output.String())
		case "failed":
			full += ending(t.output.String())
		}
		count[outcome]++
		found = append(found, result{outcome, full})
	}
	if action == "fail" && count["failed"] == 0 {
		count["failed"]++
		found = append(found, result{"failed", name})
	}
	r.results = append(r.results, found...)
	if len(found) == 0 {
		return // no tests in it
	}

	word := "ok  "
	if action == "fail" {
		word = "FAIL"
	}
	fmt.Fprintf(r.out, "%s  %s: %d passed, %d failed, %d skipped (%.1f s)\n",
		word, name, count["passed"], count["failed"], count["skipped"], elapsed)
	for _, one := range found {
		if one.outcome == "skipped" {
			fmt.Fprintf(r.out, "      skipped: %s\n", strings.TrimPrefix(one.name, name+" "))
		}
	}
	if action != "fail" {
		r.figures(p)
		return
	}
	for _, testName := range p.order {
		if t := p.tests[testName]; t.outcome == "failed" || t.outcome == "" {
			indent(r.out, t.output.String())
		}
	}
	if words := r.build[name]; words != nil {
		indent(r.out, words.String())
	}
	indent(r.out, p.output.String())
}

// figures repeats what tests measured: lines of output that begin with
// "measured:", which would otherwise be lost with the rest of a good test's.
func (r *reader) figures(p *pkg) {
	texts := []string{p.output.String()}
	for _, name := range p.order {
		texts = append(texts, p.tests[name].output.String())
	}
	for _, text := range texts {
		for line := range strings.Lines(text) {
			if _, figure, ok := strings.Cut(line, "measured: "); ok {
				fmt.Fprintf(r.out, "      measured: %s\n", strings.TrimSpace(figure))
			}
		}
	}
}

// childFailed says whether a subtest accounts for its parent's failure.
func (p *pkg) childFailed(parent string) bool {
	return slices.ContainsFunc(p.order, func(name string) bool {
		outcome := p.tests[name].outcome
		return strings.HasPrefix(name, parent+"/") && (outcome == "failed" || outcome == "")
	})
}

// end closes packages that never finished, and returns all results.
func (r *reader) end() []result {
	for _, name := range r.order {
		if p := r.pkgs[name]; !p.done {
			p.output.WriteString("the test process ended without a result\n")
			r.finish(name, p, "fail", 0)
		}
	}
	return r.results
}

// endingLimit is how much of a failed test's output the closing lines repeat, in bytes.
const endingLimit = 800

// ending is the end of a failed test's output, to follow its name in one line: of a
// long run, all that some places keep is its last lines.
func ending(output string) string {
	var lines []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return ""
	}
	text := strings.Join(lines, " | ")
	if len(text) > endingLimit {
		text = "…" + strings.ToValidUTF8(text[len(text)-endingLimit:], "")
	}
	return ": " + text
}

// reason finds the words of t.Skip in a test's output.
func reason(output string) string {
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		if _, words, ok := strings.Cut(line, ".go:"); ok {
			if _, words, ok = strings.Cut(words, ": "); ok {
				return words
			}
		}
	}
	return "no reason given"
}

// indent prints text without the lines that only say that a test runs.
func indent(out io.Writer, text string) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "=== ") || strings.TrimSpace(line) == "" {
			continue
		}
		fmt.Fprintf(out, "      %s\n", strings.TrimSuffix(line, "\n"))
	}
}
