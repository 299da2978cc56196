// Package postgrestest runs a PostgreSQL server of their own for tests, from
// Debian's package postgresql. It listens on a Unix socket only, in a temporary
// folder that Close removes with everything in it.
package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrMissing means that this computer has no PostgreSQL server to start.
var ErrMissing = errors.New("no PostgreSQL server is installed (as root: apt-get install postgresql)")

// commandTime is the limit for making, starting or stopping a server, each of
// which takes about a second.
const commandTime = time.Minute

// Server is a running PostgreSQL server.
type Server struct {
	programs  string // folder of initdb and pg_ctl
	folder    string
	owner     *syscall.Credential // nil: whoever runs the tests
	databases atomic.Int64
}

// Start makes a server and starts it.
func Start() (*Server, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return nil, ErrMissing
	}
	slices.Sort(found)
	s := &Server{programs: filepath.Dir(found[len(found)-1])}
	if s.folder, err = os.MkdirTemp("", "postgres-"); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		// PostgreSQL refuses to run as root; the package brings a user.
		if err := s.giveTo("postgres"); err != nil {
			_ = os.RemoveAll(s.folder)
			return nil, err
		}
	}
	if err := s.run("initdb", "--pgdata", s.data(), "--username=postgres", "--auth=trust",
		"--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"); err != nil {
		_ = os.RemoveAll(s.folder)
		return nil, err
	}
	if err := s.Up(); err != nil {
		_ = os.RemoveAll(s.folder)
		return nil, err
	}
	return s, nil
}

func (s *Server) data() string { return filepath.Join(s.folder, "data") }

func (s *Server) giveTo(name string) error {
	account, err := user.Lookup(name)
	if err != nil {
		return fmt.Errorf("find the user that PostgreSQL runs as: %w", err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return err
	}
	s.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return os.Chown(s.folder, int(uid), int(gid))
}

// run executes one of PostgreSQL's programs. Its output goes to a file, because
// the server inherits it and a pipe would stay open as long as the server runs.
func (s *Server) run(program string, arguments ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	output, err := os.Create(filepath.Join(s.folder, program+".log"))
	if err != nil {
		return err
	}
	defer output.Close()
	command := exec.CommandContext(ctx, filepath.Join(s.programs, program), arguments...)
	command.Dir = s.folder
	command.Stdout, command.Stderr = output, output
	command.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner}
	if err := command.Run(); err != nil {
		words, _ := os.ReadFile(output.Name())
		return fmt.Errorf("%s: %w\n%s", program, err, words)
	}
	return nil
}

// Up starts the server after Down.
func (s *Server) Up() error {
	// A test's data need not survive a power cut.
	return s.run("pg_ctl", "start", "--wait", "--silent", "--pgdata", s.data(),
		"--log", filepath.Join(s.folder, "server.log"), "--options",
		"-c listen_addresses='' -c unix_socket_directories='"+s.folder+"' -c fsync=off -c max_connections=50")
}

// Down stops the server at once, as a crash would.
func (s *Server) Down() error {
	return s.run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate", "--pgdata", s.data())
}

// Close stops the server and removes its folder.
func (s *Server) Close() error { return errors.Join(s.Down(), os.RemoveAll(s.folder)) }

// URL returns the connection URL of a database.
func (s *Server) URL(database string) string {
	return (&url.URL{
		Scheme: "postgres", User: url.User("postgres"), Path: "/" + database,
		RawQuery: url.Values{"host": {s.folder}}.Encode(),
	}).String()
}

// Database creates an empty database for one test and returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTime)
	defer cancel()
	connection, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close(ctx)
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	if _, err := connection.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return s.URL(name)
}
