package provision

import (
	"embed"
	"strings"
)

// The scripts that run on hosts define functions; what Go adds to them are
// calls of these functions with quoted arguments, never code of its own.
//
//go:embed scripts/*.sh
var scripts embed.FS

// script is a program for the host's sh under construction.
type script struct{ strings.Builder }

// newScript starts a script with the common part and the given files.
func newScript(files ...string) *script {
	s := new(script)
	s.load("common")
	s.load(files...)
	return s
}

// load adds files of the directory scripts.
func (s *script) load(files ...string) {
	for _, file := range files {
		text, err := scripts.ReadFile("scripts/" + file + ".sh")
		if err != nil {
			panic(err) // a file that go:embed did not find is a mistake in this package
		}
		s.Write(text)
	}
}

// call adds the call of a function.
func (s *script) call(function string, arguments ...string) {
	s.WriteString(function)
	for _, a := range arguments {
		s.WriteByte(' ')
		s.WriteString(quote(a))
	}
	s.WriteByte('\n')
}

// set adds the assignment of a variable.
func (s *script) set(name, value string) {
	s.WriteString(name + "=" + quote(value) + "\n")
}

// quote makes one word of s for sh. Inside single quotes every character but
// the single quote itself stands for itself. NUL cannot be in a word at all.
func quote(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", `'\''`) + "'"
}
