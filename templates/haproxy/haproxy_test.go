package haproxy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/golden"
)

func typical(debian int) Input {
	return Input{
		Debian: debian, Host: "lb-1", Address: netip.MustParseAddr("10.0.1.11"), MemoryMB: 4096,
		Web: []templates.Server{
			{Name: "web-1", Address: netip.MustParseAddr("10.0.2.11"), Port: 80},
			{Name: "web-2", Address: netip.MustParseAddr("10.0.2.12"), Port: 80},
		},
		Monitors: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
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

func TestDebugHeadersAreOffByDefault(t *testing.T) {
	in := typical(13)
	for _, wanted := range []bool{false, true} {
		in.DebugHeaders = wanted
		host, err := Render(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(host.Files[config].Content, "X-Infractl-Lb lb-1"); got != wanted {
			t.Errorf("DebugHeaders %v: header is set: %v", wanted, got)
		}
	}
}

func TestHealthAsksForTheVersionOfThisVeryConfiguration(t *testing.T) {
	one, err := Render(typical(13))
	if err != nil {
		t.Fatal(err)
	}
	in := typical(13)
	in.Web = in.Web[:1]
	other, err := Render(in)
	if err != nil {
		t.Fatal(err)
	}
	if one.Units[0].Health == other.Units[0].Health {
		t.Error("two configurations have the same version")
	}
	fields := strings.Fields(one.Units[0].Health)
	version := fields[len(fields)-1]
	if !strings.Contains(one.Files[config].Content, `"`+version+`\n"`) {
		t.Errorf("HAProxy does not tell the version %s", version)
	}
}

func TestConnectionsFollowMemory(t *testing.T) {
	for memory, want := range map[int]int{256: 2000, 2048: 20000, 4096: 41000, 8192: 83000, 1 << 20: 400_000} {
		if got := MaxConnections(memory); got != want {
			t.Errorf("%d MiB: %d connections, want %d", memory, got, want)
		}
	}
}

func TestWebHostsMayListenOnDifferentPorts(t *testing.T) {
	in := typical(13)
	in.Web[1].Port = 8081
	host, err := Render(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"server web-1 10.0.2.11:80\n", "server web-2 10.0.2.12:8081\n", "server web-2 10.0.2.12:8081 track web/web-2"} {
		if !strings.Contains(host.Files[config].Content, want) {
			t.Errorf("haproxy.cfg does not say %q", want)
		}
	}
}

func TestInputThatCannotWorkIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"an unknown release":    func(in *Input) { in.Debian = 14 },
		"a name with a newline": func(in *Input) { in.Host = "lb-1\n    stats enable" },
		"no address":            func(in *Input) { in.Address = netip.Addr{} },
		"no memory":             func(in *Input) { in.MemoryMB = 0 },
		"no web host":           func(in *Input) { in.Web = nil },
		"a server with a space": func(in *Input) { in.Web[0].Name = "web-1 10.6.6.6:80" },
		"a server twice":        func(in *Input) { in.Web[1] = in.Web[0] },
		"port zero":             func(in *Input) { in.Web[0].Port = 0 },
		"a crooked range":       func(in *Input) { in.Monitors = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")} },
	} {
		in := typical(13)
		change(&in)
		if _, err := Render(in); !errors.Is(err, templates.ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
