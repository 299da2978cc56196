package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/stacks"
)

// command runs a command line in a directory and returns what it printed.
func command(t *testing.T, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	t.Chdir(dir)
	oldOut, oldErr := os.Stdout, os.Stderr
	defer func() { os.Stdout, os.Stderr = oldOut, oldErr }()
	read := func(into **os.File) chan string {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		*into = w
		text := make(chan string, 1)
		go func() {
			b, _ := io.ReadAll(r)
			text <- string(b)
		}()
		return text
	}
	out, errs := read(&os.Stdout), read(&os.Stderr)
	oldArgs := os.Args
	os.Args = append([]string{"infractl"}, args...)
	defer func() { os.Args = oldArgs }()
	code = run(os.Args)
	os.Stdout.Close()
	os.Stderr.Close()
	return <-out, <-errs, code
}

func project(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files["Pulumi.yaml"] = "name: infractl\nruntime: go\n"
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestEveryKindOfErrorHasItsExitCode(t *testing.T) {
	of := func(k engine.Kind) error {
		return fmt.Errorf("outside: %w", &engine.Error{Kind: k, Err: errors.New("inside")})
	}
	cases := []struct {
		err  error
		code int
	}{
		{nil, 0},
		{errors.New("any"), 1},
		{of(engine.Failed), 1},
		{of(engine.Invalid), 2},
		{usage("x"), 2},
		{&stacks.ConfigError{}, 2},
		{of(engine.Missing), 3},
		{of(engine.Locked), 4},
		{of(engine.Partial), 5},
		{of(engine.Interrupted), 130},
		{detailed(false, nil), 0},
		{detailed(true, nil), 2},
		{detailed(true, of(engine.Invalid)), 1},
		{detailed(false, of(engine.Locked)), 1},
		{detailed(false, context.Canceled), 1},
		{context.Canceled, 130},
	}
	for _, c := range cases {
		if got := exitCode(c.err); got != c.code {
			t.Errorf("%v: %d, not %d", c.err, got, c.code)
		}
	}
}

func TestMistakesOnTheCommandLineAreSaid(t *testing.T) {
	dir := project(t, map[string]string{"Pulumi.lab.yaml": "", "Pulumi.prod.yaml": ""})
	cases := []struct {
		args []string
		want string
	}{
		{[]string{"up", "--fast"}, "flag provided but not defined: -fast"},
		{[]string{"up"}, "there is no terminal to ask on; say --yes"},
		{[]string{"up", "--yes", "lab"}, `up takes no arguments, but there is "lab"`},
		{[]string{"up", "--yes"}, "there are several environments, so name one: --env lab, --env prod"},
		{[]string{"preview", "-e", "stage"}, `there is no environment "stage"; there is lab, prod`},
		{[]string{"destroy", "--yes"}, "destroy --yes needs the environment's name: --env NAME"},
		{[]string{"destroy", "--env", "lab"}, "there is no terminal to ask on; say --yes"},
		{[]string{"scale", "--yes", "-e", "lab"}, "the tiers are lb, web, app, db"},
		{[]string{"scale", "--yes", "-e", "lab", "cache=4"}, `there is no tier "cache"; the tiers are lb, web, app, db`},
		{[]string{"scale", "web=4", "web=+1", "-e", "lab", "--yes"}, "tier web stands there twice"},
		{[]string{"scale", "web=4", "-e", "lab"}, "there is no terminal to ask on; say --yes"},
		{[]string{"scale", "web=4", "-e", "stage", "--dry-run"}, `there is no environment "stage"; there is lab, prod`},
		{[]string{"scale", "web=4", "--yes", "--drain-timeout", "10ms"}, "--drain-timeout must be between 1s and 1h"},
		{[]string{"up", "--yes", "--drain-timeout", "2h"}, "--drain-timeout must be between 1s and 1h"},
		{[]string{"completion", "tcsh"}, "name one shell: bash, zsh, fish"},
		{[]string{"preview", "--fast"}, "flag provided but not defined: -fast"},
		{[]string{"preview", "--json", "--markdown"}, "choose one"},
		{[]string{"up", "--plan", "nowhere.json"}, "cannot read the plan: open nowhere.json"},
		{[]string{"up", "--plan", "Pulumi.yaml"}, "Pulumi.yaml is no plan to go by: it is damaged"},
		{[]string{"up", "--plan", "x.json", "--resize", "web-1"}, "leave out --resize"},
		{[]string{"upp"}, `there is no command "upp"`},
	}
	for _, c := range cases {
		stdout, stderr, code := command(t, dir, c.args...)
		if code != 2 || !strings.Contains(stderr, c.want) || stdout != "" {
			t.Errorf("infractl %s: exit code %d\nstdout: %s\nstderr: %s", strings.Join(c.args, " "), code, stdout, stderr)
		}
	}
}

func TestWhereTwoMeansADifferenceEveryMistakeIsOne(t *testing.T) {
	dir := project(t, map[string]string{"Pulumi.lab.yaml": "", "Pulumi.prod.yaml": ""})
	cases := []struct {
		args []string
		want string
	}{
		{[]string{"drift"}, "there are several environments"},
		{[]string{"drift", "--fast"}, "flag provided but not defined: -fast"},
		{[]string{"drift", "-e", "lab", "--json", "--markdown"}, "choose one"},
		{[]string{"preview", "--detailed-exitcode"}, "there are several environments"},
		{[]string{"preview", "--detailed-exitcode", "--fast"}, "flag provided but not defined: -fast"},
		{[]string{"preview", "--fast", "--detailed-exitcode"}, "flag provided but not defined: -fast"},
		{[]string{"preview", "--detailed-exitcode", "lab"}, "takes no arguments"},
		{[]string{"preview", "--detailed-exitcode", "--json", "--markdown"}, "choose one"},
	}
	for _, c := range cases {
		stdout, stderr, code := command(t, dir, c.args...)
		if code != 1 || !strings.Contains(stderr, c.want) || stdout != "" {
			t.Errorf("infractl %s: exit code %d\nstdout: %s\nstderr: %s", strings.Join(c.args, " "), code, stdout, stderr)
		}
	}
}

func TestMistakesInTheConfigurationAreSaidTogether(t *testing.T) {
	t.Setenv("INFRACTL_SSH_IDENTITY", "")
	dir := project(t, map[string]string{"Pulumi.lab.yaml": "config:\n  infractl:tiers: {web: {count: 0}}\n  infractl:tears: 1\n"})
	_, stderr, code := command(t, dir, "up", "--yes")
	if code != 2 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"Pulumi.lab.yaml is not right:", "infractl:tiers.web.count: must be at least 1", "infractl:tears: is not a known key", "infractl:application: must be set"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("stderr does not say %q:\n%s", want, stderr)
		}
	}
}

func TestVersionIsData(t *testing.T) {
	stdout, stderr, code := command(t, t.TempDir(), "version", "--json")
	if code != 0 || stderr != "" || !strings.Contains(stdout, `"version": "dev"`) {
		t.Errorf("%d, %q, %q", code, stdout, stderr)
	}
}

func TestCompletionKnowsTheEnvironments(t *testing.T) {
	dir := project(t, map[string]string{"Pulumi.lab.yaml": "", "Pulumi.prod.yaml": ""})
	stdout, _, _ := command(t, dir, "up", "--env", "--generate-bash-completion")
	if stdout != "lab\nprod\n" {
		t.Errorf("environments: %q", stdout)
	}
	stdout, _, _ = command(t, dir, "preview", "--generate-bash-completion")
	if !strings.Contains(stdout, "--show-files\n") {
		t.Errorf("flags: %q", stdout)
	}
	stdout, _, _ = command(t, dir, "scale", "--generate-bash-completion")
	if !strings.HasPrefix(stdout, "lb=\nweb=\napp=\ndb=\n") || !strings.Contains(stdout, "--dry-run\n") {
		t.Errorf("tiers: %q", stdout)
	}
	stdout, _, _ = command(t, dir, "--generate-bash-completion")
	for _, want := range []string{"up", "preview", "lab", "doctor"} {
		if !strings.Contains("\n"+stdout, "\n"+want) {
			t.Errorf("commands: %q", stdout)
		}
	}
}

func TestCompletionScriptsAreThere(t *testing.T) {
	for shell, want := range map[string]string{"bash": "complete -o default -F _infractl infractl", "zsh": "#compdef infractl", "fish": "complete -c infractl"} {
		stdout, _, code := command(t, t.TempDir(), "completion", shell)
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("%s: %d, %q", shell, code, stdout)
		}
		if path, err := exec.LookPath(shell); err == nil {
			cmd := exec.Command(path, "-n")
			cmd.Stdin = strings.NewReader(stdout)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s does not take it: %v\n%s", shell, err, out)
			}
		}
	}
}

func TestDoctorNamesPackagesThatTheLabLacks(t *testing.T) {
	checks := labChecks(func(program string) (string, error) {
		if program == "nft" || program == "mmdebstrap" {
			return "", &exec.Error{Name: program, Err: exec.ErrNotFound}
		}
		return "/usr/bin/" + program, nil
	}, 1000)
	if checks[0].OK || checks[0].Remedy != "apt-get install mmdebstrap nftables" || checks[0].Needed {
		t.Errorf("programs: %+v", checks[0])
	}
	if checks[1].OK || checks[1].Needed {
		t.Errorf("root: %+v", checks[1])
	}
}
