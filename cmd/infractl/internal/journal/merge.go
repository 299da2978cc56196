package journal

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/provision"
)

// Sink takes what is read.
type Sink struct {
	// Entry takes entries in the order of their times, one at a time.
	Entry func(Entry) error
	// Trouble hears of a host that cannot be read, Again of one that can be
	// read again. One of them may be called while Entry is.
	Trouble func(host string, err error)
	Again   func(host string)
}

const (
	// window is how long a new entry waits for older ones of other hosts.
	window = 300 * time.Millisecond
	// patience is how long the first entries wait for hosts that do not answer.
	patience = 3 * time.Second
)

// Read reads the logs of hosts and merges them by time, until they end or, if
// they are followed, until the context does. It returns the hosts that could
// not be read to the end, or cannot be at the end.
func Read(ctx context.Context, hosts []fleet.Host, connect Connect, q Query, sink Sink) ([]string, error) {
	return read(ctx, sources(hosts, connect, q), q, sink)
}

func read(ctx context.Context, all []*source, q Query, sink Sink) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if q.Follow {
		return follow(ctx, all, q, sink)
	}
	return collect(ctx, all, q, sink)
}

// troubles are the sources that cannot be read.
type troubles struct {
	mu   sync.Mutex
	sink Sink
	of   map[*source]bool
}

// note tells of an error, once for a host until it can be read again.
func (t *troubles) note(s *source, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := false
	for other := range t.of {
		known = known || other.host.Name == s.host.Name
	}
	if t.of == nil {
		t.of = map[*source]bool{}
	}
	t.of[s] = true
	if !known {
		t.sink.Trouble(s.host.Name, err)
	}
}

// over notes that a source can be read.
func (t *troubles) over(s *source) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.of[s] {
		return
	}
	delete(t.of, s)
	for other := range t.of {
		if other.host.Name == s.host.Name {
			return
		}
	}
	t.sink.Again(s.host.Name)
}

// hosts are those that are in trouble.
func (t *troubles) hosts() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for s := range t.of {
		out = append(out, s.host.Name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// collect merges logs that end.
func collect(ctx context.Context, all []*source, q Query, sink Sink) ([]string, error) {
	t := &troubles{sink: sink}
	feeds := make([]chan Entry, len(all))
	for i, s := range all {
		feeds[i] = make(chan Entry, 256)
		go func() {
			defer close(feeds[i])
			var held []Entry
			// With a pattern and a number of lines, journalctl begins with the latest.
			backwards := s.format == nil && q.Pattern != "" && q.Lines >= 0
			send := func(e Entry) error {
				select {
				case feeds[i] <- e:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			err := s.read(ctx, func(e Entry) error {
				if backwards {
					held = append(held, e)
					return nil
				}
				return send(e)
			}, func() {})
			slices.SortStableFunc(held, inJournal)
			for _, e := range held {
				if send(e) != nil {
					return
				}
			}
			if err != nil && ctx.Err() == nil {
				t.note(s, err)
			}
		}()
	}
	// The heads of all feeds; that with the oldest entry comes first.
	h := &queue{}
	pull := func(i int) {
		if e, ok := <-feeds[i]; ok {
			heap.Push(h, item{entry: e, source: i})
		}
	}
	for i := range feeds {
		pull(i)
	}
	var last []Entry // the latest, if only so many are wanted
	for h.Len() > 0 {
		next := heap.Pop(h).(item)
		pull(next.source)
		if q.Lines < 0 {
			if err := sink.Entry(next.entry); err != nil {
				return nil, err
			}
			continue
		}
		if last = append(last, next.entry); len(last) > 2*q.Lines+1024 {
			last = slices.Clone(last[len(last)-q.Lines:])
		}
	}
	if err := ctx.Err(); err != nil {
		return t.hosts(), err
	}
	for _, e := range last[max(0, len(last)-max(q.Lines, 0)):] {
		if err := sink.Entry(e); err != nil {
			return nil, err
		}
	}
	return t.hosts(), nil
}

// inJournal is the order of entries of one host: that of its journal, or of time
// if they are from several.
func inJournal(a, b Entry) int {
	whichA, numberA, okA := a.sequence()
	whichB, numberB, okB := b.sequence()
	if okA && okB && whichA == whichB {
		return cmp.Compare(numberA, numberB)
	}
	return a.Time.Compare(b.Time)
}

// follow merges logs that go on. What is new waits a moment for what is older.
func follow(ctx context.Context, all []*source, q Query, sink Sink) ([]string, error) {
	t := &troubles{sink: sink}
	entries := make(chan item, 256)
	live := make(chan int, len(all))
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i, s := range all {
		wg.Go(func() {
			first := sync.OnceFunc(func() { live <- i })
			for pause := pauseMin; ; {
				err := s.read(ctx, func(e Entry) error {
					select {
					case entries <- item{entry: e, source: i}:
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}, func() {
					first()
					pause = pauseMin
					t.over(s)
				})
				if ctx.Err() != nil {
					return
				}
				switch {
				case err == nil:
					err = errors.New(s.host.Name + ": its log has ended; it is opened again")
				case s.live && errors.Is(err, provision.ErrUnreachable):
					err = errors.New(s.host.Name + " does not answer any more; it is tried until it does")
				}
				first() // nobody waits for it any more
				t.note(s, err)
				select {
				case <-ctx.Done():
					return
				case <-time.After(pause):
				}
				pause = min(2*pause, pauseMax)
			}
		})
	}
	h := &queue{}
	waiting, began := len(all), time.Now()
	tick := time.NewTicker(window / 6)
	defer tick.Stop()
	arrived := 0
	take := func(it item) {
		arrived++
		it.arrived, it.number = time.Now(), arrived
		heap.Push(h, it)
	}
	for begun := false; ; {
		select {
		case <-ctx.Done():
			return t.hosts(), nil
		case it := <-entries:
			take(it)
		case <-live:
			waiting--
		case <-tick.C:
		}
		if !begun {
			if waiting > 0 && time.Since(began) < patience {
				continue
			}
			// What had been read before the last one said so is there, too.
			for drained := false; !drained; {
				select {
				case it := <-entries:
					take(it)
				default:
					drained = true
				}
			}
			begun = true
			for q.Lines >= 0 && h.Len() > q.Lines {
				heap.Pop(h)
			}
			for i := range *h {
				(*h)[i].arrived = time.Time{}
			}
		}
		for h.Len() > 0 && time.Since((*h)[0].arrived) >= window {
			if err := sink.Entry(heap.Pop(h).(item).entry); err != nil {
				return t.hosts(), err
			}
		}
	}
}

// item is an entry on its way to the sink.
type item struct {
	entry   Entry
	source  int
	arrived time.Time
	number  int
}

// queue is a heap of items, the oldest first.
type queue []item

func (q queue) Len() int      { return len(q) }
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(item)) }
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}
func (q queue) Less(i, j int) bool {
	a, b := q[i], q[j]
	if !a.entry.Time.Equal(b.entry.Time) {
		return a.entry.Time.Before(b.entry.Time)
	}
	if a.source != b.source {
		return a.source < b.source
	}
	return a.number < b.number
}
