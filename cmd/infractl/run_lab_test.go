//go:build lab

package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

func TestUpTwiceThenDestroy(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	r := s.must(0, "up", "--yes")
	if !strings.HasPrefix(r.stdout, "http://127.77.") {
		t.Errorf("stdout is %q, not the URL", r.stdout)
	}
	s.agree()
	// As a kill leaves it in the moment in which Pulumi saves the state.
	if err := os.Truncate(filepath.Join(s.dir, "state/.pulumi/stacks/infractl/test.json.attrs"), 0); err != nil {
		t.Fatal(err)
	}
	r = s.must(0, "up", "--yes")
	if !strings.Contains(r.stderr, "test: no changes;") {
		t.Errorf("the second up does not say that nothing changed:\n%s", r.stderr)
	}
	r = s.must(0, "up", "--yes", "--json")
	var doc struct {
		Result  struct{ Created, Updated, Unchanged int }
		Outputs struct{ URL string }
	}
	if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil || doc.Result.Unchanged == 0 || doc.Outputs.URL == "" {
		t.Errorf("up --json is not right (%v):\n%s", err, r.stdout)
	}
	for _, f := range []string{"Pulumi.yaml", "Pulumi.test.yaml"} {
		if text, err := os.ReadFile(filepath.Join(s.dir, f)); err != nil || strings.Contains(string(text), "encryptionsalt") {
			t.Errorf("%s was written to: %v\n%s", f, err, text)
		}
	}
	// As keepalived does it. The plan has nothing to say about it.
	s.assignVIP("test-lb-2")
	r = s.must(0, "up", "--yes", "--refresh")
	if !strings.Contains(r.stderr, "test: no changes;") {
		t.Errorf("up wants to move the virtual IP:\n%s", r.stderr)
	}
	s.must(2, "destroy", "--yes") // without the environment's name
	s.must(0, "destroy", "--yes", "--env", "test")
	if left := s.inCloud(); len(left) > 0 {
		t.Errorf("destroy has left %v", left)
	}
	s.must(2, "outputs")
	s.must(0, "destroy", "--yes", "--env", "test") // nothing to do is no error
}

func TestPreviewChangesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	r := s.must(0, "preview", "--show-files")
	for _, want := range []string{"+ web-1  server", "/etc/nginx/nginx.conf", "to create"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("the preview does not show %q", want)
		}
	}
	if in := s.inCloud(); len(in) > 0 {
		t.Errorf("preview has made %v", in)
	}
}

func TestKilledAtAnyMomentTheNextUpConverges(t *testing.T) {
	t.Parallel()
	s := newSite(t, 300*time.Millisecond)
	s.env = append(s.env, "HOSTLESS_DELAY=200ms")
	const kills = 10
	for i := range kills {
		cmd, _, stderr := s.start("up", "--yes")
		// Most kills fall into the time in which things are made.
		stderr.await("reading the hosts", time.Minute)
		moment := time.Duration(rand.Int64N(int64(2500 * time.Millisecond)))
		time.Sleep(moment)
		everything := i%2 == 1 // the whole tree, as if the power had failed
		kill(cmd, everything)
		t.Logf("killed after %v (everything: %v), having said:\n%s", moment, everything, stderr)
	}
	began := time.Now()
	r := s.must(0, "up", "--yes")
	t.Logf("converged in %v:\n%s", time.Since(began), r.stderr)
	s.agree()
	s.must(0, "destroy", "--yes", "--env", "test")
	if left := s.inCloud(); len(left) > 0 {
		t.Errorf("destroy has left %v", left)
	}
}

func TestInterruptedOnceTheNextUpConverges(t *testing.T) {
	t.Parallel()
	s := newSite(t, 300*time.Millisecond)
	s.env = append(s.env, "HOSTLESS_DELAY=200ms")
	for range 3 {
		cmd, _, stderr := s.start("up", "--yes")
		stderr.await("reading the hosts", time.Minute)
		time.Sleep(time.Duration(rand.Int64N(int64(3 * time.Second))))
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 130 && code != 0 {
			t.Errorf("exit code %d after an interrupt\n%s", code, stderr)
		}
	}
	s.must(0, "up", "--yes")
	s.agree()
}

func TestDestroyAfterAKillLeavesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, 500*time.Millisecond)
	cmd, _, stderr := s.start("up", "--yes")
	stderr.await("creating", time.Minute)
	time.Sleep(200 * time.Millisecond)
	kill(cmd, true)
	s.must(0, "destroy", "--yes", "--env", "test")
	if left := s.inCloud(); len(left) > 0 {
		t.Errorf("destroy has left %v", left)
	}
}

func TestAFailedHostIsNamedAndTheNextUpGoesOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.env = append(s.env, "HOSTLESS_FAIL=db-1")
	r := s.must(5, "up", "--yes")
	if want := "✗ db-1: configuration: cannot create: db-1: validate haproxy: line 3 is wrong"; !strings.Contains(r.stderr, want) {
		t.Errorf("stderr does not say %q:\n%s", want, r.stderr)
	}
	if strings.Contains(r.stderr, "app-1              configuration") {
		t.Errorf("the application was configured after its database had failed:\n%s", r.stderr)
	}
	s.env = append(s.env, "HOSTLESS_FAIL=")
	s.must(0, "up", "--yes")
	s.agree()
}

func TestServerThatIsGoneIsMadeAgainUnlessItHeldData(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.must(0, "up", "--yes")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	remove := func(name string) {
		server, _, err := s.client.Server.GetByName(ctx, name)
		if err != nil || server == nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, _, err := s.client.Server.ChangeProtection(ctx, server, hcloud.ServerChangeProtectionOpts{Delete: hcloud.Ptr(false), Rebuild: hcloud.Ptr(false)}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.client.Server.DeleteWithResult(ctx, server); err != nil {
			t.Fatal(err)
		}
	}
	remove("test-web-2")
	r := s.must(0, "up", "--yes")
	if !strings.Contains(r.stderr, "server web-2 is gone from the cloud") {
		t.Errorf("stderr does not say that web-2 is gone:\n%s", r.stderr)
	}
	s.agree()
	remove("test-db-1")
	r = s.must(2, "up", "--yes")
	if !strings.Contains(r.stderr, "--recreate db-1") {
		t.Errorf("stderr does not name the flag:\n%s", r.stderr)
	}
	s.must(0, "up", "--yes", "--recreate", "db-1")
	s.agree()
}

func TestAnotherProjectsTokenIsNoticed(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.must(0, "up", "--yes")
	other := newSite(t, 0)
	s.env = append(s.env, "HCLOUD_ENDPOINT="+other.cloud.URL+"/v1")
	r := s.must(2, "up", "--yes")
	if !strings.Contains(r.stderr, "nothing of test is in the cloud project") {
		t.Errorf("stderr:\n%s", r.stderr)
	}
	s.must(2, "destroy", "--yes", "--env", "test")
	if in := other.inCloud(); len(in) > 0 {
		t.Errorf("the other project now has %v", in)
	}
}
