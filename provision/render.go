package provision

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/infractl/infractl/provision/desired"
)

// placeholder matches @@kind.name@@. The name holds no @, so that a placeholder
// may be followed by an @ of the text.
var placeholder = regexp.MustCompile(`@@([a-z]+)\.([^@\s]+)@@`)

// Placeholder is one place in a text that is filled in on applying.
type Placeholder struct {
	// Kind is value, secret or interface, or another word, which is a mistake.
	Kind, Name string
}

// Placeholders lists the placeholders in a text, in order, with repetitions.
func Placeholders(text string) []Placeholder {
	var found []Placeholder
	for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
		found = append(found, Placeholder{m[1], m[2]})
	}
	return found
}

// missingInterface says that no interface holds an address, which can pass.
type missingInterface struct{ address string }

func (m *missingInterface) Error() string {
	return fmt.Sprintf("no network interface holds the address %s; check that the private network is attached", m.address)
}

// render fills in the placeholders of a text.
func render(text string, h desired.Host, interfaces map[netip.Addr]string) (string, error) {
	var failure error
	out := placeholder.ReplaceAllStringFunc(text, func(found string) string {
		m := placeholder.FindStringSubmatch(found)
		value, err := fill(Placeholder{m[1], m[2]}, h, interfaces)
		failure = errors.Join(failure, err)
		return value
	})
	return out, failure
}

func fill(p Placeholder, h desired.Host, interfaces map[netip.Addr]string) (string, error) {
	switch p.Kind {
	case "value":
		if v, ok := h.Values[p.Name]; ok {
			return v, nil
		}
		return "", fmt.Errorf("there is no value named %s", p.Name)
	case "secret":
		if v, ok := h.Secrets[p.Name]; ok {
			return v, nil
		}
		return "", fmt.Errorf("there is no secret named %s", p.Name)
	case "interface":
		ip, err := netip.ParseAddr(p.Name)
		if err != nil {
			return "", fmt.Errorf("@@interface.%s@@ does not name an address", p.Name)
		}
		if name, ok := interfaces[ip]; ok {
			return name, nil
		}
		return "", &missingInterface{p.Name}
	}
	return "", fmt.Errorf("@@%s.%s@@ is no known kind of placeholder; known are value, secret and interface", p.Kind, p.Name)
}

// renderAll fills in all files of h, by path.
func renderAll(h desired.Host, interfaces map[netip.Addr]string) (map[string]string, error) {
	texts := make(map[string]string, len(h.Files))
	var failures []error
	for _, path := range sortedKeys(h.Files) {
		if h.Files[path].Link != "" {
			continue
		}
		text, err := render(h.Files[path].Content, h, interfaces)
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", path, err))
		}
		texts[path] = text
	}
	return texts, errors.Join(failures...)
}

// unrender turns the text of a file on a host back into one with placeholders,
// as far as the file's desired text has them, so that both can be compared and
// shown. It says false if the result might hold a secret: every secret must be
// found as often as it is desired, or a text could hold one that was replaced
// since, and that nobody here knows any more.
func unrender(actual, wanted string, h desired.Host, interfaces map[netip.Addr]string) (string, bool) {
	known := map[string]int{}
	values := map[string]string{}
	for _, p := range Placeholders(wanted) {
		value, err := fill(p, h, interfaces)
		if err != nil {
			if p.Kind == "secret" {
				return "", false
			}
			continue
		}
		name := "@@" + p.Kind + "." + p.Name + "@@"
		known[name]++
		values[name] = value
	}
	// Longer secrets first, so that one that contains another is found whole.
	names := sortedKeys(values)
	slices.SortStableFunc(names, func(a, b string) int { return len(values[b]) - len(values[a]) })
	text := actual
	for _, name := range names {
		if !strings.HasPrefix(name, "@@secret.") || values[name] == "" {
			continue
		}
		if strings.Count(text, values[name]) != known[name] {
			return "", false
		}
		text = strings.ReplaceAll(text, values[name], name)
	}
	// A secret that this file should not hold at all, or holds in another
	// place than it should, must not be shown either.
	for _, value := range h.Secrets {
		if value != "" && strings.Contains(text, value) {
			return "", false
		}
	}
	if !utf8.ValidString(text) {
		return "", false
	}
	// Other values are put back only where the text around them is the
	// desired one: short ones such as an interface's name occur by chance.
	// Values of several lines, such as certificates, are found as a whole.
	lines := text
	for _, name := range names {
		value := values[name]
		if !strings.HasPrefix(name, "@@secret.") && strings.Contains(strings.TrimSpace(value), "\n") {
			lines = strings.ReplaceAll(lines, value, name)
		}
	}
	lines = replaceInLines(lines, wanted, h, interfaces)
	// Whatever is shown must mean what is there.
	for _, shown := range []string{lines, text} {
		if again, err := render(shown, h, interfaces); err == nil && again == actual {
			return shown, true
		}
	}
	return "", false
}

// replaceInLines replaces every line of actual that is a rendered line of
// wanted by the line with its placeholders.
func replaceInLines(actual, wanted string, h desired.Host, interfaces map[netip.Addr]string) string {
	rendered := map[string]string{}
	for line := range strings.Lines(wanted) {
		if !placeholder.MatchString(line) {
			continue
		}
		// Secrets stand as placeholders in actual already.
		plain := placeholder.ReplaceAllStringFunc(line, func(found string) string {
			m := placeholder.FindStringSubmatch(found)
			if m[1] == "secret" {
				return found
			}
			value, err := fill(Placeholder{m[1], m[2]}, h, interfaces)
			if err != nil {
				return found
			}
			return value
		})
		rendered[strings.TrimSuffix(plain, "\n")] = strings.TrimSuffix(line, "\n")
	}
	if len(rendered) == 0 {
		return actual
	}
	var b strings.Builder
	for line := range strings.Lines(actual) {
		text, end := strings.TrimSuffix(line, "\n"), ""
		if len(text) < len(line) {
			end = "\n"
		}
		if original, ok := rendered[text]; ok {
			text = original
		}
		b.WriteString(text + end)
	}
	return b.String()
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
