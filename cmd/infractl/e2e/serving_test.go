//go:build lab

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// hostsOf are the short names of a tier's hosts.
func hostsOf(tier string) []string {
	return names(site.Hosts[tier], func(h host) string { return h.Name })
}

func TestStaticFilesComeFromEveryWebHostInTurn(t *testing.T) {
	static := site.URL + staticPath(t)
	seen := map[string]int{}
	for range 20 {
		a, err := get(context.Background(), client(5*time.Second), static)
		if err != nil || a.status != http.StatusOK {
			t.Fatalf("%s: %v, status %d", static, err, a.status)
		}
		if a.app != "" {
			t.Fatalf("a static file was served by the application on %s", a.app)
		}
		seen[a.web]++
	}
	requireEvenly(t, seen, hostsOf("web"), 20)
}

func TestDynamicPagesComeFromEveryApplicationHostInTurn(t *testing.T) {
	seen := map[string]int{}
	for range 20 {
		a, err := get(context.Background(), client(5*time.Second), site.URL+"/")
		if err != nil || a.status != http.StatusOK {
			t.Fatalf("%v, status %d", err, a.status)
		}
		seen[a.app]++
	}
	requireEvenly(t, seen, hostsOf("app"), 20)
}

// requireEvenly fails unless exactly the expected hosts were seen, none of them
// less than half of its share.
func requireEvenly(t *testing.T, seen map[string]int, expected []string, total int) {
	t.Helper()
	for _, name := range expected {
		if seen[name] < total/len(expected)/2 {
			t.Errorf("%s answered %d of %d requests: %v", name, seen[name], total, seen)
		}
	}
	if len(seen) != len(expected) {
		t.Errorf("answers came from %v, expected from %v", seen, expected)
	}
}

// staticPath finds a static file's path in the application's page.
func staticPath(t *testing.T) string {
	t.Helper()
	return staticPathOf(t, site.URL)
}

// staticPathOf does so at another address than the shared site's.
func staticPathOf(t *testing.T, base string) string {
	t.Helper()
	a, err := get(context.Background(), client(5*time.Second), base+"/")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`href="(/[^"]+\.css)"`).FindStringSubmatch(a.body)
	if m == nil {
		t.Fatalf("the page links no style sheet:\n%s", a.body)
	}
	return m[1]
}

func TestWhatOneApplicationHostWritesTheOtherReads(t *testing.T) {
	message := fmt.Sprintf("written at %d", time.Now().UnixNano())
	writer := post(t, message)
	readers := map[string]bool{}
	for range 20 {
		a, err := get(context.Background(), client(5*time.Second), site.URL+"/")
		if err != nil || a.status != http.StatusOK {
			t.Fatalf("%v, status %d", err, a.status)
		}
		if !strings.Contains(a.body, message) {
			t.Fatalf("%s does not show what %s wrote", a.app, writer)
		}
		readers[a.app] = true
	}
	delete(readers, writer)
	if len(readers) == 0 {
		t.Errorf("only %s, the writer, was asked", writer)
	}
}

// post writes an entry through the form and returns the application host that took it.
func post(t *testing.T, message string) string {
	t.Helper()
	page, err := get(context.Background(), client(5*time.Second), site.URL+"/")
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"author": {"e2e"}, "name": {"e2e"}, "message": {message}}
	for _, m := range regexp.MustCompile(`<input[^>]*type="hidden"[^>]*>`).FindAllString(page.body, -1) {
		name := regexp.MustCompile(`name="([^"]*)"`).FindStringSubmatch(m)
		value := regexp.MustCompile(`value="([^"]*)"`).FindStringSubmatch(m)
		if name != nil && value != nil {
			form.Set(name[1], value[1])
		}
	}
	res, err := client(5*time.Second).PostForm(site.URL+"/entries", form)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 400 {
		t.Fatalf("writing an entry: status %s", res.Status)
	}
	return res.Header.Get("X-Infractl-App")
}

func TestOnlyTheLoadBalancersAnswerTheWorld(t *testing.T) {
	for tier, hosts := range site.Hosts {
		for _, h := range hosts {
			_, err := get(context.Background(), client(time.Second), "http://"+h.Public+"/")
			if answers := err == nil; answers != (tier == "lb") {
				t.Errorf("%s answers on port 80 of its public address: %v", h.Name, answers)
			}
		}
	}
}

func TestASecondUpReportsNoChange(t *testing.T) {
	r := site.up(t)
	report(os.Stdout, "up with nothing to change", "%.1f s", r.took.Seconds())
	if !strings.Contains(r.stderr+r.stdout, "no changes") {
		t.Errorf("%v", r)
	}
}

func TestNoSecretStandsInTheStateInPlaintext(t *testing.T) {
	vars := site.variables()
	password := strings.TrimSpace(site.on(t, "app-1", `sed -n 's|.*postgres://[^:]*:\([^@]*\)@.*|\1|p' /etc/infractl/*.env`))
	if len(password) < 16 {
		t.Fatalf("found no database password on app-1: %q", password)
	}
	hostKey := strings.TrimSpace(site.on(t, "app-1", "sed -n 3p /etc/ssh/ssh_host_ed25519_key"))
	secrets := map[string]string{
		"the API token": vars["HCLOUD_TOKEN"], "the load balancers' token": vars["INFRACTL_VIP_TOKEN"],
		"the passphrase": vars["PULUMI_CONFIG_PASSPHRASE"], "the database password": password, "a host key": hostKey,
	}
	files := 0
	err := filepath.WalkDir(site.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".env.") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for what, secret := range secrets {
			if strings.Contains(string(text), secret) {
				t.Errorf("%s stands in %s", what, path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 3 {
		t.Fatalf("only %d files below %s: where is the state?", files, site.dir)
	}
	for _, r := range []run{site.firstUp, site.infractl("preview", "-e", site.env, "--show-files"), site.infractl("outputs", "-e", site.env)} {
		for what, secret := range secrets {
			if strings.Contains(r.stdout+r.stderr, secret) {
				t.Errorf("%s is printed by infractl %s", what, strings.Join(r.args, " "))
			}
		}
	}
	// What a host shows to any of its users: the arguments of all processes.
	for _, name := range slices.Concat(hostsOf("lb"), hostsOf("app"), hostsOf("db")) {
		processes := site.on(t, name, "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; done 2>/dev/null")
		for what, secret := range secrets {
			if strings.Contains(processes, secret) {
				t.Errorf("%s stands in the process list of %s", what, name)
			}
		}
	}
}
