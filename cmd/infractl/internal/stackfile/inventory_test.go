package stackfile

import (
	"strings"
	"testing"
)

// rack is an entry as hosts add writes it.
var rack = []Pair{{Key: "name", Value: "rack-9"}, {Key: "address", Value: "192.0.2.9"}, {Key: "hostKey", Value: "ssh-ed25519 AAAA+/="}, {Key: "memory", Value: "4096", Number: true}}

const rackFlow = `{name: rack-9, address: 192.0.2.9, hostKey: "ssh-ed25519 AAAA+/=", memory: 4096}`

func TestAnEntryIsAddedAndNothingElseChanges(t *testing.T) {
	for _, c := range []struct{ name, place, text, new string }{
		{
			"block list of flow entries, with comments", "web",
			"# Ours.\nconfig:\n  infractl:hosts:\n    # front\n    web:\n      - {address: 192.0.2.1, memory: 1} # first\n      # and\n      - {address: 192.0.2.2} # second\n\n    # behind\n    app: [{address: 192.0.2.3}]\n  infractl:target: hosts # mine\n",
			"# Ours.\nconfig:\n  infractl:hosts:\n    # front\n    web:\n      - {address: 192.0.2.1, memory: 1} # first\n      # and\n      - {address: 192.0.2.2} # second\n      - " + rackFlow + "\n\n    # behind\n    app: [{address: 192.0.2.3}]\n  infractl:target: hosts # mine\n",
		},
		{
			"block list of block entries, the dash in line with the key", "web",
			"config:\n  infractl:hosts:\n    web:\n    - address: 192.0.2.1\n      jump: >-\n        a,\n        b\n  infractl:target: hosts\n",
			"config:\n  infractl:hosts:\n    web:\n    - address: 192.0.2.1\n      jump: >-\n        a,\n        b\n    - name: rack-9\n      address: 192.0.2.9\n      hostKey: \"ssh-ed25519 AAAA+/=\"\n      memory: 4096\n  infractl:target: hosts\n",
		},
		{
			"flow entry over several lines at the end of the file, which has no newline", "web",
			"config:\n  infractl:hosts:\n    web:\n      - {address: 192.0.2.1,\n         memory: 1\n        }",
			"config:\n  infractl:hosts:\n    web:\n      - {address: 192.0.2.1,\n         memory: 1\n        }\n      - " + rackFlow,
		},
		{
			"flow list on one line", "lb",
			"config:\n  infractl:hosts:\n    lb:  [{address: 192.0.2.1}, {address: 192.0.2.2, jump: \"a]b\"}] # both\n",
			"config:\n  infractl:hosts:\n    lb:  [{address: 192.0.2.1}, {address: 192.0.2.2, jump: \"a]b\"}, " + rackFlow + "] # both\n",
		},
		{
			"flow list over several lines, with a comma at the end", "lb",
			"config:\n  infractl:hosts:\n    lb: [\n      {address: 192.0.2.1},\n      {address: 192.0.2.2},\n    ]\n",
			"config:\n  infractl:hosts:\n    lb: [\n      {address: 192.0.2.1},\n      {address: 192.0.2.2},\n      " + rackFlow + "\n    ]\n",
		},
		{
			"no list of the tier: it goes where it belongs", "web",
			"config:\n  infractl:hosts:\n    lb: [{address: 192.0.2.1}]\n    # the data\n    db: [{address: 192.0.2.2}]\n",
			"config:\n  infractl:hosts:\n    lb: [{address: 192.0.2.1}]\n    web:\n      - " + rackFlow + "\n    # the data\n    db: [{address: 192.0.2.2}]\n",
		},
		{
			"no list of the tier, and it is the last one", "spare",
			"config:\n  infractl:hosts:\n    lb: [{address: 192.0.2.1}]\n  infractl:target: hosts\n",
			"config:\n  infractl:hosts:\n    lb: [{address: 192.0.2.1}]\n    spare:\n      - " + rackFlow + "\n  infractl:target: hosts\n",
		},
		{
			"no list of the tier, and it is the first one", "lb",
			"config:\n  infractl:hosts: # all\n    # the web\n    web: [{address: 192.0.2.1}]\n",
			"config:\n  infractl:hosts: # all\n    lb:\n      - " + rackFlow + "\n    # the web\n    web: [{address: 192.0.2.1}]\n",
		},
		{
			"an empty list", "web",
			"config:\n  infractl:hosts:\n    web: [] # none yet\n    app: [{address: 192.0.2.1}]\n",
			"config:\n  infractl:hosts:\n    web: # none yet\n      - " + rackFlow + "\n    app: [{address: 192.0.2.1}]\n",
		},
		{
			"a list of which only the key is there", "web",
			"config:\n  infractl:hosts:\n    web:\n    app: [{address: 192.0.2.1}]\n",
			"config:\n  infractl:hosts:\n    web:\n      - " + rackFlow + "\n    app: [{address: 192.0.2.1}]\n",
		},
		{
			"an empty inventory", "web",
			"config:\n  infractl:hosts: {}\n  infractl:target: hosts\n",
			"config:\n  infractl:hosts:\n    web:\n      - " + rackFlow + "\n  infractl:target: hosts\n",
		},
		{
			"an inventory of which only the key is there", "db",
			"config:\n    infractl:hosts:\n    infractl:tiers:\n        web: {count: 1}\n",
			"config:\n    infractl:hosts:\n        db:\n            - " + rackFlow + "\n    infractl:tiers:\n        web: {count: 1}\n",
		},
		{
			"no inventory", "web",
			"config:\n  infractl:target: hosts\n  infractl:ssh:\n    allowFrom: [203.0.113.7]\n# the end\nencryptionsalt: v1:x\n",
			"config:\n  infractl:target: hosts\n  infractl:ssh:\n    allowFrom: [203.0.113.7]\n  infractl:hosts:\n    web:\n      - " + rackFlow + "\n# the end\nencryptionsalt: v1:x\n",
		},
		{
			"no inventory, and lines that end as on Windows", "web",
			"config:\r\n  infractl:target: hosts\r\n",
			"config:\r\n  infractl:target: hosts\r\n  infractl:hosts:\r\n    web:\r\n      - " + rackFlow + "\r\n",
		},
		{
			"everything in flow style", "web",
			"{config: {\"infractl:target\": hosts, \"infractl:hosts\": {lb: [{address: 192.0.2.1}], web: []}}}\n",
			"{config: {\"infractl:target\": hosts, \"infractl:hosts\": {lb: [{address: 192.0.2.1}], web: [" + rackFlow + "]}}}\n",
		},
		{
			"JSON without spaces, and no list", "web",
			`{"config":{"infractl:hosts":{"lb":[{"address":"192.0.2.1"}]}}}`,
			`{"config":{"infractl:hosts":{"lb":[{"address":"192.0.2.1"}],"web":[{"name":"rack-9","address":"192.0.2.9","hostKey":"ssh-ed25519 AAAA+/=","memory":4096}]}}}`,
		},
		{
			"JSON with an inventory to be made", "web",
			`{"config":{"infractl:target":"hosts"}}`,
			`{"config":{"infractl:target":"hosts","infractl:hosts":{"web":[{"name":"rack-9","address":"192.0.2.9","hostKey":"ssh-ed25519 AAAA+/=","memory":4096}]}}}`,
		},
		{
			"a mark of the byte order", "web",
			"\ufeffconfig:\n  infractl:hosts:\n    web:\n      - {address: 192.0.2.1}\n",
			"\ufeffconfig:\n  infractl:hosts:\n    web:\n      - {address: 192.0.2.1}\n      - " + rackFlow + "\n",
		},
	} {
		got, err := AddServer([]byte(c.text), c.place, rack)
		if err != nil || string(got) != c.new {
			t.Errorf("%s: %v\n%s\nnot\n%s", c.name, err, got, c.new)
		}
	}
}

func TestAnEntryIsRemovedAndNothingElseChanges(t *testing.T) {
	for _, c := range []struct {
		name, place string
		index       int
		text, new   string
	}{
		{
			"from the middle of a block list", "web", 1,
			"config:\n  infractl:hosts:\n    web:\n      - {address: 192.0.2.1} # one\n      - {address: 192.0.2.2,\n         memory: 1} # two\n      # the third\n      - {address: 192.0.2.3}\n",
			"config:\n  infractl:hosts:\n    web:\n      - {address: 192.0.2.1} # one\n      # the third\n      - {address: 192.0.2.3}\n",
		},
		{
			"the last one of a block list", "web", 1,
			"config:\n  infractl:hosts:\n    web:\n    - address: 192.0.2.1\n    - address: 192.0.2.2\n      jump: >-\n        a,\n        b\n\n    app: []\n",
			"config:\n  infractl:hosts:\n    web:\n    - address: 192.0.2.1\n\n    app: []\n",
		},
		{
			"the only one of a block list", "spare", 0,
			"config:\n  infractl:hosts:\n    spare: # in the cellar\n      - {address: 192.0.2.1}\n  infractl:target: hosts\n",
			"config:\n  infractl:hosts:\n    spare: [] # in the cellar\n  infractl:target: hosts\n",
		},
		{
			"the first one of a flow list", "lb", 0,
			"config:\n  infractl:hosts:\n    lb: [{address: 192.0.2.1, jump: \"a,b\"}, {address: 192.0.2.2}] # both\n",
			"config:\n  infractl:hosts:\n    lb: [{address: 192.0.2.2}] # both\n",
		},
		{
			"the last one of a flow list", "lb", 1,
			"config:\n  infractl:hosts:\n    lb: [{address: 192.0.2.1}, {address: 192.0.2.2, jump: \"a]b\"}] # both\n",
			"config:\n  infractl:hosts:\n    lb: [{address: 192.0.2.1}] # both\n",
		},
		{
			"the only one of a flow list", "lb", 0,
			"config:\n  infractl:hosts:\n    lb: [{address: 192.0.2.1}]\n",
			"config:\n  infractl:hosts:\n    lb: []\n",
		},
		{
			"the last one of a flow list over several lines", "lb", 1,
			"config:\n  infractl:hosts:\n    lb: [\n      {address: 192.0.2.1},\n      {address: 192.0.2.2}\n    ]\n",
			"config:\n  infractl:hosts:\n    lb: [\n      {address: 192.0.2.1}\n    ]\n",
		},
		{
			"from JSON", "lb", 1,
			`{"config":{"infractl:hosts":{"lb":[{"address":"192.0.2.1"},{"address":"192.0.2.2"},{"address":"192.0.2.3"}]}}}`,
			`{"config":{"infractl:hosts":{"lb":[{"address":"192.0.2.1"},{"address":"192.0.2.3"}]}}}`,
		},
		{
			"the last line, which has no end", "lb", 1,
			"config:\n  infractl:hosts:\n    lb:\n      - {address: 192.0.2.1}\n      - {address: 192.0.2.2}",
			"config:\n  infractl:hosts:\n    lb:\n      - {address: 192.0.2.1}\n",
		},
	} {
		got, err := RemoveServer([]byte(c.text), c.place, c.index)
		if err != nil || string(got) != c.new {
			t.Errorf("%s: %v\n%s\nnot\n%s", c.name, err, got, c.new)
		}
	}
}

func TestWhatCannotBeChangedAloneIsLeftToTheUser(t *testing.T) {
	const shared = "config:\n  infractl:hosts:\n    web: &all\n      - &one {address: 192.0.2.1}\n      - {address: 192.0.2.2}\n    app: *all\n    db: [*one]\n"
	for _, c := range []struct {
		text, place string
		index       int // -1 adds
		want        string
	}{
		{shared, "web", -1, "shared with other keys by the anchor &all"},
		{shared, "app", -1, "shared with other keys by the anchor &all"},
		{strings.Replace(shared, "    app: *all\n", "", 1), "web", 0, "shared with other keys by the anchor &one"},
		{"config:\n  infractl:hosts:\n    web: {address: 192.0.2.1}\n", "web", -1, "infractl:hosts.web is not a list"},
		{"config:\n  infractl:hosts: 7\n", "web", -1, "infractl:hosts is not a group of keys"},
		{"encryptionsalt: x\n", "web", -1, `no key "config"`},
		{"", "web", -1, "the file is empty"},
		{"config:\n  infractl:hosts:\n    web: []\n", "web", 0, "there is no infractl:hosts.web[0]"},
		{"config:\n  infractl:hosts:\n    web:\n      -\n        {address: 192.0.2.1}\n      - {address: 192.0.2.2}\n", "web", 0, "set it by hand"},
	} {
		var err error
		if c.index < 0 {
			_, err = AddServer([]byte(c.text), c.place, rack)
		} else {
			_, err = RemoveServer([]byte(c.text), c.place, c.index)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
}

func TestValuesAreQuotedWhereTheyHaveToBe(t *testing.T) {
	got, err := AddServer([]byte("config:\n  infractl:target: hosts\n"), "web", []Pair{
		{Key: "name", Value: "1234"}, {Key: "address", Value: "2001:db8::1"}, {Key: "private", Value: "10.0.0.1"},
		{Key: "hostKey", Value: "SHA256:abc"}, {Key: "user", Value: "yes"}, {Key: "jump", Value: "ops@bastion:22, b"},
	})
	want := `{name: "1234", address: "2001:db8::1", private: 10.0.0.1, hostKey: "SHA256:abc", user: "yes", jump: "ops@bastion:22, b"}`
	if err != nil || !strings.Contains(string(got), want) {
		t.Errorf("%v\n%s", err, got)
	}
}
