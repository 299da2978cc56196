package engine

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// backend is the place of the state, as Pulumi itself would choose it; empty
// if none was chosen yet.
func backend(p Project) string {
	if u := os.Getenv("PULUMI_BACKEND_URL"); u != "" {
		return u
	}
	if p.Backend != "" {
		return p.Backend
	}
	text, err := os.ReadFile(filepath.Join(pulumiHome(), "credentials.json"))
	if err == nil {
		var c struct {
			Current string `json:"current"`
		}
		if json.Unmarshal(text, &c) == nil && c.Current != "" {
			return c.Current
		}
	}
	if os.Getenv("PULUMI_ACCESS_TOKEN") != "" {
		return "https://api.pulumi.com"
	}
	return ""
}

// hosted says whether the backend is a service that encrypts secrets itself.
func hosted(backend string) bool {
	return strings.HasPrefix(backend, "https://") || strings.HasPrefix(backend, "http://")
}

// backendDir is the directory of a backend in the file system; empty for any other.
func backendDir(backend string) string {
	rest, ok := strings.CutPrefix(backend, "file://")
	if !ok {
		return ""
	}
	if i := strings.IndexByte(rest, '?'); i >= 0 {
		rest = rest[:i]
	}
	if decoded, err := url.PathUnescape(rest); err == nil {
		rest = decoded
	}
	if rest == "~" || strings.HasPrefix(rest, "~/") {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		rest = filepath.Join(home, strings.TrimPrefix(rest, "~"))
	}
	if !filepath.IsAbs(rest) {
		return "" // relative to a directory that only the CLI knows
	}
	return rest
}

// mendAttributes makes the state of a run readable that was killed while Pulumi
// saved it. In the file system each object of the state has a second file, with its
// attributes, and only that one is not written in one step; Pulumi reads nothing of
// an object whose attributes are cut off, but does without any. Whether somebody is
// writing them at this moment does not matter: they are looked at by nobody.
func mendAttributes(backend, project, environment string) error {
	dir := backendDir(backend)
	if dir == "" {
		return nil
	}
	stacks := filepath.Join(dir, ".pulumi", "stacks", project)
	entries, err := os.ReadDir(stacks)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	paths := []string{filepath.Join(dir, ".pulumi", "meta.yaml.attrs")}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), environment+".") && strings.HasSuffix(e.Name(), ".attrs") {
			paths = append(paths, filepath.Join(stacks, e.Name()))
		}
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && json.Valid(text) {
			continue
		}
		if err == nil {
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
