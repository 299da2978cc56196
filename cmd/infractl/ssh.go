package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/stacks"
)

func sshCommand() *cli.Command {
	return &cli.Command{
		Name:      "ssh",
		Usage:     "log in to a host, or run a command there",
		UsageText: "infractl ssh [--env NAME] HOST [-- COMMAND…]",
		Description: "Runs this computer's ssh, which accepts no other host key than the one that\n" +
			"infractl made. Several words of a command are passed as they are; a single one is\n" +
			"a line for the shell. The exit code is that of the command, or 255.",
		Flags: []cli.Flag{envFlag(),
			&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give the command a terminal"},
			&cli.BoolFlag{Name: "config", Usage: "read ssh's own configuration files too, for a jump host for example"},
		},
		Action:       logIn,
		OnUsageError: usageError,
		BashComplete: func(c *cli.Context) {
			if c.NArg() == 0 {
				printHosts(c.App.Writer, c.String("env"))
				completeFlags(c)
			}
		},
	}
}

// login is how to log in to one host.
type login struct {
	fleet *fleet.Fleet
	host  fleet.Host
	// known is the file with the host's key.
	known string
	// identity is the private key's file; empty leaves it to ssh and the agent.
	identity string
	// tty asks for a terminal, config lets ssh read its own configuration.
	tty, config bool
	words       []string
}

func logIn(c *cli.Context) error {
	if c.NArg() == 0 {
		return usage("name the host: infractl ssh HOST [-- COMMAND…]")
	}
	words := c.Args().Tail()
	if len(words) > 0 && words[0] != "--" && strings.HasPrefix(words[0], "-") {
		return usage("%s stands behind the host: flags of infractl come before it, a command after --", words[0])
	}
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	program, err := exec.LookPath("ssh")
	if err != nil {
		return &engine.Error{Kind: engine.Missing, Err: fmt.Errorf("there is no ssh on this computer: %w", err), Advice: "Install OpenSSH's client, on Debian: apt-get install openssh-client"}
	}
	// What infractl loads from the environment's file is not for others.
	variables := os.Environ()
	s, err := open(c, true)
	if err != nil {
		return err
	}
	defer s.reporter.Finish()
	f, err := s.theFleet()
	if err != nil {
		return err
	}
	h, err := f.Host(c.Args().First())
	if err != nil {
		return usage("%w", err)
	}
	l := login{
		fleet: f, host: h, known: filepath.Join(s.engine.Dir(), "known_hosts."+h.Name),
		identity: os.Getenv(stacks.IdentityVariable), tty: c.Bool("tty"), config: c.Bool("config"), words: words,
	}
	var args []string
	if _, err := l.hostKey(); h.Own && err != nil {
		args = l.ownArguments() // no key is pinned, or only its fingerprint
	} else {
		l.config = l.config || h.Own
		if args, err = l.arguments(); err != nil {
			return err
		}
		if err := l.pin(); err != nil {
			return err
		}
	}
	if agent := os.Getenv("SSH_AUTH_SOCK"); agent != "" {
		variables = append(variables, "SSH_AUTH_SOCK="+agent)
	}
	s.reporter.Finish()
	if err := syscall.Exec(program, args, variables); err != nil {
		return fmt.Errorf("cannot run %s: %w", program, err)
	}
	return errors.New("unreachable")
}

// hostKey is the pinned key, without what may stand behind it.
func (l login) hostKey() (ssh.PublicKey, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(l.host.HostKey))
	if err != nil {
		return nil, fmt.Errorf("%s: its host key in the environment's outputs cannot be read: %w", l.host.Name, err)
	}
	return key, nil
}

// pin writes the file from which ssh knows the host.
func (l login) pin() error {
	key, err := l.hostKey()
	if err != nil {
		return err
	}
	// Others may log in to the same host at this moment.
	f, err := os.CreateTemp(filepath.Dir(l.known), ".new-*")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", l.known, err)
	}
	defer os.Remove(f.Name()) // fails once the file has its name
	_, err = f.WriteString(l.host.Server + " " + string(ssh.MarshalAuthorizedKey(key)))
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), l.known)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", l.known, err)
	}
	return nil
}

// arguments is ssh's command line.
func (l login) arguments() ([]string, error) {
	key, err := l.hostKey()
	if err != nil {
		return nil, err
	}
	algorithms := key.Type()
	if algorithms == ssh.KeyAlgoRSA {
		algorithms = ssh.KeyAlgoRSASHA512 + "," + ssh.KeyAlgoRSASHA256
	}
	args := []string{"ssh"}
	if !l.config {
		args = append(args, "-F", "none")
	}
	for _, option := range []string{
		"StrictHostKeyChecking=yes",
		"UserKnownHostsFile=" + sshWord(l.known),
		"GlobalKnownHostsFile=none",
		"HostKeyAlias=" + l.host.Server,
		"HostKeyAlgorithms=" + algorithms,
		"UpdateHostKeys=no",
		"PreferredAuthentications=publickey",
		"ConnectTimeout=10",
		"ServerAliveInterval=15",
	} {
		args = append(args, "-o", option)
	}
	if l.identity != "" {
		args = append(args, "-o", "IdentityFile="+sshWord(l.identity), "-o", "IdentitiesOnly=yes")
	}
	if l.tty {
		args = append(args, "-t")
	}
	t := l.fleet.Target(l.host)
	if t.Jump != "" {
		args = append(args, "-J", t.Jump)
	}
	if t.Port != 0 {
		args = append(args, "-p", strconv.Itoa(t.Port))
	}
	if t.User != "" {
		args = append(args, "-l", t.User)
	}
	args = append(args, l.host.Public)
	switch {
	case len(l.words) == 1:
		args = append(args, "--", l.words[0])
	case len(l.words) > 1:
		args = append(args, "--", fleet.Command{Words: l.words}.Line())
	}
	return args, nil
}

// ownArguments is ssh's command line for a server that the user had before: it is
// reached as always, by the user's own settings and known_hosts.
func (l login) ownArguments() []string {
	args := []string{"ssh", "-o", "StrictHostKeyChecking=yes"}
	if l.host.Jump != "" {
		args = append(args, "-J", l.host.Jump)
	}
	if l.host.Port != 0 {
		args = append(args, "-p", strconv.Itoa(l.host.Port))
	}
	if l.host.User != "" {
		args = append(args, "-l", l.host.User)
	}
	if l.tty {
		args = append(args, "-t")
	}
	args = append(args, "--", l.host.Public)
	switch {
	case len(l.words) == 1:
		args = append(args, l.words[0])
	case len(l.words) > 1:
		args = append(args, fleet.Command{Words: l.words}.Line())
	}
	return args
}

// sshWord writes a path as ssh_config(5) takes it: % is special, and spaces end
// a word that has no quotation marks.
func sshWord(path string) string {
	path = strings.ReplaceAll(path, "%", "%%")
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(path) + `"`
}
