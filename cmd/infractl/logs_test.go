package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/cmd/infractl/internal/journal"
	"github.com/infractl/infractl/cmd/infractl/internal/report"
)

func TestTimesOfLogsAreReadAsPeopleWriteThem(t *testing.T) {
	zone := time.FixedZone("somewhere", 2*3600)
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, zone)
	for text, want := range map[string]string{
		"10m":                       "2026-11-24T11:50:00+02:00",
		"1h30m":                     "2026-11-24T10:30:00+02:00",
		"0s":                        "2026-11-24T12:00:00+02:00",
		"3d":                        "2026-11-21T12:00:00+02:00",
		"0.5d":                      "2026-11-24T00:00:00+02:00",
		"09:15":                     "2026-11-24T09:15:00+02:00",
		"09:15:30":                  "2026-11-24T09:15:30+02:00",
		"2026-11-01":                "2026-11-01T00:00:00+02:00",
		"2026-11-01 07:08":          "2026-11-01T07:08:00+02:00",
		"2026-11-01 07:08:09":       "2026-11-01T07:08:09+02:00",
		"2026-11-01T07:08:09Z":      "2026-11-01T07:08:09Z",
		"2026-11-01T07:08:09-03:00": "2026-11-01T07:08:09-03:00",
	} {
		got, err := logTime(text, now)
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %v, %v; not %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-10m", "yesterday", "-3d", "NaNd", "@1395716396", "$(id)", "25:00", "2026-13-01"} {
		if got, err := logTime(text, now); exitCode(err) != 2 {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// query is what logs makes of a command line.
func query(args ...string) (q journal.Query, err error) {
	command := logsCommand()
	command.Action = func(c *cli.Context) error {
		q, err = logQuery(c, time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC))
		return nil
	}
	app := &cli.App{Commands: []*cli.Command{command}, ExitErrHandler: func(*cli.Context, error) {}}
	if ran := app.Run(append([]string{"infractl", "logs"}, args...)); ran != nil {
		err = ran
	}
	return q, err
}

func TestHowManyEntriesAreShownDependsOnWhatIsAskedFor(t *testing.T) {
	for args, want := range map[string]int{
		"":                     logLines,
		"-f":                   logLinesFollow,
		"--since 10m":          -1,
		"-f --since 10m":       -1,
		"-n 7":                 7,
		"-n 0 -f":              0,
		"--since 10m -n 7":     7,
		"--grep foo":           logLines,
		"--unit a.service -fn": -2,
	} {
		q, err := query(strings.Fields(args)...)
		if want == -2 {
			if err == nil {
				t.Errorf("%s: no error", args)
			}
			continue
		}
		if err != nil || q.Lines != want {
			t.Errorf("%s: %d, %v; not %d", args, q.Lines, err, want)
		}
	}
}

func TestWhatGoesToHostsIsLookedAtFirst(t *testing.T) {
	for _, args := range [][]string{
		{"--unit", "--help"}, {"--unit", ""}, {"--unit", "a b"}, {"--unit", "a;b"}, {"--unit", "../x"}, {"--unit", "a\nb"},
		{"--grep", "("}, {"--grep", "a\nb"}, {"--grep", "(?=x)"}, {"--grep", "\xff"},
		{"--since", "soon"}, {"-n", "-1"}, {"-n", "1000001"},
	} {
		if q, err := query(args...); exitCode(err) != 2 {
			t.Errorf("%q: %+v, %v", args, q, err)
		}
	}
	for _, args := range [][]string{
		{"--unit", "app-shop@1.service"}, {"--unit", `a\x2db`}, {"--unit", "*"}, {"--unit", "postgresql@[0-9]*"},
		{"--grep", `^(GET|POST) /[^ ]+ \d{3}$`}, {"--grep", "'; reboot #"},
	} {
		if _, err := query(args...); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func printed(change func(*logPrinter), entries ...journal.Entry) string {
	var out bytes.Buffer
	p := newLogPrinter(&out, report.Style{}, []fleet.Host{{Name: "lb-1"}, {Name: "web-10"}})
	p.zone = time.UTC
	if change != nil {
		change(p)
	}
	for _, e := range entries {
		if err := p.entry(e); err != nil {
			return err.Error()
		}
	}
	if err := p.out.Flush(); err != nil {
		return err.Error()
	}
	return out.String()
}

func TestEntriesStandBehindTimeHostAndProgram(t *testing.T) {
	at := time.Date(2026, 11, 24, 3, 4, 5, 678_900_000, time.UTC)
	bad, warning := 3, 4
	entries := []journal.Entry{
		{Time: at, Host: "lb-1", Identifier: "haproxy", PID: 7, Message: "one line"},
		{Time: at, Host: "web-10", Unit: "nginx.service", Message: "two\r\nlines", Priority: &bad},
		{Time: at, Host: "web-10", Identifier: "access", Message: "", Priority: &warning},
		{Time: at, Host: "lb-1", Message: "\x1b]0;title\x07\x1b[2J\xff\u009b31m"},
	}
	want := `Nov 24 03:04:05.678 lb-1   haproxy[7]: one line
Nov 24 03:04:05.678 web-10 nginx: two
Nov 24 03:04:05.678 web-10        lines
Nov 24 03:04:05.678 web-10 access: ` + `
Nov 24 03:04:05.678 lb-1   \x1b]0;title\x07\x1b[2J\xff\u009b31m
`
	if got := printed(nil, entries...); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	painted := printed(func(p *logPrinter) { p.style.Color = true }, entries[1])
	if want := "\x1b[2mNov 24 03:04:05.678\x1b[0m \x1b[32mweb-10\x1b[0m nginx: \x1b[31mtwo\x1b[0m\n"; !strings.HasPrefix(painted, want) {
		t.Errorf("%q", painted)
	}
}

func TestEntriesAreLinesOfJSON(t *testing.T) {
	priority := 6
	text := printed(func(p *logPrinter) { p.json = true }, journal.Entry{
		Time: time.Date(2026, 11, 24, 3, 4, 5, 6000, time.UTC), Host: "lb-1", Tier: "lb", Unit: "haproxy.service", Identifier: "haproxy", PID: 7, Priority: &priority,
		Message: "a\nb\x1b\x7f\u009b",
	})
	if strings.Count(text, "\n") != 1 || strings.ContainsAny(text, "\x1b\x7f\u009b") {
		t.Errorf("%q", text)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"time": "2026-11-24T03:04:05.000006Z", "host": "lb-1", "tier": "lb", "unit": "haproxy.service", "identifier": "haproxy", "pid": 7.0, "priority": 6.0, "message": "a\nb\x1b\x7f\u009b"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, not %v", got, want)
	}
}
