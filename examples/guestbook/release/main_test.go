package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestSyncLeavesWhatIsRightAndRemovesTheRest(t *testing.T) {
	folder := t.TempDir()
	if err := sync(folder, map[string]file{
		"bin/app": {[]byte("one"), 0o755}, "public/old.css": {[]byte("old"), 0o644}, "public/same.css": {[]byte("same"), 0o644},
	}); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Hour).Truncate(time.Second)
	for _, name := range []string{"bin/app", "public/same.css"} {
		if err := os.Chtimes(filepath.Join(folder, name), past, past); err != nil {
			t.Fatal(err)
		}
	}
	if err := sync(folder, map[string]file{
		"bin/app": {[]byte("two"), 0o755}, "public/same.css": {[]byte("same"), 0o644},
	}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(folder, "public/same.css"))
	if err != nil || !info.ModTime().Equal(past) {
		t.Errorf("an equal file was touched: %v %v", info, err)
	}
	info, err = os.Stat(filepath.Join(folder, "bin/app"))
	if err != nil || info.Mode() != 0o755 || info.ModTime().Equal(past) {
		t.Errorf("a changed file was not replaced: %v %v", info, err)
	}
	if _, err := os.Stat(filepath.Join(folder, "public/old.css")); !os.IsNotExist(err) {
		t.Error("a file of the former release is still there")
	}
}
