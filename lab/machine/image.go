package machine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed image
var imageFiles embed.FS

// suites are the images the lab has, by the name the cloud gives them.
var suites = map[string]string{
	"debian-13": "trixie",
	"debian-12": "bookworm",
}

// imagePackages is what is in an image beyond Debian's essential packages and
// apt: what a cloud's Debian image has, and no more.
var imagePackages = []string{
	"systemd", "systemd-sysv", "systemd-timesyncd", "dbus", "libpam-systemd",
	"openssh-server", "sudo", "cloud-init",
	"curl", "ca-certificates", "openssl", "iproute2", "iputils-ping", "nftables", "procps", "less",
	"unattended-upgrades",
}

// stockedSuffix marks the name of an image in which servers find the packages of a web
// infrastructure, as in a snapshot of a server that had them once. Their daemons do
// not start by themselves.
const stockedSuffix = "-stocked"

// stock is what is in such an image beyond what is in any.
var stock = map[string][]string{
	"debian-13": {"nginx", "haproxy", "socat", "keepalived", "postgresql-17"},
	"debian-12": {"nginx", "haproxy", "socat", "keepalived", "postgresql-15"},
}

// contents are the suite and the packages of an image.
func contents(name string) (suite string, packages []string, ok bool) {
	name, stocked := strings.CutSuffix(name, stockedSuffix)
	suite, ok = suites[name]
	packages = imagePackages
	if stocked {
		packages = slices.Concat(imagePackages, stock[name])
	}
	return suite, packages, ok
}

// buildTimeout is far above the measured time (40 s on two busy cores), for slow mirrors.
const buildTimeout = 15 * time.Minute

// Images returns the names of the images there are, newest release first.
func Images() []string {
	names := slices.Sorted(maps.Keys(suites))
	slices.Reverse(names)
	return names
}

// Builder makes base images and keeps them in a cache directory.
type Builder struct {
	// Cache is the directory images are kept in.
	Cache string
	// Progress is told of every step; may be nil.
	Progress func(string)
}

// Image is a base image in the cache.
type Image struct {
	Name string `json:"name"`
	// Root is the root tree. It is never changed once it is there.
	Root string `json:"root"`
	// Built says whether it was built just now.
	Built bool `json:"built"`
	// Seconds is how long that took.
	Seconds float64 `json:"seconds"`
}

// Ensure returns the image of that name, building it if the cache has none
// made by the same recipe from the same mirror. With force it is built anew,
// which is refused while a machine's disk lies on it. Only one builder works
// at a time; what a killed one left is removed by the next.
func (b Builder) Ensure(ctx context.Context, name string, force bool) (Image, error) {
	suite, packages, ok := contents(name)
	if !ok {
		return Image{}, fmt.Errorf("there is no image %q; there are %s", name, strings.Join(Images(), ", "))
	}
	sources, err := mirrorLines(os.DirFS("/etc/apt"), suite)
	if err != nil {
		return Image{}, fmt.Errorf("build image %s: %w", name, err)
	}
	img := Image{Name: name, Root: filepath.Join(b.Cache, "images", name+"-"+recipe(packages, sources))}
	if !force && isDir(img.Root) {
		return img, nil
	}
	if err := os.MkdirAll(filepath.Dir(img.Root), 0o755); err != nil {
		return Image{}, fmt.Errorf("build image %s: %w", name, err)
	}
	unlock, err := b.lock(ctx)
	if err != nil {
		return Image{}, fmt.Errorf("build image %s: wait for another builder: %w", name, err)
	}
	defer unlock()
	if isDir(img.Root) { // made by the builder that was waited for
		if !force {
			return img, nil
		}
		if inUse(img.Root) {
			return Image{}, fmt.Errorf("build image %s: a machine's disk lies on the present one: delete the machines first (infractl lab down)", name)
		}
	}
	start := time.Now()
	if err := b.build(ctx, img, suite, packages, sources); err != nil {
		return Image{}, fmt.Errorf("build image %s: %w", name, err)
	}
	img.Built, img.Seconds = true, time.Since(start).Seconds()
	b.prune(name, img.Root)
	return img, nil
}

func (b Builder) progress(format string, args ...any) {
	if b.Progress != nil {
		b.Progress(fmt.Sprintf(format, args...))
	}
}

// recipeLength is how long the name of a recipe is.
const recipeLength = 12

// recipe names what an image is made of: one made of something else is another image.
func recipe(packages, sources []string) string {
	h := sha256.New()
	fmt.Fprintln(h, packages, sources, runtime.GOARCH)
	for _, name := range []string{"image/setup.sh", "image/cloud.cfg"} {
		data, err := imageFiles.ReadFile(name)
		if err != nil {
			panic(err) // embedded at compile time
		}
		h.Write(data)
	}
	return hex.EncodeToString(h.Sum(nil))[:recipeLength]
}

// lock takes the builders' lock, saying so when it has to wait.
func (b Builder) lock(ctx context.Context) (func(), error) {
	f, err := os.OpenFile(filepath.Join(b.Cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for waiting := false; ; waiting = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, err
		}
		if !waiting {
			b.progress("another process builds a base image: waiting for it")
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (b Builder) build(ctx context.Context, img Image, suite string, packages, sources []string) error {
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	temp := filepath.Join(filepath.Dir(img.Root), ".building")
	if err := os.RemoveAll(temp); err != nil { // left by a builder that was killed
		return err
	}
	defer os.RemoveAll(temp)
	files := filepath.Join(temp, "files")
	if err := os.MkdirAll(files, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"setup.sh", "cloud.cfg"} {
		data, err := imageFiles.ReadFile("image/" + name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(files, name), data, 0o755); err != nil {
			return err
		}
	}
	root := filepath.Join(temp, "root")
	args := []string{
		// Namespaces of its own, so that no mount and no process of a build outlives it.
		"--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
		"mmdebstrap", "--mode=root", "--variant=apt", "--format=directory", "--verbose",
		"--include=" + strings.Join(packages, ","),
		// A machine's first apt-get update then has little to fetch. The cache of
		// them is tidied up by the script.
		"--skip=cleanup/apt",
		`--aptopt=APT::Install-Recommends "false"`,
		"--dpkgopt=force-unsafe-io", // a half image is thrown away
		"--customize-hook=" + filepath.Join(files, "setup.sh") + " \"$1\"",
	}
	for _, proxy := range aptProxies(ctx) {
		args = append(args, "--aptopt="+proxy)
	}
	args = append(args, suite, root)
	args = append(args, sources...)
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.Env = append(os.Environ(), "LAB_IMAGE_FILES="+files, "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	// If this process is killed, so is the build. The signal is bound to the
	// thread that forks, which therefore must live as long as the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	start := time.Now()
	report := func(step string) {
		b.progress("image %s: %4.1f s: %s", img.Name, time.Since(start).Seconds(), step)
	}
	installed, reported := 0, start
	tail := &tailWriter{line: func(line string) {
		step, ok := strings.CutPrefix(line, "I: ")
		if ok && line != "I: run" && !strings.HasPrefix(step, "running --") {
			report(strings.TrimSuffix(step, "..."))
			reported = time.Now()
		}
		if strings.HasPrefix(line, "Setting up ") {
			if installed++; time.Since(reported) > 2*time.Second {
				report(fmt.Sprintf("%d packages set up", installed))
				reported = time.Now()
			}
		}
	}}
	cmd.Stdout, cmd.Stderr = tail, tail
	b.progress("image %s: building it from this computer's package mirror", img.Name)
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("mmdebstrap: %w\n%s\nlook whether apt-get update works on this computer, and whether debian-archive-keyring is recent", err, tail.last(15))
	}
	// Replacing an image is done by moving it aside, so that at no time a
	// half one is under the final name.
	old := filepath.Join(temp, "old")
	if err := os.Rename(img.Root, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(root, img.Root); err != nil {
		return err
	}
	b.progress("image %s: done in %.0f s", img.Name, time.Since(start).Seconds())
	return nil
}

// keepImages is how long an image is kept that the present recipe does not
// make: another build of this program may still want it.
const keepImages = 7 * 24 * time.Hour

// prune removes old images of the same name made by other recipes that no
// machine lies on.
func (b Builder) prune(name, keep string) {
	// Another image's name may begin with this one's.
	found, _ := filepath.Glob(filepath.Join(b.Cache, "images", name+"-"+strings.Repeat("[0-9a-f]", recipeLength)))
	for _, root := range found {
		st, err := os.Stat(filepath.Join(root, "etc/machine-id")) // written when it was made
		if err == nil && root != keep && time.Since(st.ModTime()) > keepImages && !inUse(root) {
			os.RemoveAll(root)
		}
	}
}

// inUse says whether the disk of a machine of the running lab lies on that tree.
func inUse(root string) bool {
	lab, err := ReadMarker()
	if err != nil {
		return false
	}
	records, _ := filepath.Glob(filepath.Join(lab.Dir, "machines", "*", recordFile))
	for _, file := range records {
		data, err := os.ReadFile(file)
		if err == nil && bytes.Contains(data, []byte(`"`+root+`"`)) {
			return true
		}
	}
	return false
}

// aptProxies returns the computer's proxy settings as lines of apt configuration.
func aptProxies(ctx context.Context) []string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "Acquire").Output()
	if err != nil {
		return nil
	}
	var lines []string
	for scan := bufio.NewScanner(bytes.NewReader(out)); scan.Scan(); {
		lower := strings.ToLower(scan.Text())
		if (strings.HasPrefix(lower, "acquire::http") || strings.HasPrefix(lower, "acquire::check")) &&
			(strings.Contains(lower, "::proxy ") || strings.Contains(lower, "::check-")) {
			lines = append(lines, scan.Text())
		}
	}
	return lines
}

func isDir(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}

// tailWriter hands complete lines to line and keeps the last of them.
type tailWriter struct {
	line    func(string)
	partial []byte
	lines   []string
}

var _ io.Writer = (*tailWriter)(nil)

func (w *tailWriter) Write(p []byte) (int, error) {
	w.partial = append(w.partial, p...)
	for {
		i := bytes.IndexByte(w.partial, '\n')
		if i < 0 {
			return len(p), nil
		}
		line := strings.TrimRight(string(w.partial[:i]), "\r")
		w.partial = w.partial[i+1:]
		w.lines = append(w.lines, line)
		if len(w.lines) > 100 {
			w.lines = w.lines[1:]
		}
		w.line(line)
	}
}

func (w *tailWriter) last(n int) string {
	return strings.Join(w.lines[max(0, len(w.lines)-n):], "\n")
}
