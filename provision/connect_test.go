package provision

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/infractl/infractl/provision/desired"
)

// expect wants an error of a kind that names the host and holds all words.
func expect(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("got %v, not %v", err, kind)
	}
	for _, word := range append(words, "web-1: ") {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not mention %q", err, word)
		}
	}
}

func TestConnectAcceptsThePinnedKeyOnly(t *testing.T) {
	h := newHost(t)
	c, err := Connect(t.Context(), h.target())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	impostor := h.target()
	impostor.HostKey = string(ssh.MarshalAuthorizedKey(newSigner(t).PublicKey()))
	_, err = Connect(t.Context(), impostor)
	expect(t, err, ErrHostKeyMismatch, ssh.FingerprintSHA256(h.key.PublicKey()), "do not go on")
}

func TestConnectAsksForTheTypeOfThePinnedKey(t *testing.T) {
	second := newRSASigner(t)
	h := newHost(t, func(h *host) { h.config.AddHostKey(second) })
	both := h.target()
	both.HostKey = string(ssh.MarshalAuthorizedKey(second.PublicKey()))
	for _, target := range []Target{h.target(), both} {
		c, err := Connect(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

func TestConnectWithoutAKeyOfThatTypeIsAMismatch(t *testing.T) {
	h := newHost(t)
	other := h.target()
	other.HostKey = string(ssh.MarshalAuthorizedKey(newRSASigner(t).PublicKey()))
	_, err := Connect(t.Context(), other)
	expect(t, err, ErrHostKeyMismatch, "ssh-rsa")
}

func TestConnectSaysWhichKeyWasRefused(t *testing.T) {
	h := newHost(t)
	wrong := identityFile(t, "")
	t.Setenv(identityVariable, wrong.file)
	_, err := Connect(t.Context(), h.target())
	expect(t, err, ErrAuthFailed, ssh.FingerprintSHA256(wrong.signer.PublicKey()), "user infractl", "authorized_keys")
}

func TestConnectToNothingIsUnreachable(t *testing.T) {
	h := newHost(t)
	h.listener.Close()
	_, err := Connect(t.Context(), h.target())
	expect(t, err, ErrUnreachable, "refused", "firewall")
}

func TestConnectToASilentHostEnds(t *testing.T) {
	h := newHost(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	target := h.target()
	target.Port = silent.Addr().(*net.TCPAddr).Port
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = Connect(ctx, target)
	expect(t, err, ErrUnreachable)
	if time.Since(start) > 5*time.Second {
		t.Errorf("it took %s", time.Since(start))
	}
}

func TestConnectNeedsAReadableHostKey(t *testing.T) {
	h := newHost(t)
	target := h.target()
	target.HostKey = "SHA256:abc"
	_, err := Connect(t.Context(), target)
	expect(t, err, ErrDesired, "host key", "ssh-ed25519")
}

func TestCredentialsThatCannotBeUsed(t *testing.T) {
	h := newHost(t)
	locked := identityFile(t, "a passphrase")
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ file, want string }{
		"an encrypted key without an agent": {locked.file, "ssh-add " + locked.file},
		"no key at all":                     {garbage, "is not an SSH private key"},
		"a file that is not there":          {garbage + "x", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(identityVariable, c.file)
			_, err := Connect(t.Context(), h.target())
			expect(t, err, ErrAuthFailed, c.want)
			if !errors.Is(err, ErrCredentials) {
				t.Error("it is not told from a refusal")
			}
		})
	}
	t.Run("nothing anywhere", func(t *testing.T) {
		t.Setenv(identityVariable, "")
		t.Setenv("HOME", t.TempDir())
		_, err := Connect(t.Context(), h.target())
		expect(t, err, ErrCredentials, identityVariable, "id_ed25519")
	})
}

// startAgent serves an SSH agent that holds the keys.
func startAgent(t *testing.T, keys ...testKey) {
	t.Helper()
	ring := agent.NewKeyring()
	for _, key := range keys {
		if err := ring.Add(agent.AddedKey{PrivateKey: key.private}); err != nil {
			t.Fatal(err)
		}
	}
	serveAgent(t, ring)
}

// serveAgent serves what a keyring holds.
func serveAgent(t *testing.T, ring agent.Agent) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(ring, conn)
		}
	}()
	t.Setenv(agentVariable, socket)
}

func TestEncryptedKeyIsUsedThroughTheAgent(t *testing.T) {
	locked := identityFile(t, "a passphrase")
	h := newHost(t, accept(locked))
	t.Setenv(identityVariable, locked.file)
	startAgent(t, identityFile(t, ""), locked)
	c, err := Connect(t.Context(), h.target())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestAgentIsUsedWithoutAnIdentity(t *testing.T) {
	key := identityFile(t, "")
	h := newHost(t, accept(key))
	t.Setenv(identityVariable, "")
	startAgent(t, identityFile(t, ""), key)
	c, err := Connect(t.Context(), h.target())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// accept lets another key in.
func accept(key testKey) func(*host) {
	return func(h *host) {
		h.config.PublicKeyCallback = func(_ ssh.ConnMetadata, offered ssh.PublicKey) (*ssh.Permissions, error) {
			if string(offered.Marshal()) == string(key.signer.PublicKey().Marshal()) {
				return nil, nil
			}
			return nil, errors.New("unknown key")
		}
	}
}

// running makes a host that does something else with its commands.
func running(run func(h *host, command string, in io.Reader, out, errors io.Writer) int) func(*host) {
	return func(h *host) {
		h.run = func(command string, in io.Reader, out, errors io.Writer) int { return run(h, command, in, out, errors) }
	}
}

func TestHostWithoutPasswordlessSudo(t *testing.T) {
	for name, c := range map[string]struct {
		said   string
		status int
	}{
		"no sudo":           {"env: 'sudo': No such file or directory\n", 127},
		"asks for password": {"sudo: a password is required\n", 1},
		"not allowed":       {"infractl is not in the sudoers file.\n", 1},
		"nologin":           {"This account is currently not available.\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, running(func(h *host, _ string, _ io.Reader, _, errors io.Writer) int {
				io.WriteString(errors, c.said)
				return c.status
			}))
			conn, err := Connect(t.Context(), h.target())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, err = conn.Inspect(t.Context(), desired.Host{})
			expect(t, err, ErrSudo, strings.TrimSpace(c.said), "NOPASSWD", "user infractl")
		})
	}
}

func TestScriptIsNotInTheCommand(t *testing.T) {
	commands := make(chan string, 1)
	h := newHost(t, running(func(_ *host, c string, in io.Reader, out, errors io.Writer) int {
		commands <- c
		return runHere(c, in, out, errors)
	}))
	conn, err := Connect(t.Context(), h.target())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	out, err := conn.output(t.Context(), "test", "printf '@infractl\\n'; cat; printf 'it %s' ran : marker")
	if err != nil || string(out) != "it ranit :it marker" {
		t.Errorf("got %q, %v", out, err)
	}
	if command := <-commands; strings.Contains(command, "marker") || !strings.Contains(command, "sudo -n") {
		t.Errorf("the command is %q", command)
	}
}

func TestConnectionLossIsNoticed(t *testing.T) {
	h := newHost(t, running(func(h *host, _ string, in io.Reader, out, _ io.Writer) int {
		io.WriteString(out, hello+"\nsome of it")
		h.cut()
		return 0
	}))
	conn, err := Connect(t.Context(), h.target())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = conn.Inspect(t.Context(), desired.Host{})
	expect(t, err, ErrUnreachable, "run it again")
}

func TestIncompleteAnswerIsRefused(t *testing.T) {
	h := newHost(t, running(func(h *host, _ string, in io.Reader, out, _ io.Writer) int {
		io.WriteString(out, hello+"\nsome of it")
		return 0
	}))
	conn, err := Connect(t.Context(), h.target())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err = conn.Inspect(t.Context(), desired.Host{}); err == nil || !strings.Contains(err.Error(), "incomplete") {
		t.Errorf("got %v", err)
	}
}

func TestCancellingEndsAnInspection(t *testing.T) {
	h := newHost(t, running(func(h *host, _ string, in io.Reader, out, _ io.Writer) int {
		io.WriteString(out, hello+"\n")
		io.Copy(io.Discard, in)
		time.Sleep(time.Minute)
		return 0
	}))
	conn, err := Connect(t.Context(), h.target())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = conn.Inspect(ctx, desired.Host{})
	expect(t, err, ErrUnreachable, "in time")
}

func TestWaitReadyWaitsForABootingHost(t *testing.T) {
	h := newHost(t)
	target := h.target()
	h.listener.Close()
	booted := make(chan net.Listener, 1)
	go func() {
		time.Sleep(400 * time.Millisecond)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", target.Port))
		booted <- listener
		if err == nil {
			h.serve(listener)
		}
	}()
	var steps []string
	c, err := WaitReady(t.Context(), target, Wait{Timeout: 10 * time.Second, Progress: func(s string) { steps = append(steps, s) }})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if len(steps) == 0 || !strings.Contains(steps[0], "waiting for web-1") {
		t.Errorf("progress: %q", steps)
	}
	(<-booted).Close()
}

func TestWaitReadyStopsAtOnceAtAWrongHostKey(t *testing.T) {
	h := newHost(t)
	target := h.target()
	target.HostKey = string(ssh.MarshalAuthorizedKey(newSigner(t).PublicKey()))
	start := time.Now()
	_, err := WaitReady(t.Context(), target, Wait{})
	expect(t, err, ErrHostKeyMismatch)
	if time.Since(start) > 2*time.Second {
		t.Errorf("it took %s", time.Since(start))
	}
}

func TestInterruptedWaitBlamesNoHost(t *testing.T) {
	h := newHost(t)
	h.listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	_, err := WaitReady(ctx, h.target(), Wait{Timeout: 10 * time.Second})
	if err == nil || errors.Is(err, ErrUnreachable) || !strings.HasSuffix(err.Error(), ": interrupted while waiting for it to boot") {
		t.Errorf("%v", err)
	}
}

func TestWaitReadyGivesUp(t *testing.T) {
	h := newHost(t)
	h.listener.Close()
	_, err := WaitReady(t.Context(), h.target(), Wait{Timeout: 300 * time.Millisecond})
	expect(t, err, ErrUnreachable, "gave up after 300ms", "console")
}
