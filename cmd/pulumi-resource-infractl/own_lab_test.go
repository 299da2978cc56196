//go:build lab

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/infractl/infractl/provision/ask"
)

// TestEngineReachesAHostOfTheUsersOwn has everything at once: an alias in
// ~/.ssh/config, a jump host, a key with a passphrase and a sudo with a password,
// which the plugin gets from this process through the real engine.
func TestEngineReachesAHostOfTheUsersOwn(t *testing.T) {
	target := labTarget(t)
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "open key", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	onHost(t, target, fmt.Sprintf(`useradd -m -s /bin/sh anna
printf 'anna:open sesame\n' | chpasswd
install -d -m 700 -o anna -g anna /home/anna/.ssh
printf '%%s' '%s' >/home/anna/.ssh/authorized_keys
printf 'anna ALL=(ALL) ALL\n' >/etc/sudoers.d/anna
chmod 440 /etc/sudoers.d/anna`, public))
	t.Cleanup(func() { onHost(t, target, "rm -rf /etc/sudoers.d/anna /etc/plugintest; userdel -rf anna") })
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte(fmt.Sprintf(`Host Alias
  HostName 127.0.0.1
  ProxyJump jump
Host jump
  HostName %s
Host *
  User anna
  IdentityFile %s
  UserKnownHostsFile none
  GlobalKnownHostsFile none
`, target.Address, key)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("INFRACTL_SSH_CONFIG", config)
	t.Setenv("SSH_AUTH_SOCK", "")
	t.Setenv("INFRACTL_SUDO_PASSWORD", "")
	var mu sync.Mutex
	var asked []string
	t.Setenv(ask.Variable, "")
	questions, err := ask.Serve(func(_ context.Context, q ask.Question) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, q.Kind)
		return map[string]string{ask.SudoPassword: "open sesame", ask.Passphrase: "open key"}[q.Kind], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer questions.Close()
	identity := os.Getenv("INFRACTL_SSH_IDENTITY")
	t.Setenv("INFRACTL_SSH_IDENTITY", "")

	state := t.TempDir()
	stack := newStack(t, state, func(ctx *pulumi.Context) error {
		var host pulumi.CustomResourceState
		return ctx.RegisterResource("infractl:host:Configuration", "web-1", pulumi.Map{
			"name": pulumi.String("web-1"), "address": pulumi.String("Alias"), "own": pulumi.Bool(true),
			"knownHosts": pulumi.ToStringArray([]string{target.Address + "," + "127.0.0.1 " + target.HostKey}),
			"files":      pulumi.Map{"/etc/plugintest/own": pulumi.Map{"content": pulumi.String("reached\n")}},
		}, &host)
	})
	up, err := stack.Up(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(up.StdOut)
	p, err := stack.Preview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(p.ChangeSummary) != 1 || p.ChangeSummary["same"] != 2 {
		t.Errorf("second preview: %v\n%s", p.ChangeSummary, p.StdOut)
	}
	t.Setenv("INFRACTL_SSH_IDENTITY", identity)
	if got := onHost(t, target, "cat /etc/plugintest/own"); got != "reached" {
		t.Errorf("on the host: %q", got)
	}
	if strings.Join(asked, " ") != ask.Passphrase+" "+ask.SudoPassword {
		t.Errorf("asked for %v", asked)
	}
	stored, err := os.ReadFile(filepath.Join(state, ".pulumi", "stacks", "plugintest", "lab.json"))
	if err != nil {
		t.Fatal(err)
	}
	// The server has got another job in the meantime.
	t.Setenv("INFRACTL_SSH_IDENTITY", identity)
	onHost(t, target, "mkdir -p /etc/infractl && echo lab app-1 >/etc/infractl/host")
	t.Cleanup(func() { onHost(t, target, "rm -f /etc/infractl/host") })
	t.Setenv("INFRACTL_SSH_IDENTITY", "")
	if _, err := stack.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Setenv("INFRACTL_SSH_IDENTITY", identity)
	if got := onHost(t, target, "cat /etc/plugintest/own"); got != "reached" {
		t.Errorf("what belongs to another configuration was removed: %q", got)
	}
	for _, word := range []string{"open sesame", "open key", "anna", key} {
		if strings.Contains(string(stored), word) {
			t.Errorf("the state holds %q", word)
		}
	}
}

// TestEngineGivesAServerBack takes a file over that was there before, and gives it
// back: previewed, applied and destroyed by the real engine.
func TestEngineGivesAServerBack(t *testing.T) {
	target := labTarget(t)
	onHost(t, target, "mkdir -p /etc/plugintest && printf 'theirs\n' >/etc/plugintest/a && chmod 0604 /etc/plugintest/a && touch -d '2021-03-04 05:06:07' /etc/plugintest/a")
	t.Cleanup(func() { onHost(t, target, "rm -rf /etc/plugintest") })
	before := onHost(t, target, "stat -c '%a %U:%G %y' /etc/plugintest/a; cat /etc/plugintest/a")
	stack := newStack(t, t.TempDir(), func(ctx *pulumi.Context) error {
		var host pulumi.CustomResourceState
		return ctx.RegisterResource("infractl:host:Configuration", "web-1", pulumi.Map{
			"name": pulumi.String("web-1"), "address": pulumi.String(target.Address), "user": pulumi.String(target.User), "own": pulumi.Bool(true),
			"hostKey": pulumi.String(target.HostKey),
			"files":   pulumi.Map{"/etc/plugintest/a": pulumi.Map{"content": pulumi.String("ours\n")}},
		}, &host)
	})
	p, err := stack.Preview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(p.StdOut, "copies are kept: /etc/plugintest/a") {
		t.Errorf("the first preview says\n%s", p.StdOut)
	}
	if _, err := stack.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := onHost(t, target, "cat /etc/plugintest/a"); got != "ours" {
		t.Errorf("after up: %q", got)
	}
	if _, err := stack.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := onHost(t, target, "stat -c '%a %U:%G %y' /etc/plugintest/a; cat /etc/plugintest/a"); after != before {
		t.Errorf("before %q, after %q", before, after)
	}
}
