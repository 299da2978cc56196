package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/report"
)

// Flags that several commands have.
func envFlag() cli.Flag {
	return &cli.StringFlag{Name: "env", Aliases: []string{"e"}, Usage: "work on environment `NAME` (default: the only one)"}
}

func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask"}
}

func resultFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "write the result to stdout as JSON"}
}

// lockTimeoutFlag is for commands that change something.
func lockTimeoutFlag() cli.Flag {
	return &cli.DurationFlag{Name: lockTimeout, Value: engine.DefaultLockTimeout, Usage: "wait for another run up to `DURATION`, such as 10m; 0 does not wait"}
}

const lockTimeout = "lock-timeout"

// session is what one command has at hand.
type session struct {
	c     *cli.Context
	style report.Style
	// reporter shows progress on stderr.
	reporter *report.Reporter
	engine   *engine.Engine
	// drained is what became of the hosts that go.
	drained []leaving

	mu    sync.Mutex
	shown *report.Reporter // the same, for others than the command itself
}

// newReporter begins another report.
func (s *session) newReporter() {
	s.reporter = report.New(os.Stderr, s.style)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown = s.reporter
}

// say tells the user something in passing. It may be called at any time.
func (s *session) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown.Say(format, args...)
}

// aside does something, such as asking a question, while nothing is drawn. It may
// be called at any time.
func (s *session) aside(do func()) {
	s.mu.Lock()
	shown := s.shown
	s.mu.Unlock()
	shown.Aside(do)
}

// lock takes the environment's lock for the rest of a command that changes
// something; what is what others read meanwhile, such as "drain web-1", or
// empty. From then on the command's context also ends if somebody takes the
// lock away.
func (s *session) lock(what string) error {
	ctx, _, err := s.engine.Lock(s.c.Context, what)
	s.c.Context = ctx
	return err
}

// terminal says whether a file is a terminal on which lines may be redrawn.
func terminal(f *os.File) bool {
	return term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

// styleOf decides once how to draw on a file.
func styleOf(c *cli.Context, f *os.File) report.Style {
	s := report.Style{}
	if !terminal(f) {
		return s
	}
	s.Color = os.Getenv("NO_COLOR") == ""
	for _, level := range c.Lineage() {
		if level.Bool("no-color") {
			s.Color = false
		}
	}
	s.Live = os.Getenv("CI") == ""
	if width, _, err := term.GetSize(int(f.Fd())); err == nil {
		s.Width = width
	}
	return s
}

// begin opens the environment that the command line names, for a command that
// takes no arguments.
func begin(c *cli.Context, skipFiles bool) (*session, error) {
	if c.NArg() > 0 {
		return nil, usage("%s takes no arguments, but there is %q", c.Command.Name, c.Args().First())
	}
	return open(c, skipFiles)
}

// openConfig opens no more than the configuration of the environment that the command
// line names. It may be wrong; the engine's Problems say how.
func openConfig(c *cli.Context, skipFiles bool) (*session, error) {
	s := &session{c: c, style: styleOf(c, os.Stderr)}
	s.newReporter()
	var err error
	s.engine, err = engine.OpenConfig(engine.Settings{
		Dir: ".", Environment: c.String("env"), Version: version().Version, Say: s.say,
		Command: commandName(c), Args: os.Args[1:], SkipFiles: skipFiles,
	})
	if err == nil {
		err = s.answerQuestions()
	}
	if err != nil {
		s.reporter.Finish()
		return nil, err
	}
	lifeOf(c).opened(s)
	return s, nil
}

// open opens the environment that the command line names.
func open(c *cli.Context, skipFiles bool) (*session, error) {
	patience := engine.DefaultLockTimeout
	if c.IsSet(lockTimeout) {
		patience = c.Duration(lockTimeout)
	}
	if patience < 0 {
		return nil, usage("--%s must not be negative, but is %s", lockTimeout, patience)
	}
	s := &session{c: c, style: styleOf(c, os.Stderr)}
	s.newReporter()
	var err error
	s.engine, err = engine.Open(c.Context, engine.Settings{
		Dir:         ".",
		Environment: c.String("env"),
		Version:     version().Version,
		Say:         s.say,
		Force:       forced,
		Command:     commandName(c),
		Args:        os.Args[1:],
		LockTimeout: patience,
		SkipFiles:   skipFiles,
		Holder:      holderOf,
	})
	if err == nil {
		err = s.answerQuestions()
	}
	if err != nil {
		s.reporter.Finish()
		return nil, err
	}
	lifeOf(c).opened(s)
	return s, nil
}

// commandName is the command's name with those of the commands it belongs to.
func commandName(c *cli.Context) string {
	_, name, found := strings.Cut(c.Command.HelpName, " ")
	if !found {
		return c.Command.Name
	}
	return name
}

// confirm asks the user. Without a terminal it fails instead, naming the flag.
func confirm(c *cli.Context, question, answer string) error {
	if c.Bool("yes") {
		return nil
	}
	if err := mustAsk(c); err != nil {
		return err
	}
	given, err := inquire(c.Context, question)
	if err != nil {
		return err
	}
	if given != answer {
		return usage("not confirmed; nothing was changed")
	}
	return nil
}

// inquire asks on the terminal. It fails if there is no answer.
func inquire(ctx context.Context, question string) (string, error) {
	fmt.Fprintf(os.Stderr, "%s ", question)
	said := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(os.Stdin).ReadString('\n')
		if err != nil && line == "" {
			close(said)
			return
		}
		said <- line
	}()
	select {
	case line, any := <-said:
		if !any {
			return "", usage("no answer; nothing was changed")
		}
		return strings.TrimSpace(line), nil
	case <-ctx.Done():
		// Nobody can stop the read, but the process ends soon.
		return "", &engine.Error{Kind: engine.Interrupted, Err: errors.New("interrupted; nothing was changed")}
	}
}

// mustAsk fails if there is nobody to ask.
func mustAsk(c *cli.Context) error {
	if c.Bool("yes") || (terminal(os.Stdin) && terminal(os.Stderr)) {
		return nil
	}
	return usage("there is no terminal to ask on; say --yes to go on without asking")
}

// done turns a run's result into the command's error. The failures were in the
// engine's events; err is what the engine said at the end.
func (s *session) done(result report.Result, err error) error {
	report.Failures(os.Stderr, s.style, result.Failures)
	if err == nil {
		return nil
	}
	kind := engine.KindOf(err)
	if kind != engine.Failed {
		return err
	}
	if len(result.Failures) == 0 {
		if out := strings.TrimSpace(engine.Output(err)); out != "" {
			return fmt.Errorf("%w: %s", err, out)
		}
		return err
	}
	if result.Changed() {
		return &engine.Error{Kind: engine.Partial, Err: fmt.Errorf("%s is partly changed", s.engine.Environment),
			Advice: "What was done is kept. Once the cause is gone, run the same command again: it goes on from here."}
	}
	return &engine.Error{Kind: engine.Failed, Err: fmt.Errorf("%s was not changed", s.engine.Environment)}
}

// writeJSON writes a result for programs.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
