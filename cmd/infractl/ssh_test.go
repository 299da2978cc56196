package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
)

const hostKeyLine = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGzl7NrJ8jzJYXzb0B0cDzqwmQYI9sSxXcQ9sm1PAEzM infractl\n"

func testLogin(t *testing.T) login {
	t.Helper()
	f := &fleet.Fleet{User: "ops", Port: 2222}
	// Paths may hold whatever means something to ssh.
	dir := filepath.Join(t.TempDir(), `a b%h "q" \x`)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return login{
		fleet: f, host: fleet.Host{Name: "web-1", Server: "shop-web-1", Public: "198.51.100.7", HostKey: hostKeyLine},
		known: filepath.Join(dir, "known_hosts.web-1"), identity: filepath.Join(dir, "id"),
	}
}

// understood is how the real ssh reads a command line.
func understood(t *testing.T, args []string) map[string]string {
	t.Helper()
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("there is no ssh on this computer")
	}
	cmd := exec.Command(ssh, append([]string{"-G"}, args[1:]...)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ssh -G %q: %v", args, err)
	}
	options := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		options[key] = value
	}
	return options
}

func TestSSHAcceptsOnlyThePinnedKey(t *testing.T) {
	l := testLogin(t)
	if err := l.pin(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(l.known)
	if want := "shop-web-1 " + strings.TrimSuffix(hostKeyLine, " infractl\n") + "\n"; err != nil || string(text) != want {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Stat(l.known); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	args, err := l.arguments()
	if err != nil {
		t.Fatal(err)
	}
	got := understood(t, args)
	for key, want := range map[string]string{
		"stricthostkeychecking": "true", "userknownhostsfile": l.known, "globalknownhostsfile": "none", "hostkeyalias": "shop-web-1",
		"hostkeyalgorithms": "ssh-ed25519", "identitiesonly": "yes", "updatehostkeys": "false",
		"user": "ops", "port": "2222", "hostname": "198.51.100.7",
	} {
		// ssh prints paths with quotation marks if they hold spaces.
		if value := strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(strings.Trim(got[key], `"`)); value != want && got[key] != want {
			t.Errorf("%s: %q, not %q", key, got[key], want)
		}
	}
}

func TestSSHHandsOnACommandAsItIs(t *testing.T) {
	for _, c := range []struct {
		words []string
		want  []string
	}{
		{nil, []string{"198.51.100.7"}},
		{[]string{"ls *.txt | wc -l"}, []string{"198.51.100.7", "--", "ls *.txt | wc -l"}},
		{[]string{"ls", "a b", "*"}, []string{"198.51.100.7", "--", "'ls' 'a b' '*'"}},
	} {
		l := testLogin(t)
		l.words = c.words
		args, err := l.arguments()
		if err != nil || !slices.Equal(args[len(args)-len(c.want):], c.want) {
			t.Errorf("%q: %q, %v", c.words, args, err)
		}
	}
	l := testLogin(t)
	l.config, l.tty = true, true
	args, _ := l.arguments()
	if slices.Contains(args, "-F") || !slices.Contains(args, "-t") {
		t.Errorf("%q", args)
	}
}

func TestAnRSAHostKeyHasItsAlgorithms(t *testing.T) {
	l := testLogin(t)
	l.host.HostKey = "no key"
	if _, err := l.arguments(); err == nil || !strings.Contains(err.Error(), "web-1") {
		t.Errorf("%v", err)
	}
}
