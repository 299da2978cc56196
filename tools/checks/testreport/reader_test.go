package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// runGo runs the real `go test -json` on a module with these files.
func runGo(t *testing.T, files map[string]string) (out string, results []result) {
	t.Helper()
	folder := t.TempDir()
	files["go.mod"] = "module m\n\ngo 1.26\n"
	for name, text := range files {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.CommandContext(t.Context(), "go", "test", "-json", "./...")
	command.Dir = folder
	stream, _ := command.Output() // fails where a test fails, on purpose
	var text strings.Builder
	r := newReader(&text)
	for line := range strings.Lines(string(stream)) {
		r.line([]byte(line))
	}
	results = r.end()
	slices.SortFunc(results, func(a, b result) int { return strings.Compare(a.name, b.name) })
	return text.String(), results
}

func TestEveryOutcomeIsCountedOnceWithItsReason(t *testing.T) {
	out, got := runGo(t, map[string]string{
		"a/a_test.go": `package a
import "testing"
func TestGood(t *testing.T) {}
func TestBad(t *testing.T) { t.Error("two is not three") }
func TestSkipped(t *testing.T) { t.Skip("no moon tonight") }
func TestMany(t *testing.T) { t.Run("one", func(t *testing.T) {}); t.Run("two", func(t *testing.T) {}) }
func TestOwnFault(t *testing.T) { t.Run("fine", func(t *testing.T) {}); t.Error("after all") }
`,
		"broken/b_test.go": "package broken\nimport \"testing\"\nfunc TestX(t *testing.T) { undefined() }\n",
		"crash/c_test.go":  "package crash\nimport (\"testing\"; \"os\")\nfunc TestY(t *testing.T) { os.Exit(3) }\n",
		"figure/f_test.go": "package figure\nimport \"testing\"\nfunc TestZ(t *testing.T) { t.Log(\"measured: failover 0.4 s\") }\n",
		"empty/empty.go":   "package empty\n",
	})
	want := []result{
		{"failed", "m/a TestBad: a_test.go:4: two is not three"},
		{"passed", "m/a TestGood"},
		{"passed", "m/a TestMany/one"},
		{"passed", "m/a TestMany/two"},
		{"passed", "m/a TestOwnFault/fine"},
		{"failed", "m/a TestOwnFault: a_test.go:7: after all"},
		{"skipped", "m/a TestSkipped: no moon tonight"},
		{"failed", "m/broken"},
		{"failed", "m/crash TestY"},
		{"passed", "m/figure TestZ"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	for _, words := range []string{"two is not three", "no moon tonight", "undefined: undefined", "after all"} {
		if !strings.Contains(out, words) {
			t.Errorf("the report lacks %q:\n%s", words, out)
		}
	}
}

func TestFiguresOfGoodTestsAreShown(t *testing.T) {
	r := strings.Builder{}
	reader := newReader(&r)
	for _, line := range []string{
		`{"Action":"run","Package":"p","Test":"T"}`,
		`{"Action":"output","Package":"p","Test":"T","Output":"    x_test.go:3: measured: failover 0.4 s\n"}`,
		`{"Action":"output","Package":"p","Test":"T","Output":"    x_test.go:4: chatter\n"}`,
		`{"Action":"pass","Package":"p","Test":"T"}`,
		`{"Action":"pass","Package":"p","Elapsed":1.25}`,
	} {
		reader.line([]byte(line))
	}
	want := "ok    p: 1 passed, 0 failed, 0 skipped (1.2 s)\n      measured: failover 0.4 s\n"
	if r.String() != want {
		t.Errorf("got %q, want %q", r.String(), want)
	}
}

func TestAPackageThatNeverFinishedHasFailed(t *testing.T) {
	reader := newReader(&strings.Builder{})
	reader.line([]byte(`{"Action":"start","Package":"p"}`))
	if got := reader.end(); !slices.Equal(got, []result{{"failed", "p"}}) {
		t.Errorf("got %v", got)
	}
}

func TestTheSumNamesWhatWasSkippedAndFailed(t *testing.T) {
	tally := filepath.Join(t.TempDir(), "tally")
	for _, check := range []string{"passed gofmt", "skipped govulncheck: not reachable", "failed vet"} {
		failed, err := report(tally, check, false, false)
		if err != nil || failed != strings.HasPrefix(check, "failed") {
			t.Fatal(failed, err)
		}
	}
	if failed, err := report(tally, "", true, false); !failed || err != nil {
		t.Errorf("a sum with a failure: %v, %v", failed, err)
	}
}
