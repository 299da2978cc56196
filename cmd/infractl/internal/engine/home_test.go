package engine

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPulumiFindsAllButAPlaceForItsLogs(t *testing.T) {
	users := put(t, map[string]string{"credentials.json": "theirs", "logs/old.log": "theirs"})
	own := filepath.Join(t.TempDir(), "own")
	t.Setenv("PULUMI_HOME", users)
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	prepare := func() {
		t.Helper()
		if err := quietHome(own); err != nil {
			t.Fatal(err)
		}
		if os.MkdirAll(filepath.Join(own, "logs"), 0o700) == nil {
			t.Error("logs can be kept")
		}
	}
	prepare()
	// Pulumi downloads a plugin, and writes a file anew.
	write(filepath.Join(own, "plugins/resource-x/x"), "plugin")
	if err := os.Remove(filepath.Join(own, "credentials.json")); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(own, "credentials.json"), "another's")
	write(filepath.Join(own, "left"), "over")
	write(filepath.Join(users, "config.json"), "new")
	prepare()
	prepare()
	for name, want := range map[string]string{
		"credentials.json": "theirs", "plugins/resource-x/x": "plugin", "config.json": "new",
	} {
		if text, err := os.ReadFile(filepath.Join(own, name)); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if _, err := os.Stat(filepath.Join(own, "left")); err == nil {
		t.Error("what is not the user's stays")
	}
	if text, err := os.ReadFile(filepath.Join(users, "plugins/resource-x/x")); err != nil || string(text) != "plugin" {
		t.Errorf("the user's own Pulumi does not find the plugin: %v", err)
	}
}
