package machine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// runDir holds what this computer must know of its lab as long as it runs. It
// is gone after a restart of the computer, as is all that it tells about.
const runDir = "/run/infractl-lab"

// Marker says which lab this computer has, and how the computer was before it.
type Marker struct {
	// Dir is the lab's state directory.
	Dir string `json:"dir"`
	// Sysctls are the kernel parameters the lab changed, by their paths below /proc/sys.
	Sysctls map[string]changedSysctl `json:"sysctls"`
	// Closed are the interfaces that were not routed between before the lab.
	Closed []string `json:"closed,omitempty"`
	// NamespacesMounted says whether /run/netns was a mount point before the lab.
	NamespacesMounted bool `json:"namespaces_mounted"`
}

// changedSysctl is a kernel parameter's value before the lab, and what the lab set.
type changedSysctl struct {
	Before string `json:"before"`
	Set    string `json:"set"`
}

// ReadMarker returns the lab this computer has; the error is fs.ErrNotExist when there is none.
func ReadMarker() (Marker, error) {
	var m Marker
	data, err := os.ReadFile(filepath.Join(runDir, "lab.json"))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("read %s/lab.json: %w", runDir, err)
	}
	return m, nil
}

func (m Marker) write() error {
	return saveJSON(filepath.Join(runDir, "lab.json"), m)
}

// saveJSON writes a file that only root may read, as a whole or not at all.
func saveJSON(file string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	if _, err = temp.Write(data); err == nil {
		err = temp.Close()
	}
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), file)
}

// isMountPoint says whether a directory is on another mount than its parent
// or the root of one.
func isMountPoint(dir string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st)
	return err == nil && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}
