package machine

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// commandTimeout bounds the small commands, which take milliseconds.
const commandTimeout = 30 * time.Second

// run runs a command and returns what it printed. Its error has the command's own words.
func run(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	cmd.Stdout = &out
	err := runCommand(cmd)
	return out.String(), err
}

func runCommand(cmd *exec.Cmd) error {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		words := strings.TrimSpace(stderr.String())
		if words == "" {
			return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
		}
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, words)
	}
	return nil
}
