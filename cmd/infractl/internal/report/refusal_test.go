package report

import (
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
)

// protected makes an event one about a resource that is protected.
func protected(e apitype.EngineEvent) apitype.EngineEvent {
	e.ResourcePreEvent.Metadata.Old.Protect = true
	return e
}

func TestAPlanAgainstProtectionIsRefused(t *testing.T) {
	db := urn(server, "db-1")
	replaced := event("replace", server, "db-1", map[string]any{"image": "debian-12"}, map[string]any{"image": "debian-13"})
	replaced.ResourcePreEvent.Metadata.DetailedDiff = map[string]apitype.PropertyDiff{"image": {Kind: apitype.DiffUpdateReplace}}
	tainted := event("replace", server, "db-1", map[string]any{}, map[string]any{})
	tainted.ResourcePreEvent.Metadata.Old.Taint = true
	for name, c := range map[string]struct {
		events        []apitype.EngineEvent
		title, advice string
	}{
		"deleted": {
			[]apitype.EngineEvent{protected(event("delete", server, "db-2", map[string]any{}, nil)),
				said("error", urn(server, "db-2"), "resource \""+urn(server, "db-2")+"\" cannot be deleted\nbecause it is protected. To unprotect …", false)},
			"db-2: server: would be deleted, and the data on it with it, because the configuration no longer has it", "infractl destroy",
		},
		"deleted, unprotected": {[]apitype.EngineEvent{event("delete", server, "db-2", map[string]any{}, nil)}, "db-2: server: would be deleted", "infractl destroy"},
		"replaced": {
			[]apitype.EngineEvent{said("error", db, "unable to replace resource \""+db+"\"\nas it is currently marked for protection. To …", false), protected(replaced)},
			"db-1: server: would be deleted and made anew, and the data on it with it, because image cannot be changed in place", "infractl up --recreate db-1",
		},
		"tainted":            {[]apitype.EngineEvent{protected(tainted)}, "because it is marked as tainted in the state", "--recreate db-1"},
		"only told in words": {[]apitype.EngineEvent{said("error", db, "unable to replace resource \""+db+"\" as part of replacing \"x\"", false)}, "db-1: server: would be deleted and made anew", "--recreate db-1"},
		"the address": {
			[]apitype.EngineEvent{protected(event("delete", "hcloud:index/floatingIp:FloatingIp", "vip-ipv4", map[string]any{}, nil))},
			"vip-ipv4: floating IP: would be deleted, and the environment's address would be lost", "pulumi state unprotect",
		},
	} {
		p := &Plan{Environment: "lab"}
		for _, e := range c.events {
			p.Event(e)
		}
		if len(p.Refusals) != 1 || !strings.Contains(p.Refusals[0].Title(), c.title) || !strings.Contains(p.Refusals[0].Advice, c.advice) {
			t.Errorf("%s: the refusals are %+v", name, p.Refusals)
		}
	}
}

func TestWhatHoldsNothingMayGo(t *testing.T) {
	p := &Plan{Environment: "lab"}
	for _, e := range []apitype.EngineEvent{
		event("delete", server, "web-2", map[string]any{}, nil),
		event("replace", server, "web-1", map[string]any{}, map[string]any{}),
		event("delete", ConfigurationType, "db-1", map[string]any{}, nil),
		protected(event("update", server, "db-1", map[string]any{"a": "1"}, map[string]any{"a": "2"})),
		said("error", urn(server, "web-1"), "no capacity (resource_unavailable, 7)", false),
	} {
		p.Event(e)
	}
	if len(p.Refusals) > 0 {
		t.Errorf("refused: %+v", p.Refusals)
	}
}

func TestAFailureThatRepeatsARefusalIsNotShown(t *testing.T) {
	p := &Plan{Environment: "lab"}
	p.Event(protected(event("delete", server, "db-2", map[string]any{}, nil)))
	message, _ := explain("resource \"" + urn(server, "db-2") + "\" cannot be deleted\nbecause it is protected. To …")
	p.AddFailures([]Failure{{Name: "db-2", Noun: "server", Message: message}, {Name: "web-1", Noun: "configuration", Message: "does not answer"}})
	if len(p.Failures) != 1 || p.Failures[0].Name != "web-1" {
		t.Errorf("the failures are %+v", p.Failures)
	}
}
