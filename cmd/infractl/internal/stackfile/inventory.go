package stackfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/infractl/infractl/stacks"
)

// inventory is the key of the stack's configuration that the user's own servers
// stand under.
const inventory = "infractl:hosts"

// Pair is a key of an entry and its value. A number is written as one.
type Pair struct {
	Key, Value string
	Number     bool
}

// AddServer returns the text with another entry at the end of a list of the
// inventory: that of a tier, or stacks.Spare. What is missing on the way to the list is
// made. The entry is written in the style of the one before it.
func AddServer(text []byte, place string, entry []Pair) ([]byte, error) {
	return edited(text, place, func(f *file) ([]candidate, error) { return f.addServer(place, entry) })
}

// RemoveServer returns the text without an entry of a list of the inventory,
// which counts from 0. Comments above the entry stay: nobody knows what they are about.
func RemoveServer(text []byte, place string, index int) ([]byte, error) {
	return edited(text, place, func(f *file) ([]candidate, error) { return f.removeServer(place, index) })
}

// candidate is a text that may be the right one.
type candidate []edit

// edited returns the first of several texts that means what it should. The parser
// does not tell where things end; so the places where they may end are tried, and
// what comes out is read again.
func edited(text []byte, place string, change func(*file) ([]candidate, error)) ([]byte, error) {
	rest, marked := strings.CutPrefix(string(text), string(byteOrderMark))
	f, err := parse([]byte(rest))
	if err != nil {
		return nil, err
	}
	candidates, err := change(f)
	for _, c := range candidates {
		after, parseErr := parse(c.apply(f.text))
		if parseErr == nil && same(f.root, after.root) {
			if marked {
				return slices.Concat(byteOrderMark, after.text), nil
			}
			return after.text, nil
		}
	}
	if err == nil {
		err = errShape
	}
	if errors.Is(err, errShape) {
		return nil, fmt.Errorf("%s.%s %w", inventory, place, errShape)
	}
	return nil, err
}

// apply makes all edits, which are in order and do not overlap.
func (c candidate) apply(text []byte) []byte {
	var out []byte
	at := 0
	for _, e := range c {
		out = append(append(out, text[at:e.from]...), e.with...)
		at = e.to
	}
	return append(out, text[at:]...)
}

// addServer changes the tree, and finds texts that may mean the same.
func (f *file) addServer(place string, entry []Pair) ([]candidate, error) {
	item := &yaml.Node{Kind: yaml.MappingNode}
	for _, p := range entry {
		tag := "!!str"
		if p.Number {
			tag = "!!int"
		}
		item.Content = append(item.Content, text(p.Key), &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: p.Value})
	}
	if len(f.root.Content) == 0 {
		return nil, errors.New("the file is empty")
	}
	configKey, config, err := f.member(f.root.Content[0], "config", nil)
	if err != nil || config == nil || null(config) {
		return nil, errors.Join(err, errNoConfig(config))
	}
	hostsKey, hosts, err := f.member(config, inventory, configKey)
	if err != nil {
		return nil, err
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{item}}
	if hosts == nil {
		group := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{text(place), list}}
		return f.addPair(configKey, config, len(config.Content), []string{inventory, place}, group, entry)
	}
	if nothing(hosts) {
		group := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{text(place), list}}
		return f.fillWith(config, hostsKey, hosts, []string{place}, group, entry)
	}
	listKey, old, err := f.member(hosts, place, hostsKey)
	switch {
	case err != nil:
		return nil, err
	case old == nil:
		return f.addPair(hostsKey, hosts, before(hosts, place), []string{place}, list, entry)
	case nothing(old):
		return f.fillWith(hosts, listKey, old, nil, list, entry)
	case old.Kind != yaml.SequenceNode:
		return nil, fmt.Errorf("%s.%s is not a list; set it by hand", inventory, place)
	}
	return f.append(old, item, entry)
}

func errNoConfig(config *yaml.Node) error {
	if config == nil || null(config) {
		return errors.New(`the file has no key "config" with something below it`)
	}
	return nil
}

// text is a node of text.
func text(value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
}

// member finds a key of a mapping that is no other's, too. Its value is nil if
// there is no such key.
func (f *file) member(m *yaml.Node, name string, key *yaml.Node) (k, v *yaml.Node, err error) {
	above := "the file"
	if key != nil {
		above = key.Value
	}
	if m.Kind != yaml.MappingNode {
		return nil, nil, fmt.Errorf("%s is not a group of keys; set it by hand", above)
	}
	k, v = find(m, name)
	if v != nil {
		err = f.single(v, []string{name})
	}
	return k, v, err
}

// nothing says whether a value is empty: not written, null, {} or [].
func nothing(n *yaml.Node) bool {
	return null(n) || n.Kind != yaml.ScalarNode && len(n.Content) == 0 && n.Style&yaml.FlowStyle != 0
}

// places are the lists of the inventory, in order.
func places() []string { return append(stacks.TierNames(), stacks.Spare) }

// before is where a new list goes in the inventory's content, so that the lists are
// in order.
func before(hosts *yaml.Node, place string) int {
	mine := slices.Index(places(), place)
	for i := 0; i+1 < len(hosts.Content); i += 2 {
		if slices.Index(places(), hosts.Content[i].Value) > mine {
			return i
		}
	}
	return len(hosts.Content)
}

// addPair adds a key, with others below it as far as path says, that has a list
// with one entry at its end. value is what the key has in the tree; at is its place
// in the mapping's content.
func (f *file) addPair(key, m *yaml.Node, at int, path []string, value *yaml.Node, entry []Pair) ([]candidate, error) {
	old := m.Content
	if len(old) == 0 {
		return nil, errShape
	}
	m.Content = slices.Concat(old[:at], []*yaml.Node{text(path[0]), value}, old[at:])
	style := quotes(old[0])
	if m.Style&yaml.FlowStyle != 0 {
		colon := f.colon(old[0], old[1])
		word := flowValue(path[1:], entry, style, colon)
		pair := quoted(path[0], style) + colon + word
		if at < len(old) {
			where, err := f.offset(old[at])
			return []candidate{{{where, where, pair + comma(colon)}}}, err
		}
		return f.beforeClosing(old[len(old)-1], '}', pair, colon), nil
	}
	indent := old[0].Column - 1
	step := f.step(&yaml.Node{Content: old}, 2)
	lines := f.blockLines(indent, step, path, entry, style)
	if at < len(old) {
		// Right before the next key; comments above that one stay with it.
		return f.insertLines(f.lastLine(key, old[:at]), old[at].Line-1, lines), nil
	}
	return f.insertLines(f.lastLine(key, old), len(f.lines), lines), nil
}

// lastLine is the last line on which something of the nodes begins, or that of key.
func (f *file) lastLine(key *yaml.Node, nodes []*yaml.Node) int {
	last := 0
	if key != nil {
		last = key.Line
	}
	for _, n := range nodes {
		last = max(last, n.Line, f.lastLine(nil, n.Content))
	}
	return last
}

// insertLines inserts lines after a line: after the first one of from to to where
// they mean what they should. Lines count from 1.
func (f *file) insertLines(from, to int, lines []string) []candidate {
	var out []candidate
	for after := from; after <= min(to, len(f.lines)); after++ {
		end := f.lineBreakAfter(max(after, 1))
		block := strings.Join(lines, end)
		if after >= len(f.lines) {
			if len(f.text) > 0 && lineBreak(f.text[len(f.text)-len(end):]) > 0 {
				out = append(out, candidate{{len(f.text), len(f.text), block + end}})
			} else {
				out = append(out, candidate{{len(f.text), len(f.text), end + block}})
			}
			continue
		}
		out = append(out, candidate{{f.lines[after], f.lines[after], block + end}})
	}
	return out
}

// fillWith gives a key a value that has none so far.
func (f *file) fillWith(parent, key, old *yaml.Node, path []string, value *yaml.Node, entry []Pair) ([]candidate, error) {
	at, err := f.offset(old)
	if err != nil || old.Anchor != "" {
		return nil, errors.Join(err, errShape)
	}
	written := len(old.Value)
	if !null(old) {
		closing := strings.IndexAny(string(f.text[at:]), "]}")
		if closing < 0 {
			return nil, errShape
		}
		written = closing + 1
	}
	*old = *value
	style := quotes(key)
	if parent.Style&yaml.FlowStyle != 0 {
		colon := f.colon(key, old)
		word := flowValue(path, entry, style, colon)
		if written > 0 {
			return []candidate{{{at, at + written, word}}}, nil
		}
		e, err := f.afterColon(at, word)
		return []candidate{{e}}, err
	}
	lines := f.blockLines(key.Column-1, f.step(parent, 2), append([]string{key.Value}, path...), entry, style)[1:]
	block := f.insertLines(key.Line, key.Line, lines)
	if written == 0 {
		return block, nil
	}
	// The nothing that is written goes, with the space before it.
	from := at
	for from > 0 && f.text[from-1] == ' ' {
		from--
	}
	return []candidate{append(candidate{{from, at + written, ""}}, block[0]...)}, nil
}

// append adds an entry to a list that has some.
func (f *file) append(list, item *yaml.Node, entry []Pair) ([]candidate, error) {
	last := list.Content[len(list.Content)-1]
	list.Content = append(list.Content, item)
	style := yaml.Style(0)
	colon := ": "
	if last.Kind == yaml.MappingNode && len(last.Content) > 1 {
		style = quotes(last.Content[0])
		if last.Style&yaml.FlowStyle != 0 {
			colon = f.colon(last.Content[0], last.Content[1])
		}
	}
	if list.Style&yaml.FlowStyle != 0 {
		return f.beforeClosing(last, ']', flowEntry(entry, style, colon), colon), nil
	}
	dash := strings.Repeat(" ", list.Column-1) + "- "
	lines := []string{dash + flowEntry(entry, style, colon)}
	if last.Kind == yaml.MappingNode && last.Style&yaml.FlowStyle == 0 {
		lines = nil
		for i, p := range entry {
			start := dash
			if i > 0 {
				start = strings.Repeat(" ", len(dash))
			}
			lines = append(lines, start+quoted(p.Key, style)+": "+scalar(p, style))
		}
	}
	return f.insertLines(f.lastLine(nil, []*yaml.Node{last}), len(f.lines), lines), nil
}

// beforeClosing puts another element behind the last one in a flow list or mapping.
// Which of the closing brackets that follow is the right one is tried.
func (f *file) beforeClosing(last *yaml.Node, bracket byte, element, colon string) []candidate {
	start, err := f.offset(last)
	if err != nil {
		return nil
	}
	var out []candidate
	for i := start; i < len(f.text); i++ {
		if f.text[i] != bracket {
			continue
		}
		end := i
		for end > start && strings.ContainsRune(" \t\r\n", rune(f.text[end-1])) {
			end--
		}
		between := comma(colon)
		if line := f.lines[last.Line-1]; strings.ContainsAny(string(f.text[end:i]), "\r\n") && strings.TrimSpace(string(f.text[line:start])) == "" {
			// Each on a line of its own.
			between = "," + f.lineBreakAfter(last.Line) + string(f.text[line:start])
		}
		if f.text[end-1] == ',' {
			between = between[1:]
		}
		out = append(out, candidate{{end, end, between + element}})
	}
	return out
}

// removeServer changes the tree, and finds texts that may mean the same.
func (f *file) removeServer(place string, index int) ([]candidate, error) {
	if len(f.root.Content) == 0 {
		return nil, errors.New("the file is empty")
	}
	at := f.root.Content[0]
	var key *yaml.Node
	for _, name := range []string{"config", inventory, place} {
		k, v, err := f.member(at, name, key)
		if err != nil {
			return nil, err
		}
		if v == nil {
			return nil, fmt.Errorf("there is no %s.%s", inventory, place)
		}
		key, at = k, v
	}
	if at.Kind != yaml.SequenceNode || index < 0 || index >= len(at.Content) {
		return nil, fmt.Errorf("there is no %s.%s[%d]", inventory, place, index)
	}
	list, item := at, at.Content[index]
	if err := f.single(item, []string{inventory, fmt.Sprintf("%s[%d]", place, index)}); err != nil {
		return nil, err
	}
	old := list.Content
	list.Content = slices.Concat(old[:index], old[index+1:])
	start, err := f.offset(item)
	if err != nil {
		return nil, err
	}
	if list.Style&yaml.FlowStyle != 0 {
		return f.cutFromFlow(old, index, start)
	}
	// From the line of its dash to where the rest means what it should.
	first, last := item.Line, f.lastLine(nil, []*yaml.Node{item})
	if line := f.text[f.lines[first-1]:start]; strings.TrimSpace(string(line)) != "-" {
		return nil, errShape
	}
	limit := len(f.lines)
	if index+1 < len(old) {
		limit = old[index+1].Line - 1
	}
	var out []candidate
	for end := last; end <= limit; end++ {
		to := len(f.text)
		if end < len(f.lines) {
			to = f.lines[end]
		}
		cut := candidate{{f.lines[first-1], to, ""}}
		if len(old) == 1 {
			// An empty list has to be written.
			list.Style = yaml.FlowStyle
			colon, err := f.offset(key)
			if err != nil {
				return nil, err
			}
			colon += strings.IndexByte(string(f.text[colon:]), ':') + 1
			cut = append(candidate{{colon, colon, " []"}}, cut...)
		}
		out = append(out, cut)
	}
	return out, nil
}

// cutFromFlow takes an element out of a flow list. start is where it begins.
func (f *file) cutFromFlow(all []*yaml.Node, index, start int) ([]candidate, error) {
	if index+1 < len(all) {
		next, err := f.offset(all[index+1])
		return []candidate{{{start, next, ""}}}, err
	}
	from := start
	if index > 0 {
		from = strings.LastIndexByte(string(f.text[:start]), ',')
		if from < 0 {
			return nil, errShape
		}
	}
	var out []candidate
	for i := start; i < len(f.text); i++ {
		if f.text[i] != ']' {
			continue
		}
		end := i
		for end > start && strings.ContainsRune(" \t\r\n", rune(f.text[end-1])) {
			end--
		}
		out = append(out, candidate{{from, end, ""}})
	}
	return out, nil
}

// blockLines writes a path of keys, each on a line, and a list with one entry.
func (f *file) blockLines(indent, step int, path []string, entry []Pair, style yaml.Style) []string {
	var lines []string
	for i, name := range path {
		lines = append(lines, strings.Repeat(" ", indent+i*step)+quoted(name, style)+":")
	}
	return append(lines, strings.Repeat(" ", indent+len(path)*step)+"- "+flowEntry(entry, style, ": "))
}

// flowValue writes a list with one entry on one line, below the keys of a path.
func flowValue(path []string, entry []Pair, style yaml.Style, colon string) string {
	if len(path) == 0 {
		return "[" + flowEntry(entry, style, colon) + "]"
	}
	return "{" + quoted(path[0], style) + colon + flowValue(path[1:], entry, style, colon) + "}"
}

// flowEntry writes an entry on one line.
func flowEntry(entry []Pair, style yaml.Style, colon string) string {
	parts := make([]string, len(entry))
	for i, p := range entry {
		parts[i] = quoted(p.Key, style) + colon + scalar(p, style)
	}
	return "{" + strings.Join(parts, comma(colon)) + "}"
}

// comma separates elements as a colon separates keys from values.
func comma(colon string) string { return "," + colon[1:] }

// colon is how keys are separated from values where a pair stands.
func (f *file) colon(key, value *yaml.Node) string {
	if at, err := f.offset(value); err == nil && at > 0 && f.text[at-1] == ':' && key.Line == value.Line {
		return ":"
	}
	return ": "
}

// quotes is how a node is quoted.
func quotes(n *yaml.Node) yaml.Style {
	return n.Style & (yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle)
}

// plainScalar is text that means itself in YAML, also in flow style, unless it is
// a number or another word of YAML's. Some parsers still take oldWords for booleans
// (YAML 1.1).
var (
	plainScalar = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]*$`)
	oldWords    = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off)$`)
)

// scalar writes a value. Where keys are quoted, as in JSON, text is too.
func scalar(p Pair, style yaml.Style) string {
	if p.Number {
		return p.Value
	}
	if style != yaml.DoubleQuotedStyle && plainScalar.MatchString(p.Value) && !oldWords.MatchString(p.Value) {
		var n yaml.Node
		if yaml.Unmarshal([]byte(p.Value), &n) == nil && len(n.Content) == 1 && n.Content[0].ShortTag() == "!!str" {
			return p.Value
		}
	}
	word, err := json.Marshal(p.Value)
	if err != nil {
		panic(err) // text can always be encoded
	}
	return string(word)
}
