package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/infractl/infractl/cmd/infractl/internal/price"
	"github.com/infractl/infractl/cmd/infractl/internal/stackfile"
	"github.com/infractl/infractl/stacks"
)

// Propose goes on as if the configuration had other counts of hosts, by tier.
// Its file is changed only by WriteConfig.
func (e *Engine) Propose(counts map[string]int) error {
	text, err := stackfile.SetCounts(e.Config.text, counts)
	if err != nil {
		return fail(Invalid, "", "%s: %w", filepath.Base(e.Config.File), err)
	}
	config, err := parseConfig(e.Config.File, text)
	if err != nil {
		return err
	}
	spec, err := stacks.Decode(config.Values, e.decode)
	if err != nil {
		return fail(Invalid, "Nothing was changed.", "the configuration would not be right:\n%w", err)
	}
	e.read = e.Config.text
	e.Config, e.Spec = config, spec
	return nil
}

// Change goes on as if the configuration had another text, which may be incomplete: it
// returns what is wrong with it that was not wrong before. Its file is changed only by
// WriteConfig.
func (e *Engine) Change(edit func(text []byte) ([]byte, error)) ([]stacks.Problem, error) {
	text, err := edit(e.Config.text)
	if err != nil {
		return nil, fail(Invalid, "Nothing was changed.", "%s: %w", filepath.Base(e.Config.File), err)
	}
	config, err := parseConfig(e.Config.File, text)
	if err != nil {
		return nil, err
	}
	spec, problems, err := decoded(config.Values, e.decode)
	if err != nil {
		return nil, err
	}
	var fresh []stacks.Problem
	for _, p := range problems {
		if !slices.Contains(e.problems, p) {
			fresh = append(fresh, p)
		}
	}
	if e.read == nil {
		e.read = e.Config.text
	}
	e.Config, e.Spec, e.problems = config, spec, problems
	return fresh, nil
}

// WriteConfig writes the configuration that was proposed into its file. It fails if
// the file is not as it was when it was read: somebody else has changed it since.
func (e *Engine) WriteConfig() error {
	now, err := os.ReadFile(e.Config.File)
	if err != nil {
		return fail(Invalid, "Nothing was changed.", "cannot read the environment's configuration: %w", err)
	}
	if !bytes.Equal(now, e.read) {
		return fail(Invalid, "Nothing was changed; run the command again.", "%s was changed by somebody else in the meantime", filepath.Base(e.Config.File))
	}
	if !bytes.Equal(now, e.Config.text) {
		if err := rewriteFile(e.Config.File, e.Config.text); err != nil {
			return fail(Invalid, "Nothing was changed.", "cannot write the environment's configuration: %w", err)
		}
	}
	if e.workDir == "" {
		return nil // whoever runs Pulumi next copies it
	}
	return e.copyConfig()
}

// rewriteFile gives a user's file another content, at once or not at all. Its
// mode and owner stay; a link is followed.
func rewriteFile(path string, content []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	// Renaming asks only for the directory's permission; the file's own counts too.
	old, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := old.Stat()
	old.Close()
	if err != nil {
		return err
	}
	// Always the same name, so that no more than one file can be left behind by
	// runs that are killed here.
	fresh := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(fresh) // fails once the file has its name
	if err := fillFile(f, info, content); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// fillFile writes a file's content and gives it the mode and owner of another.
func fillFile(f *os.File, like fs.FileInfo, content []byte) error {
	if _, err := f.Write(content); err != nil {
		return err
	}
	is, err := f.Stat()
	if err != nil {
		return err
	}
	have, want := is.Sys().(*syscall.Stat_t), like.Sys().(*syscall.Stat_t)
	if have.Uid != want.Uid || have.Gid != want.Gid {
		if err := f.Chown(int(want.Uid), int(want.Gid)); err != nil {
			return fmt.Errorf("cannot keep the file's owner: %w", err)
		}
	}
	if err := f.Chmod(like.Mode().Perm()); err != nil {
		return err
	}
	return f.Sync()
}

// Prices are the cloud's prices.
func (e *Engine) Prices(ctx context.Context) (price.List, error) { return e.cloud.prices(ctx) }

// Reopen looks again who holds the virtual IP, after load balancers were drained.
func (e *Engine) Reopen(ctx context.Context) error {
	var err error
	if e.inventory, err = e.cloud.inventory(ctx, e.Environment); err != nil {
		return err
	}
	return e.openStack(ctx)
}
