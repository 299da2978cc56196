package cloudinit

import (
	"errors"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/golden"
)

const (
	key     = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f ops@example"
	private = "-----BEGIN OPENSSH PRIVATE KEY-----\nbm90IGEga2V5\n-----END OPENSSH PRIVATE KEY-----\n"
)

func typical() Input {
	return Input{
		Hostname: "lab-db-1", User: "infractl", AuthorizedKeys: []string{key},
		HostKeyPrivate: private, HostKeyPublic: key + "\n",
		Packages: []string{"postgresql-17", "nftables", "nftables"},
		Files:    map[string]string{"/etc/a.conf": "x: \"y\"\n# z\n"},
	}
}

func TestRendersWhatIsInTestdata(t *testing.T) {
	text, err := Render(typical())
	if err != nil {
		t.Fatal(err)
	}
	golden.Text(t, "full.golden", text)
	in := typical()
	in.Packages, in.Files = nil, nil
	if text, err = Render(in); err != nil {
		t.Fatal(err)
	}
	golden.Text(t, "empty.golden", text)
}

func TestYAMLHoldsWhatWasGiven(t *testing.T) {
	text, err := Render(typical())
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Hostname string
		Keys     map[string]string `yaml:"ssh_keys"`
		Users    []struct {
			Name string
			Lock bool     `yaml:"lock_passwd"`
			Keys []string `yaml:"ssh_authorized_keys"`
		}
		Files []struct{ Path, Content string } `yaml:"write_files"`
		Run   []string                         `yaml:"runcmd"`
	}
	if err := yaml.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if got.Hostname != "lab-db-1" || got.Keys["ed25519_private"] != private || got.Keys["ed25519_public"] != key {
		t.Errorf("got %+v", got)
	}
	if len(got.Users) != 2 || got.Users[0].Keys[0] != key || !got.Users[0].Lock || got.Users[1].Name != "root" || !got.Users[1].Lock {
		t.Errorf("users are %+v", got.Users)
	}
	if len(got.Files) != 2 || got.Files[1].Content != "x: \"y\"\n# z\n" || len(got.Run) != 1 || !strings.Contains(got.Run[0], "\nset -- nftables postgresql-17\n") {
		t.Errorf("files are %+v, commands %q", got.Files, got.Run)
	}
}

func TestInputThatCannotWorkIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"a host name with a newline": func(in *Input) { in.Hostname = "a\nruncmd: [id]" },
		"root as the user":           func(in *Input) { in.User = "root" },
		"no key":                     func(in *Input) { in.AuthorizedKeys = nil },
		"a wrong key":                func(in *Input) { in.AuthorizedKeys = []string{"x"} },
		"no host key":                func(in *Input) { in.HostKeyPrivate = "" },
		"a wrong public host key":    func(in *Input) { in.HostKeyPublic = "hidden" },
		"a package with an option":   func(in *Input) { in.Packages = []string{"--force"} },
		"a relative file":            func(in *Input) { in.Files = map[string]string{"a": ""} },
		"a crooked path":             func(in *Input) { in.Files = map[string]string{"/etc/../a": ""} },
		"more than the cloud takes":  func(in *Input) { in.Files = map[string]string{"/a": strings.Repeat("x", Limit)} },
	} {
		in := typical()
		change(&in)
		_, err := Render(in)
		if !errors.Is(err, templates.ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "OPENSSH PRIVATE") {
			t.Errorf("%s: the error shows the private key", name)
		}
	}
}
