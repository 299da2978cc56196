package provision

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/infractl/infractl/provision/desired"
)

const (
	// applyTimeout bounds a whole change, most of which is the download of packages.
	applyTimeout = 20 * time.Minute
	// attachTime is how long a private network may take to appear on a host.
	attachTime = time.Minute
	// reattachTime is how long a lost connection is tried to be made again
	// while a change goes on on the host.
	reattachTime = 90 * time.Second
	// replans is how often a plan is made anew because the host changed
	// while its lock was waited for.
	replans = 3
)

// Options are what Apply can be told beside what is desired.
type Options struct {
	// Progress hears what happens now; it may be nil.
	Progress func(step string)
	// Confirm is how the host is reached after the change, if that differs
	// from how it is reached now, for example on another port.
	Confirm *Target
}

// Result is what Apply did and what is really on the host afterwards.
type Result struct {
	// Plan is what was to be done; empty if the host was as desired.
	Plan []Action
	// Actual is what is on the host now. It is nil if that could not be seen.
	Actual *Actual
	// Reverted says that the change was made and taken back.
	Reverted bool
}

// Apply makes the host as desired. With an error, the result says what is on
// the host nevertheless. Cancelling the context stops everything up to the
// moment when files are swapped; what has begun then is carried out or taken
// back on the host, and Apply waits for that.
func (c *Conn) Apply(ctx context.Context, h desired.Host, o Options) (Result, error) {
	return c.change(ctx, h, o, false)
}

// change is Apply, or with leaving Remove.
func (c *Conn) change(ctx context.Context, h desired.Host, o Options, leaving bool) (Result, error) {
	redactor := NewRedactor(h.Secrets)
	for attempt := 1; ; attempt++ {
		a, err := c.inspectAttached(ctx, h, attachTime, o.Progress)
		if err != nil {
			return Result{}, redactError(redactor, err)
		}
		if leaving {
			if !taken(a) {
				return Result{Actual: a}, nil
			}
			if others := touchedBefore(h, a); len(others) > 0 {
				h.Units = append(slices.Clone(h.Units), others...)
				continue // how they are now has to be seen first
			}
		}
		want := h
		if leaving {
			want = remains(h, a)
		}
		plan, err := planChange(want, a, leaving)
		if err != nil {
			return Result{Actual: a}, redactError(redactor, &Error{Host: c.target.Name, Step: "plan", Kinds: []error{ErrDesired}, Err: err})
		}
		if len(plan) == 0 {
			return Result{Actual: a}, nil
		}
		again, err := c.carryOut(ctx, want, a, plan, o, leaving, attempt < replans)
		if again {
			continue
		}
		result := Result{Plan: plan, Reverted: errors.Is(err, ErrReverted)}
		// Whatever happened: look, with a context that the cancellation of
		// the change does not end.
		look, cancel := context.WithTimeout(context.WithoutCancel(ctx), inspectTimeout)
		defer cancel()
		after, lookErr := c.look(look, h, o)
		if lookErr == nil {
			result.Actual = after
		}
		if err == nil && lookErr != nil {
			err = lookErr
		}
		return result, redactError(redactor, err)
	}
}

// look inspects the host, over a new connection if this one broke.
func (c *Conn) look(ctx context.Context, h desired.Host, o Options) (*Actual, error) {
	a, err := c.Inspect(ctx, h)
	if !errors.Is(err, ErrUnreachable) {
		return a, err
	}
	for _, t := range o.targets(c.target) {
		var other *Conn
		if other, err = Connect(ctx, t); err != nil {
			continue
		}
		defer other.Close()
		return other.Inspect(ctx, h)
	}
	return nil, err
}

// targets are the ways to reach the host after a change, best first.
func (o Options) targets(now Target) []Target {
	if o.Confirm != nil && *o.Confirm != now {
		return []Target{*o.Confirm, now}
	}
	return []Target{now}
}

// carryOut runs a plan on the host. It says again if nothing was done because
// another run has changed the host since the plan was made.
func (c *Conn) carryOut(ctx context.Context, h desired.Host, a *Actual, plan []Action, o Options, leaving, mayReplan bool) (again bool, err error) {
	id := strconv.FormatInt(time.Now().Unix(), 10) + nonce()
	t, err := newTransaction(id, holder(), h, a, plan, leaving)
	if err != nil {
		return false, &Error{Host: c.target.Name, Step: "plan", Kinds: []error{ErrDesired}, Err: err}
	}
	// The session outlives a cancellation once the change is being made.
	life, end := context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
	defer end()
	var committed atomic.Bool
	unhook := context.AfterFunc(ctx, func() {
		if !committed.Load() {
			end()
		}
	})
	defer unhook()

	const step = "apply"
	s, err := c.start(life, step, t.script)
	if err != nil {
		return false, canceled(ctx, c.target.Name, step, err)
	}
	// The archive is read by the script only when it has the lock, so that it
	// must not be waited for here.
	go s.in.Write(t.archive)

	var p protocol
	for !p.ended {
		line, readErr := s.out.ReadString('\n')
		if readErr != nil {
			break
		}
		word, rest := p.read(line)
		switch word {
		case "step":
			report(o.Progress, rest)
		case "ask":
			word, argument, _ := strings.Cut(rest, " ")
			switch word {
			case "tree":
				if err := sendTree(s.in, h.Trees[argument]); err != nil {
					end()
					s.wait()
					return false, &Error{Host: c.target.Name, Step: "upload " + argument, Kinds: []error{ErrWrite}, Err: err, Hint: "the host was not changed; run it again"}
				}
			case "commit":
				answer := "commit\n"
				committed.Store(true)
				if ctx.Err() != nil {
					committed.Store(false)
					answer = "abort\n"
				}
				io.WriteString(s.in, answer)
			case "confirm":
				ways := o.targets(c.target)[:1]
				if leaving {
					ways = waysBack(c.target)
				}
				go c.confirm(life, argument, ways, o)
			}
		}
	}
	exit := s.wait()
	if !p.ended && committed.Load() {
		report(o.Progress, "the connection was lost; the change goes on on the host")
		p = c.reattach(life, t, o)
		if !p.ended {
			return false, &Error{Host: c.target.Name, Step: step, Kinds: []error{ErrUnreachable}, Hint: "the change goes on on the host by itself, and is taken back there if it fails; run it again to see"}
		}
	}
	if p.code == "stale" && mayReplan {
		return true, nil
	}
	if !p.ended && ctx.Err() == nil {
		if exit, gone := s.gone(exit); !gone && exit != nil {
			return false, &Error{Host: c.target.Name, Step: step, Detail: fmt.Sprintf("the script ended with status %d: %s", exit.ExitStatus(), s.errors.String()), Hint: "run it again"}
		}
	}
	if !p.ended {
		return false, canceled(ctx, c.target.Name, step, s.lost(life, exit))
	}
	if leaving && p.code == "unconfirmed" {
		p.code = "unreturned"
	}
	return false, p.err(c.target.Name)
}

// canceled makes of any error that follows from a cancellation one that says so.
func canceled(ctx context.Context, host, step string, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return &Error{Host: host, Step: step, Kinds: []error{ErrCanceled}, Err: context.Cause(ctx), Hint: "no file was changed; run it again"}
}

// confirm shows the host over a new connection that it can still be reached, by
// one of the ways given.
func (c *Conn) confirm(ctx context.Context, dir string, ways []Target, o Options) {
	ctx, cancel := context.WithTimeout(ctx, (confirmTimeout-1)*time.Second)
	defer cancel()
	s := newScript("attach")
	s.call("hello")
	s.call("confirm", dir)
	report(o.Progress, "confirming over a new connection")
	for i := 0; ctx.Err() == nil; i++ {
		fresh, err := Connect(ctx, ways[i%len(ways)])
		if err == nil {
			_, err = fresh.output(ctx, "confirm", s.String())
			fresh.Close()
		}
		if err == nil {
			return
		}
		report(o.Progress, fmt.Sprintf("no new connection yet: %v", err))
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// reattach finds out over a new connection how a change ended.
func (c *Conn) reattach(ctx context.Context, t *transaction, o Options) protocol {
	ctx, cancel := context.WithTimeout(ctx, reattachTime)
	defer cancel()
	s := newScript("attach")
	s.call("hello")
	s.call("outcome", t.log, strconv.Itoa(int(reattachTime.Seconds())))
	for {
		for _, target := range o.targets(c.target) {
			fresh, err := Connect(ctx, target)
			if err != nil {
				continue
			}
			text, err := fresh.output(ctx, "see how the change ended", s.String())
			fresh.Close()
			if err != nil {
				continue
			}
			var p protocol
			for line := range strings.Lines(string(text)) {
				p.read(line)
			}
			if p.ended {
				return p
			}
		}
		select {
		case <-ctx.Done():
			return protocol{}
		case <-time.After(time.Second):
		}
	}
}

// protocol follows what the script on the host says; see scripts/change.sh.
type protocol struct {
	ended bool
	code  string
	flag  string
	texts []string
}

func (p *protocol) read(line string) (word, rest string) {
	line, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "@")
	if !ok {
		return "", ""
	}
	word, rest, _ = strings.Cut(line, " ")
	switch word {
	case "text":
		p.texts = append(p.texts, rest)
	case "done":
		p.ended = true
	case "fail":
		p.ended = true
		p.code, p.flag, _ = strings.Cut(rest, " ")
	}
	return word, rest
}

// failures explain the codes of the script's failures.
var failures = map[string]struct {
	kind error
	step string
	hint string
}{
	"stale":       {ErrLocked, "lock", "other runs keep changing the host; wait for them and run it again"},
	"locked":      {ErrLocked, "lock", "wait for the other run; on the host it ends by itself even if its infractl is gone"},
	"space":       {ErrNoSpace, "stage files", "free some space there (df -h) and run it again"},
	"packages":    {ErrPackages, "install packages", "check that the host reaches its package mirror and that the names are right, then run it again"},
	"users":       {ErrWrite, "add users", "check the user's home and groups"},
	"write":       {ErrWrite, "write files", "check the paths and the host's file systems"},
	"validate":    {ErrValidation, "check the new configuration", "the host still has the previous one; correct it and run it again"},
	"unit":        {ErrUnit, "change units", "correct the configuration and run it again"},
	"unhealthy":   {ErrUnhealthy, "health check", "correct the configuration and run it again"},
	"unconfirmed": {ErrUnconfirmed, "confirm", "check sshd, the firewall and the address that the configuration leads to"},
	"unreturned":  {ErrUnconfirmed, "confirm", "with the SSH settings and the firewall that the host had before infractl, this login does not get in: let it in there, for example with your key in ~/.ssh/authorized_keys, and run it again"},
	"killed":      {ErrUnreachable, "apply", "the change was interrupted on the host, which may have parts of it now; run it again"},
	"canceled":    {ErrCanceled, "apply", "no file was changed; run it again"},
}

// err is the error of a change that ended, or nil.
func (p *protocol) err(host string) error {
	if p.code == "" {
		return nil
	}
	f, ok := failures[p.code]
	if !ok {
		f.kind, f.step, f.hint = ErrWrite, "apply", "run it again"
	}
	e := &Error{Host: host, Step: f.step, Kinds: []error{f.kind}, Detail: strings.Join(p.texts, "\n"), Hint: f.hint}
	switch p.flag {
	case "reverted":
		e.Kinds = append(e.Kinds, ErrReverted)
	case "stuck":
		e.Kinds = append(e.Kinds, ErrNotReverted)
		e.Hint = "look at the host now (journalctl, systemctl --failed); the next run tries again"
	}
	return e
}

// redactError takes secrets out of an error's detail.
func redactError(r *Redactor, err error) error {
	var e *Error
	if err == nil || !errors.As(err, &e) {
		return err
	}
	e.Detail = r.Redact(e.Detail)
	return err
}

// holder says who this is, for others that find a host locked.
func holder() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s@%s (process %d)", name, host, os.Getpid())
}
