// Package store keeps the guestbook's entries in PostgreSQL.
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Limits of an entry, in characters. The table's constraints repeat them.
const (
	MaxName    = 60
	MaxMessage = 1000
	MaxToken   = 64
)

const (
	// A connection is made within this time or the host counts as down.
	connectTime = 3 * time.Second
	// No query of this application takes longer unless the database hangs.
	queryTime = 5 * time.Second
	// Enough for the queries above at hundreds of requests per second, and a
	// fraction of PostgreSQL's default max_connections (100) for each process.
	defaultMaxConns = 10
)

// ErrNotReady is returned until Migrate has succeeded once.
var ErrNotReady = errors.New("the database's schema is not ready yet")

// Entry is what somebody wrote.
type Entry struct {
	ID        int64     `json:"id"`
	Name      string    `json:"name"`
	Message   string    `json:"message"`
	WrittenAt time.Time `json:"written_at"`
}

// Draft is an entry that is not written yet. Writing the same token twice
// writes one entry, so that a request can be repeated safely.
type Draft struct{ Token, Name, Message string }

// InvalidError says what is wrong with a draft, by field and in words for the
// person who wrote it.
type InvalidError map[string]string

func (e InvalidError) Error() string {
	var parts []string
	for _, field := range []string{"name", "message", "token"} {
		if text, ok := e[field]; ok {
			parts = append(parts, field+": "+text)
		}
	}
	return strings.Join(parts, "; ")
}

// Clean returns the draft as it would be stored, or an InvalidError.
func (d Draft) Clean() (Draft, error) {
	invalid := InvalidError{}
	// Forms send line ends as CR LF.
	d.Message = strings.TrimSpace(strings.ReplaceAll(d.Message, "\r\n", "\n"))
	d.Name = strings.TrimSpace(d.Name)
	check := func(field, text string, limit int, also string) {
		switch {
		case text == "":
			invalid[field] = "is empty"
		case !utf8.ValidString(text):
			invalid[field] = "is not valid UTF-8 text"
		case utf8.RuneCountInString(text) > limit:
			invalid[field] = fmt.Sprintf("is longer than %d characters", limit)
		case strings.ContainsFunc(text, func(r rune) bool {
			return unicode.IsControl(r) && !strings.ContainsRune(also, r)
		}):
			invalid[field] = "has characters that cannot be shown"
		}
	}
	check("name", d.Name, MaxName, "")
	check("message", d.Message, MaxMessage, "\n\t")
	check("token", d.Token, MaxToken, "")
	if len(invalid) > 0 {
		return Draft{}, invalid
	}
	return d, nil
}

// Store is safe for concurrent use.
type Store struct {
	pool  *pgxpool.Pool
	ready atomic.Bool
}

// Open prepares connections to the database at url; they are made when needed,
// and again when they break. It fails only if url is not one. Errors never
// contain the password.
func Open(url string) (*Store, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		// The parser's own words quote the URL, with the password masked where
		// it could tell; a mistyped URL is just where it cannot.
		return nil, errors.New("DATABASE_URL is not a PostgreSQL connection URL such as postgres://user:password@host/database?sslmode=verify-full")
	}
	if !strings.Contains(url, "pool_max_conns") {
		config.MaxConns = defaultMaxConns
	}
	config.MaxConnLifetime = 30 * time.Minute
	config.MaxConnLifetimeJitter = 5 * time.Minute
	config.MaxConnIdleTime = 5 * time.Minute
	config.HealthCheckPeriod = 15 * time.Second
	config.ConnConfig.ConnectTimeout = connectTime
	config.ConnConfig.RuntimeParams["application_name"] = "guestbook"
	// The server gives up on a query that its client has given up on.
	config.ConnConfig.RuntimeParams["statement_timeout"] = fmt.Sprint(queryTime.Milliseconds())
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("prepare the connection pool: %w", err)
	}
	return &Store{pool: pool}, nil
}

// Close waits for connections in use and closes all.
func (s *Store) Close() { s.pool.Close() }

// Check asks the database for a sign of life.
func (s *Store) Check(ctx context.Context) error {
	if !s.ready.Load() {
		return ErrNotReady
	}
	var one int
	if err := s.pool.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
		return fmt.Errorf("ask the database: %w", err)
	}
	return nil
}

// Add writes an entry, or finds the one that the same token wrote before. The
// draft is cleaned first; an InvalidError says what is wrong with it.
func (s *Store) Add(ctx context.Context, draft Draft) (Entry, error) {
	draft, err := draft.Clean()
	if err != nil {
		return Entry{}, err
	}
	if !s.ready.Load() {
		return Entry{}, ErrNotReady
	}
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	// Updating the row to what it is makes RETURNING answer in both cases.
	rows, _ := s.pool.Query(ctx, `
		INSERT INTO entries (token, name, message) VALUES ($1, $2, $3)
		ON CONFLICT (token) DO UPDATE SET token = excluded.token
		RETURNING id, name, message, written_at`, draft.Token, draft.Name, draft.Message)
	entry, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Entry])
	if err != nil {
		return Entry{}, fmt.Errorf("write the entry: %w", err)
	}
	return entry, nil
}

// List returns up to limit entries, newest first, that are older than the entry
// with the ID before; zero begins with the newest.
func (s *Store) List(ctx context.Context, before int64, limit int) ([]Entry, error) {
	if !s.ready.Load() {
		return nil, ErrNotReady
	}
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	rows, _ := s.pool.Query(ctx, `
		SELECT id, name, message, written_at FROM entries
		WHERE $1 = 0 OR id < $1
		ORDER BY id DESC LIMIT $2`, before, limit)
	entries, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Entry])
	if err != nil {
		return nil, fmt.Errorf("read the entries: %w", err)
	}
	return entries, nil
}
