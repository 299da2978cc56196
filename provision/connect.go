package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Target is how a host is reached.
type Target struct {
	// Name is what the host is called in messages, such as web-1.
	Name string
	// Address is an IP address or a name, Port is 22 if it is 0.
	Address string
	Port    int
	// User logs in; it is root or can become root by sudo without a password.
	User string
	// HostKey is the host's public key, as a line of an authorized_keys file.
	// No other key is accepted, and none is trusted on first use.
	HostKey string
}

func (t Target) port() int {
	if t.Port == 0 {
		return 22
	}
	return t.Port
}

func (t Target) endpoint() string { return net.JoinHostPort(t.Address, strconv.Itoa(t.port())) }

// Times that bound a connection.
const (
	// dialTimeout is for TCP, handshake and login together.
	dialTimeout = 10 * time.Second
	// keepAlive is the time between signs of life, silence how long a host
	// may owe an answer to one before the connection counts as lost. Together
	// they bound how long a frozen host is waited for.
	keepAlive = 5 * time.Second
	silence   = 15 * time.Second
	// bootTimeout is for a host's first boot.
	bootTimeout = 5 * time.Minute
	// bootLogin is how long a booting host may refuse the login: its users
	// can appear after its SSH server.
	bootLogin = 20 * time.Second
)

// Conn is a connection to a host. Methods that only look, and those that run
// scripts, may be called at the same time; Apply and Remove must be alone.
type Conn struct {
	target Target
	client *ssh.Client
	stop   chan struct{}
	once   sync.Once
}

// Connect logs in to a host. It fails with ErrUnreachable, ErrHostKeyMismatch
// or ErrAuthFailed. The context covers the connecting only; every later call
// has one of its own.
func Connect(ctx context.Context, t Target) (*Conn, error) {
	const step = "connect"
	fail := func(hint string, err error, kinds ...error) error {
		return &Error{Host: t.Name, Step: step + " to " + t.endpoint(), Kinds: kinds, Hint: hint, Err: err}
	}
	pinned, _, _, _, err := ssh.ParseAuthorizedKey([]byte(t.HostKey))
	if err != nil {
		return nil, fail("give its public host key as a line such as \"ssh-ed25519 AAAA…\"", fmt.Errorf("the expected host key cannot be read: %w", err), ErrDesired)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	keys, free, err := signers(ctx)
	if err != nil {
		return nil, fail("set "+identityVariable+" to the file of a private key that the host accepts, or load it into an SSH agent", err, ErrAuthFailed, ErrCredentials)
	}
	defer free()

	unreachable := fmt.Sprintf("check that it runs, and that its firewall and the network let this computer in on port %d", t.port())
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", t.endpoint())
	if err != nil {
		return nil, fail(unreachable, err, ErrUnreachable)
	}
	if deadline, ok := ctx.Deadline(); ok {
		raw.SetDeadline(deadline)
	}
	unhook := context.AfterFunc(ctx, func() { raw.Close() })

	var offered ssh.PublicKey
	conn, channels, requests, err := ssh.NewClientConn(raw, t.endpoint(), &ssh.ClientConfig{
		User: t.User,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(keys...)},
		// Asking for the pinned key's type keeps a host that has several
		// keys from proving itself with another one.
		HostKeyAlgorithms: hostKeyAlgorithms(pinned.Type()),
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if !bytes.Equal(key.Marshal(), pinned.Marshal()) {
				offered = key
				return ErrHostKeyMismatch
			}
			return nil
		},
	})
	if err == nil && !unhook() {
		err = context.Cause(ctx)
	}
	if err != nil {
		raw.Close()
		mismatch := "if the host was reinstalled on purpose, put its new key into the configuration; otherwise something else answers at this address: do not go on"
		var algorithms *ssh.AlgorithmNegotiationError
		switch {
		case offered != nil:
			return nil, fail(mismatch, fmt.Errorf("it shows %s, expected is %s", ssh.FingerprintSHA256(offered), ssh.FingerprintSHA256(pinned)), ErrHostKeyMismatch)
		case errors.As(err, &algorithms) && strings.Contains(err.Error(), "host key"):
			return nil, fail(mismatch, fmt.Errorf("it has no key of type %s: %w", pinned.Type(), err), ErrHostKeyMismatch)
		case ctx.Err() != nil:
			return nil, fail(unreachable, context.Cause(ctx), ErrUnreachable)
		case strings.Contains(err.Error(), "unable to authenticate"):
			var names []string
			for _, key := range keys {
				names = append(names, ssh.FingerprintSHA256(key.PublicKey()))
			}
			return nil, fail(fmt.Sprintf("check that the public key is in the authorized_keys of %s there", t.User), fmt.Errorf("user %s with %s", t.User, strings.Join(names, ", ")), ErrAuthFailed)
		}
		return nil, fail(unreachable, err, ErrUnreachable)
	}
	raw.SetDeadline(time.Time{})
	c := &Conn{target: t, client: ssh.NewClient(conn, channels, requests), stop: make(chan struct{})}
	go c.keepAlive()
	return c, nil
}

// hostKeyAlgorithms are the signature algorithms of a type of key.
func hostKeyAlgorithms(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}

// keepAlive asks for signs of life and closes the connection when there are
// none, so that nobody waits for a host that froze.
func (c *Conn) keepAlive() {
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
		}
		answer := make(chan error, 1)
		go func() {
			_, _, err := c.client.SendRequest("keepalive@openssh.com", true, nil)
			answer <- err
		}()
		select {
		case <-c.stop:
			return
		case err := <-answer:
			if err != nil {
				c.Close()
				return
			}
		case <-time.After(silence):
			c.Close()
			return
		}
	}
}

// Target says how the host was reached.
func (c *Conn) Target() Target { return c.target }

// Close ends the connection. What runs on the host goes on, if it can do so
// without its input.
func (c *Conn) Close() {
	c.once.Do(func() {
		close(c.stop)
		c.client.Close()
	})
}

// Wait bounds how long WaitReady tries.
type Wait struct {
	// Timeout is for the whole wait; 0 means 5 minutes.
	Timeout time.Duration
	// Progress hears what is waited for; it may be nil.
	Progress func(step string)
}

// WaitReady connects to a host that may still be booting for the first time,
// and returns when cloud-init, if it runs there, has done its work. Whatever can
// pass by itself is tried again; a wrong host key ends the wait at once, a
// refused login after some seconds.
func WaitReady(ctx context.Context, t Target, w Wait) (*Conn, error) {
	if w.Timeout == 0 {
		w.Timeout = bootTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	start, refused := time.Now(), time.Time{}
	pause := 100 * time.Millisecond
	for {
		conn, err := Connect(ctx, t)
		if err == nil {
			if err = conn.booted(ctx, w.Progress); err == nil {
				return conn, nil
			}
			conn.Close()
		}
		switch {
		case errors.Is(err, ErrCredentials), errors.Is(err, ErrHostKeyMismatch), errors.Is(err, ErrDesired):
			return nil, err
		case errors.Is(err, ErrAuthFailed), errors.Is(err, ErrSudo):
			if refused.IsZero() {
				refused = time.Now()
			}
			if time.Since(refused) > bootLogin {
				return nil, err
			}
		default:
			refused = time.Time{}
		}
		report(w.Progress, fmt.Sprintf("waiting for %s to boot (%d s)", t.Name, int(time.Since(start).Seconds())))
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				return nil, fmt.Errorf("%w (gave up after %s; look at the server's console)", err, w.Timeout)
			}
			// The host's fault is not known, and the last try's error would blame it.
			return nil, fmt.Errorf("%s: interrupted while waiting for it to boot", t.Name)
		case <-time.After(pause):
		}
		pause = min(pause*3/2, 2*time.Second)
	}
}

func report(progress func(string), step string) {
	if progress != nil {
		progress(step)
	}
}
