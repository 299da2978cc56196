package desired

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// ErrTree is wrapped by every error that says why a directory cannot be a tree.
var ErrTree = errors.New("not usable as a tree")

// Entry is one member of a directory that is uploaded as a Tree.
type Entry struct {
	// Path is relative to the directory, with slashes, and never ".".
	Path string
	// Kind is one of the constants below.
	Kind EntryKind
	// Size is the length of a file's content in bytes.
	Size int64
	// Link is a symbolic link's target as it is written in the link.
	Link string
	// Modified is when a file's content was changed last. It is no part of
	// the digest.
	Modified time.Time
}

// EntryKind says what an Entry is. The letters are part of the digest.
type EntryKind byte

// What a tree may hold.
const (
	Plain      EntryKind = 'F'
	Executable EntryKind = 'X'
	Directory  EntryKind = 'D'
	Symlink    EntryKind = 'L'
)

// Entries lists what is in the directory dir, sorted by path as filepath.WalkDir
// does it, parents before their children. Symbolic links are not followed; one
// that is absolute, points to nothing or leaves dir is an error, and so is
// anything that is neither file, directory nor link.
func Entries(dir string) ([]Entry, error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrTree, dir, err)
	}
	info, err := os.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrTree, dir, err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%w: %s is not a directory", ErrTree, dir)
	}
	var entries []Entry
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if rel == "." {
			return nil
		}
		e := Entry{Path: filepath.ToSlash(rel)}
		switch d.Type() {
		case fs.ModeDir:
			e.Kind = Directory
		case fs.ModeSymlink:
			e.Kind = Symlink
			if e.Link, err = link(root, name, e.Path); err != nil {
				return err
			}
		case 0:
			info, err := d.Info()
			if err != nil {
				return err
			}
			e.Kind, e.Size, e.Modified = Plain, info.Size(), info.ModTime()
			if info.Mode().Perm()&0o100 != 0 {
				e.Kind = Executable
			}
		default:
			return fmt.Errorf("%s is neither a file, a directory nor a symbolic link", e.Path)
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrTree, dir, err)
	}
	return entries, nil
}

// link reads the symbolic link name and makes sure that it stays inside root,
// both as written and as the file system resolves it: a link through another
// link can leave although its text does not look like it.
func link(root, name, rel string) (string, error) {
	target, err := os.Readlink(name)
	if err != nil {
		return "", err
	}
	written := path.Join(path.Dir(rel), target)
	if path.IsAbs(target) || written == ".." || strings.HasPrefix(written, "../") {
		return "", fmt.Errorf("the symbolic link %s leaves the directory: %s", rel, target)
	}
	resolved, err := filepath.EvalSymlinks(name)
	if err != nil {
		return "", fmt.Errorf("the symbolic link %s cannot be followed: %w", rel, err)
	}
	if resolved != root && !strings.HasPrefix(resolved, root+string(filepath.Separator)) {
		return "", fmt.Errorf("the symbolic link %s leaves the directory: %s", rel, target)
	}
	return target, nil
}

// Digest identifies the content of the directory dir: "sha256:" and the hex
// SHA-256 of all its entries' paths, kinds (a file's executable bit is part of
// that), link targets and contents. Times, owners and other modes do not count,
// so that the same release has the same digest wherever it was built.
func Digest(dir string) (string, error) {
	entries, err := Entries(dir)
	if err != nil {
		return "", err
	}
	d := NewDigester()
	for _, e := range entries {
		var content io.ReadCloser
		if e.Kind == Plain || e.Kind == Executable {
			if content, err = os.Open(filepath.Join(dir, filepath.FromSlash(e.Path))); err != nil {
				return "", fmt.Errorf("%w: %s: %w", ErrTree, dir, err)
			}
		}
		err = d.Add(e, content)
		if content != nil {
			content.Close()
		}
		if err != nil {
			return "", fmt.Errorf("%w: %s: %w", ErrTree, dir, err)
		}
	}
	return d.Sum(), nil
}

// Digester computes what Digest does, entry by entry, for those who read the
// content anyway.
type Digester struct{ sum hashWriter }

type hashWriter interface {
	io.Writer
	Sum([]byte) []byte
}

// NewDigester returns a Digester without entries.
func NewDigester() *Digester { return &Digester{sha256.New()} }

// Add takes the next entry, in the order of Entries, and reads content to its
// end if the entry is a file. It fails if content cannot be read or is not as
// long as the entry says.
func (d *Digester) Add(e Entry, content io.Reader) error {
	inner := sha256.New()
	switch e.Kind {
	case Plain, Executable:
		n, err := io.Copy(inner, content)
		if err != nil {
			return fmt.Errorf("reading %s: %w", e.Path, err)
		}
		if n != e.Size {
			return fmt.Errorf("%s changed while it was being read", e.Path)
		}
	case Symlink:
		io.WriteString(inner, e.Link)
	}
	// The length keeps a path with a newline from looking like two entries.
	fmt.Fprintf(d.sum, "%c %d:%s %x\n", e.Kind, len(e.Path), e.Path, inner.Sum(nil))
	return nil
}

// Sum returns the digest of the entries added so far.
func (d *Digester) Sum() string { return "sha256:" + hex.EncodeToString(d.sum.Sum(nil)) }
