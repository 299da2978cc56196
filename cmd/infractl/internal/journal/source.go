package journal

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/stacks"
)

//go:embed logs.sh
var script string

// logFolder is where daemons keep their own files.
const logFolder = "/var/log"

// Query says what of the logs to read.
type Query struct {
	// Units are names of systemd units, with wildcards; empty means the units
	// that serve, and what they write to files of their own.
	Units []string
	// Since is the time of the oldest entry; zero means any.
	Since time.Time
	// Lines is how many entries to read at most, of those that are there;
	// negative means all.
	Lines int
	// Pattern is what entries must have, a regular expression that Go and PCRE
	// both understand; empty means anything.
	Pattern string
	// Follow goes on with what is written from now on.
	Follow bool
}

// Connect logs in to a host.
type Connect func(context.Context, fleet.Host) (*provision.Conn, error)

// serving are the units that serve, by tier. Application units are named after
// the application.
var serving = map[string][]string{
	stacks.TierLB:  {"haproxy.service", "keepalived.service", "infractl-vip.service", "infractl-lb-health.service"},
	stacks.TierWeb: {"nginx.service"},
	stacks.TierApp: {"app-*.service", "infractl-gate.service"},
	stacks.TierDB:  {"postgresql*.service"},
}

// files are what daemons write beside the journal, by tier.
var files = map[string]*format{
	stacks.TierWeb: &accessLog,
	stacks.TierDB:  &databaseLog,
}

const (
	// connectLimit is how long a host may take to let in.
	connectLimit = 5 * time.Second
	// pauseMin and pauseMax are between two tries to reach a host again.
	pauseMin, pauseMax = 500 * time.Millisecond, 5 * time.Second
	// lineLimit is the length in bytes from which a line is left out.
	lineLimit = 4 << 20
	// overlap is how much of a file is read again after a broken connection:
	// nginx writes a line up to a second after its time.
	overlap = 2 * time.Second
	// remembered is how many entries are known again when they are read twice.
	remembered = 8192
)

// source is one log on one host.
type source struct {
	host    fleet.Host
	format  *format // nil for the journal
	query   Query
	connect Connect
	folder  string
	// preamble goes before the script, for tests.
	preamble string

	// What follows belongs to the goroutine that reads.
	cursor string    // from where the journal goes on
	last   time.Time // of the last line of a file
	known  recent
	// again are lines of a file that are expected once more after a broken
	// connection, and how often.
	again map[string]int
	live  bool
	// began is when the source was read first.
	began time.Time
}

// sources are the logs of hosts that a query asks for.
func sources(hosts []fleet.Host, connect Connect, q Query) []*source {
	var out []*source
	for _, h := range hosts {
		own := q
		if len(own.Units) == 0 {
			own.Units = serving[h.Tier]
		}
		out = append(out, &source{host: h, query: own, connect: connect, folder: logFolder})
		if f := files[h.Tier]; f != nil && (len(q.Units) == 0 || slices.ContainsFunc(q.Units, f.of)) {
			out = append(out, &source{host: h, format: f, query: q, connect: connect, folder: logFolder})
		}
	}
	return out
}

// of says whether the file is that of a unit, whose name may have wildcards.
func (f *format) of(unit string) bool {
	name, _, _ := strings.Cut(strings.TrimSuffix(unit, ".service"), "@")
	ok, err := path.Match(name, f.daemon)
	return err == nil && ok
}

// arguments are those of logs.sh.
func (s *source) arguments() []string {
	q := s.query
	since, lines, follow := "", "", ""
	if !q.Since.IsZero() {
		since = strconv.FormatInt(q.Since.Unix(), 10)
	}
	if q.Lines >= 0 {
		lines = strconv.Itoa(q.Lines)
	}
	if q.Follow {
		follow = "follow"
	}
	if s.format == nil {
		return append([]string{"journal", s.cursor, since, lines, q.Pattern, follow}, q.Units...)
	}
	if again := s.last; s.live {
		if again.IsZero() {
			again = s.began
		}
		since = strconv.FormatInt(again.Add(-overlap).Unix(), 10)
	}
	if since == "" && lines == "" {
		since = "0"
	}
	return []string{"file", s.format.name, since, lines, q.Pattern, follow, s.folder}
}

// read reads the log once, until it ends or the connection does. It hands on
// what is new, and calls live when what follows has just been written.
func (s *source) read(ctx context.Context, emit func(Entry) error, live func()) error {
	if s.began.IsZero() {
		s.began = time.Now()
	}
	s.again = nil
	if s.live {
		s.again = maps.Clone(s.known.count)
	}
	dial, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	conn, err := s.connect(dial, s.host)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, conn.Close)()
	reader, writer := io.Pipe()
	var said tail
	ended := make(chan error, 1)
	go func() {
		words := append([]string{"sh", "-c", s.preamble + script, "sh"}, s.arguments()...)
		status, err := fleet.Exec(ctx, conn, fleet.Command{Words: words}, writer, &said)
		if err == nil && status != 0 {
			err = fmt.Errorf("%s: read its log: exit status %d: %s", s.host.Name, status, said.String())
		}
		writer.Close()
		ended <- err
	}()
	err = s.lines(bufio.NewReaderSize(reader, 64<<10), emit, func() {
		s.live = true
		live()
	})
	if err != nil {
		reader.CloseWithError(err)
		conn.Close()
	}
	return errors.Join(err, <-ended)
}

// lines takes what logs.sh prints.
func (s *source) lines(from *bufio.Reader, emit func(Entry) error, live func()) error {
	backlog, isLive, end := -1, false, ""
	goLive := func() {
		if !isLive {
			isLive = true
			s.again = nil
			live()
		}
	}
	for {
		line, err := readLine(from)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		switch {
		case line == nil: // it was too long
		case bytes.HasPrefix(line, []byte("@cursor ")):
			end = string(line[len("@cursor "):])
		case bytes.Equal(line, []byte("@live")):
			// Everything before the end was read now.
			s.cursor = end
			goLive()
		case bytes.HasPrefix(line, []byte("@backlog ")):
			backlog, _ = strconv.Atoi(string(line[len("@backlog "):]))
		case s.format != nil:
			if err := s.fileLine(string(line), emit); err != nil {
				return err
			}
			backlog--
		default:
			if err := s.journalLine(line, isLive, emit); err != nil {
				return err
			}
		}
		if backlog == 0 {
			goLive()
		}
	}
}

func (s *source) journalLine(line []byte, isLive bool, emit func(Entry) error) error {
	e, err := parse(line)
	if err != nil {
		return nil // journalctl also prints what is no entry, such as a hint
	}
	if e.cursor != "" {
		if isLive {
			s.cursor = e.cursor
		}
		if s.known.has(e.cursor) {
			return nil
		}
		s.known.add(e.cursor)
	}
	e.Host, e.Tier = s.host.Name, s.host.Tier
	return emit(e)
}

func (s *source) fileLine(line string, emit func(Entry) error) error {
	at, message, pid, ok := s.format.parse(line)
	if !ok {
		at = s.last
	}
	if at.IsZero() || at.Before(s.query.Since) {
		return nil
	}
	s.last = at
	if s.again[line] > 0 {
		s.again[line]--
		return nil
	}
	s.known.add(line)
	return emit(Entry{
		Time: at, Host: s.host.Name, Tier: s.host.Tier, Unit: s.format.daemon + ".service", Identifier: s.format.identifier, PID: pid, Message: message,
	})
}

// readLine reads a line without its end. Of one that is too long nothing comes
// but nil. A line without an end was cut off and is none.
func readLine(from *bufio.Reader) ([]byte, error) {
	var line []byte
	tooLong := false
	for {
		part, err := from.ReadSlice('\n')
		tooLong = tooLong || len(line)+len(part) > lineLimit
		if !tooLong {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case err != nil:
			return nil, err
		case tooLong:
			return nil, nil
		default:
			return line[:len(line)-1], nil
		}
	}
}

// recent knows the last things that were added to it, and how many of each.
type recent struct {
	count map[string]int
	order []string
}

func (r *recent) has(key string) bool { return r.count[key] > 0 }

func (r *recent) add(key string) {
	if r.count == nil {
		r.count = map[string]int{}
	}
	r.count[key]++
	r.order = append(r.order, key)
	if len(r.order) > remembered {
		r.forget(r.order[0])
		r.order = r.order[1:]
	}
}

func (r *recent) forget(key string) {
	if r.count[key]--; r.count[key] <= 0 {
		delete(r.count, key)
	}
}

// tail keeps the end of what a program says.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if len(t.text) > 2048 {
		t.text = t.text[len(t.text)-1024:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}
