package hostcheck

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/report"
	"github.com/infractl/infractl/cmd/infractl/internal/screen"
)

// mostLines is how many lines of one diff are shown. Most files of daemons are replaced
// as a whole, and what matters is what was there, which comes first.
const mostLines = 40

// Lines are the results as one screen of a width in columns, where 0 means any: a
// table, what was found, and the texts that would be written over.
func Lines(results []Result, style report.Style, width int) []string {
	if width > 0 {
		width-- // a line that fills the terminal wraps on some
	}
	lines := table(results, style).Lines(width)
	for _, level := range []Level{Problem, Warning} {
		sign, paint := "✗ ", style.Bad
		if level == Warning {
			sign, paint = "! ", style.Warn
		}
		first := true
		for _, r := range results {
			for _, f := range r.Findings {
				if f.Level != level {
					continue
				}
				if first {
					lines, first = append(lines, ""), false
				}
				text := r.Title + ": " + f.Message
				if f.Advice != "" {
					text += "; " + f.Advice
				}
				for i, line := range screen.Wrap(screen.Clean(text), width, sign) {
					if i == 0 {
						line = paint(strings.TrimSuffix(sign, " ")) + strings.TrimPrefix(line, strings.TrimSuffix(sign, " "))
					}
					lines = append(lines, line)
				}
			}
		}
	}
	for _, r := range results {
		for _, f := range r.Files {
			lines = append(lines, "", style.Strong(screen.Clean(r.Title+": "+f.Path)))
			if f.Note != "" {
				lines = append(lines, screen.Clean(f.Note))
			}
			diff := strings.Split(strings.TrimSuffix(f.Diff, "\n"), "\n")
			if n := len(diff) - mostLines; n > 1 {
				diff = append(diff[:mostLines], fmt.Sprintf("… and %d more lines; --json has them", n))
			}
			for _, line := range diff {
				if f.Diff != "" {
					lines = append(lines, painted(screen.Clean(line), style))
				}
			}
		}
	}
	return append(lines, "", sum(results))
}

// painted is a line of a diff.
func painted(line string, style report.Style) string {
	switch {
	case strings.HasPrefix(line, "+++"), strings.HasPrefix(line, "---"):
		return style.Strong(line)
	case strings.HasPrefix(line, "+"):
		return style.Good(line)
	case strings.HasPrefix(line, "-"):
		return style.Bad(line)
	case strings.HasPrefix(line, "@@"):
		return style.Faint(line)
	}
	return line
}

func table(results []Result, style report.Style) screen.Table {
	t := screen.Table{Columns: []screen.Column{
		{Title: ""}, {Title: "SERVER"}, {Title: "USED AS"}, {Title: "ADDRESS", Rank: 1}, {Title: "SYSTEM", Rank: 4}, {Title: "ROOT BY", Rank: 5},
		{Title: "MEMORY", Right: true, Rank: 3}, {Title: "CORES", Right: true, Rank: 3}, {Title: "FREE", Right: true, Rank: 2}, {Title: "CLOCK", Right: true, Rank: 2},
	}}
	for _, r := range results {
		mark := screen.Cell{Text: "✓", Paint: style.Good}
		switch {
		case !r.OK:
			mark = screen.Cell{Text: "✗", Paint: style.Bad}
		case len(r.Findings) > 0:
			mark = screen.Cell{Text: "!", Paint: style.Warn}
		}
		used := strings.Join(r.Hosts, " ")
		if used == "" {
			used = "-"
		}
		row := []screen.Cell{mark}
		for _, text := range []string{r.Title, used, r.Address, r.System, r.BecomesRoot} {
			row = append(row, screen.Cell{Text: screen.Clean(text)})
		}
		seen := []string{"", "", "", ""}
		if r.System != "" {
			clock := time.Duration(r.ClockOffset * float64(time.Second))
			seen = []string{strconv.Itoa(r.MemoryMB), strconv.Itoa(r.Cores), size(r.DiskFree), fmt.Sprintf("%+.1f s", clock.Seconds())}
		}
		for _, text := range seen {
			row = append(row, screen.Cell{Text: text})
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// sum is the result in one line.
func sum(results []Result) string {
	problems, warnings, bad := count(results)
	servers := plural(len(results), "server")
	switch {
	case problems > 0:
		return fmt.Sprintf("%s and %s; of %s, %d cannot be used so", plural(problems, "problem"), plural(warnings, "warning"), servers, bad)
	case warnings > 0:
		return fmt.Sprintf("no problems on %s, and %s", servers, plural(warnings, "warning"))
	}
	return fmt.Sprintf("no problems on %s", servers)
}

// count counts what was found, and the servers that have a problem.
func count(results []Result) (problems, warnings, bad int) {
	for _, r := range results {
		if !r.OK {
			bad++
		}
		for _, f := range r.Findings {
			if f.Level == Problem {
				problems++
			} else {
				warnings++
			}
		}
	}
	return problems, warnings, bad
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
