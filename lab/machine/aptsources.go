package machine

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// archiveKeyring is where Debian's own package puts the archive's keys; used
// when the computer's sources name no key.
const archiveKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// codenames are the Debian releases whose archive can carry a base image: the
// computer's own sources name one of them.
var codenames = []string{"bullseye", "bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"}

// aptSource is one entry of the computer's package sources.
type aptSource struct {
	uris, suites, components []string
	signedBy                 string
	trusted                  bool
}

// errNoMirror is why a base image cannot be built on a computer that is not Debian.
var errNoMirror = errors.New("no Debian archive among this computer's package sources")

// mirrorLines derives the package sources of a base image from the computer's
// own: the same mirrors and keys, another suite. etc is /etc/apt. No mirror is
// known by name here, so that the lab works wherever apt works.
func mirrorLines(etc fs.FS, suite string) ([]string, error) {
	sources, err := readSources(etc)
	if err != nil {
		return nil, err
	}
	base := bestSource(sources, "")
	if base == nil {
		return nil, fmt.Errorf("%w (/etc/apt/sources.list, /etc/apt/sources.list.d): add the line of a Debian mirror, main component, over http or https", errNoMirror)
	}
	lines := []string{base.line(suite)}
	for _, pocket := range []string{"-updates", "-security"} {
		if s := bestSource(sources, pocket); s != nil {
			lines = append(lines, s.line(suite+pocket))
		}
	}
	return lines, nil
}

// bestSource returns the entry that most likely is Debian's archive for a
// pocket ("", -updates or -security). Other archives use Debian's suite names
// too, but with keys of their own.
func bestSource(sources []aptSource, pocket string) *aptSource {
	var best *aptSource
	bestScore := 0
	for i := range sources {
		s := &sources[i]
		if !slices.Contains(s.components, "main") || s.uri() == "" {
			continue
		}
		if !slices.ContainsFunc(codenames, func(c string) bool { return slices.Contains(s.suites, c+pocket) }) {
			continue
		}
		score := 1
		switch {
		case strings.Contains(s.signedBy, "debian-archive"):
			score = 4
		case s.signedBy != "":
			continue
		case strings.HasPrefix(path.Base(strings.TrimRight(s.uri(), "/")), "debian"):
			score = 2
		}
		if score > bestScore {
			best, bestScore = s, score
		}
	}
	return best
}

// uri returns the first address that machines can reach too.
func (s *aptSource) uri() string {
	for _, u := range s.uris {
		if strings.HasPrefix(u, "http://") || strings.HasPrefix(u, "https://") {
			return u
		}
	}
	return ""
}

func (s *aptSource) line(suite string) string {
	option := "signed-by=" + archiveKeyring
	if s.signedBy != "" {
		option = "signed-by=" + s.signedBy
	}
	if s.trusted {
		option = "trusted=yes"
	}
	return fmt.Sprintf("deb [%s] %s %s main", option, s.uri(), suite)
}

// readSources reads sources.list and sources.list.d in both formats (sources.list(5)).
func readSources(etc fs.FS) ([]aptSource, error) {
	names := []string{"sources.list"}
	for _, pattern := range []string{"sources.list.d/*.list", "sources.list.d/*.sources"} {
		found, err := fs.Glob(etc, pattern)
		if err != nil {
			return nil, err
		}
		names = append(names, found...)
	}
	var sources []aptSource
	for _, name := range names {
		data, err := fs.ReadFile(etc, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read this computer's package sources: %w", err)
		}
		if strings.HasSuffix(name, ".sources") {
			sources = append(sources, parseStanzas(string(data))...)
		} else {
			sources = append(sources, parseLines(string(data))...)
		}
	}
	return sources, nil
}

// parseLines reads the one-line format: deb [option=value …] uri suite component…
func parseLines(text string) []aptSource {
	var sources []aptSource
	for scan := bufio.NewScanner(strings.NewReader(text)); scan.Scan(); {
		line, _, _ := strings.Cut(scan.Text(), "#")
		line = strings.TrimSpace(line)
		rest, ok := strings.CutPrefix(line, "deb ")
		if !ok {
			continue
		}
		rest = strings.TrimSpace(rest)
		var s aptSource
		if inner, ok := strings.CutPrefix(rest, "["); ok {
			options, after, closed := strings.Cut(inner, "]")
			if !closed {
				continue
			}
			rest = after
			for _, option := range strings.Fields(options) {
				key, value, _ := strings.Cut(option, "=")
				s.option(key, value)
			}
		}
		fields := strings.Fields(rest)
		if len(fields) < 3 {
			continue
		}
		s.uris, s.suites, s.components = fields[:1], fields[1:2], fields[2:]
		sources = append(sources, s)
	}
	return sources
}

// parseStanzas reads the deb822 format: stanzas of "Key: value" with continuation lines.
func parseStanzas(text string) []aptSource {
	var sources []aptSource
	var s aptSource
	var types []string
	enabled := true
	key := ""
	flush := func() {
		if slices.Contains(types, "deb") && enabled && len(s.uris) > 0 {
			sources = append(sources, s)
		}
		s, types, enabled, key = aptSource{}, nil, true, ""
	}
	for scan := bufio.NewScanner(strings.NewReader(text)); scan.Scan(); {
		line := strings.TrimRight(scan.Text(), " \t\r")
		switch {
		case line == "":
			flush()
			continue
		case strings.HasPrefix(line, "#"):
			continue
		}
		value := line
		if line[0] != ' ' && line[0] != '\t' {
			var ok bool
			key, value, ok = strings.Cut(line, ":")
			if !ok {
				continue
			}
			key = strings.ToLower(key)
		}
		words := strings.Fields(value)
		switch key {
		case "types":
			types = append(types, words...)
		case "uris":
			s.uris = append(s.uris, words...)
		case "suites":
			s.suites = append(s.suites, words...)
		case "components":
			s.components = append(s.components, words...)
		case "enabled":
			enabled = !slices.Contains([]string{"no", "false", "0"}, strings.ToLower(strings.TrimSpace(value)))
		default:
			// A key block inside the stanza continues over many lines, of
			// which only the first word could be a path.
			if line[0] != ' ' && line[0] != '\t' && len(words) > 0 {
				s.option(key, words[0])
			}
		}
	}
	flush()
	return sources
}

func (s *aptSource) option(key, value string) {
	switch strings.ToLower(key) {
	case "signed-by":
		if strings.HasPrefix(value, "/") {
			s.signedBy = value
		}
	case "trusted":
		s.trusted = value == "yes"
	}
}
