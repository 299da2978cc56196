package provision

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func newECDSASigner(t *testing.T) ssh.Signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func line(key ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) }

// certify signs a host's key.
func certify(t *testing.T, authority, key ssh.Signer, change func(*ssh.Certificate)) ssh.Signer {
	t.Helper()
	c := &ssh.Certificate{
		Key: key.PublicKey(), CertType: ssh.HostCert, KeyId: "web-1", ValidPrincipals: []string{"127.0.0.1"},
		ValidAfter: uint64(time.Now().Add(-time.Hour).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
	}
	if change != nil {
		change(c)
	}
	if err := c.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(c, key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestHostKeyIsAKeyAFingerprintOrAnAuthority(t *testing.T) {
	key := newSigner(t).PublicKey()
	sum := ssh.FingerprintSHA256(key)
	certificate := certify(t, newSigner(t), newSigner(t), nil).PublicKey()
	for text, want := range map[string]string{
		line(key):                              "",
		line(key) + " a comment\n":             "",
		sum:                                    "",
		"  " + sum + "=\n":                     "",
		"@cert-authority " + line(key):         "",
		"":                                     "no key found",
		"SHA256:abc":                           "no SHA-256 fingerprint",
		"MD5:00:11":                            "no key found",
		line(key) + "\n" + line(key):           "more than one line",
		"web.example.com " + line(key):         "something before the key",
		"@cert-authority *.com " + line(key):   "something before the key",
		"@revoked " + line(key):                "something before the key",
		line(certificate):                      "it is a certificate",
		"@cert-authority " + line(certificate): "it is a certificate",
		"ssh-ed25519 AAAA":                     "no key found",
		"@cert-authority SHA256:" + sum[7:50]:  "no key found",
	} {
		err := ParseHostKey(text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// severalKeys is a host with keys of three types.
func severalKeys(t *testing.T) (*host, []ssh.Signer) {
	keys := []ssh.Signer{newECDSASigner(t), newRSASigner(t)}
	h := newHost(t, func(h *host) {
		for _, key := range keys {
			h.config.AddHostKey(key)
		}
	})
	return h, append(keys, h.key)
}

func TestFingerprintFindsTheRightOneOfSeveralKeys(t *testing.T) {
	h, keys := severalKeys(t)
	for _, key := range keys {
		target := h.target()
		target.HostKey = ssh.FingerprintSHA256(key.PublicKey())
		for range 2 {
			c, err := Connect(t.Context(), target)
			if err != nil {
				t.Fatalf("%s: %v", key.PublicKey().Type(), err)
			}
			c.Close()
		}
	}
	// The type is found out once: with three types, at most three connections
	// for each key and one more when it is known.
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.connections); n != 1+2+3+3 {
		t.Errorf("%d connections", n)
	}
}

func TestFingerprintOfNoKeyShowsThoseThatThereAre(t *testing.T) {
	h, keys := severalKeys(t)
	target := h.target()
	target.HostKey = ssh.FingerprintSHA256(newSigner(t).PublicKey())
	_, err := Connect(t.Context(), target)
	words := []string{target.HostKey, "do not go on", "(ssh-rsa)"}
	for _, key := range keys {
		words = append(words, ssh.FingerprintSHA256(key.PublicKey()))
	}
	expect(t, err, ErrHostKeyMismatch, words...)
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.connections); n > 4 {
		t.Errorf("%d connections", n)
	}
}

func TestFingerprintIsFoundAgainAfterTheHostGotAnotherKey(t *testing.T) {
	h, keys := severalKeys(t)
	target := h.target()
	target.HostKey = ssh.FingerprintSHA256(keys[0].PublicKey())
	// As if an earlier host with this fingerprint had had a key of another type.
	typeOf.Store(target.HostKey, ssh.KeyAlgoECDSA521)
	c, err := Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	typeOf.Store(target.HostKey, ssh.KeyAlgoRSA)
	if c, err = Connect(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestAuthorityVouchesForHosts(t *testing.T) {
	authority := newSigner(t)
	hour := func(hours int) uint64 { return uint64(time.Now().Add(time.Duration(hours) * time.Hour).Unix()) }
	for name, c := range map[string]struct {
		change func(*ssh.Certificate)
		want   []string
	}{
		"good":           {nil, nil},
		"with wildcards": {func(c *ssh.Certificate) { c.ValidPrincipals = []string{"*.example.com", "127.0.*"} }, nil},
		"for ever":       {func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 0, ssh.CertTimeInfinity }, nil},
		"expired": {func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = hour(-9), hour(-1) },
			[]string{"was valid until " + time.Now().Add(-time.Hour).Format("2006-01-02T15"), "this computer's clock says " + time.Now().Format("2006-01-02T15"), "an hour off", "timedatectl"}},
		"not yet valid": {func(c *ssh.Certificate) { c.ValidAfter = hour(1) - 60 },
			[]string{"is not valid before", "this computer's clock says", "an hour off"}},
		"for another host": {func(c *ssh.Certificate) { c.ValidPrincipals = []string{"web-2.example.com"} },
			[]string{"is for web-2.example.com, but the host is known as 127.0.0.1"}},
		"for nobody":       {func(c *ssh.Certificate) { c.ValidPrincipals = nil }, []string{"names no hosts", "ssh-keygen -h -n 127.0.0.1"}},
		"for users":        {func(c *ssh.Certificate) { c.CertType = ssh.UserCert }, []string{"for users, not for hosts"}},
		"with a condition": {func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x": "y"} }, []string{"unsupported critical option"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, func(h *host) { h.config.AddHostKey(certify(t, authority, h.key, c.change)) })
			target := h.target()
			target.HostKey = "@cert-authority " + line(authority.PublicKey())
			conn, err := Connect(t.Context(), target)
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				return
			}
			expect(t, err, ErrHostKeyMismatch, c.want...)
		})
	}
}

func TestAnotherAuthorityIsRefused(t *testing.T) {
	authority, other := newSigner(t), newSigner(t)
	h := newHost(t, func(h *host) { h.config.AddHostKey(certify(t, other, h.key, nil)) })
	target := h.target()
	target.HostKey = "@cert-authority " + line(authority.PublicKey())
	_, err := Connect(t.Context(), target)
	expect(t, err, ErrHostKeyMismatch, ssh.FingerprintSHA256(authority.PublicKey()), ssh.FingerprintSHA256(other.PublicKey()), "do not go on")
	plain := newHost(t)
	target.Port = plain.target().Port
	_, err = Connect(t.Context(), target)
	expect(t, err, ErrHostKeyMismatch, "no certificate", "HostCertificate")
}

// own makes a target that only the configuration and known_hosts describe.
func (h *host) own(t *testing.T, known string, more ...string) Target {
	t.Helper()
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(file, []byte(known), 0o600); err != nil {
		t.Fatal(err)
	}
	configFile(t, fmt.Sprintf("%s\nHost web\nHostName 127.0.0.1\nPort %d\nUser infractl\nHost *\nUserKnownHostsFile %s\nGlobalKnownHostsFile none\n",
		strings.Join(more, "\n"), h.target().Port, file))
	return Target{Name: "web-1", Address: "web", Own: true}
}

func (h *host) known() string {
	return fmt.Sprintf("[127.0.0.1]:%d %s\n", h.target().Port, line(h.key.PublicKey()))
}

func TestOwnHostIsReachedAsTheConfigurationSays(t *testing.T) {
	h := newHost(t)
	c, err := Connect(t.Context(), h.own(t, h.known()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if out, err := c.Run(t.Context(), "test", "echo it works"); err != nil || string(out) != "it works\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestHostsThatAreNotOwnDoNotReadTheConfiguration(t *testing.T) {
	h := newHost(t)
	configFile(t, "Host *\nPort 1\nProxyCommand false\nUser nobody\n")
	c, err := Connect(t.Context(), h.target())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestKnownHostsDecideWithoutAHostKey(t *testing.T) {
	authority := newSigner(t)
	certifiedHost := func(h *host) {
		h.config.AddHostKey(newRSASigner(t))
		h.config.AddHostKey(certify(t, authority, h.key, nil))
	}
	other := line(newSigner(t).PublicKey())
	for name, c := range map[string]struct {
		known func(h *host) string
		more  []string
		kind  error
		want  []string
	}{
		"its key":                 {known: (*host).known},
		"its key without a port":  {known: func(h *host) string { return "127.0.0.1 " + line(h.key.PublicKey()) }},
		"an authority":            {known: func(h *host) string { return "@cert-authority [127.0.0.*]:* " + line(authority.PublicKey()) }},
		"authority and key":       {known: func(h *host) string { return h.known() + "@cert-authority * " + line(authority.PublicKey()) }},
		"another authority, key":  {known: func(h *host) string { return h.known() + "@cert-authority * " + other }},
		"an alias":                {known: func(h *host) string { return "bastion " + line(h.key.PublicKey()) }, more: []string{"HostKeyAlias bastion"}},
		"several keys":            {known: func(h *host) string { return strings.Replace(h.known(), line(h.key.PublicKey()), other, 1) + h.known() }},
		"lines that mean nothing": {known: func(h *host) string { return "nonsense\n\n# x\n@what * " + other + "\n* ssh-foo AAAA\n" + h.known() }},
		"no line": {known: func(h *host) string { return "elsewhere " + line(h.key.PublicKey()) }, kind: ErrHostKeyUnknown,
			want: []string{"it shows SHA256:", "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub", "ssh web"}},
		"another key": {known: func(h *host) string { return strings.Replace(h.known(), line(h.key.PublicKey()), other, 1) }, kind: ErrHostKeyMismatch,
			want: []string{"it shows SHA256:", "expected is SHA256:", "known_hosts, line 1", "do not go on"}},
		"a key of another type": {known: func(h *host) string {
			return strings.Replace(h.known(), line(h.key.PublicKey()), line(newECDSASigner(t).PublicKey()), 1)
		}, kind: ErrHostKeyMismatch, want: []string{"no key of an expected type"}},
		"a revoked key": {known: func(h *host) string { return h.known() + "@revoked * " + line(h.key.PublicKey()) }, kind: ErrHostKeyMismatch,
			want: []string{"is revoked (", "known_hosts, line 2"}},
		"a revoked authority": {known: func(h *host) string {
			return "@cert-authority * " + line(authority.PublicKey()) + "\n@revoked * " + line(authority.PublicKey())
		}, kind: ErrHostKeyMismatch, want: []string{"is revoked"}},
		"an authority for others": {known: func(h *host) string { return "@cert-authority *.example.com " + line(authority.PublicKey()) }, kind: ErrHostKeyUnknown},
		"checks turned off": {known: func(h *host) string { return "" }, more: []string{"StrictHostKeyChecking no", "VerifyHostKeyDNS yes", "CheckHostIP no"},
			kind: ErrHostKeyUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, certifiedHost)
			conn, err := Connect(t.Context(), h.own(t, c.known(h), c.more...))
			if c.kind == nil {
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				return
			}
			expect(t, err, c.kind, c.want...)
		})
	}
}

func TestPinnedKeyWinsOverKnownHosts(t *testing.T) {
	h := newHost(t)
	target := h.own(t, "")
	target.HostKey = h.target().HostKey
	c, err := Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	target = h.own(t, h.known())
	target.HostKey = line(newSigner(t).PublicKey())
	_, err = Connect(t.Context(), target)
	expect(t, err, ErrHostKeyMismatch)
	target = h.own(t, "")
	target.KnownHosts = "# in the configuration\n" + h.known()
	if c, err = Connect(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestRevokedHostKeysAreRefused(t *testing.T) {
	h := newHost(t)
	file := filepath.Join(t.TempDir(), "revoked")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# none\n" + line(newSigner(t).PublicKey()) + "\n")
	c, err := Connect(t.Context(), h.own(t, h.known(), "RevokedHostKeys "+file))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	write(line(h.key.PublicKey()) + "\n")
	_, err = Connect(t.Context(), h.own(t, h.known(), "RevokedHostKeys "+file))
	expect(t, err, ErrHostKeyMismatch, "is revoked", file+", line 1")
	write("SSHKRL\n\x00")
	_, err = Connect(t.Context(), h.own(t, h.known(), "RevokedHostKeys "+file))
	expect(t, err, ErrSSHConfig, "binary list")
	_, err = Connect(t.Context(), h.own(t, h.known(), "RevokedHostKeys "+file+"x"))
	expect(t, err, ErrSSHConfig, "no such file")
}

// TestKnownHostsAreFoundWhereSSHFindsThem compares with ssh-keygen -F.
func TestKnownHostsAreFoundWhereSSHFindsThem(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("ssh-keygen is not installed")
	}
	key := line(newSigner(t).PublicKey())
	plain := []string{
		"web.example.com", "web.example.com,192.0.2.1", "*.example.com,!db.example.com", "[web.example.com]:2222", "[*.example.com]:2222",
		"192.0.2.?", "2001:db8::1", "[2001:db8::1]:2222", "WEB.example.com", "*", "!web.example.com,*", "web*,db*",
	}
	names := []string{"web.example.com", "db.example.com", "192.0.2.1", "2001:db8::1", "web", "[web.example.com]:2222", "[db.example.com]:2222", "[2001:db8::1]:2222"}
	file := filepath.Join(t.TempDir(), "known_hosts")
	var text strings.Builder
	for _, hosts := range plain {
		fmt.Fprintf(&text, "%s %s\n", hosts, key)
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	compare := func() {
		t.Helper()
		for _, name := range names {
			known, _, err := knownHosts([]string{file}, "", name)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, k := range known {
				got = append(got, fmt.Sprint(k.line))
			}
			out, _ := exec.Command("ssh-keygen", "-F", name, "-f", file).Output()
			var want []string
			for _, m := range regexp.MustCompile(`found: line (\d+)`).FindAllStringSubmatch(string(out), -1) {
				want = append(want, m[1])
			}
			if strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("%s: got lines %s, ssh-keygen finds %s", name, got, want)
			}
		}
	}
	compare()
	// Now with hashed names, which patterns cannot be.
	if out, err := exec.Command("ssh-keygen", "-H", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if hashed, err := os.ReadFile(file); err != nil || !strings.Contains(string(hashed), "|1|") {
		t.Fatalf("nothing is hashed: %v", err)
	}
	compare()
}

func TestHostThatHangsInTheHandshakeIsGivenUp(t *testing.T) {
	for name, answer := range map[string]func(net.Conn){
		"after nothing":      func(net.Conn) {},
		"after its version":  func(c net.Conn) { c.Write([]byte("SSH-2.0-Hanging\r\n")) },
		"with half a packet": func(c net.Conn) { c.Write([]byte("SSH-2.0-Hanging\r\n\x00\x00\x01\x00\x0a\x14")) },
		"with other words":   func(c net.Conn) { c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) },
		"by closing":         func(c net.Conn) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go func() {
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					defer c.Close()
					answer(c)
				}
			}()
			target := h.target()
			target.Port = listener.Addr().(*net.TCPAddr).Port
			ctx, cancel := expiring(t)
			defer cancel()
			if name == "after its version" {
				own := h.own(t, "", "ConnectTimeout 1")
				own.HostKey, own.Port = target.HostKey, target.Port
				target, ctx = own, t.Context()
			}
			start := time.Now()
			_, err = Connect(ctx, target)
			expect(t, err, ErrUnreachable)
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestHostThatHangsAfterTheLoginIsGivenUp(t *testing.T) {
	h := newHost(t, func(h *host) { h.deaf = true })
	c, err := Connect(t.Context(), h.target())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := expiring(t)
	defer cancel()
	start := time.Now()
	_, err = c.Run(ctx, "look", "true")
	expect(t, err, ErrUnreachable, "in time")
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	var e *Error
	if !errors.As(err, &e) || e.Step != "look" {
		t.Errorf("got %v", err)
	}
}
