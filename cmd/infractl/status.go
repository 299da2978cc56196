package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/cmd/infractl/internal/health"
	"github.com/infractl/infractl/cmd/infractl/internal/screen"
	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/stacks"
)

const (
	// statusLimit is how long status takes at most, with reading the state.
	statusLimit = 2800 * time.Millisecond
	// lookLimit and lookMinimum bound what remains of that for the hosts.
	lookLimit   = 2500 * time.Millisecond
	lookMinimum = 1500 * time.Millisecond
	// watchDefault is the time between two looks.
	watchDefault = 2 * time.Second
	// stateAge is how old what is known from the state may be while watching.
	stateAge = 30 * time.Second
)

// interval is the value of --watch, which may also stand without a value.
type interval string

func (i *interval) Set(text string) error {
	*i = interval(text)
	return nil
}

func (i *interval) String() string { return string(*i) }

// IsBoolFlag lets the flag stand without a value.
func (i *interval) IsBoolFlag() bool { return true }

// duration is 0 if there is nothing to watch.
func (i *interval) duration() (time.Duration, error) {
	switch *i {
	case "", "false":
		return 0, nil
	case "true":
		return watchDefault, nil
	}
	d, err := time.ParseDuration(string(*i))
	if seconds, number := strconv.ParseFloat(string(*i), 64); number == nil {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || d < time.Second || d > time.Hour {
		return 0, usage("--watch=%s: must be a time from 1s to 1h, such as 5s", string(*i))
	}
	return d, nil
}

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "show whether the environment is healthy, and every host",
		UsageText: "infractl status [--env NAME] [--watch[=2s]] [--json]",
		Description: "Looks at everything at once: the site as a client sees it, who holds the virtual\n" +
			"IP, and each host over SSH. Exit code 0: healthy; 1: not healthy, and what is\n" +
			"wrong is listed, most important first. It takes 3 s at most, also if hosts are dead.",
		Flags: []cli.Flag{envFlag(), resultFlag(),
			&cli.DurationFlag{Name: "timeout", Value: lookLimit, Usage: "how long a host may take to answer"},
			&cli.GenericFlag{Name: "watch", Aliases: []string{"w"}, Value: new(interval), Usage: "look again every 2 s, or as often as --watch=TIME says, until Ctrl-C"},
		},
		Action:       status,
		OnUsageError: usageError,
		BashComplete: completeFlags,
	}
}

func status(c *cli.Context) error {
	began := time.Now()
	every, err := c.Generic("watch").(*interval).duration()
	if err != nil {
		return err
	}
	limit := c.Duration("timeout")
	if limit < lookMinimum || limit > time.Hour {
		return usage("--timeout must be from %s to 1h", lookMinimum)
	}
	if every > 0 {
		endsQuietly.Store(true)
	}
	s, err := begin(c, true)
	if err != nil {
		return err
	}
	defer s.reporter.Finish()
	o := &health.Observer{
		Environment: s.engine.Environment,
		HealthPath:  s.engine.Spec.Application.Health,
		Apart:       stateAge,
	}
	if s.engine.Spec.Tiers[stacks.TierLB].Target != stacks.TargetHosts {
		o.Holders = s.engine.VIPHolders
	}
	defer o.Close()
	if err := s.know(o); err != nil {
		return err
	}
	first := limit
	if !c.IsSet("timeout") {
		first = max(lookMinimum, min(limit, statusLimit-time.Since(began)))
	}
	look := o.Look(c.Context, first)
	look.Seconds = time.Since(began).Seconds()
	if every > 0 {
		return s.watch(o, look, began, every, limit)
	}
	if err := c.Context.Err(); err != nil {
		return &engine.Error{Kind: engine.Interrupted, Err: fmt.Errorf("status: %w", err)}
	}
	if c.Bool("json") {
		err = writeJSON(os.Stdout, look)
	} else {
		style := styleOf(c, os.Stdout)
		_, err = fmt.Println(strings.Join(look.Lines(style, style.Width), "\n"))
	}
	if err != nil {
		return err
	}
	return unhealthy(look)
}

// know tells the observer what the state knows.
func (s *session) know(o *health.Observer) error {
	d, err := s.engine.Deployed(s.c.Context)
	if err != nil {
		return err
	}
	return s.tell(o, d)
}

func (s *session) tell(o *health.Observer, d engine.Deployed) error {
	hosts, err := fleet.New(d.Outputs)
	if err != nil {
		return &engine.Error{Kind: engine.Invalid, Err: err}
	}
	o.Fleet = hosts
	o.Runs = health.Runs{LastChange: d.Changed, Running: d.Running}
	if d.Unfinished != nil {
		o.Runs.Unfinished = &health.Unfinished{Operation: d.Unfinished.Operation, Since: d.Unfinished.Since}
	}
	// Decrypting takes as long as connecting to the hosts, which does not need it.
	described := sync.OnceValues(func() (map[string]desired.Host, error) { return s.engine.Described(s.c.Context) })
	go func() { _, _ = described() }()
	o.Described = described
	return nil
}

// unhealthy is the error of an environment that is not healthy.
func unhealthy(s health.Snapshot) error {
	if s.Healthy {
		return nil
	}
	var broken []string
	for _, p := range s.Problems {
		if p.Level == health.Broken {
			broken = append(broken, p.Message)
		}
	}
	more := ""
	if n := len(broken) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	return &engine.Error{Kind: engine.Failed, Err: fmt.Errorf("%s is not healthy: %s%s", s.Environment, screen.Clean(broken[0]), more)}
}

// watch shows one look after the other until the user ends it, which is no error.
func (s *session) watch(o *health.Observer, look health.Snapshot, began time.Time, every, limit time.Duration) error {
	show := s.shower()
	known := time.Now()
	news := make(chan engine.Deployed, 1)
	for ctx := s.c.Context; ; {
		if ctx.Err() != nil {
			return nil // what was seen after the end is not shown
		}
		if err := show(look); err != nil {
			return err
		}
		if time.Since(known) > stateAge {
			known = time.Now()
			go func() {
				// The state may be out of reach for a while; what was known goes on.
				if d, err := s.engine.Deployed(ctx); err == nil {
					news <- d
				}
			}()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every - time.Since(began)):
		}
		select {
		case d := <-news:
			if err := s.tell(o, d); err != nil {
				return err
			}
		default:
		}
		began = time.Now()
		look = o.Look(ctx, limit)
	}
}

// shower returns what shows one look after the other.
func (s *session) shower() func(health.Snapshot) error {
	style := styleOf(s.c, os.Stdout)
	if s.c.Bool("json") {
		return func(look health.Snapshot) error { return writeLine(os.Stdout, look) }
	}
	if !style.Live {
		first := true
		return func(look health.Snapshot) error {
			gap := "\n"
			if first {
				gap, first = "", false
			}
			_, err := fmt.Println(gap + strings.Join(look.Lines(style, style.Width), "\n"))
			return err
		}
	}
	place := screen.NewScreen(os.Stdout)
	return func(look health.Snapshot) error {
		width, height, err := term.GetSize(int(os.Stdout.Fd()))
		if err != nil {
			width, height = style.Width, 0
		}
		lines := append(look.Lines(style, width), style.Faint(look.Time.Local().Format(time.TimeOnly)+", Ctrl-C ends"))
		return place.Draw(lines, width, height)
	}
}

// writeLine writes a result for programs that read one line for each.
func writeLine(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(screen.CleanJSON(text), '\n'))
	return err
}
