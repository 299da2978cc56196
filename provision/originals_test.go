package provision

import (
	"maps"
	"testing"

	"github.com/infractl/infractl/provision/desired"
)

func TestUnitsAreNotedOnceAndOnlyAsTheyWereFound(t *testing.T) {
	h := desired.Host{Units: []desired.Unit{{Name: "a"}, {Name: "b"}}}
	running, stopped := Found{"loaded", "active", "enabled"}, Found{"loaded", "inactive", "disabled"}
	now := map[string]Unit{"a": {Load: "loaded", Active: "active", File: "enabled"}, "b": {Load: "loaded", Active: "inactive", File: "disabled"}}
	for name, c := range map[string]struct {
		manifest []string
		noted    map[string]Found
		want     map[string]Found
	}{
		"nothing is infractl's yet":                      {nil, nil, map[string]Found{"a": running, "b": stopped}},
		"an attempt before was taken back":               {nil, map[string]Found{"a": stopped}, map[string]Found{"a": running, "b": stopped}},
		"a unit is new, another is infractl's no longer": {[]string{"/f"}, map[string]Found{"a": stopped, "c": running}, map[string]Found{"a": stopped, "b": stopped, "c": running}},
		"it was taken over without notes":                {[]string{"/f"}, nil, map[string]Found{}},
	} {
		a := &Actual{Manifest: c.manifest, Found: c.noted, Units: now}
		if got := found(h, a); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
