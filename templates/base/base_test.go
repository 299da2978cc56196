package base

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/golden"
)

const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f ops@example"

func typical(debian int) Input {
	return Input{
		Debian: debian, Name: "lab-web-2", Index: 2, Address: netip.MustParseAddr("10.0.2.12"),
		Hosts: []Host{
			{Name: "lab-lb-1", Short: "lb-1", Address: netip.MustParseAddr("10.0.1.11")},
			{Name: "lab-web-1", Short: "web-1", Address: netip.MustParseAddr("10.0.2.11")},
			{Name: "lab-web-2", Short: "web-2", Address: netip.MustParseAddr("10.0.2.12")},
		},
		User: "infractl", AuthorizedKeys: []string{key}, SSHPort: 22,
		AllowFrom: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("0.0.0.0/0")},
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

func TestUnitsThatCanLockOutAreGuarded(t *testing.T) {
	host, err := Render(typical(13))
	if err != nil {
		t.Fatal(err)
	}
	guarded := map[string]bool{}
	for _, u := range host.Units {
		if u.Guarded {
			guarded[u.Name] = u.Validate != ""
		}
	}
	if !guarded["ssh.service"] || !guarded["nftables.service"] {
		t.Errorf("guarded with a check are only %v", guarded)
	}
}

func TestHostsOfOneTierUpgradeAtDifferentTimes(t *testing.T) {
	seen := map[string]int{}
	for index := 1; index <= 12; index++ {
		in := typical(13)
		in.Index = index
		host, err := Render(in)
		if err != nil {
			t.Fatal(err)
		}
		timer := host.Files["/etc/systemd/system/apt-daily-upgrade.timer.d/infractl.conf"].Content
		if other, ok := seen[timer]; ok {
			t.Errorf("hosts %d and %d upgrade at the same time", other, index)
		}
		seen[timer] = index
	}
}

// own is a host that infractl did not make, with two hosts' names.
func own(debian int) Input {
	in := typical(debian)
	in.Name, in.User, in.Owner = "rack-7", "root", "lab web-2"
	in.Hosts[2].Name, in.Hosts[2].Aliases = "rack-7", []string{"app-1"}
	return in
}

func TestHostThatWasThereBeforeKeepsItsRootAndItsHostKeys(t *testing.T) {
	for _, debian := range []int{12, 13} {
		host, err := Render(own(debian))
		if err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]string{
			Owner:           "lab web-2\n",
			"/etc/hostname": "rack-7\n",
			"/etc/hosts":    "\n10.0.2.12 rack-7 web-2 app-1\n",
			"/etc/ssh/sshd_config.d/10-infractl.conf": "\nAllowUsers root\nAuthorizedKeysFile /etc/ssh/authorized_keys.d/%u\nPermitRootLogin prohibit-password\n",
		} {
			if text := host.Files[path].Content; !strings.Contains(text, want) {
				t.Errorf("%s is\n%s", path, text)
			}
		}
		if text := host.Files["/etc/ssh/sshd_config.d/10-infractl.conf"].Content; strings.Contains(text, "HostKey ") {
			t.Errorf("sshd would not show the key by which the host is known:\n%s", text)
		}
	}
	in := own(13)
	in.User = "ada"
	host, err := Render(in)
	if err != nil {
		t.Fatal(err)
	}
	if text := host.Files["/etc/ssh/sshd_config.d/10-infractl.conf"].Content; !strings.Contains(text, "\nPermitRootLogin no\n") {
		t.Errorf("root may log in beside ada:\n%s", text)
	}
}

func TestInputThatCannotWorkIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"an unknown release":         func(in *Input) { in.Debian = 11 },
		"a name with a newline":      func(in *Input) { in.Name = "web-1\nevil" },
		"place zero":                 func(in *Input) { in.Index = 0 },
		"no address":                 func(in *Input) { in.Address = netip.Addr{} },
		"root as the user":           func(in *Input) { in.User = "root" },
		"a user with a space":        func(in *Input) { in.User = "a b" },
		"port zero":                  func(in *Input) { in.SSHPort = 0 },
		"no key":                     func(in *Input) { in.AuthorizedKeys = nil },
		"a key with options":         func(in *Input) { in.AuthorizedKeys = []string{`command="id" ` + key} },
		"two keys in one":            func(in *Input) { in.AuthorizedKeys = []string{key + "\n" + key} },
		"a damaged key":              func(in *Input) { in.AuthorizedKeys = []string{"ssh-ed25519 AAAA x"} },
		"a key of another type":      func(in *Input) { in.AuthorizedKeys = []string{strings.Replace(key, "ssh-ed25519", "ssh-rsa", 1)} },
		"a placeholder in a key":     func(in *Input) { in.AuthorizedKeys = []string{key + "@@secret.x@@"} },
		"nowhere to come from":       func(in *Input) { in.AllowFrom = nil },
		"a crooked range":            func(in *Input) { in.AllowFrom = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")} },
		"a host that is not listed":  func(in *Input) { in.Hosts = in.Hosts[:1] },
		"two hosts with one address": func(in *Input) { in.Hosts[0].Address = in.Hosts[1].Address },
		"an alias with a quote":      func(in *Input) { in.Hosts[0].Aliases = []string{`a"b`} },
		"an owner of two lines":      func(in *Input) { in.Owner = "lab\nweb-2" },
		"a host name with a quote":   func(in *Input) { in.Hosts[0].Name = `a"b` },
	} {
		in := typical(13)
		change(&in)
		if _, err := Render(in); !errors.Is(err, templates.ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
