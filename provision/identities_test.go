package provision

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/infractl/infractl/provision/ask"
)

// acceptAll lets several keys in.
func acceptAll(keys ...ssh.PublicKey) func(*host) {
	return func(h *host) {
		h.config.PublicKeyCallback = func(_ ssh.ConnMetadata, offered ssh.PublicKey) (*ssh.Permissions, error) {
			h.mu.Lock()
			h.offered = append(h.offered, ssh.FingerprintSHA256(offered))
			h.mu.Unlock()
			for _, key := range keys {
				if bytes.Equal(offered.Marshal(), key.Marshal()) {
					return nil, nil
				}
			}
			return nil, errors.New("unknown key")
		}
	}
}

// tried returns the keys that were offered, without repetition, and forgets them.
func (h *host) tried() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for _, f := range h.offered {
		if len(out) == 0 || out[len(out)-1] != f {
			out = append(out, f)
		}
	}
	h.offered = nil
	return out
}

// public writes the public half beside a key.
func (k testKey) public(t *testing.T) string {
	t.Helper()
	if err := os.WriteFile(k.file+".pub", ssh.MarshalAuthorizedKey(k.signer.PublicKey()), 0o644); err != nil {
		t.Fatal(err)
	}
	return k.file + ".pub"
}

func fingerprint(k testKey) string { return ssh.FingerprintSHA256(k.signer.PublicKey()) }

func TestKeysAreOfferedBestFirst(t *testing.T) {
	named, second, held, variable := identityFile(t, ""), identityFile(t, ""), identityFile(t, ""), identityFile(t, "")
	usual := identityFile(t, "")
	startAgent(t, held, named)
	socket := os.Getenv(agentVariable)
	home := t.TempDir()
	t.Setenv("HOME", home)
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(usual.file, filepath.Join(home, ".ssh", "id_ed25519")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config   string
		variable string
		want     []testKey
	}{
		"what an agent holds, then the usual files": {"", "", []testKey{held, named, usual}},
		"what is named, then what an agent holds":   {"IdentityFile " + second.file, "", []testKey{second, held, named}},
		"what is named only":                        {"IdentitiesOnly yes\nIdentityFile " + second.file, "", []testKey{second}},
		"what an agent holds of it":                 {"IdentitiesOnly yes\nIdentityFile " + named.file, "", []testKey{named}},
		"several, in order":                         {"IdentitiesOnly yes\nIdentityFile " + second.file + "\nIdentityFile " + held.file, "", []testKey{second, held}},
		"no agent":                                  {"IdentityAgent none", "", []testKey{usual}},
		"the usual files only":                      {"IdentitiesOnly yes", "", []testKey{usual}},
		"the variable's only":                       {"", variable.file, []testKey{variable}},
		"the variable's, then what is named":        {"IdentityFile " + second.file, variable.file, []testKey{variable, second}},
		"a file that is not there":                  {"IdentityFile /nowhere\nIdentityFile " + second.file, "", []testKey{second, held, named}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, acceptAll())
			t.Setenv(agentVariable, socket)
			t.Setenv(identityVariable, c.variable)
			_, err := Connect(t.Context(), h.own(t, h.known(), c.config))
			var want []string
			for _, k := range c.want {
				want = append(want, fingerprint(k))
			}
			expect(t, err, ErrAuthFailed, want...)
			if got := h.tried(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("offered %v\nwant %v", got, want)
			}
		})
	}
}

func TestPublicKeyChoosesOneOfTheAgent(t *testing.T) {
	right := identityFile(t, "")
	keys := []testKey{right}
	for range 8 {
		keys = append([]testKey{identityFile(t, "")}, keys...)
	}
	h := newHost(t, acceptAll(right.signer.PublicKey()), func(h *host) { h.config.MaxAuthTries = attempts })
	t.Setenv(identityVariable, "")
	startAgent(t, keys...)
	// Without a word, the host gives up before the right one is offered.
	_, err := Connect(t.Context(), h.own(t, h.known()))
	expect(t, err, ErrAuthFailed, "too many keys", "IdentitiesOnly yes", identityVariable, fingerprint(keys[0])+" (the agent), "+fingerprint(keys[1]))
	public := right.public(t)
	for _, config := range []string{"IdentityFile " + public, "IdentityFile " + strings.TrimSuffix(public, ".pub"), "IdentitiesOnly yes\nIdentityFile " + public} {
		if err := os.Remove(right.file); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		c, err := Connect(t.Context(), h.own(t, h.known(), config))
		if err != nil {
			t.Fatalf("%s: %v", config, err)
		}
		c.Close()
	}
	_, err = Connect(t.Context(), h.own(t, h.known(), "IdentityAgent none\nIdentitiesOnly yes\nIdentityFile "+public))
	expect(t, err, ErrCredentials, "is in no agent", "ssh-add "+right.file)
}

func TestAgentThatIsGoneIsNotTheEnd(t *testing.T) {
	key := identityFile(t, "")
	h := newHost(t, accept(key))
	t.Setenv(identityVariable, "")
	t.Setenv(agentVariable, "/nowhere/agent")
	c, err := Connect(t.Context(), h.own(t, h.known(), "IdentityFile "+key.file))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	t.Setenv("HOME", t.TempDir())
	_, err = Connect(t.Context(), h.own(t, h.known()))
	expect(t, err, ErrCredentials, "/nowhere/agent", "does not answer")
}

// answering serves questions for a test.
func answering(t *testing.T, answer func(q ask.Question) (string, error)) *[]ask.Question {
	t.Helper()
	var mu sync.Mutex
	asked := &[]ask.Question{}
	t.Setenv(ask.Variable, "")
	s, err := ask.Serve(func(_ context.Context, q ask.Question) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		*asked = append(*asked, q)
		return answer(q)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return asked
}

func TestPassphraseIsAskedForOnceAndOnlyIfTheHostTakesTheKey(t *testing.T) {
	locked := identityFile(t, "open sesame")
	h := newHost(t, accept(locked))
	other := newHost(t, acceptAll())
	t.Setenv(identityVariable, "")
	asked := answering(t, func(ask.Question) (string, error) { return "open sesame", nil })
	_, err := Connect(t.Context(), other.own(t, other.known(), "IdentityFile "+locked.file))
	expect(t, err, ErrAuthFailed, fingerprint(locked))
	if len(*asked) > 0 {
		t.Errorf("asked for %v", *asked)
	}
	target := h.own(t, h.known(), "IdentityFile "+locked.file)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c, err := Connect(t.Context(), target)
			if err != nil {
				t.Error(err)
				return
			}
			c.Close()
		})
	}
	wg.Wait()
	if len(*asked) != 1 || (*asked)[0] != (ask.Question{Kind: ask.Passphrase, Subject: locked.file}) {
		t.Errorf("asked for %v", *asked)
	}
}

func TestPassphraseThatNobodyCanBeAskedFor(t *testing.T) {
	locked, open := identityFile(t, "open sesame"), identityFile(t, "")
	h := newHost(t, acceptAll(locked.signer.PublicKey(), open.signer.PublicKey()))
	t.Setenv(identityVariable, "")
	t.Setenv(ask.Variable, "")
	_, err := Connect(t.Context(), h.own(t, h.known(), "IdentitiesOnly yes\nIdentityFile "+locked.file))
	expect(t, err, ErrCredentials, locked.file+" has a passphrase", "no terminal", "ssh-add "+locked.file)
	// Another key that does without is used.
	c, err := Connect(t.Context(), h.own(t, h.known(), "IdentityFile "+locked.file+"\nIdentityFile "+open.file))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	answering(t, func(ask.Question) (string, error) { return "", errors.New("wrong passphrase, three times") })
	_, err = Connect(t.Context(), h.own(t, h.known(), "IdentityFile "+locked.file))
	expect(t, err, ErrCredentials, "wrong passphrase, three times")
}

// userCertificate signs a user's key and writes the certificate beside it.
func userCertificate(t *testing.T, authority ssh.Signer, key testKey, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	c := &ssh.Certificate{
		Key: key.signer.PublicKey(), CertType: ssh.UserCert, KeyId: "anna", ValidPrincipals: []string{"infractl"},
		ValidAfter: uint64(time.Now().Add(-time.Hour).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
	}
	if change != nil {
		change(c)
	}
	if err := c.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key.file+"-cert.pub", ssh.MarshalAuthorizedKey(c), 0o644); err != nil {
		t.Fatal(err)
	}
	return c
}

// trusting makes a host that lets in whom an authority certifies.
func trusting(authority ssh.Signer) func(*host) {
	return func(h *host) {
		checker := ssh.CertChecker{IsUserAuthority: func(key ssh.PublicKey) bool { return same(key, authority.PublicKey()) }}
		h.config.PublicKeyCallback = checker.Authenticate
	}
}

func TestCertificatesOfUsers(t *testing.T) {
	authority := newSigner(t)
	key := identityFile(t, "")
	c := userCertificate(t, authority, key, nil)
	h := newHost(t, trusting(authority))
	t.Setenv(identityVariable, "")
	t.Setenv("HOME", t.TempDir())
	login := func(t *testing.T, config string) {
		t.Helper()
		conn, err := Connect(t.Context(), h.own(t, h.known(), config))
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	t.Run("beside the key", func(t *testing.T) { login(t, "IdentityFile "+key.file) })
	t.Run("beside the variable's key", func(t *testing.T) {
		t.Setenv(identityVariable, key.file)
		login(t, "")
	})
	elsewhere := filepath.Join(t.TempDir(), "certificate.pub")
	if err := os.Rename(key.file+"-cert.pub", elsewhere); err != nil {
		t.Fatal(err)
	}
	t.Run("named", func(t *testing.T) { login(t, "CertificateFile "+elsewhere+"\nIdentityFile "+key.file) })
	t.Run("named, with the key in the agent", func(t *testing.T) {
		startAgent(t, key)
		login(t, "CertificateFile "+elsewhere)
	})
	t.Run("in the agent", func(t *testing.T) {
		ring := agent.NewKeyring()
		if err := ring.Add(agent.AddedKey{PrivateKey: key.private, Certificate: c}); err != nil {
			t.Fatal(err)
		}
		serveAgent(t, ring)
		login(t, "")
	})
	t.Run("with a passphrase", func(t *testing.T) {
		locked := identityFile(t, "open sesame")
		userCertificate(t, authority, locked, nil)
		asked := answering(t, func(ask.Question) (string, error) { return "open sesame", nil })
		login(t, "IdentityFile "+locked.file)
		if len(*asked) != 1 {
			t.Errorf("asked for %v", *asked)
		}
	})
}

func TestCertificateThatTheHostRefusesIsExplained(t *testing.T) {
	authority := newSigner(t)
	hour := func(hours int) uint64 { return uint64(time.Now().Add(time.Duration(hours) * time.Hour).Unix()) }
	for name, c := range map[string]struct {
		change func(*ssh.Certificate)
		want   []string
	}{
		"expired":       {func(c *ssh.Certificate) { c.ValidBefore = hour(-1) + 1800 }, []string{`certificate "anna" was valid until`, "this computer's clock says", "an hour off"}},
		"not yet valid": {func(c *ssh.Certificate) { c.ValidAfter = hour(1) - 60 }, []string{"is not valid before", "this computer's clock says", "an hour off"}},
		"for others":    {func(c *ssh.Certificate) { c.ValidPrincipals = []string{"bob", "carol"} }, []string{"is for bob, carol, not for infractl"}},
		"for hosts":     {func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, []string{"for hosts, not for users"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, trusting(authority))
			key := identityFile(t, "")
			userCertificate(t, authority, key, c.change)
			t.Setenv(identityVariable, "")
			_, err := Connect(t.Context(), h.own(t, h.known(), "IdentityFile "+key.file))
			expect(t, err, ErrAuthFailed, append(c.want, fingerprint(key))...)
		})
	}
}

func TestCertificatesThatCannotBeReadAreNamed(t *testing.T) {
	key := identityFile(t, "")
	h := newHost(t, acceptAll())
	t.Setenv(identityVariable, "")
	public := key.public(t)
	_, err := Connect(t.Context(), h.own(t, h.known(), "IdentityFile "+key.file+"\nCertificateFile "+public+"\nCertificateFile /nowhere"))
	expect(t, err, ErrAuthFailed, public+" is a public key, not a certificate", "/nowhere: no such file")
}

// refusing is an agent whose owner does not confirm the use of its keys.
type refusing struct{ agent.Agent }

func (refusing) Sign(ssh.PublicKey, []byte) (*ssh.Signature, error) { return nil, errors.New("no") }

func TestAgentThatDoesNotSignIsSaid(t *testing.T) {
	key := identityFile(t, "")
	h := newHost(t, accept(key))
	t.Setenv(identityVariable, "")
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key.private}); err != nil {
		t.Fatal(err)
	}
	serveAgent(t, refusing{ring})
	_, err := Connect(t.Context(), h.own(t, h.known()))
	expect(t, err, ErrAuthFailed, "agent: ", "unlock the agent")
}

func TestRefusedLoginAtAnOwnHostIsNotTriedAgain(t *testing.T) {
	h := newHost(t, acceptAll())
	_, err := WaitReady(t.Context(), h.own(t, h.known()), Wait{})
	expect(t, err, ErrAuthFailed)
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.connections) != 1 {
		t.Errorf("%d connections", len(h.connections))
	}
}
