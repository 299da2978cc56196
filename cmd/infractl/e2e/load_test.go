//go:build lab

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// client makes a new connection for every request, so that each one meets the
// load balancer as a stranger would.
func client(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext:       (&net.Dialer{Timeout: timeout}).DialContext,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is what came back for one request.
type answer struct {
	status       int
	lb, web, app string
	body         string
	header       http.Header
	took         time.Duration
}

// get fetches a URL once; any status is an answer, only silence is an error.
func get(ctx context.Context, c *http.Client, url string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	began := time.Now()
	res, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return answer{}, fmt.Errorf("reading the body: %w", err)
	}
	return answer{
		status: res.StatusCode,
		lb:     res.Header.Get("X-Infractl-Lb"),
		web:    res.Header.Get("X-Infractl-Web"),
		app:    res.Header.Get("X-Infractl-App"),
		body:   string(body),
		header: res.Header,
		took:   time.Since(began),
	}, nil
}

// sample is one request of a load.
type sample struct {
	at     time.Time
	took   time.Duration
	status int
	err    error
}

func (s sample) good() bool { return s.err == nil && s.status == http.StatusOK }

// load sends idempotent requests at a constant rate until it is stopped, each
// with a connection of its own and without waiting for the one before.
type load struct {
	mu      sync.Mutex
	samples []sample
	cancel  context.CancelFunc
	done    chan struct{}
}

// startLoad sends rate requests a second to the URLs in turn, for at most
// limit; a request is given up after timeout.
func startLoad(urls []string, rate int, timeout, limit time.Duration) *load {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	l := &load{cancel: cancel, done: make(chan struct{})}
	c := client(timeout)
	go func() {
		defer close(l.done)
		var running sync.WaitGroup
		defer running.Wait()
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			url := urls[i%len(urls)]
			running.Go(func() {
				at := time.Now()
				// The request itself outlives the load's end, so that stopping is no failure.
				a, err := get(context.Background(), c, url)
				l.mu.Lock()
				defer l.mu.Unlock()
				l.samples = append(l.samples, sample{at: at, took: time.Since(at), status: a.status, err: err})
			})
		}
	}()
	return l
}

// stop ends the load, waits for what is in flight and returns all samples by start time.
func (l *load) stop() []sample {
	l.cancel()
	<-l.done
	slices.SortFunc(l.samples, func(a, b sample) int { return a.at.Compare(b.at) })
	return l.samples
}

// outage is the longest time between two good answers that has a bad one in
// between, measured at the moments the answers arrived; 0 if none was bad.
func outage(samples []sample) time.Duration {
	var arrivals, lost []time.Time
	for _, s := range samples {
		if s.good() {
			arrivals = append(arrivals, s.at.Add(s.took))
		} else {
			lost = append(lost, s.at)
		}
	}
	slices.SortFunc(arrivals, time.Time.Compare)
	var worst time.Duration
	for i := 1; i < len(arrivals); i++ {
		from, to := arrivals[i-1], arrivals[i]
		if slices.ContainsFunc(lost, func(at time.Time) bool { return !at.Before(from) && at.Before(to) }) {
			worst = max(worst, to.Sub(from))
		}
	}
	return worst
}

// slowest is the longest that a good answer took.
func slowest(samples []sample) time.Duration {
	var worst time.Duration
	for _, s := range samples {
		if s.good() {
			worst = max(worst, s.took)
		}
	}
	return worst
}

// failures are the samples that were not good.
func failures(samples []sample) []sample {
	return slices.DeleteFunc(slices.Clone(samples), sample.good)
}
