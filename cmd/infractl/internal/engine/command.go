package engine

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/blang/semver"
	"golang.org/x/sys/unix"

	"github.com/infractl/infractl/cmd/infractl/internal/process"
)

// forcedExit is how long a Pulumi CLI that was told twice to stop may take
// before it is killed.
const forcedExit = 5 * time.Second

// idleExit is how long a Pulumi CLI that was told to stop may go on without any
// plugin, which only leaves it to save the state. It was seen to wait for itself
// forever when it was interrupted in the moment in which a program registers
// resources.
const idleExit = 30 * time.Second

// command runs the Pulumi CLI; it implements auto.PulumiCommand. Other than
// the Automation API's own, it lets a CLI that was interrupted finish what it
// has begun however long that takes, and makes it end in good order when
// infractl itself is killed.
type command struct {
	path    string
	version semver.Version
	// force is closed when the user does not want to wait any longer.
	force <-chan struct{}
	// asked is what the CLI was asked for last, and said what it answered, if these
	// were a stack's outputs.
	asked, said string
}

// newCommand makes a command of the CLI at path.
func newCommand(ctx context.Context, path string, force <-chan struct{}) (*command, error) {
	v, ok := builtVersion(path)
	if !ok {
		var err error
		if v, err = saidVersion(ctx, path); err != nil {
			return nil, err
		}
	}
	return &command{path: path, version: v, force: force}, nil
}

// builtVersion reads the version of the module that a CLI was built from, if it was
// a release. Starting the CLI to ask it takes a third of a second.
func builtVersion(path string) (semver.Version, bool) {
	info, err := buildinfo.ReadFile(path)
	if err != nil || info.Path != "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi" {
		return semver.Version{}, false
	}
	v, err := semver.ParseTolerant(info.Main.Version)
	return v, err == nil && len(v.Pre)+len(v.Build) == 0
}

// saidVersion asks the CLI at path for its version.
func saidVersion(ctx context.Context, path string) (semver.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "version")
	cmd.Env = append(os.Environ(), "PULUMI_SKIP_UPDATE_CHECK=true")
	out, err := cmd.Output()
	if err != nil {
		return semver.Version{}, fmt.Errorf("cannot run %s: %w", path, err)
	}
	v, err := semver.ParseTolerant(strings.TrimSpace(string(out)))
	if err != nil {
		return v, fmt.Errorf("%s has a version that cannot be read: %w", path, err)
	}
	return v, nil
}

// Version is the CLI's version.
func (c *command) Version() semver.Version { return c.version }

// Run runs the CLI and returns what it printed and its exit code. When ctx
// ends, the CLI is interrupted once and then waited for.
func (c *command) Run(ctx context.Context, dir string, stdin io.Reader, moreOut, moreErr []io.Writer, env []string, args ...string) (string, string, int, error) {
	const unknown = -2 // what the Automation API uses for a code that is not known
	if err := ctx.Err(); err != nil {
		return "", "", unknown, context.Cause(ctx)
	}
	if answer, ok := c.answered(args); ok {
		return answer, "", 0, nil
	}
	c.asked, c.said = "", ""
	question := args
	if !slices.Contains(args, "--non-interactive") {
		args = append([]string{"--non-interactive"}, args...)
	}
	// Files, not pipes: with infractl gone, a write to a pipe would kill the
	// CLI in the middle of saving its state.
	stdout, err := scratch()
	if err != nil {
		return "", "", unknown, err
	}
	defer stdout.Close()
	stderr, err := scratch()
	if err != nil {
		return "", "", unknown, err
	}
	defer stderr.Close()

	cmd := exec.Command(c.path, args...)
	cmd.Dir = dir
	cmd.Env = slices.Concat(os.Environ(), env, []string{"PULUMI_AUTOMATION_API=true", process.Variable()})
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// A Ctrl-C in the terminal reaches infractl only, which passes it on.
		Setpgid: true,
		// If infractl is killed, the CLI is interrupted.
		Pdeathsig: syscall.SIGINT,
	}
	done := make(chan error, 1)
	started := make(chan error, 1)
	go func() {
		// The kernel sends Pdeathsig when the thread that started the child
		// ends, so this goroutine keeps its thread for as long as the child runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return "", "", unknown, fmt.Errorf("cannot start %s: %w", c.path, err)
	}
	err = c.wait(ctx, cmd.Process, done)
	code := unknown
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err == nil {
		code = 0
	}
	out, outErr := collect(stdout, moreOut)
	errText, errErr := collect(stderr, moreErr)
	if code == 0 && len(question) > 1 && question[0] == "stack" && question[1] == "output" {
		c.asked, c.said = strings.Join(question, " "), out
	}
	return out, errText, code, errors.Join(err, outErr, errErr)
}

// answered answers for the CLI where the Automation API asks for what infractl
// has no use for; each saves a start of the CLI. Selecting a stack is for people
// who leave --stack out, and the history's last entry only repeats the events.
// After the outputs it asks for them again, with secret ones shown: where none is,
// the answer is the same.
func (c *command) answered(args []string) (string, bool) {
	if len(args) < 2 || args[0] != "stack" {
		return "", false
	}
	switch args[1] {
	case "select":
		return "", true
	case "history":
		return "[]", true
	case "output":
		hidden := slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "--show-secrets" })
		if len(hidden) < len(args) && c.asked == strings.Join(hidden, " ") && !strings.Contains(c.said, "[secret]") {
			return c.said, true
		}
	}
	return "", false
}

// wait waits for the CLI, interrupts it when ctx ends, and ends it when the
// user insists.
func (c *command) wait(ctx context.Context, p *os.Process, done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	_ = p.Signal(syscall.SIGINT) // fails only if it has ended by itself
	look := time.NewTicker(time.Second)
	defer look.Stop()
	busy := time.Now()
	for forced := false; !forced; {
		select {
		case err := <-done:
			return err
		case <-c.force:
			forced = true
		case <-look.C:
			if process.HasChildren(p.Pid) {
				busy = time.Now()
			} else if time.Since(busy) > idleExit {
				_ = p.Kill()
				return <-done
			}
		}
	}
	_ = p.Signal(syscall.SIGINT) // for the Pulumi CLI the second one means at once
	select {
	case err := <-done:
		return err
	case <-time.After(forcedExit):
	}
	_ = p.Kill()
	return <-done
}

// scratch is a file that has no name and is on no disk: what the CLI prints may
// hold secrets, and nobody has to remove it.
func scratch() (*os.File, error) {
	fd, err := unix.MemfdCreate("infractl", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot make a file in memory: %w", err)
	}
	return os.NewFile(uintptr(fd), "infractl"), nil
}

func collect(f *os.File, more []io.Writer) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return "", err
	}
	for _, w := range more {
		if _, err := w.Write(text); err != nil {
			return string(text), err
		}
	}
	return string(text), nil
}

// prependPath puts directories in front of the search path of this process, so
// that the CLI and its plugins are found by their children too.
func prependPath(dirs ...string) error {
	old := filepath.SplitList(os.Getenv("PATH"))
	list := slices.Clone(dirs)
	for _, d := range old {
		if !slices.Contains(dirs, d) {
			list = append(list, d)
		}
	}
	return os.Setenv("PATH", strings.Join(list, string(os.PathListSeparator)))
}
