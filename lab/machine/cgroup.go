package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupName is the control group everything of the lab runs in, below the
// root of every hierarchy. Whatever is in it is the lab's, and nothing else is.
const cgroupName = "infractl-lab"

// daemonGroup is the daemon's place below cgroupName.
const daemonGroup = "daemon"

// hierarchies are the mounted control group hierarchies: version 2, which is
// needed (for freezing and killing a whole machine at once), and those
// controllers that this computer has in version 1 hierarchies instead.
type hierarchies struct {
	unified string
	legacy  map[string]string
}

// findHierarchies looks where this computer has its control groups: version 2
// alone at /sys/fs/cgroup, or beside version 1 ("hybrid") at its "unified".
func findHierarchies() (hierarchies, error) {
	const top = "/sys/fs/cgroup"
	for _, dir := range []string{top, top + "/unified"} {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		h := hierarchies{unified: dir, legacy: map[string]string{}}
		if dir != top {
			// "systemd" is no controller: it is where the container manager and
			// older systemds keep a copy of the tree.
			for _, controller := range []string{"cpu", "memory", "pids", "systemd"} {
				if isDir(filepath.Join(top, controller)) {
					h.legacy[controller] = filepath.Join(top, controller)
				}
			}
		}
		return h, nil
	}
	return hierarchies{}, errors.New("this computer has no version 2 control groups at /sys/fs/cgroup or /sys/fs/cgroup/unified: mount them (a computer started by systemd has them)")
}

// group is one control group of the lab, in all hierarchies.
type group struct {
	h    hierarchies
	path string // relative to cgroupName
}

func (h hierarchies) group(path ...string) group {
	return group{h: h, path: filepath.Join(path...)}
}

// dir is the group's directory in the version 2 hierarchy.
func (g group) dir() string { return filepath.Join(g.h.unified, cgroupName, g.path) }

// dirs are the group's directories in all hierarchies.
func (g group) dirs() []string {
	dirs := []string{g.dir()}
	for _, top := range g.h.legacy {
		dirs = append(dirs, filepath.Join(top, cgroupName, g.path))
	}
	return dirs
}

// make creates the group, and hands down the controllers there are.
func (g group) make() error {
	for _, dir := range g.dirs() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make control group: %w", err)
		}
	}
	for dir := filepath.Dir(g.dir()); strings.HasPrefix(dir, g.h.unified); dir = filepath.Dir(dir) {
		// Controllers that are not there are not handed down: limits are then not enforced.
		for _, controller := range []string{"+cpu", "+memory", "+pids"} {
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(controller), 0)
		}
	}
	return nil
}

// limit bounds what the group may use, where the controllers for it exist. Where the
// machines have more cores than the computer, each gets its part.
func (g group) limit(cores, memoryMB int) error {
	const period = 100000 // µs, the kernel's default
	if cores > 0 {
		// Two cores weigh what the kernel gives every group.
		if err := g.set("cpu", "cpu.shares", strconv.Itoa(512*cores), "cpu.weight", strconv.Itoa(50*cores)); err != nil {
			return err
		}
	}
	cpuMax, legacyQuota := "max", "-1"
	if cores > 0 && cores < runtime.NumCPU() {
		cpuMax, legacyQuota = fmt.Sprintf("%d %d", cores*period, period), strconv.Itoa(cores*period)
	}
	if err := g.set("cpu", "cpu.cfs_quota_us", legacyQuota, "cpu.max", cpuMax); err != nil {
		return err
	}
	if memoryMB <= 0 {
		return nil
	}
	bytes := strconv.FormatInt(int64(memoryMB)<<20, 10)
	return g.set("memory", "memory.limit_in_bytes", bytes, "memory.max", bytes)
}

// set sets a controller's parameter in the version this computer has it in, if any.
func (g group) set(controller, legacyName, legacyValue, name, value string) error {
	file := filepath.Join(g.dir(), name)
	if top, ok := g.h.legacy[controller]; ok {
		file, value = filepath.Join(top, cgroupName, g.path, legacyName), legacyValue
	}
	if err := write(file, value); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

// populated says whether a process is in the group or below it.
func (g group) populated() bool {
	return g.event("populated")
}

func (g group) event(name string) bool {
	data, err := os.ReadFile(filepath.Join(g.dir(), "cgroup.events"))
	return err == nil && slices.Contains(strings.Split(string(data), "\n"), name+" 1")
}

// freeze stops or resumes all processes of the group, and returns once they are.
func (g group) freeze(ctx context.Context, frozen bool) error {
	value := "0"
	if frozen {
		value = "1"
	}
	if err := write(filepath.Join(g.dir(), "cgroup.freeze"), value); err != nil {
		return fmt.Errorf("freeze control group: %w", err)
	}
	return poll(ctx, 5*time.Second, func() bool { return g.event("frozen") == frozen })
}

// kill ends all processes of the group at once, without asking them, and
// returns when none is left.
func (g group) kill(ctx context.Context) error {
	if !isDir(g.dir()) {
		return nil
	}
	if err := write(filepath.Join(g.dir(), "cgroup.kill"), "1"); err != nil {
		// Before Linux 5.14. Freezing first, so that nothing forks away meanwhile.
		_ = write(filepath.Join(g.dir(), "cgroup.freeze"), "1")
		for _, pid := range g.processes() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		_ = write(filepath.Join(g.dir(), "cgroup.freeze"), "0")
	}
	if err := poll(ctx, 10*time.Second, func() bool { return !g.populated() }); err != nil {
		return fmt.Errorf("end the processes in control group %s: %w", g.dir(), err)
	}
	return nil
}

// processes returns what runs in the group and below it.
func (g group) processes() []int {
	var pids []int
	_ = filepath.WalkDir(g.dir(), func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		data, err := os.ReadFile(filepath.Join(name, "cgroup.procs"))
		if err != nil {
			return nil
		}
		for _, field := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// remove takes away the group, which must be empty of processes, and all below
// it. A group in which processes were killed must not be used again: the
// kernel (seen with 6.18) then kills what is forked into new groups below it.
func (g group) remove() error {
	var errs []error
	for _, top := range g.dirs() {
		var dirs []string
		_ = filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, name)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			// The kernel lets go of a group a moment after its last process.
			var err error
			for range 100 {
				if err = os.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
					err = nil
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("remove control group: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

// poll asks until the answer is yes. Control groups tell of changes within
// milliseconds, so that asking often costs little.
func poll(ctx context.Context, limit time.Duration, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for wait := time.Millisecond; !done(); wait = min(2*wait, 50*time.Millisecond) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
	return nil
}

// EnterDaemonGroup moves the calling process into the daemon's control group,
// by which the end of the lab finds it.
func EnterDaemonGroup() error {
	h, err := findHierarchies()
	if err != nil {
		return err
	}
	g := h.group(daemonGroup)
	if g.populated() {
		return errors.New("a lab daemon runs already")
	}
	if err := g.remove(); err != nil {
		return err
	}
	if err := g.make(); err != nil {
		return err
	}
	return write(filepath.Join(g.dir(), "cgroup.procs"), strconv.Itoa(os.Getpid()))
}

// DaemonRuns says whether a process is in the daemon's control group.
func DaemonRuns() bool {
	h, err := findHierarchies()
	return err == nil && h.group(daemonGroup).populated()
}

// StopDaemon asks the daemon to end, and ends it if it does not. The machines go on.
func StopDaemon(ctx context.Context) error {
	h, err := findHierarchies()
	if err != nil {
		return err
	}
	g := h.group(daemonGroup)
	for _, pid := range g.processes() {
		_ = unix.Kill(pid, unix.SIGTERM) // it may just have ended
	}
	// More than it waits for actions that are under way.
	if err := poll(ctx, 20*time.Second, func() bool { return !g.populated() }); err != nil {
		if err := g.kill(ctx); err != nil {
			return err
		}
	}
	return g.remove()
}

// Check says what this computer's kernel lacks for machines.
func Check() error {
	if _, err := findHierarchies(); err != nil {
		return err
	}
	if !isDir("/proc/sys/net/ipv6") {
		return errors.New("the kernel's IPv6 is switched off (ipv6.disable=1), which the lab's routers need")
	}
	return nil
}
