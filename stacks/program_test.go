package stacks

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// registered is a resource that the program has declared.
type registered struct {
	typ, name string
	inputs    resource.PropertyMap
	options   *pulumiOptions
	order     int
}

// pulumiOptions are the options of a resource that matter here.
type pulumiOptions struct {
	dependencies  []string
	protect       bool
	ignoreChanges []string
	deletedWith   string
}

// mocks stand in for the engine.
type mocks struct {
	mu        sync.Mutex
	resources []registered
	// sshKeys are those that the cloud has already.
	sshKeys []any
	// types are the server types that the cloud has.
	types map[string]resource.PropertyMap
	// calls are what the cloud was asked.
	calls []string
}

func property(v any) resource.PropertyValue { return resource.NewPropertyValue(v) }

func (m *mocks) NewResource(args pulumi.MockResourceArgs) (string, resource.PropertyMap, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := registered{typ: args.TypeToken, name: args.Name, inputs: args.Inputs, order: len(m.resources), options: &pulumiOptions{}}
	if rpc := args.RegisterRPC; rpc != nil {
		r.options.dependencies = rpc.GetDependencies()
		r.options.protect = rpc.GetProtect()
		r.options.ignoreChanges = rpc.GetIgnoreChanges()
		r.options.deletedWith = rpc.GetDeletedWith()
	}
	m.resources = append(m.resources, r)
	out := args.Inputs.Copy()
	switch args.TypeToken {
	case "hcloud:index/server:Server":
		out["ipv4Address"] = property(fmt.Sprintf("198.51.100.%d", r.order))
	case "hcloud:index/floatingIp:FloatingIp":
		out["ipAddress"] = property("203.0.113.1")
		if args.Inputs["type"].StringValue() == "ipv6" {
			out["ipAddress"] = property("2001:db8:7::")
		}
	case typeHostKey:
		out["publicKey"] = property(testKey)
		out["privateKey"] = property("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n")
	case typePassword:
		out["value"] = property("plainPassword")
	case typeAuthority, typeCertificate:
		out["certificate"] = property("public certificate")
		out["privateKey"] = property("plainTLSKey")
	}
	return fmt.Sprint(1000 + r.order), out, nil
}

func (m *mocks) Call(args pulumi.MockCallArgs) (resource.PropertyMap, error) {
	m.mu.Lock()
	m.calls = append(m.calls, args.Token)
	m.mu.Unlock()
	switch args.Token {
	case "hcloud:index/getServerType:getServerType":
		name := args.Args["name"].StringValue()
		if t, ok := m.types[name]; ok {
			return t, nil
		}
		return nil, fmt.Errorf("server type %s not found", name)
	case "hcloud:index/getSshKeys:getSshKeys":
		return resource.PropertyMap{"sshKeys": property(m.sshKeys)}, nil
	}
	return nil, fmt.Errorf("unexpected call of %s", args.Token)
}

func serverType(name string, memory, cores int, locations ...any) resource.PropertyMap {
	if locations == nil {
		locations = []any{map[string]any{"name": "fsn1"}}
	}
	return resource.PropertyMap{
		"name": property(name), "memory": property(memory), "cores": property(cores), "architecture": property("x86"),
		"locations": property(locations),
	}
}

func newMocks() *mocks {
	return &mocks{types: map[string]resource.PropertyMap{
		"cx23": serverType("cx23", 4, 2), "cx33": serverType("cx33", 8, 4),
	}}
}

// runProgram runs the program with a configuration.
func runProgram(t *testing.T, m *mocks, config map[string]string, o Options) error {
	t.Helper()
	t.Setenv("INFRACTL_VIP_TOKEN", strings.Repeat("v", 64))
	t.Setenv("HCLOUD_TOKEN", strings.Repeat("o", 64))
	t.Setenv("HCLOUD_ENDPOINT", "")
	t.Setenv("INFRACTL_SSH_IDENTITY", "")
	if o.Dir == "" {
		o.Dir = releaseDir(t)
	}
	o.ConfigKeys = sortedKeys(config)
	return pulumi.RunErr(New(o), func(info *pulumi.RunInfo) {
		info.Project, info.Stack, info.Mocks = "infractl", "prod", m
		info.Config = config
	})
}

// all are the resources of a type, by name.
func (m *mocks) all(typ string) map[string]registered {
	out := map[string]registered{}
	for _, r := range m.resources {
		if r.typ == typ {
			out[r.name] = r
		}
	}
	return out
}

// names are the resources of a type.
func (m *mocks) names(typ string) string {
	var out []string
	for name := range m.all(typ) {
		out = append(out, name)
	}
	sort.Strings(out)
	return strings.Join(out, " ")
}

func TestProgramDeclaresTheWholeEnvironment(t *testing.T) {
	m := newMocks()
	config := good()
	config["infractl:tiers"] = `{"web":{"count":3},"db":{"type":"cx33"}}`
	config["infractl:vip"] = `{"ipv6":true}`
	if err := runProgram(t, m, config, Options{}); err != nil {
		t.Fatal(err)
	}
	hosts := "app-1 app-2 db-1 lb-1 lb-2 web-1 web-2 web-3"
	for typ, want := range map[string]string{
		"hcloud:index/network:Network":               "network",
		"hcloud:index/networkSubnet:NetworkSubnet":   "app db lb web",
		"hcloud:index/placementGroup:PlacementGroup": "app db lb web",
		"hcloud:index/firewall:Firewall":             "app db lb web",
		"hcloud:index/floatingIp:FloatingIp":         "vip-ipv4 vip-ipv6",
		"hcloud:index/sshKey:SshKey":                 "operator-0e552617",
		"hcloud:index/server:Server":                 hosts,
		"hcloud:index/serverNetwork:ServerNetwork":   hosts,
		typeHostKey:       hosts,
		typeConfiguration: hosts,
		typePassword:      "database",
		typeAuthority:     "authority",
		typeCertificate:   "db-1",
	} {
		if got := m.names(typ); got != want {
			t.Errorf("%s: %q, not %q", typ, got, want)
		}
	}
	web2 := m.all("hcloud:index/serverNetwork:ServerNetwork")["web-2"]
	if ip := web2.inputs["ip"].StringValue(); ip != "10.0.2.12" {
		t.Errorf("web-2 has the private address %s", ip)
	}
	for typ, suffix := range map[string]string{"hcloud:index/server:Server": "web-2", "hcloud:index/network:Network": "network"} {
		labels := m.all(typ)[suffix].inputs["labels"].ObjectValue()
		if labels[LabelEnvironment].StringValue() != "prod" || labels[LabelManagedBy].StringValue() != "infractl" {
			t.Errorf("%s has the labels %v", suffix, labels)
		}
	}
}

func TestServersAreNotReplacedAsASideEffect(t *testing.T) {
	m := newMocks()
	if err := runProgram(t, m, good(), Options{}); err != nil {
		t.Fatal(err)
	}
	for name, s := range m.all("hcloud:index/server:Server") {
		for _, want := range []string{"image", "userData", "sshKeys", "location", "datacenter"} {
			if !slices.Contains(s.options.ignoreChanges, want) {
				t.Errorf("%s does not ignore changes of %s", name, want)
			}
		}
		stateful := name == "db-1"
		if s.options.protect != stateful || s.inputs["deleteProtection"].BoolValue() != stateful || s.inputs["rebuildProtection"].BoolValue() != stateful {
			t.Errorf("%s: protection is not %v", name, stateful)
		}
	}
	for name, ip := range m.all("hcloud:index/floatingIp:FloatingIp") {
		if !ip.options.protect || !ip.inputs["deleteProtection"].BoolValue() {
			t.Errorf("%s is not protected", name)
		}
		if _, assigned := ip.inputs["serverId"]; assigned {
			t.Errorf("%s is assigned by the plan, so that the plan would move it back", name)
		}
	}
}

func TestHostResourcesGoWithTheirServer(t *testing.T) {
	m := newMocks()
	if err := runProgram(t, m, good(), Options{}); err != nil {
		t.Fatal(err)
	}
	for _, typ := range []string{typeConfiguration, "hcloud:index/serverNetwork:ServerNetwork"} {
		for name, r := range m.all(typ) {
			if !strings.HasSuffix(r.options.deletedWith, "hcloud:index/server:Server::"+name) {
				t.Errorf("%s %s is deleted with %q", typ, name, r.options.deletedWith)
			}
		}
	}
}

// after says which configurations a configuration waits for, all the way back.
func after(m *mocks, name string) []string {
	seen := map[string]bool{}
	var walk func(string)
	configurations := m.all(typeConfiguration)
	walk = func(n string) {
		for _, urn := range configurations[n].options.dependencies {
			if i := strings.Index(urn, typeConfiguration+"::"); i >= 0 {
				other := urn[i+len(typeConfiguration)+2:]
				if !seen[other] {
					seen[other] = true
					walk(other)
				}
			}
		}
	}
	walk(name)
	return sortedKeys(seen)
}

func TestHostsAreConfiguredInOrder(t *testing.T) {
	config := good()
	config["infractl:tiers"] = `{"web":{"count":5,"maxUnavailable":2}}`
	cases := []struct {
		name    string
		options Options
		want    map[string]string
	}{
		{"an environment that serves", Options{VIPHolder: func() string { return "lb-1" }}, map[string]string{
			"db-1":  "",
			"app-1": "db-1",
			"app-2": "app-1 db-1",
			"web-1": "app-1 app-2 db-1",
			"web-2": "app-1 app-2 db-1 web-1",
			"web-3": "app-1 app-2 db-1 web-1",
			"web-4": "app-1 app-2 db-1 web-1 web-2 web-3",
			"lb-2":  "app-1 app-2 db-1 web-1 web-2 web-3 web-4 web-5",
			"lb-1":  "app-1 app-2 db-1 lb-2 web-1 web-2 web-3 web-4 web-5", // the holder last
		}},
		{"one that is new", Options{NewHosts: map[string]bool{
			"db-1": true, "app-1": true, "app-2": true, "lb-1": true, "lb-2": true,
			"web-1": true, "web-2": true, "web-3": true, "web-4": true, "web-5": true,
		}}, map[string]string{
			"db-1":  "",
			"app-2": "db-1 lb-1 lb-2 web-1 web-2 web-3 web-4 web-5",
			"web-5": "",
			"lb-2":  "",
		}},
		{"a new host in a tier that serves", Options{NewHosts: map[string]bool{"web-5": true}}, map[string]string{
			"web-2": "app-1 app-2 db-1 web-1",
			"web-4": "app-1 app-2 db-1 web-1 web-2 web-3",
			"web-5": "app-1 app-2 db-1",
			"lb-1":  "app-1 app-2 db-1 web-1 web-2 web-3 web-4 web-5",
		}},
		{"several new hosts in tiers that serve", Options{VIPHolder: func() string { return "lb-1" }, NewHosts: map[string]bool{
			"web-3": true, "web-4": true, "web-5": true, "app-2": true, "lb-2": true,
		}}, map[string]string{
			"app-2": "db-1",
			"web-1": "app-1 app-2 db-1",
			"web-2": "app-1 app-2 db-1 web-1",
			"web-3": "app-1 app-2 db-1",
			"web-5": "app-1 app-2 db-1",
			"lb-1":  "app-1 app-2 db-1 web-1 web-2 web-3 web-4 web-5",
			"lb-2":  "app-1 app-2 db-1 lb-1 web-1 web-2 web-3 web-4 web-5", // a new one does not take the virtual IP
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := newMocks()
			if err := runProgram(t, m, config, c.options); err != nil {
				t.Fatal(err)
			}
			for host, want := range c.want {
				if got := strings.Join(after(m, host), " "); got != want {
					t.Errorf("%s waits for %q, not %q", host, got, want)
				}
			}
		})
	}
}

func TestLoadBalancersGoBeforeTheirAddress(t *testing.T) {
	m := newMocks()
	if err := runProgram(t, m, good(), Options{}); err != nil {
		t.Fatal(err)
	}
	for name, s := range m.all("hcloud:index/server:Server") {
		depends := strings.Contains(strings.Join(s.options.dependencies, " "), "FloatingIp::vip-ipv4")
		if depends != strings.HasPrefix(name, "lb-") {
			t.Errorf("%s depends on the floating IP: %v", name, depends)
		}
	}
}

func TestOnlyLoadBalancersAnswerTheWorld(t *testing.T) {
	m := newMocks()
	if err := runProgram(t, m, good(), Options{}); err != nil {
		t.Fatal(err)
	}
	for name, f := range m.all("hcloud:index/firewall:Firewall") {
		var open []string
		for _, rule := range f.inputs["rules"].ArrayValue() {
			r := rule.ObjectValue()
			if r["protocol"].StringValue() != "tcp" {
				continue
			}
			for _, source := range r["sourceIps"].ArrayValue() {
				if source.StringValue() == "0.0.0.0/0" {
					open = append(open, r["port"].StringValue())
				}
			}
		}
		want := ""
		if name == TierLB {
			want = "80 443"
		}
		if got := strings.Join(open, " "); got != want {
			t.Errorf("tier %s is open to the world on %q, not %q", name, got, want)
		}
	}
}

// secretsIn finds plaintext in properties, outside of what is marked secret.
func plaintext(v resource.PropertyValue, words []string) []string {
	switch {
	case v.IsSecret():
		return nil
	case v.IsOutput():
		if v.OutputValue().Secret {
			return nil
		}
		return plaintext(v.OutputValue().Element, words)
	case v.IsString():
		var found []string
		for _, w := range words {
			if strings.Contains(v.StringValue(), w) {
				found = append(found, w)
			}
		}
		return found
	case v.IsArray():
		var found []string
		for _, e := range v.ArrayValue() {
			found = append(found, plaintext(e, words)...)
		}
		return found
	case v.IsObject():
		var found []string
		for k, e := range v.ObjectValue() {
			for _, f := range plaintext(e, words) {
				found = append(found, string(k)+": "+f)
			}
		}
		return found
	}
	return nil
}

func TestNoSecretLeavesInPlaintext(t *testing.T) {
	m := newMocks()
	config := good()
	config["infractl:applicationSecrets"] = `{"API_KEY":"plainApplicationSecret"}`
	if err := runProgram(t, m, config, Options{}); err != nil {
		t.Fatal(err)
	}
	words := []string{
		strings.Repeat("v", 64), strings.Repeat("o", 64), "BEGIN OPENSSH PRIVATE KEY", "plainPassword", "plainTLSKey", "plainApplicationSecret",
	}
	for _, r := range m.resources {
		if found := plaintext(resource.NewProperty(r.inputs), words); len(found) > 0 {
			t.Errorf("%s %s has secrets in plaintext: %v", r.typ, r.name, found)
		}
	}
	// They do arrive where they are needed.
	for host, want := range map[string]string{"lb-1": "vip.token", "app-1": "env.API_KEY", "db-1": "db.tls.key"} {
		secrets := m.all(typeConfiguration)[host].inputs["secrets"]
		if !secrets.IsSecret() {
			t.Errorf("the secrets of %s are not marked", host)
			continue
		}
		if _, ok := secrets.SecretValue().Element.ObjectValue()[resource.PropertyKey(want)]; !ok {
			t.Errorf("%s does not get the secret %s", host, want)
		}
	}
	if secrets, ok := m.all(typeConfiguration)["web-1"].inputs["secrets"]; ok {
		t.Errorf("web-1 gets secrets that it has no use for: %v", secrets)
	}
}

func TestEveryPlaceholderIsFilled(t *testing.T) {
	m := newMocks()
	config := good()
	config["infractl:vip"] = `{"ipv6":true}`
	if err := runProgram(t, m, config, Options{}); err != nil {
		t.Fatal(err)
	}
	for name, r := range m.all(typeConfiguration) {
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
				kind, _, _ := strings.Cut(parts[i], ".")
				if (kind == "value" || kind == "secret") && !given[parts[i]] {
					t.Errorf("%s: %s needs %s", name, path, parts[i])
				}
			}
		}
	}
}

func TestForeignSSHKeyIsUsedAsItIs(t *testing.T) {
	m := newMocks()
	m.sshKeys = []any{map[string]any{"id": 77, "fingerprint": "0e:55:26:17:35:09:3a:30:d9:35:4e:ad:9a:6d:fa:b1", "name": "mine", "labels": map[string]any{}, "publicKey": testKey}}
	if err := runProgram(t, m, good(), Options{}); err != nil {
		t.Fatal(err)
	}
	if names := m.names("hcloud:index/sshKey:SshKey"); names != "" {
		t.Errorf("the program declares the key %s a second time", names)
	}
	keys := m.all("hcloud:index/server:Server")["web-1"].inputs["sshKeys"].ArrayValue()
	if len(keys) != 1 || keys[0].StringValue() != "77" {
		t.Errorf("web-1 has the keys %v", keys)
	}

	m = newMocks()
	m.sshKeys = []any{map[string]any{"id": 77, "fingerprint": "0e:55:26:17:35:09:3a:30:d9:35:4e:ad:9a:6d:fa:b1", "name": "prod-operator-0e552617", "publicKey": testKey,
		"labels": map[string]any{LabelEnvironment: "prod", LabelManagedBy: ManagedBy}}}
	if err := runProgram(t, m, good(), Options{}); err != nil {
		t.Fatal(err)
	}
	if names := m.names("hcloud:index/sshKey:SshKey"); names == "" {
		t.Error("the environment's own key would be deleted")
	}
}

func TestImpossibleServerTypesAreNamedBeforeAnythingIsDeclared(t *testing.T) {
	cases := []struct {
		name string
		typ  resource.PropertyMap
		want string
	}{
		{"unknown", nil, `infractl:tiers.web.type: there is no server type "cx99"`},
		{"elsewhere", serverType("cx99", 4, 2, map[string]any{"name": "ash"}), "infractl:tiers.web.type: cx99 is not offered in fsn1, but in ash"},
		{"no longer", serverType("cx99", 4, 2, map[string]any{"name": "fsn1", "unavailableAfter": "2024-01-01T00:00:00Z"}), "infractl:tiers.web.type: cx99 is no longer offered in fsn1 since 2024-01-01"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := newMocks()
			if c.typ != nil {
				m.types["cx99"] = c.typ
			}
			config := good()
			config["infractl:tiers"] = `{"web":{"type":"cx99"}}`
			err := runProgram(t, m, config, Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v", err)
			}
			for _, r := range m.resources {
				if strings.HasPrefix(r.typ, "hcloud:") {
					t.Errorf("%s %s was declared", r.typ, r.name)
				}
			}
		})
	}
}

func TestMoreThanTenHostsGetFurtherPlacementGroups(t *testing.T) {
	m := newMocks()
	config := good()
	config["infractl:tiers"] = `{"web":{"count":21}}`
	if err := runProgram(t, m, config, Options{}); err != nil {
		t.Fatal(err)
	}
	if got := m.names("hcloud:index/placementGroup:PlacementGroup"); got != "app db lb web web-2 web-3" {
		t.Errorf("placement groups are %s", got)
	}
}

func TestTokensThatAreMissingOrSharedAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ token, want string }{
		"missing": {"", "the load balancers need a cloud token of their own"},
		"short":   {"abc", "must be a Hetzner Cloud token of 64 characters, not 3"},
		"shared":  {strings.Repeat("o", 64), "must not be the operator's own token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HCLOUD_TOKEN", strings.Repeat("o", 64))
			t.Setenv("INFRACTL_VIP_TOKEN", c.token)
			if _, err := vipToken(Environment{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestPluginThatWasNotBuiltIsSaid(t *testing.T) {
	dir := releaseDir(t)
	project := "name: infractl\nplugins:\n  providers:\n    - name: infractl\n      path: bin\n"
	if err := os.WriteFile(filepath.Join(dir, "Pulumi.yaml"), []byte(project), 0o644); err != nil {
		t.Fatal(err)
	}
	err := runProgram(t, newMocks(), good(), Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "run ./scripts/build first") {
		t.Errorf("the error is %v", err)
	}
}

func TestUnknownKeysAreFoundInPulumisOwnEnvironmentToo(t *testing.T) {
	config := good()
	config["infractl:tears"] = "1"
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if got := environmentKeys(string(text)); !slices.Contains(got, "infractl:tears") {
		t.Errorf("keys are %v", got)
	}
	if err := runProgram(t, newMocks(), config, Options{}); err == nil || !strings.Contains(err.Error(), "infractl:tears: is not a known key") {
		t.Errorf("the error is %v", err)
	}
}
