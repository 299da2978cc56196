//go:build lab && !hosts

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// visitRate is how many requests a second visitors make together.
const visitRate = 200

// visit is one request of a visitor, with the second attempt that a browser
// makes by itself.
type visit struct {
	at     time.Time
	took   time.Duration
	method string
	path   string
	status int
	err    error
	// again says that the first attempt's connection was cut. Only what is safe
	// to repeat is repeated.
	again bool
}

func (v visit) good() bool {
	if v.method == http.MethodPost {
		return v.err == nil && v.status == http.StatusSeeOther
	}
	return v.err == nil && v.status == http.StatusOK
}

// visitors look at pages and files and write entries, at a constant rate and
// without waiting for each other. Half of them keep their connections open, as
// browsers do; the others are new each time. They stop by themselves after a while.
type visitors struct {
	project *project
	mark    string
	cancel  context.CancelFunc
	done    chan struct{}

	mu     sync.Mutex
	visits []visit
	sent   int // entries
}

// browser is a client that keeps connections open, or one that does not.
func browser(keep bool) *http.Client {
	return &http.Client{
		Timeout: 15 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives:   !keep,
			MaxIdleConnsPerHost: 6,
			// Before HAProxy does, after 30 s: a request that crosses the end of an idle
			// connection is cut on any day, and says nothing about this one.
			IdleConnTimeout: 20 * time.Second,
			DialContext:     (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

var crowds atomic.Int64

// startVisitors lets visitors come to a site for at most limit.
func startVisitors(t *testing.T, p *project, base string, limit time.Duration) *visitors {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	v := &visitors{project: p, mark: fmt.Sprintf("crowd %d of %d", crowds.Add(1), os.Getpid()), cancel: cancel, done: make(chan struct{})}
	static := staticPathOf(t, base)
	var browsers []*http.Client
	for i := range 20 {
		browsers = append(browsers, browser(i%2 == 0))
	}
	go func() {
		defer close(v.done)
		var running sync.WaitGroup
		defer running.Wait()
		tick := time.NewTicker(time.Second / visitRate)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			c := browsers[i%len(browsers)]
			running.Go(func() {
				switch i / 3 % 5 {
				case 0, 1:
					v.visit(c, http.MethodGet, base+"/", nil)
				case 2, 3:
					v.visit(c, http.MethodGet, base+static, nil)
				case 4:
					v.visit(c, http.MethodPost, base+"/entries", url.Values{"name": {v.mark}, "message": {fmt.Sprintf("entry %d", i)}})
				}
			})
		}
	}()
	t.Cleanup(func() { cancel(); <-v.done })
	// Nothing counts before the first have been served.
	eventually(t, 30*time.Second, "visitors are served", func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, s := range v.visits {
			if s.good() {
				return nil
			}
		}
		return fmt.Errorf("%d visits, none good", len(v.visits))
	})
	return v
}

func (v *visitors) visit(c *http.Client, method, address string, form url.Values) {
	s := visit{at: time.Now(), method: method}
	if u, err := url.Parse(address); err == nil {
		s.path = u.Path
	}
	s.status, s.err = attempt(c, method, address, form)
	if s.err != nil && method == http.MethodGet {
		s.again = true
		s.status, s.err = attempt(c, method, address, form)
	}
	s.took = time.Since(s.at)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.visits = append(v.visits, s)
	if method == http.MethodPost {
		v.sent++
	}
}

func attempt(c *http.Client, method, address string, form url.Values) (int, error) {
	req, err := http.NewRequest(method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// stop sends everybody home and returns the visits by start time.
func (v *visitors) stop() []visit {
	v.cancel()
	<-v.done
	slices.SortFunc(v.visits, func(a, b visit) int { return a.at.Compare(b.at) })
	return v.visits
}

// requireNobodyNoticed stops the visitors and fails the test for every request
// that failed and every entry that is missing or there twice.
func (v *visitors) requireNobodyNoticed(t *testing.T, what string) {
	t.Helper()
	visits := v.stop()
	var bad []visit
	var slowest time.Duration
	repeated := 0
	for _, s := range visits {
		if !s.good() {
			bad = append(bad, s)
		}
		if s.again {
			repeated++
		}
		slowest = max(slowest, s.took)
	}
	missing, twice := v.entries(t)
	report(os.Stdout, "visitors during: "+what, "%d requests, %d failed, %d repeated by the browser, slowest %d ms, entries doubled %d",
		len(visits), len(bad), repeated, slowest.Milliseconds(), twice)
	if len(bad) > 0 {
		first := visits[0].at
		for _, s := range bad[:min(len(bad), 10)] {
			t.Errorf("%.2f s after the start, %s %s failed after %s: status %d, %v", s.at.Sub(first).Seconds(), s.method, s.path, s.took.Round(time.Millisecond), s.status, s.err)
		}
		t.Errorf("%d of %d requests failed", len(bad), len(visits))
		for _, host := range hostsOf("lb") {
			// The fourth of these marks says how a request ended that did not end well.
			t.Logf("what %s logged of requests that were cut:\n%s", host, v.project.on(t, host,
				fmt.Sprintf("journalctl --unit haproxy --output cat --since @%d | grep -v ' ---- ' | tail -n 20", first.Unix())))
		}
	}
	if missing > 0 || twice > 0 {
		t.Errorf("of %d entries %d are missing and %d are there more than once", v.sent, missing, twice)
	}
	if len(visits) < visitRate {
		t.Errorf("only %d requests were sent", len(visits))
	}
}

// entries asks the database how many of the entries that were answered are
// missing and how many are there more than once.
func (v *visitors) entries(t *testing.T) (missing, twice int) {
	t.Helper()
	out := v.project.on(t, "db-1", fmt.Sprintf(`su postgres -c "psql -XAtq guestbook -c \"select count(distinct message), coalesce(sum((n > 1)::int), 0) from (select message, count(*) n from entries where name = '%s' group by message) e\""`, v.mark))
	var there int
	if _, err := fmt.Sscanf(strings.ReplaceAll(strings.TrimSpace(out), "|", " "), "%d %d", &there, &twice); err != nil {
		t.Fatalf("the database answered %q: %v", out, err)
	}
	answered := 0
	for _, s := range v.visits {
		if s.method == http.MethodPost && s.good() {
			answered++
		}
	}
	return max(answered-there, 0), twice
}
