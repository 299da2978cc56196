package health

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/stacks"
	"github.com/infractl/infractl/templates/haproxy"
)

//go:embed look.sh
var look string

// Sockets of HAProxy on load balancers and of the gate on application hosts.
const (
	balancerSocket = "/run/haproxy/admin.sock"
	gateSocket     = "/run/infractl-gate/admin.sock"
)

// Observer looks at an environment, once or again and again. It keeps its
// connections to the hosts. Its methods must not be called concurrently.
type Observer struct {
	Environment string
	Fleet       *fleet.Fleet
	// HealthPath is the path that answers 200 when the application can serve;
	// empty if it is not known.
	HealthPath string
	// Holders asks the cloud who holds the virtual IPs. It is nil where they are on
	// the wire, and the load balancers' own word is all there is.
	Holders func(context.Context) ([]engine.Holder, error)
	// Described says what should be on the hosts, by name. It may take its
	// time: hosts are asked for the rest meanwhile. Nil, or an error, means that
	// drift is not known.
	Described func() (map[string]desired.Host, error)
	// Apart is how long ago drift may have been looked for.
	Apart time.Duration
	// Runs is what the state tells of runs.
	Runs Runs

	mu     sync.Mutex
	conns  map[string]*provision.Conn
	before map[string]sample
	// answered are the hosts that answered last time.
	answered map[string]bool
	drifts   map[string]seenDrift
}

// Runs is what is known of runs that change the environment.
type Runs struct {
	LastChange time.Time
	// Running says who is changing it now; empty if nobody is.
	Running    string
	Unfinished *Unfinished
}

// seenDrift is drift and when it was seen.
type seenDrift struct {
	*Drift
	at time.Time
}

// facts is everything that one look has found out.
type facts struct {
	site     Site
	holders  []engine.Holder
	wire     bool
	cloudErr error
	readings map[string]*reading
	errors   map[string]error
	// slow are hosts that let in and did not answer in time.
	slow map[string]bool
	// limit is how long a host was waited for.
	limit  time.Duration
	drifts map[string]*Drift
	// before are the samples of the look before this one.
	before map[string]sample
	runs   Runs
}

// Look asks everybody at the same time and waits for limit at most.
func (o *Observer) Look(ctx context.Context, limit time.Duration) Snapshot {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	f := facts{readings: map[string]*reading{}, errors: map[string]error{}, slow: map[string]bool{}, drifts: map[string]*Drift{}, limit: limit, before: o.before, runs: o.Runs}
	var wg sync.WaitGroup
	wg.Go(func() { f.site = ask(ctx, o.Fleet.URL, o.HealthPath) })
	f.wire = o.Holders == nil
	if !f.wire {
		wg.Go(func() { f.holders, f.cloudErr = o.Holders(ctx) })
	}
	wg.Go(func() {
		_ = fleet.Each(ctx, o.Fleet.Hosts, func(ctx context.Context, h fleet.Host) error { // errors are facts
			r, d, err := o.host(ctx, h)
			o.mu.Lock()
			defer o.mu.Unlock()
			f.readings[h.Name], f.drifts[h.Name], f.errors[h.Name] = r, d, err
			f.slow[h.Name] = errors.Is(err, errSlow)
			return nil
		})
	})
	wg.Wait()
	o.before, o.answered = map[string]sample{}, map[string]bool{}
	for name, r := range f.readings {
		o.answered[name] = r != nil
		if s := r.last(); s != nil {
			o.before[name] = *s
		}
	}
	s := assess(o.Environment, o.Fleet, f, began)
	s.Seconds = time.Since(began).Seconds()
	return s
}

// Close ends the connections to the hosts.
func (o *Observer) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.conns {
		c.Close()
	}
	o.conns = nil
}

// host looks at one host. What could not be found out about its drift is no error.
func (o *Observer) host(ctx context.Context, h fleet.Host) (*reading, *Drift, error) {
	o.mu.Lock()
	kept := o.conns[h.Name] != nil
	o.mu.Unlock()
	r, d, err := o.read(ctx, h)
	if err != nil && kept && ctx.Err() == nil {
		// The connection was from before, and the host may have booted since.
		r, d, err = o.read(ctx, h)
	}
	return r, d, err
}

// errSlow is a host that let in and did not answer in time.
var errSlow = fmt.Errorf("let in, but did not answer: %w", context.DeadlineExceeded)

// answers keeps what a host says.
type answers struct {
	bytes.Buffer
	mark []byte
	// asked is closed when the host has answered what matters most, or does not
	// answer any more.
	asked chan struct{}
	once  sync.Once
}

func (a *answers) Write(p []byte) (int, error) {
	n, err := a.Buffer.Write(p)
	if bytes.Contains(a.Bytes(), a.mark) {
		a.end()
	}
	return n, err
}

func (a *answers) end() { a.once.Do(func() { close(a.asked) }) }

// read lets a host run look.sh. Drift is looked for when that has said what
// matters most, while it waits for its second sample.
func (o *Observer) read(ctx context.Context, h fleet.Host) (*reading, *Drift, error) {
	conn, err := o.connect(ctx, h)
	if err != nil {
		return nil, nil, err
	}
	// A host that died does not confirm that a session has ended, so the
	// connection goes when the time is up.
	defer context.AfterFunc(ctx, func() { o.drop(h) })()
	o.mu.Lock()
	again := o.answered[h.Name]
	o.mu.Unlock()
	mark := "@@" + word()
	text := &answers{mark: []byte("\n" + mark + " asked\n"), asked: make(chan struct{})}
	var d *Drift
	var wg sync.WaitGroup
	wg.Go(func() {
		<-text.asked
		d = o.drift(ctx, conn, h)
	})
	status, err := conn.Stream(ctx, "look", script(h, mark, again), text, io.Discard)
	text.end()
	if err != nil {
		o.drop(h)
	}
	wg.Wait()
	late := errors.Is(ctx.Err(), context.DeadlineExceeded)
	if err != nil && !late {
		return nil, nil, err
	}
	r, err := parse(text.Bytes(), mark)
	switch {
	case err != nil && late:
		return nil, nil, errSlow
	case err != nil:
		err = fmt.Errorf("exit status %d: %w", status, err)
		return nil, nil, &provision.Error{Host: h.Name, Step: "look", Err: err, Hint: "this needs Debian 12 or newer with systemd"}
	}
	return r, d, nil
}

// drift is what on the host is not as it should be, or was a moment ago; nil if
// that is not known.
func (o *Observer) drift(ctx context.Context, conn *provision.Conn, h fleet.Host) *Drift {
	o.mu.Lock()
	seen := o.drifts[h.Name]
	o.mu.Unlock()
	if o.Described == nil || seen.Drift != nil && time.Since(seen.at) < o.Apart {
		return seen.Drift
	}
	all, err := o.Described()
	wanted, ok := all[h.Name]
	if err != nil || !ok {
		return nil
	}
	d, err := drift(ctx, conn, wanted)
	if err != nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.drifts == nil {
		o.drifts = map[string]seenDrift{}
	}
	o.drifts[h.Name] = seenDrift{d, time.Now()}
	return d
}

func (o *Observer) connect(ctx context.Context, h fleet.Host) (*provision.Conn, error) {
	o.mu.Lock()
	conn := o.conns[h.Name]
	o.mu.Unlock()
	if conn != nil && conn.Target() == o.Fleet.Target(h) {
		return conn, nil
	}
	conn, err := o.Fleet.Connect(ctx, h)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.conns == nil {
		o.conns = map[string]*provision.Conn{}
	}
	o.conns[h.Name] = conn
	return conn, nil
}

// drop ends a connection that is of no more use.
func (o *Observer) drop(h fleet.Host) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.conns[h.Name]; c != nil {
		c.Close()
		delete(o.conns, h.Name)
	}
}

// script asks a host for everything that its tier has. again says that it was
// asked before: then one sample of its counters is enough.
func script(h fleet.Host, mark string, again bool) string {
	var b strings.Builder
	b.WriteString(look)
	fmt.Fprintf(&b, "mark=%s\n", fleet.Quote(mark))
	socket := ""
	var asks []string
	switch h.Tier {
	case stacks.TierLB:
		socket = balancerSocket
		asks = append(asks, fmt.Sprintf("balancer %d", haproxy.MonitorPort))
	case stacks.TierWeb:
		asks = append(asks, "web")
	case stacks.TierApp:
		socket = gateSocket
		asks = append(asks, "application")
	case stacks.TierDB:
		asks = append(asks, "database "+fleet.Quote(h.Private))
	}
	patterns := append([]string{"units"}, units[h.Tier]...)
	for i, p := range patterns[1:] {
		patterns[i+1] = fleet.Quote(p)
	}
	asks = append(asks, "machine", "drained", strings.Join(patterns, " "))
	more := []string{"certificates"}
	if h.Tier != stacks.TierDB { // see database in look.sh
		more = []string{"ready", "certificates"}
	}
	fmt.Fprintf(&b, "asks() {\n%s\n}\nmore() {\n%s\n}\n", strings.Join(asks, "\n"), strings.Join(more, "\n"))
	switch {
	case socket == "":
		b.WriteString("asks\nasked\nmore\n")
	case again:
		b.WriteString("asks\nsample " + fleet.Quote(socket) + "\nasked\nmore\n")
	default:
		b.WriteString("between " + fleet.Quote(socket) + "\n")
	}
	b.WriteString("finish\n")
	return b.String()
}

// units are patterns of the units that serve, by tier.
var units = map[string][]string{
	stacks.TierLB:  {"haproxy.service", "keepalived.service", "infractl-vip.service", "infractl-lb-health.service"},
	stacks.TierWeb: {"nginx.service"},
	stacks.TierApp: {"infractl-gate.service", "app-*.service"},
	stacks.TierDB:  {"postgresql@*.service"},
}

// ask asks the site as a client would. No proxy of this computer's is in between.
func ask(ctx context.Context, url, healthPath string) Site {
	s := Site{URL: url, Asked: url}
	if url == "" {
		s.Error = "the environment's outputs name no address"
		return s
	}
	if healthPath != "" {
		s.Asked = strings.TrimSuffix(url, "/") + healthPath
	}
	ctx, cancel := context.WithTimeout(ctx, siteLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Asked, nil)
	if err != nil {
		s.Error = err.Error()
		return s
	}
	request.Header.Set("User-Agent", "infractl status")
	// A connection of its own, or it would ask the load balancer of last time.
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	began := time.Now()
	response, err := client.Do(request)
	if err == nil {
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20))
		s.Status = response.StatusCode
	}
	s.Milliseconds = float64(time.Since(began).Microseconds()) / 1000
	if err != nil {
		s.Error = cause(err, siteLimit)
	}
	return s
}

// siteLimit is how long a client would wait for the site.
const siteLimit = 2 * time.Second

// word cannot be guessed and has hexadecimal digits only.
func word() string {
	b := make([]byte, 8)
	rand.Read(b)
	return hex.EncodeToString(b)
}
