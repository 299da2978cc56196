package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// action is a change under way, or one that was. All that is needed to carry
// it out is in the record, so that it can be repeated after a restart.
type action struct {
	ID       int64               `json:"id"`
	Command  string              `json:"command"`
	Status   string              `json:"status"`
	Started  time.Time           `json:"started"`
	Finished *time.Time          `json:"finished,omitempty"`
	Error    *schema.ActionError `json:"error,omitempty"`
	// Resources are those it is about: the first is the one it was asked for.
	Resources []resource `json:"resources"`
	// Locks are the resources that nothing else may be done to meanwhile.
	Locks []resource `json:"locks,omitempty"`
	// Queue is the key it runs under. See jobs.
	Queue string `json:"queue,omitempty"`
	// Task names what carries it out, empty when there is nothing to do.
	Task string     `json:"task,omitempty"`
	Args actionArgs `json:"args,omitzero"`
	// Then are actions that end together with this one.
	Then []int64 `json:"then,omitempty"`
}

// actionArgs are what tasks need besides the records.
type actionArgs struct {
	Server  int64 `json:"server,omitempty"`
	Network int64 `json:"network,omitempty"`
	Volume  int64 `json:"volume,omitempty"`
	IP      int64 `json:"ip,omitempty"`
	Size    int   `json:"size,omitempty"`
	Start   bool  `json:"start,omitempty"`
}

type resource struct {
	Type string `json:"type"`
	ID   int64  `json:"id"`
}

func (r resource) key() string { return r.Type + "/" + strconv.FormatInt(r.ID, 10) }

func serverRef(id int64) resource { return resource{"server", id} }

// task carries out an action: it calls Machines, without the lock, and returns
// what changes in the state at the end (nil: nothing), also when it failed.
// Tasks are idempotent.
type task func(e *Emulator, ctx context.Context, a action) (func(s *state), error)

// keptActions is how many finished actions are remembered.
const keptActions = 1000

// done records an action that is finished when it is answered, unless the
// emulator was told to take its time.
func (c *call) done(command string, about ...resource) *action {
	return c.start(&action{Command: command, Resources: about, Queue: about[0].key()})
}

// start records an action and runs it once the state is on disk.
func (c *call) start(a *action) *action {
	a.ID = c.s.id()
	a.Started = c.now
	a.Status = "running"
	c.s.Actions[a.ID] = a
	c.s.forgetActions()
	if a.Task == "" && c.e.settings.ActionDelayMS == 0 && !c.e.actionFault(a.Command) {
		c.s.finish(a, c.now, nil)
		return a
	}
	c.after = append(c.after, func() { c.e.enqueue(a.ID, a.Queue) })
	return a
}

// follow records an action that ends together with another.
func (c *call) follow(leader *action, command string, about ...resource) *action {
	a := &action{ID: c.s.id(), Command: command, Status: "running", Started: c.now, Resources: about}
	c.s.Actions[a.ID] = a
	leader.Then = append(leader.Then, a.ID)
	return a
}

func (e *Emulator) enqueue(id int64, queue string) {
	e.jobs.add(queue, func() { e.perform(id) })
}

// perform carries out a running action and finishes it.
func (e *Emulator) perform(id int64) {
	e.mu.Lock()
	a, ok := e.state.Actions[id]
	if !ok || a.Status != "running" {
		e.mu.Unlock()
		return
	}
	work := *a
	delay := time.Duration(e.settings.ActionDelayMS) * time.Millisecond
	fault := e.takeActionFault(work.Command)
	e.mu.Unlock()

	ctx, cancel := context.WithTimeout(e.ctx, e.cfg.ActionTimeout+delay)
	defer cancel()
	var apply func(*state)
	var err error
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	switch {
	case err != nil:
	case fault != nil:
		apply, err = e.failedTask(work), fault
	case tasks[work.Task] != nil:
		apply, err = tasks[work.Task](e, ctx, work)
	case work.Task != "":
		err = fmt.Errorf("this build of the lab knows no task %q", work.Task)
	}
	if err != nil && e.ctx.Err() != nil {
		// Close has cut it short: it stays running, the next start repeats it.
		return
	}
	if err != nil {
		e.log.Error("action failed", "command", work.Command, "id", work.ID, "resources", fmt.Sprint(work.Resources), "error", err)
	}
	err = e.update(func(s *state) {
		if apply != nil {
			apply(s)
		}
		s.finish(s.Actions[id], now(), err)
	})
	if err != nil {
		e.log.Error("an action's end was not saved and will be repeated after a restart", "command", work.Command, "error", err)
	}
}

func (s *state) finish(a *action, at time.Time, err error) {
	a.Finished = &at
	a.Status = "success"
	if err != nil {
		a.Status = "error"
		a.Error = &schema.ActionError{Code: "action_failed", Message: err.Error()}
		var known *apiError
		if errors.As(err, &known) {
			a.Error = &schema.ActionError{Code: known.Code, Message: known.Message}
		}
	}
	for _, id := range a.Then {
		if f, ok := s.Actions[id]; ok && f.Status == "running" {
			f.Finished, f.Status, f.Error = a.Finished, a.Status, a.Error
		}
	}
}

// forgetActions drops the oldest finished actions above keptActions.
func (s *state) forgetActions() {
	if len(s.Actions) <= keptActions+keptActions/10 {
		return
	}
	surplus := len(s.Actions) - keptActions
	for _, id := range slices.Sorted(maps.Keys(s.Actions)) {
		if surplus == 0 {
			return
		}
		if s.Actions[id].Status != "running" {
			delete(s.Actions, id)
			surplus--
		}
	}
}

// busy says whether a running action has locked a resource.
func (s *state) busy(r resource) bool {
	for _, a := range s.Actions {
		if a.Status == "running" && slices.Contains(a.Locks, r) {
			return true
		}
	}
	return false
}

// free refuses with locked when one of the resources is.
func (s *state) free(rs ...resource) error {
	for _, r := range rs {
		if s.busy(r) {
			return locked(strings.ReplaceAll(r.Type, "_", " "), r.ID)
		}
	}
	return nil
}

func (a *action) view() schema.Action {
	v := schema.Action{
		ID: a.ID, Command: a.Command, Status: a.Status, Started: a.Started,
		Finished: a.Finished, Error: a.Error, Resources: []schema.ActionResourceReference{},
	}
	if a.Status != "running" {
		v.Progress = 100
	}
	for _, r := range a.Resources {
		v.Resources = append(v.Resources, schema.ActionResourceReference{ID: r.ID, Type: r.Type})
	}
	return v
}

func views(as []*action) []schema.Action {
	out := []schema.Action{}
	for _, a := range as {
		out = append(out, a.view())
	}
	return out
}

// created answers a request for an action.
func (c *call) created(a *action) (reply, error) {
	return reply{http.StatusCreated, map[string]any{"action": a.view()}}, nil
}

var actionOrder = map[string]func(a, b *action) int{
	"id":       func(a, b *action) int { return int(a.ID - b.ID) },
	"command":  func(a, b *action) int { return strings.Compare(a.Command, b.Command) },
	"status":   func(a, b *action) int { return strings.Compare(a.Status, b.Status) },
	"progress": func(a, b *action) int { return a.view().Progress - b.view().Progress },
	"started":  func(a, b *action) int { return a.Started.Compare(b.Started) },
	"finished": func(a, b *action) int { return finishedAt(a).Compare(finishedAt(b)) },
}

func finishedAt(a *action) time.Time {
	if a.Finished == nil {
		return time.Time{}
	}
	return *a.Finished
}

func (c *call) listActions(keep func(a *action) bool) (reply, error) {
	var out []*action
	for _, id := range slices.Sorted(maps.Keys(c.s.Actions)) {
		a := c.s.Actions[id]
		if keep(a) && c.oneOf("status", a.Status) && c.oneOf("id", strconv.FormatInt(a.ID, 10)) {
			out = append(out, a)
		}
	}
	return answerPage(c, "actions", out, actionOrder, func(a *action) any { return a.view() })
}

// actionsByID is GET /actions. It lists only actions asked for by ID since
// January 2025.
func actionsByID(c *call) (reply, error) {
	if len(c.query["id"]) == 0 {
		return reply{}, failure("deprecated_api_endpoint", "listing all actions is not possible any more; ask for actions by id, or for those of a resource")
	}
	return c.listActions(func(*action) bool { return true })
}

// actionsOf lists the actions of one type of resources, or of one resource
// where the path has an ID.
func actionsOf(kind string, exists func(c *call, id int64) error) handler {
	return func(c *call) (reply, error) {
		var id int64
		if c.r.PathValue("id") != "" {
			var err error
			if id, err = c.pathID("id"); err != nil {
				return reply{}, err
			}
			if err := exists(c, id); err != nil {
				return reply{}, err
			}
		}
		return c.listActions(func(a *action) bool { return a.about(kind, id) })
	}
}

// actionOf gets one action, of a type of resources or (kind "") of any.
func actionOf(kind string) handler {
	return func(c *call) (reply, error) {
		id, err := c.pathID("action")
		if err != nil {
			return reply{}, err
		}
		var of int64
		if c.r.PathValue("id") != "" {
			if of, err = c.pathID("id"); err != nil {
				return reply{}, err
			}
		}
		a, ok := c.s.Actions[id]
		if !ok || (kind != "" && !a.about(kind, of)) {
			return reply{}, notFound("action", id)
		}
		return reply{http.StatusOK, map[string]any{"action": a.view()}}, nil
	}
}

// about says whether an action is about a resource, or (id 0) any of its type.
func (a *action) about(kind string, id int64) bool {
	return slices.ContainsFunc(a.Resources, func(r resource) bool {
		return r.Type == kind && (id == 0 || r.ID == id)
	})
}
