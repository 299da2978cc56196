package desired

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tree makes a directory from a description: "path" for a directory, "path=text"
// for a file, "path*=text" for an executable one, "path->target" for a link.
func tree(t *testing.T, entries ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, e := range entries {
		if name, target, ok := strings.Cut(e, "->"); ok {
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		name, text, isFile := strings.Cut(e, "=")
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, "*") {
			name, mode = strings.TrimSuffix(name, "*"), 0o755
		}
		full := filepath.Join(dir, name)
		if !isFile {
			if err := os.MkdirAll(full, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func digestOf(t *testing.T, dir string) string {
	t.Helper()
	sum, err := Digest(dir)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func TestDigestIsTheSameForTheSameContent(t *testing.T) {
	a := tree(t, "bin/app*=code", "public/a.css=x", "empty", "current->public/a.css")
	b := tree(t, "current->public/a.css", "empty", "public/a.css=x", "bin/app*=code")
	// Other times, owners and other bits of the mode do not count.
	if err := os.Chtimes(filepath.Join(b, "public/a.css"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(b, "public/a.css"), 0o600); err != nil {
		t.Fatal(err)
	}
	if digestOf(t, a) != digestOf(t, b) {
		t.Error("two equal trees have different digests")
	}
	if sum := digestOf(t, a); len(sum) != len("sha256:")+64 || !strings.HasPrefix(sum, "sha256:") {
		t.Errorf("digest is %q", sum)
	}
}

func TestDigestChangesWithEverythingThatMatters(t *testing.T) {
	seen := map[string]int{}
	for i, entries := range [][]string{
		{},
		{"a=x"},
		{"a=y"},
		{"a*=x"},
		{"b=x"},
		{"a=x", "b="},
		{"a=x", "b"},
		{"a=x", "b->a"},
		{"a=x", "c=", "b->c"},
		{"d/a=x"},
		{"a=xb="},
	} {
		sum := digestOf(t, tree(t, entries...))
		if other, ok := seen[sum]; ok {
			t.Errorf("trees %d and %d have the same digest", other, i)
		}
		seen[sum] = i
	}
}

func TestDigestRefusesLinksThatLeave(t *testing.T) {
	for name, entries := range map[string][]string{
		"absolute":              {"l->/etc/passwd"},
		"upwards":               {"l->../x"},
		"upwards from below":    {"d", "d/l->../../x"},
		"to nothing":            {"l->nothing"},
		"to itself":             {"l->l"},
		"upwards through links": {"t", "d/e", "d/a->../t", "d/e/l->../a/../.."},
	} {
		t.Run(name, func(t *testing.T) {
			sum, err := Digest(tree(t, entries...))
			if !errors.Is(err, ErrTree) || !strings.Contains(err.Error(), "symbolic link") {
				t.Errorf("got %q, %v", sum, err)
			}
		})
	}
}

func TestDigestRefusesWhatIsNoDirectoryOrHoldsMoreThanFiles(t *testing.T) {
	dir := tree(t, "a=x")
	for _, name := range []string{filepath.Join(dir, "a"), filepath.Join(dir, "missing")} {
		if _, err := Digest(name); !errors.Is(err, ErrTree) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Digest(dir); !errors.Is(err, ErrTree) || !strings.Contains(err.Error(), "pipe") {
		t.Errorf("a pipe: %v", err)
	}
}

func TestDigesterNoticesAFileThatChangesWhileItIsRead(t *testing.T) {
	d := NewDigester()
	if err := d.Add(Entry{Path: "a", Kind: Plain, Size: 3}, strings.NewReader("four")); err == nil {
		t.Error("no error")
	}
}

func TestDigestFollowsALinkToTheDirectoryItself(t *testing.T) {
	dir := tree(t, "releases/1/a=x", "current->releases/1")
	if digestOf(t, filepath.Join(dir, "current")) != digestOf(t, filepath.Join(dir, "releases/1")) {
		t.Error("the digest depends on how the directory is named")
	}
}
