package screen

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Screen is drawn again in place. It is for terminals only.
type Screen struct {
	out   io.Writer
	drawn int
}

// NewScreen begins below what the terminal shows already.
func NewScreen(out io.Writer) *Screen { return &Screen{out: out} }

// Draw shows lines in place of those before. They are cut to the terminal's
// size, since one that wraps or scrolls could not be drawn again; a size of 0 is
// not known. Old lines are written over and not taken away first, so that
// nothing flickers.
func (s *Screen) Draw(lines []string, width, height int) error {
	if height > 2 && len(lines) >= height {
		kept := height - 2
		lines = append(lines[:kept:kept], fmt.Sprintf("… and %d more lines", len(lines)-kept))
	}
	var b strings.Builder
	if s.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.drawn)
	}
	for _, line := range lines {
		b.WriteString("\r" + Cut(line, width) + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	s.drawn = len(lines)
	_, err := io.WriteString(s.out, b.String())
	return err
}

// Cut shortens a line to a width in columns. Colours take no room and are ended.
func Cut(line string, width int) string {
	if width < 2 || utf8.RuneCountInString(colors.ReplaceAllString(line, "")) < width {
		return line
	}
	var b strings.Builder
	room, painted := width-2, false
	for line != "" {
		if span := colors.FindStringIndex(line); span != nil && span[0] == 0 {
			b.WriteString(line[:span[1]])
			line, painted = line[span[1]:], true
			continue
		}
		if room == 0 {
			break
		}
		_, size := utf8.DecodeRuneInString(line)
		b.WriteString(line[:size])
		line = line[size:]
		room--
	}
	b.WriteString("…")
	if painted {
		b.WriteString("\x1b[0m")
	}
	return b.String()
}

// Wrap breaks text between words into lines of a width in columns, where 0
// means any. first stands before the first line, and as many spaces before the
// others.
func Wrap(text string, width int, first string) []string {
	indent := utf8.RuneCountInString(first)
	var lines []string
	line, used := first, indent
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		if used > indent {
			if width > 0 && used+1+n >= width {
				lines = append(lines, line)
				line, used = strings.Repeat(" ", indent), indent
			} else {
				line, used = line+" ", used+1
			}
		}
		line, used = line+word, used+n
	}
	return append(lines, line)
}
