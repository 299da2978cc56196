//go:build lab

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// badInput is a mistake, and what the message about it must name.
type badInput struct {
	name   string
	change map[string]string
	vars   []string
	says   []string
	code   int
}

// TestBadInputIsRefusedBeforeAnythingIsChanged changes one thing in a good
// environment that does not exist yet, and asks for one clear message.
func TestBadInputIsRefusedBeforeAnythingIsChanged(t *testing.T) {
	for _, c := range badInputs {
		t.Run(c.name, func(t *testing.T) {
			p, err := newProject(t.TempDir(), "bad", c.change)
			if err != nil {
				t.Fatal(err)
			}
			r := p.infractlWith(c.vars, "up", "-e", p.env, "--yes")
			if r.code != c.code {
				t.Errorf("exit code %d, want %d", r.code, c.code)
			}
			for _, want := range c.says {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("the message does not name %q", want)
				}
			}
			if lines := strings.Count(strings.TrimSpace(r.stderr), "\n"); lines > 8 {
				t.Errorf("%d lines for one mistake", lines+1)
			}
			p.requireNothing(t)
			if t.Failed() {
				t.Logf("%v", r)
			}
		})
	}
}

func TestUsageMistakesExitWithTwo(t *testing.T) {
	for _, args := range [][]string{
		{"upp"}, {"up", "--no-such-flag"}, {"up", "-e", "nonesuch"}, {"up", "-e", "e2e"}, {"destroy", "-e", "e2e"}, {"preview", "surplus"},
	} {
		r := site.infractl(args...)
		if r.code != 2 {
			t.Errorf("%v", r)
		}
		if strings.TrimSpace(r.stderr) == "" || len(r.stderr) > 2000 {
			t.Errorf("infractl %v says %d bytes", args, len(r.stderr))
		}
	}
}

func TestEnvironmentFilesThatOthersCanReadAreRefused(t *testing.T) {
	p, err := newProject(t.TempDir(), "bad", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(p.dir, ".env.bad"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := p.infractl("up", "-e", "bad", "--yes")
	if r.code != 2 || !strings.Contains(r.stderr, ".env.bad") || !strings.Contains(r.stderr, "chmod 600") {
		t.Errorf("%v", r)
	}
}

func TestCompletionKnowsCommandsAndEnvironments(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := site.infractl("completion", shell); r.code != 0 || !strings.Contains(r.stdout, "infractl") {
			t.Errorf("%v", r)
		}
	}
	r := site.infractl("up", "--env", "--generate-bash-completion")
	if !slices.Contains(strings.Fields(r.stdout), site.env) {
		t.Errorf("environments are not completed: %v", r)
	}
}
