package fleet

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// The scripts that run on hosts define functions; what Go adds to them is a
// call of one of them with quoted arguments.
//
//go:embed maintenance/*.sh
var maintenance embed.FS

// program is a script that loads a file of the directory maintenance and calls
// one of its functions.
func program(file, function string, arguments ...string) string {
	text, err := maintenance.ReadFile("maintenance/" + file + ".sh")
	if err != nil {
		panic(err) // a file that go:embed did not find is a mistake in this package
	}
	call := function
	for _, a := range arguments {
		call += " " + Quote(a)
	}
	return string(text) + call + "\n"
}

// follow runs a script on a host and hands on every line that it prints as it
// comes. If it fails, what it said on standard error is in the error.
func (f *Fleet) follow(ctx context.Context, h Host, step, script string, line func(string)) error {
	conn, err := f.Connect(ctx, h)
	if err != nil {
		return err
	}
	defer conn.Close()
	out := &lines{each: line}
	complaints := &tail{}
	status, err := conn.Stream(ctx, step, script, out, complaints)
	if err != nil {
		return err
	}
	out.flush()
	if status != 0 {
		said := complaints.String()
		if said == "" {
			said = fmt.Sprintf("exit status %d", status)
		}
		return fmt.Errorf("%s: %s: %w", h.Name, step, errors.New(said))
	}
	return nil
}

// lines hands on what is written to it line by line.
type lines struct {
	each    func(string)
	pending []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.pending = append(l.pending, p...)
	for {
		i := bytes.IndexByte(l.pending, '\n')
		if i < 0 {
			return len(p), nil
		}
		l.each(string(l.pending[:i]))
		l.pending = l.pending[i+1:]
	}
}

// flush hands on a last line that does not end as one.
func (l *lines) flush() {
	if len(l.pending) > 0 {
		l.each(string(l.pending))
	}
	l.pending = nil
}

// tailSize is how much of a program's complaints is kept.
const tailSize = 4 << 10

// tail keeps the end of what is written to it, by whichever goroutine.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - tailSize; over > 0 {
		t.text = t.text[over:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}
