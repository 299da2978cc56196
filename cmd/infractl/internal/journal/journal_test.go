package journal

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet/fleettest"
)

func linesOf(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func TestRecordedEntriesAreRead(t *testing.T) {
	var got []string
	for _, line := range linesOf(t, "journal.json") {
		e, err := parse([]byte(line))
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if _, _, ok := e.sequence(); !ok {
			t.Errorf("no sequence: %s", line)
		}
		got = append(got, fmt.Sprintf("%s %s %s[%d] %d %q", e.Time.Format("15:04:05.000000"), e.Unit, e.Identifier, e.PID, *e.Priority, e.Message))
	}
	want := []string{
		`03:27:58.533820 haproxy.service haproxy[1637] 6 "198.19.255.1:44830 [24/Nov/2026:03:27:58.468] public web/web-1 0/0/1/63/64 200 369 - - ---- 1/1/0/0/0 0/0 \"GET /healthz HTTP/1.1\""`,
		`03:28:00.594413 haproxy.service haproxy[1637] 6 "198.19.255.1:44844 [24/Nov/2026:03:28:00.529] public web/web-2 0/0/0/45/45 200 369 - - ---- 1/1/0/0/0 0/0 \"GET /healthz HTTP/1.1\""`,
		`03:28:02.700618 haproxy.service haproxy[1637] 6 "198.19.255.1:36632 [24/Nov/2026:03:28:02.550] public web/web-1 0/0/0/149/149 200 369 - - ---- 1/1/0/0/0 0/0 \"GET /healthz HTTP/1.1\""`,
		`03:19:23.222263 keepalived.service Keepalived_vrrp[1799] 6 "(vip) Entering BACKUP STATE"`,
		`03:19:23.867384 keepalived.service Keepalived_vrrp[1799] 6 "(vip) Entering MASTER STATE"`,
		`03:19:23.867551 infractl-vip.service vip[1780] 6 "this load balancer is the master"`,
		`03:19:24.108094 infractl-vip.service vip[1780] 6 "claimed 198.18.0.76 for server 10000781: accepted after 20 ms, done after 240 ms"`,
		`03:46:10.136362 session-c36.scope bin[2370] 3 "binary \x01\xff \x1b[31mred"`,
		`03:46:10.155685 session-c36.scope multi[2378] 4 "first line\nsecond line"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestFieldsOfAllKindsAreRead(t *testing.T) {
	for _, c := range []struct{ message, want string }{
		{`"text"`, "text"},
		{`[104,105,255]`, "hi\xff"},
		{`null`, ""},
		{`["one",[116,119,111]]`, "one\ntwo"},
		{`"ends with newlines\n\n"`, "ends with newlines"},
		{`[]`, ""},
	} {
		e, err := parse([]byte(`{"__REALTIME_TIMESTAMP":"1","MESSAGE":` + c.message + `}`))
		if err != nil || e.Message != c.want || e.Priority != nil || e.PID != 0 {
			t.Errorf("%s: %+v, %v", c.message, e, err)
		}
	}
	for _, bad := range []string{``, `{}`, `{"__REALTIME_TIMESTAMP":"x"}`, `{"__REALTIME_TIMESTAMP":"1","MESSAGE":{}}`, `{"__REALTIME_TIMESTAMP":"1","MESSAGE":[256]}`, `[1]`, `-- No entries --`} {
		if e, err := parse([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, e)
		}
	}
	e, err := parse([]byte(`{"__REALTIME_TIMESTAMP":"1","_COMM":"systemd","_SYSTEMD_UNIT":"init.scope","UNIT":"nginx.service","PRIORITY":"9"}`))
	if err != nil || e.Unit != "nginx.service" || e.Identifier != "systemd" || e.Priority != nil {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestLinesOfDaemonsFilesHaveTheirOwnTimes(t *testing.T) {
	for _, line := range linesOf(t, "access.log") {
		at, rest, _, ok := accessLog.parse(line)
		if !ok || at.Year() != 2026 || !strings.HasPrefix(rest, `198.19.255.1 "`) || strings.Contains(rest, "[") {
			t.Errorf("%v %q", at, rest)
		}
	}
	var got []string
	for _, line := range linesOf(t, "postgresql.log") {
		at, rest, pid, ok := databaseLog.parse(line)
		got = append(got, fmt.Sprintf("%v %s %d %q", ok, at.Format("15:04:05.000"), pid, rest))
	}
	want := []string{
		`true 03:17:10.703 2735 "LOG:  starting PostgreSQL 17.12 (Debian 17.12-0+deb13u1) on x86_64-pc-linux-gnu, compiled by gcc (Debian 14.2.0-19) 14.2.0, 64-bit"`,
		`true 03:46:11.973 4715 "postgres@postgres [local] ERROR:  division by zero"`,
		`true 03:46:11.973 4715 "postgres@postgres [local] STATEMENT:  select 1/0"`,
		`true 03:46:12.115 4718 "postgres@postgres [local] ERROR:  division by zero"`,
		`true 03:46:12.115 4718 "postgres@postgres [local] STATEMENT:  select"`,
		`false 00:00:00.000 0 "\t 1/0"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestFilesBelongToUnits(t *testing.T) {
	for unit, want := range map[string]bool{"nginx": true, "nginx.service": true, "ng*": true, "*": true, "haproxy": false, "[": false} {
		if accessLog.of(unit) != want {
			t.Errorf("%s: %v", unit, !want)
		}
	}
	for unit, want := range map[string]bool{"postgresql": true, "postgresql@17-main": true, "postgresql@*": true, "postgres": false} {
		if databaseLog.of(unit) != want {
			t.Errorf("%s: %v", unit, !want)
		}
	}
}

func TestALineThatIsTooLongIsLeftOut(t *testing.T) {
	r := bufio.NewReaderSize(strings.NewReader("one\n"+strings.Repeat("x", lineLimit+1)+"\ntwo\ncut off"), 4096)
	var got []string
	for {
		line, err := readLine(r)
		if err != nil {
			break
		}
		got = append(got, string(line))
	}
	if !slices.Equal(got, []string{"one", "", "two"}) {
		t.Errorf("%d lines: %.100q", len(got), got)
	}
}

// fakeJournal is journalctl on a host in this process: entries are lines of the
// file journal.
const fakeJournal = `journalctl() (
	lines= after= follow= pattern=.
	for word; do
		case $word in
		--output=export) tail -n 1 journal | sed 's/.*"__CURSOR":"\([^"]*\)".*/__CURSOR=\1/'; exit ;;
		--lines=*) lines=${word#*=} ;;
		--after-cursor=*) after=${word#*=} ;;
		--follow) follow=yes ;;
		--grep=*) pattern=${word#*=} ;;
		esac
	done
	seen=$(grep -nF "\"${after:-none}\"" journal | cut -d : -f 1)
	if [ -n "$follow" ]; then
		# Following begins with the boot.
		boot=$(cat boot 2>/dev/null)
		[ "${seen:-0}" -ge "${boot:-0}" ] || seen=$boot
		tail -n "+$((seen + 1))" -F journal 2>/dev/null | grep --line-buffered -Ee "$pattern"
	elif [ -n "$after" ]; then
		tail -n "+$((seen + 1))" journal | grep -Ee "$pattern"
	elif [ "$pattern" != . ] && [ -n "$lines" ]; then
		grep -Ee "$pattern" journal | tail -n "$lines" | tac
	else
		grep -Ee "$pattern" journal | tail -n "${lines:-1000000}"
	fi
)
`

// machine is a host with a journal and an access log.
type machine struct {
	*fleettest.Host
	t *testing.T
	n int
}

func machines(t *testing.T, names ...string) (*fleet.Fleet, map[string]*machine) {
	t.Helper()
	f, hosts := fleettest.New(t, names...)
	out := map[string]*machine{}
	for name, h := range hosts {
		m := &machine{Host: h, t: t}
		if err := os.MkdirAll(filepath.Join(h.Files, "nginx"), 0o755); err != nil {
			t.Fatal(err)
		}
		m.add("journal", "")
		m.add("nginx/access.log", "")
		out[name] = m
	}
	return f, out
}

func (m *machine) add(file, text string) {
	m.t.Helper()
	f, err := os.OpenFile(filepath.Join(m.Files, file), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		m.t.Error(err)
	}
}

// log adds an entry to the journal.
func (m *machine) log(at time.Time, message string) {
	m.n++
	text, err := json.Marshal(map[string]string{
		"__CURSOR": fmt.Sprintf("s=%s;i=%x", m.Name, m.n), "__REALTIME_TIMESTAMP": fmt.Sprint(at.UnixMicro()), "MESSAGE": message,
	})
	if err != nil {
		m.t.Error(err)
	}
	m.add("journal", string(text)+"\n")
}

// visit adds a line to the access log.
func (m *machine) visit(at time.Time, path string) {
	m.add("nginx/access.log", fmt.Sprintf("192.0.2.1 [%s] \"GET %s HTTP/1.1\" 200 1 0.001\n", at.Local().Format(time.RFC3339), path))
}

// reader collects what is read.
type reader struct {
	mu       sync.Mutex
	messages []string
	told     []string
}

func (r *reader) sink() Sink {
	note := func(to *[]string, text string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		*to = append(*to, text)
	}
	return Sink{
		Entry:   func(e Entry) error { note(&r.messages, e.Host+" "+e.Message); return nil },
		Trouble: func(host string, _ error) { note(&r.told, host+" silent") },
		Again:   func(host string) { note(&r.told, host+" again") },
	}
}

func (r *reader) seen() ([]string, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.messages), slices.Clone(r.told)
}

// await waits until that many entries were read.
func (r *reader) await(t *testing.T, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		messages, told := r.seen()
		if len(messages) >= n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("only %q; %q", messages, told)
		}
	}
}

// faked are the sources of a query on such machines.
func faked(f *fleet.Fleet, q Query) []*source {
	all := sources(f.Hosts, f.Connect, q)
	for _, s := range all {
		s.preamble, s.folder = fakeJournal, "."
	}
	return all
}

func TestLogsAreMergedByTime(t *testing.T) {
	f, m := machines(t, "lb-1", "lb-2", "web-1")
	base := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return base.Add(time.Duration(s * float64(time.Second))) }
	for i := range 4 {
		m["lb-1"].log(at(float64(i)+0.1), fmt.Sprint("a", i))
		m["lb-2"].log(at(float64(i)+0.2), fmt.Sprint("b", i))
		m["web-1"].visit(at(float64(i)), fmt.Sprint("/", i))
	}
	m["web-1"].log(at(2.15), "c")
	visit := func(n int) string { return fmt.Sprintf(`web-1 192.0.2.1 "GET /%d HTTP/1.1" 200 1 0.001`, n) }
	all := []string{
		visit(0), "lb-1 a0", "lb-2 b0", visit(1), "lb-1 a1", "lb-2 b1", visit(2), "lb-1 a2", "web-1 c", "lb-2 b2", visit(3), "lb-1 a3", "lb-2 b3",
	}
	for _, c := range []struct {
		name  string
		query Query
		want  []string
	}{
		{"everything", Query{Lines: -1}, all},
		{"the latest", Query{Lines: 5}, all[8:]},
		{"none", Query{Lines: 0}, nil},
		{"a pattern", Query{Lines: -1, Pattern: "[ab]2|/2"}, []string{visit(2), "lb-1 a2", "lb-2 b2"}},
		{"the latest with a pattern, which come backwards", Query{Lines: 3, Pattern: "[ab]"}, []string{"lb-2 b2", "lb-1 a3", "lb-2 b3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r reader
			silent, err := read(t.Context(), faked(f, c.query), c.query, r.sink())
			messages, told := r.seen()
			if err != nil || len(silent) > 0 || len(told) > 0 || !slices.Equal(messages, c.want) {
				t.Errorf("%v, %v, %q\ngot  %q\nwant %q", silent, err, told, messages, c.want)
			}
		})
	}
	t.Run("since a time", func(t *testing.T) {
		// The fake journal knows no times.
		q := Query{Lines: -1, Since: at(2)}
		var r reader
		if _, err := read(t.Context(), faked(f, q)[2:], q, r.sink()); err != nil {
			t.Fatal(err)
		}
		if messages, _ := r.seen(); !slices.Equal(messages, []string{visit(2), "web-1 c", visit(3)}) {
			t.Errorf("%q", messages)
		}
	})
	t.Run("without a dead host", func(t *testing.T) {
		m["lb-1"].Stop()
		q := Query{Lines: 2}
		var r reader
		silent, err := read(t.Context(), faked(f, q), q, r.sink())
		messages, told := r.seen()
		if err != nil || !slices.Equal(silent, []string{"lb-1"}) || !slices.Equal(told, []string{"lb-1 silent"}) || !slices.Equal(messages, []string{visit(3), "lb-2 b3"}) {
			t.Errorf("%v, %v, %q, %q", silent, err, told, messages)
		}
	})
}

func TestFollowedLogsAreInOrderAlthoughTheyArriveOutOfOrder(t *testing.T) {
	f, m := machines(t, "lb-1", "lb-2")
	now := time.Now()
	for i := range 5 {
		m["lb-1"].log(now.Add(time.Duration(i-10)*time.Second), fmt.Sprint("old a", i))
	}
	m["lb-2"].log(now.Add(-7500*time.Millisecond), "old b")
	q := Query{Lines: 3, Follow: true}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var r reader
	ended := make(chan []string, 1)
	go func() {
		silent, _ := read(ctx, faked(f, q), q, r.sink())
		ended <- silent
	}()
	r.await(t, 3)
	// The later entry is there first.
	now = time.Now()
	m["lb-2"].log(now, "second")
	time.Sleep(100 * time.Millisecond)
	m["lb-1"].log(now.Add(-50*time.Millisecond), "first")
	r.await(t, 5)
	cancel()
	want := []string{"lb-2 old b", "lb-1 old a3", "lb-1 old a4", "lb-1 first", "lb-2 second"}
	if messages, _ := r.seen(); !slices.Equal(messages, want) {
		t.Errorf("%q", messages)
	}
	if silent := <-ended; len(silent) > 0 {
		t.Errorf("%q", silent)
	}
}

func TestNothingIsLostOrRepeatedWhenAHostWasAway(t *testing.T) {
	f, m := machines(t, "web-1", "lb-1")
	web := m["web-1"]
	q := Query{Lines: 10, Follow: true}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var r reader
	ended := make(chan []string, 1)
	go func() {
		silent, _ := read(ctx, faked(f, q), q, r.sink())
		ended <- silent
	}()
	// What is written is the same text again and again: only the cursors and
	// the number of lines tell it apart.
	write := func(n int) {
		for range n {
			web.log(time.Now(), "same")
			web.visit(time.Now(), "/same")
		}
	}
	write(3)
	r.await(t, 6)
	write(3)
	r.await(t, 12)
	web.Stop()
	write(3)
	// Its access log is another file when it is back.
	if err := os.Rename(filepath.Join(web.Files, "nginx/access.log"), filepath.Join(web.Files, "nginx/access.log.1")); err != nil {
		t.Fatal(err)
	}
	write(3)
	time.Sleep(time.Second)
	web.add("boot", fmt.Sprint(web.n))
	web.Start()
	r.await(t, 24)
	write(3)
	r.await(t, 30)
	time.Sleep(500 * time.Millisecond)
	messages, told := r.seen()
	same := 0
	for _, message := range messages {
		if message == "web-1 same" {
			same++
		}
	}
	if same != 15 || len(messages) != 30 {
		t.Errorf("%d of the journal, %d in all", same, len(messages))
	}
	if !slices.Equal(told, []string{"web-1 silent", "web-1 again"}) {
		t.Errorf("%q", told)
	}
	m["lb-1"].Stop()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, told = r.seen(); len(told) == 3 {
			break
		}
	}
	cancel()
	if silent := <-ended; !slices.Equal(silent, []string{"lb-1"}) {
		t.Errorf("%q; %q", silent, told)
	}
}

func TestAHostThatIsDeadFromTheBeginningHoldsTheOthersUpForAMomentOnly(t *testing.T) {
	f, m := machines(t, "lb-1", "lb-2")
	m["lb-1"].log(time.Now(), "here")
	m["lb-2"].Silence()
	q := Query{Lines: 10, Follow: true}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var r reader
	go func() { _, _ = read(ctx, faked(f, q), q, r.sink()) }()
	began := time.Now()
	r.await(t, 1)
	if took := time.Since(began); took > patience+2*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestWhatThePatternOfAFileFindsMayBeFarBack(t *testing.T) {
	f, m := machines(t, "web-1")
	base := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for i := range 50 {
		m["web-1"].visit(base.Add(time.Duration(i)*time.Second), fmt.Sprintf("/page%d", i))
	}
	if err := os.Rename(filepath.Join(m["web-1"].Files, "nginx/access.log"), filepath.Join(m["web-1"].Files, "nginx/access.log.1")); err != nil {
		t.Fatal(err)
	}
	m["web-1"].visit(base.Add(time.Minute), "/page7-again")
	q := Query{Lines: 2, Pattern: "page7[^0-9]", Units: []string{"nginx"}}
	var r reader
	if _, err := read(t.Context(), faked(f, q), q, r.sink()); err != nil {
		t.Fatal(err)
	}
	want := []string{`web-1 192.0.2.1 "GET /page7 HTTP/1.1" 200 1 0.001`, `web-1 192.0.2.1 "GET /page7-again HTTP/1.1" 200 1 0.001`}
	if messages, _ := r.seen(); !slices.Equal(messages, want) {
		t.Errorf("%q", messages)
	}
}

func TestAJournalThatCannotBeReadIsAnError(t *testing.T) {
	f, _ := machines(t, "lb-1")
	q := Query{Lines: 2}
	all := faked(f, q)
	all[0].preamble = "journalctl() { echo 'Failed to open journal' >&2; return 4; }\n"
	var said error
	silent, err := read(t.Context(), all, q, Sink{Entry: func(Entry) error { return nil }, Trouble: func(_ string, err error) { said = err }})
	if err != nil || !slices.Equal(silent, []string{"lb-1"}) || said == nil || !strings.Contains(said.Error(), "lb-1: read its log: exit status 4: Failed to open journal") {
		t.Errorf("%v, %v, %v", silent, err, said)
	}
}

func TestASinkThatFailsEndsTheReading(t *testing.T) {
	f, m := machines(t, "lb-1")
	for range 1000 {
		m["lb-1"].log(time.Now(), "x")
	}
	full := errors.New("no space left")
	for _, q := range []Query{{Lines: -1}, {Lines: 10, Follow: true}} {
		_, err := read(t.Context(), faked(f, q), q, Sink{Entry: func(Entry) error { return full }, Trouble: func(string, error) {}, Again: func(string) {}})
		if !errors.Is(err, full) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}
