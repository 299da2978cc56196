package provision

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
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
	"time"

	"golang.org/x/crypto/ssh"
)

// host is an SSH server in this process, for what can go wrong with a
// connection and for scripts that only read.
type host struct {
	t        *testing.T
	listener net.Listener
	config   *ssh.ServerConfig
	key      ssh.Signer
	// run handles one command; it returns the exit status.
	run func(command string, in io.Reader, out, errors io.Writer) int
	// forward lets connections through, as to a jump host.
	forward bool
	// deaf accepts connections and logins, but no session.
	deaf bool

	// startups is how many connections may be before their login at the same
	// time; 0 means any number.
	startups int

	mu          sync.Mutex
	connections []net.Conn
	logins      int
	starting    int
	open        int
	offered     []string // fingerprints of the keys that were tried
}

// newHost starts a server that lets in the key that INFRACTL_SSH_IDENTITY
// names from now on, and that runs commands in this computer's sh, without sudo.
// configure changes it before it starts.
func newHost(t *testing.T, configure ...func(*host)) *host {
	t.Helper()
	h := &host{t: t, run: runHere}
	private := identityFile(t, "")
	t.Setenv(identityVariable, private.file)
	t.Setenv(agentVariable, "")
	h.key = newSigner(t)
	h.config = &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if bytes.Equal(key.Marshal(), private.signer.PublicKey().Marshal()) {
				return nil, nil
			}
			return nil, fmt.Errorf("unknown key")
		},
	}
	h.config.AddHostKey(h.key)
	for _, c := range configure {
		c(h)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.listener = listener
	go h.serve(listener)
	t.Cleanup(func() { listener.Close(); h.cut() })
	return h
}

func (h *host) target() Target {
	address := h.listener.Addr().(*net.TCPAddr)
	return Target{
		Name: "web-1", Address: "127.0.0.1", Port: address.Port, User: "infractl",
		HostKey: string(ssh.MarshalAuthorizedKey(h.key.PublicKey())),
	}
}

// cut breaks all connections.
func (h *host) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.connections {
		c.Close()
	}
}

func (h *host) serve(listener net.Listener) {
	for {
		raw, err := listener.Accept()
		if err != nil {
			return
		}
		h.mu.Lock()
		h.connections = append(h.connections, raw)
		refused := h.startups > 0 && h.starting >= h.startups
		if !refused {
			h.starting++
			h.open++
		}
		h.mu.Unlock()
		if refused {
			raw.Close()
			continue
		}
		go func() {
			defer func() {
				h.mu.Lock()
				h.open--
				h.mu.Unlock()
			}()
			_, channels, requests, err := ssh.NewServerConn(raw, h.config)
			h.mu.Lock()
			h.starting--
			if err == nil {
				h.logins++
			}
			h.mu.Unlock()
			if err != nil {
				raw.Close()
				return
			}
			go ssh.DiscardRequests(requests)
			for c := range channels {
				if h.deaf {
					continue
				}
				if c.ChannelType() == "direct-tcpip" {
					go h.through(c)
					continue
				}
				channel, requests, err := c.Accept()
				if err == nil {
					go h.session(channel, requests)
				}
			}
		}()
	}
}

// through connects a channel to where it wants to go.
func (h *host) through(c ssh.NewChannel) {
	var to struct {
		Host   string
		Port   uint32
		Origin string
		From   uint32
	}
	if err := ssh.Unmarshal(c.ExtraData(), &to); err != nil || !h.forward {
		c.Reject(ssh.Prohibited, "open failed")
		return
	}
	raw, err := net.Dial("tcp", net.JoinHostPort(to.Host, fmt.Sprint(to.Port)))
	if err != nil {
		c.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	channel, requests, err := c.Accept()
	if err != nil {
		raw.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	go func() { io.Copy(raw, channel); raw.Close() }()
	io.Copy(channel, raw)
	channel.Close()
}

// entered is how many connections have logged in.
func (h *host) entered() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.logins
}

func (h *host) session(channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close()
	for r := range requests {
		if r.Type != "exec" {
			r.Reply(false, nil)
			continue
		}
		var payload struct{ Command string }
		if err := ssh.Unmarshal(r.Payload, &payload); err != nil {
			r.Reply(false, nil)
			return
		}
		r.Reply(true, nil)
		status := h.run(payload.Command, channel, channel, channel.Stderr())
		channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
		return
	}
}

// runHere runs a command as this user, where a host would use sudo.
func runHere(command string, in io.Reader, out, errors io.Writer) int {
	c := exec.Command("sh", "-c", strings.Replace(command, "sudo -n --", "", 1))
	c.Stdout, c.Stderr = out, errors
	stdin, err := c.StdinPipe()
	if err != nil || c.Start() != nil {
		return 126
	}
	go func() { io.Copy(stdin, in); stdin.Close() }()
	c.Wait()
	return c.ProcessState.ExitCode()
}

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// rsaKey is made once, since that takes long.
var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newRSASigner(t *testing.T) ssh.Signer {
	t.Helper()
	private, err := rsaKey()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

type testKey struct {
	file    string
	signer  ssh.Signer
	private ed25519.PrivateKey
}

// identityFile writes a new private key, encrypted if there is a passphrase.
func identityFile(t *testing.T, passphrase string) testKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return testKey{file, signer, private}
}

// expiring is a context for what hangs.
func expiring(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 300*time.Millisecond)
}
