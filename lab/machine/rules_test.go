package machine

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/infractl/infractl/lab/api"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", file, got)
	}
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func TestRouterRules(t *testing.T) {
	everyone := prefixes("0.0.0.0/0", "::/0")
	text, err := render("router.nft.tmpl", routerRules{
		Dead: []string{`"m7"`},
		Cuts: []string{`"m1" . "m2"`, `"m2" . "m1"`},
		Firewalls: []portFirewall{
			newPortFirewall(1, &api.FirewallRules{In: []api.FirewallRule{
				{Protocol: "tcp", First: 80, Last: 80, Peers: everyone},
				{Protocol: "icmp", Peers: everyone},
				// Prefixes within each other are one set.
				{Protocol: "tcp", First: 22, Last: 22, Peers: prefixes("198.18.7.0/24", "198.18.0.0/15", "192.0.2.1/32")},
				{Protocol: "udp", First: 1000, Last: 2000, Peers: prefixes("2001:db8::/32")},
			}}),
			newPortFirewall(2, &api.FirewallRules{Out: []api.FirewallRule{
				{Protocol: "esp", Peers: prefixes("192.0.2.0/24")},
			}}),
			// Rules for nobody let nobody through.
			newPortFirewall(3, &api.FirewallRules{
				In:  []api.FirewallRule{{Protocol: "tcp", First: 1, Last: 65535}},
				Out: []api.FirewallRule{{Protocol: "gre"}},
			}),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "router.nft", text)
}

func TestPrivateRouterRules(t *testing.T) {
	text, err := render("private.nft.tmpl", routerRules{})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "private.nft", text)
}

func TestComputerRules(t *testing.T) {
	for name, rules := range map[string]computerRules{
		"computer.nft":       {Resolvers: []string{"192.0.2.53"}, Closed: quoted([]string{"eth0", "wlan0"})},
		"computer-relay.nft": {RelayDNS: true},
	} {
		rules.Table, rules.Link, rules.Computer, rules.Range, rules.APIPort = rulesTable, computerLink, Computer4.Addr(), Range4, APIPort
		text, err := render("computer.nft.tmpl", rules)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, text)
	}
}
