package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/infractl/infractl/lab/api"
	"github.com/infractl/infractl/lab/machine"
)

const (
	// plainBootTime bounds the first boot of a plain machine (measured: 1 to 3 s).
	plainBootTime = time.Minute
	// makeTime bounds the making of one, whose base image is there.
	makeTime = 30 * time.Second
)

// PlainMachine is a machine on the wire, as its owner knows it.
type PlainMachine struct {
	Name  string     `json:"name"`
	Image string     `json:"image"`
	IPv4  netip.Addr `json:"ipv4"`
	IPv6  netip.Addr `json:"ipv6"`
	// HostKey is the key by which SSH knows it, in authorized_keys format. It is
	// read from the machine's disk, so that nothing is taken on trust.
	HostKey string `json:"host_key"`
	// Fingerprint is that key's, as ssh-keygen -l prints it.
	Fingerprint string `json:"fingerprint"`
	// Made says that it was made just now.
	Made bool `json:"made"`
}

// MachinesUp makes plain machines of an image until there are n, and returns them
// all by name once they let root in with the lab's key. A running lab is needed.
func MachinesUp(ctx context.Context, o Options, n int, image string) ([]PlainMachine, error) {
	c, err := Connect(o)
	if err != nil {
		return nil, err
	}
	plain, err := c.plain(ctx)
	if err != nil {
		return nil, err
	}
	made := map[string]bool{}
	if len(plain) < n {
		if image == "" {
			image = machine.Images()[0]
		}
		// Here, where there is somebody to tell how it goes.
		if _, err := BuildImage(ctx, o, image, false); err != nil {
			return nil, err
		}
		for range n - len(plain) {
			s, err := c.MakePlain(ctx, machine.Plain{Image: image})
			if err != nil {
				return nil, err
			}
			made[s.Name] = true
		}
		if plain, err = c.plain(ctx); err != nil {
			return nil, err
		}
	}
	var all []PlainMachine
	for _, s := range plain {
		if s.Status != "running" {
			return nil, fmt.Errorf("machine %s is %s: infractl lab machines start %s, or infractl lab fault heal", s.Name, s.Status, s.Name)
		}
		m, err := WaitForPlain(ctx, s)
		if err != nil {
			return nil, err
		}
		m.Made = made[s.Name]
		all = append(all, m)
	}
	return all, nil
}

// plain returns the plain machines, by name.
func (c *Client) plain(ctx context.Context) ([]machine.State, error) {
	all, err := c.Machines(ctx)
	if err != nil {
		return nil, err
	}
	var plain []machine.State
	for _, s := range all {
		if s.Plain {
			plain = append(plain, s)
		}
	}
	return plain, nil
}

// WaitForPlain waits until a plain machine that was started lets somebody log in.
func WaitForPlain(ctx context.Context, s machine.State) (PlainMachine, error) {
	ctx, cancel := context.WithTimeout(ctx, plainBootTime)
	defer cancel()
	var last error
	for {
		m, err := look(ctx, s)
		if err == nil {
			return m, nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return PlainMachine{}, fmt.Errorf("machine %s does not let anybody in: %w: infractl lab logs %s (%v)", s.Name, ctx.Err(), s.Name, last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// look is what a plain machine is like, or why it is not ready.
func look(ctx context.Context, s machine.State) (PlainMachine, error) {
	// cloud-init writes this when all else is done. Its link to the instance is an
	// absolute one, which would lead out of the machine's disk.
	if _, err := os.Stat(filepath.Join(s.Disk, "var/lib/cloud/instances", strconv.FormatInt(s.ID, 10), "boot-finished")); err != nil {
		return PlainMachine{}, err
	}
	text, err := os.ReadFile(filepath.Join(s.Disk, "etc/ssh/ssh_host_ed25519_key.pub"))
	if err != nil {
		return PlainMachine{}, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return PlainMachine{}, err
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", netip.AddrPortFrom(s.IPv4, 22).String())
	if err != nil {
		return PlainMachine{}, err
	}
	conn.Close()
	line := string(ssh.MarshalAuthorizedKey(key))
	return PlainMachine{
		Name: s.Name, Image: s.Image, IPv4: s.IPv4, IPv6: s.IPv6,
		HostKey: line[:len(line)-1], Fingerprint: ssh.FingerprintSHA256(key),
	}, nil
}

// MakePlain makes a machine on the wire and starts it. It lets in the lab's key.
func (c *Client) MakePlain(ctx context.Context, p machine.Plain) (machine.State, error) {
	ctx, cancel := context.WithTimeout(ctx, makeTime)
	defer cancel()
	var s machine.State
	err := c.Do(ctx, http.MethodPost, "/machines", p, &s)
	return s, err
}

// StartPlain powers a plain machine on. Servers of the cloud are powered on by its API.
func (c *Client) StartPlain(ctx context.Context, host string) error {
	return c.order(ctx, "start", hostFault{Host: host})
}

// AttachPlain gives a plain machine an address in a private network of the cloud, as
// a provider does that couples racks with its cloud. The address must not be one
// that the API gives out.
func (c *Client) AttachPlain(ctx context.Context, host string, a api.Attachment) error {
	return c.Do(ctx, http.MethodPost, "/machines/"+url.PathEscape(host)+"/attach", a, nil)
}

// RemovePlain removes a plain machine with its disk.
func (c *Client) RemovePlain(ctx context.Context, host string) error {
	return c.order(ctx, "remove", hostFault{Host: host})
}

// RemoveAllPlain removes all plain machines, and returns their names.
func (c *Client) RemoveAllPlain(ctx context.Context) ([]string, error) {
	all, err := c.plain(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range all {
		if err := c.RemovePlain(ctx, s.Name); err != nil {
			return names, err
		}
		names = append(names, s.Name)
	}
	return names, nil
}
