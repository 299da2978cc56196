package machine

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed guest
var guestFiles embed.FS

const (
	// bootTimeout bounds the time until a machine's init runs (measured: 0.2 s).
	bootTimeout = 30 * time.Second
	// shutdownTimeout is systemd's own default for stopping a service.
	shutdownTimeout = 90 * time.Second
	// rebootStatus is systemd-nspawn's exit status when the machine asked for a reboot.
	rebootStatus = "133"
)

// boot makes the machine's network and control group anew and starts it. The
// caller holds m.op, and the machine is off.
func (f *Fleet) boot(ctx context.Context, m *machine) error {
	start := time.Now()
	if err := f.tryBoot(ctx, m); err != nil {
		// With a context of its own: the machine is to be off even if time is up.
		clearing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		return errors.Join(fmt.Errorf("boot server %s: %w", m.Server.Name, err), f.clear(clearing, m))
	}
	f.log.Info("started", "machine", m.Server.Name, "id", m.Server.ID, "took", time.Since(start).Round(time.Millisecond))
	f.watch(m)
	return nil
}

func (f *Fleet) tryBoot(ctx context.Context, m *machine) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	id := m.Server.ID
	if err := f.clear(ctx, m); err != nil {
		return err
	}
	whole, keeper, inner := f.group(id), f.group(id, "keeper"), f.group(id, "machine")
	for _, g := range []group{whole, keeper, inner} {
		if err := g.make(); err != nil {
			return err
		}
	}
	if err := whole.limit(m.Server.Cores, m.Server.MemoryMB); err != nil {
		return fmt.Errorf("limit its cores and memory: %w", err)
	}
	if err := f.plugMachine(ctx, m); err != nil {
		return err
	}
	// The container manager tells this socket when init runs.
	notify := "@" + namePrefix + strconv.FormatInt(id, 10) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("listen for its start: %w", err)
	}
	defer socket.Close()
	script := filepath.Join(f.dir(id), "keeper.sh")
	text, err := guestFiles.ReadFile("guest/keeper.sh")
	if err != nil {
		return err
	}
	if err := os.WriteFile(script, text, 0o700); err != nil {
		return err
	}
	console, err := os.OpenFile(consoleFile(f.dir(id)), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	// "slave": what is unmounted on this computer is so for the machine's keeper too.
	cmd := exec.Command("unshare", "--mount", "--propagation", "slave", "--", "sh", script)
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
		"NOTIFY_SOCKET=" + notify,
		"LAB_NAME=" + namePrefix + strconv.FormatInt(id, 10), "LAB_HOSTNAME=" + m.Server.Name,
		"LAB_LOWER=" + m.Root, "LAB_DIR=" + f.dir(id),
		"LAB_NETNS=" + filepath.Join(netnsDir, machineNamespace(id)),
		// Version 1 controllers limit the machine as a whole.
		"LAB_KEEPER=" + strings.Join(append([]string{keeper.dir()}, whole.dirs()[1:]...), " "),
		"LAB_MACHINE=" + inner.dir(),
	}
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	died := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in the exit file
		close(died)
	}()
	ready := make(chan struct{})
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := socket.Read(buffer)
			if err != nil {
				return
			}
			if strings.Contains("\n"+string(buffer[:n]), "\nREADY=1") {
				close(ready)
				return
			}
		}
	}()
	select {
	case <-ready:
	case <-died:
		return fmt.Errorf("it went off at once; the last of its console (%s):\n%s", console.Name(), tailOf(console.Name()))
	case <-ctx.Done():
		return fmt.Errorf("its init did not come up: %w; the last of its console (%s):\n%s", ctx.Err(), console.Name(), tailOf(console.Name()))
	}
	for _, volume := range f.volumesOf(id) {
		if err := f.presentVolume(ctx, volume, id); err != nil {
			return err
		}
	}
	return f.update(m, func() { m.Started = time.Now().UTC() })
}

func consoleFile(dir string) string { return filepath.Join(dir, "console.log") }

// tailOf returns the last lines of a file.
func tailOf(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// clear makes a machine be off, whatever state it is in: first nothing more
// passes its cables, as when power fails, then its processes end, then the
// cables and namespaces go. The caller holds m.op.
func (f *Fleet) clear(ctx context.Context, m *machine) error {
	id := m.Server.ID
	if err := f.unplugMachine(m, (*namespace).silence); err != nil {
		return err
	}
	if err := f.group(id).kill(ctx); err != nil {
		return err
	}
	if err := f.group(id).remove(); err != nil {
		return err
	}
	if err := f.unplugMachine(m, (*namespace).unplug); err != nil {
		return err
	}
	if err := deleteNamespace(ctx, machineNamespace(id)); err != nil {
		return err
	}
	for _, volume := range f.volumesOf(id) {
		if err := f.releaseLoop(ctx, volume); err != nil {
			return err
		}
	}
	name := namePrefix + strconv.FormatInt(id, 10)
	for _, leftover := range []string{
		filepath.Join("/run/systemd/nspawn/propagate", name),
		filepath.Join("/run/systemd/nspawn/unix-export", name),
		filepath.Join(f.dir(id), "exit"),
	} {
		_ = os.Remove(leftover) // mostly not there
	}
	return nil
}

// shutDown asks a machine to power off, and waits until it has. One that does
// not in time stays on, which is an error.
func (f *Fleet) shutDown(ctx context.Context, m *machine) error {
	id := m.Server.ID
	if !f.running(id) {
		return nil
	}
	for _, pid := range f.group(id, "machine").processes() {
		// The container manager passes this on as a request to power off.
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.TrimSpace(string(comm)) == "systemd-nspawn" {
			if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	if err := poll(ctx, shutdownTimeout, func() bool { return !f.running(id) }); err != nil {
		return fmt.Errorf("server %s was asked to shut down and did not: %w: power it off", m.Server.Name, err)
	}
	return nil
}

func (f *Fleet) askedForReboot(m *machine) bool {
	data, err := os.ReadFile(filepath.Join(f.dir(m.Server.ID), "exit"))
	return err == nil && strings.TrimSpace(string(data)) == rebootStatus
}

// watch waits until the machine goes off by itself, and then clears it away or,
// if it asked for a reboot, starts it again.
func (f *Fleet) watch(m *machine) {
	started := m.Started
	f.watchers.Go(func() {
		id := m.Server.ID
		// Once it is deleted, its number may be another machine's.
		exists := func() bool {
			now, err := f.find(id)
			return err == nil && now == m
		}
		for exists() && f.running(id) {
			select {
			case <-f.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
		m.op.Lock()
		defer m.op.Unlock()
		// Somebody else may have been quicker.
		if f.ctx.Err() != nil || !exists() || f.running(id) || !m.Started.Equal(started) {
			return
		}
		reboot := f.askedForReboot(m)
		if err := errors.Join(f.clear(f.ctx, m), f.update(m, func() { m.Started = time.Time{} })); err != nil {
			f.log.Error("a machine went off and cannot be cleared away", "machine", m.Server.Name, "error", err)
			return
		}
		f.log.Info("went off", "machine", m.Server.Name, "id", id, "reboot", reboot)
		if reboot {
			if err := f.boot(f.ctx, m); err != nil {
				f.log.Error("a machine cannot be started again", "machine", m.Server.Name, "error", err)
			}
		}
	})
}
