package stacks

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// content is a file that a machine gets.
func (m *mocks) content(t *testing.T, machine, path string) string {
	t.Helper()
	r, ok := m.all(typeConfiguration)[machine]
	if !ok {
		t.Fatalf("there is no configuration of %s, but of %s", machine, m.names(typeConfiguration))
	}
	f, ok := r.inputs["files"].ObjectValue()[resource.PropertyKey(path)]
	if !ok {
		t.Fatalf("%s has no file %s", machine, path)
	}
	return f.ObjectValue()["content"].StringValue()
}

// units are the units of a machine that are to run, and those that are not.
func (m *mocks) units(machine string) (on, off []string) {
	for _, v := range m.all(typeConfiguration)[machine].inputs["units"].ArrayValue() {
		u := v.ObjectValue()
		name := u["name"].StringValue()
		if u["active"].BoolValue() {
			on = append(on, name)
		} else {
			off = append(off, name)
		}
	}
	return on, off
}

func TestServersThatAreThereNeedNoCloud(t *testing.T) {
	m := newMocks()
	m.types, m.sshKeys = nil, nil
	if err := runProgram(t, m, racks(apart), Options{}); err != nil {
		t.Fatal(err)
	}
	for _, r := range m.resources {
		if strings.HasPrefix(r.typ, "hcloud:") || r.typ == typeHostKey {
			t.Errorf("%s %s is declared", r.typ, r.name)
		}
	}
	if len(m.calls) > 0 {
		t.Errorf("the cloud is asked: %v", m.calls)
	}
	if names := m.names(typeConfiguration); names != "app-1 app-2 db-1 lb-1 lb-2 web-1 web-2" {
		t.Errorf("configurations are of %s", names)
	}
	for name, want := range map[string]map[string]any{
		"web-1": {"name": "web-1", "address": "192.0.2.21", "user": "ada", "port": 2222.0, "jump": "ops@bastion.example.com:2200", "hostKey": testFingerprint, "own": true},
		"web-2": {"name": "web-2", "address": "192.0.2.22", "user": "root", "port": 22.0, "jump": nil, "hostKey": nil, "own": true},
		"db-1":  {"name": "db-1", "address": "192.0.2.41", "user": "root", "port": 22.0, "jump": nil, "hostKey": otherTestKey, "own": true},
	} {
		r := m.all(typeConfiguration)[name]
		for key, value := range want {
			if got := r.inputs[resource.PropertyKey(key)]; fmt.Sprint(got.V) != fmt.Sprint(value) {
				t.Errorf("%s of %s is %v, not %v", key, name, got, value)
			}
		}
		if r.options.deletedWith != "" || r.options.protect != (name == "db-1") {
			t.Errorf("%s is deleted with %q, protected: %v", name, r.options.deletedWith, r.options.protect)
		}
	}
	for path, want := range map[string]string{
		"/etc/infractl/host":                      "prod web-1\n",
		"/etc/hostname":                           "rack-7\n",
		"/etc/hosts":                              "\n10.9.2.1 rack-7 web-1\n10.9.2.2 prod-web-2 web-2\n",
		"/etc/nginx/infractl-listen.conf":         "listen 10.9.2.1:80 ",
		"/etc/nftables.d/nginx.nft":               "ip saddr 10.9.1.2 ip daddr 10.9.2.1 tcp dport 80 accept",
		"/etc/ssh/sshd_config.d/10-infractl.conf": "Port 2222\nAllowUsers ada\n",
	} {
		if text := m.content(t, "web-1", path); !strings.Contains(text, want) {
			t.Errorf("%s is\n%s", path, text)
		}
	}
	// Exactly the application hosts.
	if text := m.content(t, "db-1", "/etc/postgresql/17/main/pg_hba.conf"); !strings.Contains(text, "10.9.3.1/32") || !strings.Contains(text, "10.9.3.2/32") || strings.Contains(text, "10.0.3.0") {
		t.Errorf("pg_hba.conf is\n%s", text)
	}
	if text := m.content(t, "web-1", "/etc/nginx/nginx.conf"); !strings.Contains(text, "of 16000 MiB of memory, at 24 kB for each connection, for each of 8 workers") {
		t.Error("nginx is not sized by the server's memory and cores")
	}
	// Debian 12 on web-1.
	if text := m.content(t, "web-1", "/etc/ssh/sshd_config.d/10-infractl.conf"); strings.Contains(text, "mlkem768x25519") {
		t.Error("web-1 is not taken for the release that it has")
	}
}

func TestServerIsRelievedOfWhatItDidBefore(t *testing.T) {
	m := newMocks()
	if err := runProgram(t, m, racks(apart), Options{}); err != nil {
		t.Fatal(err)
	}
	for machine, want := range map[string]string{
		"lb-1": "nginx.service", "web-1": "haproxy.service keepalived.service", "app-1": "haproxy.service keepalived.service nginx.service",
		"db-1": "haproxy.service keepalived.service nginx.service",
	} {
		_, off := m.units(machine)
		off = slices.DeleteFunc(off, func(u string) bool { return u == "ssh.socket" })
		slices.Sort(off)
		if got := strings.Join(off, " "); got != want {
			t.Errorf("off on %s are %s, not %s", machine, got, want)
		}
	}
}

func TestVirtualIPOnTheWireIsMovedByVRRP(t *testing.T) {
	m := newMocks()
	config := racks(apart)
	config["infractl:vip"] = `{"address":"192.0.2.10/24","routerId":7,"ipv6":{"address":"2001:db8::10/64"}}`
	if err := runProgram(t, m, config, Options{}); err != nil {
		t.Fatal(err)
	}
	text := m.content(t, "lb-2", "/etc/keepalived/keepalived.conf")
	for _, want := range []string{
		"priority 199\n", "virtual_router_id 7\n", "interface @@interface.192.0.2.12@@\n", "unicast_src_ip 192.0.2.12\n", "        192.0.2.11\n",
		"        192.0.2.10/32\n", "        2001:db8::10/64\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("keepalived.conf of lb-2 does not say %q:\n%s", want, text)
		}
	}
	for _, key := range []resource.PropertyKey{"secrets", "values"} {
		if v, ok := m.all(typeConfiguration)["lb-1"].inputs[key]; ok {
			t.Errorf("lb-1 gets %s: %v", key, v)
		}
	}
}

func TestOutputsSayWhereTheEnvironmentAnswers(t *testing.T) {
	for vip, want := range map[string]string{
		`{"address":"192.0.2.10/24","ipv6":{"address":"2001:db8::10/64"}}`: "map[ipv4:192.0.2.10 ipv6:2001:db8::10] http://192.0.2.10/",
		`{"address":"2001:db8::10/64","interface":"eth0"}`:                 "map[ipv6:2001:db8::10] http://[2001:db8::10]/",
		`[{"address":"192.0.2.10/24"},{"address":"192.0.2.20/24"}]`:        "map[ipv4:192.0.2.10] http://192.0.2.10/",
	} {
		config := racks(apart)
		config["infractl:vip"] = vip
		addresses, url := wire{decodeGood(t, config)}.export()
		if got := fmt.Sprintf("%v %v", addresses, url); got != want {
			t.Errorf("%s: %s, not %s", vip, got, want)
		}
	}
	for address, want := range map[string]string{
		"shop.example.com": "map[] http://shop.example.com/", "192.0.2.11": "map[ipv4:192.0.2.11] http://192.0.2.11/", "2001:db8::11": "map[ipv6:2001:db8::11] http://[2001:db8::11]/",
	} {
		addresses, url := wire{decodeGood(t, single(address))}.export()
		if got := fmt.Sprintf("%v %v", addresses, url); got != want {
			t.Errorf("%s: %s, not %s", address, got, want)
		}
	}
}

func TestOutputsSayHowToReachTheHosts(t *testing.T) {
	i := inventory{decodeGood(t, racks(two))}
	for _, tier := range TierNames() {
		hosts, err := i.provide(tier, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		out := hosts[0].output()
		if out["machine"] != pulumi.String("db-1") || out["server"] != pulumi.String("left") || out["public"] != pulumi.String("192.0.2.11") ||
			out["user"] != pulumi.String("root") || out["port"] != pulumi.Int(22) || out["own"] != pulumi.Bool(true) || out["jump"] != nil || out["hostKey"] != nil {
			t.Errorf("%s: %v", tier, out)
		}
	}
	i = inventory{decodeGood(t, racks(apart))}
	hosts, err := i.provide(TierWeb, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := hosts[0].output()
	if out["user"] != pulumi.String("ada") || out["port"] != pulumi.Int(2222) || out["jump"] != pulumi.String("ops@bastion.example.com:2200") || out["hostKey"] != pulumi.String(testFingerprint) {
		t.Errorf("web-1: %v", out)
	}
}

// single has everything on one server, whose own address is the environment's.
func single(address string) map[string]string {
	config := racks(fmt.Sprintf(`{"lb":[{"address":%[1]q,"private":"10.9.0.1"}],"web":[{"address":%[1]q}],"app":[{"address":%[1]q}],"db":[{"address":%[1]q}]}`, address))
	delete(config, "infractl:vip")
	return config
}

func TestVirtualIPInANetworkOfNoAddressTakesThePrivateOne(t *testing.T) {
	m := newMocks()
	config := racks(apart)
	config["infractl:vip"] = `{"address":"198.51.100.10/24","interface":"eth1"}`
	if err := runProgram(t, m, config, Options{}); err != nil {
		t.Fatal(err)
	}
	text := m.content(t, "lb-1", "/etc/keepalived/keepalived.conf")
	for _, want := range []string{"interface @@interface.10.9.1.1@@\n", "        10.9.1.2\n", "        198.51.100.10/24 dev eth1\n", "/sys/class/net/eth1/carrier"} {
		if !strings.Contains(text, want) {
			t.Errorf("keepalived.conf does not say %q:\n%s", want, text)
		}
	}
}

func TestEachOfTwoVirtualIPsPrefersAnotherLoadBalancer(t *testing.T) {
	m := newMocks()
	config := racks(apart)
	config["infractl:vip"] = `[{"address":"192.0.2.10/24"},{"address":"192.0.2.20/24"}]`
	if err := runProgram(t, m, config, Options{}); err != nil {
		t.Fatal(err)
	}
	for machine, want := range map[string][2]string{
		"lb-1": {"preempt_delay 10\n    priority 200\n", "nopreempt\n    priority 199\n"},
		"lb-2": {"nopreempt\n    priority 199\n", "preempt_delay 10\n    priority 200\n"},
	} {
		first, second, _ := strings.Cut(m.content(t, machine, "/etc/keepalived/keepalived.conf"), "vrrp_instance vip-2")
		if !strings.Contains(first, want[0]) || !strings.Contains(second, want[1]) {
			t.Errorf("%s has\n%s\n%s", machine, first, second)
		}
	}
}

func TestOneMachineHasOneConfiguration(t *testing.T) {
	m := newMocks()
	if err := runProgram(t, m, racks(two), Options{}); err != nil {
		t.Fatal(err)
	}
	if names := m.names(typeConfiguration); names != "app-2 db-1" {
		t.Fatalf("configurations are of %s", names)
	}
	if after := strings.Join(after(m, "app-2"), " "); after != "db-1" {
		t.Errorf("app-2 waits for %q", after)
	}
	on, off := m.units("db-1")
	var serving []string
	for _, name := range on {
		for _, daemon := range []string{"postgresql@", "app-shop@", "infractl-gate", "nginx.", "haproxy.", "keepalived."} {
			if strings.HasPrefix(name, daemon) {
				serving = append(serving, name)
			}
		}
	}
	// Each after what it needs.
	if got, want := strings.Join(serving, " "), "postgresql@17-main.service app-shop@1.service app-shop@2.service infractl-gate.service nginx.service haproxy.service keepalived.service"; got != want || !slices.Equal(off, []string{"ssh.socket"}) {
		t.Errorf("units are %s, not %s; off are %v", got, want, off)
	}
	for path, want := range map[string]string{
		"/etc/hostname":                                          "left\n",
		"/etc/hosts":                                             "\n10.9.0.1 left lb-1 web-1 app-1 db-1\n10.9.0.2 right lb-2 web-2 app-2\n",
		"/etc/infractl/host":                                     "prod db-1\n",
		"/etc/nginx/infractl-listen.conf":                        "listen 10.9.0.1:8081 ",
		"/etc/nftables.d/nginx.nft":                              "ip saddr 10.9.0.2 ip daddr 10.9.0.1 tcp dport 8081 accept",
		"/etc/haproxy/haproxy.cfg":                               "server web-2 10.9.0.2:8081\n",
		"/etc/postgresql/17/main/pg_hba.conf":                    "10.9.0.2/32",
		"/usr/local/lib/infractl/tiers/web":                      "address=10.9.0.1:8081\n",
		"/usr/local/lib/infractl/tiers/db":                       "stop_taking()",
		"/etc/keepalived/keepalived.conf":                        "unicast_src_ip 192.0.2.11\n",
		"/etc/postgresql/17/main/conf.d/20-infractl-reload.conf": "Sizes are for 1024 MiB of memory and 2 cores.",
	} {
		if text := m.content(t, "db-1", path); !strings.Contains(text, want) {
			t.Errorf("%s is\n%s", path, text)
		}
	}
	r := m.all(typeConfiguration)["db-1"]
	if !r.options.protect || m.all(typeConfiguration)["app-2"].options.protect {
		t.Error("it is not the machine with the database that is protected")
	}
	secrets := r.inputs["secrets"].SecretValue().Element.ObjectValue()
	for _, name := range []resource.PropertyKey{"db.password", "db.tls.key"} {
		if _, ok := secrets[name]; !ok {
			t.Errorf("the secret %s is missing", name)
		}
	}
}

func TestMixedEnvironmentHasSomeHostsInTheCloud(t *testing.T) {
	for _, tc := range []struct {
		name, tiers, hosts, vip string
		servers, own            string
		floating                bool
	}{
		{"load balancers in a rack", `{"lb":{"target":"hosts"}}`,
			`{"lb":[{"address":"192.0.2.11","private":"10.9.1.1"},{"address":"192.0.2.12","private":"10.9.1.2"}]}`, `{"address":"192.0.2.10/24"}`,
			"app-1 app-2 db-1 web-1 web-2", "lb-1 lb-2", false},
		{"a database in a rack", `{"db":{"target":"hosts"}}`, `{"db":[{"address":"192.0.2.41","private":"10.9.4.1"}]}`, `{}`,
			"app-1 app-2 lb-1 lb-2 web-1 web-2", "db-1", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMocks()
			config := good()
			config["infractl:tiers"], config["infractl:hosts"], config["infractl:vip"] = tc.tiers, tc.hosts, tc.vip
			if err := runProgram(t, m, config, Options{}); err != nil {
				t.Fatal(err)
			}
			for _, typ := range []string{"hcloud:index/server:Server", typeHostKey} {
				if names := m.names(typ); names != tc.servers {
					t.Errorf("%s are %s", typ, names)
				}
			}
			if floating := m.names("hcloud:index/floatingIp:FloatingIp") != ""; floating != tc.floating {
				t.Errorf("floating IPs: %v", floating)
			}
			tiers := strings.Fields(m.names("hcloud:index/networkSubnet:NetworkSubnet"))
			for name, r := range m.all(typeConfiguration) {
				own := slices.Contains(strings.Fields(tc.own), name)
				if _, ok := r.inputs["own"]; ok != own {
					t.Errorf("%s is there already: %v", name, ok)
				}
				if own == slices.Contains(tiers, strings.Split(name, "-")[0]) {
					t.Errorf("%s has a subnet in the cloud: %v", name, !own)
				}
			}
		})
	}
}

func TestHostsOfBothKindsKnowEachOther(t *testing.T) {
	m := newMocks()
	config := good()
	config["infractl:tiers"] = `{"lb":{"target":"hosts"},"db":{"target":"hosts"}}`
	config["infractl:hosts"] = `{"lb":[{"address":"192.0.2.11","private":"10.9.1.1"},{"address":"192.0.2.12","private":"10.9.1.2"}],"db":[{"address":"192.0.2.11"}]}`
	config["infractl:vip"] = `{"address":"192.0.2.10/24"}`
	if err := runProgram(t, m, config, Options{VIPHolder: func() string { return "lb-1" }}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ machine, path, want string }{
		{"web-1", "/etc/nftables.d/nginx.nft", "ip saddr 10.9.1.2 ip daddr 10.0.2.11 tcp dport 80 accept"},
		{"db-1", "/etc/haproxy/haproxy.cfg", "server web-2 10.0.2.12:80\n"},
		{"db-1", "/etc/postgresql/17/main/pg_hba.conf", "10.0.3.0/24"}, // the cloud's subnet
		{"app-1", "/etc/infractl/application.env", "@10.9.1.1:5432/shop"},
		{"lb-2", "/etc/hosts", "\n10.9.1.1 prod-db-1 lb-1 db-1\n"},
	} {
		if text := m.content(t, tc.machine, tc.path); !strings.Contains(text, tc.want) {
			t.Errorf("%s on %s is\n%s", tc.path, tc.machine, text)
		}
	}
	// The database's machine has a load balancer, and goes first all the same.
	if got := strings.Join(after(m, "app-1"), " "); got != "db-1" {
		t.Errorf("app-1 waits for %q", got)
	}
	if got := strings.Join(after(m, "lb-2"), " "); got != "app-1 app-2 db-1 web-1 web-2" {
		t.Errorf("lb-2 waits for %q", got)
	}
}

func TestEverythingOnOneServerServesItsOwnAddress(t *testing.T) {
	m := newMocks()
	if err := runProgram(t, m, single("shop.example.com"), Options{}); err != nil {
		t.Fatal(err)
	}
	if names := m.names(typeConfiguration); names != "db-1" {
		t.Errorf("configurations are of %s", names)
	}
	if text := m.content(t, "db-1", "/etc/keepalived/keepalived.conf"); strings.Contains(text, "10.9.0.1/") {
		t.Errorf("keepalived moves the server's own address:\n%s", text)
	}
}

func TestEveryPlaceholderOnOwnServersIsFilled(t *testing.T) {
	for name, hosts := range map[string]string{"apart": apart, "two": two} {
		m := newMocks()
		if err := runProgram(t, m, racks(hosts), Options{}); err != nil {
			t.Fatal(err)
		}
		for machine, r := range m.all(typeConfiguration) {
			given := map[string]bool{}
			if v, ok := r.inputs["values"]; ok {
				for k := range v.ObjectValue() {
					given["value."+string(k)] = true
				}
			}
			if v, ok := r.inputs["secrets"]; ok {
				for k := range v.SecretValue().Element.ObjectValue() {
					given["secret."+string(k)] = true
				}
			}
			for path, f := range r.inputs["files"].ObjectValue() {
				parts := strings.Split(f.ObjectValue()["content"].String(), "@@")
				for i := 1; i < len(parts); i += 2 {
					if kind, _, _ := strings.Cut(parts[i], "."); (kind == "value" || kind == "secret") && !given[parts[i]] {
						t.Errorf("%s, %s: %s needs %s, but has %v", name, machine, path, parts[i], slices.Sorted(maps.Keys(given)))
					}
				}
			}
		}
	}
}
