package api

import (
	"sync"
	"time"
)

// Request is a note of a request that the emulator answered. It has no
// headers and no bodies, and so no tokens and no secrets.
type Request struct {
	Time   time.Time `json:"time"`
	Method string    `json:"method"`
	// Path is path and query.
	Path string `json:"path"`
	// Status is 0 where the connection was dropped without an answer.
	Status        int     `json:"status"`
	Milliseconds  float64 `json:"ms"`
	CorrelationID string  `json:"correlation_id"`
}

// recent keeps the newest requests.
type recent struct {
	mu   sync.Mutex
	ring []Request
	next int // where the next goes, once the ring is full
}

func newRecent(size int) *recent { return &recent{ring: make([]Request, 0, size)} }

func (r *recent) add(q Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring) < cap(r.ring) {
		r.ring = append(r.ring, q)
		return
	}
	r.ring[r.next] = q
	r.next = (r.next + 1) % len(r.ring)
}

// list returns the requests, oldest first.
func (r *recent) list() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(append([]Request{}, r.ring[r.next:]...), r.ring[:r.next]...)
}

func (r *recent) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring, r.next = r.ring[:0], 0
}
