package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/infractl/infractl/stacks"
)

// checkCatalog reports whatever the environment needs and the cloud does not offer.
func checkCatalog(spec stacks.Environment, c catalog) []stacks.Problem {
	var problems []stacks.Problem
	add := func(key, format string, args ...any) {
		problems = append(problems, stacks.Problem{Key: key, Message: fmt.Sprintf(format, args...)})
	}
	checkPlace := func(key, location, image string) {
		if zone, ok := c.locations[location]; !ok {
			add(key+"location", "there is no location %q; there is %s", location, strings.Join(sorted(c.locations), ", "))
		} else if zone != spec.Network.Zone {
			add(key+"location", "%s is in network zone %s, but infractl:network.zone is %s", location, zone, spec.Network.Zone)
		}
		if !c.images[image] {
			add(key+"image", "the cloud does not offer image %q", image)
		}
	}
	if spec.Uses(stacks.TargetHosts) && !spec.Uses(stacks.TargetCloud) {
		return nil
	}
	checkPlace("infractl:", spec.Location, spec.Image)
	for _, name := range stacks.TierNames() {
		t := spec.Tiers[name]
		if t.Target == stacks.TargetHosts {
			continue
		}
		key := "infractl:tiers." + name
		// A tier without a word of its own has the environment's mistake.
		if t.Location != spec.Location || t.Image != spec.Image {
			checkPlace(key+".", t.Location, t.Image)
		}
		_, ok := c.locations[t.Location]
		typ, found := c.types[t.Type]
		if !found {
			add(key+".type", "there is no server type %q", t.Type)
			continue
		}
		var names []string
		offered := len(typ.Locations) == 0 || !ok
		for _, l := range typ.Locations {
			if l.Location == nil {
				continue
			}
			names = append(names, l.Location.Name)
			if l.Location.Name == t.Location && (l.Deprecation == nil || time.Now().Before(l.Deprecation.UnavailableAfter)) {
				offered = true
			}
		}
		if !offered {
			add(key+".type", "%s is not offered in %s; it is in %s", t.Type, t.Location, strings.Join(names, ", "))
		}
	}
	return problems
}

// checkNetwork reports hosts that the network has no room for, since others
// have put servers into it.
func checkNetwork(spec stacks.Environment, inv inventory) []stacks.Problem {
	total := len(spec.Hosts())
	if inv.foreign == 0 || total+inv.foreign <= stacks.MaxServers {
		return nil
	}
	return []stacks.Problem{{Key: "infractl:tiers", Message: fmt.Sprintf(
		"have %d hosts together, but the network, which takes %d servers at most, has %d that are not this environment's", total, stacks.MaxServers, inv.foreign)}}
}

// checkStock says which of the tiers in which hosts are missing have a server
// type that is sold out at their location.
func checkStock(spec stacks.Environment, c catalog, missing map[string]int) []string {
	told := false
	for _, t := range c.types {
		for _, l := range t.Locations {
			told = told || l.Available
		}
	}
	if !told {
		return nil // an API that says that there is nothing at all does not say
	}
	var out []string
	for _, name := range stacks.TierNames() {
		t := spec.Tiers[name]
		typ := c.types[t.Type]
		if missing[name] == 0 || typ == nil {
			continue
		}
		var elsewhere []string
		soldOut := false
		for _, l := range typ.Locations {
			switch {
			case l.Location == nil:
			case l.Location.Name == t.Location:
				soldOut = !l.Available
			case l.Available:
				elsewhere = append(elsewhere, l.Location.Name)
			}
		}
		if !soldOut {
			continue
		}
		where := "nowhere"
		if len(elsewhere) > 0 {
			where = "in " + strings.Join(elsewhere, ", ")
		}
		out = append(out, fmt.Sprintf("tier %s needs %d more, but %s is sold out in %s at the moment; it is to be had %s", name, missing[name], t.Type, t.Location, where))
	}
	return out
}

// CheckStock fails if a server that has to be made is of a type that the cloud
// cannot deliver at the moment. The catalogue and the state must have been read.
func (e *Engine) CheckStock() error {
	there := map[string]bool{}
	for _, names := range e.Servers() {
		for _, name := range names {
			there[name] = true
		}
	}
	missing := map[string]int{}
	for _, h := range e.Spec.Hosts() {
		if !there[h.Name] {
			missing[h.Tier]++
		}
	}
	if problems := checkStock(e.Spec, e.offers, missing); len(problems) > 0 {
		return fail(Failed, "Wait, or choose another server type or location for the tier. Nothing was changed.", "%s", strings.Join(problems, "\n"))
	}
	return nil
}

func sorted[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	sortStrings(out)
	return out
}

// Identity is what the operator logs in with.
type Identity struct {
	// Source says where it was found, for people.
	Source string
	// Keys are the public keys.
	Keys []ssh.PublicKey
}

// FindIdentity looks for the operator's SSH identity in the order in which the
// plugin does: the file named by INFRACTL_SSH_IDENTITY, the agent, ~/.ssh/id_ed25519.
func FindIdentity() (Identity, error) {
	if path := os.Getenv(stacks.IdentityVariable); path != "" {
		key, err := readIdentity(path)
		if err != nil {
			return Identity{}, fail(Invalid, "", "%s: %w", stacks.IdentityVariable, err)
		}
		return Identity{Source: path, Keys: []ssh.PublicKey{key}}, nil
	}
	if socket := os.Getenv("SSH_AUTH_SOCK"); socket != "" {
		conn, err := net.DialTimeout("unix", socket, 5*time.Second)
		if err != nil {
			return Identity{}, fail(Invalid, "Start the agent, or set INFRACTL_SSH_IDENTITY to a private key file.", "cannot reach the SSH agent: %w", err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		list, err := agent.NewClient(conn).List()
		if err != nil {
			return Identity{}, fail(Invalid, "", "cannot ask the SSH agent for its keys: %w", err)
		}
		if len(list) == 0 {
			return Identity{}, fail(Invalid, "Add one with ssh-add, or set INFRACTL_SSH_IDENTITY to a private key file.", "the SSH agent has no keys")
		}
		id := Identity{Source: "SSH agent"}
		for _, k := range list {
			if p, err := ssh.ParsePublicKey(k.Blob); err == nil {
				id.Keys = append(id.Keys, p)
			}
		}
		return id, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return Identity{}, fail(Invalid, "Set INFRACTL_SSH_IDENTITY to a private key file.", "there is no SSH identity: %w", err)
	}
	path := filepath.Join(home, ".ssh", "id_ed25519")
	key, err := readIdentity(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, fail(Invalid, "Make one with ssh-keygen, start an agent, or set INFRACTL_SSH_IDENTITY to a private key file.",
			"there is no SSH identity: no agent, and no %s", path)
	}
	if err != nil {
		return Identity{}, fail(Invalid, "", "%w", err)
	}
	return Identity{Source: path, Keys: []ssh.PublicKey{key}}, nil
}

func readIdentity(path string) (ssh.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the private key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("the private key %s has a passphrase; add it to an SSH agent and unset %s", path, stacks.IdentityVariable)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not a private key: %w", path, err)
	}
	return signer.PublicKey(), nil
}

// authorized fails if none of the identity's keys may log in. Nothing could be
// configured then, and on hosts that exist the operator would lock himself out.
func (id Identity) authorized(keys []string) error {
	for _, line := range keys {
		k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			continue
		}
		for _, own := range id.Keys {
			if string(own.Marshal()) == string(k.Marshal()) {
				return nil
			}
		}
	}
	return fail(Invalid, "Add its public key there.", "infractl:ssh.authorizedKeys: none of the keys is that of your identity (%s), so you could not log in", id.Source)
}

// checkTokens fails if the load balancers' token is missing or is the operator's.
func checkTokens(spec stacks.Environment) error {
	if spec.Tiers[stacks.TierLB].Target == stacks.TargetHosts {
		return nil // the virtual IP is on the wire
	}
	token := os.Getenv(stacks.VIPTokenVariable)
	if token == "" && spec.VIPToken != "" {
		return nil // in the configuration, encrypted; the program looks at it
	}
	switch {
	case token == "":
		return fail(Invalid, "Make a second token in the cloud console and set "+stacks.VIPTokenVariable+" to it, or run: pulumi config set --secret infractl:vipToken",
			"the load balancers need a cloud token of their own to claim the virtual IP")
	case len(token) != 64:
		return fail(Invalid, "Copy it again from the cloud console.", "%s must have 64 characters, but has %d", stacks.VIPTokenVariable, len(token))
	case token == os.Getenv("HCLOUD_TOKEN"):
		return fail(Invalid, "Make a second one in the cloud console.", "%s must not be the operator's own token (HCLOUD_TOKEN), since it lies on the load balancers", stacks.VIPTokenVariable)
	}
	return nil
}
