package provision

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Run runs a script as root and returns what it printed on standard output.
// What it printed on standard error is in the error if it fails. Cancelling the
// context ends the session.
func (c *Conn) Run(ctx context.Context, step, script string) ([]byte, error) {
	return c.output(ctx, step, greeted(script))
}

// Stream runs a script as root and hands on what it prints as it comes. It
// returns the script's exit status; an error means that the status is not known.
func (c *Conn) Stream(ctx context.Context, step, script string, stdout, stderr io.Writer) (int, error) {
	return c.stream(ctx, step, script, false, stdout, stderr)
}

// Attend is Stream, but the script's standard input stays open for as long as
// this computer listens: until the script has ended, the context is cancelled or
// the connection breaks. So the script can tell from the end of its input that
// what it does is of no use any more.
func (c *Conn) Attend(ctx context.Context, step, script string, stdout, stderr io.Writer) (int, error) {
	return c.stream(ctx, step, script, true, stdout, stderr)
}

func (c *Conn) stream(ctx context.Context, step, script string, attend bool, stdout, stderr io.Writer) (int, error) {
	s, err := c.start(ctx, step, greeted(script))
	if err != nil {
		return -1, err
	}
	if !attend {
		s.in.Close()
	}
	s.errors.follow(stderr)
	_, readErr := io.Copy(stdout, s.out)
	err = s.wait()
	exit, gone := s.gone(err)
	switch {
	case gone:
		return -1, s.lost(ctx, errors.Join(readErr, err))
	case readErr != nil && !errors.Is(readErr, io.EOF):
		return -1, &Error{Host: c.target.Name, Step: step, Err: fmt.Errorf("cannot hand on its output: %w", readErr)}
	case exit != nil:
		return exit.ExitStatus(), nil
	}
	return 0, nil
}

// greeted is a script that says hello before anything else.
func greeted(script string) string {
	s := newScript()
	s.call("hello")
	return s.String() + script + "\n"
}
