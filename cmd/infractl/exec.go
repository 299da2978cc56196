package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/cmd/infractl/internal/report"
	"github.com/infractl/infractl/cmd/infractl/internal/screen"
	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/stacks"
)

// execTimeout is how long a command may run where the user does not say.
const execTimeout = 10 * time.Minute

func execCommand() *cli.Command {
	return &cli.Command{
		Name:      "exec",
		Usage:     "run a command on several hosts at the same time",
		UsageText: "infractl exec [--env NAME] {--tier NAME | --host NAME | --all}… [--user] -- COMMAND…",
		Description: "The command runs as root, through sudo; with --user as the user that logs in.\n" +
			"Several words are passed as they are; a single one is a line for the shell, as in\n" +
			"infractl exec --tier web -- 'ls /var/log/nginx | wc -l'. It has no input. Each line\n" +
			"of its output stands behind its host's name. Exit code 0 if it was 0 everywhere.",
		Flags: []cli.Flag{envFlag(), tiersFlag(), hostsFlag(),
			&cli.BoolFlag{Name: "all", Usage: "all hosts"},
			&cli.IntFlag{Name: "parallel", Value: 32, Usage: "on at most `N` hosts at the same time"},
			&cli.DurationFlag{Name: "timeout", Value: execTimeout, Usage: "end the command on a host after this time"},
			&cli.BoolFlag{Name: "sudo", Usage: "run it as root (the default)"},
			&cli.BoolFlag{Name: "user", Usage: "run it as the user that logs in"},
			&cli.BoolFlag{Name: "json", Usage: "write one line of JSON to stdout for each host"},
		},
		Action:       execute,
		OnUsageError: usageError,
		BashComplete: completeFlags,
	}
}

// executed is what became of a command on one host.
type executed struct {
	Version int    `json:"version"`
	Host    string `json:"host"`
	Tier    string `json:"tier"`
	// ExitCode is null if it is not known, and Error says why.
	ExitCode *int    `json:"exitCode"`
	Error    string  `json:"error,omitempty"`
	Seconds  float64 `json:"seconds"`
	Stdout   string  `json:"stdout"`
	Stderr   string  `json:"stderr"`
	// Truncated says that the command printed more than is shown.
	Truncated bool `json:"truncated,omitempty"`
}

// failure says in a few words what went wrong; it is empty if nothing did.
func (e executed) failure() string {
	switch {
	case e.ExitCode == nil:
		return e.Host + ": " + e.Error
	case *e.ExitCode != 0:
		return fmt.Sprintf("%s: exit code %d", e.Host, *e.ExitCode)
	}
	return ""
}

func execute(c *cli.Context) error {
	words := c.Args().Slice()
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	named := len(c.StringSlice("tier"))+len(c.StringSlice("host")) > 0
	switch {
	case named && c.Bool("all"):
		return usage("--all leaves nothing for --tier and --host to choose")
	case !named && !c.Bool("all"):
		return usage("say on which hosts: --tier %s, --host NAME, or --all", strings.Join(stacks.TierNames(), ", --tier "))
	case len(words) == 0 || words[0] == "":
		return usage("say what to run: infractl exec … -- COMMAND…")
	case c.Bool("sudo") && c.Bool("user"):
		return usage("--sudo and --user contradict each other")
	case c.Int("parallel") < 1 || c.Int("parallel") > 256:
		return usage("--parallel must be from 1 to 256")
	case c.Duration("timeout") < time.Second:
		return usage("--timeout must be 1s at least")
	}
	endsQuietly.Store(true)
	s, err := open(c, true)
	if err != nil {
		return err
	}
	defer s.reporter.Finish()
	f, err := s.theFleet()
	if err != nil {
		return err
	}
	hosts, err := chosen(c, f)
	if err != nil {
		return err
	}
	s.reporter.Finish()
	r := &runner{
		connect: f.Connect, timeout: c.Duration("timeout"), parallel: c.Int("parallel"), json: c.Bool("json"),
		command: fleet.Command{Words: words}, width: width(hosts),
		stdout: os.Stdout, stderr: os.Stderr, outStyle: styleOf(c, os.Stdout), errStyle: styleOf(c, os.Stderr),
		outTerminal: terminal(os.Stdout), errTerminal: terminal(os.Stderr),
	}
	if c.Bool("user") {
		r.command.User = f.User
	}
	return r.run(c.Context, hosts)
}

// runner runs a command on hosts.
type runner struct {
	connect  func(context.Context, fleet.Host) (*provision.Conn, error)
	command  fleet.Command
	timeout  time.Duration
	parallel int
	json     bool
	// width is that of the longest name.
	width                    int
	stdout, stderr           io.Writer
	outStyle, errStyle       report.Style
	outTerminal, errTerminal bool

	lock sync.Mutex // held while a line is written
}

func (r *runner) run(ctx context.Context, hosts []fleet.Host) error {
	began := time.Now()
	results := make([]executed, len(hosts))
	slots := make(chan struct{}, r.parallel)
	var wg sync.WaitGroup
	var writing error
	for i, h := range hosts {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[i] = r.on(ctx, i, h)
			if r.json {
				r.lock.Lock()
				defer r.lock.Unlock()
				writing = errors.Join(writing, writeLine(r.stdout, results[i]))
			}
		})
	}
	wg.Wait()
	if writing != nil {
		return writing
	}
	var failed []string
	for _, e := range results {
		if text := e.failure(); text != "" {
			failed = append(failed, text)
		}
	}
	hostCount := fmt.Sprintf("%d hosts", len(hosts))
	if len(hosts) == 1 {
		hostCount = "1 host"
	}
	if len(failed) == 0 {
		fmt.Fprintf(r.stderr, "%s: exit code 0 (%.1f s)\n", hostCount, time.Since(began).Seconds())
		return nil
	}
	err := fmt.Errorf("failed on %d of %s:\n  %s", len(failed), hostCount, strings.Join(failed, "\n  "))
	if ctx.Err() != nil {
		return &engine.Error{Kind: engine.Interrupted, Err: err}
	}
	return &engine.Error{Kind: engine.Failed, Err: err}
}

// on runs the command on one host, the nth.
func (r *runner) on(ctx context.Context, n int, h fleet.Host) executed {
	began := time.Now()
	out := executed{Version: 1, Host: h.Name, Tier: h.Tier}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var stdout, stderr io.Writer
	var finish func()
	if r.json {
		var o, e kept
		stdout, stderr = &o, &e
		finish = func() {
			out.Stdout, out.Stderr, out.Truncated = o.text.String(), e.text.String(), o.cut || e.cut
		}
	} else {
		o := r.lines(r.stdout, r.outStyle, r.outTerminal, n, h)
		e := r.lines(r.stderr, r.errStyle, r.errTerminal, n, h)
		stdout, stderr = o, e
		finish = func() { _, _ = o.Flush(), e.Flush() }
	}
	code, err := r.exec(ctx, h, stdout, stderr)
	finish()
	out.Seconds = time.Since(began).Seconds()
	switch {
	case err == nil:
		out.ExitCode = &code
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		out.Error = fmt.Sprintf("not finished after %s, and ended", r.timeout)
	case ctx.Err() != nil:
		out.Error = "interrupted, and ended"
	default:
		out.Error = strings.TrimPrefix(err.Error(), h.Name+": ")
	}
	return out
}

func (r *runner) exec(ctx context.Context, h fleet.Host, stdout, stderr io.Writer) (int, error) {
	conn, err := r.connect(ctx, h)
	if err != nil {
		return -1, err
	}
	defer conn.Close()
	// A host that died does not confirm the end of a session.
	defer context.AfterFunc(ctx, conn.Close)()
	return fleet.Exec(ctx, conn, r.command, stdout, stderr)
}

// lines writes a host's output to one of this process's. On a terminal nothing
// but colours gets through that is not text.
func (r *runner) lines(to io.Writer, style report.Style, isTerminal bool, n int, h fleet.Host) *screen.Lines {
	l := &screen.Lines{Out: to, Lock: &r.lock, Prefix: style.Nth(n, fmt.Sprintf("%-*s |", r.width, h.Name)) + " "}
	if isTerminal {
		l.Clean = screen.CleanButColors
		if !style.Color {
			l.Clean = screen.Clean
		}
	}
	return l
}

// keptLimit is how much of a host's output is kept for JSON, in bytes.
const keptLimit = 16 << 20

// kept keeps the beginning of what is written to it.
type kept struct {
	text bytes.Buffer
	cut  bool
}

func (k *kept) Write(p []byte) (int, error) {
	room := keptLimit - k.text.Len()
	k.cut = k.cut || len(p) > room
	k.text.Write(p[:min(len(p), room)])
	return len(p), nil
}
