package store

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// The migrations, named NNNN_what.sql and applied in that order. One that has
// been released is never changed.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock is the advisory lock that one process at a time holds while it
// migrates. The number means nothing but has to be the same everywhere.
const migrationLock = 7_246_101

// migrateTime is the limit for all pending migrations, and for waiting until
// another process has applied them.
const migrateTime = time.Minute

// Migrate brings the schema up to date and returns how many migrations that
// took. Any number of processes may call it at once: one works, the others wait
// and find nothing left to do. It happens in one transaction, so that a crash
// leaves the schema as it was.
func (s *Store) Migrate(ctx context.Context) (applied int, err error) {
	ctx, cancel := context.WithTimeout(ctx, migrateTime)
	defer cancel()
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// Waiting for the lock is not a query that hangs.
		if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d", migrateTime.Milliseconds())); err != nil {
			return fmt.Errorf("allow time for migrations: %w", err)
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", migrationLock); err != nil {
			return fmt.Errorf("wait for other migrations: %w", err)
		}
		if _, err := tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS schema_migrations (
			version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())`); err != nil {
			return fmt.Errorf("create the table of migrations: %w", err)
		}
		var current int
		if err := tx.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM schema_migrations").Scan(&current); err != nil {
			return fmt.Errorf("find the schema's version: %w", err)
		}
		files, err := fs.Glob(migrations, "migrations/*.sql") // sorted
		if err != nil {
			return err
		}
		for _, file := range files {
			number, _, _ := strings.Cut(path.Base(file), "_")
			version, err := strconv.Atoi(number)
			if err != nil {
				return fmt.Errorf("%s does not begin with its number", file)
			}
			if version <= current {
				continue
			}
			text, err := migrations.ReadFile(file)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, string(text)); err != nil {
				return fmt.Errorf("apply %s: %w", file, err)
			}
			if _, err := tx.Exec(ctx, "INSERT INTO schema_migrations (version) VALUES ($1)", version); err != nil {
				return fmt.Errorf("note that %s was applied: %w", file, err)
			}
			applied++
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("migrate the database: %w", err)
	}
	s.ready.Store(true)
	return applied, nil
}
