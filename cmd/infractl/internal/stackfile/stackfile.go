// Package stackfile changes counts of hosts, and entries of the inventory, in the
// text of a stack's configuration file, Pulumi.<environment>.yaml. Whatever else is in
// the file stays as it is, to the byte: comments, order, quoting, indentation.
package stackfile

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/infractl/infractl/stacks"
)

// tiers is the key of the stack's configuration that the tiers stand under.
const tiers = "infractl:tiers"

// byteOrderMark may stand before the text; YAML does not count it as a column.
var byteOrderMark = []byte("\ufeff")

// SetCounts returns the text with other counts of hosts, by tier. It fails if
// the file is written in a way in which a count cannot be changed without
// changing something else too.
func SetCounts(text []byte, counts map[string]int) ([]byte, error) {
	text, marked := bytes.CutPrefix(text, byteOrderMark)
	// A key that is missing goes before its siblings, so the last tier goes first.
	for _, tier := range slices.Backward(stacks.TierNames()) {
		n, ok := counts[tier]
		if !ok {
			continue
		}
		var err error
		text, err = set(text, []string{"config", tiers, tier, "count"}, strconv.Itoa(n))
		if errors.Is(err, errShape) {
			return nil, fmt.Errorf("%s.%s.count %w", tiers, tier, err)
		}
		if err != nil {
			return nil, err
		}
	}
	if marked {
		text = slices.Concat(byteOrderMark, text)
	}
	return text, nil
}

// errShape is what is said of a file that is written in an unusual way.
var errShape = errors.New("is written in a way that cannot be changed here; set it by hand")

// set returns the text with another value at the end of a path of keys.
func set(text []byte, path []string, value string) ([]byte, error) {
	f, err := parse(text)
	if err != nil {
		return nil, err
	}
	e, err := f.edit(path, value)
	if err != nil {
		return nil, err
	}
	changed := slices.Concat(text[:e.from], []byte(e.with), text[e.to:])
	// What the text means now is held against what it should mean: the file
	// is the user's, and a mistake here must not get into it.
	after, err := parse(changed)
	if err != nil || !same(f.root, after.root) {
		return nil, errShape
	}
	return changed, nil
}

// file is a parsed text. Its tree is changed together with the text, to say
// what the new text has to mean.
type file struct {
	text []byte
	// lines are where the lines begin.
	lines  []int
	root   *yaml.Node
	shared map[*yaml.Node]bool
}

func parse(text []byte) (*file, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("the file is not in UTF-8")
	}
	f := &file{text: text, lines: []int{0}, root: &yaml.Node{}, shared: map[*yaml.Node]bool{}}
	if err := yaml.Unmarshal(text, f.root); err != nil {
		return nil, err
	}
	for i := 0; i < len(text); {
		n := lineBreak(text[i:])
		if n == 0 {
			i++
			continue
		}
		i += n
		f.lines = append(f.lines, i)
	}
	f.findShared(f.root)
	return f, nil
}

// lineBreak is the length of the line break at the beginning of a text, or 0.
// These are YAML 1.1's (section 5.4), by which the parser counts lines.
func lineBreak(text []byte) int {
	if bytes.HasPrefix(text, []byte("\r\n")) {
		return 2
	}
	for _, b := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
		if bytes.HasPrefix(text, []byte(b)) {
			return len(b)
		}
	}
	return 0
}

// findShared notes the nodes that an alias stands for elsewhere.
func (f *file) findShared(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		f.shared[n.Alias] = true
		return
	}
	for _, child := range n.Content {
		f.findShared(child)
	}
}

// offset is where a node begins.
func (f *file) offset(n *yaml.Node) (int, error) {
	if n.Line < 1 || n.Line > len(f.lines) {
		return 0, errShape
	}
	at := f.lines[n.Line-1]
	for range n.Column - 1 {
		if at >= len(f.text) {
			return 0, errShape
		}
		_, size := utf8.DecodeRune(f.text[at:])
		at += size
	}
	return at, nil
}

// edit is one change of the text.
type edit struct {
	from, to int
	with     string
}

// edit finds what has to be changed for a path to have a value.
func (f *file) edit(path []string, value string) (edit, error) {
	if len(f.root.Content) == 0 {
		return edit{}, errors.New("the file is empty")
	}
	var parent, key *yaml.Node
	at := f.root.Content[0]
	for i, name := range path {
		if err := f.single(at, path[:i]); err != nil {
			return edit{}, err
		}
		if null(at) && key != nil {
			return f.fill(parent, key, at, path[i:], value)
		}
		if at.Kind != yaml.MappingNode {
			return edit{}, fmt.Errorf("%s is not a group of keys; set it by hand", keyOf(path[:i]))
		}
		k, v := find(at, name)
		if v == nil && i == 0 {
			return edit{}, fmt.Errorf("the file has no key %q", name)
		}
		if v == nil {
			return f.insert(key, at, path[i:], value)
		}
		parent, key, at = at, k, v
	}
	return f.replace(at, path, value)
}

// single fails if a node is one that stands for several.
func (f *file) single(n *yaml.Node, path []string) error {
	if n.Kind == yaml.AliasNode || f.shared[n] {
		name := n.Anchor
		if n.Kind == yaml.AliasNode {
			name = n.Value
		}
		return fmt.Errorf("%s is shared with other keys by the anchor &%s, so that a change here would change them too; write it out and try again", keyOf(path), name)
	}
	return nil
}

// keyOf is a path as people name it.
func keyOf(path []string) string {
	return strings.TrimPrefix(strings.Join(path, "."), "config.")
}

// null says whether a node is nothing, written out or not.
func null(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// find returns the key of a name in a mapping, and its value.
func find(m *yaml.Node, name string) (key, value *yaml.Node) {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == name {
			return m.Content[i], m.Content[i+1]
		}
	}
	return nil, nil
}

// replace writes another value in the place of one.
func (f *file) replace(n *yaml.Node, path []string, value string) (edit, error) {
	if err := f.single(n, path); err != nil {
		return edit{}, err
	}
	if n.Kind != yaml.ScalarNode || n.Style != 0 || n.Anchor != "" {
		return edit{}, errShape
	}
	at, err := f.offset(n)
	if err != nil {
		return edit{}, err
	}
	if !bytes.HasPrefix(f.text[at:], []byte(n.Value)) {
		return edit{}, errShape
	}
	e := edit{from: at, to: at + len(n.Value), with: value}
	if n.Value == "" {
		if e, err = f.afterColon(at, value); err != nil {
			return edit{}, err
		}
	}
	n.Value, n.Tag = value, "!!int"
	return e, nil
}

// fill writes keys in the place of nothing, which is the value of key in parent.
func (f *file) fill(parent, key, nothing *yaml.Node, path []string, value string) (edit, error) {
	if nothing.Style != 0 || nothing.Anchor != "" {
		return edit{}, errShape
	}
	at, err := f.offset(nothing)
	if err != nil {
		return edit{}, err
	}
	written := nothing.Value
	*nothing = yaml.Node{Kind: yaml.MappingNode, Content: pair(path, value)}
	if written == "" && parent.Style&yaml.FlowStyle == 0 {
		step := f.step(parent, 2)
		return f.newLines(key, key.Column-1+step, step, path, value, keyStyle(parent)), nil
	}
	group := "{" + flow(path, value, keyStyle(parent), ": ") + "}"
	if written != "" {
		return edit{at, at + len(written), group}, nil
	}
	return f.afterColon(at, group)
}

// afterColon writes a value behind the colon that a value which is nothing
// follows; at is where the parser saw that there is none.
func (f *file) afterColon(at int, value string) (edit, error) {
	for at > 0 && (f.text[at-1] == ' ' || f.text[at-1] == '\t') {
		at--
	}
	if at == 0 || f.text[at-1] != ':' {
		return edit{}, errShape
	}
	return edit{at, at, " " + value}, nil
}

// insert writes keys that are missing into a mapping, before all others. key is
// the mapping's own.
func (f *file) insert(key, m *yaml.Node, path []string, value string) (edit, error) {
	old := m.Content
	m.Content = append(pair(path, value), old...)
	style := yaml.Style(0)
	if len(old) > 0 {
		style = old[0].Style & (yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle)
	}
	switch {
	case m.Style&yaml.FlowStyle == 0:
		if len(old) == 0 || old[0].Line <= key.Line {
			return edit{}, errShape
		}
		indent := old[0].Column - 1
		// A group of keys is written as its neighbour is.
		if len(path) > 1 && old[1].Kind == yaml.MappingNode && old[1].Style&yaml.FlowStyle != 0 {
			line := strings.Repeat(" ", indent) + flow(path, value, style, ": ")
			return f.newLine(key, line), nil
		}
		return f.newLines(key, indent, f.step(&yaml.Node{Content: old}, indent-(key.Column-1)), path, value, style), nil
	case len(old) == 0:
		at, err := f.offset(m)
		if err != nil || f.text[at] != '{' {
			return edit{}, errShape
		}
		return edit{at + 1, at + 1, flow(path, value, style, ": ")}, nil
	}
	at, err := f.offset(old[0])
	if err != nil {
		return edit{}, err
	}
	first, err := f.offset(old[1])
	if err != nil {
		return edit{}, err
	}
	colon, after := ": ", ", "
	if first > 0 && f.text[first-1] == ':' {
		colon, after = ":", ","
	}
	if indent := string(f.text[f.lines[old[0].Line-1]:at]); old[0].Line > m.Line && strings.TrimSpace(indent) == "" {
		after = "," + f.lineBreakAfter(m.Line) + indent
	}
	return edit{at, at, flow(path, value, style, colon) + after}, nil
}

// pair is a path and its value as the content of a mapping.
func pair(path []string, value string) []*yaml.Node {
	v := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: value}
	if len(path) > 1 {
		v = &yaml.Node{Kind: yaml.MappingNode, Content: pair(path[1:], value)}
	}
	return []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: path[0]}, v}
}

// flow writes a path and its value on one line.
func flow(path []string, value string, style yaml.Style, colon string) string {
	if len(path) == 1 {
		return quoted(path[0], style) + colon + value
	}
	return quoted(path[0], style) + colon + "{" + flow(path[1:], value, style, colon) + "}"
}

// newLines writes a path and its value on lines of their own, after a key's line.
func (f *file) newLines(key *yaml.Node, indent, step int, path []string, value string, style yaml.Style) edit {
	var lines []string
	for i, name := range path {
		line := strings.Repeat(" ", indent+i*step) + quoted(name, style) + ":"
		if i == len(path)-1 {
			line += " " + value
		}
		lines = append(lines, line)
	}
	return f.newLine(key, strings.Join(lines, f.lineBreakAfter(key.Line)))
}

// newLine inserts a text as lines of its own after a key's line.
func (f *file) newLine(key *yaml.Node, text string) edit {
	end := f.lineBreakAfter(key.Line)
	if key.Line >= len(f.lines) { // the last line, which has no end
		return edit{len(f.text), len(f.text), end + text}
	}
	at := f.lines[key.Line]
	return edit{at, at, text + end}
}

// lineBreakAfter is how a line ends. The last one, which does not, is taken to
// end like the first.
func (f *file) lineBreakAfter(line int) string {
	if line >= len(f.lines) {
		line = 1
	}
	if line >= len(f.lines) {
		return "\n"
	}
	text := f.text[f.lines[line-1]:f.lines[line]]
	for i := range text {
		if n := lineBreak(text[i:]); n > 0 {
			return string(text[i:])
		}
	}
	return "\n"
}

// step is by how many columns the groups of keys in a mapping are indented.
func (f *file) step(m *yaml.Node, fallback int) int {
	for i := 0; i+1 < len(m.Content); i += 2 {
		k, v := m.Content[i], m.Content[i+1]
		if v.Kind == yaml.MappingNode && v.Style&yaml.FlowStyle == 0 && len(v.Content) > 0 && v.Content[0].Column > k.Column {
			return v.Content[0].Column - k.Column
		}
	}
	if fallback < 1 {
		return 2
	}
	return fallback
}

// keyStyle is how the keys of a mapping are quoted.
func keyStyle(m *yaml.Node) yaml.Style {
	return m.Content[0].Style & (yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle)
}

func quoted(name string, style yaml.Style) string {
	switch style {
	case yaml.DoubleQuotedStyle:
		return `"` + name + `"`
	case yaml.SingleQuotedStyle:
		return "'" + name + "'"
	}
	return name
}

// same says whether two trees mean the same.
func same(a, b *yaml.Node) bool {
	if a.Kind != b.Kind || a.Value != b.Value || a.Anchor != b.Anchor || len(a.Content) != len(b.Content) {
		return false
	}
	if a.Kind != yaml.DocumentNode && a.ShortTag() != b.ShortTag() {
		return false
	}
	for i := range a.Content {
		if !same(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}
