//go:build lab

package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"github.com/infractl/infractl/cmd/infractl/internal/report"
)

// configure replaces words in the environment's configuration.
func (s *site) configure(old, new string) {
	s.t.Helper()
	if !strings.Contains(testConfig, old) {
		s.t.Fatalf("the configuration does not hold %q", old)
	}
	s.write("Pulumi.test.yaml", strings.Replace(testConfig, old, new, 1), 0o644)
}

// stateDigest tells whether the state was written to.
func (s *site) stateDigest() [32]byte {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "state/.pulumi/stacks/infractl/test.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	return sha256.Sum256(text)
}

// removeServer deletes a server by hand, protected or not.
func (s *site) removeServer(name string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	server, _, err := s.client.Server.GetByName(ctx, name)
	if err != nil || server == nil {
		s.t.Fatalf("%s: %v", name, err)
	}
	if _, _, err := s.client.Server.ChangeProtection(ctx, server, hcloud.ServerChangeProtectionOpts{Delete: hcloud.Ptr(false), Rebuild: hcloud.Ptr(false)}); err != nil {
		s.t.Fatal(err)
	}
	if _, _, err := s.client.Server.DeleteWithResult(ctx, server); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) pulumi(args ...string) {
	s.t.Helper()
	variables, err := os.ReadFile(filepath.Join(s.dir, ".env.test"))
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(s.bin, "pulumi"), append(args, "--non-interactive", "--stack", "test")...)
	cmd.Dir, cmd.Env = s.dir, append(append([]string{}, s.env...), strings.Split(string(variables), "\n")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("pulumi %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func contains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in\n%s", w, text)
		}
	}
}

func TestASavedPlanIsCarriedOutOrRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	plan := filepath.Join(s.dir, "plan.json")
	r := s.must(2, "preview", "--detailed-exitcode", "--save", plan)
	contains(t, r.stdout, "+ web-1  server  cx23, debian-13, fsn1\n", "test: +", " to create, 0 unchanged")
	if info, err := os.Stat(plan); err != nil || info.Mode() != 0o600 {
		t.Fatalf("the plan file: %v, %v", info, err)
	}
	if text, err := os.ReadFile(plan); err != nil || strings.Contains(string(text), strings.Repeat("b", 64)) || strings.Contains(string(text), "PRIVATE KEY") {
		t.Errorf("the plan file holds a secret (%v)", err)
	}
	r = s.must(0, "up", "--plan", plan) // there is no terminal and no --yes
	contains(t, r.stderr, "as planned: test: +")
	s.agree()

	// A plan that was carried out is one that does not hold any more.
	r = s.must(2, "up", "--plan", plan)
	contains(t, r.stderr, "lb-1 server: there is nothing to create any more", "nothing was changed", "and ", " more", "infractl preview --env test --save")

	s.must(0, "preview", "--detailed-exitcode")
	s.must(1, "preview", "--detailed-exitcode", "--no-such-flag")
	s.must(1, "preview", "--detailed-exitcode", "--env", "nonesuch")
	s.must(2, "preview", "--no-such-flag")

	s.configure("web: {count: 2", "web: {count: 3")
	s.must(2, "preview", "--detailed-exitcode", "--save", plan)
	s.must(0, "preview")
	before, state := s.inCloud(), s.stateDigest()
	s.configure("web: {count: 2", "web: {count: 4")
	r = s.must(2, "up", "--plan", plan)
	contains(t, r.stderr, "web-4 server: the plan does not create it", "lb-1 host: changes in another way: ", "/etc/haproxy/haproxy.cfg")
	if len(s.inCloud()) != len(before) || s.stateDigest() != state {
		t.Error("a plan that was refused has changed something")
	}
	s.configure("web: {count: 2", "web: {count: 3")
	s.must(0, "up", "--plan", plan)
	s.agree()

	s.must(0, "preview", "--save", plan)
	r = s.must(0, "up", "--plan", plan)
	contains(t, r.stderr, "as planned: test: no changes")

	text, err := os.ReadFile(plan)
	if err != nil {
		t.Fatal(err)
	}
	s.write("damaged.json", string(text[:len(text)-20]), 0o600)
	s.write("other.json", strings.Replace(string(text), `"environment": "test"`, `"environment": "live"`, 1), 0o600)
	for _, c := range []struct{ want, file string }{{"damaged", "damaged.json"}, {"its digest does not fit", "other.json"}, {"no such file", "nowhere.json"}, {"damaged", "Pulumi.yaml"}} {
		contains(t, s.must(2, "up", "--plan", c.file).stderr, c.want)
	}
	contains(t, s.must(2, "up", "--plan", plan, "--env", "live").stderr, "is for environment test, not live")
	contains(t, s.must(2, "up", "--plan", plan, "--refresh").stderr, "leave out --refresh")
	if left, _ := filepath.Glob(filepath.Join(s.dir, ".infractl-plan-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAPreviewAfterALossShowsWhatIsClearedUpAndMadeAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.must(0, "up", "--yes")
	s.removeServer("test-web-2")
	state := s.stateDigest()
	plan := filepath.Join(s.dir, "plan.json")
	r := s.must(2, "preview", "--detailed-exitcode", "--save", plan)
	contains(t, r.stdout, "Before that\n~ forget server web-2: it is gone from the cloud", "+ web-2  server", "+ web-2  host", "1 to clear up before")
	if s.stateDigest() != state {
		t.Error("the preview has changed the state")
	}
	if _, err := os.Stat(filepath.Join(s.dir, ".infractl/test/settled")); !os.IsNotExist(err) {
		t.Errorf("the copy of the state was left behind: %v", err)
	}
	s.must(0, "up", "--plan", plan)
	s.agree()
	s.must(0, "preview", "--detailed-exitcode")

	s.removeServer("test-db-1")
	contains(t, s.must(2, "preview").stderr, "--recreate db-1")
	s.must(0, "preview", "--recreate", "db-1", "--save", plan)
	s.must(0, "up", "--plan", plan)
	s.agree()
}

func TestAPlanAfterACutOffRunHasWhatIsClearedUpAndHolds(t *testing.T) {
	t.Parallel()
	s := newSite(t, 300*time.Millisecond)
	s.env = append(s.env, "HOSTLESS_DELAY=200ms")
	plan := filepath.Join(s.dir, "plan.json")
	cleared := 0
	for pause := 300 * time.Millisecond; cleared == 0 && pause < 8*time.Second; pause += 600 * time.Millisecond {
		cmd, _, stderr := s.start("up", "--yes")
		stderr.await("reading the hosts", time.Minute)
		time.Sleep(pause)
		kill(cmd, true)
		cloud, state := s.inCloud(), s.stateDigest()
		var doc report.Document
		if r := s.run("preview", "--json"); json.Unmarshal([]byte(r.stdout), &doc) != nil {
			t.Fatalf("no document: %+v", r)
		}
		for _, x := range doc.Settle {
			t.Logf("after %v: %s %s %s", pause, x.Operation, x.Kind, x.Name)
			if x.Operation == "delete" {
				cleared++
			}
		}
		if r := s.run("drift"); r.code != 0 && r.code != 2 {
			t.Errorf("drift after a run that was cut off: exit code %d\n%s", r.code, r.stderr)
		}
		if len(s.inCloud()) != len(cloud) || s.stateDigest() != state {
			t.Error("preview or drift has changed something")
		}
	}
	s.must(0, "preview", "--save", plan)
	s.must(0, "up", "--plan", plan)
	s.agree()
	if cleared == 0 {
		t.Error("no run left anything to clear up: the test has tried nothing")
	}
	s.must(0, "preview", "--detailed-exitcode")
	s.must(0, "drift")
}

func TestWhatHoldsDataOrTheAddressIsNeverInAPlan(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.must(0, "up", "--yes")
	before, state := s.inCloud(), s.stateDigest()
	s.write("Pulumi.test.yaml", testConfig+"  infractl:vip: {ipv4: false, ipv6: true}\n", 0o644)
	for _, command := range [][]string{{"preview"}, {"up", "--yes"}} {
		contains(t, s.must(2, command...).stderr, "the virtual IP vip-ipv4 (127.77.", "infractl:vip.ipv4: true back")
	}
	s.write("Pulumi.test.yaml", testConfig, 0o644)
	if len(s.inCloud()) != len(before) || s.stateDigest() != state {
		t.Error("what was refused has changed something")
	}
	s.pulumi("state", "taint", "--yes", "urn:pulumi:test::infractl::infractl:tier:Database$hcloud:index/server:Server::db-1")
	r := s.must(2, "preview")
	contains(t, r.stdout, "± db-1  server")
	contains(t, r.stderr, "db-1: server: would be deleted and made anew, and the data on it with it, because it is marked as tainted in the state",
		"infractl up --recreate db-1", "the plan for test is refused; nothing was changed")
	if strings.Contains(r.stderr, "urn:pulumi") {
		t.Errorf("the engine's words are repeated:\n%s", r.stderr)
	}
	var doc report.Document
	if r := s.must(1, "preview", "--detailed-exitcode", "--json"); json.Unmarshal([]byte(r.stdout), &doc) != nil || len(doc.Refusals) != 1 {
		t.Errorf("the document does not say why:\n%s", r.stdout)
	}
	contains(t, s.must(2, "preview", "--markdown").stdout, "**Errors**", "- `db-1: server: would be deleted and made anew")
	s.must(2, "preview", "--save", filepath.Join(s.dir, "plan.json"))
	if _, err := os.Stat(filepath.Join(s.dir, "plan.json")); !os.IsNotExist(err) {
		t.Errorf("a plan that is refused was saved: %v", err)
	}
	r = s.run("up", "--yes")
	if r.code == 0 || len(s.inCloud()) != len(before) {
		t.Errorf("up with a tainted database host: exit code %d\n%s", r.code, r.stderr)
	}
	contains(t, r.stderr, "db-1", "protected")
}

func TestDriftInTheCloudIsShownAndNothingIsTouched(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	contains(t, s.must(1, "drift").stderr, "test does not exist yet")
	s.must(0, "up", "--yes")
	s.assignVIP("test-lb-2") // as keepalived does
	state := s.stateDigest()
	r := s.must(0, "drift")
	contains(t, r.stdout, "test: no drift; ")

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s.removeServer("test-web-2")
	firewall, _, err := s.client.Firewall.GetByName(ctx, "test-lb")
	if err != nil || firewall == nil {
		t.Fatal(err)
	}
	_, everywhere, _ := net.ParseCIDR("0.0.0.0/0")
	rules := append(firewall.Rules, hcloud.FirewallRule{Direction: hcloud.FirewallRuleDirectionIn, Protocol: hcloud.FirewallRuleProtocolTCP,
		Port: hcloud.Ptr("3306"), SourceIPs: []net.IPNet{*everywhere}, Description: hcloud.Ptr("by hand")})
	if _, _, err := s.client.Firewall.SetRules(ctx, firewall, hcloud.FirewallSetRulesOpts{Rules: rules}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.client.Network.Create(ctx, hcloud.NetworkCreateOpts{Name: "stray", IPRange: &net.IPNet{IP: net.IPv4(10, 9, 0, 0).To4(), Mask: net.CIDRMask(16, 32)},
		Labels: map[string]string{"managed-by": "infractl", "infractl-environment": "test"}}); err != nil {
		t.Fatal(err)
	}
	cloud := s.inCloud()
	r = s.must(2, "drift")
	contains(t, r.stdout, "? network stray: it carries this environment's labels", "- web-2  server  cx23", "- web-2  private address",
		"~ lb  firewall\n", `+ {description: "by hand"`, `port: "3306"`, "test: drift: ~1 changed, -2 gone, 1 not in the state, ")
	if strings.Contains(r.stdout, "Hosts") || strings.Contains(r.stdout, "floating IP") {
		t.Errorf("more is shown than has drifted:\n%s", r.stdout)
	}
	var doc report.Document
	if r := s.must(2, "drift", "--json"); json.Unmarshal([]byte(r.stdout), &doc) != nil || doc.Version != 1 || doc.Kind != "drift" || doc.Summary.Delete != 2 || doc.Summary.Update != 1 {
		t.Errorf("the document is not right:\n%s", r.stdout)
	}
	contains(t, s.must(2, "drift", "--markdown").stdout, "<!-- infractl drift test -->\n### infractl drift: `test`: ~1 changed, -2 gone", "3306")
	s.must(1, "drift", "--no-such-flag")
	s.must(1, "drift", "--json", "--markdown")
	if s.stateDigest() != state || len(s.inCloud()) != len(cloud) {
		t.Error("drift has changed something")
	}
}
