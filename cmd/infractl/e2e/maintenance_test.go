//go:build lab && !hosts

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bootOf says which boot of a host this is.
func bootOf(t *testing.T, host string) string {
	t.Helper()
	return strings.TrimSpace(site.on(t, host, "cat /proc/sys/kernel/random/boot_id"))
}

// serverOf is the ID of a host's server in the cloud; 0 if there is none.
func serverOf(t *testing.T, host string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, _, err := site.cloud().Server.GetByName(ctx, site.env+"-"+host)
	if err != nil {
		t.Fatalf("asking the cloud for %s: %v", host, err)
	}
	if s == nil {
		return 0
	}
	return s.ID
}

func TestTheLastHostOfATierThatServesIsNotDrained(t *testing.T) {
	t.Cleanup(func() { site.infractl("undrain", "web-1", "web-2", "-e", site.env) })
	requireCode(t, site.infractl("drain", "web-1", "-e", site.env), 0, "web-1: drained")
	if reason := drainedBecause(t, "web-1"); !strings.HasPrefix(reason, "by ") {
		t.Errorf("web-1 is drained %q", reason)
	}
	requireCode(t, site.infractl("drain", "web-1", "-e", site.env), 0, "web-1: was drained already (by ")
	requireCode(t, site.infractl("drain", "web-2", "-e", site.env), 2, "nobody of tier web would serve without web-2", "--force")
	requireCode(t, site.infractl("drain", "app-1", "app-2", "-e", site.env), 2, "nobody of tier app would serve without app-1 and app-2")
	requireCode(t, site.infractl("drain", "db-1", "-e", site.env), 2, "db-1")
	for _, host := range []string{"web-2", "app-1", "app-2"} {
		if reason := drainedBecause(t, host); reason != "" {
			t.Errorf("%s is drained: %s", host, reason)
		}
	}
	// What a user has drained stays drained, whatever up finds to do.
	site.up(t)
	if reason := drainedBecause(t, "web-1"); reason == "" {
		t.Error("up has undrained what a user had drained")
	}
	requireCode(t, site.infractl("undrain", "web-1", "-e", site.env), 0, "web-1: takes work again")
	requireCode(t, site.infractl("undrain", "web-1", "-e", site.env), 0, "web-1: was not drained")
}

func TestWhatACutOffCommandDrainedIsUndrainedByTheNextUp(t *testing.T) {
	for host, reason := range map[string]string{"web-1": "replace, by nobody", "app-2": "scale", "lb-1": "upgrade, by nobody"} {
		site.on(t, host, "/usr/local/lib/infractl/drain 10 "+shellQuote(reason))
	}
	r := site.up(t)
	for _, host := range []string{"web-1", "app-2", "lb-1"} {
		if !strings.Contains(r.stderr, host+" stays: it takes work again") {
			t.Errorf("up does not say that %s takes work again", host)
		}
		if reason := drainedBecause(t, host); reason != "" {
			t.Errorf("%s is still drained: %s", host, reason)
		}
		requireStanding(t, host)
	}
	if t.Failed() {
		t.Logf("%v", r)
	}
}

func TestARestartStopsAtTheHostThatDoesNotStart(t *testing.T) {
	started := func(host string) string {
		return strings.TrimSpace(site.on(t, host, "systemctl show --property=MainPID --value nginx.service"))
	}
	before := map[string]string{"web-1": started("web-1"), "web-2": started("web-2")}
	const broken = "/run/systemd/system/nginx.service.d/broken.conf"
	site.on(t, "web-1", "mkdir -p $(dirname "+broken+"); printf '[Service]\\nExecStartPre=/bin/false\\n' >"+broken+"; systemctl daemon-reload")
	mend := func() {
		site.on(t, "web-1", "rm -f "+broken+"; systemctl daemon-reload; systemctl reset-failed nginx.service; systemctl start nginx.service; /usr/local/lib/infractl/undrain")
	}
	t.Cleanup(mend)
	r := site.infractl("restart", "--tier", "web", "-e", site.env)
	requireCode(t, r, 5, "web-1", "go on with: infractl restart --env "+site.env+" web-1 web-2")
	if now := started("web-2"); now != before["web-2"] {
		t.Errorf("nginx on web-2 was restarted: process %s is now %s", before["web-2"], now)
	}
	mend()
	requireCode(t, site.infractl("restart", "web-1", "web-2", "-e", site.env), 0, "restarted: web-1 web-2")
	for host, old := range before {
		if now := started(host); now == old {
			t.Errorf("nginx on %s was not restarted", host)
		}
		requireStanding(t, host)
	}
}

// testPackage makes a package with two versions on a host, of which the first
// is installed and the second is in a repository. Its installation fails while
// the file /run/infractl-e2e-break exists.
const testPackage = `set -e
dir=/srv/infractl-e2e
rm -rf $dir && mkdir -p $dir/root/DEBIAN $dir/root/etc && cd $dir
printf '/etc/infractl-e2e.conf\n' >root/DEBIAN/conffiles
printf '#!/bin/sh\n! test -e /run/infractl-e2e-break\n' >root/DEBIAN/postinst
chmod 0755 root root/DEBIAN root/etc root/DEBIAN/postinst
for version in 1 2; do
	printf 'version %s\n' $version >root/etc/infractl-e2e.conf
	printf 'Package: infractl-e2e\nVersion: %s\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\nDescription: a package to upgrade\n' $version >root/DEBIAN/control
	dpkg-deb --build --root-owner-group root infractl-e2e_$version.deb >/dev/null
done
dpkg --install infractl-e2e_1.deb >/dev/null
echo changed >/etc/infractl-e2e.conf
{
	dpkg-deb --field infractl-e2e_2.deb
	printf 'Filename: ./infractl-e2e_2.deb\nSize: %s\nSHA256: %s\n' "$(stat --format=%s infractl-e2e_2.deb)" "$(sha256sum infractl-e2e_2.deb | cut -d ' ' -f 1)"
} >Packages
printf 'deb [trusted=yes] file:%s ./\n' $dir >/etc/apt/sources.list.d/infractl-e2e.list
`

// noTestPackage removes all of that.
const noTestPackage = `rm -rf /srv/infractl-e2e /etc/apt/sources.list.d/infractl-e2e.list /run/infractl-e2e-break
dpkg --purge infractl-e2e >/dev/null 2>&1; rm -f /etc/infractl-e2e.conf; apt-get -q update >/dev/null`

func TestAnUpgradeStopsAtTheHostWhereItFailsAndGoesOnFromThere(t *testing.T) {
	hosts := []string{"web-1", "web-2"}
	for _, host := range hosts {
		site.on(t, host, testPackage)
		t.Cleanup(func() { site.on(t, host, noTestPackage) })
	}
	t.Cleanup(func() { site.infractl("undrain", "web-1", "web-2", "-e", site.env) })
	installed := func(host string) string {
		return strings.TrimSpace(site.on(t, host, "dpkg-query --show --showformat='${db:Status-Abbrev}${Version}' infractl-e2e"))
	}
	upgrade := []string{"os", "upgrade", "web-1", "web-2", "-e", site.env}
	requireCode(t, site.infractl(append(upgrade, "--dry-run")...), 0, "infractl-e2e 1 → 2")
	if reason := drainedBecause(t, "web-1"); reason != "" || installed("web-1") != "ii 1" {
		t.Errorf("a dry run has changed something: drained %q, package %q", reason, installed("web-1"))
	}

	site.on(t, "web-1", "touch /run/infractl-e2e-break")
	requireCode(t, site.infractl(upgrade...), 5, "web-1", "infractl-e2e", "stays drained", "untouched: web-2", "infractl os upgrade --env "+site.env+" web-1 web-2")
	if reason := drainedBecause(t, "web-1"); !strings.HasPrefix(reason, "upgrade") {
		t.Errorf("web-1 is drained %q", reason)
	}
	if got := installed("web-2"); got != "ii 1" {
		t.Errorf("web-2 has %q", got)
	}

	site.on(t, "web-1", "rm /run/infractl-e2e-break")
	requireCode(t, site.infractl(upgrade...), 0, "web-1: an earlier upgrade was cut off", "upgraded: web-1 web-2")
	for _, host := range hosts {
		if got := installed(host); got != "ii 2" {
			t.Errorf("%s has %q", host, got)
		}
		if got := strings.TrimSpace(site.on(t, host, "cat /etc/infractl-e2e.conf")); got != "changed" {
			t.Errorf("%s: the file that was changed is now %q", host, got)
		}
		if reason := drainedBecause(t, host); reason != "" {
			t.Errorf("%s is still drained: %s", host, reason)
		}
		requireStanding(t, host)
	}
	requireCode(t, site.infractl(upgrade...), 0, "nothing to do")
}

func TestHostsRebootOneAtATimeAndNobodyNotices(t *testing.T) {
	requireEveryLoadBalancerReady(t)
	hosts := []string{"app-1", "app-2", "web-1", "web-2", "lb-1", "lb-2"}
	before := map[string]string{}
	for _, host := range append(hosts, "db-1") {
		before[host] = bootOf(t, host)
	}
	crowd := startVisitors(t, site.project, site.URL, 8*time.Minute)
	r := site.infractl("os", "upgrade", "--reboot", "always", "-e", site.env)
	requireCode(t, r, 0, "db-1: left out")
	crowd.requireNobodyNoticed(t, "an upgrade with a reboot of every host")
	report(os.Stdout, "upgrade with a reboot of six hosts", "%.1f s", r.took.Seconds())
	for _, host := range hosts {
		if bootOf(t, host) == before[host] {
			t.Errorf("%s was not rebooted", host)
		}
		requireStanding(t, host)
	}
	if bootOf(t, "db-1") != before["db-1"] {
		t.Error("db-1 was rebooted")
	}
}

func TestAReplacedHostIsAnotherServerAndNobodyNotices(t *testing.T) {
	requireEveryLoadBalancerReady(t)
	requireCode(t, site.infractl("replace", "db-1", "--yes", "-e", site.env), 2, "db-1 holds the data", "--recreate db-1")
	for _, host := range []string{"web-2", "app-1", site.holder(t, site.VIP.IPv4)} {
		t.Run(host, func(t *testing.T) {
			requireEveryLoadBalancerReady(t)
			server, key := serverOf(t, host), site.on(t, host, "cat /etc/ssh/ssh_host_ed25519_key.pub")
			crowd := startVisitors(t, site.project, site.URL, 5*time.Minute)
			r := site.infractl("replace", host, "--yes", "-e", site.env)
			requireCode(t, r, 0, host+" is a new server")
			crowd.requireNobodyNoticed(t, "the replacement of "+host)
			report(os.Stdout, "replacement of "+host, "%.1f s", r.took.Seconds())
			if now := serverOf(t, host); now == server || now == 0 {
				t.Errorf("server %d is now %d", server, now)
			}
			if now := site.on(t, host, "cat /etc/ssh/ssh_host_ed25519_key.pub"); now == key {
				t.Error("the new server has the old one's host key")
			}
			requireStanding(t, host)
		})
	}
	site.outputs = site.project.outputs(t)
	requireWhole(t, site.project)
}

func TestAReplacementThatIsCutOffIsFinishedByTheNextUp(t *testing.T) {
	requireEveryLoadBalancerReady(t)
	// Each ends at another of its steps: drained, deleted, or made anew.
	for i, after := range []string{"draining", "is deleted", "configuration      creating"} {
		t.Run("after: "+after, func(t *testing.T) {
			host := []string{"web-1", "web-2"}[i%2]
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			cmd := site.command(ctx, "replace", host, "--yes", "-e", site.env)
			said := &killer{process: func() *os.Process { return cmd.Process }, word: after}
			cmd.Stdout, cmd.Stderr = said, said
			// Orphans of infractl must not keep the test waiting for the pipe.
			cmd.WaitDelay = time.Second
			if err := cmd.Run(); err == nil {
				t.Fatalf("it came to its end:\n%s", said.text.String())
			}
			site.up(t)
			if reason := drainedBecause(t, host); reason != "" {
				t.Errorf("%s is still drained: %s", host, reason)
			}
			requireStanding(t, host)
			site.outputs = site.project.outputs(t)
			requireWhole(t, site.project)
		})
	}
}

// killer keeps what a process prints, and kills it a moment after a word.
type killer struct {
	process func() *os.Process
	word    string
	text    bytes.Buffer
	killed  bool
}

func (k *killer) Write(p []byte) (int, error) {
	k.text.Write(p)
	if !k.killed && strings.Contains(k.text.String(), k.word) {
		k.killed = true
		time.Sleep(300 * time.Millisecond)
		if err := k.process().Signal(syscall.SIGKILL); err != nil {
			return 0, fmt.Errorf("killing it: %w", err)
		}
	}
	return len(p), nil
}
