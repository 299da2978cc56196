//go:build lab

// Package e2e tests the whole product as a user meets it: the built infractl
// and the real Pulumi engine, the real hcloud provider, real daemons on real
// Debian machines, and the lab in place of the cloud.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

// checkout is the root of the repository.
func checkout() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "Pulumi.yaml")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			panic("no Pulumi.yaml above the test: run it from the checkout")
		}
		dir = parent
	}
}

// project is a user's project directory with one environment, using the
// checkout's binaries and the running lab.
type project struct {
	dir string
	env string
	place
	// base is what always differs from the committed lab environment.
	base map[string]string
}

// newProject makes a project directory whose environment has the configuration
// of the committed lab environment, changed by the given key=YAML pairs.
func newProject(dir, env string, changes map[string]string) (*project, error) {
	p := &project{dir: dir, env: env, base: baseConfig()}
	return p, p.write(changes)
}

// write writes the project directory.
func (p *project) write(changes map[string]string) error {
	root := checkout()
	project := fmt.Sprintf("name: infractl\nruntime: go\nmain: %s\nplugins:\n  providers:\n    - name: infractl\n      path: %s\n",
		filepath.Join(root, "cmd/environment"), filepath.Join(root, "bin"))
	if err := os.WriteFile(filepath.Join(p.dir, "Pulumi.yaml"), []byte(project), 0o644); err != nil {
		return err
	}
	if err := p.configure(changes); err != nil {
		return err
	}
	credentials, err := os.ReadFile(filepath.Join(root, ".env.lab"))
	if err != nil {
		return fmt.Errorf("the lab is not up (`infractl lab up` in the checkout): %w", err)
	}
	// State of its own, so that a broken test cannot spoil another's.
	lines := strings.Split(strings.TrimSpace(string(credentials)), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "PULUMI_BACKEND_URL=") {
			lines[i] = "PULUMI_BACKEND_URL=file://" + filepath.Join(p.dir, "state")
		}
	}
	if err := os.MkdirAll(filepath.Join(p.dir, "state"), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(p.dir, ".env."+p.env), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// configure writes the stack configuration: the lab's with changes. A change to
// "" removes the key.
func (p *project) configure(changes map[string]string) error {
	root := checkout()
	text, err := os.ReadFile(filepath.Join(root, "Pulumi.lab.yaml"))
	if err != nil {
		return err
	}
	doc, err := decodeYAML(text)
	if err != nil {
		return err
	}
	config := doc["config"].(map[string]any)
	if app, ok := config["infractl:application"].(map[string]any); ok {
		app["release"] = filepath.Join(root, app["release"].(string))
	}
	all := maps.Clone(p.base)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, changes)
	for key, value := range all {
		if value == "" {
			delete(config, key)
			continue
		}
		parsed, err := decodeAnyYAML([]byte(value))
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		config[key] = parsed
	}
	out, err := encodeYAML(doc)
	if err != nil {
		return err
	}
	return os.WriteFile(p.configFile(), out, 0o644)
}

func (p *project) configFile() string { return filepath.Join(p.dir, "Pulumi."+p.env+".yaml") }

// variables are the environment's credentials, as infractl itself would load them.
func (p *project) variables() map[string]string {
	vars := map[string]string{}
	text, err := os.ReadFile(filepath.Join(p.dir, ".env."+p.env))
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			vars[key] = value
		}
	}
	return vars
}

// cloud is a client of the API with the operator's token.
func (p *project) cloud() *hcloud.Client {
	vars := p.variables()
	return hcloud.NewClient(hcloud.WithEndpoint(vars["HCLOUD_ENDPOINT"]), hcloud.WithToken(vars["HCLOUD_TOKEN"]))
}

// run is what a command did.
type run struct {
	args           []string
	stdout, stderr string
	code           int
	took           time.Duration
}

func (r run) String() string {
	return fmt.Sprintf("infractl %s: exit %d after %s\n--- stdout\n%s\n--- stderr\n%s",
		strings.Join(r.args, " "), r.code, r.took.Round(time.Millisecond), r.stdout, r.stderr)
}

// requireCode fails unless a command ended with a code and said all of the words.
func requireCode(t *testing.T, r run, code int, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(r.stdout+r.stderr, w) {
			t.Errorf("it does not say %q", w)
		}
	}
	if r.code != code {
		t.Errorf("exit code %d, not %d", r.code, code)
	}
	if t.Failed() {
		t.Fatalf("%v", r)
	}
}

// command prepares infractl in the project without starting it.
func (p *project) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(checkout(), "bin/infractl"), args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	return cmd
}

// infractl runs a command to its end, with a generous deadline.
func (p *project) infractl(args ...string) run { return p.infractlWith(nil, args...) }

// infractlWith does so with further environment variables.
func (p *project) infractlWith(vars []string, args ...string) run {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	cmd := p.command(ctx, args...)
	cmd.Env = append(cmd.Env, vars...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	r := run{args: args, stdout: stdout.String(), stderr: stderr.String(), took: time.Since(began)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		r.code, r.stderr = -1, r.stderr+err.Error()
	}
	return r
}

// up brings the environment up and fails the test if that fails.
func (p *project) up(t *testing.T, args ...string) run {
	t.Helper()
	r := p.infractl(append([]string{"up", "-e", p.env, "--yes"}, args...)...)
	if r.code != 0 {
		t.Fatalf("%v", r)
	}
	return r
}

// text is what a running command has printed so far.
type text struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *text) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *text) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

// await waits until the words were printed.
func (b *text) await(t *testing.T, words string, within time.Duration) {
	t.Helper()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if strings.Contains(b.String(), words) {
			return
		}
	}
	t.Errorf("it has not said %q within %s:\n%s", words, within, b)
}

// outputs are the environment's outputs that the tests use.
type outputs struct {
	URL string `json:"url"`
	VIP struct {
		IPv4 string `json:"ipv4"`
	} `json:"vip"`
	Hosts map[string][]host `json:"hosts"`
}

type host struct {
	Name    string `json:"name"`
	Public  string `json:"public"`
	Private string `json:"private"`
}

func (p *project) outputs(t *testing.T) outputs {
	t.Helper()
	o, err := p.readOutputs()
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (p *project) readOutputs() (outputs, error) {
	r := p.infractl("outputs", "-e", p.env, "--json")
	if r.code != 0 {
		return outputs{}, fmt.Errorf("%v", r)
	}
	var o outputs
	if err := json.Unmarshal([]byte(r.stdout), &o); err != nil {
		return outputs{}, fmt.Errorf("outputs are no JSON: %w\n%s", err, r.stdout)
	}
	if o.URL == "" {
		return outputs{}, errors.New("the environment has no url output")
	}
	o.URL = strings.TrimSuffix(o.URL, "/")
	return o, nil
}

// lab runs `infractl lab …` in the checkout.
func lab(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(checkout(), "bin/infractl"), append([]string{"lab"}, args...)...)
	cmd.Dir = checkout()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("infractl lab %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// on runs a shell command as root on a host of the environment.
func (p *project) on(t *testing.T, hostName, command string) string {
	t.Helper()
	out, err := lab("ssh", p.machine(hostName), "sudo", "sh", "-c", shellQuote(command))
	if err != nil {
		t.Fatalf("on %s: %v\n%s", hostName, err, out)
	}
	return out
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// eventually tries until it succeeds, and fails the test at the deadline with
// the last reason.
func eventually(t *testing.T, limit time.Duration, what string, try func() error) time.Duration {
	t.Helper()
	began := time.Now()
	var last error
	for time.Since(began) < limit {
		if last = try(); last == nil {
			return time.Since(began)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s: not within %s: %v", what, limit, last)
	return 0
}

// report prints a measured figure where a reader of the test's output finds it.
func report(w io.Writer, what string, format string, args ...any) {
	fmt.Fprintf(w, "measured: %-58s %s\n", what, fmt.Sprintf(format, args...))
}
