package screen

import (
	"bytes"
	"io"
	"sync"
)

// lineLimit is how long a line may be before it is written in pieces.
const lineLimit = 1 << 20

// Lines hands on what is written to it line by line, each behind a prefix and
// in one piece, so that lines of several hosts do not mix.
type Lines struct {
	// Out is where lines go, and Lock is held while one is written; it is
	// shared by everybody who writes there.
	Out  io.Writer
	Lock *sync.Mutex
	// Prefix stands before every line.
	Prefix string
	// Clean changes a line before it is written; it may be nil.
	Clean func(string) string

	own     sync.Mutex
	pending []byte
}

// Write takes a part of the output.
func (l *Lines) Write(p []byte) (int, error) {
	l.own.Lock()
	defer l.own.Unlock()
	l.pending = append(l.pending, p...)
	for {
		end := bytes.IndexByte(l.pending, '\n')
		next := end + 1
		if end < 0 {
			if len(l.pending) < lineLimit {
				return len(p), nil
			}
			end, next = lineLimit, lineLimit
		}
		if err := l.line(l.pending[:end]); err != nil {
			return 0, err
		}
		l.pending = l.pending[next:]
	}
}

// Flush writes what has not been ended by a newline.
func (l *Lines) Flush() error {
	l.own.Lock()
	defer l.own.Unlock()
	if len(l.pending) == 0 {
		return nil
	}
	rest := l.pending
	l.pending = nil
	return l.line(rest)
}

func (l *Lines) line(text []byte) error {
	line := string(text)
	if l.Clean != nil {
		line = l.Clean(string(bytes.TrimSuffix(text, []byte("\r"))))
	}
	l.Lock.Lock()
	defer l.Lock.Unlock()
	_, err := io.WriteString(l.Out, l.Prefix+line+"\n")
	return err
}
