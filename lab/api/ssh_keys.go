package api

import (
	"net/http"
	"strings"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
	"golang.org/x/crypto/ssh"
)

// sshKey is a public key that servers can be made with.
type sshKey struct {
	base
	PublicKey   string `json:"public_key"`
	Fingerprint string `json:"fingerprint"`
}

func viewSSHKey(k *sshKey) schema.SSHKey {
	return schema.SSHKey{ID: k.ID, Name: k.Name, Labels: k.Labels, Created: k.Created, Fingerprint: k.Fingerprint, PublicKey: k.PublicKey}
}

// sshKey finds a key by ID or name, nil where there is none.
func (c *call) sshKey(want idOrName) *sshKey {
	for _, k := range c.s.SSHKeys {
		if want.is(k.ID, k.Name) {
			return k
		}
	}
	return nil
}

func (c *call) pathSSHKey() (*sshKey, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	return find(c.s.SSHKeys, "SSH key", id)
}

func listSSHKeys(c *call) (reply, error) {
	return listRecords(c, "ssh_keys", c.s.SSHKeys,
		func(k *sshKey) bool { return c.oneOf("fingerprint", k.Fingerprint) },
		func(k *sshKey) any { return viewSSHKey(k) })
}

func getSSHKey(c *call) (reply, error) {
	k, err := c.pathSSHKey()
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, map[string]any{"ssh_key": viewSSHKey(k)}}, nil
}

func createSSHKey(c *call) (reply, error) {
	var req schema.SSHKeyCreateRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if err := checkName(req.Name); err != nil {
		return reply{}, err
	}
	if err := checkLabels(req.Labels); err != nil {
		return reply{}, err
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(req.PublicKey))
	if err != nil || strings.TrimSpace(string(rest)) != "" {
		return reply{}, invalid("public_key", "is not one public key in OpenSSH format")
	}
	// The API names keys by the MD5 of their binary form.
	fingerprint := ssh.FingerprintLegacyMD5(key)
	if err := unique(c.s.SSHKeys, "SSH key", req.Name, 0); err != nil {
		return reply{}, err
	}
	for _, k := range c.s.SSHKeys {
		if k.Fingerprint == fingerprint {
			return reply{}, failure("uniqueness_error", "SSH key with the same fingerprint already exists")
		}
	}
	k := &sshKey{base: c.newBase(req.Name, req.Labels), PublicKey: req.PublicKey, Fingerprint: fingerprint}
	c.s.SSHKeys[k.ID] = k
	return reply{http.StatusCreated, map[string]any{"ssh_key": viewSSHKey(k)}}, nil
}

func updateSSHKey(c *call) (reply, error) {
	k, err := c.pathSSHKey()
	if err != nil {
		return reply{}, err
	}
	var req schema.SSHKeyUpdateRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if err := rename(c.s.SSHKeys, "SSH key", k, req.Name, req.Labels); err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, map[string]any{"ssh_key": viewSSHKey(k)}}, nil
}

func deleteSSHKey(c *call) (reply, error) {
	k, err := c.pathSSHKey()
	if err != nil {
		return reply{}, err
	}
	delete(c.s.SSHKeys, k.ID)
	return reply{status: http.StatusNoContent}, nil
}
