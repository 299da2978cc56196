// Command release makes the directory that infractl puts on hosts:
//
//	bin/guestbook    the application, linked statically
//	public/assets/   files for web servers, under the names that pages use,
//	                 each also compressed (.gz)
//
// Run it in the guestbook's folder. The same sources make the same release, and
// what is already there and right is left untouched.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"example.com/guestbook/assets"
)

func main() {
	output := flag.String("output", "dist", "directory to make the release in")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := release(ctx, *output); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// file is one file of the release.
type file struct {
	content []byte
	mode    fs.FileMode
}

func release(ctx context.Context, output string) error {
	scratch, err := os.MkdirTemp("", "guestbook-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)

	program := filepath.Join(scratch, "guestbook")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, ".")
	// No C library is needed on the host, whatever this computer has.
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("compile the application: %w", err)
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		return err
	}

	files := map[string]file{"bin/guestbook": {binary, 0o755}}
	for _, asset := range assets.All() {
		name := "public" + assets.Prefix + asset.Hashed
		files[name] = file{asset.Content, 0o644}
		if packed := asset.Gzip(); packed != nil {
			files[name+".gz"] = file{packed, 0o644}
		}
	}
	return sync(output, files)
}

// sync makes the directory hold exactly these files. Files that are right keep
// their modification time, from which web servers derive their ETag.
func sync(directory string, files map[string]file) error {
	for name, want := range files {
		path := filepath.Join(directory, filepath.FromSlash(name))
		info, err := os.Lstat(path)
		if err == nil && info.Mode() == want.mode {
			if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, want.content) {
				continue
			}
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		// Renamed into place, so that nobody reads half of it.
		next := path + ".new"
		if err := os.WriteFile(next, want.content, want.mode); err != nil {
			return err
		}
		if err := os.Chmod(next, want.mode); err != nil {
			return err
		}
		if err := os.Rename(next, path); err != nil {
			return err
		}
	}
	return filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(directory, path)
		if err != nil {
			return err
		}
		if _, wanted := files[strings.ReplaceAll(name, string(filepath.Separator), "/")]; wanted {
			return nil
		}
		return os.Remove(path)
	})
}
