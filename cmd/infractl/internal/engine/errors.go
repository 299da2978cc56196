package engine

import (
	"errors"
	"fmt"
)

// Kind says what sort of error it is, so that the CLI can choose an exit code
// and a reader of the code can see what is expected to go wrong.
type Kind int

const (
	// Failed is an error of no other kind.
	Failed Kind = iota
	// Invalid is wrong usage or a wrong configuration. Nothing was changed.
	Invalid
	// Missing is something that is not there on this computer. Nothing was changed.
	Missing
	// Locked means that another run is changing the environment. Nothing was
	// changed, unless the other one took the lock from this one.
	Locked
	// Partial means that some resources were changed and some were not; the next up goes on.
	Partial
	// Interrupted means that the user stopped it; the next up goes on.
	Interrupted
)

// Error is an error with its kind and what the user can do about it.
type Error struct {
	Kind Kind
	Err  error
	// Advice is what to do next; it may be empty.
	Advice string
}

func (e *Error) Error() string {
	if e.Advice == "" {
		return e.Err.Error()
	}
	return e.Err.Error() + "\n" + e.Advice
}

func (e *Error) Unwrap() error { return e.Err }

// fail makes an error of a kind.
func fail(kind Kind, advice, format string, args ...any) error {
	return &Error{Kind: kind, Err: fmt.Errorf(format, args...), Advice: advice}
}

// KindOf is the kind of an error, wherever in its chain that is.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Failed
}
