package api

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// recorder is a Machines that notes what it is told and keeps a model of the
// world. It fails the test when calls for one server overlap.
type recorder struct {
	t  testing.TB
	mu sync.Mutex

	calls    []string
	servers  map[int64]Server
	running  map[int64]bool
	nets     map[int64]map[int64]Attachment
	rules    map[int64]*FirewallRules
	routes   map[netip.Prefix]int64
	volumes  map[int64]int64 // where each is attached
	sizes    map[int64]int
	inflight map[string]string

	// before is asked before a call is done, without lock. It may block, or
	// refuse the call.
	before func(ctx context.Context, call string) error
}

func newRecorder(t testing.TB) *recorder {
	return &recorder{
		t: t, servers: map[int64]Server{}, running: map[int64]bool{}, nets: map[int64]map[int64]Attachment{},
		rules: map[int64]*FirewallRules{}, routes: map[netip.Prefix]int64{}, volumes: map[int64]int64{},
		sizes: map[int64]int{}, inflight: map[string]string{},
	}
}

// do runs a call under a key that no other call may have meanwhile.
func (r *recorder) do(ctx context.Context, key, call string, change func()) error {
	r.mu.Lock()
	r.calls = append(r.calls, call)
	if other, busy := r.inflight[key]; busy {
		r.t.Errorf("%s while %s was under way", call, other)
	}
	r.inflight[key] = call
	before := r.before
	r.mu.Unlock()
	var err error
	if before != nil {
		err = before(ctx, call)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.inflight, key)
	if err == nil {
		change()
	}
	return err
}

func srvKey(id int64) string { return fmt.Sprintf("server %d", id) }

func (r *recorder) Create(ctx context.Context, s Server) error {
	return r.do(ctx, srvKey(s.ID), "create "+s.Name, func() { r.servers[s.ID] = s })
}

func (r *recorder) Start(ctx context.Context, id int64) error {
	return r.do(ctx, srvKey(id), fmt.Sprintf("start %d", id), func() {
		if _, ok := r.servers[id]; !ok {
			r.t.Errorf("start of server %d, which was not created", id)
		}
		r.running[id] = true
	})
}

func (r *recorder) Stop(ctx context.Context, id int64, orderly bool) error {
	return r.do(ctx, srvKey(id), fmt.Sprintf("stop %d orderly=%t", id, orderly), func() { r.running[id] = false })
}

func (r *recorder) Running(id int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running[id]
}

func (r *recorder) Rebuild(ctx context.Context, s Server) error {
	return r.do(ctx, srvKey(s.ID), "rebuild "+s.Name+" "+s.Image, func() {
		if r.running[s.ID] {
			r.t.Errorf("rebuild of server %d while it runs", s.ID)
		}
		r.servers[s.ID] = s
	})
}

func (r *recorder) Delete(ctx context.Context, id int64) error {
	return r.do(ctx, srvKey(id), fmt.Sprintf("delete %d", id), func() {
		delete(r.servers, id)
		delete(r.running, id)
		delete(r.nets, id)
		delete(r.rules, id)
	})
}

func (r *recorder) Attach(ctx context.Context, id int64, a Attachment) error {
	return r.do(ctx, srvKey(id), fmt.Sprintf("attach %d %s", id, a.IP), func() {
		if r.nets[id] == nil {
			r.nets[id] = map[int64]Attachment{}
		}
		r.nets[id][a.Network] = a
	})
}

func (r *recorder) Detach(ctx context.Context, id, network int64) error {
	return r.do(ctx, srvKey(id), fmt.Sprintf("detach %d %d", id, network), func() { delete(r.nets[id], network) })
}

func (r *recorder) DeleteNetwork(ctx context.Context, network int64) error {
	return r.do(ctx, fmt.Sprintf("network %d", network), fmt.Sprintf("delete network %d", network), func() {
		for id, nets := range r.nets {
			if _, ok := nets[network]; ok {
				r.t.Errorf("network %d deleted with server %d in it", network, id)
			}
		}
	})
}

func (r *recorder) SetFirewall(ctx context.Context, id int64, rules *FirewallRules) error {
	return r.do(ctx, srvKey(id), fmt.Sprintf("firewall %d", id), func() { r.rules[id] = rules })
}

func (r *recorder) RouteFloatingIP(ctx context.Context, p netip.Prefix, server int64) error {
	return r.do(ctx, p.String(), fmt.Sprintf("route %s %d", p, server), func() { r.routes[p] = server })
}

func (r *recorder) CreateVolume(ctx context.Context, id int64, size int, format string) error {
	return r.do(ctx, fmt.Sprintf("volume %d", id), fmt.Sprintf("create volume %d %d %s", id, size, format), func() { r.sizes[id] = size })
}

func (r *recorder) ResizeVolume(ctx context.Context, id int64, size int) error {
	return r.do(ctx, fmt.Sprintf("volume %d", id), fmt.Sprintf("resize volume %d %d", id, size), func() { r.sizes[id] = size })
}

func (r *recorder) AttachVolume(ctx context.Context, id, server int64) error {
	return r.do(ctx, fmt.Sprintf("volume %d", id), fmt.Sprintf("attach volume %d %d", id, server), func() { r.volumes[id] = server })
}

func (r *recorder) DeleteVolume(ctx context.Context, id int64) error {
	return r.do(ctx, fmt.Sprintf("volume %d", id), fmt.Sprintf("delete volume %d", id), func() {
		delete(r.sizes, id)
		delete(r.volumes, id)
	})
}

// told says whether a call was made.
func (r *recorder) told(call string) bool { return r.times(call) > 0 }

func (r *recorder) times(call string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.calls {
		if c == call {
			n++
		}
	}
	return n
}

// since returns the calls from a number on.
func (r *recorder) since(n int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls[n:])
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.calls)
}

func (r *recorder) setBefore(f func(ctx context.Context, call string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = f
}

// look reads the model under its lock.
func look[T any](r *recorder, f func(r *recorder) T) T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return f(r)
}
