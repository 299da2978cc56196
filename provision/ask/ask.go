// Package ask carries questions that only a person can answer from processes
// without a terminal to one that has it.
//
// The provider plugin is a grandchild of infractl with Pulumi in between, which
// hands no open files on, and whatever is in the environment goes to Pulumi and
// all of its plugins. So infractl listens at a socket in a directory that only
// its user can enter, and the environment holds nothing but the socket's name.
// What is asked for is in the memory of the two processes and nowhere else.
package ask

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Variable is the environment variable that names the socket.
const Variable = "INFRACTL_ASK"

// Kinds of question.
const (
	// SudoPassword is the password of the user that Subject names, such as
	// "anna on web-1". It is the same for all hosts, so it is asked for once.
	SudoPassword = "sudo"
	// Passphrase is that of the private key file that Subject names.
	Passphrase = "passphrase"
)

// Question is what is asked for.
type Question struct {
	Kind    string `json:"kind"`
	Subject string `json:"subject"`
}

// key is the same for questions that have the same answer.
func (q Question) key() Question {
	if q.Kind == SudoPassword {
		q.Subject = ""
	}
	return q
}

// ErrNobody: there is nobody to ask.
var ErrNobody = errors.New("there is no terminal to ask on")

// answer is what comes back. Nobody tells that there is no person.
type answer struct {
	Text   string `json:"text,omitempty"`
	Error  string `json:"error,omitempty"`
	Nobody bool   `json:"nobody,omitempty"`
}

// Ask asks the process that Variable leads to, and waits for the person for as
// long as the context allows. It fails with ErrNobody if there is none.
func Ask(ctx context.Context, q Question) (string, error) {
	name := os.Getenv(Variable)
	if name == "" {
		return "", ErrNobody
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", name)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrNobody, Variable, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var a answer
	err = json.NewEncoder(conn).Encode(q)
	if err == nil {
		err = json.NewDecoder(conn).Decode(&a)
	}
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", fmt.Errorf("no answer came from the terminal: %w", err)
	case a.Nobody:
		return "", ErrNobody
	case a.Error != "":
		return "", errors.New(a.Error)
	}
	return a.Text, nil
}

// Server answers questions.
type Server struct {
	dir      string
	listener net.Listener
	stop     context.CancelFunc
	handle   func(context.Context, Question) (string, error)

	mu    sync.Mutex
	known map[Question]*once
}

// once is one question that is asked once.
type once struct {
	done chan struct{}
	text string
	err  error
}

// readTime is how long a process may take to write its question.
const readTime = 5 * time.Second

// Serve starts to answer the questions of this process and its descendants, and
// sets Variable for them. handle asks the person; it is called once for each
// question and one at a time, and may fail with ErrNobody.
func Serve(handle func(context.Context, Question) (string, error)) (*Server, error) {
	dir, err := os.MkdirTemp("", "infractl-ask-") // mode 0700
	if err != nil {
		return nil, fmt.Errorf("cannot make a directory for questions: %w", err)
	}
	name := filepath.Join(dir, "socket")
	listener, err := net.Listen("unix", name)
	if err == nil {
		err = os.Setenv(Variable, name)
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("cannot listen for questions: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var turn sync.Mutex
	s := &Server{dir: dir, listener: listener, stop: stop, known: map[Question]*once{}}
	s.handle = func(ctx context.Context, q Question) (string, error) {
		turn.Lock()
		defer turn.Unlock()
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return handle(ctx, q)
	}
	go s.serve(ctx)
	return s, nil
}

// Close stops answering and forgets the answers.
func (s *Server) Close() {
	s.stop()
	s.listener.Close()
	if os.Getenv(Variable) == filepath.Join(s.dir, "socket") {
		os.Unsetenv(Variable)
	}
	os.RemoveAll(s.dir)
}

func (s *Server) serve(ctx context.Context) {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			conn.SetReadDeadline(time.Now().Add(readTime))
			var q Question
			line, err := bufio.NewReader(conn).ReadBytes('\n')
			if err != nil || json.Unmarshal(line, &q) != nil {
				return
			}
			text, err := s.answer(ctx, q)
			a := answer{Text: text}
			switch {
			case errors.Is(err, ErrNobody):
				a.Nobody = true
			case err != nil:
				a.Error = err.Error()
			}
			_ = json.NewEncoder(conn).Encode(a) // whoever asked may be gone
		}()
	}
}

// answer asks the person, or gives the answer that was given before. All who
// ask the same at the same time wait for one answer.
func (s *Server) answer(ctx context.Context, q Question) (string, error) {
	s.mu.Lock()
	o, asked := s.known[q.key()]
	if !asked {
		o = &once{done: make(chan struct{})}
		s.known[q.key()] = o
	}
	s.mu.Unlock()
	if !asked {
		o.text, o.err = s.handle(ctx, q)
		close(o.done)
	}
	<-o.done
	return o.text, o.err
}
