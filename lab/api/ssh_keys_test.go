package api

import (
	"testing"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
	"golang.org/x/crypto/ssh"
)

func TestSSHKeysAreUniqueAndNamedByTheirFingerprint(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	public := newPublicKey(t)
	k := must(l.client.SSHKey.Create(ctx, hcloud.SSHKeyCreateOpts{Name: "ops", PublicKey: public + " ops@example"}))(t)
	parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(public))
	if err != nil {
		t.Fatal(err)
	}
	if k.Fingerprint != ssh.FingerprintLegacyMD5(parsed) || k.PublicKey != public+" ops@example" {
		t.Errorf("key is %+v", k)
	}
	_, _, err = l.client.SSHKey.Create(ctx, hcloud.SSHKeyCreateOpts{Name: "ops", PublicKey: newPublicKey(t)})
	wantCode(t, err, "uniqueness_error")
	_, _, err = l.client.SSHKey.Create(ctx, hcloud.SSHKeyCreateOpts{Name: "other", PublicKey: public + " other comment"})
	wantCode(t, err, "uniqueness_error")
	_, _, err = l.client.SSHKey.Create(ctx, hcloud.SSHKeyCreateOpts{Name: "other", PublicKey: "ssh-ed25519 nonsense"})
	wantCode(t, err, "invalid_input")
	if got := must(l.client.SSHKey.GetByFingerprint(ctx, k.Fingerprint))(t); got == nil || got.ID != k.ID {
		t.Errorf("found by fingerprint: %v", got)
	}
	if got := must(l.client.SSHKey.GetByName(ctx, "ops"))(t); got == nil || got.ID != k.ID {
		t.Errorf("found by name: %v", got)
	}
	got := must(l.client.SSHKey.Update(ctx, k, hcloud.SSHKeyUpdateOpts{Name: "admins", Labels: map[string]string{"managed-by": "infractl"}}))(t)
	if got.Name != "admins" || got.Labels["managed-by"] != "infractl" {
		t.Errorf("key is %+v", got)
	}
	if _, err := l.client.SSHKey.Delete(ctx, k); err != nil {
		t.Fatal(err)
	}
	if got := must(l.client.SSHKey.GetByID(ctx, k.ID))(t); got != nil {
		t.Errorf("key is still there: %v", got)
	}
}
