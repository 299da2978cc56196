package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"sort"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/auto"
)

func sortStrings(s []string) { sort.Strings(s) }

// cliError joins what the CLI said on stderr to the error of running it.
func cliError(err error, stderr string) error {
	stderr = strings.TrimSpace(stderr)
	stderr = strings.TrimPrefix(stderr, "error: ")
	if stderr == "" {
		return err
	}
	return errors.New(stderr)
}

// lockedWords is how the file backend says that somebody holds the lock.
var lockedWords = regexp.MustCompile(`created by (\S+@\S+ \(pid \d+\) at \S+)`)

// explainCLI gives an error of the Pulumi CLI its kind, and says what to do
// about the well-known ones. Errors of single resources are in the events.
func explainCLI(err error) error {
	if err == nil {
		return nil
	}
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return &Error{Kind: Interrupted, Err: errors.New("interrupted")}
	}
	words := err.Error()
	switch {
	case strings.Contains(words, "no stack named"):
		return errNoStack
	case auto.IsConcurrentUpdateError(err), strings.Contains(words, "the stack is currently locked by"):
		holder := "another run"
		if m := lockedWords.FindStringSubmatch(words); m != nil {
			holder = m[1]
		}
		return fail(Locked, waitOrUnlock, "the environment is being changed by %s", holder)
	case strings.Contains(words, "incorrect passphrase"):
		return fail(Invalid, "Set PULUMI_CONFIG_PASSPHRASE to the one that the environment was made with.", "the passphrase of the environment's secrets is wrong")
	case strings.Contains(words, "passphrase must be set"), strings.Contains(words, "PULUMI_CONFIG_PASSPHRASE") && os.Getenv("PULUMI_CONFIG_PASSPHRASE") == "":
		return fail(Invalid, "Set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE.", "the passphrase of the environment's secrets is not set")
	case strings.Contains(words, "PULUMI_ACCESS_TOKEN must be set"):
		return fail(Invalid, "Set PULUMI_BACKEND_URL, such as file:///var/lib/infractl, or run: pulumi login", "no place was chosen for the environment's state")
	case strings.Contains(words, "failed to run update"), strings.Contains(words, "failed to destroy"), strings.Contains(words, "failed to run preview"),
		strings.Contains(words, "failed to refresh"), strings.Contains(words, "failed to preview refresh"):
		return &operationError{output: words}
	}
	return fmt.Errorf("pulumi: %w", err)
}

// operationError is a failed run whose reasons were in its events.
type operationError struct{ output string }

func (e *operationError) Error() string { return "the run failed" }

// Output is what the CLI printed, for when the events hold no reason.
func Output(err error) string {
	var op *operationError
	if errors.As(err, &op) {
		return op.output
	}
	return ""
}
