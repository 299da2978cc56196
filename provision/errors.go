package provision

import (
	"errors"
	"strings"
)

// What can go wrong, for errors.Is. An error may be several of these: one that
// is ErrUnhealthy is ErrReverted too if the previous state could be restored.
var (
	// ErrUnreachable: no SSH connection could be made, or it was lost.
	ErrUnreachable = errors.New("the host cannot be reached")
	// ErrHostKeyMismatch: the host did not prove to be the one that is expected.
	ErrHostKeyMismatch = errors.New("the host key is not the expected one")
	// ErrHostKeyUnknown: nothing says which key the host must show. No key is
	// trusted because it came first.
	ErrHostKeyUnknown = errors.New("the host's key is not known")
	// ErrSSHConfig: this computer's SSH configuration cannot be used for the host.
	ErrSSHConfig = errors.New("the SSH configuration cannot be used")
	// ErrAuthFailed: the host does not accept the key, or there is no key.
	ErrAuthFailed = errors.New("the login was refused")
	// ErrCredentials: this computer has no usable SSH key. Such an error is ErrAuthFailed too.
	ErrCredentials = errors.New("no usable SSH key")
	// ErrSudo: the login user cannot become root.
	ErrSudo = errors.New("the user cannot become root")
	// ErrPassword: sudo wants a password and there is none, or it is wrong. Such
	// an error is ErrSudo too.
	ErrPassword = errors.New("sudo's password is missing or wrong")
	// ErrLocked: another run is changing the host.
	ErrLocked = errors.New("the host is locked by another run")
	// ErrDesired: what is desired contradicts itself or the host.
	ErrDesired = errors.New("the desired state cannot be reached on this host")
	// ErrNoSpace: the host's disk is full.
	ErrNoSpace = errors.New("no space left on the host")
	// ErrPackages: packages could not be installed.
	ErrPackages = errors.New("packages could not be installed")
	// ErrValidation: a daemon's own checker refused the new configuration; nothing was changed.
	ErrValidation = errors.New("the new configuration was refused")
	// ErrWrite: files, trees or users could not be put in place.
	ErrWrite = errors.New("files could not be put in place")
	// ErrUnit: systemd could not bring a unit into its state.
	ErrUnit = errors.New("a unit did not get into its state")
	// ErrUnhealthy: a unit's health check failed after the change.
	ErrUnhealthy = errors.New("a unit is not healthy")
	// ErrUnconfirmed: after the change no new connection could be made.
	ErrUnconfirmed = errors.New("the change locked this computer out")
	// ErrReverted: the previous files and units are back in place.
	ErrReverted = errors.New("the previous state was put back")
	// ErrNotReverted: putting the previous state back did not work completely.
	ErrNotReverted = errors.New("the previous state could not be put back")
	// ErrCanceled: the run was cancelled before anything was changed.
	ErrCanceled = errors.New("cancelled")
)

// Error says which host and step failed, why, and what to do about it.
type Error struct {
	// Host is the host's short name, Step what was being done.
	Host, Step string
	// Kinds are the sentinel errors above that describe it, most important first.
	Kinds []error
	// Detail is the reason in the words of whoever gave it, such as a
	// daemon's checker; secrets are already taken out.
	Detail string
	// Hint is what the user can do.
	Hint string
	// Err is the underlying error, if there is one.
	Err error
}

// Error renders the message: host, step, what happened and the way out.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Host)
	b.WriteString(": ")
	b.WriteString(e.Step)
	for i, kind := range e.Kinds {
		if i == 0 {
			b.WriteString(": ")
		} else {
			b.WriteString("; ")
		}
		b.WriteString(kind.Error())
	}
	detail := strings.TrimSpace(e.Detail)
	if detail == "" && e.Err != nil {
		detail = e.Err.Error()
	}
	if detail != "" {
		if strings.Contains(detail, "\n") {
			b.WriteString(":\n  ")
			b.WriteString(strings.ReplaceAll(detail, "\n", "\n  "))
		} else {
			b.WriteString(": ")
			b.WriteString(detail)
		}
	}
	if e.Hint != "" {
		if strings.Contains(detail, "\n") {
			b.WriteString("\n")
		} else {
			b.WriteString("; ")
		}
		b.WriteString(e.Hint)
	}
	return b.String()
}

// Unwrap gives errors.Is and errors.As the kinds and the underlying error.
func (e *Error) Unwrap() []error {
	all := append([]error(nil), e.Kinds...)
	if e.Err != nil {
		all = append(all, e.Err)
	}
	return all
}
