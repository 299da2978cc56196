package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// quietHome makes a directory for PULUMI_HOME that has all that the user's own has,
// by links, but for logs: Pulumi writes down every property of every resource in
// each run, again and again, which takes half of the CLI's time and leaves megabytes
// of every file of every host, in plain text where a run is killed early. No variable
// turns that off, but where Pulumi finds no directory for its logs, it goes on
// without. Several runs may do this at once.
func quietHome(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	want := map[string]string{}
	if users := pulumiHome(); users != "" {
		// What Pulumi downloads is to be found there by the next run, too. Where that
		// cannot be written to, each environment has its own.
		_ = os.MkdirAll(filepath.Join(users, plugins), 0o700)
		theirs, err := os.ReadDir(users)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range theirs {
			if e.Name() != logs {
				want[e.Name()] = filepath.Join(users, e.Name())
			}
		}
	}
	ours, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range ours {
		name := e.Name()
		path := filepath.Join(dir, name)
		target, err := os.Readlink(path)
		switch {
		case name == logs, name == plugins && want[plugins] == "":
			delete(want, name)
		case err == nil && target == want[name]:
			delete(want, name)
		case want[name] == "" || e.IsDir():
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	// A file that Pulumi has written in place of a link, such as that with the time of
	// the last login, is there all the time: another run may be reading it. Where one
	// that does the same is faster, it has done it for both.
	for name, target := range want {
		link := filepath.Join(dir, fmt.Sprintf("%s.%d", name, os.Getpid()))
		if err := os.Symlink(target, link); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := os.Rename(link, filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, logs), []byte("A file, so that Pulumi keeps no logs here.\n"), 0o600)
}

// logs and plugins are the names of the directories in which Pulumi keeps these.
const logs, plugins = "logs", "plugins"
