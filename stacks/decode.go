package stacks

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/infractl/infractl/templates/application"
)

// namespace is the namespace of all keys in the stack's configuration.
const namespace = "infractl:"

// keys are all keys of the namespace.
var keys = []string{
	"target", "location", "image", "network", "tiers", "hosts", "ssh", "application", "vip",
	"monitoring", "debugHeaders", "vipToken", "applicationSecrets",
}

// ConfigKeys are all keys that the program reads, with their namespace.
func ConfigKeys() []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = namespace + k
	}
	return out
}

// Defaults that no other value follows from.
const (
	defaultTarget   = "hcloud"
	defaultLocation = "fsn1"
	defaultImage    = "debian-13"
	defaultRange    = "10.0.0.0/16"
	defaultZone     = "eu-central"
	defaultType     = "cx23"
	defaultUser     = "infractl"
	// defaultOwnUser logs in to hosts that were there before.
	defaultOwnUser = "root"
	defaultSSHPort = 22
	defaultHealth  = "/healthz"
	defaultAppPort = 8080
	// With two, one serves while the other is restarted.
	defaultProcesses = 2
	defaultStatic    = "public"
	defaultDisk      = "nvme"
)

// MaxServers is how many servers Hetzner Cloud lets into one network
// (https://docs.hetzner.com/cloud/networks/faq, "How many servers").
const MaxServers = 100

// SecretPlaceholder stands for the value of a secret that a caller of Decode
// cannot decrypt: its presence is checked, its content is not.
const SecretPlaceholder = "[secret]"

// DecodeOptions is what Decode needs to know besides the configuration.
type DecodeOptions struct {
	// Name is the stack's name.
	Name string
	// Dir is the project's directory, which paths in the configuration are relative to.
	Dir string
	// AuthorizedKeys are used when the configuration has none: those of the operator.
	AuthorizedKeys []string
	// SkipFiles leaves out what needs the release, for commands that do not upload it.
	SkipFiles bool
}

var (
	environmentName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`)
	cloudName       = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	unixName        = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}$`)
	applicationName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$`)
	variableName    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	urlPath         = regexp.MustCompile(`^/[A-Za-z0-9._~/-]*$`)
)

// reservedVariables are set by infractl itself.
var reservedVariables = map[string]bool{"LISTEN": true, "DATABASE_URL": true, "INFRACTL_HOST": true}

// reservedNames are users that Debian or a daemon already has; an application
// of that name would become one of them.
var reservedNames = map[string]bool{
	"root": true, "daemon": true, "bin": true, "sys": true, "www-data": true, "postgres": true, "haproxy": true,
	"nginx": true, "keepalived": true, "sshd": true, "nobody": true, "mail": true, "backup": true, "systemd": true,
}

// Decode turns a stack's configuration, as Pulumi hands it over, into an
// Environment. All that is wrong with it is reported together, as a
// *ConfigError. Keys of other namespaces are not looked at.
func Decode(config map[string]string, o DecodeOptions) (Environment, error) {
	p := &problems{}
	top := make(map[string]value, len(keys))
	for _, k := range keys {
		top[k] = value{key: namespace + k, p: p}
	}
	for _, full := range sortedKeys(config) {
		k, ok := strings.CutPrefix(full, namespace)
		if !ok {
			continue
		}
		if _, ok := top[k]; !ok {
			p.add(full, "is not a known key; known are %s", oneOf(keys))
			continue
		}
		top[k] = parse(full, config[full], p)
	}

	e := Environment{
		Name:         o.Name,
		Target:       top["target"].text(defaultTarget),
		Location:     top["location"].text(defaultLocation),
		Image:        top["image"].text(defaultImage),
		DebugHeaders: top["debugHeaders"].yes(false),
		VIPToken:     top["vipToken"].text(""),
	}
	if !environmentName.MatchString(e.Name) {
		p.add("stack "+fmt.Sprintf("%q", e.Name), "must be named with small letters, digits and hyphens, starting with a letter, 32 characters at most")
	}
	checkTarget(p, namespace+"target", e.Target)
	checkLocation(p, namespace+"location", e.Location)
	checkImage(p, namespace+"image", e.Image)
	if e.VIPToken != "" && e.VIPToken != SecretPlaceholder && len(e.VIPToken) != 64 {
		p.add(namespace+"vipToken", "must be a Hetzner Cloud token of 64 characters, not %d", len(e.VIPToken))
	}
	e.SSH = decodeSSH(top["ssh"], o)
	e.Inventory = decodeInventory(top["hosts"], e)
	e.Network = decodeNetwork(top["network"])
	e.Tiers = decodeTiers(top["tiers"], e)
	e.SSH.User = decodeUser(top["ssh"], e)
	e.Application = decodeApplication(top["application"], o)
	e.VIP = decodeVIP(top["vip"], e)
	e.Monitors = prefixes(top["monitoring"].fields("allowFrom")["allowFrom"])
	e.ApplicationSecrets = decodeSecrets(top["applicationSecrets"], e.Application)
	checkInventory(top["hosts"], e)
	if e.Uses(TargetHosts) && !e.Uses(TargetCloud) {
		for _, k := range []string{"location", "network", "vipToken"} {
			if !top[k].absent() {
				p.add(top[k].key, "is for servers in the cloud, but no tier has target %s", TargetCloud)
			}
		}
	}
	return e, p.err()
}

func checkTarget(p *problems, key, name string) {
	if name != TargetCloud && name != TargetHosts {
		p.add(key, "must be %s or %s, not %q", TargetCloud, TargetHosts, name)
	}
}

func checkLocation(p *problems, key, name string) {
	if !cloudName.MatchString(name) {
		p.add(key, "must be the name of a location, such as fsn1, not %q", name)
	}
}

func checkImage(p *problems, key, name string) {
	if _, err := (Tier{Image: name}).debian(); err != nil {
		p.add(key, "must be debian-13 or debian-12, not %q", name)
	}
}

func decodeNetwork(v value) Network {
	f := v.fields("range", "zone")
	n := Network{Zone: f["zone"].text(defaultZone)}
	if !cloudName.MatchString(n.Zone) {
		v.p.add(f["zone"].key, "must be the name of a network zone, such as eu-central, not %q", n.Zone)
	}
	n.Range = privateRange(f["range"], defaultRange)
	if n.Range.IsValid() && n.Range.Bits() > 24 {
		v.p.add(f["range"].key, "must have room for several subnets: /24 or larger, not /%d", n.Range.Bits())
		n.Range = netip.Prefix{}
	}
	return n
}

// privateRange reads an IPv4 range of RFC 1918. It is invalid if a problem was reported.
func privateRange(v value, fallback string) netip.Prefix {
	text := v.text(fallback)
	r, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		v.p.add(v.key, "must be a range such as 10.0.0.0/16, not %q", text)
	case !r.Addr().Is4():
		v.p.add(v.key, "must be an IPv4 range, not %s", r)
	case r != r.Masked():
		v.p.add(v.key, "has bits set beyond its length: %s would be %s", r, r.Masked())
	case !private(r):
		v.p.add(v.key, "must lie in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16, not %s", r)
	default:
		return r
	}
	return netip.Prefix{}
}

func private(r netip.Prefix) bool {
	for _, s := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} {
		if within(r, netip.MustParsePrefix(s)) {
			return true
		}
	}
	return false
}

func within(inner, outer netip.Prefix) bool {
	return inner.Bits() >= outer.Bits() && outer.Contains(inner.Addr())
}

func decodeTiers(v value, e Environment) map[string]Tier {
	names := TierNames()
	f := v.fields(names...)
	tiers := make(map[string]Tier, len(names))
	total := 0
	for i, name := range names {
		t := decodeTier(f[name], name, i, e)
		tiers[name] = t
		if t.Target == TargetCloud {
			total += t.Count
		}
	}
	if total > MaxServers && !v.p.has(v.key) {
		v.p.add(v.key, "have %d hosts together, but one network takes %d at most", total, MaxServers)
	}
	for i, a := range names {
		for _, b := range names[:i] {
			sa, sb := tiers[a].Subnet, tiers[b].Subnet
			if sa.IsValid() && sb.IsValid() && sa.Overlaps(sb) {
				v.p.add(f[a].key+".subnet", "%s overlaps %s of tier %s", sa, sb, b)
			}
		}
	}
	return tiers
}

// decodeTier reads one tier; ordinal is its place in TierNames.
func decodeTier(v value, name string, ordinal int, e Environment) Tier {
	f := v.fields("target", "count", "type", "location", "image", "maxUnavailable", "subnet", "options")
	target := f["target"].text(e.Target)
	if !f["target"].absent() {
		checkTarget(v.p, f["target"].key, target)
	}
	count := 2
	switch {
	case target == TargetHosts:
		count = max(len(e.Inventory.Tiers[name]), 1)
	case name == TierDB:
		count = 1
	}
	t := Tier{
		Name:     name,
		Target:   target,
		Count:    f["count"].number(count),
		Type:     f["type"].text(defaultType),
		Location: f["location"].text(e.Location),
		Image:    f["image"].text(e.Image),
		Options:  decodeOptions(f["options"], name),
	}
	switch {
	case t.Count < 1:
		v.p.add(f["count"].key, "must be at least 1, not %d", t.Count)
	case name == TierDB && t.Count > 1 && f["count"].absent():
		v.p.add(namespace+"hosts.db", "must name 1 host, not %d: a database with replicas is not supported yet", t.Count)
	case name == TierDB && t.Count > 1:
		v.p.add(f["count"].key, "must be 1, not %d: a database with replicas is not supported yet", t.Count)
	}
	if !cloudName.MatchString(t.Type) {
		v.p.add(f["type"].key, "must be the name of a server type, such as cx23, not %q", t.Type)
	}
	if !f["location"].absent() {
		checkLocation(v.p, f["location"].key, t.Location)
	}
	if !f["image"].absent() {
		checkImage(v.p, f["image"].key, t.Image)
	}
	t.MaxUnavailable = f["maxUnavailable"].number(1)
	switch {
	case t.MaxUnavailable < 1:
		v.p.add(f["maxUnavailable"].key, "must be at least 1, not %d", t.MaxUnavailable)
	case name == TierLB && t.MaxUnavailable > 1:
		v.p.add(f["maxUnavailable"].key, "must be 1, not %d: load balancers are changed one at a time", t.MaxUnavailable)
	case t.MaxUnavailable > max(t.Count, 1):
		v.p.add(f["maxUnavailable"].key, "must not be more than the %d hosts of the tier, but is %d", t.Count, t.MaxUnavailable)
	}
	if target == TargetHosts {
		for _, k := range []string{"type", "location", "image", "subnet"} {
			if !f[k].absent() && !v.p.has(f[k].key) {
				v.p.add(f[k].key, "is for servers in the cloud, but the tier has target %s; what its hosts are stands in %shosts", TargetHosts, namespace)
			}
		}
		return t
	}
	t.Subnet = decodeSubnet(f["subnet"], ordinal, e.Network)
	if t.Subnet.IsValid() && t.Count > t.capacity() {
		v.p.add(f["count"].key, "is %d, but the subnet %s has room for %d hosts", t.Count, t.Subnet, t.capacity())
	}
	return t
}

func decodeSubnet(v value, ordinal int, n Network) netip.Prefix {
	if v.absent() {
		if !n.Range.IsValid() {
			return netip.Prefix{}
		}
		// The second /24 of the range and those after it; the first one holds the gateway.
		base := n.Range.Addr().As4()
		third := int(base[2]) + ordinal + 1
		s := netip.PrefixFrom(netip.AddrFrom4([4]byte{base[0], base[1], byte(third), 0}), 24)
		if third > 255 || !within(s, n.Range) {
			v.p.add(v.key, "must be set, since %s has no room for a /24 per tier", n.Range)
			return netip.Prefix{}
		}
		return s
	}
	s := privateRange(v, "")
	switch {
	case !s.IsValid():
	case n.Range.IsValid() && !within(s, n.Range):
		v.p.add(v.key, "%s lies outside of the network %s", s, n.Range)
		return netip.Prefix{}
	case s.Bits() > 28:
		v.p.add(v.key, "must be /28 or larger, not /%d", s.Bits())
		return netip.Prefix{}
	}
	return s
}

func decodeOptions(v value, tier string) TierOptions {
	var o TierOptions
	switch tier {
	case TierWeb:
		f := v.fields("immutablePaths")
		for _, item := range f["immutablePaths"].texts() {
			path := item.text("")
			if !urlPath.MatchString(path) {
				v.p.add(item.key, "must be a path such as /assets/, not %q", path)
			}
			o.ImmutablePaths = append(o.ImmutablePaths, path)
		}
	case TierDB:
		f := v.fields("disk")
		o.Disk = f["disk"].text(defaultDisk)
		switch o.Disk {
		case "nvme", "ssd", "hdd":
		default:
			v.p.add(f["disk"].key, "must be nvme, ssd or hdd, not %q", o.Disk)
		}
	default:
		if m, ok := v.data.(map[string]any); ok {
			for _, k := range sortedKeys(m) {
				v.p.add(v.key+"."+k, "is not a known key; tier %s has no options", tier)
			}
		} else if !v.absent() {
			v.wrong("a group of keys")
		}
	}
	return o
}

// prefixes reads a list of ranges; single addresses are taken too.
func prefixes(v value) []netip.Prefix {
	var out []netip.Prefix
	for _, item := range v.texts() {
		text := item.text("")
		r, err := netip.ParsePrefix(text)
		if err != nil {
			a, aerr := netip.ParseAddr(text)
			if aerr != nil || a.Zone() != "" {
				v.p.add(item.key, "must be an address or a range such as 192.0.2.0/24, not %q", text)
				continue
			}
			r = netip.PrefixFrom(a, a.BitLen())
		}
		if r != r.Masked() {
			v.p.add(item.key, "has bits set beyond its length: %s would be %s", r, r.Masked())
			continue
		}
		out = append(out, r)
	}
	return out
}

func decodeSSH(v value, o DecodeOptions) SSH {
	f := v.fields("allowFrom", "authorizedKeys", "user", "port")
	s := SSH{
		AllowFrom: prefixes(f["allowFrom"]),
		User:      f["user"].text(""),
		Port:      f["port"].number(defaultSSHPort),
	}
	if len(s.AllowFrom) == 0 && !v.p.has(f["allowFrom"].key) && !v.p.has(v.key) {
		v.p.add(f["allowFrom"].key, "must name the addresses from which SSH is allowed; without one, no host could be reached")
	}
	checkPort(f["port"], s.Port)
	seen := map[string]string{}
	take := func(key, line string) {
		line = strings.TrimSpace(line)
		parsed, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil || len(strings.TrimSpace(string(rest))) > 0 || strings.Contains(line, "\n") {
			v.p.add(key, "must be one public key, as in a .pub file")
			return
		}
		if len(options) > 0 {
			v.p.add(key, "must be a public key without options, but has %s", strings.Join(options, ","))
			return
		}
		id := ssh.FingerprintSHA256(parsed)
		if first, ok := seen[id]; ok {
			v.p.add(key, "is the same key as %s", first)
			return
		}
		seen[id] = key
		normal := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(parsed)))
		if comment != "" {
			normal += " " + comment
		}
		s.AuthorizedKeys = append(s.AuthorizedKeys, normal)
	}
	for _, item := range f["authorizedKeys"].texts() {
		take(item.key, item.text(""))
	}
	if f["authorizedKeys"].absent() {
		for _, line := range o.AuthorizedKeys {
			take("the operator's public key", line)
		}
	}
	if len(s.AuthorizedKeys) == 0 && !v.p.has(f["authorizedKeys"].key) && !v.p.has(v.key) {
		v.p.add(f["authorizedKeys"].key, "must hold a public key, or INFRACTL_SSH_IDENTITY must name a private key file with its .pub beside it; without one, nobody could log in")
	}
	return s
}

// decodeUser reads who logs in, after it is known which targets there are: a host
// that is made gets that user, and one that was there before has root at least.
func decodeUser(v value, e Environment) string {
	cloud := e.Uses(TargetCloud)
	user := e.SSH.User
	for _, tier := range TierNames() {
		for _, s := range e.Inventory.Tiers[tier] {
			s.login(user)
		}
	}
	for _, s := range e.Inventory.Spare {
		s.login(user)
	}
	switch {
	case user == "" && cloud:
		return defaultUser
	case user == "":
		return defaultOwnUser
	}
	key := v.key + ".user"
	switch {
	case v.p.has(key):
	case !unixName.MatchString(user) || user == "root" && !e.Uses(TargetHosts):
		v.p.add(key, "must be the name of a user other than root, not %q", user)
	case user == "root" && cloud:
		v.p.add(key, "must not be root, since hosts in the cloud have none who may log in; say user: root in %shosts", namespace)
	}
	return user
}

// login fills in who logs in to a server.
func (s *OwnServer) login(user string) {
	if s.User == "" {
		s.User = user
	}
	if s.User == "" {
		s.User = defaultOwnUser
	}
}

func checkPort(v value, port int) {
	if port < 1 || port > 65535 {
		v.p.add(v.key, "must be between 1 and 65535, not %d", port)
	}
}

func decodeVIP(v value, e Environment) VIP {
	if e.Tiers[TierLB].Target == TargetHosts {
		return VIP{Wire: decodeWire(v, e)}
	}
	f := v.fields("ipv4", "ipv6")
	vip := VIP{IPv4: f["ipv4"].yes(true), IPv6: f["ipv6"].yes(false)}
	if !vip.IPv4 && !vip.IPv6 {
		v.p.add(v.key, "must have ipv4 or ipv6; without one, nobody could reach the environment")
	}
	return vip
}

func decodeApplication(v value, o DecodeOptions) Application {
	f := v.fields("name", "release", "command", "static", "health", "port", "processes", "environment")
	a := Application{
		Name:        f["name"].text(""),
		Release:     f["release"].text(""),
		Command:     f["command"].text(""),
		Static:      f["static"].text(defaultStatic),
		Health:      f["health"].text(defaultHealth),
		Port:        f["port"].number(defaultAppPort),
		Processes:   f["processes"].number(defaultProcesses),
		Environment: f["environment"].named(),
	}
	if _, ok := v.data.(map[string]any); !ok {
		if v.absent() {
			v.p.add(v.key, "must be set: name, release and command say what runs on the application hosts")
		}
		return a
	}
	for _, k := range []string{"name", "release", "command"} {
		if f[k].absent() {
			v.p.add(f[k].key, "must be set")
		}
	}
	if !f["name"].absent() && !v.p.has(f["name"].key) {
		if !applicationName.MatchString(a.Name) {
			v.p.add(f["name"].key, "must be small letters, digits and hyphens, starting with a letter, 30 characters at most, not %q", a.Name)
		} else if reservedNames[a.Name] {
			v.p.add(f["name"].key, "must not be %q: there is a system user of that name", a.Name)
		}
	}
	if !urlPath.MatchString(a.Health) {
		v.p.add(f["health"].key, "must be a path such as /healthz, not %q", a.Health)
	}
	if a.Port < 1024 || a.Port > 65535 {
		v.p.add(f["port"].key, "must be between 1024 and 65535, not %d: the application runs without privileges", a.Port)
	}
	if first, last := application.FirstPort+1, application.FirstPort+application.MaxProcesses; a.Port >= first && a.Port <= last {
		v.p.add(f["port"].key, "must not be between %d and %d, which the application's processes use: %d", first, last, a.Port)
	}
	if a.Processes < 1 || a.Processes > application.MaxProcesses {
		v.p.add(f["processes"].key, "must be between 1 and %d, not %d", application.MaxProcesses, a.Processes)
	}
	checkVariables(v.p, f["environment"].key, a.Environment)
	if !o.SkipFiles {
		a = checkRelease(a, f, o)
	}
	return a
}

func checkVariables(p *problems, key string, variables map[string]string) {
	for _, name := range sortedKeys(variables) {
		switch {
		case !variableName.MatchString(name):
			p.add(key+"."+name, "is not a name that an environment variable can have")
		case reservedVariables[name]:
			p.add(key+"."+name, "is set by infractl itself")
		case strings.ContainsAny(variables[name], "\x00\n"):
			p.add(key+"."+name, "must be one line")
		}
	}
}

// checkRelease looks at the release on the operator's computer.
func checkRelease(a Application, f map[string]value, o DecodeOptions) Application {
	p := f["release"].p
	if a.Release == "" || p.has(f["release"].key) {
		return a
	}
	shown := a.Release
	if !filepath.IsAbs(a.Release) {
		a.Release = filepath.Join(o.Dir, a.Release)
	}
	info, err := os.Stat(a.Release)
	switch {
	case os.IsNotExist(err):
		p.add(f["release"].key, "there is no directory %s; build the application first, or correct the path (it is relative to %s)", shown, o.Dir)
		return a
	case err != nil:
		p.add(f["release"].key, "cannot be read: %v", err)
		return a
	case !info.IsDir():
		p.add(f["release"].key, "%s is not a directory", shown)
		return a
	}
	if a.Command != "" && !p.has(f["command"].key) {
		switch info, err := os.Stat(filepath.Join(a.Release, a.Command)); {
		case !filepath.IsLocal(a.Command):
			p.add(f["command"].key, "must be a path inside the release, not %q", a.Command)
		case err != nil:
			p.add(f["command"].key, "there is no file %s in the release %s", a.Command, shown)
		case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
			p.add(f["command"].key, "%s in the release %s is not an executable file", a.Command, shown)
		}
		a.Command = filepath.Clean(a.Command)
	}
	switch info, err := os.Stat(filepath.Join(a.Release, a.Static)); {
	case a.Static == "":
	case !filepath.IsLocal(a.Static):
		p.add(f["static"].key, "must be a path inside the release, not %q", a.Static)
	case err == nil && info.IsDir():
		a.Static = filepath.Clean(a.Static)
	case f["static"].absent():
		a.Static = "" // the default directory is not there, so there are no static files
	default:
		p.add(f["static"].key, "there is no directory %s in the release %s", a.Static, shown)
	}
	return a
}

func decodeSecrets(v value, a Application) map[string]string {
	if v.data == SecretPlaceholder {
		return nil
	}
	secrets := v.named()
	checkVariables(v.p, v.key, secrets)
	for _, name := range sortedKeys(secrets) {
		if _, ok := a.Environment[name]; ok {
			v.p.add(v.key+"."+name, "is also in infractl:application.environment")
		}
	}
	return secrets
}

// secretNames are the names of the application's secrets, in order.
func (e Environment) secretNames() []string {
	names := make([]string, 0, len(e.ApplicationSecrets))
	for name := range e.ApplicationSecrets {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
