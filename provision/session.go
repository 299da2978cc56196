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
	"time"

	"golang.org/x/crypto/ssh"
)

// hello is what a script prints first. Seeing it means that the script runs as root.
const hello = "@infractl"

// session is a script that runs as root on the host.
type session struct {
	conn   *Conn
	step   string
	ctx    context.Context // ends the session
	ssh    *ssh.Session
	in     io.WriteCloser
	out    *bufio.Reader
	pipe   *io.PipeReader // what out reads from
	errors limited
	unhook func() bool
	// ended gets how the script ended.
	ended chan error
}

// start runs a script as root. The script comes over standard input, so that
// none of it is in an argument list or in sudo's log; what follows it on
// standard input is the script's to read. Cancelling the context ends the
// session, though not necessarily what it started on the host.
func (c *Conn) start(ctx context.Context, step, script string) (*session, error) {
	s := &session{conn: c, step: step, ctx: ctx}
	var err error
	if s.ssh, err = c.newSession(ctx); err != nil {
		return nil, s.lost(ctx, err)
	}
	// A host that hangs does not answer that the session is closed, so reading
	// ends on this side.
	var fromHost *io.PipeWriter
	s.pipe, fromHost = io.Pipe()
	s.ssh.Stdout = fromHost
	s.unhook = context.AfterFunc(ctx, func() {
		s.pipe.CloseWithError(context.Cause(ctx))
		s.ssh.Close()
	})
	s.out = bufio.NewReaderSize(s.pipe, 64<<10)
	in, err := s.ssh.StdinPipe()
	if err != nil {
		s.close()
		return nil, s.lost(ctx, err)
	}
	s.in = &input{w: in}
	s.ssh.Stderr = &s.errors
	// head reads exactly that many bytes and not one of what follows.
	command := fmt.Sprintf(`eval "$(head -c %d)"`, len(script))
	var prompt *prompter
	switch c.root {
	case isRoot:
		command = "sh -c '" + command + "'"
	case bySudo:
		command = "env LC_ALL=C sudo -n -- sh -c '" + command + "'"
	case byPassword:
		prompt = newPrompter(s.in, c.password, &s.errors)
		s.ssh.Stderr = prompt
		command = prompt.command(command)
	}
	if err = s.run(command, fromHost); err != nil {
		s.close()
		return nil, s.lost(ctx, err)
	}
	line := ""
	if prompt != nil {
		// Nothing is sent before the password was accepted: sudo would take
		// it for another password.
		line, err = s.out.ReadString('\n')
		if prompt.greeted(line) {
			line = ""
		}
	}
	if line == "" && err == nil {
		// A host that refuses may not read the script, so it is written on the side.
		go io.WriteString(s.in, script)
		line, err = s.out.ReadString('\n')
		if strings.TrimSuffix(line, "\n") == hello {
			return s, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("unexpected output: %q", line)
	}
	// Wait gives the exit status and all of what was said on standard error.
	exit := s.wait()
	if prompt.refused() {
		return nil, refusedPassword(c, step)
	}
	if _, gone := s.gone(exit); gone || ctx.Err() != nil {
		return nil, s.lost(ctx, errors.Join(ctx.Err(), exit))
	}
	said := strings.TrimSpace(line + s.errors.String())
	if said == "" {
		said = errors.Join(err, exit).Error()
	}
	return nil, &Error{
		Host: c.target.Name, Step: step, Kinds: []error{ErrSudo},
		Detail: fmt.Sprintf("user %s: %s", c.user, said),
		Hint:   fmt.Sprintf("install sudo there and allow it without a password (%s ALL=(ALL) NOPASSWD: ALL in /etc/sudoers.d), or log in as root", c.user),
	}
}

// newSession opens a session, unless the context ends before the host answers.
func (c *Conn) newSession(ctx context.Context) (*ssh.Session, error) {
	type opened struct {
		session *ssh.Session
		err     error
	}
	done := make(chan opened, 1)
	go func() {
		session, err := c.client.NewSession()
		done <- opened{session, err}
	}()
	select {
	case o := <-done:
		return o.session, o.err
	case <-ctx.Done():
		go func() {
			if o := <-done; o.err == nil {
				o.session.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// run starts the command. out is what the host writes to, and is closed when
// the command has ended.
func (s *session) run(command string, out *io.PipeWriter) error {
	started := make(chan error, 1)
	s.ended = make(chan error, 1)
	go func() {
		err := s.ssh.Start(command)
		started <- err
		if err == nil {
			err = s.ssh.Wait()
		}
		out.CloseWithError(io.EOF)
		s.ended <- err
	}()
	select {
	case err := <-started:
		return err
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// wait ends the input and returns how the script ended.
func (s *session) wait() error {
	s.in.Close()
	io.Copy(io.Discard, s.out)
	var err error
	select {
	case err = <-s.ended:
	case <-s.ctx.Done():
		select {
		case err = <-s.ended:
		case <-time.After(closeTime):
			err = context.Cause(s.ctx)
		}
	}
	s.close()
	return err
}

func (s *session) close() {
	s.unhook()
	s.pipe.Close()
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
