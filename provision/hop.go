package provision

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/infractl/infractl/provision/ask"
)

const (
	// hopLimit is through how many jump hosts a host may be reached. Nobody needs
	// more, and one that leads to itself is found out this way.
	hopLimit = 8
	// longestConnect bounds ConnectTimeout, so that a typing error does not make
	// a run hang for days.
	longestConnect = 5 * time.Minute
	// redials is how often a connection to a jump host is tried again that its
	// sshd dropped before it said who it is, and redialPause the time before the
	// first of them. It does so at random while many connections are about to log
	// in (MaxStartups), and with a jump host, all hosts behind it would be lost.
	redials     = 3
	redialPause = 300 * time.Millisecond
	// closeTime is how long closing may take where it needs an answer.
	closeTime = time.Second
)

// hop is one host on the way, the last one the target itself.
type hop struct {
	// jump is how a jump host was called; it is empty for the target.
	jump    string
	address string
	port    int
	user    string
	// network is tcp, tcp4 or tcp6.
	network string
	timeout time.Duration
	verify  *verifier
	// keys looks up the keys for the login, without those that cannot be unlocked.
	keys func(ctx context.Context, without []*lockedKey) (*keyring, error)
	// same is equal for hops that are the same for all that matters.
	same string
}

func (h hop) endpoint() string { return net.JoinHostPort(h.address, strconv.Itoa(h.port)) }

// step is the step in errors.
func (h hop) step() string {
	if h.jump != "" {
		return fmt.Sprintf("connect to the jump host %s (%s)", h.jump, h.endpoint())
	}
	return "connect to " + h.endpoint()
}

// wrongHostKey is what to do about a host key in the configuration that is none.
const wrongHostKey = "give its public host key as a line such as \"ssh-ed25519 AAAA…\", its fingerprint such as \"SHA256:…\", or \"@cert-authority \" and the key of its authority"

// route is the way to the target: its jump hosts, and the target.
func (t Target) route() ([]hop, error) {
	last := hop{address: t.Address, port: t.port(), user: t.User, network: "tcp", timeout: dialTimeout}
	through := t.Jump
	last.keys = func(ctx context.Context, _ []*lockedKey) (*keyring, error) { return handed(ctx) }
	var s *settings
	if t.Own {
		var err error
		if s, err = readSettings(t.Address, t.User, t.Port); err != nil {
			return nil, configError("connect to "+t.Address, err)
		}
		last = s.hop()
		if through == "" {
			through = s.jump
		}
	}
	last.verify = &verifier{host: t.Address, names: certificateNames(t.Address)}
	if t.Own {
		var err error
		if last.verify, err = s.verifier(t.KnownHosts); err != nil {
			return nil, configError(last.step(), err)
		}
	}
	if t.HostKey != "" || !t.Own {
		pinned, err := parseHostKey(t.HostKey)
		if err != nil {
			return nil, &Error{Step: last.step(), Kinds: []error{ErrDesired}, Hint: wrongHostKey, Err: fmt.Errorf("the expected host key cannot be read: %w", err)}
		}
		last.verify.pinned = &pinned
	}
	hops, err := jumpHops(through, t.KnownHosts, nil)
	if err != nil {
		return nil, configError(last.step(), err)
	}
	return append(hops, last), nil
}

func configError(step string, err error) error {
	return &Error{Step: step, Kinds: []error{ErrSSHConfig}, Err: err, Hint: "correct it, or see docs/ssh.md for what infractl reads of ~/.ssh/config"}
}

// jumpHops are the hops for a value of ProxyJump. behind are the jump hosts that
// are reached through these.
func jumpHops(through, inline string, behind []string) ([]hop, error) {
	list, err := parseJumps(through)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	var hops []hop
	for i, j := range list {
		s, err := readSettings(j.host, j.user, j.port)
		if err != nil {
			return nil, err
		}
		// The first one may need jump hosts itself; the way to the others is
		// said here.
		if i == 0 && s.jump != "" {
			way := append([]string{j.String()}, behind...)
			if len(way) > hopLimit {
				return nil, fmt.Errorf("ProxyJump leads in a circle, or through more than %d hosts: %s", hopLimit, strings.Join(way, ", "))
			}
			if hops, err = jumpHops(s.jump, inline, way); err != nil {
				return nil, err
			}
		}
		h := s.hop()
		h.jump = j.String()
		if h.verify, err = s.verifier(inline); err != nil {
			return nil, err
		}
		// The same lines of known_hosts, users and keys: what differs
		// between two targets is what their configuration says itself.
		h.same = strings.Join([]string{h.jump, h.address, strconv.Itoa(h.port), h.user, inline}, "\x00")
		hops = append(hops, h)
	}
	if len(hops) > hopLimit {
		return nil, fmt.Errorf("ProxyJump %s leads through more than %d hosts", through, hopLimit)
	}
	return hops, nil
}

// hop is the way to the host that the settings are for.
func (s *settings) hop() hop {
	h := hop{address: s.hostName, port: s.port, user: s.user, network: s.family, timeout: dialTimeout, keys: s.keyring}
	if s.timeout > 0 {
		h.timeout = min(s.timeout, longestConnect)
	}
	return h
}

// verifier judges the host by the known_hosts files. inline are lines that hold
// beside them.
func (s *settings) verifier(inline string) (*verifier, error) {
	names := []string{knownName(s.hostName, s.port), s.hostName}
	v := &verifier{host: s.original, names: certificateNames(s.hostName)}
	if s.hostKeyAlias != "" {
		names, v.names = []string{s.hostKeyAlias}, certificateNames(s.hostKeyAlias)
	}
	var err error
	if v.known, v.revoked, err = knownHosts(append(s.userKnownHosts[:len(s.userKnownHosts):len(s.userKnownHosts)], s.globalKnownHosts...), inline, names...); err != nil {
		return nil, err
	}
	if s.revokedHostKeys != "" {
		more, err := revokedKeys(s.revokedHostKeys)
		if err != nil {
			return nil, err
		}
		v.revoked = append(v.revoked, more...)
	}
	return v, nil
}

// dial logs in to the host, through another one if via is not nil. Its errors
// do not name the target.
func (h hop) dial(ctx context.Context, via *jump) (*ssh.Client, error) {
	var without []*lockedKey
	for {
		client, keys, err := h.login(ctx, via, without)
		if err == nil || keys == nil {
			return client, err
		}
		// The host may have accepted a key that has a passphrase. A person takes
		// longer to type it than a host waits for a login, so that needs
		// another connection.
		again := false
		for _, k := range keys.locked {
			if !k.wanted {
				continue
			}
			again = true
			switch reason := k.unlock(ctx); {
			case reason == nil:
			case errors.Is(reason, ask.ErrNobody):
				without = append(without, k)
			default:
				return nil, &Error{Step: h.step(), Kinds: []error{ErrAuthFailed, ErrCredentials}, Err: reason, Hint: "run it again, or load the key into an SSH agent: ssh-add " + k.file}
			}
		}
		if !again {
			if len(without) > 0 {
				return nil, h.lockedOut(without[0])
			}
			return nil, err
		}
	}
}

// login tries to log in once, but for host keys of which only the fingerprint is
// known: then the host may have to be asked for one type after the other. The
// keyring is that which was tried, if the host refused it.
func (h hop) login(ctx context.Context, via *jump, without []*lockedKey) (*ssh.Client, *keyring, error) {
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	keys, err := h.keys(ctx, without)
	if err != nil && len(without) > 0 {
		return nil, nil, h.lockedOut(without[0])
	}
	if err != nil {
		return nil, nil, &Error{Step: h.step(), Kinds: []error{ErrAuthFailed, ErrCredentials}, Err: err,
			Hint: "set " + identityVariable + " to the file of a private key that the host accepts, or load it into an SSH agent"}
	}
	defer keys.free()
	var shown []string
	var wrong []*keyError
	var last *keyError
	again := 0
	for {
		asked := h.verify.algorithms(shown)
		if len(asked) == 0 {
			break
		}
		client, err := h.attempt(ctx, via, keys, asked)
		var key *keyError
		var dropped *droppedError
		switch {
		case err == nil:
			return client, nil, nil
		case h.jump != "" && errors.As(err, &dropped) && again < redials:
			again++
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(again) * redialPause):
			}
			continue
		case !errors.As(err, &key):
			var e *Error
			if errors.As(err, &e) && errors.Is(e, ErrAuthFailed) {
				return nil, keys, err
			}
			return nil, nil, err
		case !h.verify.open():
			return nil, nil, h.keyFailure(key)
		}
		last = key
		if key.shown == "" {
			// It has no key of the types that were asked for: if that was
			// the type of last time, the host may have others now.
			if remembered := h.verify.forget(); remembered == "" || len(shown) > 0 {
				break
			}
			continue
		}
		h.verify.forget()
		shown, wrong = append(shown, key.shown), append(wrong, key)
	}
	if len(wrong) > 0 {
		none := h.verify.none(wrong)
		last.detail, last.hint = none.detail, none.hint
	}
	return nil, nil, h.keyFailure(last)
}

// lockedOut says that the host would have taken a key, but for its passphrase.
func (h hop) lockedOut(k *lockedKey) error {
	return &Error{Step: h.step(), Kinds: []error{ErrAuthFailed, ErrCredentials},
		Err:  fmt.Errorf("%s has a passphrase, and there is no terminal to ask for it on", k.file),
		Hint: "load it into an SSH agent (ssh-add " + k.file + "), or run infractl on a terminal"}
}

func (h hop) keyFailure(key *keyError) error {
	return &Error{Step: h.step(), Kinds: []error{key.kind}, Err: key, Hint: key.hint}
}

// attempt makes one connection and logs in. It fails with a *keyError if it is
// about the host's key.
func (h hop) attempt(ctx context.Context, via *jump, keys *keyring, algorithms []string) (*ssh.Client, error) {
	fail := func(hint string, err error, kinds ...error) error {
		return &Error{Step: h.step(), Kinds: kinds, Hint: hint, Err: err}
	}
	unreachable := fmt.Sprintf("check that it runs, and that its firewall and the network let this computer in on port %d", h.port)
	raw, err := h.open(ctx, via)
	if via != nil {
		unreachable = fmt.Sprintf("check that it runs, and that its firewall and the network let the jump host %s in on port %d", via.name, h.port)
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) && refused.Reason == ssh.Prohibited {
			unreachable = fmt.Sprintf("the sshd of the jump host %s must allow it: AllowTcpForwarding and PermitOpen in its sshd_config", via.name)
		}
	}
	if err != nil {
		return nil, fail(unreachable, err, ErrUnreachable)
	}
	if deadline, ok := ctx.Deadline(); ok {
		raw.SetDeadline(deadline) // what goes through a jump host has none
	}
	type outcome struct {
		conn     ssh.Conn
		channels <-chan ssh.NewChannel
		requests <-chan *ssh.Request
		err      error
	}
	var refusal atomic.Pointer[keyError]
	var introduced atomic.Bool
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		o.conn, o.channels, o.requests, o.err = ssh.NewClientConn(raw, h.endpoint(), &ssh.ClientConfig{
			User:              h.user,
			Auth:              []ssh.AuthMethod{ssh.PublicKeys(keys.signers...)},
			HostKeyAlgorithms: algorithms,
			HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
				introduced.Store(true)
				err := h.verify.check(key)
				var e *keyError
				if errors.As(err, &e) {
					refusal.Store(e)
				}
				return err
			},
		})
		done <- o
	}()
	var o outcome
	select {
	case o = <-done:
	case <-ctx.Done():
		// Closing ends the handshake, though through a jump host that hangs
		// only when the connection to that is closed.
		go func() {
			raw.Close()
			if o := <-done; o.err == nil {
				o.conn.Close()
			}
		}()
		return nil, fail(unreachable, context.Cause(ctx), ErrUnreachable)
	}
	if o.err == nil {
		raw.SetDeadline(time.Time{})
		return ssh.NewClient(o.conn, o.channels, o.requests), nil
	}
	raw.Close()
	if key := refusal.Load(); key != nil {
		return nil, key
	}
	var negotiation *ssh.AlgorithmNegotiationError
	words := o.err.Error()
	switch {
	case errors.As(o.err, &negotiation) && strings.Contains(words, "host key"):
		return nil, h.verify.missing(o.err)
	case ctx.Err() != nil:
		return nil, fail(unreachable, context.Cause(ctx), ErrUnreachable)
	case strings.Contains(strings.ToLower(words), "too many authentication failures"):
		return nil, fail(fmt.Sprintf("choose the right one: set %s to its file, or give the host IdentityFile and IdentitiesOnly yes in ~/.ssh/config", identityVariable),
			fmt.Errorf("it gave up after too many keys (most hosts take %d) and was offered, in this order: %s", attempts, strings.Join(keys.names, ", ")), ErrAuthFailed)
	case strings.Contains(words, "agent: "):
		return nil, fail("unlock the agent, confirm the use of the key, or set "+identityVariable+" to a key file", o.err, ErrAuthFailed)
	case strings.Contains(words, "unable to authenticate"), errors.Is(o.err, errLocked):
		return nil, fail(fmt.Sprintf("check that the public key is in the authorized_keys of %s there", h.user),
			fmt.Errorf("user %s with %s%s", h.user, strings.Join(keys.names, ", "), trailing(keys.notes)), ErrAuthFailed)
	}
	if !introduced.Load() && (errors.Is(o.err, io.EOF) || errors.Is(o.err, syscall.ECONNRESET)) {
		o.err = &droppedError{o.err}
	}
	return nil, fail(unreachable, o.err, ErrUnreachable)
}

// droppedError is for a connection that ended before the host said who it is.
type droppedError struct{ error }

func (e *droppedError) Unwrap() error { return e.error }

// open makes the connection that SSH is spoken over.
func (h hop) open(ctx context.Context, via *jump) (net.Conn, error) {
	if via == nil {
		var d net.Dialer
		return d.DialContext(ctx, h.network, h.endpoint())
	}
	return via.client.DialContext(ctx, "tcp", h.endpoint())
}

// closeClient closes a connection. Through a jump host that needs its answer,
// which is not waited for for long.
func closeClient(client *ssh.Client, via *jump) {
	if via == nil {
		client.Close()
		return
	}
	done := make(chan struct{})
	go func() { client.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(closeTime):
	}
}
