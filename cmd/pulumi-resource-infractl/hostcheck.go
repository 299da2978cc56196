package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/provision/desired"
)

var (
	hostNames = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)
	// aliases are names that ~/.ssh/config may give to hosts.
	aliases = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	// logins are users that hosts may have from elsewhere, such as a directory.
	logins = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@+\\-]*$`)
	// userNames is what useradd(8) of Debian accepts by default.
	userNames = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	// packageNames is from Debian policy, 5.6.1.
	packageNames = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	// unitNames is from systemd.unit(5), without patterns.
	unitNames = regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]+\.(service|socket|timer|target|path|mount|slice)$`)
	modes     = regexp.MustCompile(`^[0-7]{4}$`)
	digests   = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	// names are those of values and secrets.
	names = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]*$`)
)

// check refuses whatever could not work on any host, and fills in defaults. What
// is not known yet is checked when it is.
func (c *configuration) check(req plugin.CheckRequest) (resource.PropertyMap, []problem) {
	k := &checker{inputs: req.News.Copy()}
	k.keys(nil, req.News, "name", "address", "port", "user", "hostKey", "own", "data", "jump", "knownHosts", "packages", "users", "files", "trees", "units", "values", "secrets")
	k.connection()
	k.packages()
	k.users()
	k.values()
	k.files()
	k.trees()
	k.units()
	slices.SortStableFunc(k.problems, func(a, b problem) int { return strings.Compare(a.path, b.path) })
	return k.inputs, k.problems
}

// checker collects what is wrong with the inputs of a configuration.
type checker struct {
	inputs   resource.PropertyMap
	problems []problem
	// open says that the names of values or secrets are not known yet.
	open map[string]bool
	// given are the names of values and secrets.
	given map[string]map[string]bool
}

func (k *checker) fail(at resource.PropertyPath, format string, arguments ...any) {
	k.problems = append(k.problems, problem{at.String(), fmt.Sprintf(format, arguments...)})
}

func at(base resource.PropertyPath, more ...any) resource.PropertyPath {
	return append(slices.Clip(base), more...)
}

// keys refuses properties that do not exist.
func (k *checker) keys(base resource.PropertyPath, m resource.PropertyMap, allowed ...string) {
	for _, key := range keys(m, nil) {
		if !slices.Contains(allowed, string(key)) && !strings.HasPrefix(string(key), "__") {
			k.fail(at(base, string(key)), "there is no such property; known are %s", strings.Join(allowed, ", "))
		}
	}
}

// text returns a string property. It says false if it is absent, unknown or no
// string; the last is a problem.
func (k *checker) text(base resource.PropertyPath, m resource.PropertyMap, key string) (string, bool) {
	v, known := reveal(m[resource.PropertyKey(key)])
	switch {
	case !known || v.IsNull():
		return "", false
	case !v.IsString():
		k.fail(at(base, key), "must be a string, not %s", described(v))
		return "", false
	}
	return v.StringValue(), true
}

// required is text for properties that must be there and not empty.
func (k *checker) required(base resource.PropertyPath, m resource.PropertyMap, key string) (string, bool) {
	if v, known := reveal(m[resource.PropertyKey(key)]); known && (v.IsNull() || v.IsString() && v.StringValue() == "") {
		k.fail(at(base, key), "is missing")
		return "", false
	}
	return k.text(base, m, key)
}

// described is what a value is, for people.
func described(v resource.PropertyValue) string {
	switch {
	case v.IsString():
		return "a string"
	case v.IsNumber():
		return "a number"
	case v.IsBool():
		return "true or false"
	case v.IsArray():
		return "a list"
	case v.IsObject():
		return "an object"
	}
	return "a " + v.TypeString()
}

func (k *checker) boolean(base resource.PropertyPath, m resource.PropertyMap, key string) {
	if v, known := reveal(m[resource.PropertyKey(key)]); known && !v.IsNull() && !v.IsBool() {
		k.fail(at(base, key), "must be true or false, not %s", described(v))
	}
}

// whole checks a whole number within bounds.
func (k *checker) whole(base resource.PropertyPath, m resource.PropertyMap, key string, low, high float64) {
	v, known := reveal(m[resource.PropertyKey(key)])
	if !known || v.IsNull() {
		return
	}
	if !v.IsNumber() || v.NumberValue() != float64(int64(v.NumberValue())) || v.NumberValue() < low || v.NumberValue() > high {
		k.fail(at(base, key), "must be a whole number from %.0f to %.0f", low, high)
	}
}

// object returns a property that is an object.
func (k *checker) object(base resource.PropertyPath, v resource.PropertyValue) (resource.PropertyMap, bool) {
	v, known := reveal(v)
	switch {
	case !known || v.IsNull():
		return nil, false
	case !v.IsObject():
		k.fail(base, "must be an object, not %s", described(v))
		return nil, false
	}
	return v.ObjectValue(), true
}

// array returns the elements of a property that is an array.
func (k *checker) array(base resource.PropertyPath, v resource.PropertyValue) []resource.PropertyValue {
	v, known := reveal(v)
	switch {
	case !known || v.IsNull():
		return nil
	case !v.IsArray():
		k.fail(base, "must be a list, not %s", described(v))
		return nil
	}
	return v.ArrayValue()
}

// texts returns the strings of an array with their paths, those that are known.
func (k *checker) texts(base resource.PropertyPath, v resource.PropertyValue, each func(resource.PropertyPath, string)) {
	for i, element := range k.array(base, v) {
		element, known := reveal(element)
		switch {
		case !known:
		case !element.IsString():
			k.fail(at(base, i), "must be a string, not %s", described(element))
		default:
			each(at(base, i), element.StringValue())
		}
	}
}

func (k *checker) connection() {
	own := k.own()
	if name, ok := k.required(nil, k.inputs, "name"); ok && !hostNames.MatchString(name) {
		k.fail(at(nil, "name"), "%q is no host name: small letters, digits and - only", name)
	}
	if address, ok := k.required(nil, k.inputs, "address"); ok {
		_, err := netip.ParseAddr(address)
		if err != nil && !hostNames.MatchString(strings.ToLower(address)) && (!own || !aliases.MatchString(address)) {
			k.fail(at(nil, "address"), "%q is neither an IP address nor a host name", address)
		}
	}
	// What is not said about a host of the user's own is for ~/.ssh/config to say.
	if v, known := reveal(k.inputs["port"]); known && v.IsNull() && !own {
		k.inputs["port"] = resource.NewNumberProperty(22)
	}
	k.whole(nil, k.inputs, "port", 1, 65535)
	if v, known := reveal(k.inputs["user"]); known && v.IsNull() && !own {
		k.inputs["user"] = resource.NewStringProperty("root")
	}
	optional := k.required
	if own {
		optional = k.text
	}
	if user, ok := optional(nil, k.inputs, "user"); ok && !userNames.MatchString(user) && (!own || !logins.MatchString(user)) {
		k.fail(at(nil, "user"), "%q is no user name", user)
	}
	if key, ok := optional(nil, k.inputs, "hostKey"); ok {
		if err := provision.ParseHostKey(key); err != nil {
			k.fail(at(nil, "hostKey"), "must be one public key as in authorized_keys, such as \"ssh-ed25519 AAAA…\", its fingerprint \"SHA256:…\", or \"@cert-authority \" and the key of its authority")
		}
	}
	if jump, ok := k.text(nil, k.inputs, "jump"); ok {
		if err := provision.ParseJump(jump); err != nil {
			k.fail(at(nil, "jump"), "%v", err)
		}
	}
	k.texts(at(nil, "knownHosts"), k.inputs["knownHosts"], func(p resource.PropertyPath, line string) {
		if _, _, _, _, rest, err := ssh.ParseKnownHosts([]byte(line)); err != nil || len(rest) > 0 || strings.Contains(line, "\n") {
			k.fail(p, "must be one line as in known_hosts, such as \"bastion.example.com ssh-ed25519 AAAA…\"")
		}
	})
}

// own says whether the host is one of the user's own. What means nothing is taken
// out of the inputs here, since outputs do not have it.
func (k *checker) own() bool {
	k.boolean(nil, k.inputs, "own")
	k.boolean(nil, k.inputs, "data")
	v, known := reveal(k.inputs["own"])
	own := known && v.IsBool() && v.BoolValue()
	for _, key := range []resource.PropertyKey{"own", "data", "jump", "knownHosts"} {
		v, known := reveal(k.inputs[key])
		if known && (v.IsBool() && !v.BoolValue() || v.IsString() && v.StringValue() == "" || v.IsArray() && len(v.ArrayValue()) == 0) {
			delete(k.inputs, key)
		}
	}
	return own
}

// control says whether a character is a control character, which no name needs
// and which would break the lines that hosts and infractl exchange.
func control(r rune) bool { return r < ' ' || r == 0x7f }

func (k *checker) packages() {
	seen := map[string]bool{}
	k.texts(at(nil, "packages"), k.inputs["packages"], func(p resource.PropertyPath, name string) {
		switch {
		case !packageNames.MatchString(name):
			k.fail(p, "%q is no name of a Debian package", name)
		case seen[name]:
			k.fail(p, "%s is listed twice", name)
		}
		seen[name] = true
	})
}

func (k *checker) users() {
	base := at(nil, "users")
	seen := map[string]bool{}
	k.each(base, "users", func(p resource.PropertyPath, m resource.PropertyMap) any {
		k.keys(p, m, "name", "home", "groups")
		if name, ok := k.required(p, m, "name"); ok {
			switch {
			case !userNames.MatchString(name):
				k.fail(at(p, "name"), "%q is no user name", name)
			case seen[name]:
				k.fail(at(p, "name"), "%s is listed twice", name)
			}
			seen[name] = true
		}
		if home, ok := k.text(p, m, "home"); ok && home != "" && (home[0] != '/' || path.Clean(home) != home || strings.ContainsFunc(home, control) || strings.Contains(home, ":")) {
			k.fail(at(p, "home"), "%q is not a clean absolute path", home)
		}
		k.texts(at(p, "groups"), m["groups"], func(p resource.PropertyPath, group string) {
			if !userNames.MatchString(group) {
				k.fail(p, "%q is no group name", group)
			}
		})
		return new(desired.User)
	})
}

// each checks the objects of an array and replaces those without problems that
// are fully known by their normal form, so that a later comparison with the host
// sees no difference where there is none. visit returns a pointer to the type.
func (k *checker) each(base resource.PropertyPath, key resource.PropertyKey, visit func(resource.PropertyPath, resource.PropertyMap) any) {
	elements := slices.Clone(k.array(base, k.inputs[key]))
	for i, element := range elements {
		if m, ok := k.object(at(base, i), element); ok {
			before := len(k.problems)
			into := visit(at(base, i), m)
			if len(k.problems) == before {
				elements[i] = normal(element, m, into)
			}
		}
	}
	if elements != nil {
		k.inputs[key] = resource.NewArrayProperty(elements)
	}
}

// normal is the value m in the form in which outputs have it.
func normal(original resource.PropertyValue, m resource.PropertyMap, into any) resource.PropertyValue {
	v := resource.NewObjectProperty(m)
	if v.ContainsUnknowns() || v.ContainsSecrets() || original.IsSecret() {
		return original
	}
	if err := decode(m, into); err != nil {
		return original
	}
	text, err := json.Marshal(into)
	if err != nil {
		return original
	}
	var plain map[string]any
	if err := json.Unmarshal(text, &plain); err != nil {
		return original
	}
	return resource.NewPropertyValue(plain)
}

// path checks a path on the host.
func (k *checker) path(p resource.PropertyPath, name string) bool {
	switch {
	case !strings.HasPrefix(name, "/"):
		k.fail(p, "%q is not an absolute path", name)
	case path.Clean(name) != name:
		k.fail(p, "%q is not a clean path; write %s", name, path.Clean(name))
	case strings.ContainsFunc(name, control):
		k.fail(p, "%q holds a control character", name)
	case path.Dir(name) == "/":
		k.fail(p, "%q is directly below /; use a directory", name)
	case strings.HasPrefix(name, "/proc/"), strings.HasPrefix(name, "/sys/"), strings.HasPrefix(name, "/dev/"), strings.HasPrefix(name, "/var/lib/infractl/"):
		k.fail(p, "%q cannot be managed", name)
	default:
		return true
	}
	return false
}

// values checks both values and secrets, and notes their names.
func (k *checker) values() {
	k.open, k.given = map[string]bool{}, map[string]map[string]bool{}
	for kind, key := range map[string]string{"value": "values", "secret": "secrets"} {
		k.given[kind] = map[string]bool{}
		base := at(nil, key)
		if _, known := reveal(k.inputs[resource.PropertyKey(key)]); !known {
			k.open[kind] = true
			continue
		}
		m, _ := k.object(base, k.inputs[resource.PropertyKey(key)])
		for name, v := range m {
			p := at(base, string(name))
			if !names.MatchString(string(name)) {
				k.fail(p, "a name has letters, digits and . _ : - only")
			}
			k.given[kind][string(name)] = true
			if v, known := reveal(v); known && !v.IsString() {
				k.fail(p, "must be a string, not %s", described(v))
			}
		}
	}
	if v, ok := k.inputs["secrets"]; ok {
		k.inputs["secrets"] = secret(v)
	}
}

func (k *checker) files() {
	base := at(nil, "files")
	m, ok := k.object(base, k.inputs["files"])
	if !ok {
		return
	}
	files := resource.PropertyMap{}
	for _, key := range keys(m, nil) {
		p := at(base, string(key))
		files[key] = m[key]
		if k.path(p, string(key)) {
			for above := path.Dir(string(key)); above != "/"; above = path.Dir(above) {
				if _, ok := m[resource.PropertyKey(above)]; ok {
					k.fail(p, "%s above it is a file too", above)
				}
			}
		}
		f, ok := k.object(p, m[key])
		if !ok {
			continue
		}
		before := len(k.problems)
		k.keys(p, f, "content", "link", "mode", "owner", "group")
		content, known := k.text(p, f, "content")
		if known {
			k.placeholders(at(p, "content"), content)
		}
		link, isLink := k.text(p, f, "link")
		isLink = isLink && link != ""
		if isLink {
			if strings.ContainsFunc(link, control) {
				k.fail(at(p, "link"), "%q holds a control character", link)
			}
			for _, other := range []string{"content", "mode", "owner", "group"} {
				if text, ok := k.text(p, f, other); ok && text != "" {
					k.fail(at(p, other), "a symbolic link has none")
				}
			}
		}
		if mode, ok := k.text(p, f, "mode"); ok && mode != "" && !modes.MatchString(mode) {
			k.fail(at(p, "mode"), "%q is not four octal digits, such as 0644", mode)
		}
		for _, who := range []string{"owner", "group"} {
			if name, ok := k.text(p, f, who); ok && name != "" && !userNames.MatchString(name) {
				k.fail(at(p, who), "%q is no %s name", name, map[string]string{"owner": "user", "group": "group"}[who])
			}
		}
		if len(k.problems) > before || m[key].IsSecret() {
			continue
		}
		if isLink {
			files[key] = resource.NewObjectProperty(resource.PropertyMap{"link": f["link"]})
			continue
		}
		files[key] = withDefaults(f)
	}
	k.inputs["files"] = resource.NewObjectProperty(files)
}

// withDefaults writes out what a file's properties mean when they are absent.
func withDefaults(f resource.PropertyMap) resource.PropertyValue {
	out := f.Copy()
	delete(out, "link")
	for key, value := range map[resource.PropertyKey]string{"content": "", "mode": "0644", "owner": "root", "group": "root"} {
		if v, known := reveal(out[key]); known && (v.IsNull() || v.IsString() && v.StringValue() == "") {
			out[key] = resource.NewStringProperty(value)
		}
	}
	return resource.NewObjectProperty(out)
}

// placeholders refuses those that name nothing.
func (k *checker) placeholders(p resource.PropertyPath, content string) {
	reported := map[provision.Placeholder]bool{}
	for _, found := range provision.Placeholders(content) {
		if reported[found] {
			continue
		}
		reported[found] = true
		switch found.Kind {
		case "value", "secret":
			if !k.open[found.Kind] && !k.given[found.Kind][found.Name] {
				k.fail(p, "@@%s.%s@@ names nothing in %ss", found.Kind, found.Name, found.Kind)
			}
		case "interface":
			if _, err := netip.ParseAddr(found.Name); err != nil {
				k.fail(p, "@@interface.%s@@ does not name an IP address", found.Name)
			}
		default:
			k.fail(p, "@@%s.%s@@ is no known kind of placeholder; known are value, secret and interface", found.Kind, found.Name)
		}
	}
}

func (k *checker) trees() {
	base := at(nil, "trees")
	m, ok := k.object(base, k.inputs["trees"])
	if !ok {
		return
	}
	files, _ := reveal(k.inputs["files"])
	for _, key := range keys(m, nil) {
		p := at(base, string(key))
		if k.path(p, string(key)) && files.IsObject() {
			for name := range files.ObjectValue() {
				if string(name) == string(key) || strings.HasPrefix(string(name), string(key)+"/") {
					k.fail(p, "the file %s is inside this tree, which never changes", name)
				}
			}
		}
		t, ok := k.object(p, m[key])
		if !ok {
			continue
		}
		k.keys(p, t, "source", "digest")
		k.required(p, t, "source")
		if sum, ok := k.required(p, t, "digest"); ok && !digests.MatchString(sum) {
			k.fail(at(p, "digest"), "%q is not sha256: and 64 hexadecimal digits", sum)
		}
	}
}

func (k *checker) units() {
	base := at(nil, "units")
	seen := map[string]bool{}
	k.each(base, "units", func(p resource.PropertyPath, m resource.PropertyMap) any {
		k.keys(p, m, "name", "enabled", "active", "reloadOn", "restartOn", "validate", "health", "healthTimeout", "atOnce", "before", "after", "guarded")
		if name, ok := k.required(p, m, "name"); ok {
			switch {
			case !unitNames.MatchString(name) || strings.HasPrefix(name, "-"):
				k.fail(at(p, "name"), "%q is no full name of a systemd unit, such as haproxy.service", name)
			case seen[name]:
				k.fail(at(p, "name"), "%s is listed twice", name)
			}
			seen[name] = true
		}
		for _, key := range []string{"enabled", "active", "atOnce", "guarded"} {
			k.boolean(p, m, key)
		}
		for _, key := range []string{"reloadOn", "restartOn"} {
			k.texts(at(p, key), m[resource.PropertyKey(key)], func(p resource.PropertyPath, name string) {
				if name == "" || name[0] != '/' || path.Clean(name) != strings.TrimSuffix(name, "/") {
					k.fail(p, "%q is not a clean absolute path, with / at its end for all files below it", name)
				}
			})
		}
		for _, key := range []string{"validate", "health", "before", "after"} {
			if command, ok := k.text(p, m, key); ok {
				// A command is in argument lists on the host, where anyone can read it.
				for _, found := range provision.Placeholders(command) {
					k.fail(at(p, key), "a command cannot hold placeholders, but has @@%s.%s@@", found.Kind, found.Name)
				}
			}
		}
		k.whole(p, m, "healthTimeout", 0, 600)
		return new(desired.Unit)
	})
}
