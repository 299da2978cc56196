package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Names of the environment variables that say where the SSH key is.
const (
	identityVariable = "INFRACTL_SSH_IDENTITY"
	agentVariable    = "SSH_AUTH_SOCK"
)

// signers returns the keys to log in with: the file that INFRACTL_SSH_IDENTITY
// names, else those of the agent, else ~/.ssh/id_ed25519. They are looked up
// anew for every connection, so that they are in nobody's state. The function
// it returns frees what the signers need and is called after the login.
func signers(ctx context.Context) ([]ssh.Signer, func(), error) {
	none := func() {}
	if name := os.Getenv(identityVariable); name != "" {
		return identity(ctx, name)
	}
	if socket := os.Getenv(agentVariable); socket != "" {
		held, free, err := agentSigners(ctx, socket)
		if err != nil {
			return nil, none, fmt.Errorf("%s: %w", agentVariable, err)
		}
		if len(held) > 0 {
			return held, free, nil
		}
		free()
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, none, fmt.Errorf("%s is not set and there is no home directory: %w", identityVariable, err)
	}
	name := filepath.Join(home, ".ssh", "id_ed25519")
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return nil, none, fmt.Errorf("%s is not set, no agent holds a key, and there is no %s", identityVariable, name)
	}
	return identity(ctx, name)
}

// identity reads a private key file. A key that is encrypted is used through
// the agent, if that holds it: asking for its passphrase here would mean a
// prompt for every host.
func identity(ctx context.Context, name string) ([]ssh.Signer, func(), error) {
	none := func() {}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, none, err
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err == nil {
		return []ssh.Signer{signer}, none, nil
	}
	var encrypted *ssh.PassphraseMissingError
	if !errors.As(err, &encrypted) {
		return nil, none, fmt.Errorf("%s is not an SSH private key: %w", name, err)
	}
	public := encrypted.PublicKey
	if public == nil {
		if line, err := os.ReadFile(name + ".pub"); err == nil {
			public, _, _, _, _ = ssh.ParseAuthorizedKey(line)
		}
	}
	if socket := os.Getenv(agentVariable); socket != "" && public != nil {
		held, free, err := agentSigners(ctx, socket)
		if err == nil {
			for _, signer := range held {
				if bytes.Equal(signer.PublicKey().Marshal(), public.Marshal()) {
					return []ssh.Signer{signer}, free, nil
				}
			}
			free()
		}
	}
	return nil, none, fmt.Errorf("%s is encrypted and no SSH agent holds it; start one and run: ssh-add %s", name, name)
}

// agentSigners asks the agent that listens at socket for its keys.
func agentSigners(ctx context.Context, socket string) ([]ssh.Signer, func(), error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, nil, fmt.Errorf("the SSH agent does not answer: %w", err)
	}
	free := func() { conn.Close() }
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	held, err := agent.NewClient(conn).Signers()
	if err != nil {
		free()
		return nil, nil, fmt.Errorf("the SSH agent does not list its keys: %w", err)
	}
	return held, free, nil
}
