package provision

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// hello is what a script prints first. Seeing it means that the script runs as root.
const hello = "@infractl"

// session is a script that runs as root on the host.
type session struct {
	conn   *Conn
	step   string
	ssh    *ssh.Session
	in     io.WriteCloser
	out    *bufio.Reader
	errors limited
	unhook func() bool
}

// start runs a script as root. The script comes over standard input, so that
// none of it is in an argument list or in sudo's log; what follows it on
// standard input is the script's to read. Cancelling the context ends the
// session, though not necessarily what it started on the host.
func (c *Conn) start(ctx context.Context, step, script string) (*session, error) {
	s := &session{conn: c, step: step}
	var err error
	if s.ssh, err = c.client.NewSession(); err != nil {
		return nil, s.lost(ctx, err)
	}
	s.unhook = context.AfterFunc(ctx, func() { s.ssh.Close() })
	s.ssh.Stderr = &s.errors
	out, err := s.ssh.StdoutPipe()
	if err == nil {
		var in io.WriteCloser
		in, err = s.ssh.StdinPipe()
		s.in = &input{w: in}
	}
	if err == nil {
		// head reads exactly that many bytes and not one of what follows.
		command := fmt.Sprintf(`sh -c 'eval "$(head -c %d)"'`, len(script))
		if c.target.User != "root" {
			command = "env LC_ALL=C sudo -n -- " + command
		}
		err = s.ssh.Start(command)
	}
	if err != nil {
		s.close()
		return nil, s.lost(ctx, err)
	}
	s.out = bufio.NewReaderSize(out, 64<<10)
	// A host that refuses may not read the script, so it is written on the side.
	go io.WriteString(s.in, script)
	line, err := s.out.ReadString('\n')
	if strings.TrimSuffix(line, "\n") == hello {
		return s, nil
	}
	if err == nil {
		err = fmt.Errorf("unexpected output: %q", line)
	}
	// Wait gives the exit status and all of what was said on standard error.
	exit := s.wait()
	if _, gone := s.gone(exit); gone || ctx.Err() != nil {
		return nil, s.lost(ctx, errors.Join(ctx.Err(), exit))
	}
	said := strings.TrimSpace(line + s.errors.String())
	if said == "" {
		said = errors.Join(err, exit).Error()
	}
	return nil, &Error{
		Host: c.target.Name, Step: step, Kinds: []error{ErrSudo},
		Detail: fmt.Sprintf("user %s: %s", c.target.User, said),
		Hint:   fmt.Sprintf("install sudo there and allow it without a password (%s ALL=(ALL) NOPASSWD: ALL in /etc/sudoers.d), or log in as root", c.target.User),
	}
}

// wait ends the input and returns how the script ended.
func (s *session) wait() error {
	s.in.Close()
	io.Copy(io.Discard, s.out)
	err := s.ssh.Wait()
	s.close()
	return err
}

func (s *session) close() {
	s.unhook()
	s.ssh.Close()
}

// gone says whether err means that the connection and not the script failed.
func (s *session) gone(err error) (*ssh.ExitError, bool) {
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		return exit, false
	}
	return nil, err != nil
}

// lost makes the error for a connection that broke.
func (s *session) lost(ctx context.Context, err error) error {
	e := &Error{Host: s.conn.target.Name, Step: s.step, Err: err, Kinds: []error{ErrUnreachable}, Hint: "the connection was lost; check the host and run it again"}
	if cause := context.Cause(ctx); cause != nil {
		e.Err = cause
		if errors.Is(cause, context.Canceled) {
			e.Kinds, e.Hint = []error{ErrCanceled}, "nothing was changed in this step; run it again"
		} else {
			e.Hint = "the host does not answer in time; check its load and run it again"
		}
	}
	return e
}

// output runs a script to its end and returns what it printed after hello.
func (c *Conn) output(ctx context.Context, step, script string) ([]byte, error) {
	s, err := c.start(ctx, step, script)
	if err != nil {
		return nil, err
	}
	// Nothing follows the script, and one that reads must not wait for it.
	s.in.Close()
	text, readErr := io.ReadAll(s.out)
	err = s.wait()
	if exit, gone := s.gone(err); gone {
		return nil, s.lost(ctx, errors.Join(readErr, err))
	} else if exit != nil {
		return nil, &Error{Host: c.target.Name, Step: step, Err: err, Detail: fmt.Sprintf("exit status %d: %s", exit.ExitStatus(), s.errors.String())}
	}
	return text, nil
}

// input is a session's standard input, for several goroutines. A write that a
// host does not read ends when the session is closed.
type input struct {
	mu sync.Mutex
	w  io.WriteCloser
}

func (i *input) Write(p []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.w.Write(p)
}

func (i *input) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.w.Close()
}

// limited keeps the end of what is written to it. It is safe for concurrent use.
type limited struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	also io.Writer // gets everything, if it is set
}

// follow hands what was written so far, and what will be, to another writer too.
func (l *limited) follow(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.also = w
	w.Write(l.buf.Bytes())
}

const limit = 8 << 10

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p)
	if l.also != nil {
		l.also.Write(p)
	}
	if over := l.buf.Len() - limit; over > limit {
		l.buf.Next(over)
	}
	return len(p), nil
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(l.buf.String())
}

// nonce is a word that cannot be guessed, with hexadecimal digits only.
func nonce() string {
	b := make([]byte, 8)
	rand.Read(b)
	return hex.EncodeToString(b)
}
