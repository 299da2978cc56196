package api

import (
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// budget is the project's budget of requests: so many per hour, refilled
// steadily, and never more than an hour's worth.
type budget struct {
	mu     sync.Mutex
	limit  int // per hour; negative means without limit
	left   float64
	filled time.Time
}

func newBudget(limit int) *budget {
	return &budget{limit: limit, left: float64(limit), filled: time.Now()}
}

func (b *budget) perHour() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.limit
}

// set changes the limit and fills the budget up.
func (b *budget) set(limit int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit, b.left, b.filled = limit, float64(limit), time.Now()
}

// take charges one request, and says in the headers what is left, and when
// (seconds since 1970) the budget will be full again.
func (b *budget) take(h http.Header, at time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.limit < 0 {
		return true
	}
	perSecond := float64(b.limit) / 3600
	if passed := at.Sub(b.filled).Seconds(); passed > 0 {
		b.left = math.Min(float64(b.limit), b.left+passed*perSecond)
		b.filled = at
	}
	ok := b.left >= 1
	if ok {
		b.left--
	}
	reset := at
	if perSecond > 0 {
		missing := (float64(b.limit) - b.left) / perSecond
		reset = at.Add(time.Duration(missing * float64(time.Second)))
	}
	h.Set("RateLimit-Limit", strconv.Itoa(b.limit))
	h.Set("RateLimit-Remaining", strconv.Itoa(int(b.left)))
	h.Set("RateLimit-Reset", strconv.FormatInt(reset.Unix(), 10))
	return ok
}
