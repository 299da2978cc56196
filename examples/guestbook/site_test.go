package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/guestbook/assets"
	"example.com/guestbook/postgrestest"
	"example.com/guestbook/store"
)

// book is a store in memory.
type book struct {
	mu     sync.Mutex
	drafts map[string]store.Draft
	list   []store.Entry
	err    error
	hangs  bool
}

func (b *book) Add(_ context.Context, draft store.Draft) (store.Entry, error) {
	draft, err := draft.Clean()
	if err = errors.Join(err, b.err); err != nil {
		return store.Entry{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.drafts == nil {
		b.drafts = map[string]store.Draft{}
	}
	if _, again := b.drafts[draft.Token]; !again {
		b.drafts[draft.Token] = draft
		entry := store.Entry{ID: int64(len(b.list) + 1), Name: draft.Name, Message: draft.Message, WrittenAt: time.Unix(0, 0)}
		b.list = append([]store.Entry{entry}, b.list...)
	}
	return b.list[0], nil
}

func (b *book) List(_ context.Context, before int64, limit int) ([]store.Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []store.Entry
	for _, entry := range b.list {
		if len(list) < limit && (before == 0 || entry.ID < before) {
			list = append(list, entry)
		}
	}
	return list, b.err
}

func (b *book) Check(ctx context.Context) error {
	if b.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return b.err
}

// logbook is a log that may be read while it is written.
type logbook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// serve returns the URL of a site on these entries, and its log.
func serve(t *testing.T, entries entries) (string, *logbook) {
	t.Helper()
	log := &logbook{}
	server := httptest.NewServer(newSite(slog.New(slog.NewJSONHandler(log, nil)), entries, "app-1").handler())
	t.Cleanup(server.Close)
	return server.URL, log
}

// ask sends a request without following redirects.
func ask(t *testing.T, method, target string, form url.Values, header ...string) (*http.Response, string) {
	t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	request, err := http.NewRequestWithContext(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

func TestPageShowsEntriesEscapedAndNamesItsHost(t *testing.T) {
	site, _ := serve(t, &book{list: []store.Entry{{ID: 7, Name: "<i>Eve</i>", Message: "<script>alert(1)</script>"}}})
	response, page := ask(t, "GET", site+"/", nil)
	if response.StatusCode != 200 || response.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("status %d, Cache-Control %q", response.StatusCode, response.Header.Get("Cache-Control"))
	}
	if strings.Contains(page, "<script>alert") || !strings.Contains(page, "&lt;i&gt;Eve") {
		t.Errorf("text is not escaped:\n%s", page)
	}
	if !strings.Contains(page, "Served by app-1.") {
		t.Error("the host is not named")
	}
}

func TestEveryAssetInAPageIsServedAndMayBeKeptForever(t *testing.T) {
	site, _ := serve(t, &book{})
	_, page := ask(t, "GET", site+"/", nil)
	paths := regexp.MustCompile(`(?:href|src)="(/assets/[^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(paths) < 3 {
		t.Fatalf("only %d assets in the page", len(paths))
	}
	for _, match := range paths {
		response, content := ask(t, "GET", site+match[1], nil)
		if response.StatusCode != 200 || content == "" {
			t.Errorf("%s: status %d, %d bytes", match[1], response.StatusCode, len(content))
		}
		if got := response.Header.Get("Cache-Control"); got != assets.CacheControl {
			t.Errorf("%s: Cache-Control %q", match[1], got)
		}
	}
	if response, _ := ask(t, "GET", site+"/assets/style.000000000000.css", nil); response.StatusCode != 404 || strings.Contains(response.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("an asset that does not exist: status %d, %q", response.StatusCode, response.Header.Get("Cache-Control"))
	}
}

func TestAnEntryIsWrittenAndARepeatedFormIsNotASecondOne(t *testing.T) {
	entries := &book{}
	site, _ := serve(t, entries)
	_, page := ask(t, "GET", site+"/", nil)
	token := regexp.MustCompile(`name="token" value="([^"]+)"`).FindStringSubmatch(page)
	if token == nil {
		t.Fatal("the form has no token")
	}
	form := url.Values{"token": {token[1]}, "name": {"Ada"}, "message": {"Hello"}}
	for range 2 {
		response, _ := ask(t, "POST", site+"/entries", form, "Origin", site)
		if response.StatusCode != http.StatusSeeOther || response.Header.Get("Location") != "/" {
			t.Fatalf("status %d, Location %q", response.StatusCode, response.Header.Get("Location"))
		}
	}
	if len(entries.list) != 1 {
		t.Errorf("%d entries, want one", len(entries.list))
	}
}

func TestInvalidInputComesBackInTheFormWithWords(t *testing.T) {
	entries := &book{}
	site, _ := serve(t, entries)
	response, page := ask(t, "POST", site+"/entries",
		url.Values{"token": {"abc"}, "name": {"Ada"}, "message": {strings.Repeat("x", store.MaxMessage+1)}})
	if response.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("status %d", response.StatusCode)
	}
	for _, want := range []string{"The message is longer than 1000 characters.", `value="Ada"`, `value="abc"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if len(entries.list) != 0 {
		t.Error("an invalid entry was written")
	}
}

func TestFormsFromOtherSitesAreRefused(t *testing.T) {
	entries := &book{}
	site, _ := serve(t, entries)
	form := url.Values{"name": {"Eve"}, "message": {"forged"}}
	for _, header := range [][]string{
		{"Origin", "http://elsewhere.example"},
		{"Sec-Fetch-Site", "cross-site"},
		{"Origin", "null"},
	} {
		if response, _ := ask(t, "POST", site+"/entries", form, header...); response.StatusCode != http.StatusForbidden {
			t.Errorf("%v: status %d", header, response.StatusCode)
		}
	}
	if len(entries.list) != 0 {
		t.Error("a forged entry was written")
	}
}

func TestAHugeBodyIsRefused(t *testing.T) {
	site, _ := serve(t, &book{})
	response, _ := ask(t, "POST", site+"/entries", url.Values{"message": {strings.Repeat("x", bodyMax+1)}})
	if response.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d", response.StatusCode)
	}
}

func TestOlderEntriesAreReachable(t *testing.T) {
	entries := &book{}
	for i := int64(pageSize + 5); i > 0; i-- {
		entries.list = append(entries.list, store.Entry{ID: i, Name: "n", Message: "m"})
	}
	site, _ := serve(t, entries)
	_, page := ask(t, "GET", site+"/", nil)
	if !strings.Contains(page, `href="/?before=6"`) {
		t.Fatal("the first page does not lead to older entries")
	}
	_, page = ask(t, "GET", site+"/?before=6", nil)
	if got := strings.Count(page, "<article"); got != 5 {
		t.Errorf("the second page has %d entries, want 5", got)
	}
	if strings.Contains(page, "Older entries") {
		t.Error("the last page leads further")
	}
	if response, _ := ask(t, "GET", site+"/?before=x", nil); response.StatusCode != http.StatusBadRequest {
		t.Errorf("a wrong place: status %d", response.StatusCode)
	}
}

func TestTheAPIAnswersInJSON(t *testing.T) {
	entries := &book{}
	site, _ := serve(t, entries)
	_, text := ask(t, "GET", site+"/api/entries", nil)
	if want := `{"entries":[],"host":"app-1"}` + "\n"; text != want {
		t.Errorf("an empty book is %s, want %s", text, want)
	}
	ask(t, "POST", site+"/entries", url.Values{"name": {"Ada"}, "message": {"Hello"}})
	response, text := ask(t, "GET", site+"/api/entries?limit=1", nil)
	var answer struct{ Entries []store.Entry }
	if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer.Entries) != 1 || answer.Entries[0].Name != "Ada" {
		t.Errorf("%v in %s", err, text)
	}
	if got := response.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	for _, query := range []string{"limit=0", "limit=101", "limit=x", "before=-1"} {
		if response, text := ask(t, "GET", site+"/api/entries?"+query, nil); response.StatusCode != 400 || !strings.Contains(text, `"error"`) {
			t.Errorf("%s: status %d, %s", query, response.StatusCode, text)
		}
	}
}

func TestAboutMayBeCachedByAnybody(t *testing.T) {
	site, _ := serve(t, &book{})
	response, _ := ask(t, "GET", site+"/about", nil)
	if got := response.Header.Get("Cache-Control"); got != "public, max-age=30" {
		t.Errorf("Cache-Control %q", got)
	}
}

func TestADatabaseThatIsDownMakesUnhealthyAndAFriendlyPage(t *testing.T) {
	entries := &book{err: errors.New("connection refused")}
	site, log := serve(t, entries)
	for _, path := range []string{"/healthz", "/", "/api/entries"} {
		response, text := ask(t, "GET", site+path, nil)
		if response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s: status %d", path, response.StatusCode)
		}
		if strings.Contains(text, "refused") {
			t.Errorf("%s tells visitors about the inside: %s", path, text)
		}
	}
	if !strings.Contains(log.String(), "connection refused") {
		t.Error("the log does not say why")
	}
	entries.err = nil
	if response, _ := ask(t, "GET", site+"/healthz", nil); response.StatusCode != 200 {
		t.Errorf("healthy again, but status %d", response.StatusCode)
	}
}

func TestADatabaseThatHangsIsUnhealthyInTime(t *testing.T) {
	site, _ := serve(t, &book{hangs: true})
	started := time.Now()
	response, _ := ask(t, "GET", site+"/healthz", nil)
	if took := time.Since(started); response.StatusCode != 503 || took > 2*healthTime {
		t.Errorf("status %d after %v", response.StatusCode, took)
	}
}

func TestNothingIsHere(t *testing.T) {
	site, _ := serve(t, &book{})
	if response, page := ask(t, "GET", site+"/nowhere", nil); response.StatusCode != 404 || !strings.Contains(page, "Nothing is here") {
		t.Errorf("status %d", response.StatusCode)
	}
}

func TestRequestsAreLoggedButGoodHealthChecksAreNot(t *testing.T) {
	site, log := serve(t, &book{})
	ask(t, "GET", site+"/healthz", nil)
	ask(t, "GET", site+"/?before=3", nil, "X-Request-Id", "r-42")
	// The line is written after the answer was sent.
	deadline := time.Now().Add(2 * time.Second)
	for !strings.Contains(log.String(), "r-42") && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if !strings.Contains(log.String(), `"request_id":"r-42"`) || strings.Contains(log.String(), "healthz") {
		t.Errorf("the log is:\n%s", log)
	}
}

func TestProcessServesFromPostgreSQLAndFinishesOnSIGTERM(t *testing.T) {
	server, err := postgrestest.Start()
	if errors.Is(err, postgrestest.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}()
	environment := map[string]string{
		"LISTEN": freeAddress(t), "DATABASE_URL": server.Database(t), "INFRACTL_HOST": "app-2",
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, slog.New(slog.NewJSONHandler(io.Discard, nil)), func(name string) string { return environment[name] })
	}()
	site := "http://" + environment["LISTEN"]
	deadline := time.Now().Add(15 * time.Second)
	for {
		response, err := http.Get(site + "/healthz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == 200 {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("not healthy within 15 s: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if response, _ := ask(t, "POST", site+"/entries", url.Values{"name": {"Ada"}, "message": {"From the test"}}); response.StatusCode != http.StatusSeeOther {
		t.Errorf("writing: status %d", response.StatusCode)
	}
	if _, page := ask(t, "GET", site+"/", nil); !strings.Contains(page, "From the test") {
		t.Error("what was written is not read")
	}
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the process did not end")
	}
}

func TestMissingOrWrongSettingsAreNamed(t *testing.T) {
	quiet := slog.New(slog.NewJSONHandler(io.Discard, nil))
	for name, environment := range map[string]map[string]string{
		"DATABASE_URL": {},
		"LISTEN":       {"LISTEN": "nonsense", "DATABASE_URL": "postgres://localhost/x"},
	} {
		err := run(t.Context(), quiet, func(key string) string { return environment[key] })
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// freeAddress returns an address on this computer that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
