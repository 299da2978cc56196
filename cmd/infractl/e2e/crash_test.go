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

// small is a whole environment on as few hosts as there can be, so that it can
// be made and unmade many times. Tests that need no other run side by side, after
// those that share the site and look at the clock.
var small = map[string]string{
	"infractl:tiers": "{lb: {count: 1, type: cx23}, web: {count: 1, type: cx23}, app: {count: 1, type: cx23}, db: {count: 1, type: cx33}}",
}

// newSmall is a small environment of the test's own, removed at its end, after
// which the cloud must hold nothing of it.
func newSmall(t *testing.T, env string, changes ...map[string]string) *project {
	t.Helper()
	config := maps.Clone(small)
	for _, c := range changes {
		maps.Copy(config, c)
	}
	p, err := newProject(t.TempDir(), env, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r := p.infractl("destroy", "-e", env, "--yes"); r.code != 0 {
			t.Errorf("%v", r)
		}
		if left := p.inCloud(t); len(left) > 0 {
			t.Errorf("destroy left in the cloud: %v", left)
		}
	})
	return p
}

// requireWhole fails unless the environment serves, the cloud holds exactly
// what its outputs name, and another up has nothing to do.
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
	var known []string
	for _, hosts := range o.Hosts {
		for _, h := range hosts {
			known = append(known, "server "+p.env+"-"+h.Name)
		}
	}
	var servers []string
	for _, one := range p.inCloud(t) {
		if strings.HasPrefix(one, "server ") {
			servers = append(servers, one)
		}
	}
	slices.Sort(known)
	slices.Sort(servers)
	if !slices.Equal(known, servers) {
		t.Errorf("the cloud has %v, the environment knows %v", servers, known)
	}
	seen := map[string]bool{}
	for _, one := range p.inCloud(t) {
		if seen[one] {
			t.Errorf("the cloud has %s twice", one)
		}
		seen[one] = true
	}
	if r := p.up(t); !strings.Contains(r.stdout+r.stderr, "no changes") {
		t.Errorf("another up finds something to do: %v", r)
	}
	for _, h := range slices.Sorted(maps.Keys(o.Hosts)) {
		for _, one := range o.Hosts[h] {
			left := p.on(t, one.Name, `find /etc /usr/local /srv /var/lib/infractl -name '*.infractl-*' -o -path '/var/lib/infractl/stage/*' | head`)
			if left != "" {
				t.Errorf("%s holds half-written files: %s", one.Name, left)
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
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(8 * time.Second)
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
