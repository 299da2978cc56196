package report

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"

	"github.com/infractl/infractl/provision/desired"
)

// FileChange is a file that changes on a host.
type FileChange struct {
	Path string `json:"path"`
	// Operation is create, update or delete.
	Operation string `json:"operation"`
	// Diff is a unified diff of the text.
	Diff string `json:"diff,omitempty"`
	// Content is the whole new file, for a file that is created.
	Content string `json:"content,omitempty"`
	// Attributes are other changes, in words: of mode and owner, of a secret in
	// the text, or that the text is not shown.
	Attributes []string `json:"attributes,omitempty"`

	// print identifies the change, with what is not shown.
	print string
}

// described is a host's description with what only the plugin's outputs have.
type described struct {
	desired.Host
	// foreign are files that are not infractl's yet, by path, and original those
	// that become what they were before they were infractl's.
	foreign, original map[string]bool
	// pending are the units that have not loaded their files yet, and what they
	// have to do: restart or reload.
	pending map[string]string
}

// host reads a host's description from a resource's properties.
func host(properties map[string]any) described {
	var h described
	// Each property by itself, so that one that is hidden or not known yet does
	// not take the others with it.
	v := reflect.ValueOf(&h.Host).Elem()
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
	h.foreign, h.original = map[string]bool{}, map[string]bool{}
	files, _ := properties["files"].(map[string]any)
	for name, f := range files {
		file, _ := f.(map[string]any)
		h.foreign[name] = file["foreign"] == true
		h.original[name] = file["original"] == true
	}
	h.pending = map[string]string{}
	units, _ := properties["units"].([]any)
	for _, u := range units {
		unit, _ := u.(map[string]any)
		name, _ := unit["name"].(string)
		if what, _ := unit["pending"].(string); what != "" {
			h.pending[name] = what
		}
	}
	return h
}

// found is what the plugin has found on a host that it knows nothing of, or not
// all: see foundProperty in cmd/pulumi-resource-infractl.
func found(m apitype.StepEventMetadata) (described, bool) {
	if m.New == nil {
		return described{}, false
	}
	properties, ok := m.New.Outputs["found"].(map[string]any)
	return host(properties), ok
}

// add adds files that were found.
func (h *described) add(found described) {
	files := maps.Clone(found.Files)
	maps.Copy(files, h.Files)
	h.Files = files
	maps.Copy(h.foreign, found.foreign)
}

// hostChange says what a run changes on a host.
func hostChange(c *Change, m apitype.StepEventMetadata) {
	if m.Op == "delete" {
		// Nothing is undone on a host that goes away.
		if !strings.HasPrefix(c.Name, "db-") {
			c.Notes = []string{"it is drained first"}
		}
		return
	}
	var before, after described
	if m.Old != nil && m.Op != "create" {
		before = host(m.Old.Outputs)
	}
	if m.New != nil {
		after = host(m.New.Inputs)
	}
	if found, ok := found(m); ok {
		if m.Op == "create" {
			before, c.stands = found, true
		} else {
			before.add(found)
		}
	}
	c.Files = fileChanges(before.Files, after.Files, " on the host", "")
	for i, f := range c.Files {
		switch {
		case before.foreign[f.Path]:
			c.Files[i].Attributes = append(c.Files[i].Attributes, "not infractl's yet; a copy is kept")
		case f.Operation == "delete" && before.original[f.Path]:
			c.Files[i].Attributes = append(c.Files[i].Attributes, "what was there before comes back")
		}
	}
	var fillings []string
	if m.Op != "create" {
		fillings = fillingChanges(c, m, before, after)
	}
	c.Packages = packageChanges(before.Packages, after.Packages)
	c.Users = userChanges(before.Users, after.Users)
	c.Trees = treeChanges(before.Trees, after.Trees)
	c.Actions = actions(before, after, c.Files)
	if m.Op != "create" {
		c.Notes = append(notes(m, len(c.Actions) > 0), fillings...)
		if len(c.Notes) == 0 && c.empty() {
			c.Notes = []string{"the last run did not finish here"}
		}
	}
}

// hostDrift says what is different on a host from what was applied.
func hostDrift(c *Change, m apitype.StepEventMetadata) {
	if m.Op == "delete" || m.Old == nil || m.New == nil {
		return
	}
	before, after := host(m.Old.Inputs), host(m.New.Outputs)
	c.Files = fileChanges(before.Files, after.Files, " as applied", " on the host")
	for _, p := range before.Packages {
		if !slices.Contains(after.Packages, p) {
			c.Packages = append(c.Packages, p+" is not installed")
		}
	}
	c.Users = userDrift(before.Users, after.Users)
	for _, name := range union(before.Trees, after.Trees) {
		is, there := after.Trees[name]
		switch {
		case !there:
			c.Trees = append(c.Trees, name+" is not there")
		case is.Digest != before.Trees[name].Digest:
			c.Trees = append(c.Trees, name+" holds something else")
		}
	}
	c.Units = unitDrift(before, after)
	for _, n := range notes(m, len(c.Units) > 0) {
		c.Notes = append(c.Notes, strings.Replace(n, "changes", "differs", 1))
	}
	if len(c.Notes) == 0 && c.empty() {
		c.Notes = []string{"the last run did not finish here"}
	}
}

// empty says whether nothing is known to change on a host.
func (c *Change) empty() bool {
	return len(c.Files)+len(c.Packages)+len(c.Users)+len(c.Trees)+len(c.Units)+len(c.Actions) == 0
}

func fileChanges(before, after map[string]desired.File, labelBefore, labelAfter string) []FileChange {
	var out []FileChange
	for _, name := range union(before, after) {
		b, was := before[name]
		a, is := after[name]
		f := FileChange{Path: name, print: hash([]any{was, b, is, a})}
		switch {
		case !was:
			f.Operation, f.Content = "create", a.Content
			if a.Link != "" {
				f.Attributes = append(f.Attributes, "link to "+a.Link)
			}
			if withheld(a) {
				f.Content = ""
			}
		case !is:
			f.Operation = "delete"
		default:
			f.Operation = "update"
			switch {
			case b.Content == a.Content:
			case withheld(b), withheld(a):
				f.Attributes = append(f.Attributes, "the text differs; it is not shown, because it is large, no text, or may hold a secret")
			default:
				f.Diff = udiff.Unified(name+labelBefore, name+labelAfter, b.Content, a.Content)
			}
			f.Attributes = append(f.Attributes, attributes(b, a)...)
			if f.Diff == "" && len(f.Attributes) == 0 {
				continue
			}
		}
		out = append(out, f)
	}
	return out
}

// withheld says whether the plugin has put a sentence in the place of a file's
// text, which has a digest in it (fileOutput in cmd/pulumi-resource-infractl).
func withheld(f desired.File) bool {
	return strings.HasPrefix(f.Content, "(differs; not shown,") && strings.HasSuffix(f.Content, ")\n")
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

// fillingChanges adds the files whose text stays, but in which a placeholder is
// filled with something else. It returns notes of values and secrets that no
// file holds.
func fillingChanges(c *Change, m apitype.StepEventMetadata, before, after described) []string {
	var nowhere []string
	for _, kind := range []string{"value", "secret"} {
		names, whole := below(m, kind+"s")
		if whole {
			nowhere = append(nowhere, fmt.Sprintf("the %ss change", kind))
		}
		for _, name := range names {
			words := fmt.Sprintf("%s %s changes", kind, name)
			found := false
			placeholder := "@@" + kind + "." + name + "@@"
			for _, file := range sortedNames(after.Files) {
				was, existed := before.Files[file]
				if !existed || !strings.Contains(after.Files[file].Content, placeholder) {
					continue // a new file shows it anyway
				}
				found = true
				i := slices.IndexFunc(c.Files, func(f FileChange) bool { return f.Path == file })
				if i < 0 {
					c.Files = append(c.Files, FileChange{Path: file, Operation: "update", print: hash([]any{was, after.Files[file]})})
					i = len(c.Files) - 1
				}
				c.Files[i].Attributes = append(c.Files[i].Attributes, words)
			}
			if !found {
				nowhere = append(nowhere, words)
			}
		}
	}
	slices.SortFunc(c.Files, func(a, b FileChange) int { return strings.Compare(a.Path, b.Path) })
	return nowhere
}

func packageChanges(before, after []string) []string {
	var out []string
	for _, p := range after {
		if !slices.Contains(before, p) {
			out = append(out, "install "+p)
		}
	}
	for _, p := range before {
		if !slices.Contains(after, p) {
			out = append(out, "no longer keep "+p)
		}
	}
	return out
}

func usersByName(list []desired.User) map[string]desired.User {
	out := map[string]desired.User{}
	for _, u := range list {
		out[u.Name] = u
	}
	return out
}

func userChanges(before, after []desired.User) []string {
	was := usersByName(before)
	var out []string
	for _, u := range after {
		b, exists := was[u.Name]
		switch {
		case !exists:
			out = append(out, "add user "+u.Name)
		case !reflect.DeepEqual(b, u):
			out = append(out, "change user "+u.Name)
		}
	}
	return out
}

func userDrift(before, after []desired.User) []string {
	is := usersByName(after)
	var out []string
	for _, u := range before {
		a, exists := is[u.Name]
		if !exists {
			out = append(out, "user "+u.Name+" is not there")
			continue
		}
		if a.Home != u.Home {
			out = append(out, fmt.Sprintf("user %s has another home: %s", u.Name, a.Home))
		}
		for _, g := range u.Groups {
			if !slices.Contains(a.Groups, g) {
				out = append(out, fmt.Sprintf("user %s is not in group %s", u.Name, g))
			}
		}
	}
	return out
}

func treeChanges(before, after map[string]desired.Tree) []string {
	var out []string
	for _, name := range union(before, after) {
		b, was := before[name]
		a, is := after[name]
		switch {
		case !was:
			out = append(out, "upload "+name)
		case !is:
			out = append(out, "no longer keep "+name)
		case b.Digest != a.Digest:
			out = append(out, "upload "+name+" again")
		}
	}
	return out
}

// actions are what happens to units because of what changes.
func actions(before, after described, files []FileChange) []string {
	was := map[string]desired.Unit{}
	for _, u := range before.Units {
		was[u.Name] = u
	}
	wanted := map[string]bool{}
	var out []string
	// A unit that has something to do first steps aside for the change.
	aside := func(u desired.Unit) string {
		if strings.Contains(u.Before, "/drain") {
			return u.Name + " while drained"
		}
		return u.Name
	}
	for _, f := range files {
		unit := path.Base(f.Path)
		if f.Operation == "delete" && f.Path == systemUnits+unit && !slices.ContainsFunc(after.Units, func(u desired.Unit) bool {
			return (u.Name == unit || template(u.Name) == unit) && (u.Enabled || u.Active)
		}) {
			out = append(out, "stop and disable "+unit)
			wanted[unit] = true
		}
	}
	for _, u := range after.Units {
		if wanted[u.Name] {
			continue
		}
		b, known := was[u.Name]
		switch {
		case u.Active && (!known || !b.Active):
			out = append(out, "start "+u.Name)
		case !u.Active && known && b.Active:
			out = append(out, "stop "+aside(u))
		case u.Active && touched(files, own(u.Name), u.RestartOn):
			out = append(out, "restart "+aside(u))
		case u.Active && before.pending[u.Name] == "restart":
			out = append(out, "restart "+aside(u))
		case u.Active && touched(files, nil, u.ReloadOn):
			out = append(out, "reload "+aside(u))
		case u.Active && before.pending[u.Name] != "":
			out = append(out, before.pending[u.Name]+" "+aside(u))
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

// unitDrift is what is different about units.
func unitDrift(before, after described) []string {
	is := map[string]desired.Unit{}
	for _, u := range after.Units {
		is[u.Name] = u
	}
	var out []string
	for _, u := range before.Units {
		a, known := is[u.Name]
		if !known {
			continue
		}
		switch {
		case u.Active && !a.Active:
			out = append(out, u.Name+" does not run")
		case !u.Active && a.Active:
			out = append(out, u.Name+" runs, but should not")
		case after.pending[u.Name] != "":
			out = append(out, fmt.Sprintf("%s has not loaded its files: %s it", u.Name, after.pending[u.Name]))
		}
		switch {
		case u.Enabled && !a.Enabled:
			out = append(out, u.Name+" does not start at boot")
		case !u.Enabled && a.Enabled:
			out = append(out, u.Name+" starts at boot, but should not")
		}
	}
	return out
}

// systemUnits is where unit files of the administrator are.
const systemUnits = "/etc/systemd/system/"

// template is the template that a unit is an instance of, or "".
func template(unit string) string {
	prefix, instance, ok := strings.Cut(unit, "@")
	if !ok {
		return ""
	}
	return prefix + "@" + path.Ext(instance)
}

// own are the places of a unit's own file and drop-ins, and of its template's.
func own(unit string) []string {
	out := []string{systemUnits + unit, systemUnits + unit + ".d/"}
	if t := template(unit); t != "" {
		out = append(out, systemUnits+t, systemUnits+t+".d/")
	}
	return out
}

func touched(files []FileChange, lists ...[]string) bool {
	for _, f := range files {
		for _, list := range lists {
			for _, p := range list {
				if f.Path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(f.Path, p) {
					return true
				}
			}
		}
	}
	return false
}

// noteWords are for properties of a host whose change is not to be seen in
// files and units.
var noteWords = map[string]string{
	"hostKey": "the host key changes",
	"address": "the host's address changes",
	"user":    "the user that logs in changes",
	"port":    "the port of SSH changes",
	"units":   "the way units are handled changes",
}

// notes name the properties of a host that change in no other visible way.
// unitsShown says that what changes about units is shown already.
func notes(m apitype.StepEventMetadata, unitsShown bool) []string {
	changed := map[string]bool{}
	for p := range m.DetailedDiff {
		changed[top(p)] = true
	}
	if len(m.DetailedDiff) == 0 {
		for _, key := range m.Diffs {
			changed[key] = true
		}
	}
	var out []string
	for _, key := range sortedNames(changed) {
		switch key {
		case "files", "packages", "users", "trees":
			continue // shown in full
		case "values", "secrets":
			continue // shown with the files that hold them
		case "units":
			if unitsShown {
				continue
			}
		}
		if w, ok := noteWords[key]; ok {
			out = append(out, w)
		} else {
			out = append(out, key+" changes")
		}
	}
	return out
}
