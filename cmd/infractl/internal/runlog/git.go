package runlog

import (
	"context"
	"os/exec"
	"strings"
	"time"
)

// gitTimeout bounds each question to Git: it is only asked for the record.
const gitTimeout = 5 * time.Second

// Revision is the commit that a directory's files are of, and whether they were
// changed since. It is empty without Git, or outside of a repository.
func Revision(ctx context.Context, dir string) (commit string, dirty bool) {
	head, err := git(ctx, dir, "rev-parse", "--verify", "HEAD")
	if err != nil {
		return "", false
	}
	changes, err := git(ctx, dir, "status", "--porcelain")
	if err != nil {
		return "", false // half of an answer would be taken for a clean tree
	}
	return head, changes != ""
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, gitTimeout)
	defer cancel()
	// Looking must not get into the way of somebody who works in the repository.
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "--no-optional-locks"}, args...)...).Output()
	return strings.TrimSpace(string(out)), err
}
