package engine

import (
	"encoding/json"
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
