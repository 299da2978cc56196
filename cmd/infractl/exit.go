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

// usage is an error in the command line itself.
func usage(format string, args ...any) error {
	return &engine.Error{Kind: engine.Invalid, Err: fmt.Errorf(format, args...)}
}

// exitCode is the process's exit code after an error.
func exitCode(err error) int {
	if err == nil {
		return 0
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
