package keepalived

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
		Debian: debian, Host: "lb-1", Address: netip.MustParseAddr("10.0.1.11"), Index: 1,
		Peers: []netip.Addr{netip.MustParseAddr("10.0.1.12")}, Endpoint: "https://api.hetzner.cloud/v1", IPv4: true, IPv6: true,
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
	in.Peers, in.IPv6 = nil, false
	host, err := Render(in)
	if err != nil {
		t.Fatal(err)
	}
	golden.Host(t, "alone", host)
}

func TestTokenIsInOneFileForRootOnly(t *testing.T) {
	host, err := Render(typical(13))
	if err != nil {
		t.Fatal(err)
	}
	for path, file := range host.Files {
		if !strings.Contains(file.Content, "@@secret.") {
			continue
		}
		if path != "/etc/infractl/vip.curl" || file.Mode != "0600" || file.Owner != "" {
			t.Errorf("%s (mode %s, owner %q) holds a secret", path, file.Mode, file.Owner)
		}
	}
	values, secrets, interfaces := templates.Placeholders(host)
	if want := "[server.id vip.ipv4.address vip.ipv4.id vip.ipv6.address vip.ipv6.id] [vip.token] [10.0.1.11]"; fmt.Sprint(values, secrets, interfaces) != want {
		t.Errorf("needed are %v %v %v, want %s", values, secrets, interfaces, want)
	}
}

func TestInputThatCannotWorkIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"an unknown release":              func(in *Input) { in.Debian = 0 },
		"a name with a brace":             func(in *Input) { in.Host = "lb-1 }" },
		"no address":                      func(in *Input) { in.Address = netip.Addr{} },
		"place zero":                      func(in *Input) { in.Index = 0 },
		"itself as a peer":                func(in *Input) { in.Peers = []netip.Addr{in.Address} },
		"a peer of another family":        func(in *Input) { in.Peers = []netip.Addr{netip.MustParseAddr("fd00::1")} },
		"no floating IP":                  func(in *Input) { in.IPv4, in.IPv6 = false, false },
		"no endpoint":                     func(in *Input) { in.Endpoint = "" },
		"plain text to a name":            func(in *Input) { in.Endpoint = "http://api.hetzner.cloud/v1" },
		"another scheme":                  func(in *Input) { in.Endpoint = "file:///etc/passwd" },
		"an endpoint with a password":     func(in *Input) { in.Endpoint = "https://a:b@api.hetzner.cloud/v1" },
		"an endpoint with a query":        func(in *Input) { in.Endpoint = "https://api.hetzner.cloud/v1?x=1" },
		"an endpoint with a newline":      func(in *Input) { in.Endpoint = "https://api.hetzner.cloud/v1\nX=1" },
		"an endpoint with a substitution": func(in *Input) { in.Endpoint = "https://api.hetzner.cloud/$(id)" },
		"an endpoint with a space":        func(in *Input) { in.Endpoint = "https://api.hetzner.cloud/v1 x" },
	} {
		in := typical(13)
		change(&in)
		if _, err := Render(in); !errors.Is(err, templates.ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
	in := typical(13)
	in.Endpoint = "http://198.19.255.1:4080/v1"
	if _, err := Render(in); err != nil {
		t.Errorf("plain text to an address: %v", err)
	}
}
