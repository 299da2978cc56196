// Package screen lays out what is seen of several hosts at once: tables that
// fit the terminal, a screen that is drawn again in place, and lines that say
// which host they come from.
package screen

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean makes text that comes from a host fit to be shown: whatever could move
// the cursor, change the terminal or turn the direction of writing is shown in
// the way Go writes it, such as \x1b. Tabs become spaces.
func Clean(s string) string {
	if !strings.ContainsFunc(s, unfit) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\t':
			b.WriteString("    ")
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !unfit(r) || r == utf8.RuneError:
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// unfit says whether a character must not reach a terminal. RuneError stands
// for a byte that is no UTF-8.
func unfit(r rune) bool {
	switch {
	case r == utf8.RuneError, unicode.IsControl(r), r == '\u2028', r == '\u2029':
		return true
	case r == '\u061c', r == '\u200e', r == '\u200f', r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069':
		return true // what turns the direction of writing
	}
	return false
}

// colors are the escape sequences that only change how the following text looks.
var colors = regexp.MustCompile(`\x1b\[[0-9;:]*m`)

// CleanButColors is Clean, but lets colours through, and ends them with the line.
func CleanButColors(s string) string {
	spans := colors.FindAllStringIndex(s, -1)
	if spans == nil {
		return Clean(s)
	}
	var b strings.Builder
	at := 0
	for _, span := range spans {
		b.WriteString(Clean(s[at:span[0]]))
		b.WriteString(s[span[0]:span[1]])
		at = span[1]
	}
	b.WriteString(Clean(s[at:]))
	b.WriteString("\x1b[0m")
	return b.String()
}

// CleanJSON makes JSON fit to be shown: encoding/json leaves DEL, the control
// characters beyond ASCII and those that turn the direction of writing as they
// are. They can stand in strings only, where they may be written as escapes.
func CleanJSON(text []byte) []byte {
	if !strings.ContainsFunc(string(text), func(r rune) bool { return r != '\n' && r != utf8.RuneError && unfit(r) }) {
		return text
	}
	var b []byte
	for _, r := range string(text) {
		if r != '\n' && r != utf8.RuneError && unfit(r) {
			b = fmt.Appendf(b, `\u%04x`, r)
		} else {
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}
