// Package prompt asks the user for what nobody else may read: sudo's password and
// the passphrases of private keys.
package prompt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/term"

	"github.com/infractl/infractl/provision/ask"
)

// passphraseTries is how often a passphrase may be typed wrong, as with ssh.
const passphraseTries = 3

// Prompter answers questions of package ask.
type Prompter struct {
	// SudoPassword is the answer that was given beforehand, or is empty.
	SudoPassword string
	// Terminal is where the user is; it may be nil.
	Terminal *os.File
	// Aside keeps others from writing to the terminal while it runs do.
	Aside func(do func())
}

// Terminal opens the terminal that controls this process. It is nil if there is
// none.
func Terminal() *os.File {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	return f
}

// Answer asks the user. It fails with ask.ErrNobody without a terminal.
func (p *Prompter) Answer(ctx context.Context, q ask.Question) (string, error) {
	switch q.Kind {
	case ask.SudoPassword:
		if p.SudoPassword != "" {
			return p.SudoPassword, nil
		}
		return p.secret(ctx, fmt.Sprintf("sudo's password for %s, and for all hosts that ask: ", plain(q.Subject)))
	case ask.Passphrase:
		return p.passphrase(ctx, q.Subject)
	}
	return "", fmt.Errorf("there is no question %q", q.Kind)
}

// passphrase asks until the key opens. Trying is harmless here, other than a
// password on a host.
func (p *Prompter) passphrase(ctx context.Context, file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	question := "passphrase of " + plain(file) + ": "
	for range passphraseTries {
		word, err := p.secret(ctx, question)
		if err != nil {
			return "", err
		}
		if _, err := ssh.ParsePrivateKeyWithPassphrase(text, []byte(word)); err == nil {
			return word, nil
		}
		question = "that is not it; passphrase of " + plain(file) + ": "
	}
	return "", fmt.Errorf("the passphrase of %s was wrong %d times", file, passphraseTries)
}

// secret reads one line that is not shown.
func (p *Prompter) secret(ctx context.Context, question string) (word string, err error) {
	if p.Terminal == nil {
		return "", ask.ErrNobody
	}
	p.Aside(func() {
		fd := int(p.Terminal.Fd())
		before, stateErr := term.GetState(fd)
		if stateErr != nil {
			err = fmt.Errorf("cannot ask on the terminal: %w", stateErr)
			return
		}
		fmt.Fprint(p.Terminal, question)
		type line struct {
			text []byte
			err  error
		}
		read := make(chan line, 1)
		go func() {
			text, err := term.ReadPassword(fd)
			read <- line{text, err}
		}()
		select {
		case l := <-read:
			word, err = string(l.text), l.err
		case <-ctx.Done():
			// The reading cannot be stopped, but the terminal must show again
			// what is typed.
			_ = term.Restore(fd, before)
			err = errors.New("interrupted")
		}
		fmt.Fprintln(p.Terminal)
	})
	return word, err
}

// plain takes out what could move the cursor.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, text)
}
