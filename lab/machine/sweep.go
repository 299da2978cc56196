package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// stateMarker is a file in every state directory, so that no other directory
// is ever removed for one.
const stateMarker = ".infractl-lab"

// MarkStateDir makes dir a lab's state directory. In one that another user has made,
// such as in a place where everybody may, that user could read and change it.
func MarkStateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !st.IsDir() || ok && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user: remove it, or name another place by INFRACTL_LAB_DIR", dir)
	}
	return os.WriteFile(filepath.Join(dir, stateMarker), nil, 0o600)
}

// Removed counts what a Sweep took away.
type Removed struct {
	Processes  int `json:"processes"`
	Namespaces int `json:"namespaces"`
	Links      int `json:"links"`
	Loops      int `json:"loop_devices"`
	Dirs       int `json:"directories"`
}

// Any says whether there was anything.
func (r Removed) Any() bool { return r != Removed{} }

// Sweep removes everything of the lab from this computer, in whatever state it
// is: it goes by names and control groups, not by the lab's records. dirs are
// state directories to remove too, if they are such.
func Sweep(ctx context.Context, dirs ...string) (Removed, error) {
	var r Removed
	var errs []error
	marker, err := ReadMarker()
	up := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	// Processes first: the daemon must not put back what goes.
	groups, err := findHierarchies()
	if err == nil {
		g := groups.group()
		r.Processes = len(g.processes())
		if err := g.kill(ctx); err != nil {
			return r, err
		}
		errs = append(errs, g.remove())
	}
	errs = append(errs, sweepNamespaces(ctx, &r), sweepComputer(ctx, &r, marker, up))
	leftovers, _ := filepath.Glob("/run/systemd/nspawn/*/" + namePrefix + "*")
	for _, dir := range leftovers {
		errs = append(errs, os.Remove(dir))
	}
	for _, dir := range dirs {
		errs = append(errs, sweepLoops(ctx, &r, dir))
	}
	if err := errors.Join(errs...); err != nil {
		return r, err
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, stateMarker)); err != nil {
			continue
		}
		r.Dirs++
		if err := os.RemoveAll(dir); err != nil {
			return r, fmt.Errorf("remove the lab's state: %w", err)
		}
	}
	if !Guarded() {
		if err := removeGuard(); err != nil {
			return r, err
		}
	}
	// Last, since it says how the computer was before the lab.
	if err := os.Remove(filepath.Join(runDir, "lab.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	_ = os.Remove(runDir) // not if the guard stays
	return r, nil
}

func sweepNamespaces(ctx context.Context, r *Removed) error {
	entries, err := os.ReadDir(netnsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), namePrefix) {
			r.Namespaces++
			errs = append(errs, deleteNamespace(ctx, entry.Name()))
		}
	}
	return errors.Join(errs...)
}

func sweepComputer(ctx context.Context, r *Removed, marker Marker, up bool) error {
	var errs []error
	// The kernel takes a deleted namespace apart in its own time; the link to
	// the router is to be gone now, and with it the addresses and routes.
	if _, err := net.InterfaceByName(computerLink); err == nil {
		link, err := netlink.LinkByName(computerLink)
		if err == nil {
			r.Links++
			err = netlink.LinkDel(link)
		}
		if err != nil && !errors.Is(err, unix.ENODEV) && !errors.As(err, &netlink.LinkNotFoundError{}) {
			errs = append(errs, err)
		}
	}
	// Adding the table makes deleting it succeed also when there is none.
	if err := loadRules(ctx, fmt.Sprintf("table inet %s\ndelete table inet %s\n", rulesTable, rulesTable)); err != nil {
		errs = append(errs, err)
	}
	if up {
		for key, value := range marker.Sysctls {
			// One that somebody else has set since is theirs.
			if now, err := readSysctl(key); err == nil && now == value.Set {
				errs = append(errs, writeSysctl(key, value.Before))
			}
		}
		if !marker.NamespacesMounted && isMountPoint(netnsDir) {
			if left, err := os.ReadDir(netnsDir); err == nil && len(left) == 0 {
				errs = append(errs, unix.Unmount(netnsDir, 0))
				_ = os.Remove(netnsDir)
			}
		}
	}
	return errors.Join(errs...)
}

// sweepLoops releases the loop devices above the volumes in a state directory.
func sweepLoops(ctx context.Context, r *Removed, dir string) error {
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range backing {
		data, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(data), filepath.Join(dir, "volumes")+"/") {
			continue
		}
		r.Loops++
		device := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(file)))
		_, err = run(ctx, "losetup", "--detach", device)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
