package provision

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Target is how a host is reached.
type Target struct {
	// Name is what the host is called in messages, such as web-1.
	Name string
	// Address is an IP address or a name. Port is 22 if it is 0.
	Address string
	Port    int
	// User logs in; it is root or can become root by sudo.
	User string
	// HostKey is what the host must prove: a public key as a line of an
	// authorized_keys file, its fingerprint as ssh-keygen -l prints it
	// ("SHA256:…"), or the key of an authority for hosts after
	// "@cert-authority ". Nothing else is accepted, and nothing is trusted on
	// first use.
	HostKey string
	// Own says that the host is one that its user has anyway and reaches with
	// ssh. Then what ~/.ssh/config says about Address holds where nothing is
	// said here, known_hosts is looked into if there is no HostKey, and sudo may
	// want a password. Other hosts are infractl's own: they have what it gave
	// them, and nothing of the user's files matters.
	Own bool
	// Jump are the hosts to go through, as in ProxyJump: [user@]host[:port], with
	// commas between several; "none" overrides ~/.ssh/config. Each is reached
	// as ~/.ssh/config says.
	Jump string
	// KnownHosts are lines as in known_hosts, which hold beside the user's files:
	// keys of jump hosts, or of the host itself if it is the user's own.
	KnownHosts string
}

func (t Target) port() int {
	if t.Port == 0 {
		return 22
	}
	return t.Port
}

// Times that bound a connection.
const (
	// dialTimeout is for TCP, handshake and login together.
	dialTimeout = 10 * time.Second
	// signOfLife is the time between signs of life, silence how long a host
	// may owe an answer to one before the connection counts as lost. Together
	// they bound how long a frozen host is waited for.
	signOfLife = 5 * time.Second
	silence    = 15 * time.Second
	// bootTimeout is for a host's first boot, ownTimeout for a host that was
	// there before and is only expected to be up, or about to be.
	bootTimeout = 5 * time.Minute
	ownTimeout  = time.Minute
	// bootLogin is how long a booting host may refuse the login: its users
	// can appear after its SSH server.
	bootLogin = 20 * time.Second
)

// Conn is a connection to a host. Methods that only look, and those that run
// scripts, may be called at the same time; Apply and Remove must be alone.
type Conn struct {
	target Target
	client *ssh.Client
	// via is the connection that this one goes through; it may be nil.
	via  *jump
	stop chan struct{}
	once sync.Once
	// user is who logged in, root how that user becomes root.
	user string
	root becoming
	// password is for sudo, if that asks.
	password string
}

// Connect logs in to a host. It fails with ErrUnreachable, ErrHostKeyMismatch,
// ErrHostKeyUnknown, ErrAuthFailed, ErrSSHConfig or, if the host is its user's
// own, ErrSudo. The context covers the
// connecting only; every later call has one of its own.
func Connect(ctx context.Context, t Target) (*Conn, error) {
	hops, err := t.route()
	if err != nil {
		return nil, named(err, t)
	}
	last := len(hops) - 1
	var via *jump
	if last > 0 {
		if via, err = jumps.acquire(ctx, hops[:last]); err != nil {
			return nil, named(err, t)
		}
	}
	client, err := hops[last].dial(ctx, via)
	if err != nil {
		jumps.release(via)
		return nil, named(err, t)
	}
	c := &Conn{target: t, client: client, via: via, stop: make(chan struct{}), user: hops[last].user}
	go keepAlive(client, c.stop, c.Close)
	if err := c.findRoot(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// named says which host an error is about.
func named(err error, t Target) error {
	var e *Error
	if !errors.As(err, &e) {
		return &Error{Host: t.Name, Step: "connect", Err: err}
	}
	// Hosts behind the same jump host share its error.
	about := *e
	about.Host = t.Name
	return &about
}

// keepAlive asks for signs of life until stop is closed, and calls lost when
// there are none, so that nobody waits for a host that froze.
func keepAlive(client *ssh.Client, stop <-chan struct{}, lost func()) {
	tick := time.NewTicker(signOfLife)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		answer := make(chan error, 1)
		go func() {
			_, _, err := client.SendRequest("keepalive@openssh.com", true, nil)
			answer <- err
		}()
		select {
		case <-stop:
			return
		case err := <-answer:
			if err != nil {
				lost()
				return
			}
		case <-time.After(silence):
			lost()
			return
		}
	}
}

// Target says how the host was reached.
func (c *Conn) Target() Target { return c.target }

// Close ends the connection, and those to jump hosts that nobody else uses. What
// runs on the host goes on, if it can do so without its input.
func (c *Conn) Close() {
	c.once.Do(func() {
		close(c.stop)
		closeClient(c.client, c.via)
		jumps.release(c.via)
	})
}

// Wait bounds how long WaitReady tries.
type Wait struct {
	// Timeout is for the whole wait; 0 means 5 minutes, or one if the host is
	// its user's own.
	Timeout time.Duration
	// Progress hears what is waited for; it may be nil.
	Progress func(step string)
}

// WaitReady connects to a host that may still be booting for the first time,
// and returns when cloud-init, if it runs there, has done its work. Whatever can
// pass by itself is tried again; a wrong host key ends the wait at once, a
// refused login after some seconds.
func WaitReady(ctx context.Context, t Target, w Wait) (*Conn, error) {
	switch {
	case w.Timeout > 0:
	case t.Own:
		w.Timeout = ownTimeout
	default:
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
		case errors.Is(err, ErrCredentials), errors.Is(err, ErrHostKeyMismatch), errors.Is(err, ErrHostKeyUnknown),
			errors.Is(err, ErrDesired), errors.Is(err, ErrSSHConfig), errors.Is(err, ErrPassword):
			return nil, err
		case t.Own && (errors.Is(err, ErrAuthFailed) || errors.Is(err, ErrSudo)):
			// Its users have been there for long, and hosts shut out who is
			// refused too often (fail2ban, PerSourcePenalties of sshd).
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
