package fleet

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/infractl/infractl/stacks"
)

// Condition is how a host does.
type Condition struct {
	// Err is why the host cannot be asked; nothing else is known then.
	Err error
	// Drained is why it is drained; empty if it is not.
	Drained string
	// Unwell says what is wrong with it; empty if nothing is.
	Unwell string
}

// Serves says whether the host takes work.
func (c Condition) Serves() bool { return c.Err == nil && c.Drained == "" && c.Unwell == "" }

// KeptDrained says whether the host is drained and to stay so until a user says
// otherwise. Nobody can tell then whether it is well.
func (c Condition) KeptDrained() bool { return c.Drained != "" && !Passing(c.Drained) }

// Problem says in words why the host does not serve; empty if it does.
func (c Condition) Problem() string {
	switch {
	case c.Err != nil:
		return "does not answer"
	case c.Drained != "":
		return "is drained (" + c.Drained + ")"
	case c.Unwell != "":
		return "is unwell: " + c.Unwell
	}
	return ""
}

// Condition asks a host how it does.
func (f *Fleet) Condition(ctx context.Context, h Host) Condition {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := f.Run(ctx, h, "see how it does", program("condition", "condition"))
	if err != nil {
		return Condition{Err: err}
	}
	return parseCondition(h, string(out))
}

func parseCondition(h Host, text string) Condition {
	word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	switch word {
	case "ready":
		return Condition{}
	case "drained":
		return Condition{Drained: rest}
	case "unwell":
		return Condition{Unwell: rest}
	}
	return Condition{Err: fmt.Errorf("%s: see how it does: it answered %q", h.Name, text)}
}

// Conditions asks several hosts how they do, all at once.
func (f *Fleet) Conditions(ctx context.Context, hosts []Host) map[string]Condition {
	var mu sync.Mutex
	out := map[string]Condition{}
	_ = Each(ctx, hosts, func(ctx context.Context, h Host) error { // the errors are in the conditions
		c := f.Condition(ctx, h)
		mu.Lock()
		defer mu.Unlock()
		out[h.Name] = c
		return nil
	})
	return out
}

// Backend asks a load balancer's HAProxy what it thinks of a web host: UP, or
// anything else, in HAProxy's words.
func (f *Fleet) Backend(ctx context.Context, balancer Host, server string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := f.Run(ctx, balancer, "ask HAProxy for its servers", program("backends", "backends"))
	if err != nil {
		return "", err
	}
	status, err := backendStatus(string(out), "web", server)
	if err != nil {
		return "", fmt.Errorf("%s: ask HAProxy for its servers: %w", balancer.Name, err)
	}
	return status, nil
}

// backendStatus finds a server's status in what HAProxy answers to "show stat"
// (management guide, section 9.1): CSV, whose first line names the columns.
func backendStatus(text, backend, server string) (string, error) {
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(strings.TrimSpace(text), "# ")))
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		return "", fmt.Errorf("the answer cannot be read: %w", err)
	}
	if len(rows) == 0 {
		return "", errors.New("the answer is empty")
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	field := func(row []string, name string) string {
		if i, ok := column[name]; ok && i < len(row) {
			return row[i]
		}
		return ""
	}
	for _, row := range rows[1:] {
		if field(row, "pxname") == backend && field(row, "svname") == server {
			return field(row, "status"), nil
		}
	}
	return "", fmt.Errorf("it has no server %s in backend %s", server, backend)
}

// Lacking says what a host still lacks to do its work: its daemons have to be
// healthy, and a web host has to be up in the eyes of every load balancer. It
// looks anew each time.
func (f *Fleet) Lacking(ctx context.Context, h Host) string {
	if problem := f.Condition(ctx, h).Problem(); problem != "" {
		return "it " + problem
	}
	if h.Tier != stacks.TierWeb {
		return ""
	}
	var mu sync.Mutex
	said := map[string]string{}
	balancers := f.Tier(stacks.TierLB)
	_ = Each(ctx, balancers, func(ctx context.Context, b Host) error { // the errors are in the words
		status, err := f.Backend(ctx, b, h.Name)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			said[b.Name] = fmt.Sprintf("%s has to say that it is UP, but %v", b.Name, err)
		case status != "UP":
			said[b.Name] = fmt.Sprintf("%s has to see it UP, but sees it %s", b.Name, status)
		}
		return nil
	})
	for _, b := range balancers {
		if said[b.Name] != "" {
			return said[b.Name]
		}
	}
	return ""
}
