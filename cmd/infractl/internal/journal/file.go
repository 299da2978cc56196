package journal

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// format is how a daemon writes its own log file; logs.sh knows where it is.
type format struct {
	// name is what logs.sh calls it, daemon the name of the unit.
	name, daemon string
	identifier   string
	// parse takes the time out of a line. It fails for lines that go on with
	// what the line before them began.
	parse func(line string) (at time.Time, rest string, pid int, ok bool)
}

// accessLog is nginx's, in the format of templates/nginx: address, time in
// brackets, and the rest. It knows seconds only.
var accessLog = format{
	name: "access", daemon: "nginx", identifier: "access",
	parse: func(line string) (time.Time, string, int, bool) {
		address, rest, ok := strings.Cut(line, " [")
		stamp, rest, ok2 := strings.Cut(rest, "] ")
		at, err := time.Parse(time.RFC3339, stamp)
		if !ok || !ok2 || err != nil {
			return time.Time{}, line, 0, false
		}
		return at.UTC(), address + " " + rest, 0, true
	},
}

// postgresLine begins with the time and the process, as log_line_prefix in
// templates/postgresql says. The time is UTC there.
var postgresLine = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC \[(\d+)\] (.*)$`)

// databaseLog is PostgreSQL's.
var databaseLog = format{
	name: "postgresql", daemon: "postgresql", identifier: "postgres",
	parse: func(line string) (time.Time, string, int, bool) {
		m := postgresLine.FindStringSubmatch(line)
		if m == nil {
			return time.Time{}, line, 0, false
		}
		at, err := time.Parse("2006-01-02 15:04:05.000", m[1])
		if err != nil {
			return time.Time{}, line, 0, false
		}
		pid, _ := strconv.Atoi(m[2])
		return at, m[3], pid, true
	},
}
