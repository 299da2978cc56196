//go:build lab && !hosts

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pulumi runs the Pulumi CLI as a user without infractl would, with the given
// variables set in the shell.
func (p *project) pulumi(t *testing.T, dir string, vars map[string]string, args ...string) (string, error) {
	t.Helper()
	bin := filepath.Join(checkout(), "bin")
	cmd := exec.CommandContext(t.Context(), pulumiCLI(t), append(args, "--non-interactive", "--color=never")...)
	cmd.Dir = dir
	path := bin + ":" + os.Getenv("PATH")
	if _, err := exec.LookPath("pulumi-language-go"); err != nil {
		// Where no Go language host is installed, the test's own stands in.
		host := filepath.Join(t.TempDir(), "pulumi-language-go")
		build := exec.Command("go", "build", "-o", host, "./cmd/infractl/internal/languagehost")
		build.Dir = checkout()
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building the language host: %v\n%s", err, out)
		}
		path = filepath.Dir(host) + ":" + path
	}
	cmd.Env = append(os.Environ(), "PATH="+path, "PULUMI_SKIP_UPDATE_CHECK=true", "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION=true")
	for key, value := range vars {
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func pulumiCLI(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("pulumi"); err == nil {
		return path
	}
	return filepath.Join(checkout(), "bin/pulumi")
}

func TestPlainPulumiUpDoesTheSame(t *testing.T) {
	out, err := site.pulumi(t, site.dir, site.variables(), "up", "--yes", "--stack", site.env, "--expect-no-changes")
	if err != nil {
		t.Fatalf("pulumi up after infractl up: %v\n%s", err, out)
	}
	// And the other way round: what it changes, infractl finds done.
	if err := site.configure(map[string]string{"infractl:debugHeaders": "false"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := site.configure(nil); err != nil {
			t.Error(err)
		}
		site.up(t)
	})
	if out, err = site.pulumi(t, site.dir, site.variables(), "up", "--yes", "--stack", site.env); err != nil {
		t.Fatalf("pulumi up: %v\n%s", err, out)
	}
	if a, err := get(t.Context(), client(5*time.Second), site.URL+"/"); err != nil || a.lb != "" || a.web != "" || a.app != "" {
		t.Errorf("pulumi up did not turn the debug headers off: %v, %q %q %q", err, a.lb, a.web, a.app)
	}
	if r := site.up(t); !strings.Contains(r.stdout+r.stderr, "no changes") {
		t.Errorf("infractl up after pulumi up: %v", r)
	}
}

func TestPlainPulumiUpInACheckoutWhereNothingWasBuiltNamesTheCommand(t *testing.T) {
	t.Parallel()
	clone := filepath.Join(t.TempDir(), "clone")
	if out, err := exec.Command("git", "clone", "--quiet", checkout(), clone).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	vars := site.variables()
	vars["PULUMI_BACKEND_URL"] = "file://" + t.TempDir()
	if out, err := site.pulumi(t, clone, vars, "stack", "init", "lab"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := site.pulumi(t, clone, vars, "up", "--yes", "--stack", "lab")
	if err == nil {
		t.Fatalf("pulumi up worked without the provider plugin:\n%s", out)
	}
	if !strings.Contains(out, "./scripts/build") {
		t.Errorf("pulumi up does not say which command to run first:\n%s", out)
	}
}
