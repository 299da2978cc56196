package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// makeDisk makes a machine's directory anew: an empty layer above the image,
// with what cloud-init will find in it, and the machine's record. It replaces
// one that is there.
func (f *Fleet) makeDisk(m *machine) error {
	final := f.dir(m.Server.ID)
	temp := filepath.Join(filepath.Dir(final), ".new-"+strconv.FormatInt(m.Server.ID, 10))
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	upper := filepath.Join(temp, "upper")
	for _, dir := range []string{upper, filepath.Join(temp, "work"), filepath.Join(temp, "root")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// Others on this computer have no business in the machine's files.
	if err := os.Chmod(temp, 0o700); err != nil {
		return err
	}
	seed, err := f.seed(m)
	if err != nil {
		return err
	}
	for name, file := range seed {
		target := filepath.Join(upper, name)
		// Directories have the mode they have in the image, where all of these are 0755.
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, file.content, file.mode); err != nil {
			return err
		}
	}
	if err := saveJSON(filepath.Join(temp, recordFile), &m.record); err != nil {
		return err
	}
	old := filepath.Join(filepath.Dir(final), ".deleted-"+strconv.FormatInt(m.Server.ID, 10))
	if err := os.Rename(final, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(temp, final); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

type seedFile struct {
	content []byte
	mode    fs.FileMode
}

// seed is what the cloud gives a new server: user data, keys, a name, and
// where the network is.
func (f *Fleet) seed(m *machine) (map[string]seedFile, error) {
	s := m.Server
	// JSON is YAML.
	meta, err := json.Marshal(map[string]any{
		"instance-id":    strconv.FormatInt(s.ID, 10),
		"local-hostname": s.Name,
		"public-keys":    s.SSHKeys,
	})
	if err != nil {
		return nil, err
	}
	config := map[string]any{"manage_etc_hosts": true}
	if s.RootPassword != "" {
		config["ssh_pwauth"] = true
		config["chpasswd"] = map[string]any{
			"expire": true,
			"users":  []map[string]string{{"name": "root", "password": s.RootPassword, "type": "text"}},
		}
	}
	vendor, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	const dir = "var/lib/cloud/seed/nocloud/"
	return map[string]seedFile{
		dir + "meta-data":   {meta, 0o600},
		dir + "user-data":   {[]byte(s.UserData), 0o600},
		dir + "vendor-data": {fmt.Appendf(nil, "#cloud-config\n%s\n", vendor), 0o600},
		"etc/resolv.conf":   {[]byte(f.resolvers.conf()), 0o644},
	}, nil
}
