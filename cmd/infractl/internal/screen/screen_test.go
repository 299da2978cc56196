package screen

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestNothingThatMovesTheCursorIsShown(t *testing.T) {
	for in, want := range map[string]string{
		"plain text, ümläut, 漢字, 👍🏽": "plain text, ümläut, 漢字, 👍🏽",
		"a\tb":                       "a    b",
		"\x1b[2J\x1b]0;title\x07":    `\x1b[2J\x1b]0;title\x07`,
		"one\rtwo\nthree\x00\x7f":    `one\x0dtwo\x0athree\x00\x7f`,
		"csi \u009b31m":              `csi \u009b31m`,
		"\xff\xc3 and \ufffd":        `\xff\xc3 and ` + "\ufffd",
		"gpj.\u202eexe\u2066\u200e":  `gpj.\u202eexe\u2066\u200e`,
		"\u2028":                     `\u2028`,
	} {
		if got := Clean(in); got != want {
			t.Errorf("%q: %q, not %q", in, got, want)
		}
	}
}

func TestColorsMayStayAndEndWithTheLine(t *testing.T) {
	got := CleanButColors("\x1b[1;31mred\x1b[0K\x1b[2Arest\x07")
	if want := "\x1b[1;31mred" + `\x1b[0K\x1b[2Arest\x07` + "\x1b[0m"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
	if got := CleanButColors("none\x08"); got != `none\x08` {
		t.Errorf("%q", got)
	}
}

func TestJSONWithoutControlCharactersMeansTheSame(t *testing.T) {
	in := map[string]string{"a": "\x1b\x7f\u009b\u202e \ufffd\n漢"}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	clean := CleanJSON(append(text, '\n'))
	if strings.ContainsAny(string(clean), "\x1b\x7f\u009b\u202e") {
		t.Errorf("%q", clean)
	}
	var out map[string]string
	if err := json.Unmarshal(clean, &out); err != nil || out["a"] != in["a"] {
		t.Errorf("%q, %v", out, err)
	}
}

func TestLinesOfSeveralHostsDoNotMix(t *testing.T) {
	var out bytes.Buffer
	var lock sync.Mutex
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		wg.Go(func() {
			l := &Lines{Out: &out, Lock: &lock, Prefix: name + " | "}
			for range 200 {
				for _, part := range []string{strings.Repeat(name, 10), strings.Repeat(name, 10) + "\n", name} {
					if _, err := l.Write([]byte(part)); err != nil {
						t.Error(err)
					}
				}
				if _, err := l.Write([]byte("\n")); err != nil {
					t.Error(err)
				}
			}
			if _, err := l.Write([]byte("end")); err != nil {
				t.Error(err)
			}
			if err := l.Flush(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 3*401 {
		t.Errorf("%d lines", len(lines))
	}
	for _, line := range lines {
		name := line[:1]
		if want := []string{name + " | " + strings.Repeat(name, 20), name + " | " + name, name + " | end"}; !slices.Contains(want, line) {
			t.Fatalf("%q", line)
		}
	}
}

func TestALineWithoutEndIsWrittenInPieces(t *testing.T) {
	var out bytes.Buffer
	l := &Lines{Out: &out, Lock: &sync.Mutex{}, Prefix: "> "}
	if _, err := l.Write(bytes.Repeat([]byte("x"), lineLimit+1)); err != nil {
		t.Fatal(err)
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	if want := "> " + strings.Repeat("x", lineLimit) + "\n> x\n"; out.String() != want {
		t.Errorf("%d bytes", out.Len())
	}
}

func table() Table {
	bad := func(s string) string { return "\x1b[31m" + s + "\x1b[0m" }
	return Table{
		Columns: []Column{{Title: "HOST"}, {Title: "STATE"}, {Title: "ADDRESS", Rank: 2}, {Title: "LOAD", Right: true, Rank: 1}, {Title: "CERT", Rank: 3}},
		Rows: [][]Cell{
			{{Text: "lb-1"}, {Text: "up"}, {Text: "198.51.100.1"}, {Text: "0.1"}, {}},
			{{Text: "web-10"}, {Text: "down", Paint: bad}, {Text: "198.51.100.20"}, {Text: "10.1"}, {}},
		},
	}
}

func TestColumnsThatNobodyNeedsOrThatDoNotFitAreLeftOut(t *testing.T) {
	for width, want := range map[int]string{
		0:  "HOST    STATE  ADDRESS        LOAD\nlb-1    up     198.51.100.1    0.1\nweb-10  \x1b[31mdown\x1b[0m   198.51.100.20  10.1",
		34: "HOST    STATE  ADDRESS        LOAD\nlb-1    up     198.51.100.1    0.1\nweb-10  \x1b[31mdown\x1b[0m   198.51.100.20  10.1",
		33: "HOST    STATE  LOAD\nlb-1    up      0.1\nweb-10  \x1b[31mdown\x1b[0m   10.1",
		5:  "HOST    STATE\nlb-1    up\nweb-10  \x1b[31mdown\x1b[0m",
	} {
		if got := strings.Join(table().Lines(width), "\n"); got != want {
			t.Errorf("width %d:\n%q\nwant\n%q", width, got, want)
		}
	}
}

func TestAScreenIsDrawnInPlace(t *testing.T) {
	var out bytes.Buffer
	s := NewScreen(&out)
	for _, lines := range [][]string{{"one", "two", "three"}, {"eins"}, {"1", "2", "3", "4", "5"}} {
		if err := s.Draw(lines, 80, 5); err != nil {
			t.Fatal(err)
		}
	}
	want := "\rone\x1b[K\n\rtwo\x1b[K\n\rthree\x1b[K\n\x1b[J" +
		"\x1b[3A\reins\x1b[K\n\x1b[J" +
		"\x1b[1A\r1\x1b[K\n\r2\x1b[K\n\r3\x1b[K\n\r… and 2 more lines\x1b[K\n\x1b[J"
	if out.String() != want {
		t.Errorf("%q\nwant\n%q", out.String(), want)
	}
}

func TestALongLineIsCutWithItsColors(t *testing.T) {
	for _, c := range []struct {
		in    string
		width int
		want  string
	}{
		{"abcdef", 7, "abcdef"},
		{"abcdef", 6, "abcd…"},
		{"abcdef", 0, "abcdef"},
		{"\x1b[31mab\x1b[0mcdef", 6, "\x1b[31mab\x1b[0mcd…\x1b[0m"},
		{"\x1b[31mab\x1b[0mcdef", 20, "\x1b[31mab\x1b[0mcdef"},
	} {
		if got := Cut(c.in, c.width); got != c.want {
			t.Errorf("%q in %d: %q, not %q", c.in, c.width, got, c.want)
		}
	}
}

func TestTextIsBrokenBetweenWords(t *testing.T) {
	got := Wrap("web-1 does not answer; look at its console", 24, "✗ ")
	if want := []string{"✗ web-1 does not", "  answer; look at its", "  console"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := Wrap("a b", 0, "! "); !slices.Equal(got, []string{"! a b"}) {
		t.Errorf("%q", got)
	}
}
