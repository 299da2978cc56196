// Package templates turns typed descriptions of a host's duties into what must
// be on it. Each daemon has a folder of its own with its template files, the
// scripts that run on hosts, and the function that renders them; this package
// holds what they share. Everything here is a pure function: nothing opens a
// connection, reads a clock or looks at the computer it runs on.
package templates

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/infractl/infractl/provision/desired"
)

// ErrInput is wrapped by every error about a value that cannot be rendered.
var ErrInput = errors.New("not usable in a configuration")

// ErrConflict is wrapped by Merge's errors.
var ErrConflict = errors.New("two parts of a host's configuration disagree")

// Server is a host of another tier, as the daemons in front of it see it.
type Server struct {
	// Name is the short name within the environment, such as web-1.
	Name string
	// Address is its address in the private network, and Port where it listens
	// there. Hosts of one tier may differ in it: a web host that shares its machine
	// with a load balancer cannot have that one's port.
	Address netip.Addr
	Port    uint16
}

// functions are what templates may call besides text/template's own.
var functions = template.FuncMap{
	"add": func(a, b int) int { return a + b },
	// at writes an address and a port, with brackets where they are needed.
	"at": func(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() },
	// family is nftables' word for the family of an address or range.
	"family": func(v interface{ IsValid() bool }) (string, error) {
		switch v := v.(type) {
		case netip.Addr:
			if v.Is4() {
				return "ip", nil
			}
		case netip.Prefix:
			if v.Addr().Is4() {
				return "ip", nil
			}
		default:
			return "", fmt.Errorf("%T has no address family", v)
		}
		return "ip6", nil
	},
	// literal is a regular expression that matches s and nothing else.
	"literal": regexp.QuoteMeta,
}

// Text renders the template file name of files with data. An unknown key is an
// error, so that a misspelt field cannot become an empty setting.
func Text(files fs.FS, name string, data any) (string, error) {
	raw, err := fs.ReadFile(files, name)
	if err != nil {
		return "", fmt.Errorf("template %s: %w", name, err)
	}
	t, err := template.New(name).Option("missingkey=error").Funcs(functions).Parse(string(raw))
	if err != nil {
		return "", fmt.Errorf("template %s: %w", name, err)
	}
	var b strings.Builder
	if err := t.Execute(&b, data); err != nil {
		return "", fmt.Errorf("template %s: %w", name, err)
	}
	return b.String(), nil
}

// Files collects files of one host while a daemon's package renders them. Its
// zero value is not usable: set From. The first error is kept in Err and makes
// every later call do nothing.
type Files struct {
	// From holds the template files.
	From fs.FS
	// Data is handed to every template.
	Data any
	// Made is what was rendered so far, by absolute path.
	Made map[string]desired.File
	Err  error
}

// Add renders the template name into the file at path. Content and Link of like
// are ignored; its mode, owner and group are taken.
func (f *Files) Add(path, name string, like desired.File) {
	if f.Err != nil {
		return
	}
	content, err := Text(f.From, name, f.Data)
	if err != nil {
		f.Err = err
		return
	}
	if f.Made == nil {
		f.Made = map[string]desired.File{}
	}
	like.Content, like.Link = content, ""
	f.Made[path] = like
}

// Copy puts the file name at path as it is, such as a script.
func (f *Files) Copy(path, name string, like desired.File) {
	if f.Err != nil {
		return
	}
	raw, err := fs.ReadFile(f.From, name)
	if err != nil {
		f.Err = fmt.Errorf("file %s: %w", name, err)
		return
	}
	if f.Made == nil {
		f.Made = map[string]desired.File{}
	}
	like.Content, like.Link = string(raw), ""
	f.Made[path] = like
}

// Merge joins what several daemons want on one host. Packages become one sorted
// list, units keep the order of the parts. A part that only wants a unit off gives
// way to one that wants it on. Two parts may say the same thing;
// saying different things about the same file, user, tree, unit, value or
// secret is an error that wraps ErrConflict and names it, but never its content.
func Merge(parts ...desired.Host) (desired.Host, error) {
	var whole desired.Host
	packages := map[string]bool{}
	for _, part := range parts {
		for _, name := range part.Packages {
			packages[name] = true
		}
		for _, user := range part.Users {
			i := slices.IndexFunc(whole.Users, func(u desired.User) bool { return u.Name == user.Name })
			if i < 0 {
				whole.Users = append(whole.Users, user)
				continue
			}
			if u := whole.Users[i]; u.Home != user.Home || !slices.Equal(u.Groups, user.Groups) {
				return desired.Host{}, fmt.Errorf("%w about the user %s", ErrConflict, user.Name)
			}
		}
		for _, unit := range part.Units {
			i := slices.IndexFunc(whole.Units, func(u desired.Unit) bool { return u.Name == unit.Name })
			if i < 0 {
				whole.Units = append(whole.Units, unit)
				continue
			}
			if off(unit) {
				continue
			}
			if off(whole.Units[i]) {
				whole.Units = append(slices.Delete(whole.Units, i, i+1), unit)
				continue
			}
			if !sameUnit(whole.Units[i], unit) {
				return desired.Host{}, fmt.Errorf("%w about the unit %s", ErrConflict, unit.Name)
			}
		}
		if err := join(&whole.Files, part.Files, "file"); err != nil {
			return desired.Host{}, err
		}
		if err := join(&whole.Trees, part.Trees, "tree"); err != nil {
			return desired.Host{}, err
		}
		if err := join(&whole.Values, part.Values, "value"); err != nil {
			return desired.Host{}, err
		}
		if err := join(&whole.Secrets, part.Secrets, "secret"); err != nil {
			return desired.Host{}, err
		}
	}
	whole.Packages = slices.Sorted(maps.Keys(packages))
	return whole, nil
}

func join[V comparable](whole *map[string]V, part map[string]V, kind string) error {
	for _, name := range slices.Sorted(maps.Keys(part)) {
		if *whole == nil {
			*whole = map[string]V{}
		}
		if old, ok := (*whole)[name]; ok && old != part[name] {
			return fmt.Errorf("%w about the %s %s", ErrConflict, kind, name)
		}
		(*whole)[name] = part[name]
	}
	return nil
}

// off says whether a unit is merely not wanted.
func off(u desired.Unit) bool { return !u.Enabled && !u.Active }

func sameUnit(a, b desired.Unit) bool {
	lists := slices.Equal(a.ReloadOn, b.ReloadOn) && slices.Equal(a.RestartOn, b.RestartOn)
	a.ReloadOn, a.RestartOn, b.ReloadOn, b.RestartOn = nil, nil, nil, nil
	return lists && a.Enabled == b.Enabled && a.Active == b.Active && a.Validate == b.Validate &&
		a.Before == b.Before && a.After == b.After && a.Health == b.Health && a.HealthTimeout == b.HealthTimeout && a.AtOnce == b.AtOnce && a.Guarded == b.Guarded
}

var placeholder = regexp.MustCompile(`@@(value|secret|interface)\.([A-Za-z0-9_.:-]+?)@@`)

// Placeholders lists what the files of host need to have filled in: the names
// of values and of secrets, and the addresses whose interfaces are looked up on
// the host, each sorted and without repetition.
func Placeholders(host desired.Host) (values, secrets, interfaces []string) {
	found := map[string]map[string]bool{"value": {}, "secret": {}, "interface": {}}
	for _, file := range host.Files {
		for _, match := range placeholder.FindAllStringSubmatch(file.Content, -1) {
			found[match[1]][match[2]] = true
		}
	}
	return slices.Sorted(maps.Keys(found["value"])), slices.Sorted(maps.Keys(found["secret"])), slices.Sorted(maps.Keys(found["interface"]))
}
