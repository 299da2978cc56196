//go:build lab

package templates_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/application"
	"github.com/infractl/infractl/templates/base"
	"github.com/infractl/infractl/templates/haproxy"
	"github.com/infractl/infractl/templates/keepalived"
	"github.com/infractl/infractl/templates/nginx"
	"github.com/infractl/infractl/templates/postgresql"
)

// One machine of the lab gets all tiers at once, with its public address in the
// place of the private ones and a floating IP of its own: the daemons' checkers
// see every file that is rendered, and a request passes through all of them.

// machine is the lab's machine under test: INFRACTL_TEST_TARGET holds a
// provision.Target as JSON, INFRACTL_SSH_IDENTITY the key that it lets in.
type machine struct {
	provision.Target
	known string
}

func testMachine(t *testing.T) machine {
	t.Helper()
	text := os.Getenv("INFRACTL_TEST_TARGET")
	if text == "" {
		t.Skip("INFRACTL_TEST_TARGET is not set")
	}
	var m machine
	if err := json.Unmarshal([]byte(text), &m.Target); err != nil {
		t.Fatal(err)
	}
	m.known = filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(m.known, []byte(m.Address+" "+m.HostKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return m
}

// run executes a shell command on the machine as root and returns what it
// printed on both outputs.
func (m machine) run(t *testing.T, command string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", "-F", "none", "-i", os.Getenv("INFRACTL_SSH_IDENTITY"), "-o", "IdentitiesOnly=yes",
		"-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "UserKnownHostsFile="+m.known, m.User+"@"+m.Address, "sudo", "sh")
	cmd.Stdin = strings.NewReader(command + "\n")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (m machine) must(t *testing.T, command string) string {
	t.Helper()
	out, err := m.run(t, command)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

// credentials are the lab's: from the environment, else from the file that
// "infractl lab up" leaves in the project's folder.
func credentials(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, name := range []string{"HCLOUD_TOKEN", "HCLOUD_ENDPOINT", "INFRACTL_VIP_TOKEN"} {
		found[name] = os.Getenv(name)
	}
	if found["HCLOUD_TOKEN"] != "" && found["INFRACTL_VIP_TOKEN"] != "" {
		return found
	}
	raw, err := os.ReadFile(filepath.Join("..", ".env.lab"))
	if err != nil {
		t.Skipf("the lab is not up: %v", err)
	}
	for _, line := range strings.Split(string(raw), "\n") {
		if name, value, ok := strings.Cut(line, "="); ok {
			found[name] = value
		}
	}
	return found
}

// certificate makes an authority and a server's certificate from it, in PEM.
func certificate(t *testing.T, address net.IP) (authority, server, key string) {
	t.Helper()
	encode := func(kind string, der []byte) string {
		return strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	sign := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if signer == nil {
			parent, signer = template, own
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, own.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		made, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return own, made
	}
	rootKey, root := sign(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	ownKey, own := sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "db-1"}, IPAddresses: []net.IP{address},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, root, rootKey)
	der, err := x509.MarshalPKCS8PrivateKey(ownKey)
	if err != nil {
		t.Fatal(err)
	}
	return encode("CERTIFICATE", root.Raw), encode("CERTIFICATE", own.Raw), encode("PRIVATE KEY", der)
}

// release makes a release whose program is a shell script: what it prints is
// what the application's unit gave it.
func release(t *testing.T) (whole, static desired.Tree) {
	t.Helper()
	dir := t.TempDir()
	for name, file := range map[string]string{
		"bin/hello": `#!/bin/sh
exec socat "TCP-LISTEN:${LISTEN##*:},bind=${LISTEN%:*},fork,reuseaddr" "EXEC:${0%/*}/reply"
`,
		"bin/reply": `#!/bin/sh
while read -r line && [ "${#line}" -gt 1 ]; do :; done
text="host=$INFRACTL_HOST title=$TITLE key=$API_KEY id=$(id -un)"
printf 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %s\r\n\r\n%s' "${#text}" "$text"
`,
		"public/app.0a1b2c3d.css": "body{color:red}\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(file), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tree := func(dir string) desired.Tree {
		digest, err := desired.Digest(dir)
		if err != nil {
			t.Fatal(err)
		}
		return desired.Tree{Source: dir, Digest: digest}
	}
	return tree(dir), tree(filepath.Join(dir, "public"))
}

const (
	title    = `Anna's "guest" book: $HOME \ ` + "`id`"
	password = "s3cretpassword"
)

// everything describes a host with all tiers on it.
func everything(t *testing.T, debian int, m machine, server int64, address netip.Addr, vip *hcloud.FloatingIP, env map[string]string) desired.Host {
	t.Helper()
	public, err := os.ReadFile(os.Getenv("INFRACTL_SSH_IDENTITY") + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	whole, static := release(t)
	authority, certificate, key := certificate(t, address.AsSlice())
	secret, err := application.QuoteSecret("API_KEY", `a"b$c`)
	if err != nil {
		t.Fatal(err)
	}
	self := func(name string, port uint16) []templates.Server {
		return []templates.Server{{Name: name, Address: address, Port: port}}
	}
	any4 := netip.MustParsePrefix("0.0.0.0/0")
	var parts []desired.Host
	add := func(part desired.Host, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part)
	}
	add(base.Render(base.Input{
		Debian: debian, Name: m.Name, Index: 1, Address: address, Hosts: []base.Host{{Name: m.Name, Short: "all-1", Address: address}},
		User: m.User, AuthorizedKeys: []string{strings.TrimSpace(string(public))}, SSHPort: 22, AllowFrom: []netip.Prefix{any4},
	}))
	add(postgresql.Render(postgresql.Input{
		Debian: debian, Address: address, Port: 5432, MemoryMB: 1024, Cores: 2, Application: "hello", AppNetworks: []netip.Prefix{netip.PrefixFrom(address, 32)}, Shared: true,
	}))
	add(application.Render(application.Input{
		Debian: debian, Host: "app-1", Address: address, Port: 8080, Processes: 2, Name: "hello", Release: whole, Command: "bin/hello", Health: "/",
		Environment: map[string]string{"TITLE": title}, SecretEnvironment: []string{"API_KEY"},
		Web: []netip.Addr{address}, Database: address, DatabasePort: 5432, MemoryMB: 1024,
	}))
	add(nginx.Render(nginx.Input{
		Debian: debian, Host: "web-1", Address: address, Port: 8081, MemoryMB: 1024, Cores: 2, LBs: []netip.Addr{address},
		App: self("app-1", 8080), Application: "hello", Static: &static, DebugHeaders: true, Monitors: []netip.Prefix{any4},
	}))
	add(haproxy.Render(haproxy.Input{
		Debian: debian, Host: "lb-1", Address: address, MemoryMB: 512, Web: self("web-1", 8081), DebugHeaders: true, Monitors: []netip.Prefix{any4},
	}))
	add(keepalived.Render(keepalived.Input{
		Debian: debian, Host: "lb-1", Address: address, Index: 1, Endpoint: env["HCLOUD_ENDPOINT"], IPv4: true,
		// Nobody is there: this load balancer becomes the master.
		Peers: []netip.Addr{netip.MustParseAddr("10.255.255.254")},
	}))
	host, err := templates.Merge(parts...)
	if err != nil {
		t.Fatal(err)
	}
	host.Values = map[string]string{
		keepalived.ServerValue: strconv.FormatInt(server, 10), keepalived.IDValue("ipv4"): strconv.FormatInt(vip.ID, 10),
		keepalived.AddressValue("ipv4"): vip.IP.String(), application.AuthorityValue: authority, postgresql.CertificateValue: certificate,
	}
	host.Secrets = map[string]string{
		keepalived.TokenSecret: env["INFRACTL_VIP_TOKEN"], postgresql.PasswordSecret: password, postgresql.KeySecret: key,
		application.EnvironmentSecret + "API_KEY": secret,
	}
	values, secrets, _ := templates.Placeholders(host)
	for _, name := range values {
		if host.Values[name] == "" {
			t.Fatalf("the value %s is needed and nobody said so", name)
		}
	}
	for _, name := range secrets {
		if host.Secrets[name] == "" {
			t.Fatalf("the secret %s is needed and nobody said so", name)
		}
	}
	return host
}

func TestDaemonsTakeEveryFileAndServeARequest(t *testing.T) {
	m := testMachine(t)
	env := credentials(t)
	client := hcloud.NewClient(hcloud.WithToken(env["HCLOUD_TOKEN"]), hcloud.WithEndpoint(env["HCLOUD_ENDPOINT"]))
	server, _, err := client.Server.GetByName(t.Context(), m.Name)
	if err != nil || server == nil {
		t.Fatalf("server %s: %v", m.Name, err)
	}
	made, _, err := client.FloatingIP.Create(t.Context(), hcloud.FloatingIPCreateOpts{
		Type: hcloud.FloatingIPTypeIPv4, HomeLocation: server.Location, Name: hcloud.Ptr(m.Name + "-vip"),
	})
	if err != nil {
		t.Fatal(err)
	}
	vip := made.FloatingIP
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if action, _, err := client.FloatingIP.Unassign(ctx, vip); err != nil {
			t.Error(err)
		} else if err := client.Action.WaitFor(ctx, action); err != nil {
			t.Error(err)
		}
		if _, err := client.FloatingIP.Delete(ctx, vip); err != nil {
			t.Error(err)
		}
	})
	debian, err := strconv.Atoi(m.must(t, ". /etc/os-release && echo $VERSION_ID"))
	if err != nil {
		t.Fatal(err)
	}
	address, err := netip.ParseAddr(m.Address)
	if err != nil {
		t.Fatal(err)
	}
	host := everything(t, debian, m, server.ID, address, vip, env)

	conn, err := provision.Connect(t.Context(), m.Target)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	if _, err := conn.Apply(t.Context(), host, provision.Options{Progress: func(s string) { t.Log(s) }}); err != nil {
		t.Fatal(err)
	}
	t.Logf("Debian %d: applied in %v", debian, time.Since(began).Round(time.Millisecond))

	t.Run("a second time there is nothing to do", func(t *testing.T) {
		again, err := conn.Apply(t.Context(), host, provision.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(again.Plan) != 0 {
			t.Errorf("still to do: %v", again.Plan)
		}
	})

	t.Run("checkers are silent", func(t *testing.T) {
		for command, allowed := range map[string]string{
			"haproxy -c -f /etc/haproxy/haproxy.cfg":           "Configuration file is valid",
			"nginx -t -q":                                      "",
			"keepalived -t -f /etc/keepalived/keepalived.conf": "",
			"sshd -t":                      "",
			"nft -c -f /etc/nftables.conf": "",
			"systemd-analyze verify app-hello@1.service infractl-lb-health.service infractl-vip.service infractl-vip-address.service infractl-postgresql-roles.service": "",
			"apt-config dump >/dev/null": "",
		} {
			out, err := m.run(t, command)
			if err != nil || out != "" && out != allowed {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
		}
	})

	t.Run("nothing has failed", func(t *testing.T) {
		for _, unit := range host.Units {
			if out, err := m.run(t, "systemctl is-active "+unit.Name); err != nil {
				t.Errorf("%s is %s", unit.Name, out)
			}
		}
		if out := m.must(t, "journalctl -b --no-pager -o cat -u haproxy -u nginx -u keepalived -u 'infractl-*' -u app-hello -p err"); out != "" {
			// The computer that the lab runs on may allow fewer open files.
			for _, line := range strings.Split(out, "\n") {
				if !strings.Contains(line, "FD limit") && !strings.Contains(line, "RLIMIT_NOFILE") && !strings.Contains(line, "lock process in memory") {
					t.Errorf("in the journal: %s", line)
				}
			}
		}
	})

	get := func(t *testing.T, path string) (*http.Response, string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+vip.IP.String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Forwarded-For", "192.0.2.66")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response, string(body)
	}

	t.Run("the load balancer claims the virtual IP", func(t *testing.T) {
		deadline := time.Now().Add(20 * time.Second)
		for {
			now, _, err := client.FloatingIP.GetByID(t.Context(), vip.ID)
			if err != nil {
				t.Fatal(err)
			}
			if now.Server != nil && now.Server.ID == server.ID {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("not claimed within 20 s:\n%s", m.must(t, "journalctl -b --no-pager -o cat -u keepalived -u infractl-vip -u infractl-lb-health"))
			}
			time.Sleep(100 * time.Millisecond)
		}
	})

	t.Run("the application answers through all tiers", func(t *testing.T) {
		response, body := get(t, "/")
		if want := "host=app-1 title=" + title + ` key=a"b$c id=app-hello`; response.StatusCode != http.StatusOK || body != want {
			t.Errorf("got %s %q, want %q", response.Status, body, want)
		}
		for name, want := range map[string]string{"X-Infractl-Lb": "lb-1", "X-Infractl-Web": "web-1", "X-Infractl-App": "app-1"} {
			if got := response.Header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if len(response.Header.Get("X-Request-Id")) != 36 {
			t.Errorf("the request's ID is %q", response.Header.Get("X-Request-Id"))
		}
	})

	t.Run("nginx serves static files", func(t *testing.T) {
		response, body := get(t, "/app.0a1b2c3d.css")
		if body != "body{color:red}\n" || !strings.Contains(response.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("got %s %q with Cache-Control %q", response.Status, body, response.Header.Get("Cache-Control"))
		}
		for _, path := range []string{"/-/infractl/health", "/%2d/infractl/version", "/.git"} {
			if response, _ := get(t, path); response.StatusCode != http.StatusNotFound {
				t.Errorf("%s is answered with %s", path, response.Status)
			}
		}
	})

	t.Run("the database lets the application in, with TLS and its password only", func(t *testing.T) {
		const ask = `. /etc/infractl/application.env; psql -XAtq "$url" -c "select current_user, ssl, (select setting from pg_settings where name = 'data_checksums') from pg_stat_ssl where pid = pg_backend_pid()" </dev/null`
		if out := m.must(t, strings.Replace(ask, "psql", `url=$DATABASE_URL; psql`, 1)); !strings.HasPrefix(out, "hello|t|") {
			t.Errorf("got %q", out)
		}
		for what, change := range map[string]string{
			"without TLS":      `url=$(echo "$DATABASE_URL" | sed s/verify-full/disable/); psql`,
			"a wrong password": `url=$(echo "$DATABASE_URL" | sed s/` + password + `/wrong/); psql`,
			"another database": `url=$(echo "$DATABASE_URL" | sed 's#/hello?#/postgres?#'); psql`,
		} {
			if out, err := m.run(t, strings.Replace(ask, "psql", change, 1)); err == nil {
				t.Errorf("%s: let in, and answered %q", what, out)
			}
		}
		if out := m.must(t, "cat /var/log/postgresql/*.log; journalctl -b --no-pager"); strings.Contains(out, password) {
			t.Error("the password is in a log")
		}
	})

	t.Run("daemons are confined", func(t *testing.T) {
		// systemd's figure goes from 0 (confined) to 10; stock units have 9.6.
		for unit, limit := range map[string]float64{
			application.Unit("hello", 1): 1.5, application.GateUnit: 2.8, "nginx.service": 3.2, "haproxy.service": 3.4, "keepalived.service": 4,
			"infractl-lb-health.service": 2.5, "infractl-vip.service": 2.5,
		} {
			out := m.must(t, "systemd-analyze security --no-pager "+unit+" | tail -n 1")
			// → Overall exposure level for nginx.service: 2.9 OK :-)
			_, rest, _ := strings.Cut(out, unit+": ")
			word, _, _ := strings.Cut(rest, " ")
			figure, err := strconv.ParseFloat(word, 64)
			if err != nil {
				t.Errorf("%s: %q says no figure", unit, out)
				continue
			}
			t.Logf("%s: %.1f", unit, figure)
			if figure > limit {
				t.Errorf("%s has an exposure of %.1f, more than %.1f: %s", unit, figure, limit, out)
			}
		}
	})

	t.Run("a wrong line is refused and the old file keeps serving", func(t *testing.T) {
		_, other, _ := certificate(t, address.AsSlice())
		for path, tc := range map[string]struct{ line, words string }{
			"/etc/haproxy/haproxy.cfg":                {"nonsense on", "haproxy.cfg:%d] : unknown keyword 'nonsense'"},
			"/etc/nginx/nginx.conf":                   {"no such directive;", `unknown directive "no" in /etc/nginx/nginx.conf:%d`},
			"/etc/keepalived/keepalived.conf":         {"vrrp_instance x { state NOSUCHSTATE", "keepalived.conf: Line %d) (x) unknown state 'NOSUCHSTATE'"},
			"/etc/nftables.d/nginx.nft":               {"no such statement", "/etc/nftables.d/nginx.nft:%d:"},
			"/etc/ssh/sshd_config.d/10-infractl.conf": {"NoSuchOption yes", "10-infractl.conf: line %d: Bad configuration option: NoSuchOption"},
			"/etc/infractl/postgresql/server.crt":     {"no certificate", "server.key does not belong to"},
		} {
			words := tc.words
			if strings.Contains(words, "%d") {
				words = fmt.Sprintf(words, strings.Count(host.Files[path].Content, "\n")+1)
			}
			changed := host
			changed.Files = map[string]desired.File{}
			for p, f := range host.Files {
				if p == path {
					f.Content += tc.line + "\n"
					if strings.HasSuffix(path, ".crt") {
						f.Content = other
					}
				}
				changed.Files[p] = f
			}
			if _, err := conn.Apply(t.Context(), changed, provision.Options{}); err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("%s: the error does not say %q: %v", path, words, err)
			}
			if response, _ := get(t, "/"); response.StatusCode != http.StatusOK {
				t.Errorf("%s: afterwards the answer is %s", path, response.Status)
			}
		}
	})
}
