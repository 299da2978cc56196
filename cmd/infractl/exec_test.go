package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet/fleettest"
)

// runs is what a runner has done.
type runs struct {
	stdout, stderr string
	err            error
}

func runOn(ctx context.Context, f *fleet.Fleet, change func(*runner), words ...string) runs {
	var stdout, stderr bytes.Buffer
	r := &runner{
		connect: f.Connect, command: fleet.Command{Words: words}, timeout: time.Minute, parallel: 32, width: width(f.Hosts),
		stdout: &stdout, stderr: &stderr,
	}
	if change != nil {
		change(r)
	}
	err := r.run(ctx, f.Hosts)
	return runs{stdout.String(), stderr.String(), err}
}

func sortedLines(text string) []string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	slices.Sort(lines)
	return lines
}

func TestOutputStandsBehindItsHost(t *testing.T) {
	f, _ := fleettest.New(t, "web-1", "web-10")
	r := runOn(t.Context(), f, nil, `echo one; echo two >&2; printf three`)
	if r.err != nil {
		t.Fatal(r.err)
	}
	if want := []string{"web-1  | one", "web-1  | three", "web-10 | one", "web-10 | three"}; !slices.Equal(sortedLines(r.stdout), want) {
		t.Errorf("%q", r.stdout)
	}
	errs := sortedLines(r.stderr)
	if len(errs) != 3 || errs[1] != "web-1  | two" || errs[2] != "web-10 | two" || !strings.HasPrefix(errs[0], "2 hosts: exit code 0 (") {
		t.Errorf("%q", r.stderr)
	}
}

func TestHostsThatFailAreNamedWithTheirExitCodes(t *testing.T) {
	f, hosts := fleettest.New(t, "web-1", "web-2", "web-3")
	hosts["web-3"].Stop()
	if err := os.WriteFile(filepath.Join(hosts["web-2"].Files, "bad"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := runOn(t.Context(), f, nil, `test ! -e "$FILES/bad" || exit 7`)
	if exitCode(r.err) != 1 {
		t.Errorf("exit code %d", exitCode(r.err))
	}
	want := "failed on 2 of 3 hosts:\n  web-2: exit code 7\n  web-3: connect to 127.0.7.3:"
	if r.err == nil || !strings.HasPrefix(r.err.Error(), want) || !strings.Contains(r.err.Error(), "connection refused") {
		t.Errorf("%v", r.err)
	}
}

func TestACommandThatTakesTooLongIsEnded(t *testing.T) {
	f, _ := fleettest.New(t, "web-1")
	began := time.Now()
	r := runOn(t.Context(), f, func(r *runner) { r.timeout = time.Second }, "echo begun; sleep 30")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	if r.stdout != "web-1 | begun\n" || r.err == nil || !strings.Contains(r.err.Error(), "web-1: not finished after 1s, and ended") || exitCode(r.err) != 1 {
		t.Errorf("%q, %v", r.stdout, r.err)
	}
}

func TestAnInterruptEndsTheCommandEverywhere(t *testing.T) {
	f, _ := fleettest.New(t, "web-1", "web-2")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(500*time.Millisecond, cancel)
	r := runOn(ctx, f, nil, "sleep 30")
	if engine.KindOf(r.err) != engine.Interrupted || exitCode(r.err) != 130 {
		t.Errorf("%v", r.err)
	}
}

func TestNoMoreHostsThanAllowedAreWorkedOnAtATime(t *testing.T) {
	f, _ := fleettest.New(t, "web-1", "web-2", "web-3")
	var shared = t.TempDir()
	r := runOn(t.Context(), f, func(r *runner) { r.parallel = 1 }, "mkdir "+fleet.Quote(shared+"/one")+" && sleep 0.1 && rmdir "+fleet.Quote(shared+"/one"))
	if r.err != nil {
		t.Errorf("%v\n%s", r.err, r.stderr)
	}
}

func TestAHostIsALineOfJSON(t *testing.T) {
	f, hosts := fleettest.New(t, "web-1", "app-1")
	hosts["app-1"].Stop()
	r := runOn(t.Context(), f, func(r *runner) { r.json = true }, `echo "one
two"; printf '\033[31m' >&2; exit 3`)
	got := map[string]executed{}
	for _, line := range sortedLines(r.stdout) {
		var e executed
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		got[e.Host] = e
	}
	web, app := got["web-1"], got["app-1"]
	if web.ExitCode == nil || *web.ExitCode != 3 || web.Stdout != "one\ntwo\n" || web.Stderr != "\x1b[31m" || web.Tier != "web" || web.Version != 1 {
		t.Errorf("%+v", web)
	}
	if app.ExitCode != nil || !strings.Contains(app.Error, "connection refused") {
		t.Errorf("%+v", app)
	}
	if exitCode(r.err) != 1 || strings.Contains(r.stdout, "\x1b") {
		t.Errorf("%v, %q", r.err, r.stdout)
	}
}

func TestOnATerminalOnlyTextAndColorsGetThrough(t *testing.T) {
	f, _ := fleettest.New(t, "web-1")
	const command = `printf '\033[31mred\033[2J\007\n'`
	for _, c := range []struct {
		terminal, color bool
		want            string
	}{
		{true, true, "\x1b[36mweb-1 |\x1b[0m \x1b[31mred" + `\x1b[2J\x07` + "\x1b[0m\n"},
		{true, false, `web-1 | \x1b[31mred\x1b[2J\x07` + "\n"},
		{false, false, "web-1 | \x1b[31mred\x1b[2J\x07\n"},
	} {
		r := runOn(t.Context(), f, func(r *runner) { r.outTerminal, r.outStyle.Color = c.terminal, c.color }, command)
		if r.stdout != c.want {
			t.Errorf("%+v: %q", c, r.stdout)
		}
	}
}

func TestOutputForJSONIsBounded(t *testing.T) {
	var k kept
	for range 17 {
		if n, err := k.Write(bytes.Repeat([]byte("x"), 1<<20)); n != 1<<20 || err != nil {
			t.Fatal(n, err)
		}
	}
	if k.text.Len() != keptLimit || !k.cut {
		t.Errorf("%d bytes, cut: %v", k.text.Len(), k.cut)
	}
}

func TestMistakesOfCommandsOnHostsAreSaid(t *testing.T) {
	dir := project(t, map[string]string{"Pulumi.lab.yaml": ""})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"exec", "--", "uptime"}, "say on which hosts: --tier lb, --tier web, --tier app, --tier db, --host NAME, or --all"},
		{[]string{"exec", "--all"}, "say what to run"},
		{[]string{"exec", "--all", "--tier", "web", "--", "uptime"}, "--all leaves nothing"},
		{[]string{"exec", "--all", "--user", "--sudo", "--", "uptime"}, "contradict"},
		{[]string{"exec", "--all", "--parallel", "0", "--", "uptime"}, "--parallel must be from 1 to 256"},
		{[]string{"exec", "--all", "--timeout", "1ms", "--", "uptime"}, "--timeout must be 1s at least"},
		{[]string{"ssh"}, "name the host"},
		{[]string{"ssh", "web-1", "-v"}, "-v stands behind the host"},
		{[]string{"status", "web-1"}, `status takes no arguments, but there is "web-1"`},
		{[]string{"status", "--watch=0.1"}, "--watch=0.1: must be a time from 1s to 1h"},
		{[]string{"status", "--watch=soon"}, "--watch=soon: must be a time"},
		{[]string{"status", "--timeout", "1ms"}, "--timeout must be from 1.5s to 1h"},
	} {
		stdout, stderr, code := command(t, dir, c.args...)
		if code != 2 || !strings.Contains(stderr, c.want) || stdout != "" {
			t.Errorf("infractl %s: exit code %d\nstdout: %s\nstderr: %s", strings.Join(c.args, " "), code, stdout, stderr)
		}
	}
}

func TestCompletionKnowsTiersAndHowHostsAreAskedFor(t *testing.T) {
	stdout, _, _ := command(t, t.TempDir(), "exec", "--tier", "--generate-bash-completion")
	if stdout != "lb\nweb\napp\ndb\n" {
		t.Errorf("tiers: %q", stdout)
	}
	for _, c := range []struct {
		args string
		env  string
		asks bool
	}{
		{"infractl exec --host --generate-bash-completion", "", true},
		{"infractl logs -e prod --host --generate-bash-completion", "prod", true},
		{"infractl exec --env lab --tier web --host --generate-bash-completion", "lab", true},
		{"infractl exec --host web-1 --generate-bash-completion", "", false},
		{"infractl --generate-bash-completion", "", false},
	} {
		if env, asks := completesHost(strings.Fields(c.args)); env != c.env || asks != c.asks {
			t.Errorf("%s: %q, %v", c.args, env, asks)
		}
	}
}
