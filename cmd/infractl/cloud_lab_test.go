//go:build lab

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
	"golang.org/x/crypto/ssh"

	"github.com/infractl/infractl/lab/api"
)

// These tests run the real infractl, the real Pulumi CLI and the real hcloud
// plugin against the emulated API. There are no machines behind it, and a
// plugin that configures no hosts takes the real one's place: they are about
// how a run is driven, cut off and gone on with. cmd/infractl/e2e has the rest.

// noMachines is a world in which servers exist in name only.
type noMachines struct {
	mu      sync.Mutex
	running map[int64]bool
}

func (m *noMachines) set(id int64, running bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running[id] = running
	return nil
}

func (m *noMachines) Running(id int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.running[id]
}

func (m *noMachines) Create(context.Context, api.Server) error                     { return nil }
func (m *noMachines) Start(_ context.Context, id int64) error                      { return m.set(id, true) }
func (m *noMachines) Stop(_ context.Context, id int64, _ bool) error               { return m.set(id, false) }
func (m *noMachines) Rebuild(context.Context, api.Server) error                    { return nil }
func (m *noMachines) Delete(_ context.Context, id int64) error                     { return m.set(id, false) }
func (m *noMachines) Attach(context.Context, int64, api.Attachment) error          { return nil }
func (m *noMachines) Detach(context.Context, int64, int64) error                   { return nil }
func (m *noMachines) DeleteNetwork(context.Context, int64) error                   { return nil }
func (m *noMachines) SetFirewall(context.Context, int64, *api.FirewallRules) error { return nil }
func (m *noMachines) RouteFloatingIP(context.Context, netip.Prefix, int64) error   { return nil }
func (m *noMachines) CreateVolume(context.Context, int64, int, string) error       { return nil }
func (m *noMachines) ResizeVolume(context.Context, int64, int) error               { return nil }
func (m *noMachines) AttachVolume(context.Context, int64, int64) error             { return nil }
func (m *noMachines) DeleteVolume(context.Context, int64) error                    { return nil }

// binaries are built once for all tests.
var binaries struct {
	once sync.Once
	dir  string
	err  error
}

func checkoutDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func builtBinaries(t *testing.T) string {
	t.Helper()
	root := checkoutDir(t)
	binaries.once.Do(func() {
		for _, name := range []string{"pulumi", "pulumi-resource-hcloud"} {
			if _, err := os.Stat(filepath.Join(root, "bin", name)); err != nil {
				binaries.err = fmt.Errorf("run ./scripts/build first: %w", err)
				return
			}
		}
		binaries.dir, binaries.err = os.MkdirTemp("", "infractl-test-*")
		if binaries.err != nil {
			return
		}
		for name, pkg := range map[string]string{
			"infractl":                 "./cmd/infractl",
			"pulumi-resource-infractl": "./cmd/infractl/internal/hostless",
		} {
			build := exec.Command("go", "build", "-o", filepath.Join(binaries.dir, name), pkg)
			build.Dir = root
			if out, err := build.CombinedOutput(); err != nil {
				binaries.err = fmt.Errorf("%s: %w\n%s", pkg, err, out)
				return
			}
		}
		for _, name := range []string{"pulumi", "pulumi-resource-hcloud"} {
			if err := os.Symlink(filepath.Join(root, "bin", name), filepath.Join(binaries.dir, name)); err != nil {
				binaries.err = err
				return
			}
		}
	})
	if binaries.err != nil {
		t.Fatal(binaries.err)
	}
	return binaries.dir
}

func TestMain(m *testing.M) {
	code := m.Run()
	if binaries.dir != "" {
		os.RemoveAll(binaries.dir)
	}
	os.Exit(code)
}

// site is a project with one environment and a cloud of its own.
type site struct {
	t      *testing.T
	dir    string
	bin    string
	env    []string
	client *hcloud.Client
	cloud  *httptest.Server
}

const testConfig = `config:
  infractl:tiers:
    lb: {count: 2, type: cx23}
    web: {count: 2, type: cx23}
    app: {count: 1, type: cx23}
    db: {count: 1, type: cx23}
  infractl:ssh:
    allowFrom: [127.0.0.0/8]
  infractl:application:
    name: guestbook
    release: release
    command: run
`

func newSite(t *testing.T, delay time.Duration) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), bin: builtBinaries(t)}
	operator, balancers := strings.Repeat("a", 64), strings.Repeat("b", 64)
	emulator, err := api.New(api.Config{
		Machines:    &noMachines{running: map[int64]bool{}},
		Tokens:      []string{operator, balancers},
		RateLimit:   -1,
		IPv4Pool:    netip.MustParsePrefix("127.77.0.0/16"),
		ActionDelay: delay,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.cloud = httptest.NewServer(emulator)
	t.Cleanup(s.cloud.Close)
	s.client = hcloud.NewClient(hcloud.WithToken(operator), hcloud.WithEndpoint(s.cloud.URL+"/v1"))

	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	s.write("id", string(pem.EncodeToMemory(block)), 0o600)
	s.write("id.pub", string(ssh.MarshalAuthorizedKey(signer.PublicKey())), 0o644)
	s.write("Pulumi.yaml", "name: infractl\nruntime: go\nmain: "+checkoutDir(t)+"/cmd/environment\nplugins:\n  providers:\n    - {name: infractl, path: "+s.bin+"}\n", 0o644)
	s.write("Pulumi.test.yaml", testConfig, 0o644)
	s.write("release/run", "#!/bin/sh\n", 0o755)
	s.write("state/.keep", "", 0o644)
	s.write(".env.test", strings.Join([]string{
		"HCLOUD_TOKEN=" + operator,
		"HCLOUD_ENDPOINT=" + s.cloud.URL + "/v1",
		"INFRACTL_VIP_TOKEN=" + balancers,
		"INFRACTL_SSH_IDENTITY=" + filepath.Join(s.dir, "id"),
		"PULUMI_BACKEND_URL=file://" + filepath.Join(s.dir, "state"),
		"PULUMI_CONFIG_PASSPHRASE=correct horse",
	}, "\n"), 0o600)
	s.env = append(os.Environ(), "PATH="+s.bin+":"+os.Getenv("PATH"), "PULUMI_HOME="+filepath.Join(s.dir, "home"), "NO_COLOR=1")
	return s
}

func (s *site) write(name, content string, mode os.FileMode) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		s.t.Fatal(err)
	}
}

// result is what a command has printed and how it ended.
type result struct {
	stdout, stderr string
	code           int
}

// buffer is what a running command has printed so far.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// await waits until the command has printed the words, or has had the time to.
func (b *buffer) await(words string, atMost time.Duration) {
	for end := time.Now().Add(atMost); time.Now().Before(end) && !strings.Contains(b.String(), words); {
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *site) start(args ...string) (*exec.Cmd, *buffer, *buffer) {
	s.t.Helper()
	cmd := exec.Command(filepath.Join(s.bin, "infractl"), args...)
	cmd.Dir, cmd.Env = s.dir, s.env
	stdout, stderr := &buffer{}, &buffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return cmd, stdout, stderr
}

func (s *site) run(args ...string) result {
	s.t.Helper()
	cmd, stdout, stderr := s.start(args...)
	timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait() // the exit code says it
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must runs infractl and fails the test if it does not end as expected.
func (s *site) must(code int, args ...string) result {
	s.t.Helper()
	r := s.run(args...)
	if r.code != code {
		s.t.Fatalf("infractl %s: exit code %d, not %d\nstdout:\n%s\nstderr:\n%s", strings.Join(args, " "), r.code, code, r.stdout, r.stderr)
	}
	return r
}

// inCloud lists everything in the cloud, as "kind id name".
func (s *site) inCloud() map[string]string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out := map[string]string{}
	add := func(kind string, id int64, name string) { out[fmt.Sprintf("%s %d", kind, id)] = name }
	servers, err1 := s.client.Server.All(ctx)
	networks, err2 := s.client.Network.All(ctx)
	ips, err3 := s.client.FloatingIP.All(ctx)
	firewalls, err4 := s.client.Firewall.All(ctx)
	groups, err5 := s.client.PlacementGroup.All(ctx)
	keys, err6 := s.client.SSHKey.All(ctx)
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		s.t.Fatal(err)
	}
	for _, x := range servers {
		add("server", x.ID, x.Name)
	}
	for _, x := range networks {
		add("network", x.ID, x.Name)
	}
	for _, x := range ips {
		add("floatingIp", x.ID, x.Name)
	}
	for _, x := range firewalls {
		add("firewall", x.ID, x.Name)
	}
	for _, x := range groups {
		add("placementGroup", x.ID, x.Name)
	}
	for _, x := range keys {
		add("sshKey", x.ID, x.Name)
	}
	return out
}

// inState lists everything in the state, likewise.
func (s *site) inState() map[string]string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "state/.pulumi/stacks/infractl/test.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	var doc struct {
		Checkpoint struct {
			Latest struct {
				Resources []struct {
					Type, ID string
					Outputs  map[string]any
				}
				Pending []any `json:"pending_operations"`
			}
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		s.t.Fatal(err)
	}
	if n := len(doc.Checkpoint.Latest.Pending); n > 0 {
		s.t.Errorf("the state has %d pending operations", n)
	}
	out := map[string]string{}
	for _, r := range doc.Checkpoint.Latest.Resources {
		kind, ok := strings.CutPrefix(r.Type, "hcloud:index/")
		kind, _, _ = strings.Cut(kind, ":")
		if !ok || kind == "networkSubnet" || kind == "serverNetwork" {
			continue
		}
		out[kind+" "+r.ID] = fmt.Sprint(r.Outputs["name"])
	}
	return out
}

// agree fails the test unless the cloud holds exactly what the state knows.
func (s *site) agree() {
	s.t.Helper()
	cloud, state := s.inCloud(), s.inState()
	for k, name := range cloud {
		if _, ok := state[k]; !ok {
			s.t.Errorf("orphan in the cloud: %s %s", k, name)
		}
	}
	for k, name := range state {
		if _, ok := cloud[k]; !ok {
			s.t.Errorf("only in the state: %s %s", k, name)
		}
	}
}

// assignVIP gives the virtual IP to a server.
func (s *site) assignVIP(name string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ips, err := s.client.FloatingIP.All(ctx)
	if err != nil || len(ips) != 1 {
		s.t.Fatalf("floating IPs: %v, %v", ips, err)
	}
	server, _, err := s.client.Server.GetByName(ctx, name)
	if err != nil || server == nil {
		s.t.Fatalf("%s: %v", name, err)
	}
	if _, _, err := s.client.FloatingIP.Assign(ctx, ips[0], server); err != nil {
		s.t.Fatal(err)
	}
}

// children are the processes that a process has started, all the way down.
func children(pid int) []int {
	var out []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(text)) {
			var child int
			if _, err := fmt.Sscan(field, &child); err == nil {
				out = append(out, child)
				out = append(out, children(child)...)
			}
		}
	}
	return out
}

// kill kills a process, and with all set its children too.
func kill(cmd *exec.Cmd, all bool) {
	var pids []int
	if all {
		pids = children(cmd.Process.Pid)
	}
	_ = cmd.Process.Kill()
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = cmd.Wait()
}

var _ http.Handler = (*api.Emulator)(nil)
