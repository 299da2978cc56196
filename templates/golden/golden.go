// Package golden holds rendered configurations against the files in testdata,
// one for each file on the host, so that a change of a template shows as a
// change of what lands on hosts. It is for tests only.
package golden

import (
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/aymanbagabas/go-udiff"

	"github.com/infractl/infractl/provision/desired"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// Host compares everything about host with testdata/name: each file's content
// with NAME.golden at its path, and all the rest with host.json. Files in that
// folder that the host does not have any more are an error.
func Host(t *testing.T, name string, host desired.Host) {
	t.Helper()
	wanted := map[string]string{}
	plain := host
	plain.Files = map[string]desired.File{}
	for path, file := range host.Files {
		if file.Link == "" {
			wanted[filepath.Join(name, path+".golden")] = file.Content
		}
		file.Content = ""
		plain.Files[path] = file
	}
	rest, err := json.MarshalIndent(plain, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	wanted[filepath.Join(name, "host.json")] = string(rest) + "\n"
	for path, content := range wanted {
		Text(t, path, content)
	}
	root := filepath.Join("testdata", name)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		relative, err := filepath.Rel("testdata", path)
		if err != nil {
			return err
		}
		if _, ok := wanted[relative]; !ok {
			if *update {
				return os.Remove(path)
			}
			t.Errorf("%s is not rendered any more; run go test -update", path)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// Text compares text with the file testdata/path.
func Text(t *testing.T, path, text string) {
	t.Helper()
	path = filepath.Join("testdata", path)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("%v; run go test -update and look at what is new", err)
		return
	}
	if string(old) != text {
		t.Errorf("%s has changed; if that is right, run go test -update\n%s", path, udiff.Unified("golden", "rendered", string(old), text))
	}
}
