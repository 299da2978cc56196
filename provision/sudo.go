package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/infractl/infractl/provision/ask"
)

// sudoVariable holds sudo's password where there is nobody to ask.
const sudoVariable = "INFRACTL_SUDO_PASSWORD"

// sudoTime is how long sudo may take to let the user in. After a wrong password
// it waits for two or three seconds by itself (pam_faildelay).
const sudoTime = 20 * time.Second

// becoming is how the login user becomes root.
type becoming int

const (
	isRoot becoming = iota
	// bySudo is without a password.
	bySudo
	byPassword
)

// findRoot finds out how the user becomes root. Only on a host of its user's own
// may sudo ask for a password; that is looked for now, since a person may have to
// type it and later calls have little time.
func (c *Conn) findRoot(ctx context.Context) error {
	c.root = bySudo
	if c.user == "root" {
		c.root = isRoot
	}
	if c.root == isRoot || !c.target.Own {
		return nil
	}
	err := c.tryRoot(ctx)
	var e *Error
	if !errors.As(err, &e) || !asksForPassword(e.Detail) {
		return err
	}
	c.root = byPassword
	return sudoPassword.prove(ctx, c)
}

// tryRoot runs nothing as root.
func (c *Conn) tryRoot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sudoTime)
	defer cancel()
	s := newScript()
	s.call("hello")
	_, err := c.output(ctx, "become root", s.String())
	return err
}

// asksForPassword recognises what sudo -n says if it needs a password: that of
// Debian, then the one written in Rust that Ubuntu has.
func asksForPassword(said string) bool {
	return strings.Contains(said, "sudo: a password is required") ||
		strings.Contains(said, "sudo: a terminal is required to read the password") ||
		strings.Contains(said, "sudo: interactive authentication is required")
}

// sudoPassword is the password of this run.
var sudoPassword = passwordBook{turn: make(chan struct{}, 1), refused: map[string]bool{}}

// passwordBook remembers the password and where it was right. A wrong one is
// tried once, on one host: hosts may have their accounts from the same directory,
// which counts failures and locks the account (pam_faillock).
type passwordBook struct {
	// turn is held while the password is not known to be right.
	turn chan struct{}

	mu     sync.Mutex
	text   string
	known  bool
	proven bool
	// wrong is the host that refused the password before any took it.
	wrong string
	// refused are the hosts that refused it although others took it.
	refused map[string]bool
}

// prove finds the password and tries it on the host.
func (p *passwordBook) prove(ctx context.Context, c *Conn) error {
	fail := func(detail string, err error, hint string) error {
		return &Error{Host: c.target.Name, Step: "become root", Kinds: []error{ErrSudo, ErrPassword}, Detail: detail, Err: err, Hint: hint}
	}
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return &Error{Host: c.target.Name, Step: "become root", Kinds: []error{ErrCanceled}, Err: context.Cause(ctx), Hint: "nothing was changed; run it again"}
	}
	leave := sync.OnceFunc(func() { <-p.turn })
	defer leave()
	p.mu.Lock()
	known, proven, wrong := p.known, p.proven, p.wrong
	p.mu.Unlock()
	if wrong != "" {
		return fail(fmt.Sprintf("sudo asks user %s for a password; the one that is known was refused by %s and is not tried again", c.user, wrong), nil, retryPassword)
	}
	if !known {
		text, err := findPassword(ctx, c)
		switch {
		case errors.Is(err, ask.ErrNobody):
			return fail(fmt.Sprintf("sudo asks user %s for a password, and there is no terminal to ask for it on", c.user), err,
				fmt.Sprintf("allow sudo without a password there (%s ALL=(ALL) NOPASSWD: ALL in /etc/sudoers.d), or set %s", c.user, sudoVariable))
		case err != nil:
			return fail("", err, "run it again, or set "+sudoVariable)
		}
		p.mu.Lock()
		p.text, p.known = text, true
		p.mu.Unlock()
	}
	if proven {
		leave()
	}
	key := c.user + "@" + c.target.Address
	p.mu.Lock()
	c.password = p.text
	again := p.refused[key]
	p.mu.Unlock()
	if again {
		return refusedPassword(c, "become root")
	}
	err := c.tryRoot(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		p.proven = true
	case !errors.Is(err, ErrPassword):
	case p.proven:
		p.refused[key] = true
	default:
		p.wrong = c.target.Name
	}
	return err
}

// retryPassword is what to do about a wrong password.
const retryPassword = "it was tried once only, since accounts are locked after some failures; correct it (" + sudoVariable + ") and run it again"

func refusedPassword(c *Conn, step string) error {
	return &Error{Host: c.target.Name, Step: step, Kinds: []error{ErrSudo, ErrPassword},
		Detail: fmt.Sprintf("sudo refused the password of user %s", c.user), Hint: retryPassword}
}

// findPassword looks for the password in the environment, then asks a person.
func findPassword(ctx context.Context, c *Conn) (string, error) {
	text := os.Getenv(sudoVariable)
	if text == "" {
		var err error
		if text, err = ask.Ask(ctx, ask.Question{Kind: ask.SudoPassword, Subject: c.user + " on " + c.target.Name}); err != nil {
			return "", err
		}
	}
	if text == "" || strings.ContainsAny(text, "\r\n\x00") {
		return "", errors.New("sudo's password must be one line that is not empty")
	}
	return text, nil
}

// prompter watches the standard error of a sudo that reads the password from its
// standard input, and answers its prompt once.
type prompter struct {
	in       io.WriteCloser
	password string
	// mark is the prompt, greeting what is printed as root; neither can be guessed.
	mark, greeting string
	rest           io.Writer

	mu sync.Mutex
	// begun is the beginning of a prompt at the end of what came.
	begun []byte
	asked int
}

func newPrompter(in io.WriteCloser, password string, rest io.Writer) *prompter {
	return &prompter{in: in, password: password, mark: "[infractl-" + nonce() + "]", greeting: "@root-" + nonce(), rest: rest}
}

// command is the command line that runs a command of sh as root.
func (p *prompter) command(command string) string {
	return fmt.Sprintf("env LC_ALL=C sudo -S -p '%s' -- sh -c 'echo %s; %s'", p.mark, p.greeting, command)
}

// greeted says whether a line of output says that the command runs.
func (p *prompter) greeted(line string) bool { return strings.TrimSuffix(line, "\n") == p.greeting }

// refused says whether sudo asked for the password again.
func (p *prompter) refused() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked > 1
}

// Write takes what comes on standard error.
func (p *prompter) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = append(p.begun, text...)
	for {
		before, after, found := bytes.Cut(p.begun, []byte(p.mark))
		if !found {
			break
		}
		p.rest.Write(before)
		p.begun = append([]byte(nil), after...)
		p.asked++
		// What reads standard error must not wait for standard input.
		switch p.asked {
		case 1:
			go io.WriteString(p.in, p.password+"\n")
		case 2:
			go p.in.Close()
		}
	}
	keep := min(len(p.begun), len(p.mark)-1)
	for !strings.HasPrefix(p.mark, string(p.begun[len(p.begun)-keep:])) {
		keep--
	}
	p.rest.Write(p.begun[:len(p.begun)-keep])
	p.begun = append([]byte(nil), p.begun[len(p.begun)-keep:]...)
	return len(text), nil
}
