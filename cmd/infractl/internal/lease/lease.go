// Package lease lets one process at a time change an environment. Who holds the
// lease says so in a file next to the state and renews it while it lives. One
// that is not renewed for its time to live may be taken by somebody else, and
// one whose holder is a dead process of this computer at once.
//
// No clock is compared with another computer's: whoever waits for a lease sees
// for itself, by its own clock, that it was not renewed for all that time.
//
// Every holder makes a file of its own with the next number, and the highest
// number counts. A number is given out once, since the file is made with
// O_EXCL and the highest one is never deleted: of many who take over the same
// lease, one wins. This needs nothing of the file system but O_EXCL, which also
// network file systems have.
package lease

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/process"
)

const (
	// DefaultTTL is how long a lease is good for after it was renewed.
	DefaultTTL = 30 * time.Second
	// renewals is how often a lease is renewed within its time to live: one that
	// comes late, or two, must not be the end.
	renewals = 6
	// pollEvery is how often somebody who waits looks.
	pollEvery = 200 * time.Millisecond
)

// Holder is who holds a lease.
type Holder struct {
	// ID names this one holding of the lease.
	ID string `json:"id"`
	// Owner is user@host.
	Owner string `json:"owner"`
	// Command is what it does, such as "up".
	Command string     `json:"command"`
	Process process.ID `json:"process"`
	// Since is when it took the lease, by its own clock.
	Since time.Time `json:"since"`
}

func (h Holder) String() string {
	return fmt.Sprintf("%s (infractl %s, process %d) since %s", h.Owner, h.Command, h.Process.PID, h.Since.Local().Format("2006-01-02 15:04:05"))
}

// State is what a lease's file says.
type State struct {
	Holder
	// RenewedAt is by the holder's clock, for people.
	RenewedAt time.Time `json:"renewedAt"`
	// Sequence counts the renewals.
	Sequence uint64 `json:"sequence"`
	// TTL is the time to live, in seconds.
	TTL float64 `json:"ttl"`
	// Free says that nobody holds it any more, and why.
	Free string `json:"free,omitempty"`

	number int
	raw    string
}

// What Free says.
const (
	released = "released"
	unlocked = "unlocked"
)

// unreadable says that the file is being written, or was when its holder ended.
func (s State) unreadable() bool { return s.number > 0 && s.ID == "" }

func (s State) held() bool { return s.number > 0 && s.Free == "" }

// Options say how to wait. The zero value means the defaults, and no waiting.
type Options struct {
	// TTL is how long the lease is good for after it was renewed.
	TTL time.Duration
	// Patience is how long to wait for a holder.
	Patience time.Duration
	// Poll is how often to look.
	Poll time.Duration
	// Say tells the user something in passing.
	Say func(format string, args ...any)
}

func (o Options) filled() Options {
	if o.TTL <= 0 {
		o.TTL = DefaultTTL
	}
	if o.Poll <= 0 {
		o.Poll = pollEvery
	}
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	return o
}

// HeldError says that somebody else holds the lease.
type HeldError struct{ State State }

func (e *HeldError) Error() string {
	if e.State.unreadable() {
		return "somebody who has just begun"
	}
	return e.State.String()
}

// LostError says why a holder has lost its lease.
type LostError struct {
	// By is who has it now, or had it last; nil if the files were deleted or
	// could not be written.
	By *State
	// Err is why it could not be renewed, if that was it.
	Err error
}

func (e *LostError) Error() string {
	switch {
	case e.Err != nil:
		return fmt.Sprintf("the environment's lock could not be renewed: %v", e.Err)
	case e.By == nil:
		return "the environment's lock was deleted"
	case e.By.Free == unlocked:
		return fmt.Sprintf("the environment's lock was removed by %s with infractl %s at %s", e.By.Owner, e.By.Command, e.By.Since.Local().Format("15:04:05"))
	case e.By.unreadable():
		return "the environment's lock was taken over by another run, since it had not been renewed in time"
	}
	return fmt.Sprintf("the environment's lock was taken over by %s, since it had not been renewed in time", e.By.Holder)
}

func (e *LostError) Unwrap() error { return e.Err }

// Lease is a lease that this process holds.
type Lease struct {
	place  place
	o      Options
	waited bool

	mu    sync.Mutex
	state State

	stop    chan struct{}
	stopped sync.Once
	lost    chan struct{}
	why     *LostError // set before lost is closed
}

// Take takes the lease that is kept in a directory, and renews it until
// Release. It waits for a holder as long as o.Patience says, and returns a
// *HeldError then.
func Take(ctx context.Context, dir string, h Holder, o Options) (*Lease, error) {
	o = o.filled()
	p := place(dir)
	h.Since = second(h.Since)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the directory of the environment's lock: %w", err)
	}
	began := time.Now()
	var seen watch
	told := ""
	for {
		last, err := p.last()
		if err != nil {
			return nil, err
		}
		ttl := o.TTL
		if last.TTL > 0 {
			ttl = time.Duration(last.TTL * float64(time.Second))
		}
		quiet := seen.unchanged(last, ttl)
		over := ""
		switch {
		case !last.held():
		case !last.unreadable() && last.Process.Gone():
			over = "which is no longer running"
		case quiet >= ttl:
			over = fmt.Sprintf("which has given no sign of life for %.0f s", ttl.Seconds())
		case time.Since(began) >= o.Patience:
			return nil, &HeldError{State: last}
		default:
			if told != last.ID && !last.unreadable() {
				o.Say("waiting up to %.0f s for %s", (o.Patience - time.Since(began)).Seconds(), last.Holder)
				told = last.ID
			}
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(o.Poll):
			}
			continue
		}
		l := &Lease{place: p, o: o, waited: told != "", stop: make(chan struct{}), lost: make(chan struct{})}
		l.state = State{Holder: h, RenewedAt: h.Since, TTL: o.TTL.Seconds(), number: last.number + 1}
		err = p.claim(l.state)
		if errors.Is(err, fs.ErrExist) {
			continue // somebody else was faster
		}
		if err != nil {
			return nil, fmt.Errorf("cannot take the environment's lock: %w", err)
		}
		if over != "" {
			who := "somebody"
			if !last.unreadable() {
				who = last.String()
			}
			o.Say("took over the lock of %s, %s", who, over)
		}
		go l.keep()
		return l, nil
	}
}

// second is a time as it stands in a lease's file, where its length may not change.
func second(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// watch sees for how long a lease has not changed.
type watch struct {
	number      int
	raw         string
	since, last time.Time
}

// unchanged says how long a lease has been as it is. It begins anew after a gap:
// who was suspended has not seen what happened in the meantime, and the holder
// may have been suspended with it.
func (w *watch) unchanged(s State, ttl time.Duration) time.Duration {
	now := time.Now()
	if s.number != w.number || s.raw != w.raw || now.Sub(w.last) > ttl/3 {
		w.number, w.raw, w.since = s.number, s.raw, now
	}
	w.last = now
	return now.Sub(w.since)
}

// Waited says that somebody else had held the lease first.
func (l *Lease) Waited() bool { return l.waited }

// Lost is closed when the lease was lost; Err says how.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Err is a *LostError after the lease was lost.
func (l *Lease) Err() error {
	select {
	case <-l.lost:
		return l.why
	default:
		return nil
	}
}

// keep renews the lease until it is released or lost.
func (l *Lease) keep() {
	every := l.o.TTL / renewals
	t := time.NewTicker(every)
	defer t.Stop()
	results := make(chan error, 1)
	renewing := false
	late := 0
	renewed := time.Now()
	var failure error
	for {
		select {
		case <-l.stop:
			return
		case err := <-results:
			renewing = false
			var lost *LostError
			if errors.As(err, &lost) {
				l.lose(lost)
				return
			}
			if failure = err; err == nil {
				renewed = time.Now()
			}
		case <-t.C:
			if !renewing {
				renewing = true
				go func() { results <- l.renew() }()
			}
			// Whoever waits may take the lease when it was not renewed for its time
			// to live, so its holder has to give up before that. Once is not enough:
			// after this process was suspended, the renewal is only just under way.
			if time.Since(renewed) > l.o.TTL-3*every {
				late++
			} else {
				late = 0
			}
			if late == 2 {
				if failure == nil {
					failure = errors.New("the file system does not answer")
				}
				l.lose(&LostError{Err: failure})
				return
			}
		}
	}
}

func (l *Lease) lose(why *LostError) {
	l.why = why
	close(l.lost)
}

// renew notes that the holder lives. It returns a *LostError if the lease is
// no longer its own.
func (l *Lease) renew() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.mine(); err != nil {
		return err
	}
	next := l.state
	next.Sequence++
	next.RenewedAt = second(time.Now())
	if err := l.place.rewrite(next); err != nil {
		return err
	}
	l.state = next
	return nil
}

// mine returns a *LostError if the lease is somebody else's now.
func (l *Lease) mine() error {
	last, err := l.place.last()
	switch {
	case err != nil:
		return err
	case last.number == 0:
		return &LostError{}
	case last.number != l.state.number || last.ID != l.state.ID:
		return &LostError{By: &last}
	}
	return nil
}

// Release gives the lease back. It is no error if it was lost before.
func (l *Lease) Release() error {
	l.stopped.Do(func() { close(l.stop) })
	l.mu.Lock()
	defer l.mu.Unlock()
	var lost *LostError
	if err := l.mine(); errors.As(err, &lost) {
		return nil
	} else if err != nil {
		return err
	}
	if l.state.Free != "" {
		return nil
	}
	l.state.Free = released
	return l.place.rewrite(l.state)
}

// Look returns who holds the lease that is kept in a directory, or nil.
func Look(dir string) (*State, error) {
	last, err := place(dir).last()
	if err != nil || !last.held() {
		return nil, err
	}
	return &last, nil
}

// Remove takes a lease away from its holder, who notices at its next renewal.
// by is who does it. It fails if the lease has changed hands since seen was
// looked at.
func Remove(dir string, seen State, by Holder) error {
	err := place(dir).claim(State{Holder: by, RenewedAt: by.Since, Free: unlocked, number: seen.number + 1})
	if errors.Is(err, fs.ErrExist) {
		return errors.New("the lock has just changed hands")
	}
	return err
}
