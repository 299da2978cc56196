package report

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with the file testdata/NAME.golden of the test.
func golden(t *testing.T, got string) {
	t.Helper()
	path := filepath.Join("testdata", t.Name()+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant (%s)\n%s", got, path, want)
	}
}

const prefix = "urn:pulumi:lab::infractl::"

func urn(typ, name string) string { return prefix + typ + "::" + name }

func step(op, typ, name string) apitype.StepEventMetadata {
	return apitype.StepEventMetadata{Op: apitype.OpType(op), URN: urn(typ, name), Type: typ}
}

func pre(op, typ, name string) apitype.EngineEvent {
	return apitype.EngineEvent{ResourcePreEvent: &apitype.ResourcePreEvent{Metadata: step(op, typ, name)}}
}

func done(op, typ, name string) apitype.EngineEvent {
	return apitype.EngineEvent{ResOutputsEvent: &apitype.ResOutputsEvent{Metadata: step(op, typ, name)}}
}

func failed(op, typ, name string) apitype.EngineEvent {
	return apitype.EngineEvent{ResOpFailedEvent: &apitype.ResOpFailedEvent{Metadata: step(op, typ, name)}}
}

func said(severity, urn, message string, ephemeral bool) apitype.EngineEvent {
	return apitype.EngineEvent{DiagnosticEvent: &apitype.DiagnosticEvent{URN: urn, Severity: severity, Message: message, Ephemeral: ephemeral}}
}

const (
	server  = "hcloud:index/server:Server"
	stack   = "pulumi:pulumi:Stack"
	network = "hcloud:index/network:Network"
)

// clock is a clock that the test sets.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newReporter(style Style) (*Reporter, *bytes.Buffer, *clock) {
	out := &bytes.Buffer{}
	c := &clock{at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	r := New(out, style)
	r.now = c.now
	r.began = c.at
	return r, out, c
}

func TestLinesWithoutATerminal(t *testing.T) {
	r, out, c := newReporter(Style{})
	r.Phase("reading the hosts")
	events := []apitype.EngineEvent{
		pre("create", stack, "infractl-lab"),
		pre("same", network, "network"), done("same", network, "network"),
		pre("create", server, "web-1"),
		said("warning", urn(stack, "infractl-lab"), "using pulumi-resource-hcloud from $PATH at /x", false),
		done("create", server, "web-1"),
		pre("create", ConfigurationType, "web-1"),
		said("info", urn(ConfigurationType, "web-1"), "waiting for web-1 to boot", true),
		said("info", urn(ConfigurationType, "web-1"), "installing nginx", true),
		said("info", urn(ConfigurationType, "web-1"), "reloading nginx.service", true),
		done("create", ConfigurationType, "web-1"),
		pre("update", ConfigurationType, "lb-1"),
		said("error", urn(ConfigurationType, "lb-1"), "<{%reset%}>lb-1: haproxy.service: /etc/haproxy/haproxy.cfg:12: unknown keyword 'blanace'<{%reset%}>\n", false),
		failed("update", ConfigurationType, "lb-1"),
		said("error", urn(stack, "infractl-lab"), "update failed", false),
		pre("delete", "infractl:secret:HostKey", "web-2"), done("delete", "infractl:secret:HostKey", "web-2"),
		done("create", stack, "infractl-lab"),
	}
	for _, e := range events {
		c.at = c.at.Add(600 * time.Millisecond)
		r.Event(e)
	}
	result := r.Finish()
	Failures(out, Style{}, result.Failures)
	out.WriteString(result.Summary("lab") + "\n")
	golden(t, out.String())
	if result.Hosts != 2 || !result.Changed() {
		t.Errorf("the result is %+v", result)
	}
}

func TestNothingToDoIsSaid(t *testing.T) {
	r, out, c := newReporter(Style{})
	for _, name := range []string{"web-1", "web-2"} {
		r.Event(pre("refresh", ConfigurationType, name))
		r.Event(done("refresh", ConfigurationType, name))
		r.Event(pre("same", ConfigurationType, name))
		r.Event(done("same", ConfigurationType, name))
	}
	c.at = c.at.Add(1234 * time.Millisecond)
	result := r.Finish()
	if got := result.Summary("lab"); got != "lab: no changes; 2 resources on 2 hosts are as they should be (1.2 s)" {
		t.Error(got)
	}
	if out.Len() > 0 || result.Changed() {
		t.Errorf("written: %s", out)
	}
}

func TestLiveDisplayLeavesOnlyWhatIsDone(t *testing.T) {
	r, out, _ := newReporter(Style{Live: true, Width: 60})
	r.Event(pre("create", server, "web-1"))
	r.Event(pre("create", server, "web-2"))
	r.Event(done("create", server, "web-1"))
	r.Event(done("create", server, "web-2"))
	r.Finish()
	screen := render(out.String())
	if want := "web-1              server             created  0.0 s\nweb-2              server             created  0.0 s\n"; screen != want {
		t.Errorf("the screen shows\n%s", screen)
	}
}

// render plays text with "up n lines" and "clear to the end" as a terminal does.
func render(text string) string {
	var lines []string
	for _, piece := range strings.SplitAfter(text, "\n") {
		for strings.HasPrefix(piece, "\x1b[") {
			end := strings.IndexAny(piece, "AJ")
			if piece[end] == 'A' {
				n := 0
				for _, d := range piece[2:end] {
					n = n*10 + int(d-'0')
				}
				lines = lines[:len(lines)-n]
			}
			piece = piece[end+1:]
		}
		if piece != "" {
			lines = append(lines, piece)
		}
	}
	return strings.Join(lines, "")
}

func TestMessagesAreInTheUsersTerms(t *testing.T) {
	cases := []struct{ in, message, advice string }{
		{
			"<{%reset%}>sdk-v2/provider2.go:566: sdk.helper_schema: server name is already used (uniqueness_error, 123abc): provider=hcloud@1.39.1<{%reset%}>",
			"something in the cloud project has this name already, and it is not in this environment's state (the cloud says: server name is already used, uniqueness_error)",
			"Delete or rename it",
		},
		{
			"1 error occurred:\n\t* creating urn:pulumi:lab::infractl::hcloud:index/server:Server::web-1: 1 error occurred:\n\t* server limit reached (resource_limit_exceeded, 55ff)",
			"the cloud project's limit is reached (the cloud says: server limit reached, resource_limit_exceeded)",
			"Ask for a higher limit",
		},
		{"limit of 3600 requests reached (rate_limit_exceeded)", "the cloud's limit of calls per hour is used up (the cloud says: limit of 3600 requests reached, rate_limit_exceeded)", "Wait a few minutes"},
		{"no capacity (resource_unavailable, 7)", "the cloud has none left at this location just now (the cloud says: no capacity, resource_unavailable)", "Run up again later"},
		{
			"an unhandled error occurred: program failed: \n1 error occurred:\n\t* infractl:tiers.web.count: must be at least 1, not 0\n",
			"infractl:tiers.web.count: must be at least 1, not 0", "",
		},
		{"web-1: connect: host key is another one (ssh)", "web-1: connect: host key is another one (ssh)", ""},
		{"resource \"urn:x\" cannot be deleted\nbecause it is protected. To unprotect the resource, …", "it is protected, since it holds data or the environment's address", "Nothing but `infractl destroy` deletes it."},
		{"unable to replace resource \"urn:x\"\nas it is currently marked for protection. To unprotect …", "it would have to be made anew, but it is protected, since it holds data or the environment's address", "infractl preview says why."},
	}
	for _, c := range cases {
		message, advice := explain(c.in)
		if message != c.message || !strings.Contains(advice, c.advice) || c.advice == "" && advice != "" {
			t.Errorf("%q\nbecomes %q, %q", c.in, message, advice)
		}
	}
}

func TestRepeatedErrorsAreShownOnce(t *testing.T) {
	r, _, _ := newReporter(Style{})
	u := urn(server, "web-1")
	r.Event(pre("create", server, "web-1"))
	r.Event(said("error", u, "no capacity (resource_unavailable, 7)", false))
	r.Event(said("error", u, "1 error occurred:\n\t* no capacity (resource_unavailable, 7)", false))
	r.Event(failed("create", server, "web-1"))
	r.Event(said("error", urn(stack, "infractl-lab"), "update failed", false))
	failures := r.Finish().Failures
	if len(failures) != 1 || !strings.HasPrefix(failures[0].Title(), "web-1: server: cannot create: the cloud has none left") {
		t.Errorf("failures: %+v", failures)
	}
}

func TestResultSaysWhatCameOfEachHost(t *testing.T) {
	r, _, _ := newReporter(Style{})
	for _, ev := range []apitype.EngineEvent{
		done("same", server, "db-1"), done("refresh", ConfigurationType, "db-1"), done("same", ConfigurationType, "db-1"),
		pre("create", server, "app-1"), done("create", server, "app-1"),
		done("create", server, "app-2"), pre("create", ConfigurationType, "app-2"), done("create", ConfigurationType, "app-2"),
		done("refresh", ConfigurationType, "web-1"), pre("update", ConfigurationType, "web-1"), failed("update", ConfigurationType, "web-1"),
		done("refresh", ConfigurationType, "web-2"), pre("update", ConfigurationType, "web-2"),
		done("refresh", ConfigurationType, "lb-1"),
		failed("create", server, "lb-2"),
		done("delete", ConfigurationType, "web-3"), done("delete", server, "web-3"),
		done("create", network, "network"),
	} {
		r.Event(ev)
	}
	want := map[string]string{
		"db-1": HostUnchanged, "app-1": HostBare, "app-2": HostCreated, "web-1": HostFailed, "web-2": "updating",
		"lb-1": HostRead, "lb-2": HostFailed, "web-3": HostDeleted,
	}
	if got := r.Finish().HostResults; !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}
