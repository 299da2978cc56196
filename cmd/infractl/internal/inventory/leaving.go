package inventory

import (
	"fmt"
	"slices"
	"strings"

	"github.com/infractl/infractl/stacks"
)

// Place is an entry of the inventory: a list, and where in it, from 0.
type Place struct {
	List  string
	Index int
}

// Leaving is what goes out of the inventory.
type Leaving struct {
	Server Server
	// Places are its entries, the last of each list first, so that they can be taken
	// out one after the other.
	Places []Place
	// Hosts are the hosts of the environment that it is no more.
	Hosts []string
	// Data says that one of them is a database's.
	Data bool
}

// Leave finds what a word means: a host such as web-2 is that tier's entry of the
// server, a name or an address all of its entries.
func Leave(env stacks.Environment, word string) (Leaving, error) {
	s, err := Find(Servers(env), word)
	if err != nil {
		return Leaving{}, err
	}
	l := Leaving{Server: s}
	only := ""
	if slices.Contains(s.Hosts, word) && word != s.Name {
		only, _, _ = strings.Cut(word, "-")
		if !slices.Contains(s.Lists, only) {
			only = stacks.Spare // it is a spare server that the tier has taken
		}
	}
	for _, list := range append(stacks.TierNames(), stacks.Spare) {
		servers := env.Inventory.Tiers[list]
		if list == stacks.Spare {
			servers = env.Inventory.Spare
		}
		if i := slices.Index(servers, s.Own); i >= 0 && (only == "" || only == list) {
			l.Places = append(l.Places, Place{list, i})
		}
	}
	for _, name := range s.Hosts {
		tier, _, _ := strings.Cut(name, "-")
		if only == "" || only == tier || only == stacks.Spare {
			l.Hosts = append(l.Hosts, name)
			l.Data = l.Data || tier == stacks.TierDB
		}
	}
	return l, nil
}

// Refused says why it must stay, given the environment as it would be without it and
// what would be wrong with that. allowed are names that were given to leave data behind.
func (l Leaving) Refused(after stacks.Environment, wrong []stacks.Problem, allowed []string) error {
	for _, p := range l.Places {
		if p.List != stacks.Spare && len(after.Inventory.Tiers[p.List]) == 0 && after.Tiers[p.List].Target == stacks.TargetHosts &&
			len(after.TierHosts(p.List)) == 0 {
			return fmt.Errorf("%s is the only server of tier %s, which cannot be without one; add another first: infractl hosts add %s ADDRESS", l.Server.Title(), p.List, p.List)
		}
	}
	if len(wrong) > 0 {
		advice := ""
		if i := slices.IndexFunc(wrong, func(p stacks.Problem) bool { return strings.HasSuffix(p.Key, ".count") }); i >= 0 {
			advice = fmt.Sprintf("; lower %s first", wrong[i].Key)
		}
		return fmt.Errorf("without %s the configuration would not be right:\n%w%s", l.Server.Title(), &stacks.ConfigError{Problems: wrong}, advice)
	}
	for _, s := range Servers(after) {
		if s.Own.Address != l.Server.Own.Address || s.Port != l.Server.Port {
			continue
		}
		if lost := l.Server.lost(s); len(lost) > 0 {
			return fmt.Errorf("%s stays in %s, but what the entry in %s says about it would be lost: %s; write that into the other entry first",
				l.Server.Title(), strings.Join(s.Lists, " and "), l.Places[0].List, strings.Join(lost, ", "))
		}
	}
	if l.Data && !slices.ContainsFunc(allowed, l.Server.Is) {
		return fmt.Errorf("%s holds the database: without it, the next infractl up makes a new and empty one on %s, and nothing copies the data; if that is meant, say --leave-data %s",
			l.Server.Title(), newHolder(after), dataHost(l.Hosts))
	}
	return nil
}

// lost are the keys that say something about a server, but not about what is left of it.
func (s Server) lost(left Server) []string {
	var out []string
	for _, k := range []struct {
		key       string
		was, left any
	}{
		{"name", s.Name, left.Name}, {"private", s.Private, left.Private}, {"hostKey", s.HostKey, left.HostKey},
		{"user", s.User, left.User}, {"jump", s.Jump, left.Jump}, {"memory", s.MemoryMB, left.MemoryMB},
		{"cores", s.Cores, left.Cores}, {"debian", s.Debian, left.Debian},
	} {
		if k.was != k.left {
			out = append(out, k.key)
		}
	}
	return out
}

// Heir is the server that gets a new and empty database in place of the one that
// leaves, by the name of the machine: machines are known by the first of their hosts.
// Then infractl up goes to the heir, and does not come back to the one that left.
// Otherwise the server is given back.
func (l Leaving) Heir(before, after stacks.Environment) (machine string, heir Server, any bool) {
	for _, m := range before.OwnMachines() {
		if m.Hosts[0].Own == l.Server.Own {
			machine = m.Name
		}
	}
	if !strings.HasPrefix(machine, stacks.TierDB+"-") {
		return machine, Server{}, false
	}
	for _, s := range Servers(after) {
		switch {
		case s.Endpoint() == l.Server.Endpoint() && len(s.Hosts) > 0:
			return machine, Server{}, false // it has another job, which takes the place of the old one
		case s.Endpoint() != l.Server.Endpoint() && slices.Contains(s.Hosts, machine):
			heir, any = s, true
		}
	}
	return machine, heir, any
}

// newHolder is the server that would have the database.
func newHolder(env stacks.Environment) string {
	for _, s := range Servers(env) {
		for _, h := range s.Hosts {
			if strings.HasPrefix(h, stacks.TierDB+"-") {
				return s.Title()
			}
		}
	}
	return "another server"
}

func dataHost(hosts []string) string {
	for _, h := range hosts {
		if strings.HasPrefix(h, stacks.TierDB+"-") {
			return h
		}
	}
	return ""
}

// Move is a server that becomes another host of the environment.
type Move struct {
	Server      Server
	Before, Now []string
}

// Moves are the servers that are other hosts in one environment than in another.
func Moves(before, after stacks.Environment) []Move {
	was := map[string]Server{}
	for _, s := range Servers(before) {
		was[s.Address+" "+fmt.Sprint(s.Port)] = s
	}
	var out []Move
	for _, s := range Servers(after) {
		old, there := was[s.Address+" "+fmt.Sprint(s.Port)]
		if there && !slices.Equal(old.Hosts, s.Hosts) {
			out = append(out, Move{s, old.Hosts, s.Hosts})
		}
	}
	return out
}
