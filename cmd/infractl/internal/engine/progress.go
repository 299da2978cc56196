package engine

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/infractl/infractl/cmd/infractl/internal/lease"
	"github.com/infractl/infractl/cmd/infractl/internal/report"
)

// progress is how far an operation came.
type progress report.Result

// tally counts what an operation does while others watch it. The function that
// it returns ends that, and notes the result for the record.
func (e *Engine) tally(sink Sink) (Sink, func() progress) {
	count := report.New(io.Discard, report.Style{})
	return func(ev Event) {
			count.Event(ev)
			sink(ev)
		}, func() progress {
			result := count.Finish()
			e.hold.results = append(e.hold.results, result)
			return progress(result)
		}
}

// left are those hosts that are not yet what they should be, as far as it is known.
func (p progress) left(hosts []string) []string {
	return p.without(hosts, report.HostUnchanged, report.HostCreated, report.HostUpdated, report.HostReplaced)
}

// leftStanding are those hosts that were not deleted.
func (p progress) leftStanding(hosts []string) []string {
	return p.without(hosts, report.HostDeleted)
}

func (p progress) without(hosts []string, done ...string) []string {
	return slices.DeleteFunc(slices.Clone(hosts), func(h string) bool {
		return slices.Contains(done, p.HostResults[h])
	})
}

// stopped is the error of an operation that was stopped, by the user or since
// another run took the lock. left are the hosts that it had not done yet.
func (e *Engine) stopped(ctx context.Context, left []string) error {
	out := &Error{Kind: Interrupted, Advice: "The next run goes on from here."}
	text := "interrupted; what had begun was finished"
	select {
	case <-e.settings.Force:
		text = "stopped at once; what had begun may be half done"
		out.Advice = "The next run clears up and goes on from here."
	default:
	}
	var why error
	var lost *lease.LostError
	if errors.As(context.Cause(ctx), &lost) {
		why = lost
		out.Kind, text = Locked, "; what had begun was finished"
		var own *Error
		if errors.As(context.Cause(ctx), &own) {
			out.Advice = own.Advice
		}
	}
	if len(left) > 0 {
		text += "\nNot done: " + strings.Join(left, ", ")
	}
	out.Err = &stop{text: text, why: why}
	return out
}

// stop says that an operation was stopped, and why if not by the user.
type stop struct {
	text string
	why  error
}

func (s *stop) Error() string {
	if s.why != nil {
		return s.why.Error() + s.text
	}
	return s.text
}

func (s *stop) Unwrap() error { return s.why }
