package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// volume is a block device: a sparse file, and while it is attached to a
// running server a loop device above it.
type volume struct {
	// Server is the one it is attached to, or 0.
	Server int64 `json:"server"`
}

const gigabyte = 1_000_000_000

func (f *Fleet) volumeFile(id int64) string {
	return filepath.Join(f.cfg.Dir, "volumes", strconv.FormatInt(id, 10)+".img")
}

// volumeLink is where a machine finds the volume below /dev.
func volumeLink(id int64) string {
	return "disk/by-id/scsi-0HC_Volume_" + strconv.FormatInt(id, 10)
}

// CreateVolume makes a volume. See api.Machines. format is ext4, xfs or empty.
func (f *Fleet) CreateVolume(ctx context.Context, id int64, size int, format string) error {
	file := f.volumeFile(id)
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	temp := file + ".new"
	if err := os.WriteFile(temp, nil, 0o600); err != nil {
		return err
	}
	defer os.Remove(temp)
	if err := os.Truncate(temp, int64(size)*gigabyte); err != nil {
		return fmt.Errorf("make volume %d: %w", id, err)
	}
	if format != "" {
		force := "-F"
		if format == "xfs" {
			force = "-f"
		}
		if _, err := run(ctx, "mkfs."+format, "-q", force, temp); err != nil {
			return fmt.Errorf("format volume %d: %w", id, err)
		}
	}
	if err := os.Rename(temp, file); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.volumes[id] = &volume{}
	return f.saveShared()
}

// ResizeVolume makes a volume larger. See api.Machines.
func (f *Fleet) ResizeVolume(ctx context.Context, id int64, size int) error {
	if err := os.Truncate(f.volumeFile(id), int64(size)*gigabyte); err != nil {
		return fmt.Errorf("resize volume %d: %w", id, err)
	}
	device, err := f.loopDevice(ctx, id)
	if err != nil || device == "" {
		return err
	}
	_, err = run(ctx, "losetup", "--set-capacity", device)
	return err
}

// AttachVolume gives a volume to a server. See api.Machines.
func (f *Fleet) AttachVolume(ctx context.Context, id, server int64) error {
	f.mu.Lock()
	v, ok := f.volumes[id]
	if !ok {
		f.mu.Unlock()
		return fmt.Errorf("the lab has no volume %d", id)
	}
	before := v.Server
	v.Server = server
	err := f.saveShared()
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if before != 0 && before != server {
		if err := f.withdrawVolume(ctx, id, before); err != nil {
			return err
		}
	}
	if server == 0 || !f.running(server) {
		return nil // comes when the server is powered on
	}
	return f.presentVolume(ctx, id, server)
}

// DeleteVolume removes a volume. See api.Machines.
func (f *Fleet) DeleteVolume(ctx context.Context, id int64) error {
	if err := f.releaseLoop(ctx, id); err != nil {
		return err
	}
	if err := os.Remove(f.volumeFile(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.volumes, id)
	return f.saveShared()
}

// volumesOf returns the volumes attached to a server.
func (f *Fleet) volumesOf(server int64) []int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ids []int64
	for id, v := range f.volumes {
		if v.Server == server {
			ids = append(ids, id)
		}
	}
	return ids
}

// loopDevice returns the loop device that a volume's file has, or nothing.
func (f *Fleet) loopDevice(ctx context.Context, id int64) (string, error) {
	out, err := run(ctx, "losetup", "--noheadings", "--output", "NAME", "--associated", f.volumeFile(id))
	if err != nil {
		return "", fmt.Errorf("look for the loop device of volume %d: %w", id, err)
	}
	return strings.TrimSpace(out), nil
}

func (f *Fleet) releaseLoop(ctx context.Context, id int64) error {
	if _, err := os.Stat(f.volumeFile(id)); err != nil {
		return nil
	}
	device, err := f.loopDevice(ctx, id)
	if err != nil || device == "" {
		return err
	}
	if _, err := run(ctx, "losetup", "--detach", device); err != nil {
		return fmt.Errorf("release the loop device of volume %d: %w", id, err)
	}
	return nil
}

// presentVolume makes a volume's device in a running machine's /dev.
func (f *Fleet) presentVolume(ctx context.Context, id, server int64) error {
	device, err := f.loopDevice(ctx, id)
	if err != nil {
		return err
	}
	if device == "" {
		out, err := run(ctx, "losetup", "--find", "--show", f.volumeFile(id))
		if err != nil {
			return fmt.Errorf("this computer gives no loop device, without which volume %d cannot be attached (modprobe loop may help): %w", id, err)
		}
		device = strings.TrimSpace(out)
	}
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		return fmt.Errorf("volume %d: %w", id, err)
	}
	dev, err := f.guestDev(server)
	if err != nil {
		return fmt.Errorf("volume %d: %w", id, err)
	}
	// A node of the same number in the machine's own /dev.
	node := filepath.Join(dev, filepath.Base(device))
	if err := unix.Mknod(node, unix.S_IFBLK|0o660, int(st.Rdev)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make the device of volume %d in the machine: %w", id, err)
	}
	link := filepath.Join(dev, volumeLink(id))
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	_ = os.Remove(link)
	if err := os.Symlink("../../"+filepath.Base(device), link); err != nil {
		return fmt.Errorf("name the device of volume %d in the machine: %w", id, err)
	}
	return nil
}

// withdrawVolume takes a volume's device away from a machine.
func (f *Fleet) withdrawVolume(ctx context.Context, id, server int64) error {
	device, err := f.loopDevice(ctx, id)
	if err != nil || device == "" {
		return err
	}
	if f.running(server) {
		if dev, err := f.guestDev(server); err == nil {
			_ = os.Remove(filepath.Join(dev, volumeLink(id)))
			_ = os.Remove(filepath.Join(dev, filepath.Base(device)))
		}
	}
	return f.releaseLoop(ctx, id)
}

// guestDev returns the path by which this computer sees a running machine's /dev.
func (f *Fleet) guestDev(server int64) (string, error) {
	for _, pid := range f.group(server, "machine").processes() {
		// Init is the process that is number 1 in its own namespace.
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "NSpid:" && fields[len(fields)-1] == "1" {
				return fmt.Sprintf("/proc/%d/root/dev", pid), nil
			}
		}
	}
	return "", fmt.Errorf("the init of server %d is not to be found", server)
}
