package screen

import (
	"strings"
	"unicode/utf8"
)

// Column is a column of a table.
type Column struct {
	Title string
	// Right aligns its cells to the right.
	Right bool
	// Rank says which columns are left out where the table does not fit: those
	// with the highest rank first, those with 0 never.
	Rank int
}

// Cell is a text and how to paint it; Paint may be nil.
type Cell struct {
	Text  string
	Paint func(string) string
}

// Table is a table with a line of titles.
type Table struct {
	Columns []Column
	Rows    [][]Cell
}

// gap is the space between columns.
const gap = 2

// Lines lays the table out in a width in columns, where 0 means any. Columns of
// which nobody knows anything are left out.
func (t Table) Lines(width int) []string {
	widths := make([]int, len(t.Columns))
	shown := make([]bool, len(t.Columns))
	for i, c := range t.Columns {
		for _, row := range t.Rows {
			if row[i].Text != "" {
				shown[i] = true
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].Text))
		}
		widths[i] = max(widths[i], utf8.RuneCountInString(c.Title))
	}
	for width > 0 {
		total, worst := -gap, -1
		for i, c := range t.Columns {
			if !shown[i] {
				continue
			}
			total += widths[i] + gap
			if c.Rank > 0 && (worst < 0 || c.Rank >= t.Columns[worst].Rank) {
				worst = i
			}
		}
		if total <= width || worst < 0 {
			break
		}
		shown[worst] = false
	}
	head := make([]Cell, len(t.Columns))
	for i, c := range t.Columns {
		head[i].Text = c.Title
	}
	var lines []string
	for _, row := range append([][]Cell{head}, t.Rows...) {
		var b strings.Builder
		for i, c := range t.Columns {
			if !shown[i] {
				continue
			}
			if b.Len() > 0 {
				b.WriteString(strings.Repeat(" ", gap))
			}
			text := row[i].Text
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			if row[i].Paint != nil && text != "" {
				text = row[i].Paint(text)
			}
			if c.Right {
				text = space + text
			} else {
				text += space
			}
			b.WriteString(text)
		}
		lines = append(lines, strings.TrimRight(b.String(), " "))
	}
	return lines
}
