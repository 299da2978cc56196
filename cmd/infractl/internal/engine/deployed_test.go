package engine

import (
	"errors"
	"strings"
	"testing"
)

// stateWith is a state as `pulumi stack export` writes it, with a secret as
// secret stands for it.
func stateWith(secret string) []byte {
	return []byte(`{"version": 3, "deployment": {
  "manifest": {"time": "2026-11-24T02:40:30Z"},
  "resources": [
    {"urn": "urn:pulumi:shop::infractl::pulumi:pulumi:Stack::infractl-shop", "type": "pulumi:pulumi:Stack"},
    {"urn": "urn:pulumi:shop::infractl::infractl:tier:Web$infractl:host:Configuration::web-1",
     "type": "infractl:host:Configuration", "id": "web-1",
     "inputs": {"name": "web-1", "port": 22, "packages": ["nginx"],
       "files": {"/etc/key": {"content": "@@secret.key@@", "mode": "0600"}},
       "units": [{"name": "nginx.service", "enabled": true, "active": true, "healthTimeout": 60}],
       "secrets": {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", ` + secret + `}}}
  ]}}`)
}

func TestDescribedHostsHaveTheirSecrets(t *testing.T) {
	hosts, err := describedIn(stateWith(`"plaintext": "{\"key\":\"geheim\"}"`))
	if err != nil {
		t.Fatal(err)
	}
	h, ok := hosts["web-1"]
	if !ok || h.Secrets["key"] != "geheim" || h.Files["/etc/key"].Mode != "0600" || h.Units[0].HealthTimeout != 60 || h.Packages[0] != "nginx" {
		t.Errorf("%+v", hosts)
	}
}

func TestSecretsThatAreStillEncryptedAreAnError(t *testing.T) {
	_, err := describedIn(stateWith(`"ciphertext": "v1:abc"`))
	if !errors.Is(err, errEncrypted) || !strings.Contains(err.Error(), "web-1") {
		t.Errorf("%v", err)
	}
	// What cannot be read may be half a secret.
	_, err = describedIn(stateWith(`"plaintext": "geheim"`))
	if err == nil || strings.Contains(err.Error(), "geheim") || strings.Contains(err.Error(), "'g'") {
		t.Errorf("%v", err)
	}
}

func TestALockIsLivingIfItsHolderMayBe(t *testing.T) {
	for _, c := range []struct {
		pid  int
		host string
		want string
	}{
		{7, "here", "ann@here (process 7)"},
		{8, "here", ""},
		{8, "elsewhere", "ann@elsewhere (process 8)"},
	} {
		l, _ := testLocks(t, map[string]string{"a.json": lockText(c.pid, c.host)})
		got := l.living()
		if (c.want == "") != (got == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("process %d on %s: %q", c.pid, c.host, got)
		}
	}
}
