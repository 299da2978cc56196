package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/infractl/infractl/lab/machine"
)

// startTimeout bounds the time until the daemon answers (measured: 0.2 s).
const startTimeout = 30 * time.Second

// UpResult says what Up did.
type UpResult struct {
	// Started says whether the daemon was started just now.
	Started bool `json:"started"`
	// Endpoint is the API's address.
	Endpoint string `json:"endpoint"`
	// EnvFile is the file with the environment's credentials; empty without a project.
	EnvFile string `json:"env_file,omitempty"`
	// EnvWritten says whether it was written just now.
	EnvWritten bool `json:"env_written"`
	// Dir is the lab's state directory.
	Dir string `json:"dir"`
	// Warnings are what will not work, though the lab is up.
	Warnings []string `json:"warnings"`
}

// Up brings the lab up: base images, the network, the daemon, credentials.
// What is there already stays as it is; called again, it changes nothing.
func Up(ctx context.Context, o Options) (UpResult, error) {
	if err := o.setDefaults(); err != nil {
		return UpResult{}, err
	}
	r := UpResult{Endpoint: Endpoint, Dir: o.Dir}
	if err := Check(); err != nil {
		return r, err
	}
	unlock, err := lock(ctx, o.Progress)
	if err != nil {
		return r, err
	}
	defer unlock()
	if marker, err := machine.ReadMarker(); err == nil && marker.Dir != o.Dir {
		return r, otherLab(marker.Dir)
	}
	c, err := o.ensureState()
	if err != nil {
		return r, err
	}
	status, err := o.ask(ctx, c)
	if err != nil {
		builder := machine.Builder{Cache: o.Cache, Progress: o.Progress}
		for _, image := range o.Images {
			if _, err := builder.Ensure(ctx, image, false); err != nil {
				return r, err
			}
		}
		if status, err = o.startDaemon(ctx, c); err != nil {
			return r, err
		}
		r.Started = true
	}
	r.Warnings = append([]string{}, status.Warnings...)
	if !r.Started && status.Build != buildID() {
		r.Warnings = append(r.Warnings, "the running daemon is of another build of infractl: infractl lab restart replaces it, and leaves the machines alone")
	}
	if o.Project != "" {
		r.EnvFile = filepath.Join(o.Project, EnvFile)
		r.EnvWritten, err = o.writeEnv(c)
	}
	return r, err
}

// Restart replaces the daemon by one of this build. The machines go on.
func Restart(ctx context.Context, o Options) error {
	if err := o.setDefaults(); err != nil {
		return err
	}
	if err := Check(); err != nil {
		return err
	}
	unlock, err := lock(ctx, o.Progress)
	if err != nil {
		return err
	}
	defer unlock()
	marker, err := machine.ReadMarker()
	if err != nil {
		return errNotUp
	}
	if marker.Dir != o.Dir {
		return otherLab(marker.Dir)
	}
	c, err := o.readCredentials()
	if err != nil {
		return fmt.Errorf("the lab's credentials: %w: infractl lab down and up again make new ones", err)
	}
	if err := machine.StopDaemon(ctx); err != nil {
		return err
	}
	_, err = o.startDaemon(ctx, c)
	return err
}

var errNotUp = errors.New("the lab is not up: infractl lab up")

func otherLab(dir string) error {
	return fmt.Errorf("%w: another lab is up, with its state in %s: end it with INFRACTL_LAB_DIR=%s infractl lab down", machine.ErrConflict, dir, dir)
}

// ask returns the status that the daemon tells; an error means there is none.
func (o *Options) ask(ctx context.Context, c credentials) (daemonStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s, err := newClient(c).status(ctx)
	if err == nil && s.Dir != o.Dir {
		return s, otherLab(s.Dir)
	}
	return s, err
}

// startDaemon starts the daemon in a session of its own and waits until it answers.
func (o *Options) startDaemon(ctx context.Context, c credentials) (daemonStatus, error) {
	o.Progress("starting the lab's daemon")
	command := o.Daemon
	if len(command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return daemonStatus{}, err
		}
		command = []string{self, "lab", "serve"}
	}
	log, err := os.OpenFile(o.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return daemonStatus{}, err
	}
	defer log.Close()
	end, err := log.Seek(0, 2)
	if err != nil {
		return daemonStatus{}, err
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "INFRACTL_LAB_DIR="+o.Dir, "INFRACTL_LAB_CACHE="+o.Cache)
	cmd.Dir = "/" // not to keep anybody's directory busy
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return daemonStatus{}, fmt.Errorf("start the lab's daemon: %w", err)
	}
	died := make(chan error, 1)
	go func() { died <- cmd.Wait() }()
	deadline := time.After(startTimeout)
	for {
		status, err := o.ask(ctx, c)
		if err == nil && status.Checked {
			return status, nil
		}
		if err == nil {
			err = errors.New("it still looks for what machines can reach")
		}
		select {
		case <-ctx.Done():
			return status, ctx.Err()
		case err := <-died:
			return status, fmt.Errorf("the lab's daemon ended at once: %w\n%s", err, logSince(o.logFile(), end))
		case <-deadline:
			_ = machine.StopDaemon(ctx) // one that does not answer is in the next one's way
			return status, fmt.Errorf("the lab's daemon does not answer (%w); its log is %s:\n%s", err, o.logFile(), logSince(o.logFile(), end))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// logSince returns the last lines of a log from an offset on.
func logSince(file string, offset int64) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data[min(int(offset), len(data)):])), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// DownOptions say what Down leaves.
type DownOptions struct {
	// Keep leaves the state directory: disks, the API's state, credentials.
	// The next Up goes on with them.
	Keep bool
}

// Down removes the lab: machines, networks, daemon and, unless it is to be
// kept, its state. It does not need the daemon, nor the state to be whole.
func Down(ctx context.Context, o Options, d DownOptions) (machine.Removed, error) {
	if err := o.setDefaults(); err != nil {
		return machine.Removed{}, err
	}
	if os.Geteuid() != 0 {
		return machine.Removed{}, &MissingError{[]string{"only root can remove the lab: use sudo"}}
	}
	unlock, err := lock(ctx, o.Progress)
	if err != nil {
		return machine.Removed{}, err
	}
	defer unlock()
	marker, err := machine.ReadMarker()
	if err == nil && marker.Dir != o.Dir {
		return machine.Removed{}, otherLab(marker.Dir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return machine.Removed{}, err
	}
	c, _ := o.readCredentials() // only to recognise the project's file
	if err == nil {
		o.Progress("removing the lab")
	}
	if d.Keep {
		// In good order, so that all of its state is on disk.
		if err := machine.StopDaemon(ctx); err != nil {
			return machine.Removed{}, err
		}
		return machine.Sweep(ctx)
	}
	removed, err := machine.Sweep(ctx, o.Dir)
	if err == nil && o.Project != "" {
		o.removeEnv(c)
	}
	return removed, err
}

// BuildImage makes a base image, anew if force is set.
func BuildImage(ctx context.Context, o Options, name string, force bool) (machine.Image, error) {
	if err := o.setDefaults(); err != nil {
		return machine.Image{}, err
	}
	if err := Check(); err != nil {
		return machine.Image{}, err
	}
	return machine.Builder{Cache: o.Cache, Progress: o.Progress}.Ensure(ctx, name, force)
}
