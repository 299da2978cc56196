package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
)

// forced is closed at the second interrupt.
var forced = make(chan struct{})

// life is what a command line has from its start to its end.
type life struct {
	mu      sync.Mutex
	session *session
}

// lifeKey is where a command finds its life among the application's data.
const lifeKey = "life"

func lifeOf(c *cli.Context) *life { return c.App.Metadata[lifeKey].(*life) }

// opened notes the session, which is ended with the command line.
func (l *life) opened(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session = s
}

// end releases the environment's lock, and records how the command ended.
func (l *life) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != nil {
		l.session.engine.Close(err)
	}
}

// say writes a line to stderr without disturbing what is drawn there.
func (l *life) say(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != nil {
		l.session.say("%s", text)
		return
	}
	fmt.Fprintln(os.Stderr, text)
}

// interruptible returns a context that ends at the first interrupt: what has
// begun is finished then. The second one closes forced, and the third one
// ends the process. A terminal that goes away is an interrupt too.
func (l *life) interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signal.Notify(signals, syscall.SIGHUP)
	}
	ended := make(chan struct{})
	next := func() bool {
		select {
		case <-signals:
			return true
		case <-ended:
			return false
		}
	}
	go func() {
		if !next() {
			return
		}
		cancel()
		if !endsQuietly.Load() {
			l.say("infractl: finishing what has begun; press Ctrl-C again to stop at once")
		}
		if !next() {
			return
		}
		close(forced)
		if !endsQuietly.Load() {
			l.say("infractl: stopping at once; the next run clears up")
		}
		if next() {
			os.Exit(codes[engine.Interrupted])
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(ended)
		cancel()
	}
}

// interrupted gives an error its kind that came of an interrupt.
func interrupted(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || engine.KindOf(err) != engine.Failed {
		return err
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	return &engine.Error{Kind: engine.Interrupted, Err: err, Advice: "The next run goes on from here."}
}
