package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/infractl/infractl/stacks"
)

const smallConfig = `# Ours.
config:
  infractl:tiers:
    web: {count: 2} # enough
  infractl:ssh: {allowFrom: [192.0.2.1]}
  infractl:application: {name: shop, release: dist, command: bin/shop}
`

// configured is an engine with nothing but a configuration.
func configured(t *testing.T, text string) *Engine {
	t.Helper()
	dir := put(t, map[string]string{"Pulumi.lab.yaml": text, "work/.keep": ""})
	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ"
	e := &Engine{
		Project: Project{Dir: dir}, Environment: "lab", workDir: filepath.Join(dir, "work"),
		decode: stacks.DecodeOptions{Name: "lab", Dir: dir, SkipFiles: true, AuthorizedKeys: []string{key}},
	}
	var err error
	if e.Config, err = e.Project.ReadConfig("lab"); err != nil {
		t.Fatal(err)
	}
	if e.Spec, err = stacks.Decode(e.Config.Values, e.decode); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestAProposedConfigurationIsWrittenOnlyWhenAskedFor(t *testing.T) {
	e := configured(t, smallConfig)
	if err := e.Propose(map[string]int{"web": 4}); err != nil {
		t.Fatal(err)
	}
	if n := len(e.Spec.TierHosts("web")); n != 4 {
		t.Errorf("the specification has %d web hosts", n)
	}
	if got := read(t, e.Config.File); got != smallConfig {
		t.Errorf("the file was changed already:\n%s", got)
	}
	if err := e.WriteConfig(); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, e.Config.File), strings.Replace(smallConfig, "count: 2", "count: 4", 1); got != want {
		t.Errorf("the file is\n%s", got)
	}
	if copied := read(t, filepath.Join(e.workDir, "Pulumi.lab.yaml")); !strings.Contains(copied, "count: 4") {
		t.Errorf("the copy for Pulumi is\n%s", copied)
	}
}

func TestACountOutOfRangeIsRefusedByTheLimitsOfTheConfiguration(t *testing.T) {
	for n, want := range map[int]string{
		0:   "infractl:tiers.web.count: must be at least 1, not 0",
		-3:  "must be at least 1, not -3",
		300: "has room for 244 hosts",
		99:  "one network takes 100 at most",
	} {
		e := configured(t, smallConfig)
		err := e.Propose(map[string]int{"web": n})
		if KindOf(err) != Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v", n, err)
		}
		if len(e.Spec.TierHosts("web")) != 2 {
			t.Errorf("%d was taken over", n)
		}
	}
}

func TestAConfigurationThatSomebodyElseHasChangedIsNotWritten(t *testing.T) {
	e := configured(t, smallConfig)
	if err := e.Propose(map[string]int{"web": 4}); err != nil {
		t.Fatal(err)
	}
	theirs := strings.Replace(smallConfig, "# Ours.", "# Theirs.", 1)
	if err := os.WriteFile(e.Config.File, []byte(theirs), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.WriteConfig(); KindOf(err) != Invalid || !strings.Contains(err.Error(), "Pulumi.lab.yaml was changed by somebody else") {
		t.Errorf("%v", err)
	}
	if read(t, e.Config.File) != theirs {
		t.Error("it was written all the same")
	}
}

func TestAFileThatIsRewrittenKeepsItsModeAndItsLink(t *testing.T) {
	dir := put(t, map[string]string{"real/config.yaml": "old"})
	real, link := filepath.Join(dir, "real/config.yaml"), filepath.Join(dir, "link.yaml")
	if err := os.Chmod(real, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real/config.yaml", link); err != nil {
		t.Fatal(err)
	}
	// What a run that was killed has left is no obstacle.
	if err := os.WriteFile(filepath.Join(dir, "real/.config.yaml.new"), []byte("half"), 0o000); err != nil {
		t.Fatal(err)
	}
	before := inode(t, real)
	if err := rewriteFile(link, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, real); got != "new" {
		t.Errorf("the file holds %q", got)
	}
	if inode(t, real) == before {
		t.Error("the file was written in place: a reader may see half of it")
	}
	if info, err := os.Stat(real); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if target, err := os.Readlink(link); err != nil || target != "real/config.yaml" {
		t.Errorf("the link is %q, %v", target, err)
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, "real")); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestAFileThatMayNotBeWrittenIsNotReplaced(t *testing.T) {
	dir := put(t, map[string]string{"config.yaml": "old"})
	path := filepath.Join(dir, "config.yaml")
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 { // who may write it nevertheless
		if out, err := exec.Command("chattr", "+i", path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Cleanup(func() {
			if err := exec.Command("chattr", "-i", path).Run(); err != nil {
				t.Error(err)
			}
		})
	}
	if err := rewriteFile(path, []byte("new")); err == nil || read(t, path) != "old" {
		t.Errorf("%v, %q", err, read(t, path))
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func TestAnIncompleteConfigurationIsOpenedAndChanged(t *testing.T) {
	const text = "config:\n  infractl:target: hosts # racks\n"
	dir := put(t, map[string]string{"Pulumi.yaml": "name: shop\nruntime: go\n", "Pulumi.prod.yaml": text})
	e, err := OpenConfig(Settings{Dir: dir, SkipFiles: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Problems()) == 0 {
		t.Error("nothing is wrong with an environment without hosts")
	}
	to := func(hosts string) func([]byte) ([]byte, error) {
		return func([]byte) ([]byte, error) { return []byte(text + "  infractl:hosts: " + hosts + "\n"), nil }
	}
	fresh, err := e.Change(to("{web: [{address: 192.0.2.1}]}"))
	if err != nil || len(fresh) != 0 {
		t.Errorf("what was wrong before is taken for new: %v, %v", fresh, err)
	}
	if fresh, err = e.Change(to("{web: [{address: 192.0.2.1}, {address: 192.0.2.1}]}")); err != nil || len(fresh) != 1 || fresh[0].Key != "infractl:hosts.web[1]" {
		t.Errorf("%v, %v", fresh, err)
	}
	if got := read(t, e.Config.File); got != text {
		t.Errorf("the file was changed already:\n%s", got)
	}
	if err := e.WriteConfig(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, e.Config.File); !strings.HasSuffix(got, "{address: 192.0.2.1}]}\n") {
		t.Errorf("the file is\n%s", got)
	}
}
