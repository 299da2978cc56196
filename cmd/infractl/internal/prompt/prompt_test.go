package prompt

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/infractl/infractl/provision/ask"
)

// screen is the user's side of a pseudo terminal.
type screen struct {
	t      *testing.T
	master *os.File
	mu     sync.Mutex
	text   bytes.Buffer
}

// newTerminal makes a real terminal, as far as the kernel knows.
func newTerminal(t *testing.T) (*Prompter, *screen) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo terminal: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	s := &screen{t: t, master: master}
	go func() {
		for b := make([]byte, 1024); ; {
			n, err := master.Read(b)
			s.mu.Lock()
			s.text.Write(b[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return &Prompter{Terminal: slave, Aside: func(do func()) { do() }}, s
}

// waitFor waits until something is on the screen.
func (s *screen) waitFor(text string) {
	s.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if strings.Contains(s.shown(), text) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the screen shows %q, not %q", s.shown(), text)
		}
	}
}

func (s *screen) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// answers types a line each time something is asked.
func (s *screen) answers(question string, lines ...string) {
	var typing sync.WaitGroup
	s.t.Cleanup(typing.Wait)
	typing.Go(func() { s.types(question, lines) })
}

func (s *screen) types(question string, lines []string) {
	for i, line := range lines {
		for deadline := time.Now().Add(5 * time.Second); strings.Count(s.shown(), question) <= i && time.Now().Before(deadline); {
			time.Sleep(2 * time.Millisecond)
		}
		// The echo goes off a moment after the question came.
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if state, err := unix.IoctlGetTermios(int(s.master.Fd()), unix.TCGETS); err == nil && state.Lflag&unix.ECHO == 0 {
				break
			}
		}
		s.master.WriteString(line + "\n")
	}
}

func TestPasswordIsAskedForAndNotShown(t *testing.T) {
	p, s := newTerminal(t)
	aside := false
	p.Aside = func(do func()) { aside = true; do() }
	s.answers("sudo's password for anna on web-1, and for all hosts that ask: ", "open sesame")
	word, err := p.Answer(t.Context(), ask.Question{Kind: ask.SudoPassword, Subject: "anna on web-1"})
	if err != nil || word != "open sesame" || !aside {
		t.Fatalf("%q, %v", word, err)
	}
	s.waitFor("ask: \r\n")
	if strings.Contains(s.shown(), "sesame") {
		t.Errorf("the screen shows %q", s.shown())
	}
}

func TestPasswordThatIsKnownIsNotAskedFor(t *testing.T) {
	p := &Prompter{SudoPassword: "open sesame"}
	if word, err := p.Answer(t.Context(), ask.Question{Kind: ask.SudoPassword}); err != nil || word != "open sesame" {
		t.Errorf("%q, %v", word, err)
	}
}

func TestNobodyIsAskedWithoutATerminal(t *testing.T) {
	p := &Prompter{}
	if _, err := p.Answer(t.Context(), ask.Question{Kind: ask.SudoPassword}); !errors.Is(err, ask.ErrNobody) {
		t.Errorf("got %v", err)
	}
	if _, err := p.Answer(t.Context(), ask.Question{Kind: "what"}); err == nil {
		t.Error("an unknown question has an answer")
	}
}

func keyFile(t *testing.T, passphrase string) string {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPassphraseMayBeWrongTwice(t *testing.T) {
	p, s := newTerminal(t)
	file := keyFile(t, "open sesame")
	s.answers("passphrase of "+file, "wrong", "", "open sesame")
	word, err := p.Answer(t.Context(), ask.Question{Kind: ask.Passphrase, Subject: file})
	if err != nil || word != "open sesame" {
		t.Errorf("%q, %v", word, err)
	}
	p, s = newTerminal(t)
	s.answers("passphrase of "+file, "a", "b", "c")
	if _, err := p.Answer(t.Context(), ask.Question{Kind: ask.Passphrase, Subject: file}); err == nil || !strings.Contains(err.Error(), "wrong 3 times") {
		t.Errorf("got %v", err)
	}
}

func TestInterruptedQuestionLeavesTheTerminalAsItWas(t *testing.T) {
	p, s := newTerminal(t)
	before, err := term.GetState(int(p.Terminal.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		s.waitFor("ask: ")
		time.Sleep(50 * time.Millisecond)
		cancel()
	}()
	if _, err := p.Answer(ctx, ask.Question{Kind: ask.SudoPassword, Subject: "\x1b[2Janna"}); err == nil || err.Error() != "interrupted" {
		t.Errorf("got %v", err)
	}
	after, err := term.GetState(int(p.Terminal.Fd()))
	if err != nil || *after != *before {
		t.Errorf("%+v, %v", after, err)
	}
	if s.waitFor("?[2Janna"); strings.Contains(s.shown(), "\x1b") {
		t.Errorf("the screen shows %q", s.shown())
	}
}
