package provision

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// sites are hosts that one configuration and one known_hosts file describe; they
// let in the same key.
type sites struct {
	known, config strings.Builder
}

// newSites starts hosts by name. Those whose name begins with "jump" let
// connections through.
func newSites(t *testing.T, names ...string) (*sites, map[string]*host) {
	t.Helper()
	all := map[string]*host{}
	s := new(sites)
	var accept func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error)
	identity := ""
	for _, name := range names {
		h := newHost(t, func(h *host) {
			h.forward = strings.HasPrefix(name, "jump")
			if accept == nil {
				accept = h.config.PublicKeyCallback
				identity = os.Getenv(identityVariable)
			}
			h.config.PublicKeyCallback = accept
			// As sshd's default: the eleventh that has not logged in yet may
			// be refused. Here, it is.
			h.startups = 10
		})
		all[name] = h
		fmt.Fprintf(&s.known, "%s %s\n", name, line(h.key.PublicKey()))
		fmt.Fprintf(&s.config, "Host %s\nHostName 127.0.0.1\nPort %d\nUser infractl\nHostKeyAlias %s\n", name, h.target().Port, name)
	}
	t.Setenv(identityVariable, identity)
	return s, all
}

// write writes both files. more comes before what describes the hosts.
func (s *sites) write(t *testing.T, more string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(file, []byte(s.known.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	configFile(t, more+s.config.String()+"Host *\nUserKnownHostsFile "+file+"\nGlobalKnownHostsFile none\n")
}

func owned(name string) Target { return Target{Name: "web-1", Address: name, Own: true} }

// closed waits until a host has no connection any more.
func (h *host) closed(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		h.mu.Lock()
		open := h.open
		h.mu.Unlock()
		if open == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are left", open)
		}
	}
}

func nothingInThePool(t *testing.T) {
	t.Helper()
	jumps.mu.Lock()
	defer jumps.mu.Unlock()
	if len(jumps.open) > 0 {
		t.Errorf("%d connections to jump hosts are left", len(jumps.open))
	}
}

func TestJumpHostsAreGoneThroughInTheirOrder(t *testing.T) {
	s, hosts := newSites(t, "web", "jump1", "jump2", "jump3")
	for way, through := range map[string][]string{
		"Host web\nProxyJump jump1\n":                                    {"jump1"},
		"Host web\nProxyJump jump1,jump2\n":                              {"jump1", "jump2"},
		"Host web\nProxyJump jump2,jump3\nHost jump2\nProxyJump jump1\n": {"jump1", "jump2", "jump3"},
		// What a later one says about its own way does not count: the way is said.
		"Host web\nProxyJump jump2,jump3\nHost jump3\nProxyJump jump1\n": {"jump2", "jump3"},
		"Host web\nProxyJump none\nHost web\nProxyJump jump1\n":          {},
	} {
		s.write(t, way)
		before := map[string]int{}
		for name, h := range hosts {
			before[name] = h.entered()
		}
		c, err := Connect(t.Context(), owned("web"))
		if err != nil {
			t.Fatalf("%s: %v", way, err)
		}
		out, err := c.Run(t.Context(), "test", "echo through")
		if err != nil || string(out) != "through\n" {
			t.Errorf("%s: %q, %v", way, out, err)
		}
		c.Close()
		for name, h := range hosts {
			want := 0
			if name == "web" || slices.Contains(through, name) {
				want = 1
			}
			if got := h.entered() - before[name]; got != want {
				t.Errorf("%s: %d logins at %s", way, got, name)
			}
			h.closed(t)
		}
		nothingInThePool(t)
	}
}

func TestTargetNamesItsJumpHosts(t *testing.T) {
	s, hosts := newSites(t, "web", "jump1", "jump2")
	s.write(t, "Host web\nProxyJump jump1\n")
	for jump, want := range map[string]int{"": 1, "none": 0, "jump2": 0, "infractl@jump1": 1, fmt.Sprintf("jump1:%d", hosts["jump1"].target().Port): 1} {
		before := hosts["jump1"].entered()
		target := owned("web")
		target.Jump = jump
		c, err := Connect(t.Context(), target)
		if err != nil {
			t.Fatalf("%s: %v", jump, err)
		}
		c.Close()
		if got := hosts["jump1"].entered() - before; got != want {
			t.Errorf("%q: %d logins", jump, got)
		}
	}
	// Hosts that are infractl's own can be behind a jump host too.
	target := hosts["web"].target()
	target.Jump = "jump2"
	before := hosts["jump2"].entered()
	c, err := Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if hosts["jump2"].entered() != before+1 {
		t.Error("not through the jump host")
	}
}

func TestManyHostsShareOneLoginAtTheJumpHost(t *testing.T) {
	names := []string{"jump1", "jump2"}
	for i := range 30 {
		names = append(names, fmt.Sprintf("web-%d", i))
	}
	s, hosts := newSites(t, names...)
	s.write(t, "Host web-*\nProxyJump jump1,jump2\n")
	conns := make([]*Conn, 30)
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			var err error
			if conns[i], err = Connect(t.Context(), owned(fmt.Sprintf("web-%d", i))); err != nil {
				t.Error(err)
				return
			}
			if _, err := conns[i].Run(t.Context(), "test", "true"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if a, b := hosts["jump1"].entered(), hosts["jump2"].entered(); a != 1 || b != 1 {
		t.Errorf("%d and %d logins at the jump hosts", a, b)
	}
	// The last one closes the way.
	for i, c := range conns[1:] {
		c.Close()
		if i == 14 {
			if _, err := conns[0].Run(t.Context(), "test", "true"); err != nil {
				t.Errorf("closing others broke it: %v", err)
			}
		}
	}
	conns[0].Close()
	conns[0].Close()
	for _, h := range hosts {
		h.closed(t)
	}
	nothingInThePool(t)
}

func TestManyHostsShareTheErrorOfTheJumpHost(t *testing.T) {
	s, hosts := newSites(t, "web", "jump1")
	s.write(t, "Host web\nProxyJump jump1\n")
	hosts["jump1"].listener.Close()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			target := owned("web")
			target.Name = fmt.Sprintf("web-%d", i)
			_, err := Connect(t.Context(), target)
			if err == nil || !strings.HasPrefix(err.Error(), target.Name+": connect to the jump host jump1 (127.0.0.1:") || !strings.Contains(err.Error(), "refused") {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	nothingInThePool(t)
}

func TestJumpHostsProveThemselves(t *testing.T) {
	s, hosts := newSites(t, "web", "jump1")
	whole := s.known.String()
	key := line(hosts["jump1"].key.PublicKey())
	set := func(text string) {
		s.known.Reset()
		s.known.WriteString(text)
		s.write(t, "Host web\nProxyJump jump1\n")
	}
	set(strings.Replace(whole, "jump1 "+key, "", 1))
	_, err := Connect(t.Context(), owned("web"))
	expect(t, err, ErrHostKeyUnknown, "jump host jump1", ssh.FingerprintSHA256(hosts["jump1"].key.PublicKey()))
	// The configuration itself can say the key.
	target := owned("web")
	target.KnownHosts = "jump1 " + key
	c, err := Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	// Another target does not get the connection for nothing.
	_, err = Connect(t.Context(), owned("web"))
	expect(t, err, ErrHostKeyUnknown)
	c.Close()
	set(strings.Replace(whole, key, line(newSigner(t).PublicKey()), 1))
	_, err = Connect(t.Context(), owned("web"))
	expect(t, err, ErrHostKeyMismatch, "jump host jump1", "do not go on")
	if hosts["web"].entered() != 1 {
		t.Error("the host was reached through a jump host that is not the right one")
	}
	// The host behind it must prove itself too.
	set(strings.Replace(whole, line(hosts["web"].key.PublicKey()), line(newSigner(t).PublicKey()), 1))
	_, err = Connect(t.Context(), owned("web"))
	expect(t, err, ErrHostKeyMismatch)
	nothingInThePool(t)
}

func TestJumpHostThatLetsNothingThrough(t *testing.T) {
	s, hosts := newSites(t, "web", "jump1")
	s.write(t, "Host web\nProxyJump jump1\n")
	hosts["web"].listener.Close()
	_, err := Connect(t.Context(), owned("web"))
	expect(t, err, ErrUnreachable, "refused", "let the jump host jump1 in on port")
	hosts["jump1"].forward = false
	_, err = Connect(t.Context(), owned("web"))
	expect(t, err, ErrUnreachable, "AllowTcpForwarding", "jump host jump1")
	hosts["jump1"].closed(t)
	nothingInThePool(t)
}

func TestJumpHostThatHangs(t *testing.T) {
	s, hosts := newSites(t, "web", "jump1")
	s.write(t, "Host web\nProxyJump jump1\n")
	hosts["jump1"].deaf = true
	ctx, cancel := expiring(t)
	defer cancel()
	start := time.Now()
	_, err := Connect(ctx, owned("web"))
	expect(t, err, ErrUnreachable)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	hosts["jump1"].closed(t)
	nothingInThePool(t)
}

func TestHostBehindAJumpHostThatHangs(t *testing.T) {
	s, hosts := newSites(t, "web", "jump1")
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s.write(t, fmt.Sprintf("Host web\nPort %d\nProxyJump jump1\nConnectTimeout 1\n", silent.Addr().(*net.TCPAddr).Port))
	start := time.Now()
	_, err = Connect(t.Context(), owned("web"))
	expect(t, err, ErrUnreachable)
	if took := time.Since(start); took < 900*time.Millisecond || took > 4*time.Second {
		t.Errorf("it took %s", took)
	}
	hosts["jump1"].closed(t)
	nothingInThePool(t)
}

func TestGivingUpEndsTheConnectingToTheJumpHost(t *testing.T) {
	s, _ := newSites(t, "web", "jump1")
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ended := make(chan struct{})
	go func() {
		c, err := silent.Accept()
		if err == nil {
			for b := make([]byte, 1024); err == nil; {
				_, err = c.Read(b)
			}
		}
		close(ended)
	}()
	s.write(t, fmt.Sprintf("Host web\nProxyJump jump1\nHost jump1\nPort %d\n", silent.Addr().(*net.TCPAddr).Port))
	ctx, cancel := expiring(t)
	defer cancel()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			_, err := Connect(ctx, owned("web"))
			expect(t, err, ErrUnreachable, "jump host jump1")
		})
	}
	wg.Wait()
	select {
	case <-ended:
	case <-time.After(3 * time.Second):
		t.Error("the connection to the jump host is still there")
	}
	nothingInThePool(t)
}

func TestLostJumpHostIsConnectedToAgain(t *testing.T) {
	s, hosts := newSites(t, "web", "jump1")
	s.write(t, "Host web\nProxyJump jump1\n")
	first, err := Connect(t.Context(), owned("web"))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	hosts["jump1"].cut()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = first.Run(ctx, "test", "true")
	expect(t, err, ErrUnreachable)
	for ctx.Err() == nil {
		var second *Conn
		if second, err = Connect(ctx, owned("web")); err == nil {
			second.Close()
			break
		}
	}
	if err != nil {
		t.Error(err)
	}
	first.Close()
	nothingInThePool(t)
}

func TestJumpHostsInACircle(t *testing.T) {
	s, hosts := newSites(t, "web", "jump1", "jump2")
	for way, want := range map[string]string{
		"Host web\nProxyJump jump1\nHost jump1\nProxyJump jump2\nHost jump2\nProxyJump jump1\n": "in a circle",
		"ProxyJump jump1\n": "jump1, jump1",
		"Host web\nProxyJump " + strings.Repeat("jump1,", 8) + "jump2\n": "more than 8",
	} {
		s.write(t, way)
		_, err := Connect(t.Context(), owned("web"))
		expect(t, err, ErrSSHConfig, want)
	}
	if hosts["jump1"].entered() > 0 {
		t.Error("somebody was connected to")
	}
}

func TestJumpHostsThatCannotBeRead(t *testing.T) {
	h := newHost(t)
	target := h.target()
	for _, jump := range []string{"a b", ",", "jump:0", "-oProxyCommand=x", "a@b@$(id)"} {
		target.Jump = jump
		_, err := Connect(t.Context(), target)
		expect(t, err, ErrSSHConfig, "no jump host")
	}
}

func TestJumpHostThatDropsSomeConnectionsIsTriedAgain(t *testing.T) {
	s, hosts := newSites(t, "web", "jump1")
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	dropped := 0
	go func() {
		for {
			c, err := front.Accept()
			if err != nil {
				return
			}
			if dropped < 2 {
				dropped++
				c.Close()
				continue
			}
			go func() {
				to, err := net.Dial("tcp", hosts["jump1"].listener.Addr().String())
				if err != nil {
					return
				}
				go func() { io.Copy(to, c); to.Close() }()
				io.Copy(c, to)
				c.Close()
			}()
		}
	}()
	s.write(t, fmt.Sprintf("Host web\nProxyJump jump1\nHost jump1\nPort %d\n", front.Addr().(*net.TCPAddr).Port))
	c, err := Connect(t.Context(), owned("web"))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
