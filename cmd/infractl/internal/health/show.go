package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/report"
	"github.com/infractl/infractl/cmd/infractl/internal/screen"
	"github.com/infractl/infractl/stacks"
)

// Lines is the snapshot as one screen of a width in columns, where 0 means any.
func (s Snapshot) Lines(style report.Style, width int) []string {
	lines := s.head(style)
	lines = append(lines, "")
	if width > 0 {
		width-- // a line that fills the terminal wraps on some
	}
	lines = append(lines, s.table(style).Lines(width)...)
	if len(s.Problems) > 0 {
		lines = append(lines, "")
	}
	for _, p := range s.Problems {
		text := p.Message
		if p.Advice != "" {
			text += "; " + p.Advice
		}
		sign, paint := "✗ ", style.Bad
		if p.Level == Warning {
			sign, paint = "! ", style.Warn
		}
		for i, line := range screen.Wrap(screen.Clean(text), width, sign) {
			if i == 0 {
				line = paint(strings.TrimSuffix(sign, " ")) + strings.TrimPrefix(line, strings.TrimSuffix(sign, " "))
			}
			lines = append(lines, line)
		}
	}
	return append(lines, "", s.sum(style))
}

// head is what concerns the environment as a whole.
func (s Snapshot) head(style report.Style) []string {
	answer := style.Bad("does not answer")
	if s.Site.Error == "" {
		answer = fmt.Sprintf("answers %d in %.0f ms", s.Site.Status, s.Site.Milliseconds)
		if s.siteWell() {
			answer = style.Good(answer)
		} else {
			answer = style.Bad(answer)
		}
	}
	lines := []string{fmt.Sprintf("%s  %s  %s", style.Strong(s.Environment), s.Site.URL, answer)}
	if len(s.VIP) > 0 {
		var parts []string
		for _, v := range s.VIP {
			holder := screen.Clean(v.Holder)
			if holder == "" {
				holder = style.Bad("nobody knows where")
			}
			parts = append(parts, v.Address+" at "+holder)
		}
		text := "virtual IP " + strings.Join(parts, ", ")
		if !s.agreed() {
			masters := "none"
			if len(s.Masters) > 0 {
				masters = strings.Join(s.Masters, " and ")
			}
			text += style.Bad(", master " + masters)
		}
		lines = append(lines, text)
	}
	var runs []string
	if s.LastChange != nil {
		runs = append(runs, "last change "+s.LastChange.Local().Format(time.DateTime))
	}
	if s.Running != "" {
		runs = append(runs, style.Warn("being changed by "+screen.Clean(s.Running)))
	}
	if len(runs) > 0 {
		lines = append(lines, strings.Join(runs, ", "))
	}
	return lines
}

// siteWell says whether the site answered as it should.
func (s Snapshot) siteWell() bool {
	for _, p := range s.Problems {
		if p.Host == "" && p.Level == Broken && strings.HasPrefix(p.Message, s.Site.Asked+" ") {
			return false
		}
	}
	return true
}

// agreed says whether the cloud and the load balancers agree on the holder, as
// far as all of them could be asked.
func (s Snapshot) agreed() bool {
	for _, v := range s.VIP {
		if len(s.Masters) == 1 && v.Holder == s.Masters[0] {
			continue
		}
		silent := slices.ContainsFunc(s.Hosts, func(h Host) bool { return h.Tier == stacks.TierLB && !h.Reachable })
		if len(s.Masters) > 0 || !silent {
			return false
		}
	}
	return true
}

// table is one line for each host. The columns that matter least have the
// highest ranks.
func (s Snapshot) table(style report.Style) screen.Table {
	t := screen.Table{Columns: []screen.Column{
		{Title: "HOST"},
		{Title: "STATE"},
		{Title: "ADDRESS", Rank: 8},
		{Title: "SESS", Right: true, Rank: 4},
		{Title: "REQ/S", Right: true, Rank: 2},
		{Title: "5XX", Right: true, Rank: 1},
		{Title: "LOAD", Right: true, Rank: 6},
		{Title: "MEM", Right: true, Rank: 5},
		{Title: "DISK", Right: true, Rank: 5},
		{Title: "SERVING", Rank: 7},
		{Title: "DRIFT", Right: true, Rank: 3},
		{Title: "BOOT", Rank: 3},
		{Title: "CERT", Right: true, Rank: 9},
	}}
	known := slices.ContainsFunc(s.Hosts, func(h Host) bool { return h.Drift != nil })
	for _, h := range s.Hosts {
		t.Rows = append(t.Rows, []screen.Cell{
			{Text: h.Name},
			h.stateCell(style),
			{Text: h.Public},
			number(h.Sessions, "%d"),
			rate(h.RequestsPerSecond),
			shareCell(h.ErrorShare, style, 0.001, 0.01),
			loadCell(h.LoadPerCore, style),
			shareCell(h.MemoryUsed, style, memoryWarning, 2),
			shareCell(h.DiskUsed, style, diskWarning, diskBroken),
			{Text: screen.Clean(shortRelease(h))},
			h.driftCell(known, style),
			rebootCell(h.RebootNeeded, style),
			h.certificateCell(s.Time, style),
		})
	}
	return t
}

func (h Host) stateCell(style report.Style) screen.Cell {
	c := screen.Cell{Text: string(h.State), Paint: style.Bad}
	switch h.State {
	case Up, Master, Backup:
		c.Paint = style.Good
	case Drained, Out, Partial:
		c.Paint = style.Warn
	}
	if h.Processes != nil {
		c.Text += fmt.Sprintf(" %d/%d", h.Processes.Up, h.Processes.Total)
	}
	return c
}

func number[T any](n *T, format string) screen.Cell {
	if n == nil {
		return screen.Cell{}
	}
	return screen.Cell{Text: fmt.Sprintf(format, *n)}
}

func rate(perSecond *float64) screen.Cell {
	if perSecond != nil && *perSecond < 100 {
		return number(perSecond, "%.1f")
	}
	return number(perSecond, "%.0f")
}

// shareCell shows a share in percent, and paints it from two limits on.
func shareCell(share *float64, style report.Style, warn, bad float64) screen.Cell {
	c := screen.Cell{}
	if share == nil {
		return c
	}
	c.Text = fmt.Sprintf("%.0f%%", *share*100)
	if *share > 0 && *share < 0.0995 && bad <= 0.1 {
		c.Text = fmt.Sprintf("%.1f%%", *share*100)
	}
	switch {
	case *share >= bad:
		c.Paint = style.Bad
	case *share >= warn:
		c.Paint = style.Warn
	}
	return c
}

func loadCell(perCore *float64, style report.Style) screen.Cell {
	c := number(perCore, "%.2f")
	if perCore != nil && *perCore >= 1 {
		c.Paint = style.Warn
	}
	return c
}

// shortRelease is what a host serves, with as much of a release's digest as
// tells releases apart.
func shortRelease(h Host) string {
	name, digest, ok := strings.Cut(h.Serving, " ")
	if ok && h.Tier == stacks.TierApp && len(digest) > 8 {
		return name + " " + digest[:8]
	}
	return h.Serving
}

// driftCell shows how many things differ. known says that it is known of others.
func (h Host) driftCell(known bool, style report.Style) screen.Cell {
	switch {
	case h.Reachable && known && h.Drift == nil:
		return screen.Cell{Text: "?"}
	case h.Drift.Count() == 0:
		return screen.Cell{}
	}
	return screen.Cell{Text: fmt.Sprint(h.Drift.Count()), Paint: style.Warn}
}

func rebootCell(needed bool, style report.Style) screen.Cell {
	if !needed {
		return screen.Cell{}
	}
	return screen.Cell{Text: "due", Paint: style.Warn}
}

// certificateCell shows the days that are left.
func (h Host) certificateCell(now time.Time, style report.Style) screen.Cell {
	if h.Certificate == nil {
		return screen.Cell{}
	}
	left := h.Certificate.Expires.Sub(now)
	c := screen.Cell{Text: fmt.Sprintf("%d d", int(left.Hours()/24))}
	switch {
	case left <= 0:
		c.Paint = style.Bad
	case left < certificateWarning:
		c.Paint = style.Warn
	}
	return c
}

// sum is the last line.
func (s Snapshot) sum(style report.Style) string {
	broken, warnings := 0, 0
	for _, p := range s.Problems {
		if p.Level == Broken {
			broken++
		} else {
			warnings++
		}
	}
	text := style.Good("healthy")
	var parts []string
	if broken > 0 {
		text = style.Bad("not healthy")
		parts = append(parts, count(broken, "problem"))
	}
	if warnings > 0 {
		parts = append(parts, count(warnings, "warning"))
	}
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	return text + style.Faint(fmt.Sprintf("; %s in %.1f s", count(len(s.Hosts), "host"), s.Seconds))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
