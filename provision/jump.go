package provision

import (
	"context"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// jumps are the connections to jump hosts of this process. Hosts that are reached
// through the same one share it: a jump host would see dozens of logins at once
// otherwise, and sshd refuses some of more than ten (MaxStartups).
var jumps = pool{open: map[string]*jump{}}

// pool counts who uses which connection.
type pool struct {
	mu   sync.Mutex
	open map[string]*jump
}

// jump is a connection to a jump host.
type jump struct {
	name string
	// key is the way to it.
	key  string
	refs int
	// ready is closed when the connection is there or has failed.
	ready chan struct{}
	// done says the same under the pool's lock.
	done   bool
	client *ssh.Client
	err    error
	via    *jump
	// cancel ends the connecting, stop the looking for signs of life.
	cancel context.CancelFunc
	stop   chan struct{}
}

// acquire returns a connection to the last of the hops, which release gives back.
// All who need the same one at the same time wait for a single login, and share
// its error.
func (p *pool) acquire(ctx context.Context, hops []hop) (*jump, error) {
	var key strings.Builder
	for _, h := range hops {
		key.WriteString(h.same + "\x01")
	}
	p.mu.Lock()
	j := p.open[key.String()]
	if j == nil {
		j = &jump{name: hops[len(hops)-1].jump, key: key.String(), ready: make(chan struct{}), stop: make(chan struct{})}
		// It is made for all who wait for it, and ends when all of them gave up.
		var life context.Context
		life, j.cancel = context.WithCancel(context.WithoutCancel(ctx))
		p.open[j.key] = j
		go p.connect(life, j, hops)
	}
	j.refs++
	p.mu.Unlock()
	select {
	case <-j.ready:
	case <-ctx.Done():
		p.release(j)
		return nil, &Error{Step: hops[len(hops)-1].step(), Kinds: []error{ErrUnreachable}, Err: context.Cause(ctx), Hint: "check that the jump host runs and lets this computer in"}
	}
	if j.err != nil {
		p.release(j)
		return nil, j.err
	}
	return j, nil
}

// connect makes the connection and looks after it.
func (p *pool) connect(ctx context.Context, j *jump, hops []hop) {
	last := len(hops) - 1
	if last > 0 {
		j.via, j.err = p.acquire(ctx, hops[:last])
	}
	if j.err == nil {
		j.client, j.err = hops[last].dial(ctx, j.via)
	}
	p.mu.Lock()
	abandoned := j.refs == 0
	if j.err != nil {
		p.forget(j)
	}
	j.done = true
	close(j.ready)
	p.mu.Unlock()
	if abandoned || j.err != nil {
		p.close(j)
		return
	}
	go keepAlive(j.client, j.stop, func() { j.client.Close() })
	_ = j.client.Wait() // whatever ended it
	// The next one who needs it makes a new one.
	p.mu.Lock()
	p.forget(j)
	p.mu.Unlock()
}

// forget takes a connection out of the pool, if it is the one in there.
func (p *pool) forget(j *jump) {
	if p.open[j.key] == j {
		delete(p.open, j.key)
	}
}

// release gives a connection back. The last one closes it.
func (p *pool) release(j *jump) {
	if j == nil {
		return
	}
	p.mu.Lock()
	j.refs--
	last := j.refs == 0
	if last {
		p.forget(j)
		j.cancel()
	}
	// If it is not there yet, connect sees that nobody wants it any more.
	finish := last && j.done && j.err == nil
	p.mu.Unlock()
	if finish {
		p.close(j)
	}
}

// close closes a connection that nobody uses, and gives back the one it goes through.
func (p *pool) close(j *jump) {
	if j.client != nil {
		close(j.stop)
		closeClient(j.client, j.via)
	}
	p.release(j.via)
}
