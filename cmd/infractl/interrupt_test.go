package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
)

func TestErrorsAfterAnInterruptAreInterrupts(t *testing.T) {
	running := t.Context()
	stopped, cancel := context.WithCancel(running)
	cancel()
	locked := &engine.Error{Kind: engine.Locked, Err: errors.New("by ann")}
	for _, c := range []struct {
		ctx  context.Context
		err  error
		code int
		text string
	}{
		{stopped, nil, 0, ""},
		{stopped, fmt.Errorf("asking the cloud: %w", context.Canceled), 130, "interrupted\nThe next run goes on from here."},
		{stopped, errors.New("web-1: no"), 130, "web-1: no\nThe next run goes on from here."},
		{stopped, locked, 4, "by ann"},
		{running, errors.New("web-1: no"), 1, "web-1: no"},
	} {
		err := interrupted(c.ctx, c.err)
		if exitCode(err) != c.code || err != nil && err.Error() != c.text {
			t.Errorf("%v: %d, %v", c.err, exitCode(err), err)
		}
	}
}

func TestLockTimeoutIsChecked(t *testing.T) {
	dir := project(t, map[string]string{"Pulumi.lab.yaml": ""})
	for _, name := range []string{"up", "destroy", "refresh"} {
		args := []string{name, "--env", "lab", "--yes", "--lock-timeout", "-1s"}
		if _, stderr, code := command(t, dir, args...); code != 2 || !strings.Contains(stderr, "--lock-timeout must not be negative, but is -1s") {
			t.Errorf("%s: %d, %s", name, code, stderr)
		}
	}
}

// waitVariable makes this test binary wait for signals as infractl does.
const waitVariable = "INFRACTL_TEST_WAIT"

func TestSignalsStopInOrderThenAtOnceThenTheProcess(t *testing.T) {
	if os.Getenv(waitVariable) != "" {
		ctx, _ := (&life{}).interruptible()
		fmt.Fprintln(os.Stderr, "ready")
		<-ctx.Done()
		<-forced
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), waitVariable+"=1")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	lines := bufio.NewScanner(r)
	// expect reads up to a line.
	expect := func(want string) {
		t.Helper()
		var got []string
		for lines.Scan() {
			if got = append(got, lines.Text()); lines.Text() == want {
				return
			}
		}
		t.Fatalf("it does not say %q, but %q", want, got)
	}
	expect("ready")
	first := syscall.SIGHUP
	if signal.Ignored(first) { // as under nohup, which the child inherits
		first = syscall.SIGTERM
	}
	_ = cmd.Process.Signal(first)
	expect("infractl: finishing what has begun; press Ctrl-C again to stop at once")
	_ = cmd.Process.Signal(syscall.SIGINT)
	expect("infractl: stopping at once; the next run clears up")
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d", code)
	}
}
