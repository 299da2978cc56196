// Package fleettest has hosts that are SSH servers in this process, for what
// can go wrong on the way to several hosts. Commands run in this computer's sh,
// as this user and without sudo. It is for tests only.
package fleettest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
)

// Host is one server.
type Host struct {
	fleet.Host
	// Files is a directory of the host's own, in which commands run; its path is
	// in $FILES, too.
	Files string

	t      *testing.T
	config *ssh.ServerConfig
	port   int

	mu          sync.Mutex
	listener    net.Listener
	silent      bool
	connections []net.Conn
}

// New starts servers with the given names, such as web-1, and returns the fleet
// that they are.
func New(t *testing.T, names ...string) (*fleet.Fleet, map[string]*Host) {
	t.Helper()
	public := identity(t)
	f := &fleet.Fleet{User: "infractl", VIP: map[string]string{}}
	hosts := map[string]*Host{}
	for i, name := range names {
		tier, _, _ := strings.Cut(name, "-")
		key := signer(t)
		h := &Host{t: t, Files: t.TempDir(), port: f.Port, Host: fleet.Host{
			// All of 127.0.0.0/8 is this computer, so they can share the port.
			Name: name, Server: "test-" + name, Tier: tier, Index: i + 1, Public: fmt.Sprintf("127.0.7.%d", i+1),
			HostKey: string(ssh.MarshalAuthorizedKey(key.PublicKey())),
		}}
		h.config = &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if bytes.Equal(key.Marshal(), public.Marshal()) {
				return nil, nil
			}
			return nil, fmt.Errorf("unknown key")
		}}
		h.config.AddHostKey(key)
		h.Start()
		f.Port = h.port
		f.Hosts = append(f.Hosts, h.Host)
		hosts[name] = h
		t.Cleanup(h.Stop)
	}
	return f, hosts
}

// identity makes the key that everybody logs in with.
func identity(t *testing.T) ssh.PublicKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("INFRACTL_SSH_IDENTITY", file)
	t.Setenv("SSH_AUTH_SOCK", "")
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s.PublicKey()
}

func signer(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Start lets the host answer, also again.
func (h *Host) Start() {
	h.t.Helper()
	listener, err := net.Listen("tcp", fmt.Sprintf("%s:%d", h.Public, h.port))
	if err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listener, h.silent = listener, false
	h.port = listener.Addr().(*net.TCPAddr).Port
	go h.serve(listener)
}

// Stop turns the host off: connections to it are broken and refused.
func (h *Host) Stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listener.Close()
	for _, c := range h.connections {
		c.Close()
	}
	h.connections = nil
}

// Silence lets new connections be made and never be answered.
func (h *Host) Silence() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = true
}

func (h *Host) serve(listener net.Listener) {
	for {
		raw, err := listener.Accept()
		if err != nil {
			return
		}
		h.mu.Lock()
		h.connections = append(h.connections, raw)
		silent := h.silent
		h.mu.Unlock()
		if silent {
			continue
		}
		go func() {
			_, channels, requests, err := ssh.NewServerConn(raw, h.config)
			if err != nil {
				return
			}
			go ssh.DiscardRequests(requests)
			for c := range channels {
				if channel, requests, err := c.Accept(); err == nil {
					go h.session(channel, requests)
				}
			}
		}()
	}
}

func (h *Host) session(channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close()
	for r := range requests {
		var payload struct{ Command string }
		if r.Type != "exec" || ssh.Unmarshal(r.Payload, &payload) != nil {
			_ = r.Reply(false, nil)
			continue
		}
		_ = r.Reply(true, nil)
		status := h.run(payload.Command, channel)
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
		return
	}
}

func (h *Host) run(command string, channel ssh.Channel) int {
	c := exec.Command("sh", "-c", strings.Replace(command, "sudo -n --", "", 1))
	c.Env = append(os.Environ(), "FILES="+h.Files)
	c.Dir = h.Files
	c.Stdout, c.Stderr = channel, channel.Stderr()
	stdin, err := c.StdinPipe()
	if err != nil || c.Start() != nil {
		return 126
	}
	go func() {
		_, _ = io.Copy(stdin, channel)
		stdin.Close()
	}()
	_ = c.Wait() // the exit code says it
	return c.ProcessState.ExitCode()
}
