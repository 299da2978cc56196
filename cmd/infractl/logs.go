package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/cmd/infractl/internal/journal"
	"github.com/infractl/infractl/cmd/infractl/internal/report"
	"github.com/infractl/infractl/cmd/infractl/internal/screen"
)

// How many entries are shown where the user does not say.
const (
	logLines       = 100
	logLinesFollow = 10
)

func logsCommand() *cli.Command {
	return &cli.Command{
		Name:      "logs",
		Usage:     "show the logs of several hosts, merged by time",
		UsageText: "infractl logs [--env NAME] [--tier NAME]… [--host NAME]… [-f] [--since 10m] [-n 100] [--unit UNIT]… [--grep RE]",
		Description: "By default the logs of what serves, on all hosts: HAProxy, keepalived and the mover\n" +
			"of the virtual IP; nginx with its access log; the application; PostgreSQL.",
		Flags: []cli.Flag{envFlag(), tiersFlag(), hostsFlag(),
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what is written from now on, until Ctrl-C"},
			&cli.StringSliceFlag{Name: "unit", Aliases: []string{"u"}, Usage: "only systemd unit `NAME`, which may have wildcards"},
			&cli.StringFlag{Name: "since", Usage: "from `TIME` on: 10m, 2h, 3d, 15:04, 2006-01-02, 2006-01-02 15:04[:05], or as in RFC 3339"},
			&cli.IntFlag{Name: "lines", Aliases: []string{"n"}, Usage: fmt.Sprintf("the last `N` entries (default: %d; with -f %d; with --since all)", logLines, logLinesFollow)},
			&cli.StringFlag{Name: "grep", Aliases: []string{"g"}, Usage: "only entries that have regular expression `RE`"},
			&cli.BoolFlag{Name: "json", Usage: "write one line of JSON for each entry"},
		},
		Action:       logs,
		OnUsageError: usageError,
		BashComplete: completeFlags,
	}
}

func logs(c *cli.Context) error {
	q, err := logQuery(c, time.Now())
	if err != nil {
		return err
	}
	s, err := begin(c, true)
	if err != nil {
		return err
	}
	defer s.reporter.Finish()
	if q.Follow {
		endsQuietly.Store(true)
	}
	f, err := s.theFleet()
	if err != nil {
		return err
	}
	hosts, err := chosen(c, f)
	if err != nil {
		return err
	}
	s.reporter.Finish()
	p := newLogPrinter(os.Stdout, styleOf(c, os.Stdout), f.Hosts)
	p.json, p.follow = c.Bool("json"), q.Follow
	style := styleOf(c, os.Stderr)
	var lock sync.Mutex
	tell := func(format string, args ...any) {
		lock.Lock()
		defer lock.Unlock()
		fmt.Fprintf(os.Stderr, "infractl: %s\n", screen.Clean(fmt.Sprintf(format, args...)))
	}
	silent, err := journal.Read(c.Context, hosts, f.Connect, q, journal.Sink{
		Entry:   p.entry,
		Trouble: func(_ string, err error) { tell("%s", style.Warn(strings.ReplaceAll(err.Error(), "\n", "; "))) },
		Again:   func(host string) { tell("%s can be read again", host) },
	})
	if flushed := p.out.Flush(); err == nil {
		err = flushed
	}
	switch {
	case c.Context.Err() != nil && !q.Follow:
		return &engine.Error{Kind: engine.Interrupted, Err: errors.New("interrupted")}
	case err != nil:
		return err
	case len(silent) > 0:
		return &engine.Error{Kind: engine.Failed, Err: fmt.Errorf("without the logs of %s, which could not be read", strings.Join(silent, ", "))}
	}
	return nil
}

// unitName is what systemd allows in the name of a unit (systemd.unit(5)), and
// the wildcards of journalctl.
var unitName = regexp.MustCompile(`^[A-Za-z0-9:_.\\@*?\[\]][A-Za-z0-9:_.\\@*?\[\]-]{0,254}$`)

// logQuery reads the flags.
func logQuery(c *cli.Context, now time.Time) (journal.Query, error) {
	q := journal.Query{Units: c.StringSlice("unit"), Pattern: c.String("grep"), Follow: c.Bool("follow"), Lines: logLines}
	for _, u := range q.Units {
		if !unitName.MatchString(u) {
			return q, usage("--unit %s: is no name of a systemd unit", screen.Clean(u))
		}
	}
	if _, err := regexp.Compile(q.Pattern); err != nil {
		return q, usage("--grep: %w", err)
	}
	if strings.ContainsAny(q.Pattern, "\n\x00") || !utf8.ValidString(q.Pattern) {
		return q, usage("--grep: a line of a log has no newline in it")
	}
	if q.Follow {
		q.Lines = logLinesFollow
	}
	if c.IsSet("since") {
		var err error
		if q.Since, err = logTime(c.String("since"), now); err != nil {
			return q, err
		}
		q.Lines = -1
	}
	if c.IsSet("lines") {
		if q.Lines = c.Int("lines"); q.Lines < 0 || q.Lines > 1_000_000 {
			return q, usage("--lines must be from 0 to 1000000")
		}
	}
	return q, nil
}

// logTime reads a time, or how long ago it was.
func logTime(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil && n >= 0 && n < 100_000 {
			return now.Add(-time.Duration(n * 24 * float64(time.Hour))), nil
		}
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{time.DateOnly, "2006-01-02 15:04", time.DateTime} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04", time.TimeOnly} {
		if t, err := time.ParseInLocation(time.DateOnly+" "+layout, now.Format(time.DateOnly)+" "+text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usage("--since %s: is no time; give one such as 10m, 2h, 3d, 15:04 or \"2006-01-02 15:04\"", screen.Clean(text))
}

// logPrinter writes entries for people, or for programs.
type logPrinter struct {
	out          *bufio.Writer
	style        report.Style
	json, follow bool
	width        int
	// number tells hosts apart, by name.
	number map[string]int
	zone   *time.Location
}

func newLogPrinter(out io.Writer, style report.Style, hosts []fleet.Host) *logPrinter {
	p := &logPrinter{out: bufio.NewWriter(out), style: style, width: width(hosts), number: map[string]int{}, zone: time.Local}
	for i, h := range hosts {
		p.number[h.Name] = i
	}
	return p
}

func (p *logPrinter) entry(e journal.Entry) error {
	var err error
	if p.json {
		err = writeLine(p.out, e)
	} else {
		_, err = p.out.WriteString(p.text(e))
	}
	if err == nil && p.follow {
		err = p.out.Flush()
	}
	return err
}

// text is an entry in as many lines as its message has.
func (p *logPrinter) text(e journal.Entry) string {
	head := p.style.Faint(e.Time.In(p.zone).Format("Jan 02 15:04:05.000")) + " " +
		p.style.Nth(p.number[e.Host], fmt.Sprintf("%-*s", p.width, e.Host)) + " "
	who := e.Identifier
	if who == "" {
		who = strings.TrimSuffix(e.Unit, ".service")
	}
	if e.PID > 0 {
		who += fmt.Sprintf("[%d]", e.PID)
	}
	if who = screen.Clean(who); who != "" {
		who += ": "
	}
	paint := func(s string) string { return s }
	if e.Priority != nil && *e.Priority <= 3 {
		paint = p.style.Bad
	} else if e.Priority != nil && *e.Priority == 4 {
		paint = p.style.Warn
	}
	var b strings.Builder
	for i, line := range strings.Split(e.Message, "\n") {
		if i > 0 {
			who = strings.Repeat(" ", utf8.RuneCountInString(who))
		}
		b.WriteString(head + who + paint(screen.Clean(strings.TrimSuffix(line, "\r"))) + "\n")
	}
	return b.String()
}
