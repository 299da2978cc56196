package stacks

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	testKey      = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINiML0muMx+CruC+0vtqclLe2+cwc9fsRBYfMkc/dt8e operator"
	otherTestKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0r5WcSjsyv4SXyuUEvKpNyTh9NCNKqxyqNsxYRWtmb"
)

// releaseDir makes a release with a command and static files.
func releaseDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"bin/app": 0o755, "bin/data": 0o644, "public/index.html": 0o644} {
		path := filepath.Join(dir, "release", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// good is a configuration with only what must be there.
func good() map[string]string {
	return map[string]string{
		"infractl:ssh":         `{"allowFrom":["192.0.2.0/24"],"authorizedKeys":["` + testKey + `"]}`,
		"infractl:application": `{"name":"shop","release":"release","command":"bin/app"}`,
	}
}

func TestDefaultsFillWhatIsNotSet(t *testing.T) {
	e, err := Decode(good(), DecodeOptions{Name: "prod", Dir: releaseDir(t)})
	if err != nil {
		t.Fatal(err)
	}
	var addresses []string
	for _, h := range e.Hosts() {
		addresses = append(addresses, h.CloudName+"="+h.Address.String())
	}
	want := "prod-lb-1=10.0.1.11 prod-lb-2=10.0.1.12 prod-web-1=10.0.2.11 prod-web-2=10.0.2.12 " +
		"prod-app-1=10.0.3.11 prod-app-2=10.0.3.12 prod-db-1=10.0.4.11"
	if got := strings.Join(addresses, " "); got != want {
		t.Errorf("hosts are\n%s, not\n%s", got, want)
	}
	if e.Target != "hcloud" || e.Location != "fsn1" || e.Image != "debian-13" || e.SSH.User != "infractl" || e.SSH.Port != 22 ||
		e.Application.Port != 8080 || e.Application.Health != "/healthz" || e.Application.Static != "public" ||
		!e.VIP.IPv4 || e.VIP.IPv6 || e.DebugHeaders || e.Tiers[TierWeb].MaxUnavailable != 1 || e.Tiers[TierDB].Options.Disk != "nvme" {
		t.Errorf("defaults are not right: %+v", e)
	}
}

func TestAddressesDoNotDependOnHowManyHostsThereAre(t *testing.T) {
	dir := releaseDir(t)
	config := good()
	addresses := func(tiers string) map[string]string {
		config["infractl:tiers"] = tiers
		e, err := Decode(config, DecodeOptions{Name: "prod", Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, h := range e.Hosts() {
			out[h.Name] = h.Address.String()
		}
		return out
	}
	few := addresses(`{"lb":{"count":1},"web":{"count":1},"app":{"count":1}}`)
	many := addresses(`{"lb":{"count":3},"web":{"count":40},"app":{"count":20}}`)
	for name, address := range few {
		if many[name] != address {
			t.Errorf("%s moves from %s to %s", name, address, many[name])
		}
	}
}

func TestOperatorsKeyIsUsedWhereNoneIsConfigured(t *testing.T) {
	config := good()
	config["infractl:ssh"] = `{"allowFrom":["192.0.2.7"]}`
	e, err := Decode(config, DecodeOptions{Name: "prod", Dir: releaseDir(t), AuthorizedKeys: []string{testKey}})
	if err != nil {
		t.Fatal(err)
	}
	if len(e.SSH.AuthorizedKeys) != 1 || e.SSH.AuthorizedKeys[0] != testKey || e.SSH.AllowFrom[0].String() != "192.0.2.7/32" {
		t.Errorf("ssh is %+v", e.SSH)
	}
}

func TestEveryMistakeNamesItsKey(t *testing.T) {
	cases := []struct{ name, key, value, want string }{
		{"unknown key", "infractl:tears", "{}", "infractl:tears: is not a known key; known are target,"},
		{"unknown nested key", "infractl:vip", `{"ipv5":true}`, "infractl:vip.ipv5: is not a known key; known here: ipv4 and ipv6"},
		{"unknown tier", "infractl:tiers", `{"cache":{}}`, "infractl:tiers.cache: is not a known key; known here: lb, web, app and db"},
		{"unknown key of a tier", "infractl:tiers", `{"web":{"counts":2}}`, "infractl:tiers.web.counts: is not a known key"},
		{"unknown option", "infractl:tiers", `{"db":{"options":{"disc":"ssd"}}}`, "infractl:tiers.db.options.disc: is not a known key"},
		{"option where there are none", "infractl:tiers", `{"lb":{"options":{"disk":"ssd"}}}`, "infractl:tiers.lb.options.disk: is not a known key; tier lb has no options"},
		{"broken JSON", "infractl:tiers", `{"web":`, "infractl:tiers: cannot be read"},
		{"text for a group", "infractl:tiers", `many`, "infractl:tiers: must be a group of keys, not text"},
		{"text for a number", "infractl:tiers", `{"web":{"count":"two"}}`, "infractl:tiers.web.count: must be a whole number, not text"},
		{"fraction", "infractl:tiers", `{"web":{"count":1.5}}`, "infractl:tiers.web.count: must be a whole number, not 1.5"},
		{"no host", "infractl:tiers", `{"web":{"count":0}}`, "infractl:tiers.web.count: must be at least 1, not 0"},
		{"negative", "infractl:tiers", `{"app":{"count":-3}}`, "infractl:tiers.app.count: must be at least 1, not -3"},
		{"two databases", "infractl:tiers", `{"db":{"count":2}}`, "infractl:tiers.db.count: must be 1, not 2"},
		{"too many for the subnet", "infractl:tiers", `{"web":{"count":9,"subnet":"10.0.9.0/28"}}`, "infractl:tiers.web.count: is 9, but the subnet 10.0.9.0/28 has room for 4 hosts"},
		{"too many for the network", "infractl:tiers", `{"web":{"count":60},"app":{"count":60}}`, "infractl:tiers: have 123 hosts together, but one network takes 100 at most"},
		{"overlap", "infractl:tiers", `{"app":{"subnet":"10.0.2.128/25"}}`, "infractl:tiers.app.subnet: 10.0.2.128/25 overlaps 10.0.2.0/24 of tier web"},
		{"subnet outside", "infractl:tiers", `{"web":{"subnet":"10.1.2.0/24"}}`, "infractl:tiers.web.subnet: 10.1.2.0/24 lies outside of the network 10.0.0.0/16"},
		{"subnet too small", "infractl:tiers", `{"web":{"subnet":"10.0.9.0/30"}}`, "infractl:tiers.web.subnet: must be /28 or larger, not /30"},
		{"subnet with host bits", "infractl:tiers", `{"web":{"subnet":"10.0.9.7/24"}}`, "infractl:tiers.web.subnet: has bits set beyond its length: 10.0.9.7/24 would be 10.0.9.0/24"},
		{"maxUnavailable of load balancers", "infractl:tiers", `{"lb":{"maxUnavailable":2}}`, "infractl:tiers.lb.maxUnavailable: must be 1, not 2"},
		{"maxUnavailable beyond the tier", "infractl:tiers", `{"web":{"maxUnavailable":3}}`, "infractl:tiers.web.maxUnavailable: must not be more than the 2 hosts"},
		{"maxUnavailable of none", "infractl:tiers", `{"web":{"maxUnavailable":0}}`, "infractl:tiers.web.maxUnavailable: must be at least 1"},
		{"image of a tier", "infractl:tiers", `{"web":{"image":"ubuntu-24.04"}}`, "infractl:tiers.web.image: must be debian-13 or debian-12"},
		{"disk", "infractl:tiers", `{"db":{"options":{"disk":"tape"}}}`, `infractl:tiers.db.options.disk: must be nvme, ssd or hdd, not "tape"`},
		{"path that is none", "infractl:tiers", `{"web":{"options":{"immutablePaths":["assets"]}}}`, "infractl:tiers.web.options.immutablePaths[0]: must be a path such as /assets/"},
		{"target", "infractl:target", "aws", `infractl:target: must be hcloud or hosts, not "aws"`},
		{"location", "infractl:location", "Falken stein", "infractl:location: must be the name of a location"},
		{"image", "infractl:image", "debian-11", `infractl:image: must be debian-13 or debian-12, not "debian-11"`},
		{"range", "infractl:network", `{"range":"10.0.0.0"}`, `infractl:network.range: must be a range such as 10.0.0.0/16, not "10.0.0.0"`},
		{"public range", "infractl:network", `{"range":"8.8.0.0/16"}`, "infractl:network.range: must lie in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"},
		{"IPv6 range", "infractl:network", `{"range":"fd00::/48"}`, "infractl:network.range: must be an IPv4 range"},
		{"range without room", "infractl:network", `{"range":"10.0.0.0/24"}`, "infractl:tiers.lb.subnet: must be set, since 10.0.0.0/24 has no room for a /24 per tier"},
		{"tiny range", "infractl:network", `{"range":"10.0.0.0/29"}`, "infractl:network.range: must have room for several subnets"},
		{"zone", "infractl:network", `{"zone":""}`, "infractl:network.zone: must be the name of a network zone"},
		{"nobody may log in", "infractl:ssh", `{"authorizedKeys":["` + testKey + `"]}`, "infractl:ssh.allowFrom: must name the addresses from which SSH is allowed"},
		{"bad range of operators", "infractl:ssh", `{"allowFrom":["everywhere"],"authorizedKeys":["` + testKey + `"]}`, `infractl:ssh.allowFrom[0]: must be an address or a range such as 192.0.2.0/24, not "everywhere"`},
		{"range of operators with host bits", "infractl:ssh", `{"allowFrom":["192.0.2.1/24"],"authorizedKeys":["` + testKey + `"]}`, "infractl:ssh.allowFrom[0]: has bits set beyond its length"},
		{"no key", "infractl:ssh", `{"allowFrom":["192.0.2.0/24"]}`, "infractl:ssh.authorizedKeys: must hold a public key, or INFRACTL_SSH_IDENTITY"},
		{"key that is none", "infractl:ssh", `{"allowFrom":["192.0.2.0/24"],"authorizedKeys":["ssh-rsa nonsense"]}`, "infractl:ssh.authorizedKeys[0]: must be one public key, as in a .pub file"},
		{"key with options", "infractl:ssh", `{"allowFrom":["192.0.2.0/24"],"authorizedKeys":["no-pty ` + testKey + `"]}`, "infractl:ssh.authorizedKeys[0]: must be a public key without options, but has no-pty"},
		{"key twice", "infractl:ssh", `{"allowFrom":["192.0.2.0/24"],"authorizedKeys":["` + testKey + `","` + otherTestKey + `","` + testKey + `"]}`, "infractl:ssh.authorizedKeys[2]: is the same key as infractl:ssh.authorizedKeys[0]"},
		{"root", "infractl:ssh", `{"allowFrom":["192.0.2.0/24"],"authorizedKeys":["` + testKey + `"],"user":"root"}`, "infractl:ssh.user: must be the name of a user other than root"},
		{"SSH port", "infractl:ssh", `{"allowFrom":["192.0.2.0/24"],"authorizedKeys":["` + testKey + `"],"port":70000}`, "infractl:ssh.port: must be between 1 and 65535, not 70000"},
		{"no release", "infractl:application", `{"name":"shop","command":"bin/app"}`, "infractl:application.release: must be set"},
		{"release that is not there", "infractl:application", `{"name":"shop","release":"dist","command":"bin/app"}`, "infractl:application.release: there is no directory dist; build the application first"},
		{"release that is a file", "infractl:application", `{"name":"shop","release":"release/bin/app","command":"bin/app"}`, "infractl:application.release: release/bin/app is not a directory"},
		{"command that is not there", "infractl:application", `{"name":"shop","release":"release","command":"bin/shop"}`, "infractl:application.command: there is no file bin/shop in the release release"},
		{"command that cannot run", "infractl:application", `{"name":"shop","release":"release","command":"bin/data"}`, "infractl:application.command: bin/data in the release release is not an executable file"},
		{"command outside", "infractl:application", `{"name":"shop","release":"release","command":"../release/bin/app"}`, "infractl:application.command: must be a path inside the release"},
		{"static files that are not there", "infractl:application", `{"name":"shop","release":"release","command":"bin/app","static":"assets"}`, "infractl:application.static: there is no directory assets in the release release"},
		{"application's name", "infractl:application", `{"name":"My Shop","release":"release","command":"bin/app"}`, "infractl:application.name: must be small letters, digits and hyphens"},
		{"name of a system user", "infractl:application", `{"name":"postgres","release":"release","command":"bin/app"}`, `infractl:application.name: must not be "postgres": there is a system user of that name`},
		{"port of a process", "infractl:application", `{"name":"shop","release":"release","command":"bin/app","port":18001}`, "infractl:application.port: must not be between 18001 and 18064, which the application's processes use: 18001"},
		{"no processes", "infractl:application", `{"name":"shop","release":"release","command":"bin/app","processes":0}`, "infractl:application.processes: must be between 1 and 64, not 0"},
		{"privileged port", "infractl:application", `{"name":"shop","release":"release","command":"bin/app","port":80}`, "infractl:application.port: must be between 1024 and 65535, not 80"},
		{"health", "infractl:application", `{"name":"shop","release":"release","command":"bin/app","health":"healthz"}`, "infractl:application.health: must be a path such as /healthz"},
		{"reserved variable", "infractl:application", `{"name":"shop","release":"release","command":"bin/app","environment":{"LISTEN":":1"}}`, "infractl:application.environment.LISTEN: is set by infractl itself"},
		{"impossible variable", "infractl:application", `{"name":"shop","release":"release","command":"bin/app","environment":{"A B":"1"}}`, "infractl:application.environment.A B: is not a name that an environment variable can have"},
		{"structured variable", "infractl:application", `{"name":"shop","release":"release","command":"bin/app","environment":{"A":[1]}}`, "infractl:application.environment.A: must be text, not a list"},
		{"secret of a reserved name", "infractl:applicationSecrets", `{"DATABASE_URL":"x"}`, "infractl:applicationSecrets.DATABASE_URL: is set by infractl itself"},
		{"no address at all", "infractl:vip", `{"ipv4":false}`, "infractl:vip: must have ipv4 or ipv6"},
		{"neither true nor false", "infractl:debugHeaders", "yes", `infractl:debugHeaders: must be true or false, not "yes"`},
		{"short token", "infractl:vipToken", "abc", "infractl:vipToken: must be a Hetzner Cloud token of 64 characters, not 3"},
		{"monitors", "infractl:monitoring", `{"allowFrom":["x"]}`, "infractl:monitoring.allowFrom[0]: must be an address or a range"},
	}
	dir := releaseDir(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			config := good()
			config[c.key] = c.value
			_, err := Decode(config, DecodeOptions{Name: "prod", Dir: dir})
			if err == nil {
				t.Fatalf("%s = %s is taken", c.key, c.value)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is\n%v\nand does not say\n%s", err, c.want)
			}
		})
	}
}

func TestOneMistakeIsReportedOnce(t *testing.T) {
	dir := releaseDir(t)
	for key, value := range map[string]string{
		"infractl:tiers":       `{"web":{"count":0}}`,
		"infractl:ssh":         `{"allowFrom":["x"],"authorizedKeys":["` + testKey + `"]}`,
		"infractl:application": `{"name":"shop","release":"dist","command":"bin/app"}`,
		"infractl:network":     `{"range":"8.8.0.0/16"}`,
		"infractl:vip":         `[]`,
	} {
		config := good()
		config[key] = value
		_, err := Decode(config, DecodeOptions{Name: "prod", Dir: dir})
		var all *ConfigError
		if !errors.As(err, &all) || len(all.Problems) != 1 {
			t.Errorf("%s = %s: %v", key, value, err)
		}
	}
}

func TestAllMistakesAreReportedTogether(t *testing.T) {
	config := map[string]string{
		"infractl:tiers": `{"web":{"count":0},"db":{"count":3}}`,
		"infractl:image": "windows",
		"infractl:tears": "1",
	}
	_, err := Decode(config, DecodeOptions{Name: "Prod", Dir: t.TempDir()})
	var all *ConfigError
	if !errors.As(err, &all) {
		t.Fatal(err)
	}
	for _, key := range []string{"infractl:tiers.web.count", "infractl:tiers.db.count", "infractl:image", "infractl:tears", "infractl:application", "infractl:ssh.allowFrom", `stack "Prod"`} {
		if !strings.Contains(err.Error(), key+": ") {
			t.Errorf("nothing is said about %s:\n%v", key, err)
		}
	}
}

func TestKeysOfOthersAreLeftAlone(t *testing.T) {
	config := good()
	config["hcloud:token"] = "x"
	if _, err := Decode(config, DecodeOptions{Name: "prod", Dir: releaseDir(t)}); err != nil {
		t.Error(err)
	}
}

func TestSecretsThatCannotBeReadAreNotJudged(t *testing.T) {
	config := good()
	config["infractl:vipToken"] = SecretPlaceholder
	config["infractl:applicationSecrets"] = SecretPlaceholder
	if _, err := Decode(config, DecodeOptions{Name: "prod", Dir: releaseDir(t)}); err != nil {
		t.Error(err)
	}
}

func TestWithoutFilesTheReleaseIsNotLookedFor(t *testing.T) {
	if _, err := Decode(good(), DecodeOptions{Name: "prod", Dir: t.TempDir(), SkipFiles: true}); err != nil {
		t.Error(err)
	}
}

func FuzzDecodeNeverPanics(f *testing.F) {
	f.Add("tiers", `{"web":{"count":2,"subnet":"10.0.9.0/24"}}`)
	f.Add("ssh", `{"allowFrom":[null],"port":1e99}`)
	f.Add("network", `{"range":"10.0.0.0/8"}`)
	f.Fuzz(func(t *testing.T, key, value string) {
		config := good()
		config["infractl:"+key] = value
		_, err := Decode(config, DecodeOptions{Name: "prod", SkipFiles: true})
		if err != nil {
			if _, jsonErr := json.Marshal(err.Error()); jsonErr != nil {
				t.Error(jsonErr)
			}
		}
	})
}
