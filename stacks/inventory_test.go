package stacks

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"
)

const testFingerprint = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"

// racks is a configuration for servers that are there already.
func racks(hosts string) map[string]string {
	config := good()
	config["infractl:target"] = "hosts"
	config["infractl:hosts"] = hosts
	config["infractl:vip"] = `{"address":"192.0.2.10/24"}`
	return config
}

// apart gives each tier servers of its own.
const apart = `{
	"lb":  [{"address":"192.0.2.11","private":"10.9.1.1"},{"address":"192.0.2.12","private":"10.9.1.2"}],
	"web": [{"name":"rack-7","address":"192.0.2.21","private":"10.9.2.1","hostKey":"` + testFingerprint + `","user":"ada","port":2222,"jump":"ops@bastion.example.com:2200","memory":16000,"cores":8,"debian":12},
	        {"address":"192.0.2.22","private":"10.9.2.2"}],
	"app": [{"address":"192.0.2.31","private":"10.9.3.1"},{"address":"192.0.2.32","private":"10.9.3.2"}],
	"db":  [{"address":"192.0.2.41","private":"10.9.4.1","hostKey":"` + otherTestKey + `"}],
	"spare": [{"name":"rack-8","address":"192.0.2.51","private":"10.9.5.1"},{"address":"192.0.2.52","private":"10.9.5.2"}]
}`

// two is a shop that runs on two servers.
const two = `{
	"lb":  [{"name":"left","address":"192.0.2.11","private":"10.9.0.1","memory":4096},{"name":"right","address":"192.0.2.12","private":"10.9.0.2","memory":4096}],
	"web": [{"address":"192.0.2.11"},{"address":"192.0.2.12"}],
	"app": [{"address":"192.0.2.11"},{"address":"192.0.2.12"}],
	"db":  [{"address":"192.0.2.11"}]
}`

func decodeGood(t *testing.T, config map[string]string) Environment {
	t.Helper()
	e, err := Decode(config, DecodeOptions{Name: "prod", Dir: releaseDir(t)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestInventoryFillsWhatIsNotSet(t *testing.T) {
	e := decodeGood(t, racks(apart))
	var hosts []string
	for _, h := range e.Hosts() {
		hosts = append(hosts, fmt.Sprintf("%s=%s=%s", h.Name, h.CloudName, h.Address))
	}
	want := "lb-1=prod-lb-1=10.9.1.1 lb-2=prod-lb-2=10.9.1.2 web-1=rack-7=10.9.2.1 web-2=prod-web-2=10.9.2.2 " +
		"app-1=prod-app-1=10.9.3.1 app-2=prod-app-2=10.9.3.2 db-1=prod-db-1=10.9.4.1"
	if got := strings.Join(hosts, " "); got != want {
		t.Errorf("hosts are\n%s, not\n%s", got, want)
	}
	full, plain := *e.TierHosts(TierWeb)[0].Own, *e.TierHosts(TierWeb)[1].Own
	full.key, plain.key = "", ""
	if want := (OwnServer{
		Name: "rack-7", Address: "192.0.2.21", Private: netip.MustParseAddr("10.9.2.1"), HostKey: testFingerprint, User: "ada", Port: 2222,
		Jump: "ops@bastion.example.com:2200", MemoryMB: 16000, Cores: 8, Debian: 12,
	}); full != want {
		t.Errorf("rack-7 is %+v", full)
	}
	if want := (OwnServer{
		Address: "192.0.2.22", Private: netip.MustParseAddr("10.9.2.2"), User: "root", Port: 22, MemoryMB: 2048, Cores: 2, Debian: 13,
	}); plain != want {
		t.Errorf("a server of which little is said is %+v", plain)
	}
	if want := []WireVIP{{Address: netip.MustParsePrefix("192.0.2.10/24"), RouterID: 51}}; len(e.VIP.Wire) != 1 || e.VIP.Wire[0] != want[0] || e.VIP.IPv4 || e.VIP.IPv6 {
		t.Errorf("the virtual IP is %+v", e.VIP)
	}
	if e.SSH.User != "root" || e.Uses(TargetCloud) || !e.Uses(TargetHosts) {
		t.Errorf("the environment is %+v", e)
	}
}

func TestEnvironmentSaysWhoLogsInWhereTheServerDoesNot(t *testing.T) {
	config := racks(apart)
	config["infractl:ssh"] = strings.Replace(config["infractl:ssh"], "{", `{"user":"ops","port":2200,`, 1)
	config["infractl:image"] = "debian-12"
	e := decodeGood(t, config)
	web := e.TierHosts(TierWeb)
	if web[0].Own.User != "ada" || web[0].Own.Port != 2222 || web[1].Own.User != "ops" || web[1].Own.Port != 2200 || web[1].Debian != 12 {
		t.Errorf("%+v, %+v", web[0].Own, web[1].Own)
	}
}

func TestPrivateAddressIsTheOneForSSHIfNoneIsSet(t *testing.T) {
	e := decodeGood(t, racks(`{"lb":[{"address":"192.0.2.11"}],"web":[{"address":"192.0.2.12"}],"app":[{"address":"192.0.2.13"}],"db":[{"address":"192.0.2.14"}]}`))
	if a := e.TierHosts(TierDB)[0].Address.String(); a != "192.0.2.14" {
		t.Errorf("db-1 is at %s", a)
	}
}

func TestAddressCanBeANameOfTheOperatorsSSHConfiguration(t *testing.T) {
	e := decodeGood(t, racks(strings.Replace(apart, `"address":"192.0.2.22"`, `"address":"Rack_22"`, 1)))
	if a := e.TierHosts(TierWeb)[1].Own.Address; a != "Rack_22" {
		t.Errorf("it becomes %s", a)
	}
}

func TestTiersTakeWhatTheyAreGivenAndThenSpareServers(t *testing.T) {
	on := func(tiers string) string {
		t.Helper()
		config := racks(apart)
		config["infractl:tiers"] = tiers
		var out []string
		e := decodeGood(t, config)
		for _, tier := range []string{TierWeb, TierApp} {
			for _, h := range e.TierHosts(tier) {
				out = append(out, h.Name+"="+h.Own.Address)
			}
		}
		return strings.Join(out, " ")
	}
	for tiers, want := range map[string]string{
		`{"web":{"count":1}}`: "web-1=192.0.2.21 app-1=192.0.2.31 app-2=192.0.2.32",
		`{"web":{"count":3}}`: "web-1=192.0.2.21 web-2=192.0.2.22 web-3=192.0.2.51 app-1=192.0.2.31 app-2=192.0.2.32",
		`{"app":{"count":4}}`: "web-1=192.0.2.21 web-2=192.0.2.22 app-1=192.0.2.31 app-2=192.0.2.32 app-3=192.0.2.51 app-4=192.0.2.52",
	} {
		if got := on(tiers); got != want {
			t.Errorf("%s: %s, not %s", tiers, got, want)
		}
	}
	config := racks(apart)
	config["infractl:tiers"] = `{"web":{"count":3}}`
	if h := decodeGood(t, config).TierHosts(TierWeb)[2]; h.Name != "web-3" || h.CloudName != "rack-8" {
		t.Errorf("a spare server becomes %s, %s", h.Name, h.CloudName)
	}
}

func TestServerInSeveralTiersIsOneMachine(t *testing.T) {
	e := decodeGood(t, racks(two))
	var machines []string
	for _, m := range e.Machines() {
		machines = append(machines, m.Name+": "+m.names())
	}
	if got, want := strings.Join(machines, "; "), "db-1: db-1, app-1, web-1 and lb-1; app-2: app-2, web-2 and lb-2"; got != want {
		t.Errorf("machines are %s, not %s", got, want)
	}
	for _, h := range e.Hosts() {
		want := map[int]string{1: "left", 2: "right"}[h.Index]
		if h.CloudName != want {
			t.Errorf("%s is on %s", h.Name, h.CloudName)
		}
	}
	// What is said in one place holds in all.
	if web := e.TierHosts(TierWeb)[1]; web.Address.String() != "10.9.0.2" || web.Own.MemoryMB != 4096 || web.Own != e.TierHosts(TierLB)[1].Own {
		t.Errorf("web-2 is %+v on %+v", web, web.Own)
	}
	if e.webPort(e.TierHosts(TierWeb)[0]) != 8081 {
		t.Error("nginx and HAProxy have the same port on one server")
	}
}

func TestTiersCanHaveDifferentTargets(t *testing.T) {
	config := good()
	config["infractl:tiers"] = `{"lb":{"target":"hosts"}}`
	config["infractl:hosts"] = `{"lb":[{"address":"192.0.2.11","private":"10.9.1.1"},{"address":"192.0.2.12","private":"10.9.1.2"}]}`
	config["infractl:vip"] = `{"address":"192.0.2.10/24"}`
	config["infractl:location"] = "nbg1"
	e := decodeGood(t, config)
	if a := e.TierHosts(TierLB)[1].Address.String() + " " + e.TierHosts(TierWeb)[1].Address.String(); a != "10.9.1.2 10.0.2.12" {
		t.Errorf("addresses are %s", a)
	}
	if e.SSH.User != "infractl" || e.TierHosts(TierLB)[0].Own.User != "root" {
		t.Errorf("users are %s and %s", e.SSH.User, e.TierHosts(TierLB)[0].Own.User)
	}
	if e.webPort(e.TierHosts(TierWeb)[0]) != 80 {
		t.Error("a web host has another port for the sake of a load balancer elsewhere")
	}
}

func TestVirtualIPsOnTheWire(t *testing.T) {
	for _, tc := range []struct {
		name, vip string
		want      []WireVIP
	}{
		{"both families", `{"address":"192.0.2.10/24","interface":"auto","routerId":7,"ipv6":{"address":"2001:db8::10/64"}}`,
			[]WireVIP{{Address: netip.MustParsePrefix("192.0.2.10/24"), IPv6: netip.MustParsePrefix("2001:db8::10/64"), RouterID: 7}}},
		{"another interface", `{"address":"198.51.100.10/29","interface":"eno1","ipv6":{"address":"2001:db8::10/64","interface":"eno2"},"preempt":true}`,
			[]WireVIP{{Address: netip.MustParsePrefix("198.51.100.10/29"), Interface: "eno1", IPv6: netip.MustParsePrefix("2001:db8::10/64"), IPv6Interface: "eno2", RouterID: 51, Preempt: true}}},
		{"the private network", `{"address":"10.9.1.200/24"}`, []WireVIP{{Address: netip.MustParsePrefix("10.9.1.200/24"), RouterID: 51}}},
		{"two, so that both serve", `[{"address":"192.0.2.10/24"},{"address":"192.0.2.20/24","preempt":false}]`,
			[]WireVIP{{Address: netip.MustParsePrefix("192.0.2.10/24"), RouterID: 51, Preempt: true}, {Address: netip.MustParsePrefix("192.0.2.20/24"), RouterID: 52}}},
		{"IPv6 only", `{"address":"2001:db8::10/64","interface":"eth0"}`,
			[]WireVIP{{Address: netip.MustParsePrefix("2001:db8::10/64"), Interface: "eth0", RouterID: 51}}},
	} {
		config := racks(apart)
		config["infractl:vip"] = tc.vip
		e := decodeGood(t, config)
		if fmt.Sprint(e.VIP.Wire) != fmt.Sprint(tc.want) {
			t.Errorf("%s: %+v, not %+v", tc.name, e.VIP.Wire, tc.want)
		}
	}
}

func TestSingleLoadBalancerNeedsNoVirtualIP(t *testing.T) {
	config := racks(`{"lb":[{"address":"192.0.2.11"}],"web":[{"address":"192.0.2.11"}],"app":[{"address":"192.0.2.11"}],"db":[{"address":"192.0.2.11"}]}`)
	delete(config, "infractl:vip")
	if e := decodeGood(t, config); len(e.VIP.Wire) != 0 {
		t.Errorf("it has %v", e.VIP.Wire)
	}
}

func TestEveryMistakeAboutHostsNamesItsKey(t *testing.T) {
	// with changes one thing in the inventory.
	with := func(old, new string) map[string]string {
		if !strings.Contains(apart, old) {
			t.Fatalf("nothing like %s", old)
		}
		return map[string]string{"infractl:hosts": strings.Replace(apart, old, new, 1)}
	}
	one := func(key, value string) map[string]string { return map[string]string{key: value} }
	cases := []struct {
		name   string
		change map[string]string
		want   string
	}{
		{"unknown place", with(`"spare"`, `"spares"`), "infractl:hosts.spares: is not a known key; known here: lb, web, app, db and spare"},
		{"unknown key of a server", with(`"name":"rack-7"`, `"nam":"rack-7"`), "infractl:hosts.web[0].nam: is not a known key; known here: name, address, private, hostKey,"},
		{"a server that is no group", with(`{"address":"192.0.2.22","private":"10.9.2.2"}`, `"192.0.2.22"`), "infractl:hosts.web[1]: must be a group of keys, not text"},
		{"a server that is nothing", with(`{"address":"192.0.2.22","private":"10.9.2.2"}`, `null`), "infractl:hosts.web[1]: must not be empty"},
		{"a tier that is no list", one("infractl:hosts", `{"web":{"address":"192.0.2.21"}}`), "infractl:hosts.web: must be a list, not a group of keys"},
		{"no address", with(`"address":"192.0.2.22",`, ``), `infractl:hosts.web[1].address: must be an IP address or a name by which SSH reaches the server, not ""`},
		{"an address that is none", with(`"192.0.2.22"`, `"192.0.2.22 "`), "infractl:hosts.web[1].address: must be an IP address or a name"},
		{"a name without a private address", with(`"address":"192.0.2.22","private":"10.9.2.2"`, `"address":"web-two.example.com"`), "infractl:hosts.web[1].private: must be set, since web-two.example.com is no IPv4 address"},
		{"private address of IPv6", with(`"10.9.2.2"`, `"fd00::2"`), `infractl:hosts.web[1].private: must be the IPv4 address by which the environment's hosts reach this one, not "fd00::2"`},
		{"host key that is none", with(testFingerprint, "SHA256:short"), "infractl:hosts.web[0].hostKey: must be a fingerprint as ssh-keygen -l prints it"},
		{"host key of another kind", with(testFingerprint, "MD5:00:11"), `infractl:hosts.web[0].hostKey: must be a fingerprint such as "SHA256:…"`},
		{"user that is none", with(`"ada"`, `"Ada Lovelace"`), "infractl:hosts.web[0].user: must be the name of a user"},
		{"port", with(`2222`, `0`), "infractl:hosts.web[0].port: must be between 1 and 65535, not 0"},
		{"jump that is none", with(`"ops@bastion.example.com:2200"`, `"ops @ bastion"`), "infractl:hosts.web[0].jump: must be [user@]host[:port]"},
		{"too little memory", with(`16000`, `16`), "infractl:hosts.web[0].memory: must be the server's memory in MiB, at least 256, not 16"},
		{"no cores", with(`"cores":8`, `"cores":0`), "infractl:hosts.web[0].cores: must be the number of the server's cores, not 0"},
		{"release", with(`"debian":12`, `"debian":11`), "infractl:hosts.web[0].debian: must be 13 or 12, not 11"},
		{"host name", with(`"rack-7"`, `"Rack 7"`), "infractl:hosts.web[0].name: must be a host name of small letters, digits and hyphens"},
		{"one name for two", with(`"rack-8"`, `"rack-7"`), "infractl:hosts.spare[0].name: rack-7 is the name of infractl:hosts.web[0], too"},
		{"a name like another host's", with(`"rack-7"`, `"app-2"`), "infractl:hosts.web[0].name: app-2 would be taken for another host; on this server is web-1"},
		{"one server twice in a tier", with(`"192.0.2.22"`, `"192.0.2.21","port":2222`), "infractl:hosts.web[1]: is the same server as infractl:hosts.web[0]"},
		{"spare and not spare", with(`"192.0.2.52"`, `"192.0.2.32"`), "infractl:hosts.spare[1]: is infractl:hosts.app[1], which is not spare"},
		{"one private address for two", with(`"10.9.2.2"`, `"10.9.2.1"`), "infractl:hosts.web[1].private: 10.9.2.1 belongs to infractl:hosts.web[0], too"},
		{"a server that is not the same in two places", one("infractl:hosts", strings.Replace(two, `"web": [{"address":"192.0.2.11"}`, `"web": [{"address":"192.0.2.11","memory":512}`, 1)),
			"infractl:hosts.web[0].memory: is 512, but 4096 in infractl:hosts.lb[0], which is the same server"},
		{"too little memory for four", one("infractl:hosts", strings.Replace(two, `4096`, `1000`, 1)),
			"infractl:hosts.lb[0].memory: is 1000, but on this server are db-1, app-1, web-1 and lb-1, and each needs 256 at least"},
		{"no host in a tier", one("infractl:hosts", `{"lb":[{"address":"192.0.2.11"}]}`), "infractl:hosts.web: must name the hosts of tier web"},
		{"more hosts than there are", one("infractl:tiers", `{"web":{"count":5}}`), "infractl:tiers.web.count: is 5, but infractl:hosts.web[4] is missing: infractl:hosts.web names 2, and infractl:hosts.spare has 2 left"},
		{"two tiers that take spare servers", one("infractl:tiers", `{"web":{"count":3},"app":{"count":3}}`),
			"infractl:tiers.app.count: is 3, but infractl:hosts.app names 2, and tier web takes hosts from infractl:hosts.spare already; move those that it has from there to the end of infractl:hosts.web"},
		{"two databases", with(`"db":  [`, `"db":  [{"address":"192.0.2.42"},`), "infractl:hosts.db: must name 1 host, not 2"},
		{"server type", one("infractl:tiers", `{"web":{"type":"cx33"}}`), "infractl:tiers.web.type: is for servers in the cloud, but the tier has target hosts"},
		{"subnet", one("infractl:tiers", `{"web":{"subnet":"10.0.9.0/24"}}`), "infractl:tiers.web.subnet: is for servers in the cloud"},
		{"location", one("infractl:location", "fsn1"), "infractl:location: is for servers in the cloud, but no tier has target hcloud"},
		{"network", one("infractl:network", "{}"), "infractl:network: is for servers in the cloud"},
		{"token", one("infractl:vipToken", strings.Repeat("x", 64)), "infractl:vipToken: is for servers in the cloud"},
		{"target of a tier", one("infractl:tiers", `{"web":{"target":"aws"}}`), `infractl:tiers.web.target: must be hcloud or hosts, not "aws"`},
		{"hosts of a tier in the cloud", one("infractl:tiers", `{"web":{"target":"hcloud"}}`), "infractl:hosts.web: names hosts, but tier web has target hcloud; set infractl:tiers.web.target to hosts"},
		{"hosts of no tier", one("infractl:target", "hcloud"), "infractl:hosts: is for tiers with target hosts, but no tier has it; set infractl:target to hosts"},
		{"an address of the cloud's", map[string]string{"infractl:tiers": `{"app":{"target":"hcloud"}}`, "infractl:hosts": strings.Replace(strings.Replace(apart, `"10.9.2.2"`, `"10.0.3.50"`, 1), `"app": [{"address":"192.0.2.31","private":"10.9.3.1"},{"address":"192.0.2.32","private":"10.9.3.2"}],`, ``, 1)},
			"infractl:hosts.web[1].private: 10.0.3.50 lies in 10.0.3.0/24, whose addresses belong to the hosts of tier app in the cloud"},
		{"root in the cloud", map[string]string{"infractl:tiers": `{"app":{"target":"hcloud"}}`, "infractl:ssh": strings.Replace(good()["infractl:ssh"], "{", `{"user":"root",`, 1)},
			"infractl:ssh.user: must not be root, since hosts in the cloud have none who may log in"},
		{"port of nginx", map[string]string{"infractl:hosts": two, "infractl:application": `{"name":"shop","release":"release","command":"bin/app","port":8081}`},
			"infractl:application.port: must not be 8081, where nginx listens on the same server as db-1, app-1, web-1 and lb-1"},
		{"SSH where HAProxy is", one("infractl:hosts", strings.Replace(apart, `"address":"192.0.2.11"`, `"port":443,"address":"192.0.2.11"`, 1)), "infractl:hosts.lb[0].port: must not be 443, where HAProxy listens"},

		{"no virtual IP", one("infractl:vip", ""), "infractl:vip: must be a group of keys, not text"},
		{"no virtual IP for two", one("infractl:vip", "[]"), "infractl:vip: must hold the address that the 2 load balancers share"},
		{"virtual IP of the cloud", one("infractl:vip", `{"ipv4":true}`), "infractl:vip.ipv4: is not a known key; known here: address, interface, routerId, ipv6 and preempt"},
		{"virtual IP without an address", one("infractl:vip", `{"routerId":7}`), "infractl:vip.address: must be set, such as 192.0.2.10/24"},
		{"virtual IP without a length", one("infractl:vip", `{"address":"192.0.2.10"}`), `infractl:vip.address: must be an address with the length of its network, such as 192.0.2.10/24, not "192.0.2.10"`},
		{"network for a virtual IP", one("infractl:vip", `{"address":"192.0.2.0/24"}`), "infractl:vip.address: must be the address of a host, but 192.0.2.0 stands for all of 192.0.2.0/24"},
		{"broadcast for a virtual IP", one("infractl:vip", `{"address":"192.0.2.31/27"}`), "infractl:vip.address: must be the address of a host, but 192.0.2.31 stands for all of 192.0.2.0/27"},
		{"virtual IP of loopback", one("infractl:vip", `{"address":"127.0.0.1/8"}`), "infractl:vip.address: must be an address that clients can reach"},
		{"virtual IP of a host", one("infractl:vip", `{"address":"192.0.2.32/24"}`), "infractl:vip.address: 192.0.2.32 belongs to infractl:hosts.app[1], too"},
		{"virtual IP elsewhere", one("infractl:vip", `{"address":"198.51.100.10/24"}`), "infractl:vip.interface: must be set, such as eth0: lb-1 (prod-lb-1) has no address in 198.51.100.0/24"},
		{"interface that is none", one("infractl:vip", `{"address":"192.0.2.10/24","interface":"eth0 up"}`), "infractl:vip.interface: must be auto or the name of a network interface"},
		{"router ID", one("infractl:vip", `{"address":"192.0.2.10/24","routerId":256}`), "infractl:vip.routerId: must be between 1 and 255, not 256"},
		{"one router ID for two", one("infractl:vip", `[{"address":"192.0.2.10/24","routerId":52},{"address":"192.0.2.20/24"}]`), "infractl:vip[1].routerId: 52 belongs to infractl:vip[0], too"},
		{"one address for two", one("infractl:vip", `[{"address":"192.0.2.10/24"},{"address":"192.0.2.10/24"}]`), "infractl:vip[1].address: 192.0.2.10 belongs to infractl:vip[0], too"},
		{"IPv6 that is IPv4", one("infractl:vip", `{"address":"192.0.2.10/24","ipv6":{"address":"192.0.2.20/24"}}`), "infractl:vip.ipv6.address: must be an IPv6 address, not 192.0.2.20"},
		{"IPv6 twice", one("infractl:vip", `{"address":"2001:db8::1/64","interface":"eth0","ipv6":{"address":"2001:db8::2/64"}}`), "infractl:vip.ipv6: must not be there, since infractl:vip.address is an IPv6 address already"},
		{"IPv6 without an address", one("infractl:vip", `{"address":"192.0.2.10/24","ipv6":{"interface":"eth0"}}`), "infractl:vip.ipv6.address: must be set"},
		{"yes to IPv6", one("infractl:vip", `{"address":"192.0.2.10/24","ipv6":true}`), "infractl:vip.ipv6: must be a group of keys, not true or false"},
	}
	dir := releaseDir(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			config := racks(apart)
			maps.Copy(config, c.change)
			_, err := Decode(config, DecodeOptions{Name: "prod", Dir: dir})
			if err == nil {
				t.Fatal("it is taken")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is\n%v\nand does not say\n%s", err, c.want)
			}
		})
	}
}

func TestOneMistakeAboutHostsIsReportedOnce(t *testing.T) {
	dir := releaseDir(t)
	for key, values := range map[string][]string{
		"infractl:hosts": {
			strings.Replace(apart, `"address":"192.0.2.22",`, ``, 1),
			strings.Replace(apart, `"address":"192.0.2.41",`, `"adress":"192.0.2.41",`, 1),
			strings.Replace(apart, `"cores":8`, `"cores":"eight"`, 1),
			strings.Replace(apart, `"10.9.2.2"`, `"ten"`, 1),
		},
		"infractl:vip": {
			`{"address":"192.0.2.10"}`, `{"address":"192.0.2.10/24","ipv6":true}`, `{"address":"198.51.100.10/24"}`, `{"adress":"192.0.2.10/24"}`, `[7]`,
			`{"address":"192.0.2.10/24","interface":"e t h"}`,
		},
		"infractl:tiers": {`{"web":{"count":9}}`, `{"web":{"type":"cx23"}}`},
	} {
		for _, value := range values {
			config := racks(apart)
			config[key] = value
			_, err := Decode(config, DecodeOptions{Name: "prod", Dir: dir})
			var all *ConfigError
			if !errors.As(err, &all) || len(all.Problems) != 1 {
				t.Errorf("%s = %s: %v", key, value, err)
			}
		}
	}
}

func FuzzDecodeOfHostsNeverPanics(f *testing.F) {
	f.Add(apart, `{"address":"192.0.2.10/24"}`, `{"web":{"count":3}}`)
	f.Add(two, `[{"address":"192.0.2.10/24"},{}]`, `{"lb":{"target":"hcloud"}}`)
	f.Fuzz(func(t *testing.T, hosts, vip, tiers string) {
		config := racks(hosts)
		config["infractl:vip"], config["infractl:tiers"] = vip, tiers
		e, err := Decode(config, DecodeOptions{Name: "prod", SkipFiles: true})
		if err == nil {
			for _, m := range e.ownMachines() {
				if len(m.Hosts) == 0 || m.Hosts[0].Name != m.Name {
					t.Errorf("a machine is %+v", m)
				}
			}
		}
	})
}
