package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/infractl/infractl/provision/ask"
)

// keyring is what one login is tried with, best first.
type keyring struct {
	signers []ssh.Signer
	// names say for people what each signer is and where it comes from.
	names []string
	// notes are what may be why a login is refused.
	notes []string
	// locked are the keys that nobody has given the passphrase of.
	locked []*lockedKey
	free   func()
}

// attempts is how many keys a server takes as a rule (MaxAuthTries in sshd_config).
const attempts = 6

// handed makes a keyring of what signers returns.
func handed(ctx context.Context) (*keyring, error) {
	held, free, err := signers(ctx)
	if err != nil {
		return nil, err
	}
	k := &keyring{free: free}
	for _, signer := range held {
		k.add(signer, "")
	}
	return k, nil
}

// add appends a signer, unless its key is there already.
func (k *keyring) add(signer ssh.Signer, from string) {
	if slices.ContainsFunc(k.signers, func(s ssh.Signer) bool { return same(s.PublicKey(), signer.PublicKey()) }) {
		return
	}
	name := ssh.FingerprintSHA256(signer.PublicKey())
	if c := certificateOf(signer.PublicKey()); c != nil {
		name = called(c) + " for " + ssh.FingerprintSHA256(c.Key)
	}
	if from != "" {
		name += " (" + from + ")"
	}
	k.signers, k.names = append(k.signers, signer), append(k.names, name)
}

// certificateOf is the certificate that a public key is, or nil. Keys of an
// agent are parsed here.
func certificateOf(key ssh.PublicKey) *ssh.Certificate {
	if c, ok := key.(*ssh.Certificate); ok {
		return c
	}
	parsed, err := ssh.ParsePublicKey(key.Marshal())
	if err != nil {
		return nil
	}
	c, _ := parsed.(*ssh.Certificate)
	return c
}

// defaultKeys are the files in ~/.ssh that are tried if nothing names others.
var defaultKeys = []string{"id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk"}

// keyring collects the keys for a host: first those that the environment and the
// configuration name, then what else an agent holds, then the usual files.
// without are locked keys that cannot be unlocked.
func (s *settings) keyring(ctx context.Context, without []*lockedKey) (*keyring, error) {
	k := &keyring{free: func() {}}
	files := s.identityFiles
	only := s.identitiesOnly
	variable := os.Getenv(identityVariable)
	if variable != "" {
		files, only = append([]string{variable}, files...), true
	}
	var held []ssh.Signer
	if s.agent != "" {
		var err error
		var free func()
		if held, free, err = agentSigners(ctx, s.agent); err != nil {
			k.notes = append(k.notes, fmt.Sprintf("%s: %v", s.agent, err))
		} else {
			k.free = free
		}
	}
	var certificates []*ssh.Certificate
	for _, name := range s.certificateFiles {
		c, err := readCertificate(name)
		if err != nil {
			k.notes = append(k.notes, "CertificateFile: "+err.Error())
			continue
		}
		certificates = append(certificates, c)
	}
	// with adds a key after the certificates for it.
	with := func(signer ssh.Signer, from string, more ...*ssh.Certificate) {
		for _, c := range append(more, certificates...) {
			if !same(c.Key, signer.PublicKey()) {
				continue
			}
			if certified, err := ssh.NewCertSigner(c, signer); err == nil {
				k.add(certified, from)
			}
		}
		for _, h := range held {
			if c := certificateOf(h.PublicKey()); c != nil && same(c.Key, signer.PublicKey()) {
				k.add(h, "the agent")
			}
		}
		k.add(signer, from)
	}
	for _, h := range held {
		if slices.ContainsFunc(certificates, func(c *ssh.Certificate) bool { return same(c.Key, h.PublicKey()) }) {
			with(h, "the agent")
		}
	}
	file := func(name string, named bool) error {
		signer, from, err := openIdentity(name, held)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !named:
			return nil
		case err != nil && name == variable:
			return fmt.Errorf("%s: %w", identityVariable, err)
		case err != nil:
			k.notes = append(k.notes, err.Error())
			return nil
		}
		if locked, ok := signer.(*lockedKey); ok {
			if slices.ContainsFunc(without, func(l *lockedKey) bool { return l.file == name }) {
				return nil
			}
			k.locked = append(k.locked, locked)
		}
		var beside []*ssh.Certificate
		if c, err := readCertificate(strings.TrimSuffix(name, ".pub") + "-cert.pub"); err == nil {
			beside = append(beside, c)
		} else if !errors.Is(err, fs.ErrNotExist) {
			k.notes = append(k.notes, err.Error())
		}
		with(signer, from, beside...)
		return nil
	}
	for _, name := range files {
		if err := file(name, true); err != nil {
			k.free()
			return nil, err
		}
	}
	if !only {
		for _, h := range held {
			k.add(h, "the agent")
		}
	}
	if len(files) == 0 {
		me, err := whoAmI()
		if err != nil {
			k.free()
			return nil, err
		}
		for _, name := range defaultKeys {
			_ = file(filepath.Join(me.home, ".ssh", name), false) // only the variable's file fails
		}
	}
	if len(k.signers) == 0 {
		k.free()
		return nil, fmt.Errorf("there is no key for it%s", trailing(k.notes))
	}
	for _, signer := range k.signers {
		if c := certificateOf(signer.PublicKey()); c != nil {
			for _, doubt := range doubts(c, s.user) {
				k.notes = append(k.notes, called(c)+" "+doubt)
			}
		}
	}
	return k, nil
}

// trailing makes a list the end of a sentence.
func trailing(notes []string) string {
	if len(notes) == 0 {
		return ""
	}
	return ": " + strings.Join(notes, "; ")
}

// openIdentity finds what signs with the key of a file: the file itself, or the
// agent if that holds the key, or a lockedKey.
func openIdentity(name string, held []ssh.Signer) (signer ssh.Signer, from string, err error) {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		// The private key may be in the agent only.
		public, publicErr := readPublic(name + ".pub")
		if publicErr != nil {
			return nil, "", err
		}
		return inAgent(name, public, held)
	}
	if err != nil {
		return nil, "", err
	}
	if signer, err = ssh.ParsePrivateKey(text); err == nil {
		return signer, name, nil
	}
	var encrypted *ssh.PassphraseMissingError
	if !errors.As(err, &encrypted) {
		// A public key, or a kind of key that only an agent can use.
		public, publicErr := readPublic(name)
		if publicErr != nil {
			public, publicErr = readPublic(name + ".pub")
		}
		if publicErr != nil {
			return nil, "", fmt.Errorf("%s is not an SSH private key: %w", name, err)
		}
		return inAgent(name, public, held)
	}
	public := encrypted.PublicKey
	if public == nil {
		if public, err = readPublic(name + ".pub"); err != nil {
			return nil, "", fmt.Errorf("%s has a passphrase, and there is no %s.pub to know it by", name, name)
		}
	}
	if signer, from, err := inAgent(name, public, held); err == nil {
		return signer, from, nil
	}
	if signer, ok := unlocked.Load(string(public.Marshal())); ok {
		return signer.(ssh.Signer), name, nil
	}
	return &lockedKey{file: name, public: public}, name, nil
}

func readPublic(name string) (ssh.PublicKey, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	return key, err
}

func inAgent(name string, public ssh.PublicKey, held []ssh.Signer) (ssh.Signer, string, error) {
	for _, h := range held {
		if bytes.Equal(h.PublicKey().Marshal(), public.Marshal()) {
			return h, name + ", in the agent", nil
		}
	}
	return nil, "", fmt.Errorf("the key of %s is in no agent; run: ssh-add %s", name, strings.TrimSuffix(name, ".pub"))
}

// lockedKey is a private key whose passphrase is not known here. It can be
// offered; only if a host accepts it, somebody is asked.
type lockedKey struct {
	file   string
	public ssh.PublicKey
	wanted bool
}

var errLocked = errors.New("the key has a passphrase")

// PublicKey is the half of the key that is not secret.
func (k *lockedKey) PublicKey() ssh.PublicKey { return k.public }

// Sign notes that the key is wanted.
func (k *lockedKey) Sign(io.Reader, []byte) (*ssh.Signature, error) {
	k.wanted = true
	return nil, errLocked
}

// SignWithAlgorithm notes that the key is wanted.
func (k *lockedKey) SignWithAlgorithm(io.Reader, []byte, string) (*ssh.Signature, error) {
	return k.Sign(nil, nil)
}

// unlocked are the keys whose passphrase somebody gave, by their public keys.
// They are in this process's memory and nowhere else.
var unlocked sync.Map

// unlock asks for the passphrase.
func (k *lockedKey) unlock(ctx context.Context) error {
	passphrase, err := ask.Ask(ctx, ask.Question{Kind: ask.Passphrase, Subject: k.file})
	if err != nil {
		return err
	}
	text, err := os.ReadFile(k.file)
	if err != nil {
		return err
	}
	signer, err := ssh.ParsePrivateKeyWithPassphrase(text, []byte(passphrase))
	if err != nil {
		return fmt.Errorf("%s: %w", k.file, err)
	}
	unlocked.Store(string(k.public.Marshal()), signer)
	return nil
}
