package templates

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/infractl/infractl/provision/desired"
)

func TestMergeKeepsTheOrderOfUnitsAndSortsPackages(t *testing.T) {
	whole, err := Merge(
		desired.Host{Packages: []string{"nftables", "curl"}, Units: []desired.Unit{{Name: "b.service"}, {Name: "a.service"}}},
		desired.Host{Packages: []string{"curl", "haproxy"}, Units: []desired.Unit{{Name: "0.service"}, {Name: "a.service"}}},
	)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"curl", "haproxy", "nftables"}; !slices.Equal(whole.Packages, want) {
		t.Errorf("packages are %v, want %v", whole.Packages, want)
	}
	var units []string
	for _, u := range whole.Units {
		units = append(units, u.Name)
	}
	if want := []string{"b.service", "a.service", "0.service"}; !slices.Equal(units, want) {
		t.Errorf("units are %v, want %v", units, want)
	}
}

func TestMergeAcceptsTheSameTwiceAndRefusesContradictions(t *testing.T) {
	same := desired.Host{
		Users:   []desired.User{{Name: "u", Groups: []string{"g"}}},
		Files:   map[string]desired.File{"/etc/a": {Content: "x"}},
		Trees:   map[string]desired.Tree{"/srv/a": {Digest: "d"}},
		Units:   []desired.Unit{{Name: "a.service", Active: true, ReloadOn: []string{"/etc/a"}}},
		Values:  map[string]string{"v": "1"},
		Secrets: map[string]string{"s": "hidden"},
	}
	if _, err := Merge(same, same); err != nil {
		t.Errorf("the same twice: %v", err)
	}
	for name, other := range map[string]desired.Host{
		"user u":         {Users: []desired.User{{Name: "u"}}},
		"file /etc/a":    {Files: map[string]desired.File{"/etc/a": {Content: "y"}}},
		"tree /srv/a":    {Trees: map[string]desired.Tree{"/srv/a": {Digest: "e"}}},
		"unit a.service": {Units: []desired.Unit{{Name: "a.service", Active: true}}},
		"value v":        {Values: map[string]string{"v": "2"}},
		"secret s":       {Secrets: map[string]string{"s": "other"}},
	} {
		_, err := Merge(same, other)
		if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: the error shows a secret: %v", name, err)
		}
	}
}

func TestPlaceholdersAreListedByKind(t *testing.T) {
	values, secrets, interfaces := Placeholders(desired.Host{Files: map[string]desired.File{
		"/a": {Content: "postgres://app:@@secret.db.password@@@10.0.0.1/ @@value.server.id@@@@value.vip.ipv4.id@@"},
		"/b": {Content: "@@interface.10.0.1.11@@ @@interface.fd00::1@@ @@value.server.id@@ @@other.x@@"},
	}})
	if want := []string{"server.id", "vip.ipv4.id"}; !slices.Equal(values, want) {
		t.Errorf("values are %v, want %v", values, want)
	}
	if want := []string{"db.password"}; !slices.Equal(secrets, want) {
		t.Errorf("secrets are %v, want %v", secrets, want)
	}
	if want := []string{"10.0.1.11", "fd00::1"}; !slices.Equal(interfaces, want) {
		t.Errorf("interfaces are %v, want %v", interfaces, want)
	}
}

func TestMisspeltFieldIsAnError(t *testing.T) {
	files := fstest.MapFS{"a": {Data: []byte("{{.Nme}}")}}
	if text, err := Text(files, "a", map[string]string{"Name": "x"}); err == nil {
		t.Errorf("rendered as %q", text)
	}
}

// hostile are values that would mean something to a shell, a configuration
// file or a person who looks at one.
var hostile = []string{"", " ", "a b", "a\nb", "a\tb", "a\x00b", "a;b", "a$b", "a`b`", "a'b", `a"b`, `a\b`, "a#b", "a{b}", "a|b", "a&b", "a>b", "a*b", "-a", "ä", "a@@secret.x@@", strings.Repeat("a", 300)}

func TestHostileTextIsRefusedEverywhere(t *testing.T) {
	for name, check := range map[string]func(what, value string) error{
		"CheckHost": CheckHost, "CheckUser": CheckUser, "CheckFile": CheckFile, "CheckPath": CheckPath,
	} {
		for _, value := range hostile {
			if err := check("value", value); !errors.Is(err, ErrInput) {
				t.Errorf("%s takes %q: %v", name, value, err)
			}
			if name == "CheckPath" {
				if err := check("value", "/"+value); value != "" && value != "-a" && !errors.Is(err, ErrInput) {
					t.Errorf("%s takes %q: %v", name, "/"+value, err)
				}
			}
		}
	}
}

func TestOrdinaryTextIsTaken(t *testing.T) {
	for _, tc := range []struct {
		check  func(what, value string) error
		values []string
		wrong  []string
	}{
		{CheckHost, []string{"a", "web-1", "0x"}, []string{"Web", "web-", "a.b", "a_b"}},
		{CheckUser, []string{"infractl", "_a", "a-b_1"}, []string{"1a", "A", "a.b"}},
		{CheckFile, []string{"server", "bin/server", "a/b.c/d+e"}, []string{"/bin/x", "../x", "a/../b", "a//b", ".hidden", "a/"}},
		{CheckPath, []string{"/", "/healthz", "/a/b.c/~d"}, []string{"healthz", "/a/../b", "/..", "/.", "/a?b", "/a%2fb"}},
	} {
		for _, value := range tc.values {
			if err := tc.check("value", value); err != nil {
				t.Errorf("%q: %v", value, err)
			}
		}
		for _, value := range tc.wrong {
			if err := tc.check("value", value); !errors.Is(err, ErrInput) {
				t.Errorf("%q is taken: %v", value, err)
			}
		}
	}
}

func TestAddressesAreThoseOfOneHost(t *testing.T) {
	for text, good := range map[string]bool{
		"10.0.0.1": true, "fd00::1": true, "0.0.0.0": false, "::": false, "224.0.0.1": false, "fe80::1%eth0": false, "::ffff:10.0.0.1": false,
	} {
		if err := CheckAddress("address", netip.MustParseAddr(text)); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
	if CheckAddress("address", netip.Addr{}) == nil {
		t.Error("no address is taken for one")
	}
	if CheckPrefix("range", netip.MustParsePrefix("10.0.0.1/24")) == nil || CheckPrefix("range", netip.Prefix{}) == nil {
		t.Error("a crooked range is taken")
	}
}

func TestServersAreDistinct(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	if err := CheckServers("tier", []Server{{"web-1", a, 80}, {"web-2", b, 8081}}); err != nil {
		t.Error(err)
	}
	for _, list := range [][]Server{nil, {{"web-1", a, 80}, {"web-1", b, 80}}, {{"web-1", a, 80}, {"web-2", a, 80}}, {{"web;1", a, 80}}, {{"web-1", a, 0}}} {
		if err := CheckServers("tier", list); !errors.Is(err, ErrInput) {
			t.Errorf("%v: %v", list, err)
		}
	}
}

func TestShortIsTheBeginningOfTheDigest(t *testing.T) {
	short, err := Short("digest", "sha256:0123456789abcdef")
	if err != nil || short != "0123456789ab" {
		t.Errorf("got %q, %v", short, err)
	}
	for _, wrong := range []string{"", "sha256:", "sha256:../../../../etc", "0123456789AB"} {
		if short, err := Short("digest", wrong); err == nil {
			t.Errorf("%q becomes %q", wrong, short)
		}
	}
}
