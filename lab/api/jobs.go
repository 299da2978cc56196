package api

import (
	"context"
	"sync"
)

// jobs runs what takes time: jobs with the same key one after the other in the
// order they came, jobs with different keys side by side. A server's key keeps
// the calls of Machines for it in order.
type jobs struct {
	mu      sync.Mutex
	waiting map[string][]func() // by key; a key is in it while its jobs run
	running int
	stopped bool
	changed chan struct{} // closed and replaced when running becomes 0
}

func newJobs() *jobs {
	return &jobs{waiting: map[string][]func(){}, changed: make(chan struct{})}
}

// add runs a job when its turn has come, unless stop comes first.
func (j *jobs) add(key string, run func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stopped {
		return
	}
	j.running++
	queue, busy := j.waiting[key]
	j.waiting[key] = append(queue, run)
	if !busy {
		go j.drain(key)
	}
}

func (j *jobs) drain(key string) {
	for {
		j.mu.Lock()
		queue := j.waiting[key]
		if j.stopped {
			j.left(len(queue))
			queue = nil
		}
		if len(queue) == 0 {
			delete(j.waiting, key)
			j.mu.Unlock()
			return
		}
		run := queue[0]
		j.waiting[key] = queue[1:]
		j.mu.Unlock()

		run()

		j.mu.Lock()
		j.left(1)
		j.mu.Unlock()
	}
}

// left takes n jobs off the count. The caller holds mu.
func (j *jobs) left(n int) {
	j.running -= n
	if j.running == 0 && n > 0 {
		close(j.changed)
		j.changed = make(chan struct{})
	}
}

// stop lets running jobs finish and drops those that wait.
func (j *jobs) stop() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stopped = true
}

// idle waits until there is no job.
func (j *jobs) idle(ctx context.Context) error {
	for {
		j.mu.Lock()
		running, changed := j.running, j.changed
		j.mu.Unlock()
		if running == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
