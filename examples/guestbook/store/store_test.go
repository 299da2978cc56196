package store

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/guestbook/postgrestest"
)

var (
	server    *postgrestest.Server
	serverErr error
)

func TestMain(m *testing.M) {
	server, serverErr = postgrestest.Start()
	code := m.Run()
	if server != nil {
		if err := server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// open returns a store on an empty database.
func open(t *testing.T) *Store {
	t.Helper()
	if errors.Is(serverErr, postgrestest.ErrMissing) {
		t.Skip(serverErr)
	}
	if serverErr != nil {
		t.Fatal(serverErr)
	}
	s, err := Open(server.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func migrated(t *testing.T) *Store {
	t.Helper()
	s := open(t)
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSeveralProcessesMigrateAtOnceAndOneDoesIt(t *testing.T) {
	s := open(t)
	const processes = 8
	applied := make([]int, processes)
	errs := make([]error, processes)
	var all sync.WaitGroup
	for i := range processes {
		all.Go(func() { applied[i], errs[i] = s.Migrate(t.Context()) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	var worked int
	for _, n := range applied {
		if n > 0 {
			worked++
		}
	}
	if worked != 1 {
		t.Errorf("migrations were applied by %d of %d, want exactly one: %v", worked, processes, applied)
	}
}

func TestNothingIsReadOrWrittenBeforeTheSchemaIsReady(t *testing.T) {
	s := open(t)
	if err := s.Check(t.Context()); !errors.Is(err, ErrNotReady) {
		t.Errorf("Check: %v", err)
	}
	if _, err := s.List(t.Context(), 0, 10); !errors.Is(err, ErrNotReady) {
		t.Errorf("List: %v", err)
	}
	if _, err := s.Add(t.Context(), Draft{"t", "n", "m"}); !errors.Is(err, ErrNotReady) {
		t.Errorf("Add: %v", err)
	}
}

func TestEntriesAreListedNewestFirstPageByPage(t *testing.T) {
	s := migrated(t)
	for i := range 5 {
		if _, err := s.Add(t.Context(), Draft{fmt.Sprint("token", i), "Ada", fmt.Sprint("message ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	var seen []string
	var before int64
	for {
		page, err := s.List(t.Context(), before, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, entry := range page {
			seen = append(seen, entry.Message)
			before = entry.ID
		}
	}
	want := "message 4,message 3,message 2,message 1,message 0"
	if got := strings.Join(seen, ","); got != want {
		t.Errorf("listed %s, want %s", got, want)
	}
}

func TestARepeatedWriteIsOneEntry(t *testing.T) {
	s := migrated(t)
	draft := Draft{"same token", "Ada", "once"}
	ids := make([]int64, 6)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			entry, err := s.Add(t.Context(), draft)
			if err != nil {
				t.Error(err)
			}
			ids[i] = entry.ID
		})
	}
	all.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("the same token wrote several entries: %v", ids)
		}
	}
	list, err := s.List(t.Context(), 0, 10)
	if err != nil || len(list) != 1 {
		t.Errorf("%d entries, %v; want one", len(list), err)
	}
}

func TestTextIsStoredAsWritten(t *testing.T) {
	s := migrated(t)
	message := "'); DROP TABLE entries; -- <b>&amp; ünï 漢字 🌍\nsecond line"
	if _, err := s.Add(t.Context(), Draft{"t", "O'Brien", message}); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	if list[0].Name != "O'Brien" || list[0].Message != message {
		t.Errorf("read %+v", list[0])
	}
}

func TestLongestAllowedTextFitsTheTable(t *testing.T) {
	s := migrated(t)
	draft := Draft{
		strings.Repeat("t", MaxToken), strings.Repeat("🌍", MaxName), strings.Repeat("漢", MaxMessage),
	}
	if _, err := s.Add(t.Context(), draft); err != nil {
		t.Error(err)
	}
}

func TestConnectionsComeBackAfterTheDatabaseWasDown(t *testing.T) {
	s := migrated(t)
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Down(); err != nil {
		t.Fatal(err)
	}
	err := s.Check(t.Context())
	if upErr := server.Up(); upErr != nil {
		t.Fatal(upErr)
	}
	if err == nil {
		t.Error("a database that is down was called healthy")
	}
	deadline := time.Now().Add(10 * time.Second)
	for s.Check(t.Context()) != nil {
		if time.Now().After(deadline) {
			t.Fatal("the store did not reconnect within 10 s")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestInvalidDraftsAreRefusedByField(t *testing.T) {
	for name, test := range map[string]struct {
		draft Draft
		field string
	}{
		"empty name":              {Draft{"t", " \t ", "m"}, "name"},
		"name too long":           {Draft{"t", strings.Repeat("ä", MaxName+1), "m"}, "name"},
		"line end in name":        {Draft{"t", "a\nb", "m"}, "name"},
		"empty message":           {Draft{"t", "n", "\r\n"}, "message"},
		"message too long":        {Draft{"t", "n", strings.Repeat("ä", MaxMessage+1)}, "message"},
		"zero byte in message":    {Draft{"t", "n", "a\x00b"}, "message"},
		"broken UTF-8 in message": {Draft{"t", "n", "a\xffb"}, "message"},
		"no token":                {Draft{"", "n", "m"}, "token"},
		"token too long":          {Draft{strings.Repeat("t", MaxToken+1), "n", "m"}, "token"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := test.draft.Clean()
			var invalid InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("got %v, want an InvalidError", err)
			}
			if _, ok := invalid[test.field]; !ok || len(invalid) != 1 {
				t.Errorf("complains about %v, want %s alone", invalid, test.field)
			}
		})
	}
}

func TestCleanNormalisesWhatBrowsersSend(t *testing.T) {
	got, err := Draft{"t", "  Ada ", "one\r\ntwo\r\n"}.Clean()
	if err != nil || got != (Draft{"t", "Ada", "one\ntwo"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestOpenNeverRepeatsThePassword(t *testing.T) {
	for _, url := range []string{
		"postgres://guestbook:hunter2@[bad/guestbook",
		"postgres://guestbook:hunter2@host:port/guestbook",
		"postgres://guestbook:hun%ter2@host/guestbook",
		"host=x password=hunter2 sslmode=nonsense",
	} {
		_, err := Open(url)
		if err == nil {
			t.Errorf("%s was accepted", url)
		} else if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "ter2") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestAFailedConnectionNeverTellsThePassword(t *testing.T) {
	s, err := Open("postgres://guestbook:hunter2@127.0.0.1:1/guestbook?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.Migrate(t.Context())
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}
