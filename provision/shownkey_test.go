package provision

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// strange is a host's target of which nothing is known, but for lines of known_hosts.
func (h *host) strange(t *testing.T, lines string) Target {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config")
	known := filepath.Join(t.TempDir(), "known_hosts")
	for name, text := range map[string]string{config: fmt.Sprintf("Host *\n  UserKnownHostsFile %s\n  GlobalKnownHostsFile none\n", known), known: lines} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("INFRACTL_SSH_CONFIG", config)
	target := h.target()
	target.HostKey, target.Own = "", true
	return target
}

func TestHostShowsItsKeyToWhoDoesNotKnowIt(t *testing.T) {
	h := newHost(t)
	key, err := ShowHostKey(t.Context(), h.strange(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	want := ShownKey{Key: line(h.key.PublicKey()), Type: "ED25519", Fingerprint: ssh.FingerprintSHA256(h.key.PublicKey())}
	if key != want {
		t.Errorf("%+v, not %+v", key, want)
	}
	if h.entered() != 0 || len(h.offered) != 0 {
		t.Errorf("somebody has tried to log in")
	}
}

func TestShownKeyIsHeldAgainstWhatIsKnown(t *testing.T) {
	h := newHost(t)
	other := newSigner(t).PublicKey()
	name := knownName("127.0.0.1", h.target().Port)
	for _, c := range []struct {
		known, hostKey string
		right          bool
	}{
		{known: name + " " + line(h.key.PublicKey()) + "\n", right: true},
		{known: name + " " + line(other) + "\n"},
		{hostKey: line(h.key.PublicKey()), right: true},
		{hostKey: ssh.FingerprintSHA256(h.key.PublicKey()), right: true},
		{hostKey: ssh.FingerprintSHA256(other)},
		{hostKey: line(other)},
		// What is said comes before known_hosts.
		{known: name + " " + line(other) + "\n", hostKey: ssh.FingerprintSHA256(h.key.PublicKey()), right: true},
	} {
		target := h.strange(t, c.known)
		target.HostKey = c.hostKey
		key, err := ShowHostKey(t.Context(), target)
		if c.right && (err != nil || !key.Known || key.Key != line(h.key.PublicKey())) {
			t.Errorf("%+v: %+v, %v", c, key, err)
		}
		if !c.right && (!errors.Is(err, ErrHostKeyMismatch) || !strings.Contains(err.Error(), "web-1: ") || !strings.Contains(err.Error(), ssh.FingerprintSHA256(other))) {
			t.Errorf("%+v: %+v, %v", c, key, err)
		}
	}
}

func TestFingerprintIsFoundAmongSeveralShownKeys(t *testing.T) {
	h, keys := severalKeys(t)
	for _, key := range keys {
		target := h.strange(t, "")
		target.HostKey = ssh.FingerprintSHA256(key.PublicKey())
		got, err := ShowHostKey(t.Context(), target)
		if err != nil || got.Key != line(key.PublicKey()) || !got.Known {
			t.Errorf("%s: %+v, %v", key.PublicKey().Type(), got, err)
		}
	}
}

func TestCertificateIsWrittenDownAsItsAuthority(t *testing.T) {
	authority := newSigner(t)
	h := newHost(t, func(h *host) { h.config.AddHostKey(certify(t, authority, h.key, nil)) })
	target := h.strange(t, "@cert-authority * "+line(authority.PublicKey())+"\n")
	key, err := ShowHostKey(t.Context(), target)
	if err != nil || key.Key != "@cert-authority "+line(authority.PublicKey()) || key.Fingerprint != ssh.FingerprintSHA256(h.key.PublicKey()) || !key.Known {
		t.Errorf("%+v, %v", key, err)
	}
}

func TestKeyIsNotShownByWhoIsNotThere(t *testing.T) {
	h := newHost(t)
	target := h.strange(t, "")
	h.listener.Close()
	if _, err := ShowHostKey(t.Context(), target); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
}
