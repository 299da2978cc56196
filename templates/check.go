package templates

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The functions in this file decide what may become text in a configuration
// file or a word in a shell command. They are strict on purpose: a value that
// needs quoting somewhere is refused everywhere, so that no template has to
// know which of a dozen quoting rules applies to it.

var (
	hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	urlPath  = regexp.MustCompile(`^/[A-Za-z0-9._~/-]*$`)
	filePath = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*$`)
	digest   = regexp.MustCompile(`^(sha256:)?[0-9a-f]{12,64}$`)
)

func refuse(what, value, why string) error {
	return fmt.Errorf("%w: %s is %q, %s", ErrInput, what, value, why)
}

// CheckHost refuses anything but one label of a host name (RFC 1123, 2.1), in
// lower case. what names the value in the error.
func CheckHost(what, name string) error {
	if !hostName.MatchString(name) {
		return refuse(what, name, "but a host name has 1 to 63 of the characters a-z, 0-9 and -")
	}
	return nil
}

// CheckUser refuses anything that Debian's adduser would not take as a system
// user's name. PostgreSQL roles and databases are held to the same rule.
func CheckUser(what, name string) error {
	if !userName.MatchString(name) {
		return refuse(what, name, "but a user name has 1 to 32 of the characters a-z, 0-9, _ and -, and starts with a letter or _")
	}
	return nil
}

// CheckAddress refuses an address that is not set, or is not one that a daemon
// could listen on by itself.
func CheckAddress(what string, a netip.Addr) error {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" || a.Is4In6() {
		return refuse(what, a.String(), "but it has to be the address of one host")
	}
	return nil
}

// CheckPrefix refuses a range that is not set or has bits behind its length.
func CheckPrefix(what string, p netip.Prefix) error {
	if !p.IsValid() {
		return refuse(what, p.String(), "but it has to be a range such as 10.0.0.0/16")
	}
	if p != p.Masked() {
		return refuse(what, p.String(), fmt.Sprintf("but this range begins at %s", p.Masked()))
	}
	return nil
}

// CheckPort refuses port 0.
func CheckPort(what string, port uint16) error {
	if port == 0 {
		return refuse(what, "0", "but a port is a number from 1 to 65535")
	}
	return nil
}

// CheckPath refuses anything but a plain path of a URL, without query, escapes
// or dot segments.
func CheckPath(what, path string) error {
	if !urlPath.MatchString(path) || len(path) > 255 || strings.Contains(path+"/", "/../") || strings.Contains(path+"/", "/./") {
		return refuse(what, path, "but it has to be a path such as /healthz made of letters, digits and . _ ~ - /")
	}
	return nil
}

// CheckFile refuses anything but a relative path that stays where it is.
func CheckFile(what, path string) error {
	if !filePath.MatchString(path) || len(path) > 255 {
		return refuse(what, path, "but it has to be a relative path such as bin/server made of letters, digits and . _ + - /")
	}
	return nil
}

// CheckDebian refuses a release other than 12 and 13.
func CheckDebian(release int) error {
	if release != 12 && release != 13 {
		return refuse("the Debian release", fmt.Sprint(release), "but 12 and 13 are supported")
	}
	return nil
}

// CheckMemory refuses an amount of memory, in MiB, that cannot be a host's.
func CheckMemory(mb int) error {
	if mb < 256 || mb > 1<<25 {
		return refuse("the memory in MiB", fmt.Sprint(mb), "but a host has at least 256")
	}
	return nil
}

// CheckCores refuses a number of processor cores that cannot be a host's.
func CheckCores(n int) error {
	if n < 1 || n > 4096 {
		return refuse("the number of cores", fmt.Sprint(n), "but a host has at least 1")
	}
	return nil
}

// CheckServers refuses an empty list, a server without a port, doubled names
// and doubled addresses.
func CheckServers(what string, servers []Server) error {
	if len(servers) == 0 {
		return refuse(what, "", "but there has to be at least one host")
	}
	names, addresses := map[string]bool{}, map[netip.Addr]bool{}
	for _, s := range servers {
		if err := CheckHost(what, s.Name); err != nil {
			return err
		}
		if err := CheckAddress(what, s.Address); err != nil {
			return err
		}
		if err := CheckPort("the port of "+s.Name, s.Port); err != nil {
			return err
		}
		if names[s.Name] || addresses[s.Address] {
			return refuse(what, s.Name+" "+s.Address.String(), "but it is in the list already")
		}
		names[s.Name], addresses[s.Address] = true, true
	}
	return nil
}

// CheckLine refuses text that is empty, longer than 4 KiB, not UTF-8, holds a
// control character or could be taken for a placeholder.
func CheckLine(what, text string) error {
	if text == "" || len(text) > 4096 || !utf8.ValidString(text) {
		return refuse(what, text, "but it has to be one line of text")
	}
	for _, r := range text {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return refuse(what, text, "but it has to be one line of text without control characters")
		}
	}
	return CheckPlain(what, text)
}

// CheckPlain refuses text that holds @@, which begins and ends placeholders: a
// value of the operator's must never pull a secret into a file.
func CheckPlain(what, text string) error {
	if strings.Contains(text, "@@") {
		return refuse(what, text, "but @@ is reserved for placeholders")
	}
	return nil
}

// Short is the part of a tree's digest that appears in its path: 12 hexadecimal digits.
func Short(what, sum string) (string, error) {
	if !digest.MatchString(sum) {
		return "", refuse(what, sum, "but a digest is sha256: and hexadecimal digits")
	}
	return strings.TrimPrefix(sum, "sha256:")[:12], nil
}
