// Package fleet reaches the hosts of an environment: it knows them from the
// outputs of the last run and talks to them over SSH, several at a time.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/stacks"
)

// Host is a host of the environment.
type Host struct {
	// Name is the short name, such as web-1; Server is the name in the cloud.
	Name   string `json:"name"`
	Server string `json:"server"`
	Tier   string `json:"tier"`
	// Index counts from 1 within the tier.
	Index int `json:"index"`
	// Public and Private are its addresses.
	Public  string `json:"public"`
	Private string `json:"private"`
	// HostKey is its public key, as a line of authorized_keys; for a server that the
	// user had before, also its fingerprint, or nothing.
	HostKey string `json:"hostKey,omitempty"`
	// Own says that the user had the server before. User, Port and Jump are how to
	// log in there, as far as they are not the fleet's or ssh_config's.
	Own  bool   `json:"own,omitempty"`
	User string `json:"user,omitempty"`
	Port int    `json:"port,omitempty"`
	Jump string `json:"jump,omitempty"`
}

// Fleet is all hosts of an environment, load balancers first.
type Fleet struct {
	Hosts []Host
	// User and Port are how to log in.
	User string
	Port int
	// VIP are the virtual IPs by family, ipv4 and ipv6.
	VIP map[string]string
	// URL is where the environment answers.
	URL string
}

// New reads a fleet from an environment's outputs.
func New(outputs map[string]any) (*Fleet, error) {
	f := &Fleet{Port: 22, VIP: map[string]string{}}
	f.URL, _ = outputs["url"].(string)
	if vip, ok := outputs["vip"].(map[string]any); ok {
		for family, address := range vip {
			f.VIP[family], _ = address.(string)
		}
	}
	if login, ok := outputs["ssh"].(map[string]any); ok {
		f.User, _ = login["user"].(string)
		if port, ok := login["port"].(float64); ok {
			f.Port = int(port)
		}
	}
	tiers, _ := outputs["hosts"].(map[string]any)
	for _, tier := range stacks.TierNames() {
		list, _ := tiers[tier].([]any)
		for _, v := range list {
			m, _ := v.(map[string]any)
			h := Host{Tier: tier}
			h.Name, _ = m["name"].(string)
			h.Server, _ = m["server"].(string)
			h.Public, _ = m["public"].(string)
			h.Private, _ = m["private"].(string)
			h.HostKey, _ = m["hostKey"].(string)
			h.Own, _ = m["own"].(bool)
			h.User, _ = m["user"].(string)
			h.Jump, _ = m["jump"].(string)
			if port, ok := m["port"].(float64); ok {
				h.Port = int(port)
			}
			h.Index, _ = strconv.Atoi(strings.TrimPrefix(h.Name, tier+"-"))
			if h.Name == "" || h.Public == "" || h.HostKey == "" && !h.Own {
				return nil, fmt.Errorf("the environment's outputs say too little about a host of tier %s; run up again", tier)
			}
			f.Hosts = append(f.Hosts, h)
		}
	}
	if len(f.Hosts) == 0 {
		return nil, errors.New("the environment's outputs name no hosts; run up first")
	}
	return f, nil
}

// Host finds a host by its short name or its name in the cloud.
func (f *Fleet) Host(name string) (Host, error) {
	i := slices.IndexFunc(f.Hosts, func(h Host) bool { return h.Name == name || h.Server == name })
	if i < 0 {
		return Host{}, fmt.Errorf("there is no host %q; there are %s", name, strings.Join(f.names(), ", "))
	}
	return f.Hosts[i], nil
}

func (f *Fleet) names() []string {
	out := make([]string, len(f.Hosts))
	for i, h := range f.Hosts {
		out[i] = h.Name
	}
	return out
}

// Tier are the hosts of one tier, in order.
func (f *Fleet) Tier(tier string) []Host {
	var out []Host
	for _, h := range f.Hosts {
		if h.Tier == tier {
			out = append(out, h)
		}
	}
	return out
}

// Target is how a host is reached.
func (f *Fleet) Target(h Host) provision.Target {
	t := provision.Target{Name: h.Name, Address: h.Public, Port: f.Port, User: f.User, HostKey: h.HostKey}
	if h.Own {
		t.Own, t.Jump, t.Port, t.User = true, h.Jump, h.Port, h.User
	}
	return t
}

// Connect logs in to a host.
func (f *Fleet) Connect(ctx context.Context, h Host) (*provision.Conn, error) {
	return provision.Connect(ctx, f.Target(h))
}

// Run runs a script as root on one host and returns what it printed.
func (f *Fleet) Run(ctx context.Context, h Host, step, script string) ([]byte, error) {
	conn, err := f.Connect(ctx, h)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Run(ctx, step, script)
}

// parallel is how many hosts are talked to at the same time.
const parallel = 32

// Each does something for every host, several at a time, and returns their
// errors joined, in the order of the hosts.
func Each(ctx context.Context, hosts []Host, do func(context.Context, Host) error) error {
	errs := make([]error, len(hosts))
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = do(ctx, h)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Quote makes one word of s for the hosts' sh.
func Quote(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", `'\''`) + "'"
}
