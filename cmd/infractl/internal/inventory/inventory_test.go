package inventory

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/infractl/infractl/cmd/infractl/internal/stackfile"
	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/stacks"
)

const (
	testKey         = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ"
	testFingerprint = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
)

// racks is an environment with an inventory, and with counts if they are not empty.
func racks(t *testing.T, hosts, tiers string, wrong ...string) stacks.Environment {
	t.Helper()
	config := map[string]string{
		"infractl:target": "hosts", "infractl:hosts": hosts, "infractl:vip": `{"address":"192.0.2.100/24"}`,
		"infractl:ssh":         fmt.Sprintf(`{"allowFrom":["203.0.113.7"],"authorizedKeys":[%q]}`, testKey),
		"infractl:application": `{"name":"shop","release":"dist","command":"bin/shop"}`,
	}
	if tiers != "" {
		config["infractl:tiers"] = tiers
	}
	e, err := stacks.Decode(config, stacks.DecodeOptions{Name: "shop", SkipFiles: true})
	if err != nil && len(wrong) == 0 {
		t.Fatal(err)
	}
	return e
}

const typical = `{
	"lb":    [{"name":"rack-1","address":"192.0.2.1","private":"10.0.1.1","hostKey":"` + testKey + `"}],
	"web":   [{"name":"rack-2","address":"192.0.2.2","private":"10.0.1.2","hostKey":"` + testFingerprint + `"},{"address":"192.0.2.3","private":"10.0.1.3"}],
	"app":   [{"address":"192.0.2.2"}],
	"db":    [{"address":"192.0.2.4","private":"10.0.1.4","hostKey":"@cert-authority ` + testKey + `"}],
	"spare": [{"name":"rack-6","address":"192.0.2.6","private":"10.0.1.6","port":2222}]
}`

func TestServersAreListedWithWhatTheyAre(t *testing.T) {
	var got []string
	for _, s := range Servers(racks(t, typical, `{"web":{"count":1}}`)) {
		got = append(got, fmt.Sprintf("%s %s %v %v %s", s.Title(), s.Endpoint(), s.Lists, s.Hosts, strings.Split(s.Key(), ":")[0]))
	}
	want := []string{
		"rack-1 192.0.2.1 [lb] [lb-1] SHA256", "rack-2 192.0.2.2 [web app] [web-1 app-1] SHA256", "192.0.2.3 192.0.2.3 [web] [] known_hosts",
		"db-1 192.0.2.4 [db] [db-1] authority SHA256", "rack-6 192.0.2.6:2222 [spare] [] known_hosts",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestServersAreFoundByWhateverTheyAreCalled(t *testing.T) {
	all := Servers(racks(t, typical, ""))
	for word, want := range map[string]string{
		"rack-2": "rack-2", "web-1": "rack-2", "app-1": "rack-2", "192.0.2.2": "rack-2", "10.0.1.2": "rack-2", "192.0.2.2:22": "rack-2",
		"web-2": "web-2", "rack-6": "rack-6",
	} {
		if s, err := Find(all, word); err != nil || s.Title() != want {
			t.Errorf("%s: %s, %v", word, s.Title(), err)
		}
	}
	if _, err := Find(all, "web-3"); err == nil || !strings.Contains(err.Error(), `there is no server "web-3"; there are rack-1, rack-2`) {
		t.Errorf("%v", err)
	}
}

func TestAddressesAreReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": " 192.0.2.1 0", "ada@rack-1": "ada rack-1 0", "rack-1:2222": " rack-1 2222", "ada@[2001:db8::1]:22": "ada 2001:db8::1 22",
		"2001:db8::1": " 2001:db8::1 0", "[2001:db8::1]": " 2001:db8::1 0",
	} {
		user, address, port, err := ParseAddress(text)
		if got := fmt.Sprintf("%s %s %d", user, address, port); err != nil || got != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{"@rack": "no user before the @", "rack:ssh": "must end in a port", "rack:0": "must end in a port", "ada@": "has no address"} {
		if _, _, _, err := ParseAddress(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// fresh is a server that is to join.
var fresh = Joining{List: "web", Address: "192.0.2.9", User: "root", Port: 22}

// network is a machine with addresses by interface, in pairs.
func network(pairs ...string) *provision.Machine {
	m := &provision.Machine{OS: "debian", Version: "13", Systemd: true, MemoryMB: 7900, Cores: 4}
	for i := 0; i < len(pairs); i += 2 {
		m.Interfaces = append(m.Interfaces, provision.Interface{Name: pairs[i], Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix(pairs[i+1])}})
	}
	return m
}

func TestTheOnlySensiblePrivateAddressIsChosen(t *testing.T) {
	all := Servers(racks(t, typical, ""))
	lo, eth0 := []string{"lo", "127.0.0.1/8"}, []string{"eth0", "192.0.2.9/24"}
	machine := func(more ...string) *provision.Machine { return network(append(append(lo, eth0...), more...)...) }
	for _, c := range []struct {
		name    string
		m       *provision.Machine
		asked   string
		private string
		problem string
	}{
		{"the only one", machine("eth1", "172.16.3.9/24"), "", "172.16.3.9", ""},
		{"containers do not count", machine("eth1", "172.16.3.9/24", "docker0", "172.17.0.1/16", "br-1f", "172.18.0.1/16"), "", "172.16.3.9", ""},
		{"the one near the others", machine("eth1", "10.0.1.9/24", "eth2", "10.9.0.9/24"), "", "10.0.1.9", ""},
		{"more than one", machine("eth1", "10.8.0.9/24", "eth2", "10.9.0.9/24"), "", "", "10.8.0.9, 10.9.0.9; choose one with --private"},
		{"none", machine(), "", "", "no private address, only 192.0.2.9; say"},
		{"asked for", machine("eth1", "10.8.0.9/24", "eth2", "10.9.0.9/24"), "10.9.0.9", "10.9.0.9", ""},
		{"a public one that was asked for", machine(), "192.0.2.9", "192.0.2.9", ""},
		{"one that it does not have", machine(), "10.9.0.9", "", "does not have the address 10.9.0.9; it has 192.0.2.9"},
		{"at a provider's range", machine("eth1", "100.64.0.9/24"), "", "100.64.0.9", ""},
	} {
		j := fresh
		if c.asked != "" {
			j.Private = netip.MustParseAddr(c.asked)
		}
		a, err := j.Choose(c.m, all)
		if c.problem == "" && (err != nil || a.String() != c.private) || c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)) {
			t.Errorf("%s: %s, %v", c.name, a, err)
		}
	}
}

func TestWhoIsThereAlreadyCannotJoin(t *testing.T) {
	all := Servers(racks(t, typical, ""))
	for _, c := range []struct {
		change func(*Joining)
		want   string
	}{
		{func(*Joining) {}, ""},
		{func(j *Joining) { j.Address = "192.0.2.2" }, "is in the inventory already: rack-2 (web, app)"},
		{func(j *Joining) { j.Address, j.Port = "192.0.2.6", 2222 }, "is in the inventory already: rack-6 (spare)"},
		{func(j *Joining) { j.Address = "192.0.2.6" }, ""}, // another port is another server
		{func(j *Joining) { j.Name = "rack-1" }, "has a server rack-1 already"},
		{func(j *Joining) { j.Private = netip.MustParseAddr("10.0.1.4") }, "is the private address of db-1 already"},
	} {
		j := fresh
		c.change(&j)
		err := j.There(all)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", j, err)
		}
	}
	key := provision.ShownKey{Key: testKey, Fingerprint: testFingerprint}
	if err := fresh.SameKey(key, all); err == nil || !strings.Contains(err.Error(), "the host key of rack-2 (192.0.2.2)") {
		t.Errorf("%v", err)
	}
}

func TestOnlyDebianWithSystemdCanJoin(t *testing.T) {
	for _, c := range []struct{ os, version, want string }{
		{"debian", "13", ""}, {"debian", "12", ""}, {"debian", "11", "needs Debian 13 or 12"}, {"ubuntu", "13", "needs Debian 13 or 12"}, {"", "", "needs Debian"},
	} {
		err := fresh.Suitable(&provision.Machine{OS: c.os, Version: c.version, Systemd: true})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v", c.os, c.version, err)
		}
	}
	if err := fresh.Suitable(&provision.Machine{OS: "debian", Version: "13"}); err == nil || !strings.Contains(err.Error(), "systemd does not run") {
		t.Errorf("%v", err)
	}
}

func TestAnEntrySaysWhatDiffersFromTheDefaults(t *testing.T) {
	env := racks(t, typical, "")
	key := provision.ShownKey{Key: testKey}
	words := func(pairs []stackfile.Pair) string {
		var out []string
		for _, p := range pairs {
			out = append(out, p.Key+"="+strings.Split(p.Value, " ")[0])
		}
		return strings.Join(out, " ")
	}
	m := network()
	if got := words(fresh.Entry(env, m, key, netip.MustParseAddr("192.0.2.9"))); got != "address=192.0.2.9 hostKey=ssh-ed25519 memory=7900 cores=4" {
		t.Error(got)
	}
	m.Version = "12"
	j := Joining{List: "web", Name: "rack-9", Address: "rack-9.example.com", User: "ada", Port: 2222, Jump: "bastion"}
	want := "name=rack-9 address=rack-9.example.com private=10.0.1.9 hostKey=ssh-ed25519 user=ada port=2222 jump=bastion memory=7900 cores=4 debian=12"
	if got := words(j.Entry(env, m, key, netip.MustParseAddr("10.0.1.9"))); got != want {
		t.Error(got)
	}
}

func TestWhatLeavesIsAHostOrAWholeServer(t *testing.T) {
	env := racks(t, typical, `{"web":{"count":3}}`)
	for word, want := range map[string]string{
		"rack-2": "[{web 0} {app 0}] [web-1 app-1]", "web-1": "[{web 0}] [web-1]", "app-1": "[{app 0}] [app-1]",
		"192.0.2.3": "[{web 1}] [web-2]", "web-3": "[{spare 0}] [web-3]", "rack-6": "[{spare 0}] [web-3]", "db-1": "[{db 0}] [db-1]",
	} {
		l, err := Leave(env, word)
		if got := fmt.Sprint(l.Places, l.Hosts); err != nil || got != want {
			t.Errorf("%s: %s, %v", word, got, err)
		}
		if l.Data != (word == "db-1") {
			t.Errorf("%s holds data: %v", word, l.Data)
		}
	}
}

func TestWhoIsNeededStays(t *testing.T) {
	const noSpare = `,
	"spare": [{"name":"rack-6","address":"192.0.2.6","private":"10.0.1.6","port":2222}]`
	tight := strings.Replace(typical, noSpare, "", 1)
	const lb = `{"name":"rack-1","address":"192.0.2.1","private":"10.0.1.1","hostKey":"` + testKey + `"}`
	const db = `{"address":"192.0.2.4","private":"10.0.1.4","hostKey":"@cert-authority ` + testKey + `"}`
	for _, c := range []struct {
		name, word, before, out, want string
		wrong                         []stacks.Problem
		allowed                       []string
	}{
		{"the only load balancer", "lb-1", tight, lb, "is the only server of tier lb", nil, nil},
		{"the only load balancer, with a spare server", "lb-1", typical, lb, "", nil, nil},
		{"the database, with a spare server", "db-1", typical, db, "makes a new and empty one on rack-6, and nothing copies the data; if that is meant, say --leave-data db-1", nil, nil},
		{"the database, on purpose", "db-1", typical, db, "", nil, []string{"db-1"}},
		{"the database, by its address", "db-1", typical, db, "", nil, []string{"192.0.2.4"}},
		{"another one was named", "db-1", typical, db, "say --leave-data db-1", nil, []string{"web-1"}},
		{"an entry that others rely on", "web-1", typical, `{"name":"rack-2","address":"192.0.2.2","private":"10.0.1.2","hostKey":"` + testFingerprint + `"},`,
			"would be lost: name, private, hostKey; write that into the other entry first", nil, nil},
		{"a count that is too large then", "web-2", typical, `,{"address":"192.0.2.3","private":"10.0.1.3"}`, "lower infractl:tiers.web.count first",
			[]stacks.Problem{{Key: "infractl:tiers.web.count", Message: "is 2, but"}}, nil},
		{"one of two", "web-2", typical, `,{"address":"192.0.2.3","private":"10.0.1.3"}`, "", nil, nil},
	} {
		l, err := Leave(racks(t, c.before, ""), c.word)
		if err != nil {
			t.Fatal(err)
		}
		after := strings.Replace(c.before, c.out, "", 1)
		if after == c.before {
			t.Fatalf("%s: nothing leaves", c.name)
		}
		err = l.Refused(racks(t, after, "", "may be wrong"), c.wrong, c.allowed)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestWhoMovesUpIsSaid(t *testing.T) {
	after := strings.Replace(typical, `{"address":"192.0.2.3","private":"10.0.1.3"}`, `{"address":"192.0.2.9","private":"10.0.1.9"},{"address":"192.0.2.3","private":"10.0.1.3"}`, 1)
	moves := Moves(racks(t, typical, ""), racks(t, after, ""))
	if len(moves) != 1 || moves[0].Server.Address != "192.0.2.3" || moves[0].Before[0] != "web-2" || moves[0].Now[0] != "web-3" {
		t.Errorf("%+v", moves)
	}
}

func TestOnlyADatabaseStaysOnAServerWhoseNameGoesOn(t *testing.T) {
	three := strings.Replace(typical, `{"address":"192.0.2.3","private":"10.0.1.3"}`, `{"address":"192.0.2.3","private":"10.0.1.3"},{"address":"192.0.2.5","private":"10.0.1.5"}`, 1)
	before := racks(t, three, "")
	for _, c := range []struct{ word, out, heir string }{
		{"web-2", `{"address":"192.0.2.3","private":"10.0.1.3"},`, "none"},
		{"web-3", `,{"address":"192.0.2.5","private":"10.0.1.5"}`, "none"},
		{"lb-1", `{"name":"rack-1","address":"192.0.2.1","private":"10.0.1.1","hostKey":"` + testKey + `"}`, "none"},
		{"db-1", `{"address":"192.0.2.4","private":"10.0.1.4","hostKey":"@cert-authority ` + testKey + `"}`, "db-1 192.0.2.6"}, // the spare one
		{"app-1", `{"address":"192.0.2.2"}`, "none"},                                                                           // it is web-1 after that
	} {
		l, err := Leave(before, c.word)
		if err != nil {
			t.Fatal(err)
		}
		machine, heir, any := l.Heir(before, racks(t, strings.Replace(three, c.out, "", 1), ""))
		got := machine + " " + heir.Address
		if !any {
			got = "none"
		}
		if got != c.heir {
			t.Errorf("%s: %s, not %s", c.word, got, c.heir)
		}
	}
}
