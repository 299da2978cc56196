package report

import (
	"fmt"
	"io"
	"maps"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
)

// Style says how to draw.
type Style struct {
	// Live redraws lines in place; it needs a terminal.
	Live bool
	// Color uses ANSI colours.
	Color bool
	// Width is the terminal's, in columns; 0 means it is not known.
	Width int
}

const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

func (s Style) paint(code, text string) string {
	if !s.Color || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Result is what a run has done.
type Result struct {
	Created   int `json:"created"`
	Updated   int `json:"updated"`
	Deleted   int `json:"deleted"`
	Replaced  int `json:"replaced"`
	Unchanged int `json:"unchanged"`
	// Hosts is how many hosts were looked at.
	Hosts int `json:"hosts"`
	// HostResults are what came of each host that something was done to, or
	// that was looked at, by short name: see Host….
	HostResults map[string]string `json:"hostResults,omitempty"`
	Seconds     float64           `json:"seconds"`
	Failures    []Failure         `json:"failures,omitempty"`
}

// What came of a host. A host with which something had begun that did not end
// has the word for that, such as updating.
const (
	HostUnchanged = "unchanged"
	HostCreated   = "created"
	HostUpdated   = "updated"
	HostReplaced  = "replaced"
	HostDeleted   = "deleted"
	HostFailed    = "failed"
	// HostRead means that it was looked at, and nothing more.
	HostRead = "read"
	// HostBare means that its server was made, and it was not configured yet.
	HostBare = "not configured"
)

// Changed says whether the run has changed anything.
func (r Result) Changed() bool { return r.Created+r.Updated+r.Deleted+r.Replaced > 0 }

// row is one resource that something is being done to.
type row struct {
	urn, name, noun, op string
	began               time.Time
	status              string
	shown               time.Time // when its status was last written as a line
}

// Reporter shows a run while it goes on. It may be used by several goroutines.
type Reporter struct {
	mu    sync.Mutex
	out   io.Writer
	style Style
	now   func() time.Time
	began time.Time

	running map[string]*row
	errors  map[string][]string // messages by URN
	failed  map[string]string   // operation by URN
	order   []string            // URNs of errors as they came
	result  Result
	hosts   map[string]bool
	fates   map[string]string // of hosts, by short name
	phase   string
	drawn   int // lines of the live display on the screen
	ticker  chan struct{}
}

// statusPause is how long a step's status line has to stand before the next
// one is written, where lines cannot be redrawn.
const statusPause = time.Second

// New begins a report.
func New(out io.Writer, style Style) *Reporter {
	r := &Reporter{
		out: out, style: style, now: time.Now,
		running: map[string]*row{}, errors: map[string][]string{}, failed: map[string]string{},
		hosts: map[string]bool{}, fates: map[string]string{},
	}
	r.began = r.now()
	if style.Live {
		r.ticker = make(chan struct{})
		go r.tick(r.ticker)
	}
	return r
}

// tick keeps the times in the live display going.
func (r *Reporter) tick(stop chan struct{}) {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
			r.mu.Lock()
			r.draw()
			r.mu.Unlock()
		}
	}
}

// Say writes a line of its own.
func (r *Reporter) Say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.line(fmt.Sprintf(format, args...))
}

// Aside takes the live display off the screen and writes nothing while do runs,
// which may ask the user something.
func (r *Reporter) Aside(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.erase()
	do()
	r.draw()
}

// Phase says what goes on as a whole; it is shown until the next phase or the
// first resource.
func (r *Reporter) Phase(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phase = fmt.Sprintf(format, args...)
	if !r.style.Live && r.phase != "" {
		r.line(r.style.paint(dim, r.phase+" …"))
	}
	r.draw()
}

// Event takes one event of the engine.
func (r *Reporter) Event(ev apitype.EngineEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case ev.ResourcePreEvent != nil:
		r.begin(ev.ResourcePreEvent.Metadata)
	case ev.ResOutputsEvent != nil:
		r.end(ev.ResOutputsEvent.Metadata)
	case ev.ResOpFailedEvent != nil:
		r.fail(ev.ResOpFailedEvent.Metadata)
	case ev.DiagnosticEvent != nil:
		r.diagnostic(*ev.DiagnosticEvent)
	case ev.ProgressEvent != nil:
		p := ev.ProgressEvent
		if p.Total > 0 && p.Type == apitype.PluginDownload {
			r.phase = fmt.Sprintf("downloading %s: %d %%", p.ID, p.Completed*100/p.Total)
			if p.Done && !r.style.Live {
				r.line("downloaded " + p.ID)
			}
		}
	}
	r.draw()
}

// Diagnostics takes only what one event of the engine says in words, and the
// failures: for a preview, which does nothing that could be shown.
func (r *Reporter) Diagnostics(ev apitype.EngineEvent) {
	if ev.DiagnosticEvent != nil || ev.ProgressEvent != nil || ev.ResOpFailedEvent != nil {
		r.Event(ev)
	}
}

func (r *Reporter) begin(m apitype.StepEventMetadata) {
	if m.Type == ConfigurationType {
		r.hosts[name(m.URN)] = true
	}
	v, shown := verbs[string(m.Op)]
	if hidden(m.Type) || !shown || m.Op == "replace" {
		return
	}
	w := &row{urn: m.URN, name: name(m.URN), noun: noun(m.Type), op: string(m.Op), began: r.now()}
	r.running[m.URN] = w
	if m.Type == ConfigurationType || m.Type == serverType && m.Op != apitype.OpUpdate {
		r.fates[w.name] = v.doing
	}
	r.phase = ""
	if !r.style.Live && slow[m.Type] {
		r.line(r.columns(w, v.doing, ""))
		w.shown = w.began
	}
}

// slow are the types whose steps take long enough to announce them.
var slow = map[string]bool{serverType: true, ConfigurationType: true}

func (r *Reporter) end(m apitype.StepEventMetadata) {
	w := r.running[m.URN]
	delete(r.running, m.URN)
	if hidden(m.Type) {
		return
	}
	r.fate(m)
	switch m.Op {
	case "same":
		r.result.Unchanged++
		return
	case "create":
		r.result.Created++
	case "update":
		r.result.Updated++
	case "delete":
		r.result.Deleted++
	case "create-replacement":
		r.result.Replaced++
	}
	if w == nil {
		return
	}
	r.line(r.columns(w, r.style.paint(green, verbs[w.op].done), r.since(w.began)))
}

// fates are what comes of a host when a step with its configuration has ended.
var fates = map[apitype.OpType]string{
	apitype.OpSame: HostUnchanged, apitype.OpCreate: HostCreated, apitype.OpUpdate: HostUpdated,
	apitype.OpCreateReplacement: HostReplaced, apitype.OpDelete: HostDeleted,
}

// fate notes what has come of a host.
func (r *Reporter) fate(m apitype.StepEventMetadata) {
	host := name(m.URN)
	switch {
	case m.Type == ConfigurationType && fates[m.Op] != "":
		r.fates[host] = fates[m.Op]
	case m.Type == ConfigurationType && m.Op == apitype.OpRefresh && r.fates[host] == "":
		r.fates[host] = HostRead
	case m.Type == serverType && m.Op == apitype.OpDelete:
		r.fates[host] = HostDeleted
	case m.Type == serverType && (m.Op == apitype.OpCreate || m.Op == apitype.OpCreateReplacement):
		r.fates[host] = HostBare
	}
}

func (r *Reporter) fail(m apitype.StepEventMetadata) {
	w := r.running[m.URN]
	delete(r.running, m.URN)
	if w == nil {
		w = &row{urn: m.URN, name: name(m.URN), noun: noun(m.Type), op: string(m.Op), began: r.now()}
	}
	r.failed[m.URN] = string(m.Op)
	if m.Type == ConfigurationType || m.Type == serverType {
		r.fates[w.name] = HostFailed
	}
	r.note(m.URN)
	r.line(r.columns(w, r.style.paint(red, "failed"), r.since(w.began)))
}

func (r *Reporter) note(urn string) {
	for _, u := range r.order {
		if u == urn {
			return
		}
	}
	r.order = append(r.order, urn)
}

// noise are messages that say nothing to the user of a run.
var noise = []string{
	"from $PATH",
	"update failed", "update canceled", "preview failed", "preview canceled", "destroy failed", "refresh failed",
	"resource monitor shut down",
	"does not support customTimeouts",
	"Attempting to deploy or update resources",
	"are taken over, and copies are kept", // the plan shows them
}

func (r *Reporter) diagnostic(d apitype.DiagnosticEvent) {
	message := clean(d.Message)
	if message == "" {
		return
	}
	for _, n := range noise {
		if strings.Contains(message, n) {
			return
		}
	}
	switch {
	case d.Severity == "error":
		for _, m := range r.errors[d.URN] {
			if m == message {
				return
			}
		}
		r.errors[d.URN] = append(r.errors[d.URN], message)
		r.note(d.URN)
	case d.Ephemeral:
		w := r.running[d.URN]
		if w == nil {
			return
		}
		w.status, _, _ = strings.Cut(message, "\n")
		if !r.style.Live && r.now().Sub(w.shown) >= statusPause {
			r.line(r.columns(w, r.style.paint(dim, w.status), ""))
			w.shown = r.now()
		}
	case d.Severity == "warning":
		r.line(r.about(d.URN) + r.style.paint(yellow, "warning: ") + message)
	case d.Severity == "info":
		r.line(r.about(d.URN) + message)
	}
}

// about names a message's resource.
func (r *Reporter) about(urn string) string {
	if urn == "" || hidden(typeOf(urn)) {
		return ""
	}
	return name(urn) + ": "
}

func (r *Reporter) since(t time.Time) string { return seconds(r.now().Sub(t)) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// columns lays out one line about a resource.
func (r *Reporter) columns(w *row, what, took string) string {
	label := w.noun
	if label == w.name {
		label = ""
	}
	text := fmt.Sprintf("%s%-18s %s", r.style.paint(bold, fmt.Sprintf("%-18s ", w.name)), label, what)
	if took != "" {
		text += r.style.paint(dim, "  "+took)
	}
	return text
}

// line writes a line above the live display.
func (r *Reporter) line(text string) {
	r.erase()
	fmt.Fprintln(r.out, text)
	r.draw()
}

// erase takes the live display off the screen.
func (r *Reporter) erase() {
	if r.drawn > 0 {
		fmt.Fprintf(r.out, "\x1b[%dA\x1b[J", r.drawn)
		r.drawn = 0
	}
}

// liveRows is how many running steps the live display shows at most.
const liveRows = 12

// draw puts the live display on the screen.
func (r *Reporter) draw() {
	if !r.style.Live || r.ticker == nil {
		return
	}
	r.erase()
	rows := make([]*row, 0, len(r.running))
	for _, w := range r.running {
		rows = append(rows, w)
	}
	sort.Slice(rows, func(i, j int) bool {
		if !rows[i].began.Equal(rows[j].began) {
			return rows[i].began.Before(rows[j].began)
		}
		return rows[i].urn < rows[j].urn
	})
	var lines []string
	for i, w := range rows {
		if i == liveRows {
			lines = append(lines, fmt.Sprintf("… and %d more", len(rows)-i))
			break
		}
		what := verbs[w.op].doing
		if w.status != "" {
			what += ": " + w.status
		}
		lines = append(lines, r.cut(fmt.Sprintf("%-18s %-18s %s  %s", w.name, w.noun, what, r.since(w.began))))
	}
	if len(rows) == 0 && r.phase != "" {
		lines = append(lines, r.cut(r.phase+" …"))
	}
	if len(lines) == 0 {
		return
	}
	lines = append(lines, r.cut(r.since(r.began)))
	for _, l := range lines {
		fmt.Fprintln(r.out, r.style.paint(cyan, l))
	}
	r.drawn = len(lines)
}

// cut keeps a line of the live display from wrapping, which would spoil erase.
func (r *Reporter) cut(s string) string {
	runes := []rune(s)
	if r.style.Width > 1 && len(runes) >= r.style.Width {
		return string(runes[:r.style.Width-2]) + "…"
	}
	return s
}

// Finish ends the display and returns what was done.
func (r *Reporter) Finish() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ticker != nil {
		close(r.ticker)
		r.ticker = nil
	}
	r.erase()
	r.result.Hosts = len(r.hosts)
	if len(r.fates) > 0 {
		r.result.HostResults = maps.Clone(r.fates)
	}
	r.result.Seconds = r.now().Sub(r.began).Seconds()
	r.result.Failures = r.failures()
	return r.result
}

func (r *Reporter) failures() []Failure {
	var out []Failure
	for _, urn := range r.order {
		messages := r.errors[urn]
		f := Failure{}
		if urn != "" && !hidden(typeOf(urn)) {
			f.Name, f.Noun = name(urn), noun(typeOf(urn))
			f.Operation = verbs[r.failed[urn]].infinitive
		}
		if len(messages) == 0 {
			if r.failed[urn] == "" {
				continue
			}
			messages = []string{"for a reason that was not told"}
		}
		// The engine repeats a provider's words with more around them.
		best := messages[0]
		for _, m := range messages[1:] {
			if !strings.Contains(m, best) && !strings.Contains(best, m) {
				best += "\n" + m
			}
		}
		f.Message, f.Advice = explain(best)
		out = append(out, f)
	}
	// An error of the program that only repeats a resource's adds nothing.
	var kept []Failure
	for _, f := range out {
		repeated := false
		for _, g := range out {
			if f.Name == "" && g.Name != "" && strings.Contains(f.Message, g.Message) {
				repeated = true
			}
		}
		if !repeated {
			kept = append(kept, f)
		}
	}
	return kept
}

// Failures writes what failed, and what to do about it.
func Failures(out io.Writer, style Style, failures []Failure) {
	for _, f := range failures {
		fmt.Fprintf(out, "%s %s\n", style.paint(red, "✗"), indent(f.Title(), "  "))
		if f.Advice != "" {
			fmt.Fprintf(out, "  %s\n", indent(f.Advice, "  "))
		}
	}
}

func indent(s, by string) string { return strings.ReplaceAll(s, "\n", "\n"+by) }

// Summary is one line about a whole run.
func (r Result) Summary(environment string) string {
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(r.Created, "created")
	add(r.Updated, "updated")
	add(r.Replaced, "replaced")
	add(r.Deleted, "deleted")
	if len(r.Failures) > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", len(r.Failures)))
	}
	took := fmt.Sprintf("%.1f s", r.Seconds)
	if len(parts) == 0 && r.Unchanged == 0 {
		// The run ended before it looked at anything.
		return fmt.Sprintf("%s: nothing was changed (%s)", environment, took)
	}
	if len(parts) == 0 {
		return fmt.Sprintf("%s: no changes; %s on %s are as they should be (%s)", environment, count(r.Unchanged, "resource"), count(r.Hosts, "host"), took)
	}
	return fmt.Sprintf("%s: %s (%s)", environment, strings.Join(parts, ", "), took)
}
