// Package inventory works on the list of servers that the user has anyway: it says
// what they are, and decides which may join and which may go. It reads the
// environment's configuration and what others have seen on a server; it opens no
// connection and writes no file.
package inventory

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/infractl/infractl/stacks"
)

// Server is a server of the inventory.
type Server struct {
	// Name is its own; it may be empty.
	Name string `json:"name,omitempty"`
	// Lists are the tiers that it is given to, or spare.
	Lists []string `json:"lists"`
	// Hosts are the hosts of the environment that it is, such as web-1. There are none
	// if nothing needs it.
	Hosts   []string `json:"hosts"`
	Address string   `json:"address"`
	Port    int      `json:"port"`
	User    string   `json:"user"`
	Private string   `json:"private,omitempty"`
	Jump    string   `json:"jump,omitempty"`
	// HostKey is as the configuration has it; empty means that known_hosts decides.
	HostKey string `json:"hostKey,omitempty"`
	// MemoryMB is in MiB.
	MemoryMB int `json:"memory"`
	Cores    int `json:"cores"`
	Debian   int `json:"debian"`

	// Own is the same as the program sees it.
	Own *stacks.OwnServer `json:"-"`
}

// Servers are all servers of an environment's inventory: those of tiers in the order
// in which traffic passes them, then the spare ones.
func Servers(env stacks.Environment) []Server {
	var out []Server
	place := map[*stacks.OwnServer]int{}
	take := func(list string, servers []*stacks.OwnServer) {
		for _, s := range servers {
			i, again := place[s]
			if !again {
				i = len(out)
				place[s] = i
				one := Server{
					Name: s.Name, Hosts: []string{}, Address: s.Address, Port: s.Port, User: s.User, Jump: s.Jump,
					HostKey: s.HostKey, MemoryMB: s.MemoryMB, Cores: s.Cores, Debian: s.Debian, Own: s,
				}
				if s.Private.IsValid() {
					one.Private = s.Private.String()
				}
				out = append(out, one)
			}
			out[i].Lists = append(out[i].Lists, list)
		}
	}
	for _, tier := range stacks.TierNames() {
		take(tier, env.Inventory.Tiers[tier])
	}
	take(stacks.Spare, env.Inventory.Spare)
	for _, tier := range stacks.TierNames() {
		for _, h := range env.TierHosts(tier) {
			if i, ok := place[h.Own]; ok && h.Own != nil {
				out[i].Hosts = append(out[i].Hosts, h.Name)
			}
		}
	}
	return out
}

// Title is what a server is called in messages: by its name, else as one of the
// environment's hosts, else by its address.
func (s Server) Title() string {
	switch {
	case s.Name != "":
		return s.Name
	case len(s.Hosts) > 0:
		return s.Hosts[0]
	}
	return s.Address
}

// Endpoint is where SSH reaches it: the port is left out where it is 22.
func (s Server) Endpoint() string {
	if s.Port == 22 || s.Port == 0 {
		return s.Address
	}
	return net.JoinHostPort(s.Address, strconv.Itoa(s.Port))
}

// Is says whether a word names the server: by its name, an address, or a host that
// it is.
func (s Server) Is(word string) bool {
	lower := strings.ToLower(word)
	return s.Name != "" && s.Name == word || slices.Contains(s.Hosts, word) ||
		strings.ToLower(s.Address) == lower || strings.ToLower(net.JoinHostPort(s.Address, strconv.Itoa(s.Port))) == lower || s.Private == word
}

// Find finds the server that a word names.
func Find(all []Server, word string) (Server, error) {
	var found []Server
	for _, s := range all {
		if s.Is(word) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if len(all) == 0 {
			return Server{}, fmt.Errorf("there is no server %q: the inventory is empty", word)
		}
		return Server{}, fmt.Errorf("there is no server %q; there are %s", word, titles(all))
	}
	return Server{}, fmt.Errorf("%q is more than one server: %s; add the port, such as %s", word, titles(found), net.JoinHostPort(found[0].Address, strconv.Itoa(found[0].Port)))
}

func titles(all []Server) string {
	names := make([]string, len(all))
	for i, s := range all {
		names[i] = s.Title()
	}
	return strings.Join(names, ", ")
}

// Key says by what SSH knows the server, for people.
func (s Server) Key() string {
	if s.HostKey == "" {
		return "known_hosts"
	}
	if f := fingerprint(s.HostKey); f != "" {
		if strings.HasPrefix(s.HostKey, authority) {
			return "authority " + f
		}
		return f
	}
	return s.HostKey
}

// authority marks the key of one that certifies host keys.
const authority = "@cert-authority "

// fingerprint is that of a key or an authority as the configuration has it; empty if
// it cannot be read.
func fingerprint(hostKey string) string {
	if strings.HasPrefix(hostKey, "SHA256:") {
		return strings.TrimRight(hostKey, "=")
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(strings.TrimPrefix(hostKey, authority)))
	if err != nil {
		return ""
	}
	return ssh.FingerprintSHA256(key)
}
