// Command guestbook is a small real web application: a form that writes to
// PostgreSQL and a page that reads from it. It is what infractl's laboratory
// serves, and a pattern for an application of one's own.
//
// Its settings are environment variables:
//
//	LISTEN         address and port to serve on, by default 127.0.0.1:8080
//	DATABASE_URL   PostgreSQL connection URL, required
//	INFRACTL_HOST  name of this host, shown in pages and answers if set
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"example.com/guestbook/store"
)

const (
	// shutdownTime is for requests under way when the process is told to stop;
	// it is below systemd's TimeoutStopSec of 90 s.
	shutdownTime = 20 * time.Second
	// The longest pause between two attempts to prepare the database.
	prepareRetryMax = 5 * time.Second
)

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, log, os.Getenv); err != nil {
		log.Error("guestbook stops", "error", err.Error())
		os.Exit(1)
	}
}

// run serves until ctx ends, then finishes the requests under way.
func run(ctx context.Context, log *slog.Logger, env func(string) string) error {
	listen := env("LISTEN")
	if listen == "" {
		listen = "127.0.0.1:8080"
	}
	if env("DATABASE_URL") == "" {
		return errors.New("DATABASE_URL is not set; it is a URL such as postgres://user:password@host/database")
	}
	entries, err := store.Open(env("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer entries.Close()

	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("LISTEN=%s: %w", listen, err)
	}
	site := newSite(log, entries, env("INFRACTL_HOST"))
	server := &http.Server{
		Handler:           site.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		// Longer than a proxy keeps an idle connection (nginx: 60 s), so that
		// the proxy closes it and never sends a request into a closed one.
		IdleTimeout: 2 * time.Minute,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}

	// The listener answers before the database is ready: /healthz then says
	// 503, which a load balancer understands better than a refused connection.
	go prepare(ctx, log, entries)

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	log.Info("guestbook serves", "listen", listener.Addr().String(), "host", env("INFRACTL_HOST"))

	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	log.Info("guestbook finishes its requests")
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if err := server.Shutdown(finish); err != nil {
		return fmt.Errorf("requests were still under way after %v: %w", shutdownTime, err)
	}
	return nil
}

// prepare brings the database's schema up to date, and tries until it is.
func prepare(ctx context.Context, log *slog.Logger, entries *store.Store) {
	pause := 250 * time.Millisecond
	for {
		applied, err := entries.Migrate(ctx)
		if err == nil {
			log.Info("the database is ready", "migrations_applied", applied)
			return
		}
		log.Warn("the database is not ready", "error", err.Error(), "next_try_s", pause.Seconds())
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, prepareRetryMax)
	}
}
