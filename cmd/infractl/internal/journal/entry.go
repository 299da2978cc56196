// Package journal reads the logs of several hosts at once and merges them by
// time: systemd's journal, and the files of daemons that write their own.
package journal

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Entry is one entry of a log.
type Entry struct {
	Time time.Time `json:"time"`
	// Host is its short name.
	Host string `json:"host"`
	Tier string `json:"tier"`
	// Unit is the systemd unit; empty if there is none.
	Unit string `json:"unit,omitempty"`
	// Identifier is what the program calls itself.
	Identifier string `json:"identifier,omitempty"`
	PID        int    `json:"pid,omitempty"`
	// Priority is from 0, an emergency, to 7, for debugging (syslog(3)); nil if
	// the program has not said it.
	Priority *int `json:"priority,omitempty"`
	// Message may have several lines, and whatever bytes the program has written.
	Message string `json:"message"`

	// cursor is the journal's own mark for the entry.
	cursor string
}

// field is a field of an entry in JSON: text, or an array of bytes where it is
// no UTF-8, or an array of such where it occurs several times, or null where it
// is larger than journalctl likes (systemd.io, Journal Export Formats).
type field string

func (f *field) UnmarshalJSON(text []byte) error {
	var s string
	if json.Unmarshal(text, &s) == nil {
		*f = field(s)
		return nil
	}
	var numbers []int
	if json.Unmarshal(text, &numbers) == nil {
		b := make([]byte, len(numbers))
		for i, n := range numbers {
			if n < 0 || n > 255 {
				return errors.New("a field is neither text nor bytes")
			}
			b[i] = byte(n)
		}
		*f = field(b)
		return nil
	}
	var several []field
	if err := json.Unmarshal(text, &several); err != nil {
		return errors.New("a field is neither text nor bytes")
	}
	parts := make([]string, len(several))
	for i, part := range several {
		parts[i] = string(part)
	}
	*f = field(strings.Join(parts, "\n"))
	return nil
}

// parse reads one line of journalctl --output=json.
func parse(line []byte) (Entry, error) {
	var raw struct {
		Cursor     field `json:"__CURSOR"`
		Time       field `json:"__REALTIME_TIMESTAMP"`
		Message    field `json:"MESSAGE"`
		Priority   field `json:"PRIORITY"`
		Identifier field `json:"SYSLOG_IDENTIFIER"`
		Command    field `json:"_COMM"`
		Unit       field `json:"_SYSTEMD_UNIT"`
		About      field `json:"UNIT"`
		PID        field `json:"_PID"`
		SyslogPID  field `json:"SYSLOG_PID"`
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return Entry{}, err
	}
	microseconds, err := strconv.ParseInt(string(raw.Time), 10, 64)
	if err != nil {
		return Entry{}, errors.New("an entry has no time")
	}
	e := Entry{
		Time: time.UnixMicro(microseconds).UTC(), Unit: string(raw.Unit), Identifier: string(raw.Identifier),
		Message: strings.TrimRight(string(raw.Message), "\n"), cursor: string(raw.Cursor),
	}
	if raw.About != "" {
		e.Unit = string(raw.About) // systemd's own words about a unit
	}
	if e.Identifier == "" {
		e.Identifier = string(raw.Command)
	}
	for _, pid := range []field{raw.SyslogPID, raw.PID} {
		if n, err := strconv.Atoi(string(pid)); err == nil {
			e.PID = n
		}
	}
	if n, err := strconv.Atoi(string(raw.Priority)); err == nil && n >= 0 && n <= 7 {
		e.Priority = &n
	}
	return e, nil
}

// sequence is the entry's number in the journal that wrote it, and which one
// that was. It is the order in which a host has heard of things.
func (e Entry) sequence() (which string, number uint64, ok bool) {
	for part := range strings.SplitSeq(e.cursor, ";") {
		switch key, value, _ := strings.Cut(part, "="); key {
		case "s":
			which = value
		case "i":
			n, err := strconv.ParseUint(value, 16, 64)
			number, ok = n, err == nil
		}
	}
	return which, number, ok && which != ""
}
