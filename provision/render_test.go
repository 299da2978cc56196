package provision

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/infractl/infractl/provision/desired"
)

var (
	testHost = desired.Host{
		Values:  map[string]string{"server.id": "42", "vip": "198.18.0.9", "ca": "-----BEGIN-----\nabc\n-----END-----\n"},
		Secrets: map[string]string{"db.password": "correct horse", "token": "0123456789abcdef", "pem": "-----BEGIN-----\nsecretline\n-----END-----\n"},
	}
	testInterfaces = map[netip.Addr]string{netip.MustParseAddr("10.0.2.11"): "enp7s0", netip.MustParseAddr("2001:db8::1"): "eth0"}
)

func TestPlaceholdersAreFilledIn(t *testing.T) {
	for text, want := range map[string]string{
		"id=@@value.server.id@@;":                               "id=42;",
		"dev @@interface.10.0.2.11@@ @@interface.2001:db8::1@@": "dev enp7s0 eth0",
		"postgres://app:@@secret.db.password@@@10.0.4.11:5432":  "postgres://app:correct horse@10.0.4.11:5432",
		"@@secret.token@@@@value.server.id@@":                   "0123456789abcdef42",
		"no placeholder: user@@host, @@, @@value@@":             "no placeholder: user@@host, @@, @@value@@",
	} {
		got, err := render(text, testHost, testInterfaces)
		if err != nil || got != want {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
}

func TestPlaceholdersThatNameNothingAreErrors(t *testing.T) {
	for text, want := range map[string]string{
		"@@value.nothing@@":        "no value named nothing",
		"@@secret.nothing@@":       "no secret named nothing",
		"@@interface.10.9.9.9@@":   "no network interface holds the address 10.9.9.9",
		"@@interface.eth0@@":       "does not name an address",
		"@@hostname.web@@":         "no known kind",
		"@@value.a@@ @@value.b@@x": "no value named b",
	} {
		if _, err := render(text, testHost, testInterfaces); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	_, err := renderAll(desired.Host{Files: map[string]desired.File{"/etc/x": {Content: "@@interface.10.9.9.9@@"}}}, nil)
	var missing *missingInterface
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "/etc/x") {
		t.Errorf("a missing interface is not told apart: %v", err)
	}
}

func TestTextOfAHostIsShownWithPlaceholders(t *testing.T) {
	wanted := "a\npassword = @@secret.db.password@@\ndev @@interface.10.0.2.11@@ id @@value.server.id@@\n@@value.ca@@b\n"
	rendered, err := render(wanted, testHost, testInterfaces)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		actual, want string
		known        bool
	}{
		"as desired":              {rendered, wanted, true},
		"another line changed":    {strings.Replace(rendered, "a\n", "changed 42\n", 1), strings.Replace(wanted, "a\n", "changed 42\n", 1), true},
		"the line itself changed": {strings.Replace(rendered, "id 42", "id 43", 1), strings.Replace(wanted, "dev @@interface.10.0.2.11@@ id @@value.server.id@@", "dev enp7s0 id 43", 1), true},
		"an old secret":           {strings.Replace(rendered, "correct horse", "old horse", 1), "", false},
		"the secret twice":        {rendered + "correct horse", "", false},
		"another secret":          {rendered + "0123456789abcdef", "", false},
		"not text":                {rendered + "\xff", "", false},
	} {
		got, known := unrender(c.actual, wanted, testHost, testInterfaces)
		if got != c.want || known != c.known {
			t.Errorf("%s: got %v %q", name, known, got)
		}
	}
}

func FuzzShownTextHoldsNoSecret(f *testing.F) {
	f.Add("password=@@secret.a@@\n", "password=hunter2\n", "hunter2", "x")
	f.Add("@@secret.a@@@@secret.b@@", "aab", "a", "ab")
	f.Add("secret @@secret.b@@", "secret secret", "db", "secret")
	f.Fuzz(func(t *testing.T, wanted, actual, a, b string) {
		h := desired.Host{Secrets: map[string]string{"a": a, "b": b}}
		shown, known := unrender(actual, wanted, h, nil)
		if !known {
			if shown != "" {
				t.Errorf("%q is shown although it is not known to be clean", shown)
			}
			return
		}
		for _, secret := range []string{a, b} {
			// A value that is in the desired text itself is no secret in it.
			if secret != "" && strings.Contains(shown, secret) && !strings.Contains(wanted, secret) {
				t.Errorf("%q holds %q", shown, secret)
			}
		}
	})
}

func FuzzRenderedTextComesBack(f *testing.F) {
	f.Add("a @@value.v@@ b\n@@secret.s@@\n", "1", "a long secret")
	f.Fuzz(func(t *testing.T, wanted, value, secret string) {
		h := desired.Host{Values: map[string]string{"v": value}, Secrets: map[string]string{"s": secret}}
		rendered, err := render(wanted, h, nil)
		if err != nil {
			return
		}
		// What comes back may be withheld, but must never be another text.
		if shown, known := unrender(rendered, wanted, h, nil); known {
			again, err := render(shown, h, nil)
			if err != nil || again != rendered {
				t.Errorf("%q became %q, which renders to %q, %v", wanted, shown, again, err)
			}
		}
	})
}
