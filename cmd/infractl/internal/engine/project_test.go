package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/infractl/infractl/stacks"
)

// put writes files below a new directory.
func put(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestProjectIsFoundFromBelow(t *testing.T) {
	dir := put(t, map[string]string{
		"Pulumi.yaml":     "name: shop\nplugins:\n  providers:\n    - {name: infractl, path: bin}\n",
		"sub/dir/.keep":   "",
		"Pulumi.lab.yaml": "", "Pulumi.prod.yaml": "",
	})
	p, err := FindProject(filepath.Join(dir, "sub/dir"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Dir != dir || p.Name != "shop" || p.PluginDir != filepath.Join(dir, "bin") {
		t.Errorf("the project is %+v", p)
	}
	if got := strings.Join(p.Environments(), " "); got != "lab prod" {
		t.Errorf("environments are %q", got)
	}
}

func TestEnvironmentIsChosen(t *testing.T) {
	cases := []struct {
		name, named string
		files       []string
		want, err   string
	}{
		{"the only one", "", []string{"lab"}, "lab", ""},
		{"the named one", "prod", []string{"lab", "prod"}, "prod", ""},
		{"several", "", []string{"lab", "prod"}, "", "there are several environments, so name one: --env lab, --env prod"},
		{"a misspelt one", "prd", []string{"lab", "prod"}, "", `there is no environment "prd"; there is lab, prod`},
		{"none", "", nil, "", "there is no environment in"},
		{"none of that name", "lab", nil, "", `there is no environment "lab"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{}
			for _, f := range c.files {
				files["Pulumi."+f+".yaml"] = ""
			}
			got, err := Project{Dir: put(t, files)}.Choose(c.named)
			if got != c.want {
				t.Errorf("chosen is %q", got)
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || KindOf(err) != Invalid) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestConfigurationIsHandedOverAsPulumiDoes(t *testing.T) {
	dir := put(t, map[string]string{"Pulumi.lab.yaml": `
encryptionsalt: v1:abc
config:
  infractl:location: fsn1
  infractl:debugHeaders: true
  infractl:tiers:
    web: {count: 2, options: {immutablePaths: [/a/]}}
  infractl:vipToken:
    secure: v1:xyz
  infractl:applicationSecrets:
    KEY:
      secure: v1:xyz
`})
	c, err := Project{Dir: dir}.ReadConfig("lab")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"infractl:location":           "fsn1",
		"infractl:debugHeaders":       "true",
		"infractl:tiers":              `{"web":{"count":2,"options":{"immutablePaths":["/a/"]}}}`,
		"infractl:vipToken":           stacks.SecretPlaceholder,
		"infractl:applicationSecrets": `{"KEY":"` + stacks.SecretPlaceholder + `"}`,
	}
	for k, v := range want {
		if c.Values[k] != v {
			t.Errorf("%s is %q, not %q", k, c.Values[k], v)
		}
	}
	if len(c.Values) != len(want) || len(c.Keys) != len(want) || c.EncryptionSalt != "v1:abc" {
		t.Errorf("the configuration is %+v", c)
	}
}

func TestKeyThatStandsTwiceIsAnError(t *testing.T) {
	dir := put(t, map[string]string{"Pulumi.lab.yaml": "config:\n  infractl:tiers:\n    web: {count: 1}\n    web: {count: 2}\n"})
	if _, err := (Project{Dir: dir}).ReadConfig("lab"); err == nil || KindOf(err) != Invalid || !strings.Contains(err.Error(), "web") {
		t.Errorf("the error is %v", err)
	}
}

func TestVariablesAreLoaded(t *testing.T) {
	dir := put(t, map[string]string{".env.lab": "# comment\n\nexport INFRACTL_TEST_A=1\nINFRACTL_TEST_B=\"two words\"\nINFRACTL_TEST_C=a=b\nINFRACTL_TEST_D=file\n"})
	for _, name := range []string{"INFRACTL_TEST_A", "INFRACTL_TEST_B", "INFRACTL_TEST_C"} {
		t.Setenv(name, "") // restores it after the test
		os.Unsetenv(name)
	}
	t.Setenv("INFRACTL_TEST_D", "process")
	if err := LoadVariables(Project{Dir: dir}, "lab"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"INFRACTL_TEST_A": "1", "INFRACTL_TEST_B": "two words", "INFRACTL_TEST_C": "a=b", "INFRACTL_TEST_D": "process"} {
		if got := os.Getenv(name); got != want {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
	if err := LoadVariables(Project{Dir: dir}, "prod"); err != nil {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestVariablesThatOthersCanReadAreRefused(t *testing.T) {
	dir := put(t, map[string]string{".env.lab": "HCLOUD_TOKEN=x\n"})
	path := filepath.Join(dir, ".env.lab")
	for _, mode := range []os.FileMode{0o640, 0o604} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		err := LoadVariables(Project{Dir: dir}, "lab")
		if err == nil || KindOf(err) != Invalid || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestLineThatIsNoVariableIsNamed(t *testing.T) {
	dir := put(t, map[string]string{".env.lab": "A_TEST=1\nnonsense\n"})
	t.Setenv("A_TEST", "")
	if err := LoadVariables(Project{Dir: dir}, "lab"); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("the error is %v", err)
	}
}
