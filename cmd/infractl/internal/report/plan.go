package report

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"sort"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"

	"github.com/infractl/infractl/provision/desired"
)

// Change is one thing that a run would do.
type Change struct {
	// Operation is create, update, delete or replace.
	Operation string `json:"operation"`
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	// Properties are what changes of a cloud resource: old and new by name.
	Properties map[string]Values `json:"properties,omitempty"`
	// Files are the files that change on a host, in order.
	Files []FileChange `json:"files,omitempty"`
	// Packages, Trees and Units are what else changes on a host, in words.
	Packages []string `json:"packages,omitempty"`
	Trees    []string `json:"trees,omitempty"`
	// Actions are what happens to units then, such as "reload nginx.service".
	Actions []string `json:"actions,omitempty"`
	// Notes are changes that have no better place.
	Notes []string `json:"notes,omitempty"`

	urn string
}

// Values are a property's values before and after.
type Values struct {
	Old any `json:"old,omitempty"`
	New any `json:"new,omitempty"`
}

// FileChange is a file that changes on a host.
type FileChange struct {
	Path string `json:"path"`
	// Operation is create, update or delete.
	Operation string `json:"operation"`
	// Diff is a unified diff, from what is on the host to what should be.
	Diff string `json:"diff,omitempty"`
	// Content is the whole new file, for a file that is created.
	Content string `json:"content,omitempty"`
	// Attributes are changes of mode and owner, in words.
	Attributes []string `json:"attributes,omitempty"`
}

// Plan collects what a preview says.
type Plan struct {
	Changes []Change
	// Unchanged is how many resources stay as they are.
	Unchanged int
}

// Event takes one event of a preview.
func (p *Plan) Event(ev apitype.EngineEvent) {
	if ev.ResourcePreEvent == nil {
		return
	}
	m := ev.ResourcePreEvent.Metadata
	if hidden(m.Type) {
		return
	}
	switch m.Op {
	case "same":
		p.Unchanged++
		return
	case "create", "update", "delete", "replace":
	default:
		return // parts of a replacement, and reading
	}
	c := Change{Operation: string(m.Op), Name: name(m.URN), Kind: noun(m.Type), urn: m.URN}
	if m.Type == ConfigurationType {
		hostChange(&c, m)
	} else if m.Op == "update" || m.Op == "replace" {
		c.Properties = properties(m)
	}
	p.Changes = append(p.Changes, c)
}

// hostChange says what changes on a host.
func hostChange(c *Change, m apitype.StepEventMetadata) {
	var before, after desired.Host
	if m.Old != nil && m.Op != "create" {
		before = host(m.Old.Outputs)
	}
	if m.New != nil && m.Op != "delete" {
		after = host(m.New.Inputs)
	}
	if m.Op == "delete" {
		return // nothing is undone on a host that goes away
	}
	c.Files = fileChanges(before.Files, after.Files)
	c.Packages = setChanges(before.Packages, after.Packages)
	c.Trees = treeChanges(before.Trees, after.Trees)
	c.Actions = actions(before, after, c.Files)
	if m.Op == "update" && len(c.Files)+len(c.Packages)+len(c.Trees)+len(c.Actions) == 0 {
		c.Notes = notes(m)
	}
}

// host reads a host's description from a resource's properties.
func host(properties map[string]any) desired.Host {
	var h desired.Host
	// Each property by itself, so that one that is hidden or not known yet does
	// not take the others with it.
	v := reflect.ValueOf(&h).Elem()
	for i := range v.NumField() {
		key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		raw, ok := properties[key]
		if !ok {
			continue
		}
		if text, err := json.Marshal(raw); err == nil {
			_ = json.Unmarshal(text, v.Field(i).Addr().Interface()) // what does not fit stays empty
		}
	}
	return h
}

func fileChanges(before, after map[string]desired.File) []FileChange {
	var out []FileChange
	for _, path := range union(before, after) {
		b, was := before[path]
		a, is := after[path]
		f := FileChange{Path: path}
		switch {
		case !was:
			f.Operation, f.Content = "create", a.Content
			if a.Link != "" {
				f.Attributes = append(f.Attributes, "link to "+a.Link)
			}
		case !is:
			f.Operation = "delete"
		default:
			f.Operation = "update"
			if b.Content != a.Content {
				f.Diff = udiff.Unified(path+" on the host", path, b.Content, a.Content)
			}
			f.Attributes = attributes(b, a)
			if f.Diff == "" && len(f.Attributes) == 0 {
				continue
			}
		}
		out = append(out, f)
	}
	return out
}

func attributes(b, a desired.File) []string {
	var out []string
	differ := func(what, old, new, empty string) {
		if old == "" {
			old = empty
		}
		if new == "" {
			new = empty
		}
		if old != new {
			out = append(out, fmt.Sprintf("%s %s → %s", what, old, new))
		}
	}
	differ("link", b.Link, a.Link, "none")
	if b.Link == "" && a.Link == "" {
		differ("mode", b.Mode, a.Mode, "0644")
		differ("owner", b.Owner, a.Owner, "root")
		differ("group", b.Group, a.Group, "root")
	}
	return out
}

func setChanges(before, after []string) []string {
	have := map[string]bool{}
	for _, p := range before {
		have[p] = true
	}
	want := map[string]bool{}
	var out []string
	for _, p := range after {
		want[p] = true
		if !have[p] {
			out = append(out, "install "+p)
		}
	}
	for _, p := range before {
		if !want[p] {
			out = append(out, "no longer keep "+p)
		}
	}
	return out
}

func treeChanges(before, after map[string]desired.Tree) []string {
	var out []string
	for _, path := range union(before, after) {
		b, was := before[path]
		a, is := after[path]
		switch {
		case !was:
			out = append(out, "upload "+path)
		case !is:
			out = append(out, "remove "+path)
		case b.Digest != a.Digest:
			out = append(out, "upload "+path+" again")
		}
	}
	return out
}

// actions are what happens to units because of what changes.
func actions(before, after desired.Host, files []FileChange) []string {
	was := map[string]desired.Unit{}
	for _, u := range before.Units {
		was[u.Name] = u
	}
	var out []string
	for _, u := range after.Units {
		b, known := was[u.Name]
		switch {
		case u.Active && (!known || !b.Active):
			out = append(out, "start "+u.Name)
		case !u.Active && known && b.Active:
			out = append(out, "stop "+u.Name)
		case u.Active && touched(files, own(u.Name), u.RestartOn):
			out = append(out, "restart "+u.Name)
		case u.Active && touched(files, nil, u.ReloadOn):
			out = append(out, "reload "+u.Name)
		}
		switch {
		case u.Enabled && known && !b.Enabled:
			out = append(out, "enable "+u.Name)
		case !u.Enabled && known && b.Enabled:
			out = append(out, "disable "+u.Name)
		}
	}
	return out
}

// own are the places of a unit's own file and drop-ins.
func own(unit string) []string {
	return []string{"/etc/systemd/system/" + unit, "/etc/systemd/system/" + unit + ".d/"}
}

func touched(files []FileChange, a, b []string) bool {
	for _, f := range files {
		for _, list := range [][]string{a, b} {
			for _, p := range list {
				if f.Path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(f.Path, p) {
					return true
				}
			}
		}
	}
	return false
}

// properties are what changes of a resource, by top-level property.
func properties(m apitype.StepEventMetadata) map[string]Values {
	out := map[string]Values{}
	for path := range m.DetailedDiff {
		key, _, _ := strings.Cut(path, ".")
		key, _, _ = strings.Cut(key, "[")
		out[key] = valuesOf(m, key)
	}
	if len(out) == 0 {
		for _, key := range m.Diffs {
			out[key] = valuesOf(m, key)
		}
	}
	return out
}

func valuesOf(m apitype.StepEventMetadata, key string) Values {
	var v Values
	if m.Old != nil {
		v.Old = m.Old.Outputs[key]
		if v.Old == nil {
			v.Old = m.Old.Inputs[key]
		}
	}
	if m.New != nil {
		v.New = m.New.Inputs[key]
	}
	return v
}

// notes name the properties of a host that change in no other visible way.
func notes(m apitype.StepEventMetadata) []string {
	words := map[string]string{
		"secrets": "a secret changes",
		"values":  "a value changes",
		"hostKey": "the host key changes",
		"address": "the host is at another address",
		"user":    "another user logs in",
		"port":    "SSH listens on another port",
		"users":   "system users change",
		"units":   "the way units are handled changes",
	}
	var out []string
	for _, key := range sortedNames(properties(m)) {
		if w, ok := words[key]; ok {
			out = append(out, w)
		} else {
			out = append(out, key+" changes")
		}
	}
	if len(out) == 0 {
		out = append(out, "the last run did not finish here")
	}
	return out
}

func union[V any](a, b map[string]V) []string {
	all := map[string]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return sortedNames(all)
}

func sortedNames[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// PlanOptions say how much of a plan to write.
type PlanOptions struct {
	// Files writes the full text of every file that is created.
	Files bool
}

// signs mark operations, as in a diff.
var signs = map[string]struct{ sign, color string }{
	"create":  {"+", green},
	"update":  {"~", yellow},
	"delete":  {"-", red},
	"replace": {"±", red},
}

// Write writes the plan for people.
func (p *Plan) Write(out io.Writer, style Style, o PlanOptions) {
	for _, c := range p.Changes {
		c.write(out, style, o)
	}
}

func (c Change) write(out io.Writer, style Style, o PlanOptions) {
	mark := signs[c.Operation]
	title := c.Name
	if c.Kind != c.Name {
		title += "  " + c.Kind
	}
	fmt.Fprintf(out, "%s %s\n", style.paint(mark.color, mark.sign), style.paint(bold, title))
	for _, key := range sortedNames(c.Properties) {
		v := c.Properties[key]
		fmt.Fprintf(out, "    %s: %s → %s\n", key, compact(v.Old), compact(v.New))
	}
	if c.Operation == "create" && len(c.Files) > 0 && !o.Files {
		fmt.Fprintf(out, "    %s, %s, %s\n", count(len(c.Packages), "package"), count(len(c.Files), "file"), count(len(c.Actions), "unit"))
		return
	}
	for _, list := range [][]string{c.Packages, c.Trees} {
		for _, s := range list {
			fmt.Fprintf(out, "    %s\n", s)
		}
	}
	for _, f := range c.Files {
		f.write(out, style)
	}
	if len(c.Actions) > 0 {
		fmt.Fprintf(out, "    then: %s\n", strings.Join(c.Actions, ", "))
	}
	for _, n := range c.Notes {
		fmt.Fprintf(out, "    %s\n", n)
	}
}

func (f FileChange) write(out io.Writer, style Style) {
	mark := signs[f.Operation]
	line := f.Path
	if len(f.Attributes) > 0 {
		line += "  (" + strings.Join(f.Attributes, ", ") + ")"
	}
	fmt.Fprintf(out, "    %s %s\n", style.paint(mark.color, mark.sign), line)
	body := f.Diff
	if f.Operation == "create" {
		body = prefixed(f.Content, "+")
	}
	for _, l := range strings.SplitAfter(body, "\n") {
		l = strings.TrimSuffix(l, "\n")
		switch {
		case l == "", strings.HasPrefix(l, "--- "), strings.HasPrefix(l, "+++ "):
			continue
		case strings.HasPrefix(l, "+"):
			l = style.paint(green, l)
		case strings.HasPrefix(l, "-"):
			l = style.paint(red, l)
		case strings.HasPrefix(l, "@@"):
			l = style.paint(cyan, l)
		}
		fmt.Fprintf(out, "        %s\n", l)
	}
}

func prefixed(text, with string) string {
	if text == "" {
		return ""
	}
	return with + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+with) + "\n"
}

// compact writes a property's value on one line.
func compact(v any) string {
	const most = 100
	switch v := v.(type) {
	case nil:
		return "none"
	case string:
		if v == unknown {
			return "known later"
		}
		if len(v) > most {
			v = v[:most] + "…"
		}
		return fmt.Sprintf("%q", v)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(text)
}

// count says how many there are of something.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// are says how many things are, and with which verb.
func are(n int, what string) string {
	if n == 1 {
		return "1 " + what + " is"
	}
	return count(n, what) + " are"
}

// unknown is how the engine writes a value that is not known yet
// (plugin.UnknownStringValue in pulumi/sdk).
const unknown = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

// Summary counts what would be done.
func (p *Plan) Summary(environment string) string {
	counts := map[string]int{}
	for _, c := range p.Changes {
		counts[c.Operation]++
	}
	var parts []string
	for _, op := range []string{"create", "update", "replace", "delete"} {
		if n := counts[op]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d to %s", n, op))
		}
	}
	if len(parts) == 0 {
		return fmt.Sprintf("%s: no changes; %s as they should be", environment, are(p.Unchanged, "resource"))
	}
	return fmt.Sprintf("%s: %s, %d unchanged", environment, strings.Join(parts, ", "), p.Unchanged)
}
