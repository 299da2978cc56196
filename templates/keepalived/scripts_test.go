package keepalived

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The scripts run here as they do on a host, with a server of the test's own in
// the place of HAProxy and of the cloud.

func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
}

// output is what a script prints, while it prints it.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs a script in a process group of its own until the test ends.
func start(t *testing.T, environment []string, script string, args ...string) (*exec.Cmd, *output) {
	t.Helper()
	out := &output{}
	cmd := exec.Command("sh", append([]string{script}, args...)...)
	cmd.Env = append(os.Environ(), environment...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGCONT)
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", script, out)
		}
	})
	return cmd, out
}

// within waits until ok, at most limit, and says how long it took.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

func content(path string) string {
	raw, _ := os.ReadFile(path)
	return strings.TrimSpace(string(raw))
}

// balancer stands in the place of HAProxy.
type balancer struct {
	mu    sync.Mutex
	code  int
	stall chan struct{}
}

func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	code, stall := b.code, b.stall
	b.mu.Unlock()
	if stall != nil {
		select {
		case <-stall:
		case <-r.Context().Done():
		}
		return
	}
	w.WriteHeader(code)
}

func (b *balancer) set(code int, stall chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.code, b.stall = code, stall
}

func TestHealthIsLostAtOnceAndRegainedAfterThreeSeconds(t *testing.T) {
	t.Parallel()
	needs(t, "curl")
	b := &balancer{code: 200}
	server := httptest.NewServer(b)
	defer server.Close()
	folder := t.TempDir()
	answer := func(want string) func() bool {
		return func() bool { return content(filepath.Join(folder, "lb-health")) == want }
	}
	cmd, _ := start(t, nil, "lb-health.sh", folder, server.URL+"/alive")
	if took := within(t, 10*time.Second, "healthy at first", answer("0")); took < 2500*time.Millisecond {
		t.Errorf("healthy after %v already", took)
	}

	b.set(503, nil)
	if took := within(t, 3*time.Second, "unhealthy without web hosts", answer("1")); took > time.Second {
		t.Errorf("a failing check was noticed after %v", took)
	}
	b.set(200, nil)
	if took := within(t, 10*time.Second, "healthy again", answer("0")); took < 2500*time.Millisecond {
		t.Errorf("healthy again after %v already", took)
	}

	stall := make(chan struct{})
	defer close(stall)
	b.set(200, stall)
	if took := within(t, 3*time.Second, "unhealthy when HAProxy hangs", answer("1")); took > 1500*time.Millisecond {
		t.Errorf("a hanging HAProxy was noticed after %v", took)
	}
	b.set(200, nil)
	within(t, 10*time.Second, "healthy after it hung", answer("0"))

	// The whole host stands still and goes on.
	for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
		if err := syscall.Kill(-cmd.Process.Pid, signal); err != nil {
			t.Fatal(err)
		}
		if signal == syscall.SIGSTOP {
			time.Sleep(1700 * time.Millisecond)
			if out, err := exec.Command("sh", "lb-health-fresh.sh", folder).CombinedOutput(); err == nil {
				t.Error("a check that stands still counts as fresh")
			} else if !strings.Contains(string(out), "has not looked for") {
				t.Errorf("said %q", out)
			}
		}
	}
	if took := within(t, 3*time.Second, "unhealthy after it stood still", answer("1")); took > time.Second {
		t.Errorf("standing still was noticed after %v", took)
	}
	if err := exec.Command("sh", "lb-health-fresh.sh", folder).Run(); err != nil {
		t.Errorf("a running check is not fresh: %v", err)
	}
	if err := exec.Command("sh", "lb-health-fresh.sh", folder, "fit").Run(); err == nil {
		t.Error("an unhealthy load balancer counts as fit")
	}
}

func TestNothingIsFreshBeforeTheFirstLook(t *testing.T) {
	if err := exec.Command("sh", "lb-health-fresh.sh", t.TempDir()).Run(); err == nil {
		t.Error("counts as fresh")
	}
}

// cloud stands in the place of the API.
type cloud struct {
	mu     sync.Mutex
	holder map[string]string
	// broken are status codes for the next assignments; 0 means to hang up.
	broken []int
	calls  []string
	tokens map[string]bool
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, r.Method+" "+r.URL.Path)
	c.tokens[r.Header.Get("Authorization")] = true
	part := strings.Split(r.URL.Path, "/")
	switch {
	case r.Method == "POST" && len(part) == 6 && part[5] == "assign":
		if len(c.broken) > 0 {
			code := c.broken[0]
			c.broken = c.broken[1:]
			if code == 0 {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(code)
			fmt.Fprintf(w, `{"error":{"code":"broken","message":"as ordered"}}`)
			return
		}
		body, _ := io.ReadAll(r.Body)
		c.holder[part[3]] = strings.TrimSuffix(strings.TrimPrefix(string(body), `{"server":`), "}")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"action":{"id":9,"status":"running","error":null}}`)
	case r.Method == "GET" && part[2] == "floating_ips":
		fmt.Fprintf(w, `{"floating_ip":{"id":%s,"server":%s,"labels":{"server":"5"}}}`, part[3], c.holder[part[3]])
	case r.Method == "GET" && part[2] == "actions":
		fmt.Fprint(w, `{"action":{"id":9,"status":"success","error":null}}`)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (c *cloud) has(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holder[id]
}

func (c *cloud) give(id, server string, broken ...int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holder[id], c.broken, c.calls = server, broken, nil
}

func (c *cloud) assignments() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range c.calls {
		if strings.HasSuffix(call, "/assign") {
			n++
		}
	}
	return n
}

func vip(t *testing.T) (*cloud, string, *output, func(state string)) {
	t.Helper()
	needs(t, "curl", "jq", "mkfifo")
	c := &cloud{holder: map[string]string{"7": "2", "8": "2"}, tokens: map[string]bool{}}
	server := httptest.NewServer(c)
	server.Config.ErrorLog = nil
	t.Cleanup(server.Close)
	folder := t.TempDir()
	config := filepath.Join(folder, "vip.curl")
	if err := os.WriteFile(config, []byte("header = \"Authorization: Bearer sesame\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, out := start(t, []string{"VIP_API=" + server.URL + "/v1", "VIP_SERVER=1", "VIP_ADDRESSES=7=192.0.2.7 8=2001:db8::8"},
		"vip.sh", folder, config)
	fifo := filepath.Join(folder, "vrrp.fifo")
	within(t, 5*time.Second, "ready", func() bool { return strings.Contains(out.String(), "waiting for keepalived") })
	return c, folder, out, func(state string) {
		pipe, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer pipe.Close()
		if _, err := fmt.Fprintf(pipe, "INSTANCE \"vip\" %s 200\n", state); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMasterClaimsBothFloatingIPs(t *testing.T) {
	t.Parallel()
	c, folder, out, become := vip(t)
	become("FAULT")
	become("BACKUP")
	time.Sleep(300 * time.Millisecond)
	if n := c.assignments(); n != 0 {
		t.Errorf("a backup claimed %d times", n)
	}
	become("MASTER")
	within(t, 5*time.Second, "both claimed", func() bool { return c.has("7") == "1" && c.has("8") == "1" })
	within(t, 5*time.Second, "told", func() bool { return strings.Count(out.String(), "claimed ") == 2 })
	if state := content(filepath.Join(folder, "vip-state")); state != "MASTER" {
		t.Errorf("the state is %q", state)
	}
	if len(c.tokens) != 1 || !c.tokens["Bearer sesame"] {
		t.Errorf("the API saw %v", c.tokens)
	}
	if strings.Contains(out.String(), "sesame") {
		t.Error("the token is in the log")
	}
}

func TestClaimIsRepeatedUntilItWorks(t *testing.T) {
	t.Parallel()
	c, _, out, become := vip(t)
	c.give("7", "2", 503, 0, 409)
	become("MASTER")
	within(t, 10*time.Second, "both claimed", func() bool { return c.has("7") == "1" && c.has("8") == "1" })
	for _, want := range []string{"answers 503, \"broken: as ordered\"", "no answer from"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}

func TestBackupStopsClaiming(t *testing.T) {
	t.Parallel()
	c, _, out, become := vip(t)
	c.give("7", "2", 503, 503)
	become("MASTER")
	within(t, 5*time.Second, "failed once", func() bool { return strings.Contains(out.String(), "as ordered") })
	become("BACKUP")
	within(t, 5*time.Second, "backup", func() bool { return strings.Contains(out.String(), "no master: BACKUP") })
	c.give("7", "2")
	c.give("8", "2")
	time.Sleep(time.Second)
	if n := c.assignments(); n != 0 {
		t.Errorf("a backup claimed %d times", n)
	}
}

func TestMasterClaimsBackWhatAnotherHostTook(t *testing.T) {
	t.Parallel()
	c, _, out, become := vip(t)
	become("MASTER")
	within(t, 5*time.Second, "claimed", func() bool { return strings.Count(out.String(), "claimed ") == 2 })
	c.give("7", "null")
	c.give("8", "2")
	// keepalived heard of another master; the look that follows is confirmed by
	// a second one two seconds later.
	become("MASTER_RX_LOWER_PRI")
	took := within(t, 10*time.Second, "claimed back", func() bool { return c.has("7") == "1" && c.has("8") == "1" })
	if took < 2*time.Second {
		t.Errorf("claimed back after %v, without a second look", took)
	}
	if !strings.Contains(out.String(), "held by server 2") {
		t.Error("the log does not say who had it")
	}
}
