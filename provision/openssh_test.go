//go:build sshd

package provision

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// openSSH is the computer's real sshd on a loopback port, which lets this user in.
// scripts/test runs these tests on machines of the lab, so that no sshd has to be
// installed where the other tests run.
type openSSH struct {
	port int
	// key is its Ed25519 host key.
	key       ssh.PublicKey
	authority ssh.Signer
	log       *os.File
}

// newOpenSSH starts sshd with settings of its own. They come first: the first
// value wins for sshd too.
func newOpenSSH(t *testing.T, login testKey, settings string) *openSSH {
	t.Helper()
	const program = "/usr/sbin/sshd"
	dir := t.TempDir()
	s := &openSSH{authority: newSigner(t)}
	write := func(name, text string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	host := identityFile(t, "")
	s.key = host.signer.PublicKey()
	certificate := certify(t, s.authority, host.signer, nil).PublicKey()
	private, err := rsaKey()
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	config := write("sshd_config", fmt.Sprintf(`%s
Port %d
ListenAddress 127.0.0.1
HostKey %s
HostKey %s
HostCertificate %s
AuthorizedKeysFile %s
TrustedUserCAKeys %s
PermitRootLogin yes
StrictModes no
UsePAM no
PidFile none
LogLevel VERBOSE
`, settings, s.port, host.file, write("rsa", string(pem.EncodeToMemory(block))), write("certificate.pub", line(certificate)+"\n"),
		write("authorized_keys", line(login.signer.PublicKey())+"\n"), write("authority.pub", line(s.authority.PublicKey())+"\n")))
	if out, err := exec.Command(program, "-t", "-f", config).CombinedOutput(); err != nil {
		t.Fatalf("sshd cannot run here: %s", bytes.TrimSpace(out))
	}
	if s.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "-D", "-e", "-f", config)
	c.Stderr = s.log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(s.log.Name())
			t.Logf("sshd: %s", text)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		text, _ := os.ReadFile(s.log.Name())
		if bytes.Contains(text, []byte("Server listening on")) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatal("sshd does not answer")
		}
	}
}

// logins are how many logins sshd has noted.
func (s *openSSH) logins(t *testing.T) int {
	text, err := os.ReadFile(s.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "Accepted publickey")
}

// target is the host as one of its user's own; the login is this user's.
func (s *openSSH) target(t *testing.T, more string) Target {
	t.Helper()
	configFile(t, fmt.Sprintf("%s\nHost web\nHostName 127.0.0.1\nPort %d\nHost *\nUserKnownHostsFile none\nGlobalKnownHostsFile none\n", more, s.port))
	return Target{Name: "web-1", Address: "web", Own: true, HostKey: line(s.key)}
}

func loggedIn(t *testing.T, target Target) {
	t.Helper()
	c, err := Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.root = isRoot // what sudo does is not the question here
	if out, err := c.Run(t.Context(), "test", "echo in"); err != nil || string(out) != "in\n" {
		t.Fatalf("%q, %v", out, err)
	}
}

func TestOpenSSHLetsInByEveryKindOfHostKey(t *testing.T) {
	login := identityFile(t, "")
	s := newOpenSSH(t, login, "")
	t.Setenv(identityVariable, login.file)
	target := s.target(t, "")
	rsa := newRSASigner(t).PublicKey()
	for _, key := range []string{line(s.key), line(rsa), ssh.FingerprintSHA256(s.key), ssh.FingerprintSHA256(rsa), "@cert-authority " + line(s.authority.PublicKey())} {
		target.HostKey = key
		loggedIn(t, target)
	}
	for _, key := range []string{line(newSigner(t).PublicKey()), ssh.FingerprintSHA256(newSigner(t).PublicKey()), "@cert-authority " + line(newSigner(t).PublicKey())} {
		target.HostKey = key
		_, err := Connect(t.Context(), target)
		expect(t, err, ErrHostKeyMismatch, "do not go on")
	}
	target.HostKey, target.KnownHosts = "", fmt.Sprintf("@cert-authority [127.0.0.1]:%d %s\n", s.port, line(s.authority.PublicKey()))
	loggedIn(t, target)
}

func TestOpenSSHLetsInUsersWithCertificates(t *testing.T) {
	s := newOpenSSH(t, identityFile(t, ""), "")
	me, err := whoAmI()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(identityVariable, "")
	t.Setenv(agentVariable, "")
	key := identityFile(t, "")
	userCertificate(t, s.authority, key, func(c *ssh.Certificate) { c.ValidPrincipals = []string{me.name} })
	loggedIn(t, s.target(t, "IdentityFile "+key.file))
	expired := identityFile(t, "")
	userCertificate(t, s.authority, expired, func(c *ssh.Certificate) {
		c.ValidPrincipals, c.ValidBefore = []string{me.name}, uint64(time.Now().Add(-time.Minute).Unix())
	})
	_, err = Connect(t.Context(), s.target(t, "IdentityFile "+expired.file))
	expect(t, err, ErrAuthFailed, "was valid until", "an hour off")
}

func TestOpenSSHGivesUpAfterTooManyKeys(t *testing.T) {
	login := identityFile(t, "")
	s := newOpenSSH(t, login, "")
	t.Setenv(identityVariable, "")
	keys := make([]testKey, 8)
	for i := range keys {
		keys[i] = identityFile(t, "")
	}
	startAgent(t, append(keys, login)...)
	_, err := Connect(t.Context(), s.target(t, ""))
	expect(t, err, ErrAuthFailed, "too many keys", "IdentitiesOnly yes", fingerprint(keys[0]))
	loggedIn(t, s.target(t, "IdentityFile "+login.public(t)))
	// Five wrong ones leave room for the right one.
	startAgent(t, append(keys[:attempts-1:attempts-1], login)...)
	loggedIn(t, s.target(t, ""))
}

// TestOpenSSHAsJumpHost has thirty hosts behind a jump host that refuses the
// second connection that has not logged in yet, and allows one session.
func TestOpenSSHAsJumpHost(t *testing.T) {
	login := identityFile(t, "")
	jump := newOpenSSH(t, login, "MaxStartups 1:100:1\nMaxSessions 1")
	behind := newOpenSSH(t, login, "MaxStartups 100")
	t.Setenv(identityVariable, login.file)
	target := behind.target(t, fmt.Sprintf("Host jump\nHostName 127.0.0.1\nPort %d\nHost web\nProxyJump jump", jump.port))
	target.KnownHosts = fmt.Sprintf("[127.0.0.1]:%d %s\n", jump.port, line(jump.key))
	before := jump.logins(t)
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			c, err := Connect(t.Context(), target)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.root = isRoot
			// Long enough for all to be there at once.
			if out, err := c.Run(t.Context(), "test", "sleep 0.5; echo in"); err != nil || string(out) != "in\n" {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
	wg.Wait()
	if n := jump.logins(t) - before; n != 1 {
		t.Errorf("%d logins at the jump host", n)
	}
	closed := newOpenSSH(t, login, "AllowTcpForwarding no")
	target = behind.target(t, fmt.Sprintf("Host jump\nHostName 127.0.0.1\nPort %d\nHost web\nProxyJump jump", closed.port))
	target.KnownHosts = fmt.Sprintf("[127.0.0.1]:%d %s\n", closed.port, line(closed.key))
	_, err := Connect(t.Context(), target)
	expect(t, err, ErrUnreachable, "AllowTcpForwarding", "jump host jump")
	nothingInThePool(t)
}

func TestOpenSSHEndsWhatHangs(t *testing.T) {
	login := identityFile(t, "")
	s := newOpenSSH(t, login, "")
	t.Setenv(identityVariable, login.file)
	c, err := Connect(t.Context(), s.target(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.root = isRoot
	ctx, cancel := expiring(t)
	defer cancel()
	start := time.Now()
	// sshd waits for the end of what runs before it closes the session.
	_, err = c.Run(ctx, "look", "trap '' HUP PIPE TERM; sleep 8")
	expect(t, err, ErrUnreachable, "in time")
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("it took %s", took)
	}
	// The connection is still good.
	if out, err := c.Run(t.Context(), "look", "echo still"); err != nil || string(out) != "still\n" {
		t.Errorf("%q, %v", out, err)
	}
}
