// Package cloudinit renders the user data with which a cloud server is made: just
// enough for the SSH step to take over. The host key is given to the server, so
// that it is known before the first connection.
package cloudinit

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/base"
)

//go:embed user-data.tmpl
var source string

// Limit is how long user data may be, in bytes. It is the cloud's.
const Limit = 32 << 10

// Input describes one server before its first boot. Unlike the other packages'
// inputs it holds real values, HostKeyPrivate among them: user data is made when
// all of them are known, and is a secret.
type Input struct {
	// Hostname is the full host name, such as lab-web-1.
	Hostname string
	// User is made with sudo and without a password; root gets no login.
	User string
	// AuthorizedKeys are User's public keys, one line each.
	AuthorizedKeys []string
	// HostKeyPrivate is the server's ed25519 key in OpenSSH's PEM format,
	// HostKeyPublic the same in authorized_keys format.
	HostKeyPrivate, HostKeyPublic string
	// Packages are installed at the first boot, on all servers at once.
	Packages []string
	// Files are written, root's and 0644, before packages are installed.
	Files map[string]string
}

var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]+$`)

// Validate says what is wrong with the input, or nil. It never repeats the key.
func (in Input) Validate() error {
	if err := templates.CheckHost("the host name", in.Hostname); err != nil {
		return err
	}
	if err := templates.CheckUser("the login user", in.User); err != nil {
		return err
	}
	if in.User == "root" {
		return fmt.Errorf("%w: the login user is root, but logins are for a user with sudo", templates.ErrInput)
	}
	if len(in.AuthorizedKeys) == 0 {
		return fmt.Errorf("%w: there is no public key for %s, so nobody could log in; add one", templates.ErrInput, in.User)
	}
	for _, key := range in.AuthorizedKeys {
		if err := base.CheckKey(key); err != nil {
			return err
		}
	}
	if err := base.CheckKey(strings.TrimSpace(in.HostKeyPublic)); err != nil || !strings.HasPrefix(in.HostKeyPublic, "ssh-ed25519 ") {
		return fmt.Errorf("%w: the public host key is not an ed25519 key in authorized_keys format", templates.ErrInput)
	}
	if !strings.HasPrefix(in.HostKeyPrivate, "-----BEGIN OPENSSH PRIVATE KEY-----\n") {
		return fmt.Errorf("%w: the private host key is not in OpenSSH's PEM format", templates.ErrInput)
	}
	for _, name := range in.Packages {
		if !packageName.MatchString(name) {
			return fmt.Errorf("%w: %q is not the name of a Debian package", templates.ErrInput, name)
		}
	}
	for name := range in.Files {
		if !path.IsAbs(name) || path.Clean(name) != name {
			return fmt.Errorf("%w: %q is not the absolute path of a file", templates.ErrInput, name)
		}
	}
	return nil
}

// Render makes the user data. The result holds the private host key.
func Render(in Input) (string, error) {
	if err := in.Validate(); err != nil {
		return "", fmt.Errorf("user data of %s: %w", in.Hostname, err)
	}
	in.HostKeyPrivate = strings.TrimSpace(in.HostKeyPrivate) + "\n"
	in.HostKeyPublic = strings.TrimSpace(in.HostKeyPublic)
	in.Packages = slices.Compact(slices.Sorted(slices.Values(in.Packages)))
	// YAML takes every JSON string as it is, so nothing can leave its quotes.
	quote := func(v any) (string, error) {
		raw, err := json.Marshal(v)
		return string(raw), err
	}
	t, err := template.New("user-data.tmpl").Option("missingkey=error").Funcs(template.FuncMap{"quote": quote}).Parse(source)
	if err != nil {
		return "", fmt.Errorf("user data of %s: %w", in.Hostname, err)
	}
	var b strings.Builder
	data := struct {
		Input
		Paths []string
	}{in, slices.Sorted(maps.Keys(in.Files))}
	if err := t.Execute(&b, data); err != nil {
		return "", fmt.Errorf("user data of %s: %w", in.Hostname, err)
	}
	if b.Len() > Limit {
		return "", fmt.Errorf("user data of %s: %w: it is %d bytes long, but the cloud takes %d; list fewer public keys", in.Hostname, templates.ErrInput, b.Len(), Limit)
	}
	return b.String(), nil
}
