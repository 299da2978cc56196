// Package application renders the application tier: the user's release under
// systemd, as a user of its own that may do little more than answer requests.
package application

import (
	"embed"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/duty"
)

//go:embed *.tmpl
var files embed.FS

// What has to be filled in for the files of this package.
const (
	// AuthorityValue is the value with the certificate (PEM) of the authority
	// that signed the database's certificate.
	AuthorityValue = "db.ca"
	// PasswordSecret is the secret with the database role's password. It stands
	// in a URL, so it has to be made of letters and digits.
	PasswordSecret = "db.password"
	// EnvironmentSecret begins the names of the secrets for SecretEnvironment.
	EnvironmentSecret = "env."
)

const (
	environment = "/etc/infractl/application.env"
	authority   = "/etc/infractl/db-ca.pem"
)

// Input describes one application host.
type Input struct {
	// Debian is the release: 12 or 13.
	Debian int
	// Host is the short name, such as app-1. The application finds it in INFRACTL_HOST.
	Host string
	// Address is the private address, and Port the port above 1023 on which the
	// gate takes the web hosts' requests there.
	Address netip.Addr
	Port    uint16
	// Processes is how many processes of the application run behind the gate, at
	// most MaxProcesses. Each listens on a port of its own on loopback, which it
	// finds in LISTEN.
	Processes int
	// Name is the application's name, at most 28 characters. Its units are called
	// app-NAME@1 and so on, its system user app-NAME, its database role and
	// database NAME.
	Name string
	// Release is what was built, and Command the program in it, relative to its root.
	Release desired.Tree
	Command string
	// Environment is the user's own environment.
	Environment map[string]string
	// SecretEnvironment are names of variables whose values are secrets: the
	// host's secret "env.NAME" has to hold the value as QuoteSecret returns it.
	SecretEnvironment []string
	// Health is the path that answers 200 when the application can serve.
	Health string
	// Web are the addresses of the web hosts, who alone may connect.
	Web []netip.Addr
	// Database is the database host's private address, DatabasePort its port.
	Database     netip.Addr
	DatabasePort uint16
	// MemoryMB is the host's memory in MiB. The application may use 85 % of it.
	MemoryMB int
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// given are the variables that infractl itself sets.
var given = []string{"DATABASE_URL", "INFRACTL_HOST", "LISTEN"}

// MaxProcesses is how many processes of the application a host may run.
const MaxProcesses = 64

// FirstPort and the numbers of the processes add up to the ports on loopback
// where the processes listen.
const FirstPort = 18000

// What the gate is called, and where it is.
const (
	GateUnit     = gateName + ".service"
	GateSocket   = gateFolder + "/admin.sock"
	gateName     = "infractl-gate"
	gateFolder   = "/run/" + gateName
	gate         = "/etc/infractl/gate.cfg"
	gateSwitches = "/etc/infractl/gate.map"
)

// Unit is the name of the systemd unit of a process of the application called
// name. Processes count from 1.
func Unit(name string, process int) string {
	return "app-" + name + "@" + strconv.Itoa(process) + ".service"
}

// process is one process of the application on a host.
type process struct {
	Number, Port int
	Unit         string
}

// Connections is how many connections the gate of a host with so much memory, in
// MiB, takes at once: a sixteenth of it at 33 kB for each (HAProxy's management
// guide, 2.6, section 6).
func Connections(memoryMB int) int { return max(memoryMB*1024/16/33, 256) }

// Validate says what is wrong with the input, or nil. It names variables of the
// environment but never repeats their values.
func (in Input) Validate() error {
	if err := templates.CheckDebian(in.Debian); err != nil {
		return err
	}
	if err := templates.CheckHost("the application host's name", in.Host); err != nil {
		return err
	}
	if err := templates.CheckAddress("the private address", in.Address); err != nil {
		return err
	}
	if in.Port < 1024 {
		return fmt.Errorf("%w: the application's port is %d, but without privileges it can listen on 1024 and above only", templates.ErrInput, in.Port)
	}
	if in.Processes < 1 || in.Processes > MaxProcesses {
		return fmt.Errorf("%w: %d processes of the application, but there can be 1 to %d", templates.ErrInput, in.Processes, MaxProcesses)
	}
	if first := FirstPort + 1; int(in.Port) >= first && int(in.Port) < first+MaxProcesses {
		return fmt.Errorf("%w: the application's port is %d, but %d to %d are its processes' own", templates.ErrInput, in.Port, first, FirstPort+MaxProcesses)
	}
	if err := templates.CheckUser("the application's name", in.Name); err != nil {
		return err
	}
	if len(in.Name) > 28 {
		return fmt.Errorf("%w: the application's name %q is longer than 28 characters", templates.ErrInput, in.Name)
	}
	if _, err := templates.Short("the release's digest", in.Release.Digest); err != nil {
		return err
	}
	if err := templates.CheckFile("the application's command", in.Command); err != nil {
		return err
	}
	names := map[string]bool{}
	for _, name := range given {
		names[name] = true
	}
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(in.Environment)), in.SecretEnvironment) {
		if !variable.MatchString(name) {
			return fmt.Errorf("%w: %q is not the name of an environment variable", templates.ErrInput, name)
		}
		if names[name] {
			return fmt.Errorf("%w: the environment variable %s is set twice, or by infractl itself", templates.ErrInput, name)
		}
		names[name] = true
		if err := checkVariable(name, in.Environment[name]); err != nil {
			return err
		}
	}
	if err := templates.CheckPath("the health path", in.Health); err != nil {
		return err
	}
	if len(in.Web) == 0 {
		return fmt.Errorf("%w: there is no web host in front of the application", templates.ErrInput)
	}
	for _, a := range in.Web {
		if err := templates.CheckAddress("a web host's address", a); err != nil {
			return err
		}
	}
	if err := templates.CheckAddress("the database's address", in.Database); err != nil {
		return err
	}
	if err := templates.CheckPort("the database's port", in.DatabasePort); err != nil {
		return err
	}
	return templates.CheckMemory(in.MemoryMB)
}

// checkVariable holds a value to what systemd takes in an environment: UTF-8
// without control characters other than tab and newline.
func checkVariable(name, value string) error {
	if !utf8.ValidString(value) || len(value) > 64<<10 {
		return fmt.Errorf("%w: the environment variable %s is not UTF-8 text of at most 64 KiB", templates.ErrInput, name)
	}
	if strings.ContainsFunc(value, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
		return fmt.Errorf("%w: the environment variable %s holds a control character", templates.ErrInput, name)
	}
	if strings.Contains(value, "@@") {
		return fmt.Errorf("%w: the environment variable %s holds @@, which is reserved for placeholders", templates.ErrInput, name)
	}
	return nil
}

// quote writes a value for systemd's EnvironmentFile= (systemd.exec(5)): in
// double quotes, a backslash takes the meaning from the four characters below
// and from nothing else.
func quote(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`).Replace(value) + `"`
}

// QuoteSecret prepares the value of a variable in SecretEnvironment for the
// host's secrets. The error names the variable only.
func QuoteSecret(name, value string) (string, error) {
	if err := checkVariable(name, value); err != nil {
		return "", err
	}
	return quote(value), nil
}

// Render describes the host's share of this package.
func Render(in Input) (desired.Host, error) {
	if err := in.Validate(); err != nil {
		return desired.Host{}, fmt.Errorf("application on %s: %w", in.Host, err)
	}
	short, err := templates.Short("the release's digest", in.Release.Digest)
	if err != nil {
		return desired.Host{}, err
	}
	folder := "/srv/" + in.Name
	release, current := folder+"/releases/"+short, folder+"/current"
	url := fmt.Sprintf("postgres://%s:@@secret.%s@@@%s/%s?sslmode=verify-full&sslrootcert=%s", in.Name,
		PasswordSecret, netip.AddrPortFrom(in.Database, in.DatabasePort), in.Name, authority)
	type pair struct{ Name, Value string }
	variables := []pair{
		{"DATABASE_URL", quote(url)},
		{"INFRACTL_HOST", quote(in.Host)},
	}
	for _, name := range slices.Sorted(maps.Keys(in.Environment)) {
		variables = append(variables, pair{name, quote(in.Environment[name])})
	}
	for _, name := range slices.Sorted(slices.Values(in.SecretEnvironment)) {
		variables = append(variables, pair{name, "@@secret." + EnvironmentSecret + name + "@@"})
	}
	type data struct {
		Input
		User, Folder, Current             string
		Variables                         []pair
		Authority                         string
		MemoryMax, Connections, FirstPort int
		Processes                         []process
		Gate, GateName, GateFolder        string
		GateSocket, GateSwitches          string
		Process                           process
	}
	d := data{
		Input: in, User: "app-" + in.Name, Folder: folder, Current: current, Variables: variables, Authority: AuthorityValue,
		MemoryMax: in.MemoryMB * 85 / 100 / in.Processes, Connections: Connections(in.MemoryMB), FirstPort: FirstPort,
		Gate: gate, GateName: gateName, GateFolder: gateFolder, GateSocket: GateSocket, GateSwitches: gateSwitches,
	}
	for i := 1; i <= in.Processes; i++ {
		d.Processes = append(d.Processes, process{Number: i, Port: FirstPort + i, Unit: Unit(in.Name, i)})
	}
	f := templates.Files{From: files, Data: d}
	f.Add(environment, "application.env.tmpl", desired.File{Mode: "0600"})
	f.Add(authority, "db-ca.pem.tmpl", desired.File{})
	f.Add("/etc/nftables.d/application.nft", "application.nft.tmpl", desired.File{})
	f.Add(gate, "gate.cfg.tmpl", desired.File{})
	f.Add(gateSwitches, "gate.map.tmpl", desired.File{})
	f.Add("/etc/systemd/system/"+GateUnit, "gate.service.tmpl", desired.File{})
	duty.Add(&f, "app", true)
	var units []desired.Unit
	for _, p := range d.Processes {
		d.Process = p
		f.Data = d
		file := "/etc/systemd/system/" + p.Unit
		f.Add(file, "application.service.tmpl", desired.File{})
		units = append(units, duty.Around(desired.Unit{
			Name: p.Unit, Enabled: true, Active: true,
			RestartOn: []string{current, environment, authority},
			Validate:  "systemd-analyze verify --recursive-errors=no " + file,
			Health:    fmt.Sprintf("curl -fsS --max-time 3 -o /dev/null http://127.0.0.1:%d%s", p.Port, in.Health),
			// Migrations run before the first answer.
			HealthTimeout: 60,
		}))
	}
	if f.Err != nil {
		return desired.Host{}, f.Err
	}
	f.Made[current] = desired.File{Link: release}
	return desired.Host{
		Packages: []string{"ca-certificates", "curl", "haproxy", "socat"},
		Users:    []desired.User{{Name: "app-" + in.Name, Home: "/var/lib/app-" + in.Name}},
		Files:    f.Made,
		Trees:    map[string]desired.Tree{release: in.Release},
		Units: append(units,
			duty.Around(desired.Unit{
				Name: GateUnit, Enabled: true, Active: true,
				ReloadOn: []string{gate, gateSwitches},
				Validate: "haproxy -c -f " + gate,
				Health:   fmt.Sprintf("curl -fsS --max-time 3 -o /dev/null http://%s%s", netip.AddrPortFrom(in.Address, in.Port), in.Health),
			}),
			// The package's own instance is not needed here.
			desired.Unit{Name: "haproxy.service"},
		),
	}, nil
}
