package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"

	"github.com/blang/semver"
)

// HcloudVersion is the version of the hcloud plugin that fits the SDK in go.mod.
const HcloudVersion = "1.39.1"

// minimumPulumi is the oldest Pulumi CLI that will do: the first one that
// sends its events over a connection (see tailLogs in sdk/v3/go/auto).
var minimumPulumi = semver.MustParse("3.206.0")

// buildAdvice is the one command that makes what is missing in a checkout.
const buildAdvice = "Run ./scripts/build first."

// Tools are the programs that infractl runs.
type Tools struct {
	Pulumi string
	// Plugin is the directory of pulumi-resource-infractl.
	Plugin string
	// Hcloud is the path of pulumi-resource-hcloud; empty means that Pulumi has to download it.
	Hcloud string
	// HcloudInstalled says that Hcloud is among Pulumi's own plugins, in the right version.
	HcloudInstalled bool

	command *command
	// home is the directory that the CLI takes for the user's own of Pulumi.
	home string
}

// FindTools looks for the Pulumi CLI and the plugins: first what the user has
// installed, then what was built beside infractl or in the checkout.
func FindTools(ctx context.Context, p Project, force <-chan struct{}) (Tools, error) {
	var t Tools
	built := builtDirs(p)
	found, err := findPulumi(ctx, built, force)
	if err != nil {
		return t, err
	}
	t.command = found
	t.Pulumi = found.path
	if t.Plugin, err = findPlugin(built); err != nil {
		return t, err
	}
	t.Hcloud, t.HcloudInstalled = findHcloud(built)
	return t, nil
}

// builtDirs are where scripts/build may have put binaries.
func builtDirs(p Project) []string {
	var dirs []string
	add := func(d string) {
		if d != "" && !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	add(p.PluginDir)
	if self, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(self); err == nil {
			self = real
		}
		add(filepath.Dir(self))
	}
	if p.Dir != "" {
		add(filepath.Join(p.Dir, "bin"))
	}
	return dirs
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func findPulumi(ctx context.Context, built []string, force <-chan struct{}) (*command, error) {
	var paths []string
	if p, err := exec.LookPath("pulumi"); err == nil {
		if p, err = filepath.Abs(p); err == nil {
			paths = append(paths, p)
		}
	}
	for _, d := range built {
		if p := filepath.Join(d, "pulumi"); executable(p) && !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	var problems []error
	for _, p := range paths {
		c, err := newCommand(ctx, p, force)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			problems = append(problems, err)
		case c.version.LT(minimumPulumi):
			problems = append(problems, fmt.Errorf("%s is version %s, but %s or newer is needed", p, c.version, minimumPulumi))
		default:
			return c, nil
		}
	}
	if len(problems) > 0 {
		return nil, fail(Missing, buildAdvice, "no usable Pulumi CLI: %w", errors.Join(problems...))
	}
	return nil, fail(Missing, buildAdvice, "there is no Pulumi CLI, neither on PATH nor built")
}

func findPlugin(built []string) (string, error) {
	for _, d := range built {
		if executable(filepath.Join(d, "pulumi-resource-infractl")) {
			return d, nil
		}
	}
	return "", fail(Missing, buildAdvice, "the plugin pulumi-resource-infractl was not built yet")
}

// findHcloud looks for the official plugin among Pulumi's own, then for one on
// PATH or built from tools/hcloud.
func findHcloud(built []string) (path string, installed bool) {
	const name = "pulumi-resource-hcloud"
	if home := pulumiHome(); home != "" {
		p := filepath.Join(home, "plugins", "resource-hcloud-v"+HcloudVersion, name)
		if executable(p) {
			return p, true
		}
	}
	for _, d := range built {
		if p := filepath.Join(d, name); executable(p) {
			return p, false
		}
	}
	if p, err := exec.LookPath(name); err == nil {
		return p, false
	}
	return "", false
}

func pulumiHome() string {
	if h := os.Getenv("PULUMI_HOME"); h != "" {
		return h
	}
	home, err := os.UserHomeDir()
	if err != nil {
		// As in jobs of cron and systemd, where Pulumi looks into the user database.
		u, err := user.Current()
		if err != nil {
			return ""
		}
		home = u.HomeDir
	}
	return filepath.Join(home, ".pulumi")
}

// variables are the environment variables of the CLI that follow from where
// the plugins are.
func (t Tools) variables() map[string]string {
	v := map[string]string{
		"PULUMI_SKIP_UPDATE_CHECK": "true",
		// The state knows how its secrets are encrypted, so that a computer
		// that has only the state can work on it.
		"PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",
		"PULUMI_HOME": t.home,
	}
	switch {
	case t.HcloudInstalled:
		// Another one on PATH would win over the official one.
		v["PULUMI_IGNORE_AMBIENT_PLUGINS"] = "true"
		v["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
	case t.Hcloud != "":
		v["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
	}
	return v
}

// searchPath makes the CLI find itself and, unless Pulumi has its own, the
// hcloud plugin.
func (t Tools) searchPath() error {
	var dirs []string
	if t.Hcloud != "" && !t.HcloudInstalled {
		dirs = append(dirs, filepath.Dir(t.Hcloud))
	}
	if d := filepath.Dir(t.Pulumi); !slices.Contains(dirs, d) {
		dirs = append(dirs, d)
	}
	return prependPath(dirs...)
}
