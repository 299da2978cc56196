package provision

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/crypto/ssh"
)

// ShownKey is the key that a host has shown, and proved to have, before anybody
// logged in.
type ShownKey struct {
	// Key is what a Target's HostKey can be: the public key as a line of
	// authorized_keys, or, where a certificate is trusted because of it, that of the
	// authority after "@cert-authority ".
	Key string
	// Type is such as ED25519, and Fingerprint as ssh-keygen -l prints it, both of the
	// host's own key.
	Type, Fingerprint string
	// Known says that it is the expected one, by the Target or by known_hosts. If it is
	// not, nothing has said which key to expect.
	Known bool
}

// ShowHostKey asks a host for its key and does not log in, though it does to jump
// hosts. A key that is not the expected one is ErrHostKeyMismatch. One of which
// nobody knows whether it is right is no error: that is what is asked for.
func ShowHostKey(ctx context.Context, t Target) (ShownKey, error) {
	hops, err := t.route()
	if err != nil {
		return ShownKey{}, named(err, t)
	}
	last := hops[len(hops)-1]
	var via *jump
	if len(hops) > 1 {
		if via, err = jumps.acquire(ctx, hops[:len(hops)-1]); err != nil {
			return ShownKey{}, named(err, t)
		}
		defer jumps.release(via)
	}
	ctx, cancel := context.WithTimeout(ctx, last.timeout)
	defer cancel()
	var shown []string
	var wrong []*keyError
	allWrong := func() error { return named(last.keyFailure(last.verify.none(wrong)), t) }
	for {
		asked := last.verify.algorithms(shown)
		if len(asked) == 0 {
			return ShownKey{}, allWrong()
		}
		key, verdict, err := last.show(ctx, via, asked)
		var refusal *keyError
		switch {
		case errors.As(err, &refusal) && len(wrong) > 0: // it has no other types of key
			return ShownKey{}, allWrong()
		case errors.As(err, &refusal):
			return ShownKey{}, named(last.keyFailure(refusal), t)
		case err != nil:
			return ShownKey{}, named(err, t)
		case verdict == nil:
			return describeKey(key, last.verify, true), nil
		case !errors.As(verdict, &refusal):
			return ShownKey{}, named(verdict, t)
		case errors.Is(refusal.kind, ErrHostKeyUnknown):
			return describeKey(key, last.verify, false), nil
		case !last.verify.open():
			return ShownKey{}, named(last.keyFailure(refusal), t)
		}
		// Only a fingerprint is known: the host may have it with another type of key.
		shown, wrong = append(shown, refusal.shown), append(wrong, refusal)
	}
}

// show makes a connection that ends when the host has shown its key, and returns
// that with what the verifier says.
func (h hop) show(ctx context.Context, via *jump, algorithms []string) (key ssh.PublicKey, verdict, err error) {
	inner := h.verify
	looking := *inner
	looking.witness = func(k ssh.PublicKey, err error) { key, verdict = k, err }
	h.verify = &looking
	client, err := h.attempt(ctx, via, &keyring{}, algorithms)
	if client != nil {
		client.Close()
	}
	if key != nil {
		return key, verdict, nil
	}
	return nil, nil, err
}

// describeKey says which key it is, for people and for a configuration.
func describeKey(key ssh.PublicKey, v *verifier, known bool) ShownKey {
	line := func(k ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) }
	plain := key
	s := ShownKey{Known: known}
	if c, certified := key.(*ssh.Certificate); certified {
		plain = c.Key
		byKey := v.pinned != nil && v.pinned.authority == nil
		for _, k := range v.known {
			byKey = byKey || v.pinned == nil && !k.authority && same(k.key, plain)
		}
		if known && !byKey {
			s.Key = authorityMarker + " " + line(c.SignatureKey)
		}
	}
	if s.Key == "" {
		s.Key = line(plain)
	}
	s.Fingerprint = ssh.FingerprintSHA256(plain)
	s.Type = strings.ToUpper(fileType(plain.Type()))
	return s
}
