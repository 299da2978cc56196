//go:build lab

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// requireWhole fails unless the environment serves, has exactly the hosts that its
// outputs name, and another up has nothing to do.
func requireWhole(t *testing.T, p *project) {
	t.Helper()
	o := p.outputs(t)
	eventually(t, time.Minute, "the environment serves", func() error {
		a, err := get(t.Context(), client(2*time.Second), o.URL+"/")
		if err == nil && a.status != 200 {
			err = fmt.Errorf("status %d", a.status)
		}
		return err
	})
	p.requireOnly(t, o)
	if r := p.up(t); !strings.Contains(r.stdout+r.stderr, "no changes") {
		t.Errorf("another up finds something to do: %v", r)
	}
	for _, h := range slices.Sorted(maps.Keys(o.Hosts)) {
		for _, one := range o.Hosts[h] {
			left := p.on(t, one.Name, `find /etc /usr/local /usr/sbin /srv /var/lib/infractl -name '*.infractl-*' -o -path '/var/lib/infractl/stage/*' -o -name policy-rc.d | head`)
			if left != "" {
				t.Errorf("%s holds what only a change needs: %s", one.Name, left)
			}
		}
	}
}

func TestKilledAtRandomMomentsTheNextUpConverges(t *testing.T) {
	t.Parallel()
	p := newSmall(t, "kill")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range 10 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		cmd := p.command(ctx, "up", "-e", p.env, "--yes")
		var output bytes.Buffer
		cmd.Stdout, cmd.Stderr = &output, &output
		// Orphans of infractl must not keep the test waiting for the pipe.
		cmd.WaitDelay = time.Second
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := time.Duration(500+random.IntN(12_000)) * time.Millisecond
		time.Sleep(after)
		_ = cmd.Process.Signal(syscall.SIGKILL)
		err := cmd.Wait()
		cancel()
		lines := strings.Split(strings.TrimSpace(output.String()), "\n")
		t.Logf("kill %d after %s (%v), last line: %s", i+1, after, err, lines[len(lines)-1])
	}
	r := p.up(t)
	report(os.Stdout, "up after ten kills", "%.1f s", r.took.Seconds())
	requireWhole(t, p)
}

func TestInterruptedOnceItStopsInOrderAndTheNextUpGoesOn(t *testing.T) {
	t.Parallel()
	p := newSmall(t, "interrupt")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := p.command(ctx, "up", "-e", p.env, "--yes")
	// As a terminal does it: the signal goes to the whole process group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	output := &text{}
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// In the middle of the first host's change, or of the servers' making.
	output.await(t, "creating", 2*time.Minute)
	time.Sleep(2 * time.Second)
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	err := cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d (%v), want 130\n%s", code, err, output.String())
	}
	if !strings.Contains(output.String(), "goes on from here") {
		t.Errorf("the interrupted command does not say how to go on:\n%s", output.String())
	}
	p.up(t)
	requireWhole(t, p)
}
