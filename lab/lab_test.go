package lab

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/infractl/infractl/lab/api"
	"github.com/infractl/infractl/lab/machine"
)

func TestHostsAreFoundByShortName(t *testing.T) {
	machines := []machine.State{{ID: 1, Name: "lab-web-1"}, {ID: 2, Name: "lab-web-2"}, {ID: 3, Name: "blue-web-2"}, {ID: 4, Name: "web-2"}}
	for name, want := range map[string]int64{"web-1": 1, "lab-web-1": 1, "lab-web-2": 2, "web-2": 4, "blue-web-2": 3} {
		if got, err := findHost(machines, name); err != nil || got.ID != want {
			t.Errorf("%s is %d, want %d (%v)", name, got.ID, want, err)
		}
	}
	for name, words := range map[string]string{
		"db-1": "blue-web-2, lab-web-1, lab-web-2, web-2",
		"":     "no such host",
		"2":    "blue-web-2 or lab-web-2 or web-2",
	} {
		if _, err := findHost(machines, name); !errors.Is(err, errUnknownHost) || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v, want %q in it", name, err, words)
		}
	}
	if _, err := findHost(nil, "web-1"); err == nil || !strings.Contains(err.Error(), "none yet") {
		t.Error(err)
	}
}

func TestCredentialsAreMadeOnceAndWrittenForTheProject(t *testing.T) {
	o := Options{Dir: t.TempDir(), Cache: t.TempDir(), Project: t.TempDir()}
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	c, err := o.ensureState()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Token) != api.TokenLength || len(c.VIPToken) != api.TokenLength || c.Token == c.VIPToken {
		t.Errorf("tokens %q and %q", c.Token, c.VIPToken)
	}
	key, err := os.ReadFile(o.identityFile())
	if err != nil {
		t.Fatal(err)
	}
	changed, err := o.writeEnv(c)
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	again, err := o.ensureState()
	if err != nil || again != c {
		t.Errorf("credentials changed: %v", err)
	}
	if now, err := os.ReadFile(o.identityFile()); err != nil || string(now) != string(key) {
		t.Errorf("the SSH key changed: %v", err)
	}
	if changed, err := o.writeEnv(again); err != nil || changed {
		t.Errorf("written again: %v", err)
	}
	file := filepath.Join(o.Project, EnvFile)
	for _, secret := range []string{file, o.identityFile(), o.credentialsFile()} {
		if st, err := os.Stat(secret); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", secret, st.Mode(), err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok || value == "" || strings.ContainsAny(value, " \"'$") {
			t.Errorf("%q is not NAME=value as a shell and infractl read it", line)
		}
		names = append(names, name)
	}
	if got := strings.Join(names, " "); got != "HCLOUD_TOKEN HCLOUD_ENDPOINT INFRACTL_VIP_TOKEN INFRACTL_SSH_IDENTITY PULUMI_BACKEND_URL PULUMI_CONFIG_PASSPHRASE" {
		t.Error(got)
	}
	// Only a file of this lab goes with it.
	o.removeEnv(credentials{Token: randomText()})
	if _, err := os.Stat(file); err != nil {
		t.Error("the file of another lab was removed")
	}
	o.removeEnv(c)
	if _, err := os.Stat(file); err == nil {
		t.Error("the file is there without its lab")
	}
}

func TestMachinesCannotOrderFaults(t *testing.T) {
	h := onlyThisComputer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	for _, test := range []struct {
		peer, path string
		want       int
	}{
		{"198.18.0.7:4242", "/_lab/hosts/kill", http.StatusForbidden},
		{"198.18.0.7:4242", "/_lab", http.StatusForbidden},
		{"198.18.0.7:4242", "/v1/servers", http.StatusTeapot},
		{"198.19.255.1:4242", "/_lab/hosts/kill", http.StatusTeapot},
		{"nonsense", "/_lab/status", http.StatusForbidden},
	} {
		r := httptest.NewRequest(http.MethodPost, test.path, nil)
		r.RemoteAddr = test.peer
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != test.want {
			t.Errorf("%s from %s: %d, want %d", test.path, test.peer, w.Code, test.want)
		}
	}
}
