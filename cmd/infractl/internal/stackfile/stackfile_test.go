package stackfile

import (
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestOnlyTheCountChanges(t *testing.T) {
	cases := []struct {
		name      string
		counts    map[string]int
		text, new string
	}{
		{
			"block style, with comments",
			map[string]int{"web": 4},
			"# Ours.\nconfig:\n  # tiers\n  infractl:tiers:\n    web:\n      count: 2   # two will do\n      type: \"cx23\"\n    app: {count: 2}\n",
			"# Ours.\nconfig:\n  # tiers\n  infractl:tiers:\n    web:\n      count: 4   # two will do\n      type: \"cx23\"\n    app: {count: 2}\n",
		},
		{
			"several tiers, growing and shrinking in digits",
			map[string]int{"web": 12, "app": 3, "lb": 1},
			"config:\n  infractl:tiers:\n    web: {count: 2, type: cx23}\n    lb: {type: cx23, count: 2}\n    app: {count: 10}\n",
			"config:\n  infractl:tiers:\n    web: {count: 12, type: cx23}\n    lb: {type: cx23, count: 1}\n    app: {count: 3}\n",
		},
		{
			"everything in flow style",
			map[string]int{"web": 4},
			"{config: {\"infractl:tiers\": {web: {count: 2}}, \"infractl:location\": fsn1}}\n",
			"{config: {\"infractl:tiers\": {web: {count: 4}}, \"infractl:location\": fsn1}}\n",
		},
		{
			"as JSON, without spaces",
			map[string]int{"web": 4, "app": 3},
			`{"config":{"infractl:tiers":{"web":{"count":2,"type":"cx23"},"app":{"type":"cx33","image":"debian-13"}}}}`,
			`{"config":{"infractl:tiers":{"web":{"count":4,"type":"cx23"},"app":{"count":3,"type":"cx33","image":"debian-13"}}}}`,
		},
		{
			"lines that end as on Windows",
			map[string]int{"web": 4, "app": 3},
			"config:\r\n  infractl:tiers:\r\n    web:\r\n      count: 2\r\n    app:\r\n      type: cx33\r\n",
			"config:\r\n  infractl:tiers:\r\n    web:\r\n      count: 4\r\n    app:\r\n      count: 3\r\n      type: cx33\r\n",
		},
		{
			"no end of the last line",
			map[string]int{"web": 4},
			"config:\n  infractl:tiers:\n    web:\n      count: 2",
			"config:\n  infractl:tiers:\n    web:\n      count: 4",
		},
		{
			"no end of the last line, and no count",
			map[string]int{"web": 4},
			"config:\n  infractl:location: fsn1\n  infractl:tiers:\n    web:",
			"config:\n  infractl:location: fsn1\n  infractl:tiers:\n    web:\n      count: 4",
		},
		{
			"count absent in block style, with a comment before the first key",
			map[string]int{"web": 4},
			"config:\n    infractl:tiers:\n        web: # ours\n\n            # small ones\n            type: cx23\n        app:\n            count: 2\n",
			"config:\n    infractl:tiers:\n        web: # ours\n            count: 4\n\n            # small ones\n            type: cx23\n        app:\n            count: 2\n",
		},
		{
			"count absent in flow style",
			map[string]int{"web": 4},
			"config:\n  infractl:tiers:\n    web: {type: cx23} # small\n",
			"config:\n  infractl:tiers:\n    web: {count: 4, type: cx23} # small\n",
		},
		{
			"count absent in flow style over several lines",
			map[string]int{"web": 4},
			"config:\n  infractl:tiers:\n    web: {\n      type: cx23,\n      image: debian-13\n    }\n",
			"config:\n  infractl:tiers:\n    web: {\n      count: 4,\n      type: cx23,\n      image: debian-13\n    }\n",
		},
		{
			"count absent in an empty group",
			map[string]int{"web": 4, "app": 3},
			"config:\n  infractl:tiers:\n    web: {}\n    app: { }\n",
			"config:\n  infractl:tiers:\n    web: {count: 4}\n    app: {count: 3 }\n",
		},
		{
			"count without a value",
			map[string]int{"web": 4, "app": 3},
			"config:\n  infractl:tiers:\n    web:\n      count:\n      type: cx23\n    app: {count: ~}\n",
			"config:\n  infractl:tiers:\n    web:\n      count: 4\n      type: cx23\n    app: {count: 3}\n",
		},
		{
			"tier without keys",
			map[string]int{"lb": 1, "web": 4, "app": 3},
			"config:\n  infractl:tiers:\n    lb:   # the usual\n    web: null\n    app: ~ # none\n",
			"config:\n  infractl:tiers:\n    lb:   # the usual\n      count: 1\n    web: {count: 4}\n    app: {count: 3} # none\n",
		},
		{
			"tier without keys in flow style",
			map[string]int{"web": 4},
			"config:\n  infractl:tiers: {web: , app: {count: 2}}\n",
			"config:\n  infractl:tiers: {web: {count: 4} , app: {count: 2}}\n",
		},
		{
			"tier absent beside block style",
			map[string]int{"web": 4, "lb": 3},
			"config:\n  infractl:tiers:\n     app:\n       count: 2\n",
			"config:\n  infractl:tiers:\n     lb:\n       count: 3\n     web:\n       count: 4\n     app:\n       count: 2\n",
		},
		{
			"tier absent beside flow style",
			map[string]int{"web": 4},
			"config:\n  infractl:tiers:\n    app: {count: 2}\n",
			"config:\n  infractl:tiers:\n    web: {count: 4}\n    app: {count: 2}\n",
		},
		{
			"tier absent within flow style",
			map[string]int{"web": 4},
			"config:\n  infractl:tiers: {app: {count: 2}}\n",
			"config:\n  infractl:tiers: {web: {count: 4}, app: {count: 2}}\n",
		},
		{
			"tier absent beside quoted keys",
			map[string]int{"web": 4},
			"config:\n  'infractl:tiers':\n    'app':\n      'count': 2\n",
			"config:\n  'infractl:tiers':\n    'web':\n      'count': 4\n    'app':\n      'count': 2\n",
		},
		{
			"no tiers at all",
			map[string]int{"web": 4},
			"encryptionsalt: v1:abc\nconfig:\n    # where\n    infractl:location: fsn1\n    infractl:ssh:\n        allowFrom: [192.0.2.1]\n",
			"encryptionsalt: v1:abc\nconfig:\n    infractl:tiers:\n        web:\n            count: 4\n    # where\n    infractl:location: fsn1\n    infractl:ssh:\n        allowFrom: [192.0.2.1]\n",
		},
		{
			"no tiers at all, in flow style",
			map[string]int{"web": 4},
			"config: {\"infractl:location\": fsn1}\n",
			"config: {\"infractl:tiers\": {\"web\": {\"count\": 4}}, \"infractl:location\": fsn1}\n",
		},
		{
			"tiers without a value",
			map[string]int{"web": 4},
			"config:\n  infractl:tiers:\n  infractl:location: fsn1\n",
			"config:\n  infractl:tiers:\n    web:\n      count: 4\n  infractl:location: fsn1\n",
		},
		{
			"letters of several bytes before it, and a byte order mark",
			map[string]int{"web": 4},
			"\ufeffconfig:\n  \"infractl:tiers\": {lb: {type: \"größe 😀\"}, web: {count: 2}} # für später\n",
			"\ufeffconfig:\n  \"infractl:tiers\": {lb: {type: \"größe 😀\"}, web: {count: 4}} # für später\n",
		},
		{
			"secrets, lists and text over several lines",
			map[string]int{"web": 4},
			"config:\n  infractl:vipToken:\n    secure: v1:a+b/c==\n  infractl:note: |\n    count: 2\n      web:\n  infractl:tiers:\n  # not indented\n    web:\n      options:\n        immutablePaths:\n        - /assets/\n      count:    2\n",
			"config:\n  infractl:vipToken:\n    secure: v1:a+b/c==\n  infractl:note: |\n    count: 2\n      web:\n  infractl:tiers:\n  # not indented\n    web:\n      options:\n        immutablePaths:\n        - /assets/\n      count:    4\n",
		},
		{
			"an anchor that nothing else uses",
			map[string]int{"web": 4},
			"config:\n  infractl:tiers: &all\n    web: &web\n      count: 2\n    app: &app {count: 2}\n",
			"config:\n  infractl:tiers: &all\n    web: &web\n      count: 4\n    app: &app {count: 2}\n",
		},
		{
			"a document that is marked as one",
			map[string]int{"web": 4},
			"%YAML 1.1\n---\nconfig:\n  infractl:tiers:\n    web: {count: 2}\n...\n",
			"%YAML 1.1\n---\nconfig:\n  infractl:tiers:\n    web: {count: 4}\n...\n",
		},
		{
			"another count in another tier",
			map[string]int{"app": 5},
			"config:\n  infractl:tiers:\n    web: {count: &n 2}\n    app: {count: 2}\n    lb: {count: *n}\n",
			"config:\n  infractl:tiers:\n    web: {count: &n 2}\n    app: {count: 5}\n    lb: {count: *n}\n",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := SetCounts([]byte(c.text), c.counts)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.new {
				t.Errorf("got\n%q\nwant\n%q", got, c.new)
			}
			again, err := SetCounts(got, c.counts)
			if err != nil || string(again) != string(got) {
				t.Errorf("setting it again: %v\n%q", err, again)
			}
		})
	}
}

func TestWhatCannotBeChangedAloneIsRefused(t *testing.T) {
	cases := []struct{ name, text, want string }{
		{"a count that others use", "config:\n  infractl:tiers:\n    web: {count: &n 2}\n    app: {count: *n}\n", "anchor &n"},
		{"a count that is another's", "config:\n  infractl:tiers:\n    app: {count: &n 2}\n    web: {count: *n}\n", "anchor &n"},
		{"a tier that others use", "config:\n  infractl:tiers:\n    web: &t {count: 2}\n    app: *t\n", "anchor &t"},
		{"a tier that is another's", "config:\n  infractl:tiers:\n    app: &t {count: 2}\n    web: *t\n", "anchor &t"},
		{"a tier that is merged into another", "config:\n  infractl:tiers:\n    web: &t {count: 2}\n    app: {<<: *t, type: cx33}\n", "anchor &t"},
		{"tiers that others use", "other: &t {web: {count: 2}}\nconfig:\n  infractl:tiers: *t\n", "anchor &t"},
		{"an anchored count", "config:\n  infractl:tiers:\n    web: {count: &n 2}\n", "by hand"},
		{"a count with a tag", "config:\n  infractl:tiers:\n    web: {count: !!int 2}\n", "by hand"},
		{"a count as text", "config:\n  infractl:tiers:\n    web: {count: \"2\"}\n", "by hand"},
		{"a count that is a list", "config:\n  infractl:tiers:\n    web: {count: [2]}\n", "by hand"},
		{"tiers as text", "config:\n  infractl:tiers: '{\"web\": {\"count\": 2}}'\n", "not a group of keys"},
		{"a tier that is a number", "config:\n  infractl:tiers:\n    web: 2\n", "not a group of keys"},
		{"keys that are marked as keys", "config:\n  infractl:tiers:\n    ? web\n    : type: cx23\n", "by hand"},
		{"properties on a line of their own", "config:\n  infractl:tiers:\n    web:\n      &web\n      type: cx23\n", "by hand"},
		{"an empty file", "", "empty"},
		{"a file without configuration", "secretsprovider: x\n", "config"},
		{"a file that is no YAML", "config: [", "yaml"},
		{"a file that is no text", "config:\n  a: \xff\n", "UTF-8"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := SetCounts([]byte(c.text), map[string]int{"web": 4})
			if err == nil {
				t.Fatalf("it is changed to\n%s", got)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error does not speak of %s: %v", c.want, err)
			}
		})
	}
}

// Whatever is in a file: if a count can be set, it is set, and everything else
// means what it meant.
func FuzzEverythingElseKeepsItsMeaning(f *testing.F) {
	f.Add("config:\n  infractl:tiers:\n    web:\n      count: 2\n", uint8(4))
	f.Add("config: {\"infractl:tiers\": {web: , app: {count: 2}}}", uint8(0))
	f.Add("config:\r\n  infractl:tiers:\r\n   ? web\r\n   : {}\r\n", uint8(7))
	f.Fuzz(func(t *testing.T, text string, n uint8) {
		got, err := SetCounts([]byte(text), map[string]int{"web": int(n)})
		if err != nil {
			return
		}
		var before, after any
		if yaml.Unmarshal([]byte(text), &before) != nil {
			return // such as a key that stands there twice: infractl refuses the file elsewhere
		}
		if err := yaml.Unmarshal(got, &after); err != nil {
			t.Fatalf("the new text cannot be read: %v\n%s", err, got)
		}
		web := descend(after, "config", "infractl:tiers", "web")
		if descend(web, "count") != int(n) {
			t.Fatalf("count is %v, not %d\n%s", descend(web, "count"), n, got)
		}
		rest := descend(before, "config", "infractl:tiers", "web")
		for _, key := range []string{"type", "location"} {
			if !reflect.DeepEqual(descend(rest, key), descend(web, key)) {
				t.Fatalf("%s was %v and is %v", key, descend(rest, key), descend(web, key))
			}
		}
	})
}

// descend follows keys. A group with a key that is no text is another type in Go.
func descend(at any, path ...string) any {
	for _, k := range path {
		switch m := at.(type) {
		case map[string]any:
			at = m[k]
		case map[any]any:
			at = m[k]
		default:
			return nil
		}
	}
	return at
}
