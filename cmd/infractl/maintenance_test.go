package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
)

func TestFlagsMayStandBehindArguments(t *testing.T) {
	type result struct {
		args, env, tiers, timeout string
		force                     bool
	}
	run := func(line string) (got result, err error) {
		command := drainCommand()
		command.Flags = append(command.Flags, tiersFlag())
		command.Action = func(c *cli.Context) error {
			args, err := arguments(c)
			got = result{strings.Join(args, " "), c.String("env"), strings.Join(c.StringSlice("tier"), " "), c.Duration("timeout").String(), c.Bool("force")}
			return err
		}
		app := &cli.App{Commands: []*cli.Command{command}, ExitErrHandler: func(*cli.Context, error) {}}
		return got, app.Run(append([]string{"infractl"}, strings.Fields(line)...))
	}
	for line, want := range map[string]result{
		"drain web-1 web-2":                      {args: "web-1 web-2", timeout: "30s"},
		"drain --force web-1":                    {args: "web-1", timeout: "30s", force: true},
		"drain web-1 --timeout 5s --force web-2": {args: "web-1 web-2", timeout: "5s", force: true},
		"drain -e lab web-1 --timeout=1m":        {args: "web-1", env: "lab", timeout: "1m0s"},
		"drain web-1 -e lab --tier=app":          {args: "web-1", env: "lab", tiers: "app", timeout: "30s"},
		"drain --tier web web-1 --tier app":      {args: "web-1", tiers: "web app", timeout: "30s"},
		"drain web-1 --force=false -- --force":   {args: "web-1 --force", timeout: "30s"},
	} {
		if got, err := run(line); got != want || err != nil {
			t.Errorf("%s: %+v, %v", line, got, err)
		}
	}
	for line, want := range map[string]string{
		"drain web-1 --forse":         "flag provided but not defined: -forse",
		"drain web-1 --timeout":       "flag needs an argument: -timeout",
		"drain web-1 --timeout soon":  `invalid value "soon" for flag -timeout`,
		"drain web-1 --force=perhaps": `invalid value "perhaps" for flag -force`,
	} {
		if _, err := run(line); engine.KindOf(err) != engine.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestMistakesInMaintenanceCommandsAreSaid(t *testing.T) {
	dir := project(t, map[string]string{"Pulumi.lab.yaml": ""})
	for _, c := range []struct{ line, want string }{
		{"drain", "name the hosts: infractl drain HOST…"},
		{"undrain -e lab", "name the hosts: infractl undrain HOST…"},
		{"drain web-1 --timeout 10ms", "--timeout must be 1s at least"},
		{"replace", "name one host: infractl replace HOST"},
		{"replace web-1 web-2 --yes", "name one host: infractl replace HOST"},
		{"replace web-1", "there is no terminal to ask on; say --yes"},
		{"failover lb-2", `failover takes no arguments, but there is "lb-2"; name the target with --to`},
		{"os upgrade --reboot perhaps", `--reboot must be auto, always or never, not "perhaps"`},
		{"os upgrade web-1 --fast", "flag provided but not defined: -fast"},
	} {
		stdout, stderr, code := command(t, dir, strings.Fields(c.line)...)
		if code != 2 || !strings.Contains(stderr, c.want) || stdout != "" {
			t.Errorf("infractl %s: exit code %d\nstdout: %s\nstderr: %s", c.line, code, stdout, stderr)
		}
	}
}

func testFleet() *fleet.Fleet {
	f := &fleet.Fleet{}
	for _, name := range []string{"lb-1", "lb-2", "web-1", "web-2", "web-3", "app-1"} {
		tier, _, _ := strings.Cut(name, "-")
		f.Hosts = append(f.Hosts, fleet.Host{Name: name, Tier: tier})
	}
	return f
}

func TestTheLastHostsOfATierThatServeAreKept(t *testing.T) {
	drained := fleet.Condition{Drained: "by ops"}
	dead := fleet.Condition{Err: errors.New("no answer")}
	unwell := fleet.Condition{Unwell: "nginx is down"}
	for _, c := range []struct {
		name  string
		going string
		how   map[string]fleet.Condition
		// want is in the error; empty if there is none.
		want string
	}{
		{"one of several", "web-1", nil, ""},
		{"two of three", "web-1 web-2", nil, ""},
		{"all of a tier", "web-1 web-2 web-3", nil, "nobody of tier web would serve without web-1 and web-2 and web-3: there is no other"},
		{"the only one", "app-1", nil, "nobody of tier app would serve without app-1: there is no other"},
		{"the last that serves", "web-1", map[string]fleet.Condition{"web-2": drained, "web-3": dead},
			"nobody of tier web would serve without web-1: web-2 is drained (by ops), web-3 does not answer"},
		{"of two the last that serves", "web-1 web-2", map[string]fleet.Condition{"web-2": drained, "web-3": unwell},
			"nobody of tier web would serve without web-1: web-3 is unwell: nginx is down"},
		{"one that does not serve anyhow", "web-1", map[string]fleet.Condition{"web-1": dead, "web-2": dead, "web-3": dead}, ""},
		{"one of each tier", "lb-1 web-1", nil, ""},
		{"one of a tier and all of another", "lb-1 app-1", nil, "nobody of tier app"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := testFleet()
			var going []fleet.Host
			for _, name := range strings.Fields(c.going) {
				h, err := f.Host(name)
				if err != nil {
					t.Fatal(err)
				}
				going = append(going, h)
			}
			err := refuseLast(f, going, c.how, "drain")
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (engine.KindOf(err) != engine.Invalid || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "--force")):
				t.Errorf("%v", err)
			}
		})
	}
}

func TestHostsWithTheSamePackagesShareAList(t *testing.T) {
	libssl := []fleet.Package{{Name: "libssl3", Old: "1", New: "2"}}
	u := &upgrading{plans: map[string]fleet.Upgrade{
		"web-1": {Packages: libssl, Reboot: "kernel 2 is installed, 1 runs"},
		"web-2": {Packages: libssl, Kept: []string{"nginx"}},
		"web-3": {Stale: []string{"nginx.service"}},
		"app-1": {Packages: append(libssl, fleet.Package{Name: "linux-image-2", New: "2"}), Unfinished: true},
	}}
	var b strings.Builder
	u.write(&b, testFleet().Hosts[2:])
	want := `web-1 web-2: 1 package
  libssl3 1 → 2
web-3: no package to upgrade
app-1: 2 packages
  libssl3 1 → 2
  linux-image-2 2 (new)
web-1: a reboot is pending: kernel 2 is installed, 1 runs
web-2: kept as they are, since others would have to be removed: nginx
web-3: still run code that was replaced, and are to be restarted: nginx.service
app-1: an earlier upgrade was cut off and has to be finished
`
	if b.String() != want {
		t.Errorf("got:\n%s", &b)
	}
}

func TestAMoveEndsWhereItWasMeantTo(t *testing.T) {
	for _, c := range []struct {
		to, holder string
		apart      bool
		want       bool
	}{
		{"", "lb-1", false, false},
		{"", "lb-2", false, true},
		{"", "", false, false},
		{"", "lb-2", true, false},
		{"lb-3", "lb-2", false, false},
		{"lb-3", "lb-3", false, true},
		{"lb-1", "lb-1", false, true}, // its other family was elsewhere
	} {
		m := &move{from: fleet.Host{Name: "lb-1"}, to: c.to}
		if got := m.arrived(c.holder, c.apart); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
