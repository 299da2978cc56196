// Command testreport reads what `go test -json` prints and tells people what
// matters in it: a line for each package, everything about what failed, and the
// reason of everything that was skipped.
//
//	go test -json ./... | testreport -tally FILE
//
// The counts are added to FILE, so that several runs make one sum:
//
//	testreport -tally FILE -add 'passed gofmt'    counts a check that is no Go test
//	testreport -tally FILE -total                 prints "N passed, N failed, N skipped"
//
// A test with subtests counts as its subtests. The exit code is 1 if anything
// failed, in this run or, with -total, in any.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"strings"
)

func main() {
	tally := flag.String("tally", "", "file that collects the counts of several runs (required)")
	add := flag.String("add", "", "count one check: passed, failed or skipped, then its name")
	total := flag.Bool("total", false, "print the sum of all runs")
	each := flag.Bool("each", false, "print a line when a test ends, for tests that take long")
	flag.Parse()
	failed, err := report(*tally, *add, *total, *each)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(2)
	}
	if failed {
		os.Exit(1)
	}
}

func report(tally, add string, total, each bool) (failed bool, err error) {
	switch {
	case tally == "":
		return false, fmt.Errorf("-tally is missing")
	case total:
		return sum(tally)
	case add != "":
		outcome, name, _ := strings.Cut(add, " ")
		return outcome == "failed", appendTo(tally, []result{{outcome: outcome, name: name}})
	}
	r := newReader(os.Stdout)
	r.each = each
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if err != nil {
			break // end of input; the reader knows which packages are unfinished
		}
	}
	results := r.end()
	for _, one := range results {
		failed = failed || one.outcome == "failed"
	}
	return failed, appendTo(tally, results)
}

// sum prints the closing lines: what was skipped and what failed, with the words of
// each, and the counts.
func sum(tally string) (failed bool, err error) {
	text, err := os.ReadFile(tally)
	if err != nil && !os.IsNotExist(err) {
		return false, err
	}
	count := map[string]int{}
	names := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		outcome, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		count[outcome]++
		names[outcome] = append(names[outcome], name)
	}
	for _, outcome := range []string{"skipped", "failed"} {
		for _, name := range names[outcome] {
			fmt.Printf("%s: %s\n", outcome, name)
		}
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", count["passed"], count["failed"], count["skipped"])
	return count["failed"] > 0, nil
}

func appendTo(tally string, results []result) error {
	file, err := os.OpenFile(tally, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, one := range results {
		fmt.Fprintf(&text, "%s %s\n", one.outcome, strings.ReplaceAll(one.name, "\n", " "))
	}
	if _, err := file.WriteString(text.String()); err != nil {
		_ = file.Close()
		return err
	}
	return file.Close()
}
