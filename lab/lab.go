// Package lab is a cloud on this computer: an emulator of the Hetzner Cloud
// API (package api) whose servers are real Debian machines (package machine).
// It needs root and a Linux computer with Debian's package sources.
//
// Up starts a daemon in the background and Down removes everything; the
// machines live apart from the daemon and survive its end.
package lab

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/infractl/infractl/lab/api"
	"github.com/infractl/infractl/lab/machine"
)

// Endpoint is where the API is found, from this computer and from machines.
var Endpoint = fmt.Sprintf("http://%s:%d/v1", machine.Computer4.Addr(), machine.APIPort)

// EnvFile is the name of the file that Up writes into a project.
const EnvFile = ".env.lab"

// Options say where the lab keeps its things. The zero value is the default.
type Options struct {
	// Dir is the state directory. Default: $INFRACTL_LAB_DIR, else that of the lab
	// that is up, else /var/lib/infractl-lab.
	Dir string
	// Cache is the directory of base images, which outlives the lab.
	// Default: $INFRACTL_LAB_CACHE, else /var/cache/infractl-lab.
	Cache string
	// Project is the directory that gets EnvFile. Empty means none does.
	Project string
	// Images are the base images to have before the daemon starts; others are
	// made when a server asks for one. Default: the newest Debian.
	Images []string
	// Daemon is the command that runs Serve. Default: this program's "lab serve".
	Daemon []string
	// Progress is told of every step that takes longer than a moment. May be nil.
	Progress func(string)
}

func (o *Options) setDefaults() error {
	up, _ := machine.ReadMarker()
	o.Dir = first(o.Dir, os.Getenv("INFRACTL_LAB_DIR"), up.Dir, "/var/lib/infractl-lab")
	o.Cache = first(o.Cache, os.Getenv("INFRACTL_LAB_CACHE"), "/var/cache/infractl-lab")
	for _, dir := range []*string{&o.Dir, &o.Cache} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = abs
	}
	if len(o.Images) == 0 {
		o.Images = machine.Images()[:1]
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return nil
}

func first(values ...string) string {
	i := slices.IndexFunc(values, func(s string) bool { return s != "" })
	return values[i]
}

// MissingError says what this computer lacks for a lab.
type MissingError struct {
	// What is missing, one sentence each, with what to do about it.
	What []string
}

func (e *MissingError) Error() string {
	return "this computer cannot run the lab: " + strings.Join(e.What, "; ")
}

// tools are the programs the lab uses, by the Debian package they are in.
var tools = map[string]string{
	"systemd-nspawn": "systemd-container",
	"mmdebstrap":     "mmdebstrap",
	"ip":             "iproute2",
	"nft":            "nftables",
	"unshare":        "util-linux",
	"mount":          "mount",
	"losetup":        "mount",
}

// Check returns a *MissingError if this computer lacks something.
func Check() error {
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "the lab makes machines and networks, for which it must be root: use sudo")
	}
	var packages []string
	for tool, pkg := range tools {
		if _, err := exec.LookPath(tool); err != nil && !slices.Contains(packages, pkg) {
			packages = append(packages, pkg)
		}
	}
	if len(packages) > 0 {
		slices.Sort(packages)
		missing = append(missing, "programs are missing: apt-get install "+strings.Join(packages, " "))
	}
	if err := machine.Check(); err != nil {
		missing = append(missing, err.Error())
	}
	if len(missing) > 0 {
		return &MissingError{missing}
	}
	return nil
}

// credentials are made once for a lab.
type credentials struct {
	// Token is the operator's API token, VIPToken the load balancers'.
	Token    string `json:"token"`
	VIPToken string `json:"vip_token"`
	// Passphrase encrypts the secrets in the environment's Pulumi state.
	Passphrase string `json:"passphrase"`
}

func (o *Options) credentialsFile() string { return filepath.Join(o.Dir, "credentials.json") }
func (o *Options) identityFile() string    { return filepath.Join(o.Dir, "id_ed25519") }
func (o *Options) logFile() string         { return filepath.Join(o.Dir, "daemon.log") }

// ensureState makes the state directory with the lab's credentials, unless
// they are there.
func (o *Options) ensureState() (credentials, error) {
	var c credentials
	if err := machine.MarkStateDir(o.Dir); err != nil {
		return c, fmt.Errorf("make the lab's state directory: %w", err)
	}
	c, err := o.readCredentials()
	if errors.Is(err, fs.ErrNotExist) {
		c = credentials{randomText(), randomText(), randomText()}
		var data []byte
		if data, err = json.MarshalIndent(c, "", "  "); err == nil {
			err = writeFile(o.credentialsFile(), data)
		}
	}
	if err != nil {
		return c, fmt.Errorf("the lab's credentials: %w", err)
	}
	if err := o.ensureIdentity(); err != nil {
		return c, fmt.Errorf("the lab's SSH key: %w", err)
	}
	return c, os.MkdirAll(filepath.Join(o.Dir, "pulumi"), 0o700)
}

func (o *Options) readCredentials() (credentials, error) {
	var c credentials
	data, err := os.ReadFile(o.credentialsFile())
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(data, &c)
}

// randomText is as long as an API token must be.
func randomText() string {
	b := make([]byte, api.TokenLength/2)
	_, _ = rand.Read(b) // never fails, see its documentation
	return hex.EncodeToString(b)
}

func (o *Options) ensureIdentity() error {
	if _, err := os.Stat(o.identityFile()); err == nil {
		return nil
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "infractl lab")
	if err != nil {
		return err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " infractl-lab\n"
	if err := writeFile(o.identityFile()+".pub", []byte(line)); err != nil {
		return err
	}
	return writeFile(o.identityFile(), pem.EncodeToMemory(block))
}

// writeFile writes a file that only its owner may read, as a whole or not at all.
func writeFile(name string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), name)
}

// envText is the content of EnvFile.
func (o *Options) envText(c credentials) string {
	var b strings.Builder
	for _, line := range [][2]string{
		{"HCLOUD_TOKEN", c.Token},
		{"HCLOUD_ENDPOINT", Endpoint},
		{"INFRACTL_VIP_TOKEN", c.VIPToken},
		{"INFRACTL_SSH_IDENTITY", o.identityFile()},
		{"PULUMI_BACKEND_URL", "file://" + filepath.Join(o.Dir, "pulumi")},
		{"PULUMI_CONFIG_PASSPHRASE", c.Passphrase},
	} {
		b.WriteString(line[0] + "=" + line[1] + "\n")
	}
	return b.String()
}

// writeEnv writes EnvFile into the project, if it is not there or differs, for
// the project's owner to read.
func (o *Options) writeEnv(c credentials) (changed bool, err error) {
	if o.Project == "" {
		return false, nil
	}
	name, text := filepath.Join(o.Project, EnvFile), o.envText(c)
	if old, err := os.ReadFile(name); err == nil && string(old) == text {
		return false, nil
	}
	if err := writeFile(name, []byte(text)); err != nil {
		return false, fmt.Errorf("write the environment's credentials: %w", err)
	}
	st, err := os.Stat(o.Project)
	if err != nil {
		return true, err
	}
	owner := st.Sys().(*syscall.Stat_t)
	for _, file := range []string{name, o.identityFile(), o.identityFile() + ".pub", filepath.Join(o.Dir, "pulumi")} {
		if err := os.Chown(file, int(owner.Uid), int(owner.Gid)); err != nil {
			return true, fmt.Errorf("give the environment's credentials to the project's owner: %w", err)
		}
	}
	return true, nil
}

// removeEnv removes EnvFile from the project if it is this lab's.
func (o *Options) removeEnv(c credentials) {
	name := filepath.Join(o.Project, EnvFile)
	if data, err := os.ReadFile(name); err == nil && c.Token != "" && strings.Contains(string(data), c.Token) {
		_ = os.Remove(name)
	}
}

// lock makes Up and Down wait for each other. It leaves no file behind.
func lock(ctx context.Context, progress func(string)) (func(), error) {
	for waited := false; ; waited = true {
		l, err := net.Listen("unix", "@infractl-lab")
		if err == nil {
			return func() { l.Close() }, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
		if !waited {
			progress("another infractl lab up or down is at work: waiting for it")
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another infractl lab up or down: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
