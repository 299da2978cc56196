//go:build lab && !hosts

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

// document is what preview --json and drift --json write, as far as the tests
// read it.
type document struct {
	Version                   int
	Kind, Environment, Digest string
	Summary                   struct{ Create, Update, Replace, Delete, Unchanged, Hosts, Settle int }
	Changes                   []struct {
		Operation, Name, Kind string
		Packages, Units       []string
		Actions               []string
		Files                 []struct{ Path, Operation, Diff string }
	}
	Groups   []struct{ Hosts []string }
	Failures []struct{ Name, Message string }
}

// document runs a command with --json and reads what it wrote.
func (p *project) document(t *testing.T, code int, args ...string) document {
	t.Helper()
	r := p.infractl(append(args, "-e", p.env, "--json")...)
	if r.code != code {
		t.Fatalf("exit code %d is wanted: %v", code, r)
	}
	var d document
	if err := json.Unmarshal([]byte(r.stdout), &d); err != nil {
		t.Fatalf("%v: %v", err, r)
	}
	if d.Version != 1 || d.Environment != p.env || !strings.HasPrefix(d.Digest, "sha256:") {
		t.Errorf("the document is of version %d, environment %q, digest %q", d.Version, d.Environment, d.Digest)
	}
	return d
}

// wants runs a command, which must end with a code.
func (p *project) wants(t *testing.T, code int, args ...string) run {
	t.Helper()
	r := p.infractl(append(args, "-e", p.env)...)
	if r.code != code {
		t.Fatalf("exit code %d is wanted: %v", code, r)
	}
	return r
}

// stateFile is the environment's state as it is on disk.
func (p *project) stateFile(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, "state/.pulumi/stacks/infractl", p.env+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// onHosts tells what is on hosts: what infractl keeps there, and since when.
func (p *project) onHosts(t *testing.T, names ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range names {
		out[name] = p.on(t, name, "find /etc /usr/local /srv /var/lib/infractl -type f -printf '%p %T@ %C@ %m\\n' | sort | sha256sum")
	}
	return out
}

func requireWords(t *testing.T, r run, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(r.stdout+r.stderr, w) {
			t.Errorf("%q is not said: %v", w, r)
		}
	}
}

func TestASavedPlanIsWhatUpDoesOrNothingIsDone(t *testing.T) {
	t.Parallel()
	p := newSmall(t, "planned")
	plan := filepath.Join(p.dir, "plan.json")
	p.wants(t, 2, "preview", "--save", plan, "--detailed-exitcode")
	p.wants(t, 0, "up", "--plan", plan) // no terminal, and no --yes
	requireWhole(t, p)
	p.wants(t, 0, "preview", "--detailed-exitcode")

	config := maps.Clone(small)
	config["infractl:debugHeaders"] = "false"
	if err := p.configure(config); err != nil {
		t.Fatal(err)
	}
	requireWords(t, p.wants(t, 0, "preview", "--save", plan), "/etc/haproxy/haproxy.cfg", "then: reload haproxy.service", "infractl up --plan")
	if info, err := os.Stat(plan); err != nil || info.Mode() != 0o600 {
		t.Errorf("the plan file: %v, %v", info, err)
	}
	if text, err := os.ReadFile(plan); err != nil || strings.Contains(string(text), p.variables()["INFRACTL_VIP_TOKEN"]) || strings.Contains(string(text), "server web-1") {
		t.Errorf("the plan file holds secrets or texts of files (%v)", err)
	}
	// The world moves: a file that the plan changes is edited by hand.
	p.on(t, "lb-1", "cp -p /etc/haproxy/haproxy.cfg /root/kept && echo '# by hand' >>/etc/haproxy/haproxy.cfg")
	state, hosts := p.stateFile(t), p.onHosts(t, "lb-1", "web-1", "app-1", "db-1")
	requireWords(t, p.wants(t, 2, "up", "--plan", plan), "lb-1 host: changes in another way: /etc/haproxy/haproxy.cfg", "nothing was changed", "infractl preview --env planned --save")
	if !bytes.Equal(state, p.stateFile(t)) || !maps.Equal(hosts, p.onHosts(t, "lb-1", "web-1", "app-1", "db-1")) {
		t.Error("a plan that was refused has changed something")
	}
	p.on(t, "lb-1", "mv /root/kept /etc/haproxy/haproxy.cfg")
	requireWords(t, p.wants(t, 0, "up", "--plan", plan), "as planned: planned: ~")
	requireWhole(t, p)
	requireWords(t, p.wants(t, 2, "up", "--plan", plan), "lb-1 host: there is nothing to update any more")

	other, err := newProject(t.TempDir(), "planned2", small)
	if err != nil {
		t.Fatal(err)
	}
	requireWords(t, other.wants(t, 2, "up", "--plan", plan), "is for environment planned, not planned2")
}

func TestHostsThatChangeAlikeAreShownOnce(t *testing.T) {
	t.Parallel()
	p := newSmall(t, "alike", map[string]string{"infractl:tiers": "{lb: {count: 1, type: cx23}, web: {count: 2, type: cx23}, app: {count: 1, type: cx23}, db: {count: 1, type: cx33}}"})
	p.up(t)
	for _, name := range []string{"web-1", "web-2"} {
		p.on(t, name, "sed -i '1i # by hand' /etc/hosts && systemctl stop nginx")
	}
	p.on(t, "app-1", "sed -i '1i # by hand' /etc/hosts && chmod 600 /etc/systemd/journald.conf.d/infractl.conf")
	r := p.wants(t, 0, "preview")
	requireWords(t, r, "~ web-1, web-2  host\n", "~ /etc/hosts  same as on web-1\n", "then: start nginx.service\n", "alike: ~3 to update, ")
	if strings.Count(r.stdout, "-# by hand") != 1 {
		t.Errorf("the same diff is shown more than once: %v", r)
	}
	d := p.document(t, 2, "preview", "--detailed-exitcode")
	if d.Summary.Update != 3 || d.Summary.Hosts != 3 || len(d.Groups) != 2 || !slices.Equal(d.Groups[0].Hosts, []string{"web-1", "web-2"}) {
		t.Errorf("the document is %+v", d)
	}
	if again := p.document(t, 0, "preview"); again.Digest != d.Digest {
		t.Errorf("two previews of the same have the digests %s and %s", d.Digest, again.Digest)
	}
	markdown := p.wants(t, 0, "preview", "--markdown")
	if !strings.HasPrefix(markdown.stdout, "<!-- infractl preview alike -->\n### infractl preview: `alike`: ~3 to update\n") {
		t.Errorf("the Markdown does not begin as it should: %v", markdown)
	}
	requireWords(t, markdown, "<code>web-1, web-2</code>", "```diff\n", "-# by hand", d.Digest)
	p.up(t)
	requireWhole(t, p)
}

func TestDriftShowsWhatWasDoneByHandAndTouchesNothing(t *testing.T) {
	t.Parallel()
	p := newSmall(t, "drifted", map[string]string{"infractl:tiers": "{lb: {count: 2, type: cx23}, web: {count: 2, type: cx23}, app: {count: 1, type: cx23}, db: {count: 1, type: cx33}}"})
	p.up(t)
	ip := p.outputs(t).VIP.IPv4
	var first string
	eventually(t, time.Minute, "a load balancer claims the virtual IP", func() error {
		if first = p.holder(t, ip); first == "" {
			return errors.New("nobody holds it")
		}
		return nil
	})
	p.on(t, first, "systemctl restart keepalived")
	eventually(t, 30*time.Second, "the virtual IP moves", func() error {
		if now := p.holder(t, ip); now == first || now == "" {
			return fmt.Errorf("it is still sent to %q", now)
		}
		return nil
	})
	r := p.wants(t, 0, "drift")
	requireWords(t, r, "drifted: no drift; ")
	report(os.Stdout, "drift of six hosts that finds nothing", "%.1f s", r.took.Seconds())

	p.on(t, "lb-2", "sed -i 's/retries  *[0-9]*/retries 7/' /etc/haproxy/haproxy.cfg")
	p.on(t, "web-1", "systemctl stop nginx && DEBIAN_FRONTEND=noninteractive apt-get remove -y -qq nginx")
	p.on(t, "db-1", "systemctl disable --now nftables")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := p.cloud()
	server, _, err := c.Server.GetByName(ctx, p.env+"-web-2")
	if err != nil || server == nil {
		t.Fatalf("web-2: %v", err)
	}
	deletion, _, err := c.Server.DeleteWithResult(ctx, server)
	if err == nil {
		err = c.Action.WaitFor(ctx, deletion.Action)
	}
	if err != nil {
		t.Fatal(err)
	}
	firewall, _, err := c.Firewall.GetByName(ctx, p.env+"-app")
	if err != nil || firewall == nil {
		t.Fatalf("the firewall: %v", err)
	}
	_, everywhere, _ := net.ParseCIDR("0.0.0.0/0")
	actions, _, err := c.Firewall.SetRules(ctx, firewall, hcloud.FirewallSetRulesOpts{Rules: append(firewall.Rules, hcloud.FirewallRule{
		Direction: hcloud.FirewallRuleDirectionIn, Protocol: hcloud.FirewallRuleProtocolTCP, Port: hcloud.Ptr("8080"), SourceIPs: []net.IPNet{*everywhere},
	})})
	if err == nil {
		err = c.Action.WaitFor(ctx, actions...)
	}
	if err != nil {
		t.Fatal(err)
	}

	names := []string{"lb-1", "lb-2", "web-1", "app-1", "db-1"}
	state, hosts := p.stateFile(t), p.onHosts(t, names...)
	r = p.wants(t, 2, "drift")
	requireWords(t, r, "~ app  firewall\n", `port: "8080"`, "- web-2  server", "- web-2  private address",
		"~ lb-2  host\n", "        -    retries 3\n        +    retries 7\n",
		"~ web-1  host\n    nginx is not installed\n", "nginx.service does not run",
		"~ db-1  host\n    nftables.service does not run\n    nftables.service does not start at boot\n",
		"drifted: drift: ~4 changed, -2 gone, ")
	if strings.Contains(r.stdout, "floating IP") || strings.Contains(r.stdout, "lb-1") {
		t.Errorf("something is shown that has not drifted: %v", r)
	}
	if d := p.document(t, 2, "drift"); d.Kind != "drift" || d.Summary.Update != 4 || d.Summary.Delete != 2 || len(d.Failures) > 0 {
		t.Errorf("the document is %+v", d)
	}
	requireWords(t, p.wants(t, 2, "drift", "--markdown"), "<!-- infractl drift drifted -->\n", "+    retries 7\n")

	off, _, err := c.Server.GetByName(ctx, p.env+"-app-1")
	if err != nil || off == nil {
		t.Fatalf("app-1: %v", err)
	}
	action, _, err := c.Server.Poweroff(ctx, off)
	if err == nil {
		err = c.Action.WaitFor(ctx, action)
	}
	if err != nil {
		t.Fatal(err)
	}
	requireWords(t, p.wants(t, 1, "drift"), "app-1: configuration: ", "cannot be reached", "not all of drifted could be looked at", "nginx is not installed")
	requireWords(t, p.wants(t, 2, "drift", "--skip-unreachable"), "nginx is not installed")
	startHostOf(t, p, "app-1")
	eventually(t, time.Minute, "app-1 answers again", func() error {
		if r := p.infractl("drift", "-e", p.env); r.code != 2 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	if !bytes.Equal(state, p.stateFile(t)) {
		t.Error("drift has changed the state")
	}
	after := p.onHosts(t, names...)
	delete(after, "app-1") // it has booted in between
	delete(hosts, "app-1")
	if !maps.Equal(hosts, after) {
		t.Errorf("drift has changed hosts:\n%v\n%v", hosts, after)
	}

	// What is gone is in a preview too, with what is made again.
	requireWords(t, p.wants(t, 0, "preview", "--refresh"), "forget server web-2", "+ web-2  server", "~ app  firewall")
	p.up(t, "--refresh")
	requireWhole(t, p)
	p.wants(t, 0, "drift")
}
