package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/infractl/infractl/lab/machine"
)

// Status is the lab as it is.
type Status struct {
	// State is up, down, or broken: there, but its daemon does not answer.
	State string `json:"state"`
	// Endpoint and Dir are the API's address and the state directory.
	Endpoint string `json:"endpoint"`
	Dir      string `json:"dir"`
	// PID is the daemon's.
	PID int `json:"pid,omitempty"`
	// Guarded says whether the guard was asked to stay when the lab goes.
	Guarded  bool              `json:"guarded"`
	Warnings []string          `json:"warnings"`
	Machines []machine.State   `json:"machines"`
	Faults   machine.FaultList `json:"faults"`
}

// GetStatus looks how the lab is. It changes nothing.
func GetStatus(ctx context.Context, o Options) (Status, error) {
	if err := o.setDefaults(); err != nil {
		return Status{}, err
	}
	if os.Geteuid() != 0 {
		return Status{}, &MissingError{[]string{"only root can look into the lab: use sudo"}}
	}
	s := Status{State: "down", Endpoint: Endpoint, Dir: o.Dir, Guarded: machine.Guarded(), Warnings: []string{}, Machines: []machine.State{}}
	marker, err := machine.ReadMarker()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, nil
	case err != nil:
		return s, err
	case marker.Dir != o.Dir:
		return s, otherLab(marker.Dir)
	}
	c, err := o.readCredentials()
	if err == nil {
		var told daemonStatus
		if told, err = o.ask(ctx, c); err == nil {
			s.State, s.PID, s.Machines, s.Faults = "up", told.PID, told.Machines, told.Faults
			s.Warnings = append(s.Warnings, told.Warnings...)
			return s, nil
		}
	}
	s.State = "broken"
	s.Warnings = append(s.Warnings, fmt.Sprintf("the daemon does not answer (%v): infractl lab up starts it, %s says why it ended", err, o.logFile()))
	if s.Machines, err = machine.Peek(o.Dir); err != nil {
		s.Warnings = append(s.Warnings, err.Error())
	}
	return s, nil
}

// host finds a machine, whether or not the daemon runs.
func (o *Options) host(name string) (machine.State, error) {
	if err := o.setDefaults(); err != nil {
		return machine.State{}, err
	}
	if os.Geteuid() != 0 {
		return machine.State{}, &MissingError{[]string{"only root can look into the lab's machines: use sudo"}}
	}
	if _, err := os.Stat(o.credentialsFile()); err != nil {
		return machine.State{}, errNotUp
	}
	machines, err := machine.Peek(o.Dir)
	if err != nil {
		return machine.State{}, err
	}
	return findHost(machines, name)
}

// SSH logs in to a machine, or runs a command there, in the place of this
// process: it returns only an error. See SSHCommand.
func SSH(o Options, name string, args []string) error {
	argv, err := SSHCommand(o, name, args)
	if err != nil {
		return err
	}
	return become(argv, "openssh-client")
}

// SSHCommand is the command line by which to log in to a machine. The host key
// is the one on the machine's disk, so that nothing is taken on trust. The user
// is infractl where there is one, else root.
func SSHCommand(o Options, name string, args []string) ([]string, error) {
	s, err := o.host(name)
	if err != nil {
		return nil, err
	}
	if s.Status != "running" {
		return nil, fmt.Errorf("host %s is %s", s.Name, s.Status)
	}
	address := s.IPv4
	if !address.IsValid() {
		address = s.IPv6
	}
	if !address.IsValid() {
		return nil, fmt.Errorf("host %s has no public address to log in at", s.Name)
	}
	key, err := os.ReadFile(filepath.Join(s.Disk, "etc/ssh/ssh_host_ed25519_key.pub"))
	if err != nil {
		return nil, fmt.Errorf("host %s has no host key yet: %w: wait until its cloud-init has run", s.Name, err)
	}
	known := filepath.Join(filepath.Dir(s.Disk), "known_hosts")
	if err := writeFile(known, []byte(s.Name+" "+string(key))); err != nil {
		return nil, err
	}
	user := "root"
	if users, err := os.ReadFile(filepath.Join(s.Disk, "etc/passwd")); err == nil && strings.Contains("\n"+string(users), "\ninfractl:") {
		user = "infractl"
	}
	return append([]string{
		"ssh", "-F", "none", "-i", o.identityFile(), "-o", "IdentitiesOnly=yes",
		"-o", "HostKeyAlias=" + s.Name, "-o", "UserKnownHostsFile=" + known, "-o", "GlobalKnownHostsFile=none",
		"-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlgorithms=ssh-ed25519", "-o", "ConnectTimeout=10",
		"-l", user, address.String(),
	}, args...), nil
}

// Logs shows a machine's journal, of a machine that is off too, in the place
// of this process: it returns only an error. args are journalctl's.
func Logs(o Options, name string, args []string) error {
	argv, err := LogsCommand(o, name, args)
	if err != nil {
		return err
	}
	return become(argv, "systemd")
}

// LogsCommand is the command line that shows a machine's journal.
func LogsCommand(o Options, name string, args []string) ([]string, error) {
	s, err := o.host(name)
	if err != nil {
		return nil, err
	}
	journal := filepath.Join(s.Disk, "var/log/journal")
	if _, err := os.Stat(journal); err != nil {
		return nil, fmt.Errorf("host %s has no journal yet; its console is in %s", s.Name, filepath.Join(filepath.Dir(s.Disk), "console.log"))
	}
	return append([]string{"journalctl", "--directory=" + journal}, args...), nil
}

// become replaces this process by a program of that Debian package.
func become(argv []string, pkg string) error {
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return &MissingError{[]string{argv[0] + " is missing: apt-get install " + pkg}}
	}
	return syscall.Exec(program, argv, os.Environ())
}
