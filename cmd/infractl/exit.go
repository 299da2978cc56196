package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/stacks"
)

// codes are the exit codes by kind of error. They are a part of the
// command line's contract, for scripts and CI.
var codes = map[engine.Kind]int{
	engine.Failed:      1,
	engine.Invalid:     2,
	engine.Missing:     3,
	engine.Locked:      4,
	engine.Partial:     5,
	engine.Interrupted: 130,
}

// exitError ends the process with a code of its own. Without an error there is
// nothing to be said: the code itself is the message.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// Exit codes of commands that tell by them whether there is a difference. Every
// error is 1 there, so that it cannot be taken for a difference.
const (
	differs      = 2
	anyErrorCode = 1
)

// detailed gives a result these codes.
func detailed(any bool, err error) error {
	switch {
	case err != nil:
		return &exitError{anyErrorCode, err}
	case any:
		return &exitError{differs, nil}
	}
	return nil
}

// usage is an error in the command line itself.
func usage(format string, args ...any) error {
	return &engine.Error{Kind: engine.Invalid, Err: fmt.Errorf(format, args...)}
}

// exitCode is the process's exit code after an error.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	var own *engine.Error
	if errors.As(err, &own) {
		return codes[own.Kind]
	}
	var config *stacks.ConfigError
	if errors.As(err, &config) {
		return codes[engine.Invalid]
	}
	if errors.Is(err, context.Canceled) {
		return codes[engine.Interrupted]
	}
	var code cli.ExitCoder
	if errors.As(err, &code) {
		return code.ExitCode()
	}
	return codes[engine.Failed]
}
