package engine

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// script makes an executable shell script in place of the Pulumi CLI.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pulumi")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCommandReturnsWhatWasPrinted(t *testing.T) {
	c := &command{path: script(t, `echo "out $*"; echo err >&2; exit 3`)}
	out, errText, code, err := c.Run(context.Background(), t.TempDir(), nil, nil, nil, nil, "stack", "ls")
	if out != "out --non-interactive stack ls\n" || errText != "err\n" || code != 3 || err == nil {
		t.Errorf("%q, %q, %d, %v", out, errText, code, err)
	}
}

func TestOutputsAreAskedForOnceUnlessSomeAreSecret(t *testing.T) {
	for want, secret := range map[string]string{"1": "", "2": "[secret]"} {
		calls := filepath.Join(t.TempDir(), "calls")
		c := &command{path: script(t, `echo >>"`+calls+`"; echo "$(wc -l <"`+calls+`") `+secret+`"`)}
		run := func(args ...string) string {
			t.Helper()
			out, _, code, err := c.Run(context.Background(), t.TempDir(), nil, nil, nil, nil, args...)
			if code != 0 || err != nil {
				t.Fatal(code, err)
			}
			return strings.Fields(out)[0]
		}
		run("stack", "output", "--json", "--stack", "lab")
		if got := run("stack", "output", "--json", "--show-secrets", "--stack", "lab"); got != want {
			t.Errorf("%q: the answer is of call %s", secret, got)
		}
		if got := run("stack", "output", "--json", "--show-secrets", "--stack", "other"); got == want {
			t.Errorf("%q: another stack's outputs are of call %s", secret, got)
		}
	}
}

func TestInterruptedCommandMayFinish(t *testing.T) {
	c := &command{path: script(t, `trap 'sleep 0.3; echo finished; exit 0' INT; echo ready >"$READY"; while :; do sleep 0.05; done`)}
	ready := filepath.Join(t.TempDir(), "ready")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		awaitFile(ready)
		cancel()
	}()
	out, _, code, _ := c.Run(ctx, t.TempDir(), nil, nil, nil, []string{"READY=" + ready}, "up")
	if code != 0 || !strings.Contains(out, "finished") {
		t.Errorf("%q, %d", out, code)
	}
}

func TestCommandIsEndedWhenTheUserInsists(t *testing.T) {
	force := make(chan struct{})
	c := &command{path: script(t, `n=0; trap 'n=$((n+1)); if [ $n = 2 ]; then exit 9; fi' INT; echo ready >"$READY"; while :; do sleep 0.05; done`), force: force}
	ready := filepath.Join(t.TempDir(), "ready")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		awaitFile(ready)
		cancel()
		time.Sleep(300 * time.Millisecond)
		close(force)
	}()
	_, _, code, _ := c.Run(ctx, t.TempDir(), nil, nil, nil, []string{"READY=" + ready}, "up")
	if code != 9 {
		t.Errorf("exit code %d", code)
	}
}

func awaitFile(path string) {
	for range 500 {
		if _, err := os.Stat(path); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestKilledParentInterruptsItsCommand starts this test binary again as the
// parent, kills it, and looks at what its child does.
func TestKilledParentInterruptsItsCommand(t *testing.T) {
	if path := os.Getenv("INFRACTL_TEST_PARENT"); path != "" {
		c := &command{path: path}
		_, _, _, _ = c.Run(context.Background(), ".", nil, nil, nil, nil, "up")
		return
	}
	dir := t.TempDir()
	ready, done := filepath.Join(dir, "ready"), filepath.Join(dir, "done")
	child := script(t, `trap 'echo "can still print"; sleep 0.2; echo interrupted >"$DONE"; exit 0' INT; echo $$ >"$READY.new"; mv "$READY.new" "$READY"; while :; do sleep 0.05; done`)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledParentInterruptsItsCommand$")
	text, err := os.ReadFile(child)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(child, []byte(strings.ReplaceAll(strings.ReplaceAll(string(text), "$READY", ready), "$DONE", done)), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "INFRACTL_TEST_PARENT="+child)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitFile(ready)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	awaitFile(done)
	if _, err := os.Stat(done); err != nil {
		pid, _ := os.ReadFile(ready)
		if n, err := strconv.Atoi(strings.TrimSpace(string(pid))); err == nil {
			if p, err := os.FindProcess(n); err == nil {
				_ = p.Kill()
			}
		}
		t.Error("the child was not interrupted")
	}
}

func TestCallsWithoutUseAreAnsweredAtOnce(t *testing.T) {
	c := &command{path: "/does/not/exist"}
	if _, _, code, err := c.Run(context.Background(), ".", nil, nil, nil, nil, "stack", "select", "--stack", "lab"); code != 0 || err != nil {
		t.Errorf("%d, %v", code, err)
	}
}
