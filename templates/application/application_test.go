package application

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/golden"
)

func typical(debian int) Input {
	return Input{
		Debian: debian, Host: "app-1", Address: netip.MustParseAddr("10.0.3.11"), Port: 8080, Processes: 2, Name: "guestbook",
		Release: desired.Tree{Source: "dist", Digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
		Command: "bin/guestbook", Health: "/healthz", MemoryMB: 4096,
		Environment:       map[string]string{"TITLE": `Anna's "guest" book: $5 \ ` + "`now`", "TWO_LINES": "a\nb"},
		SecretEnvironment: []string{"API_KEY"},
		Web:               []netip.Addr{netip.MustParseAddr("10.0.2.11"), netip.MustParseAddr("10.0.2.12")},
		Database:          netip.MustParseAddr("10.0.4.11"), DatabasePort: 5432,
	}
}

func TestRendersWhatIsInTestdata(t *testing.T) {
	for _, debian := range []int{12, 13} {
		host, err := Render(typical(debian))
		if err != nil {
			t.Fatal(err)
		}
		golden.Host(t, fmt.Sprintf("debian-%d", debian), host)
	}
}

func TestEnvironmentIsForRootOnly(t *testing.T) {
	host, err := Render(typical(13))
	if err != nil {
		t.Fatal(err)
	}
	if file := host.Files[environment]; file.Mode != "0600" || file.Owner != "" {
		t.Errorf("mode %s, owner %q", file.Mode, file.Owner)
	}
	for path, file := range host.Files {
		if path != environment && strings.Contains(file.Content, "@@secret.") {
			t.Errorf("%s holds a secret", path)
		}
	}
}

func TestRestartsWhenReleaseOrEnvironmentChanges(t *testing.T) {
	host, err := Render(typical(13))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range host.Units[0].RestartOn {
		if _, ok := host.Files[path]; !ok {
			t.Errorf("%s is no file of the host", path)
		}
	}
	if link := host.Files["/srv/guestbook/current"].Link; link != "/srv/guestbook/releases/0123456789ab" {
		t.Errorf("the current release is %s", link)
	}
	if _, ok := host.Trees["/srv/guestbook/releases/0123456789ab"]; !ok {
		t.Errorf("the trees are %v", host.Trees)
	}
}

func TestSecretsAreQuotedLikeTheRest(t *testing.T) {
	got, err := QuoteSecret("API_KEY", `a"b\c$d`+"`e\n")
	if want := `"a\"b\\c\$d\` + "`" + `e` + "\n" + `"`; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if _, err := QuoteSecret("API_KEY", "top\x00secret"); !errors.Is(err, templates.ErrInput) || strings.Contains(err.Error(), "top") {
		t.Errorf("got %v", err)
	}
}

func TestInputThatCannotWorkIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"an unknown release":         func(in *Input) { in.Debian = 0 },
		"a host with a newline":      func(in *Input) { in.Host = "app-1\nX=1" },
		"no address":                 func(in *Input) { in.Address = netip.Addr{} },
		"a privileged port":          func(in *Input) { in.Port = 80 },
		"a name with a slash":        func(in *Input) { in.Name = "a/b" },
		"a long name":                func(in *Input) { in.Name = strings.Repeat("a", 29) },
		"a digest with a path":       func(in *Input) { in.Release.Digest = "../../x" },
		"a command with an argument": func(in *Input) { in.Command = "bin/guestbook -x" },
		"a command outside":          func(in *Input) { in.Command = "../../bin/sh" },
		"an absolute command":        func(in *Input) { in.Command = "/bin/sh" },
		"a variable of infractl's":   func(in *Input) { in.Environment["LISTEN"] = "x" },
		"a variable twice":           func(in *Input) { in.Environment["API_KEY"] = "x" },
		"a variable with a newline":  func(in *Input) { in.Environment["A\nB"] = "x" },
		"a variable with =":          func(in *Input) { in.SecretEnvironment = []string{"A=B"} },
		"a value with NUL":           func(in *Input) { in.Environment["A"] = "hidden\x00" },
		"a value that is not UTF-8":  func(in *Input) { in.Environment["A"] = "hidden\xff" },
		"a value with a placeholder": func(in *Input) { in.Environment["A"] = "hidden@@secret.db.password@@" },
		"a health path with a query": func(in *Input) { in.Health = "/healthz?x=$(id)" },
		"no web host":                func(in *Input) { in.Web = nil },
		"no database":                func(in *Input) { in.Database = netip.Addr{} },
		"database port zero":         func(in *Input) { in.DatabasePort = 0 },
		"no memory":                  func(in *Input) { in.MemoryMB = 0 },
	} {
		in := typical(13)
		change(&in)
		_, err := Render(in)
		if !errors.Is(err, templates.ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: the error shows the value: %v", name, err)
		}
	}
}
