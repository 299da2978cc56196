package nginx

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/golden"
)

func typical(debian int) Input {
	return Input{
		Debian: debian, Host: "web-1", Address: netip.MustParseAddr("10.0.2.11"), Port: 80, MemoryMB: 4096, Cores: 2,
		LBs: []netip.Addr{netip.MustParseAddr("10.0.1.11"), netip.MustParseAddr("10.0.1.12")},
		App: []templates.Server{
			{Name: "app-1", Address: netip.MustParseAddr("10.0.3.11"), Port: 8080},
			{Name: "app-2", Address: netip.MustParseAddr("10.0.3.12"), Port: 8080},
		},
		Application:    "guestbook",
		Static:         &desired.Tree{Source: "dist/public", Digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
		ImmutablePaths: []string{"/assets/"},
		Monitors:       []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
		DebugHeaders:   true,
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
	in := typical(13)
	in.Static, in.DebugHeaders, in.ImmutablePaths, in.Monitors = nil, false, nil, nil
	host, err := Render(in)
	if err != nil {
		t.Fatal(err)
	}
	golden.Host(t, "plain", host)
	if len(host.Trees) != 0 {
		t.Errorf("without static files there are trees: %v", host.Trees)
	}
}

// The map's regular expression is PCRE's; Go has no lookahead, so the test
// takes its two halves apart.
func TestOnlyNamesWithAHashAreImmutable(t *testing.T) {
	host, err := Render(typical(13))
	if err != nil {
		t.Fatal(err)
	}
	const rule = `"~[.-](?=[a-f]*[0-9])[0-9a-f]{8,}\.[A-Za-z0-9.]+$" "public, max-age=31536000, immutable";`
	if !strings.Contains(host.Files[config].Content, rule) {
		t.Fatalf("the rule has changed; it was %s", rule)
	}
	digits, hash := regexp.MustCompile(`[.-][a-f]*[0-9]`), regexp.MustCompile(`[.-]([0-9a-f]{8,})\.[A-Za-z0-9.]+$`)
	for name, want := range map[string]bool{
		"/app.0a1b2c3d.css": true, "/js/app-0123456789abcdef.js.map": true, "/app.css": false,
		"/deadbeef.css": false, "/a.deadbeef.css": false, "/app-settings.js": false, "/app.1a2b.css": false, "/12345678.css": false,
	} {
		match := hash.FindStringIndex(name)
		if got := match != nil && digits.MatchString(name[match[0]:]); got != want {
			t.Errorf("%s: immutable is %v, want %v", name, got, want)
		}
	}
}

func TestSizesFollowTheHost(t *testing.T) {
	for _, tc := range []struct{ memory, cores, connections, cache int }{
		{512, 1, 5376, 256}, {4096, 2, 21760, 2048}, {4096, 64, 1024, 2048}, {65536, 4, 65536, 8192}, {256, 1, 2560, 128},
	} {
		if got := Connections(tc.memory, tc.cores); got != tc.connections {
			t.Errorf("%d MiB, %d cores: %d connections, want %d", tc.memory, tc.cores, got, tc.connections)
		}
		if got := CacheMB(tc.memory); got != tc.cache {
			t.Errorf("%d MiB: %d MiB of cache, want %d", tc.memory, got, tc.cache)
		}
	}
}

func TestInputThatCannotWorkIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"an unknown release":             func(in *Input) { in.Debian = 0 },
		"a name with a newline":          func(in *Input) { in.Host = "web-1;\n" },
		"no address":                     func(in *Input) { in.Address = netip.Addr{} },
		"port zero":                      func(in *Input) { in.Port = 0 },
		"no memory":                      func(in *Input) { in.MemoryMB = 10 },
		"no cores":                       func(in *Input) { in.Cores = 0 },
		"no load balancer":               func(in *Input) { in.LBs = nil },
		"an invalid load balancer":       func(in *Input) { in.LBs[0] = netip.Addr{} },
		"no application host":            func(in *Input) { in.App = nil },
		"application port zero":          func(in *Input) { in.App[0].Port = 0 },
		"an application with a path":     func(in *Input) { in.Application = "../etc" },
		"a digest with a path":           func(in *Input) { in.Static = &desired.Tree{Digest: "../../etc"} },
		"an immutable path with a brace": func(in *Input) { in.ImmutablePaths = []string{"/a{2}"} },
		"an immutable path with a quote": func(in *Input) { in.ImmutablePaths = []string{`/a"; root /;`} },
		"a crooked range":                func(in *Input) { in.Monitors = []netip.Prefix{{}} },
	} {
		in := typical(13)
		change(&in)
		if _, err := Render(in); !errors.Is(err, templates.ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
