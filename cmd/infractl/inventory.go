package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/hostcheck"
	"github.com/infractl/infractl/cmd/infractl/internal/inventory"
	"github.com/infractl/infractl/cmd/infractl/internal/screen"
	"github.com/infractl/infractl/cmd/infractl/internal/stackfile"
	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/stacks"
)

// joinLimit bounds everything that is asked of a server that is to join.
const joinLimit = 2 * time.Minute

func hostsCommand() *cli.Command {
	return &cli.Command{
		Name:  "hosts",
		Usage: "the servers that you already have: the inventory in infractl:hosts",
		Subcommands: []*cli.Command{
			{
				Name:      "add",
				Usage:     "look at a server and write it into the configuration",
				UsageText: "infractl hosts add TIER|spare [USER@]ADDRESS[:PORT] [--name NAME] [--private ADDRESS] [--host-key KEY] [--jump HOST] [--env NAME]",
				Description: "Logs in as infractl up would, after the server's host key was found to be right: by --host-key,\n" +
					"by known_hosts, or by you, who are shown its fingerprint. Then it looks at the server and writes an\n" +
					"entry with its memory, cores and private address into Pulumi.NAME.yaml. Nothing else in the file\n" +
					"changes, and nothing on the server. A server that infractl cannot take over is refused.",
				ArgsUsage: "TIER|spare ADDRESS",
				Flags: []cli.Flag{envFlag(), noColorFlag(),
					&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask: the host key must be known, or be given with --host-key"},
					&cli.StringFlag{Name: "name", Usage: "give the server the host name `NAME`"},
					&cli.StringFlag{Name: "private", Usage: "the environment's hosts reach it by the IPv4 `ADDRESS`"},
					&cli.StringFlag{Name: "host-key", Usage: "its public `KEY`, the fingerprint of that, or @cert-authority and a key"},
					&cli.StringFlag{Name: "user", Usage: "log in as `USER` (default: ssh.user of the configuration, else root)"},
					&cli.IntFlag{Name: "port", Usage: "its sshd listens on `PORT` (default: ssh.port of the configuration, else 22)"},
					&cli.StringFlag{Name: "jump", Usage: "go through `HOST`, as in ProxyJump (default: what ~/.ssh/config says)"},
				},
				Action:       hostsAdd,
				OnUsageError: usageError,
				BashComplete: func(c *cli.Context) {
					if c.NArg() == 0 {
						fmt.Fprintln(c.App.Writer, strings.Join(append(stacks.TierNames(), stacks.Spare), "\n"))
					}
					completeFlags(c)
				},
			},
			{
				Name:      "remove",
				Usage:     "take a server out of the configuration",
				UsageText: "infractl hosts remove NAME|ADDRESS|HOST [--leave-data HOST] [--yes] [--env NAME]",
				Description: "A host such as web-2 loses that tier's entry; a name or an address loses all entries of the server.\n" +
					"Nothing happens to the server until the next infractl up. Its data stay where they are.",
				ArgsUsage: "NAME|ADDRESS|HOST",
				Flags: []cli.Flag{envFlag(), yesFlag(), noColorFlag(),
					&cli.StringSliceFlag{Name: "leave-data", Usage: "leave the database of `HOST` behind; the next one is new and empty"},
				},
				Action:       hostsRemove,
				OnUsageError: usageError,
				BashComplete: completeServers,
			},
			{
				Name:         "list",
				Usage:        "list the servers of the inventory, and what the environment does with them",
				UsageText:    "infractl hosts list [--json] [--env NAME]",
				Description:  "Reads the configuration and nothing else.",
				Flags:        []cli.Flag{envFlag(), resultFlag(), noColorFlag()},
				Action:       hostsList,
				OnUsageError: usageError,
				BashComplete: completeFlags,
			},
			{
				Name:      "check",
				Usage:     "look whether servers are fit for what they are to do, before anything is changed",
				UsageText: "infractl hosts check [NAME|ADDRESS|HOST…] [--json] [--env NAME]",
				Description: "Looks at all servers at once: the way in, Debian, systemd, clock, disk, memory, the private address,\n" +
					"who else listens on the ports, packages left half-way, and files that infractl up would write over,\n" +
					"with their diffs. It changes nothing. Exit code 0: no problems, perhaps warnings; 1: problems;\n" +
					"2: wrong usage or configuration, and no server was looked at.",
				ArgsUsage:    "[NAME|ADDRESS|HOST…]",
				Flags:        []cli.Flag{envFlag(), resultFlag(), noColorFlag()},
				Action:       hostsCheck,
				OnUsageError: usageError,
				BashComplete: completeServers,
			},
		},
	}
}

// completeServers completes the servers of the inventory and the flags of a command.
func completeServers(c *cli.Context) {
	printServers(c.App.Writer, c.String("env"))
	completeFlags(c)
}

// printServers writes by what the servers of an environment's inventory are called.
func printServers(w io.Writer, environment string) {
	e, err := engine.OpenConfig(engine.Settings{Dir: ".", Environment: environment, Say: func(string, ...any) {}, SkipFiles: true})
	if err != nil {
		return // there is nothing to offer
	}
	for _, s := range inventory.Servers(e.Spec) {
		for _, word := range append([]string{s.Name, s.Address}, s.Hosts...) {
			if word != "" {
				fmt.Fprintln(w, word)
			}
		}
	}
}

// inventoryProblems are those of the configuration's problems that are about the
// inventory itself.
func inventoryProblems(all []stacks.Problem) []stacks.Problem {
	var out []stacks.Problem
	for _, p := range all {
		if strings.HasPrefix(p.Key, inventoryKey) {
			out = append(out, p)
		}
	}
	return out
}

// inventoryKey is the inventory in the configuration.
const inventoryKey = "infractl:hosts"

func hostsList(c *cli.Context) error {
	if c.NArg() > 0 {
		return usage("hosts list takes no arguments, but there is %q", c.Args().First())
	}
	s, err := openConfig(c, true)
	if err != nil {
		return err
	}
	defer s.reporter.Finish()
	servers := inventory.Servers(s.engine.Spec)
	if c.Bool("json") {
		if servers == nil {
			servers = []inventory.Server{}
		}
		if err := writeJSON(os.Stdout, map[string]any{"version": 1, "environment": s.engine.Environment, "servers": servers}); err != nil {
			return err
		}
	} else if len(servers) == 0 {
		s.say("there are no servers in %s; add one with infractl hosts add", inventoryKey)
	} else {
		style := styleOf(c, os.Stdout)
		for _, line := range serverTable(servers).Lines(style.Width) {
			fmt.Fprintln(os.Stdout, line)
		}
	}
	return s.unreadable()
}

// unreadable is the error of an inventory of which an entry is wrong. A tier that has
// no servers yet is no reason not to look at those of others.
func (s *session) unreadable() error {
	wrong := slices.DeleteFunc(inventoryProblems(s.engine.Problems()), func(p stacks.Problem) bool {
		return p.Key != inventoryKey && !strings.Contains(p.Key, "[")
	})
	if len(wrong) == 0 {
		return nil
	}
	return &engine.Error{Kind: engine.Invalid, Err: fmt.Errorf("%s is not right:\n%w", filepath.Base(s.engine.Config.File), &stacks.ConfigError{Problems: wrong})}
}

// serverTable lists servers for people.
func serverTable(servers []inventory.Server) screen.Table {
	t := screen.Table{Columns: []screen.Column{
		{Title: "SERVER"}, {Title: "LISTED"}, {Title: "USED AS"}, {Title: "ADDRESS"}, {Title: "PRIVATE", Rank: 1}, {Title: "USER", Rank: 4},
		{Title: "JUMP", Rank: 5}, {Title: "MEMORY", Right: true, Rank: 3}, {Title: "CORES", Right: true, Rank: 3}, {Title: "DEBIAN", Right: true, Rank: 2}, {Title: "HOST KEY", Rank: 6},
	}}
	for _, s := range servers {
		used := strings.Join(s.Hosts, " ")
		if used == "" {
			used = "-"
		}
		var row []screen.Cell
		for _, text := range []string{
			s.Name, strings.Join(s.Lists, " "), used, s.Endpoint(), s.Private, s.User, s.Jump,
			strconv.Itoa(s.MemoryMB), strconv.Itoa(s.Cores), strconv.Itoa(s.Debian), s.Key(),
		} {
			row = append(row, screen.Cell{Text: screen.Clean(text)})
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func hostsAdd(c *cli.Context) error {
	args, err := arguments(c)
	if err != nil {
		return err
	}
	lists := append(stacks.TierNames(), stacks.Spare)
	if len(args) != 2 {
		return usage("name a tier and a server: infractl hosts add TIER|%s [USER@]ADDRESS[:PORT]", stacks.Spare)
	}
	if !slices.Contains(lists, args[0]) {
		return usage("there is no tier %q; there are %s, and %s for servers that no tier has yet", args[0], strings.Join(stacks.TierNames(), ", "), stacks.Spare)
	}
	s, err := openConfig(c, true)
	if err != nil {
		return err
	}
	defer func() { s.reporter.Finish() }()
	j, err := s.joining(args[0], args[1])
	if err != nil {
		return usage("%w", err)
	}
	servers := inventory.Servers(s.engine.Spec)
	if err := j.There(servers); err != nil {
		return usage("%w", err)
	}
	s.reporter.Phase("looking at %s", j.Address)
	ctx, cancel := context.WithTimeout(c.Context, joinLimit)
	defer cancel()
	key, err := provision.ShowHostKey(ctx, j.Target())
	if err != nil {
		return err
	}
	if err := j.SameKey(key, servers); err != nil {
		return usage("%w", err)
	}
	// Whoever is asked may take as long as he likes.
	if err := s.vouch(j, key); err != nil {
		return err
	}
	s.reporter.Phase("looking at %s", j.Address)
	m, err := lookAtJoining(c.Context, j, key)
	if err != nil {
		return err
	}
	if err := j.Suitable(m); err != nil {
		return &engine.Error{Kind: engine.Failed, Err: err, Advice: "Nothing was changed."}
	}
	private, err := j.Choose(m, servers)
	if err != nil {
		return usage("%w", err)
	}
	j.Private = private
	if err := j.There(servers); err != nil {
		return usage("%w", err)
	}
	before, entry := s.engine.Spec, j.Entry(s.engine.Spec, m, key, private)
	fresh, err := s.engine.Change(func(text []byte) ([]byte, error) { return stackfile.AddServer(text, j.List, entry) })
	if err != nil {
		return err
	}
	if wrong := inventoryProblems(fresh); len(wrong) > 0 {
		return usage("with %s the configuration would not be right:\n%w\nnothing was changed", j.Address, &stacks.ConfigError{Problems: wrong})
	}
	s.reporter.Finish()
	if err := s.engine.WriteConfig(); err != nil {
		return err
	}
	s.added(j, entry, m, before)
	return nil
}

// joining is the server that the command line names.
func (s *session) joining(list, text string) (inventory.Joining, error) {
	c, env := s.c, s.engine.Spec
	j := inventory.Joining{List: list, Name: c.String("name"), HostKey: strings.TrimSpace(c.String("host-key")), Jump: c.String("jump")}
	var err error
	if j.User, j.Address, j.Port, err = inventory.ParseAddress(text); err != nil {
		return j, err
	}
	if user := c.String("user"); user != "" {
		if j.User != "" && j.User != user {
			return j, fmt.Errorf("the user is %s in %s, but %s in --user", j.User, text, user)
		}
		j.User = user
	}
	if j.User == "" {
		j.User = inventory.DefaultUser(env)
	}
	if c.IsSet("port") {
		port := c.Int("port")
		if j.Port != 0 && j.Port != port {
			return j, fmt.Errorf("the port is %d in %s, but %d in --port", j.Port, text, port)
		}
		if port < 1 || port > 65535 {
			return j, fmt.Errorf("--port must be between 1 and 65535, not %d", port)
		}
		j.Port = port
	}
	if j.Port == 0 {
		j.Port = env.SSH.Port
	}
	if p := c.String("private"); p != "" {
		if j.Private, err = netip.ParseAddr(p); err != nil || !j.Private.Is4() {
			return j, fmt.Errorf("--private must be an IPv4 address, not %q", p)
		}
	}
	if j.HostKey != "" {
		if err := provision.ParseHostKey(j.HostKey); err != nil {
			return j, fmt.Errorf("--host-key: %w", err)
		}
	}
	if err := provision.ParseJump(j.Jump); err != nil {
		return j, fmt.Errorf("--jump: %w", err)
	}
	return j, nil
}

// vouch makes sure that somebody knows the server's key.
func (s *session) vouch(j inventory.Joining, key provision.ShownKey) error {
	compare := fmt.Sprintf("Compare it with what this prints on the server's own console:\n  ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub", strings.ToLower(key.Type))
	if key.Known {
		by := "as known_hosts has it"
		if j.HostKey != "" {
			by = "as you said"
		}
		s.say("%s has the host key %s (%s), %s", j.Address, key.Fingerprint, key.Type, by)
		return nil
	}
	if s.c.Bool("yes") || mustAsk(s.c) != nil {
		return &engine.Error{Kind: engine.Invalid,
			Err:    fmt.Errorf("%s shows the host key %s (%s), and nobody says whether that is right: no key is trusted because it came first; nothing was changed", j.Address, key.Fingerprint, key.Type),
			Advice: compare + "\nIf it is the same, say --host-key " + key.Fingerprint}
	}
	var given string
	var err error
	s.aside(func() {
		fmt.Fprintf(os.Stderr, "%s shows the host key\n  %s (%s)\n%s\n", j.Address, key.Fingerprint, key.Type, compare)
		given, err = inquire(s.c.Context, "Is it right? (yes, no, or the fingerprint)")
	})
	if err != nil {
		return err
	}
	if given != "yes" && given != key.Fingerprint {
		return usage("not confirmed; nothing was changed")
	}
	return nil
}

// lookAtJoining logs in to a server and looks at it.
func lookAtJoining(ctx context.Context, j inventory.Joining, key provision.ShownKey) (*provision.Machine, error) {
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	t := j.Target()
	t.HostKey = key.Key
	conn, err := provision.Connect(ctx, t)
	if errors.Is(err, provision.ErrAuthFailed) {
		return nil, fmt.Errorf("%w\nIf another user may log in there and become root, say so: USER@%s", err, j.Address)
	}
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Facts(ctx)
}

// added says what was written and what to do next.
func (s *session) added(j inventory.Joining, entry []stackfile.Pair, m *provision.Machine, before stacks.Environment) {
	env, out := s.engine.Environment, os.Stdout
	fmt.Fprintf(out, "%s, %d MiB, %d cores: written to %s under %s.%s\n", screen.Clean(m.Name), m.MemoryMB, m.Cores, filepath.Base(s.engine.Config.File), inventoryKey, j.List)
	for _, p := range entry {
		fmt.Fprintf(out, "  %s: %s\n", p.Key, p.Value)
	}
	after := s.engine.Spec
	me, err := inventory.Find(inventory.Servers(after), j.Address)
	if err != nil {
		for _, one := range inventory.Servers(after) {
			if strings.EqualFold(one.Address, j.Address) && one.Port == j.Port {
				me = one
			}
		}
	}
	s.tellMoves(os.Stdout, before)
	switch {
	case len(me.Hosts) > 0:
		fmt.Fprintf(out, "It becomes %s.\n", strings.Join(me.Hosts, " and "))
	case j.List == stacks.Spare:
		fmt.Fprintln(out, "It is spare: a tier whose count is larger than its list takes it.")
	case after.Tiers[j.List].Target != stacks.TargetHosts:
		fmt.Fprintf(out, "It is not used: tier %s has its hosts from %s.\n", j.List, after.Tiers[j.List].Target)
	default:
		n := len(after.Inventory.Tiers[j.List])
		fmt.Fprintf(out, "It is not used yet, since infractl:tiers.%s.count is %d: infractl scale --env %s %s=%d\n", j.List, after.Tiers[j.List].Count, env, j.List, n)
	}
	if p := s.engine.Problems(); len(p) > 0 {
		fmt.Fprintf(out, "The configuration is not complete yet:\n  %s\n", strings.ReplaceAll((&stacks.ConfigError{Problems: p}).Error(), "\n", "\n  "))
		return
	}
	fmt.Fprintf(out, "Next: infractl hosts check --env %s, then infractl preview --env %s\n", env, env)
}

// tellMoves says which other servers become other hosts than they were.
func (s *session) tellMoves(w io.Writer, before stacks.Environment) {
	words := func(hosts []string) string {
		if len(hosts) == 0 {
			return "not used"
		}
		return strings.Join(hosts, " and ")
	}
	for _, m := range inventory.Moves(before, s.engine.Spec) {
		fmt.Fprintf(w, "%s was %s and is %s from the next up on.\n", m.Server.Title(), words(m.Before), words(m.Now))
	}
}

func hostsRemove(c *cli.Context) error {
	args, err := arguments(c)
	if err != nil {
		return err
	}
	if len(args) != 1 {
		return usage("name one server: infractl hosts remove NAME|ADDRESS|HOST")
	}
	if err := mustAsk(c); err != nil {
		return err
	}
	s, err := openConfig(c, true)
	if err != nil {
		return err
	}
	defer s.reporter.Finish()
	before := s.engine.Spec
	l, err := inventory.Leave(before, args[0])
	if err != nil {
		return usage("%w", err)
	}
	fresh, err := s.engine.Change(func(text []byte) (_ []byte, err error) {
		for _, p := range l.Places {
			if text, err = stackfile.RemoveServer(text, p.List, p.Index); err != nil {
				return nil, err
			}
		}
		return text, nil
	})
	if err != nil {
		return err
	}
	if err := l.Refused(s.engine.Spec, fresh, c.StringSlice("leave-data")); err != nil {
		return usage("%w; nothing was changed", err)
	}
	s.reporter.Finish()
	var places []string
	for _, p := range l.Places {
		places = append(places, fmt.Sprintf("%s.%s[%d]", inventoryKey, p.List, p.Index))
	}
	fmt.Fprintf(os.Stderr, "%s (%s) goes out of %s: %s\n", l.Server.Title(), l.Server.Endpoint(), filepath.Base(s.engine.Config.File), strings.Join(places, ", "))
	s.tellMoves(os.Stderr, before)
	machine, heir, inherited := l.Heir(before, s.engine.Spec)
	if inherited {
		fmt.Fprintf(os.Stderr, "%s is %s then, and infractl up does not come back to %s: what runs there goes on until you stop it.\n",
			machine, heir.Title(), l.Server.Title())
	}
	if err := confirm(c, "Go on? (yes/no)", "yes"); err != nil {
		return err
	}
	if err := s.engine.WriteConfig(); err != nil {
		return err
	}
	if len(l.Hosts) == 0 {
		fmt.Fprintln(os.Stdout, "Nothing used it, so there is nothing more to do.")
		return nil
	}
	then := "The next infractl up gives it back as it was before, but for packages, users and data."
	if inherited {
		then = fmt.Sprintf("The next infractl up goes to %s in its place; data stay.", heir.Title())
	}
	fmt.Fprintf(os.Stdout, "It was %s until now. %s\nNext: infractl preview --env %s\n", strings.Join(l.Hosts, " and "), then, s.engine.Environment)
	return nil
}

func hostsCheck(c *cli.Context) error {
	words, err := arguments(c)
	if err != nil {
		return err
	}
	s, err := openConfig(c, false)
	if err != nil {
		return err
	}
	defer s.reporter.Finish()
	if err := s.unreadable(); err != nil {
		return err
	}
	servers, err := s.toCheck(words)
	if err != nil {
		return err
	}
	s.reporter.Phase("looking at the servers of %s", s.engine.Environment)
	results := hostcheck.Check(c.Context, servers)
	s.reporter.Finish()
	if err := c.Context.Err(); err != nil {
		return &engine.Error{Kind: engine.Interrupted, Err: fmt.Errorf("hosts check: %w", err)}
	}
	var unfit []string
	for _, r := range results {
		if !r.OK {
			unfit = append(unfit, r.Title)
		}
	}
	if c.Bool("json") {
		var text bytes.Buffer // some of it was said by servers
		if err = writeJSON(&text, map[string]any{"version": 1, "environment": s.engine.Environment, "ok": len(unfit) == 0, "servers": results}); err == nil {
			_, err = os.Stdout.Write(screen.CleanJSON(text.Bytes()))
		}
	} else {
		style := styleOf(c, os.Stdout)
		_, err = fmt.Println(strings.Join(hostcheck.Lines(results, style, style.Width), "\n"))
	}
	if err != nil {
		return err
	}
	if len(unfit) > 0 {
		return &engine.Error{Kind: engine.Failed, Err: fmt.Errorf("not fit for %s: %s", s.engine.Environment, strings.Join(unfit, ", "))}
	}
	return nil
}

// toCheck are the servers that the words name, all if there are none, with what is to
// be on them.
func (s *session) toCheck(words []string) ([]hostcheck.Server, error) {
	env := s.engine.Spec
	all := inventory.Servers(env)
	if len(all) == 0 {
		return nil, usage("there are no servers in %s; add one with infractl hosts add", inventoryKey)
	}
	chosen := all
	if len(words) > 0 {
		named := map[*stacks.OwnServer]bool{}
		for _, word := range words {
			one, err := inventory.Find(all, word)
			if err != nil {
				return nil, usage("%w", err)
			}
			named[one.Own] = true
		}
		chosen = slices.DeleteFunc(slices.Clone(all), func(one inventory.Server) bool { return !named[one.Own] })
	}
	described := map[string]desired.Host{}
	err := error(nil)
	if p := s.engine.Problems(); len(p) > 0 {
		err = &stacks.ConfigError{Problems: p}
	} else {
		described, err = stacks.Describe(env)
	}
	if err != nil {
		s.say("ports and files are not compared, since what is to be on the servers is not known yet:\n%v", err)
	}
	var vips []netip.Addr
	for _, v := range env.VIP.Wire {
		vips = append(vips, v.Address.Addr())
		if v.IPv6.IsValid() {
			vips = append(vips, v.IPv6.Addr())
		}
	}
	var out []hostcheck.Server
	balancers := 0
	for _, one := range chosen {
		to := hostcheck.Server{Server: one, Environment: env.Name}
		for _, m := range env.OwnMachines() {
			if m.Hosts[0].Own != one.Own {
				continue
			}
			if slices.ContainsFunc(m.Hosts, func(h stacks.Host) bool { return h.Tier == stacks.TierLB }) {
				to.VIPs = vips
				balancers++
			}
			if h, known := described[m.Name]; known && err == nil {
				to.Desired, to.Ports = &h, env.Ports(m)
			}
		}
		out = append(out, to)
	}
	if balancers < env.Tiers[stacks.TierLB].Count {
		// Another load balancer may have a virtual IP, as it should.
		leaveVIPs(out)
	}
	return out, nil
}

// leaveVIPs keeps a check from asking who has the virtual IPs.
func leaveVIPs(servers []hostcheck.Server) {
	for i := range servers {
		servers[i].VIPs = nil
	}
}
