package report

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
)

func hostsOf(groups []Group) string {
	var out []string
	for _, g := range groups {
		out = append(out, strings.Join(g.Hosts, " "))
	}
	return strings.Join(out, "; ")
}

func TestHostsWithTheSameChangeAreShownOnce(t *testing.T) {
	p := hostPlan(map[string][2]string{
		"web-10": {"a\n", "b\n"}, "web-2": {"a\n", "b\n"}, "lb-1": {"a\n", "b\n"},
		"web-1": {"x\n", "b\n"}, "app-1": {"a\n", "c\n"}, "db-1": {"a\n", "b\n"},
	})
	if got, want := hostsOf(p.Groups()), "lb-1 web-2 web-10 db-1; web-1; app-1"; got != want {
		t.Errorf("the groups are %s, not %s", got, want)
	}
	var out bytes.Buffer
	p.Write(&out, Style{}, PlanOptions{})
	if text := out.String(); !strings.Contains(text, "~ lb-1, web-2, web-10, db-1  host\n") || strings.Count(text, "-a\n        +b\n") != 1 {
		t.Errorf("the plan is\n%s", text)
	}
}

func TestAnyDifferenceKeepsHostsApart(t *testing.T) {
	base := func() apitype.EngineEvent {
		return event("update", ConfigurationType, "web-2",
			map[string]any{"files": files(map[string]string{"/etc/x": "a\n"}), "packages": []any{"nginx"}},
			map[string]any{"files": files(map[string]string{"/etc/x": "b\n"}), "packages": []any{"nginx"},
				"units": []any{map[string]any{"name": "x.service", "active": true, "reloadOn": []any{"/etc/x"}}}})
	}
	for name, change := range map[string]func(m *apitype.StepEventMetadata){
		"":          func(*apitype.StepEventMetadata) {},
		"a package": func(m *apitype.StepEventMetadata) { m.New.Inputs["packages"] = []any{"nginx", "chrony"} },
		"a user":    func(m *apitype.StepEventMetadata) { m.New.Inputs["users"] = []any{map[string]any{"name": "x"}} },
		"a tree":    func(m *apitype.StepEventMetadata) { m.New.Inputs["trees"] = map[string]any{"/srv/x": map[string]any{}} },
		"an action": func(m *apitype.StepEventMetadata) { m.New.Inputs["units"] = []any{} },
		"a note":    func(m *apitype.StepEventMetadata) { m.DetailedDiff["address"] = apitype.PropertyDiff{} },
		"a file's mode": func(m *apitype.StepEventMetadata) {
			m.New.Inputs["files"].(map[string]any)["/etc/x"].(map[string]any)["mode"] = "0600"
		},
		"a file more": func(m *apitype.StepEventMetadata) {
			m.New.Inputs["files"].(map[string]any)["/etc/y"] = map[string]any{}
		},
		"the text around a diff":  func(m *apitype.StepEventMetadata) { setText(m.Old.Outputs, "a\n1\n"); setText(m.New.Inputs, "b\n1\n") },
		"another kind of change ": func(m *apitype.StepEventMetadata) { m.Op, m.Old = "create", nil },
	} {
		p := &Plan{Environment: "lab"}
		one, two := base(), base()
		one.ResourcePreEvent.Metadata.URN = urn(ConfigurationType, "web-1")
		change(&two.ResourcePreEvent.Metadata)
		p.Event(one)
		p.Event(two)
		p.Sort()
		if got := len(p.Groups()); got != 2 && name != "" || name == "" && got != 1 {
			t.Errorf("with a difference in %q there are %d groups", name, got)
		}
	}
}

func setText(properties map[string]any, text string) {
	properties["files"].(map[string]any)["/etc/x"].(map[string]any)["content"] = text
}

func TestAFileThatChangesAlikeOnDifferentHostsIsShownOnce(t *testing.T) {
	p := &Plan{Environment: "lab"}
	for _, name := range []string{"lb-1", "lb-2", "web-1"} {
		p.Event(event("update", ConfigurationType, name,
			map[string]any{"files": files(map[string]string{"/etc/hosts": "a\n", "/etc/own": "x\n"})},
			map[string]any{"files": files(map[string]string{"/etc/hosts": "b\n", "/etc/own": name + "\n"})}))
	}
	p.Sort()
	var out bytes.Buffer
	p.Write(&out, Style{}, PlanOptions{})
	text := out.String()
	if strings.Count(text, "+b\n") != 1 || strings.Count(text, "~ /etc/hosts  same as on lb-1\n") != 2 || strings.Count(text, "+lb-2\n") != 1 {
		t.Errorf("the plan is\n%s", text)
	}
	text = markdown(t, p, MarkdownLimit)
	if strings.Count(text, "+b\n") != 1 || strings.Count(text, "`~` `/etc/hosts` same as on `lb-1`\n") != 2 {
		t.Errorf("the Markdown is\n%s", text)
	}
}

func TestHostsAreInTheOrderOfTiersAndNumbers(t *testing.T) {
	names := []string{"other", "db-1", "web-10", "app-1", "web-9", "lb-2", "lb-1", "network"}
	slices.SortFunc(names, compareNames)
	if got := strings.Join(names, " "); got != "lb-1 lb-2 web-9 web-10 app-1 db-1 network other" {
		t.Error(got)
	}
}

func TestAChangedSecretIsNamedWithItsFilesAndWhatFollows(t *testing.T) {
	properties := func() map[string]any {
		return map[string]any{
			"files": files(map[string]string{"/etc/app.env": "PASSWORD=@@secret.db.password@@\n", "/etc/other": "x\n"}),
			"units": []any{map[string]any{"name": "app@1.service", "active": true, "restartOn": []any{"/etc/app.env"}}},
			// As the engine writes it.
			"secrets": secretValue(),
		}
	}
	e := event("update", ConfigurationType, "app-1", properties(), properties())
	e.ResourcePreEvent.Metadata.DetailedDiff = map[string]apitype.PropertyDiff{
		`secrets["db.password"]`: {Kind: apitype.DiffUpdate}, "secrets.unused": {Kind: apitype.DiffDelete}, `values["server.id"]`: {Kind: apitype.DiffUpdate},
	}
	p := &Plan{Environment: "lab"}
	p.Event(e)
	var out bytes.Buffer
	p.Write(&out, Style{}, PlanOptions{})
	want := `Hosts
~ app-1  host
    ~ /etc/app.env  (secret db.password changes)
    then: restart app@1.service
    value server.id changes
    secret unused changes

`
	if out.String() != want {
		t.Errorf("the plan is\n%s\nnot\n%s", out.String(), want)
	}
}

func TestWhatFollowsIsWhatTheHostWillDo(t *testing.T) {
	unit := func(name string, more map[string]any) map[string]any {
		u := map[string]any{"name": name, "enabled": true, "active": true}
		for k, v := range more {
			u[k] = v
		}
		return u
	}
	before := map[string]any{
		"files": files(map[string]string{"/etc/systemd/system/app@.service": "1\n", "/etc/systemd/system/old.service": "1\n", "/etc/a": "1\n"}),
		"units": []any{unit("app@1.service", nil), unit("a.service", nil), unit("b.service", map[string]any{"pending": "reload"}),
			unit("c.service", map[string]any{"active": false, "enabled": false}), unit("d.service", nil)},
	}
	after := map[string]any{
		"files": files(map[string]string{"/etc/systemd/system/app@.service": "2\n", "/etc/a": "2\n"}),
		"units": []any{unit("app@1.service", nil), unit("a.service", map[string]any{"reloadOn": []any{"/etc/a"}, "before": "/usr/local/lib/infractl/drain 30 change"}), unit("b.service", nil),
			unit("c.service", nil), unit("d.service", map[string]any{"active": false, "enabled": false})},
	}
	p := &Plan{Environment: "lab"}
	p.Event(event("update", ConfigurationType, "app-1", before, after))
	want := []string{"stop and disable old.service", "restart app@1.service", "reload a.service while drained", "reload b.service", "start c.service", "enable c.service", "stop d.service", "disable d.service"}
	if got := p.Changes[0].Actions; !slices.Equal(got, want) {
		t.Errorf("the actions are\n%q, not\n%q", got, want)
	}
}

func TestAPropertyOfManyPartsIsShownPartByPart(t *testing.T) {
	rule := func(port string, more map[string]any) map[string]any {
		r := map[string]any{"direction": "in", "port": port}
		for k, v := range more {
			r[k] = v
		}
		return r
	}
	p := &Plan{Environment: "lab"}
	p.Event(event("update", "hcloud:index/firewall:Firewall", "web",
		map[string]any{"rules": []any{rule("22", map[string]any{"destinationIps": []any{}}), rule("80", nil)}},
		map[string]any{"rules": []any{rule("443", nil), rule("22", nil)}}))
	var out bytes.Buffer
	p.Write(&out, Style{}, PlanOptions{})
	if want := "    rules:\n        - {direction: \"in\", port: \"80\"}\n        + {direction: \"in\", port: \"443\"}\n"; !strings.Contains(out.String(), want) {
		t.Errorf("the plan is\n%s", out.String())
	}
}
