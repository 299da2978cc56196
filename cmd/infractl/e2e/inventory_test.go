//go:build lab && hosts

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// foreign is a web server that somebody has set up by hand, with files where infractl
// writes its own: of other modes and owners than usual, one a link, one not there.
const foreign = `set -e
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends nginx nftables >/dev/null
mkdir -p /srv/old /root/mine
echo "the old shop" >/srv/old/index.html
cat >/root/mine/nginx.conf <<'END'
events {}
http { server { listen 80; root /srv/old; } }
END
chown www-data:adm /root/mine/nginx.conf
chmod 0664 /root/mine/nginx.conf
touch -d '2021-02-03 04:05:06.789' /root/mine/nginx.conf
mv /root/mine/nginx.conf /etc/nginx/nginx.conf
printf '#!/usr/sbin/nft -f\nflush ruleset\ntable inet mine { chain in { type filter hook input priority 10; policy accept; }; }\n' >/etc/nftables.conf
chmod 0700 /etc/nftables.conf
systemctl enable --quiet --now nftables
printf 'vm.swappiness = 7\n' >/root/mine/sysctl.conf
ln -sf /root/mine/sysctl.conf /etc/sysctl.d/60-infractl.conf
printf 'PermitRootLogin prohibit-password\nX11Forwarding no\n' >/etc/ssh/sshd_config.d/10-infractl.conf
systemctl restart nginx ssh
`

// condition prints all that a take-over could have changed on a host: files with
// mode, owner, time and digest, units, and the rules of the firewall.
const condition = `cd /etc
find hostname hosts nftables.conf nftables.d nginx ssh sysctl.d systemd apt cloud/cloud.cfg.d infractl keepalived haproxy logrotate.d -xdev \( -type f -o -type l \) 2>/dev/null |
	LC_ALL=C sort | while read -r f; do
	stat -c '%n %A %U:%G %y' "$f"
	if [ -L "$f" ]; then readlink "$f"; else sha256sum <"$f"; fi
done
for u in nginx nftables ssh haproxy keepalived; do
	echo "$u $(systemctl is-enabled $u 2>/dev/null) $(systemctl is-active $u)"
done
nft list tables
hostname
find /usr/local /var/lib/infractl -mindepth 1 -name '*infractl*' 2>/dev/null | LC_ALL=C sort
sshd -T 2>/dev/null | grep -E '^(permitrootlogin|x11forwarding|allowusers|port|authorizedkeysfile) '
`

// TestAServerThatRunsSomethingIsTakenOverAndGivenBack adds servers to an inventory,
// one of which serves something already, and destroys the environment at the end.
func TestAServerThatRunsSomethingIsTakenOverAndGivenBack(t *testing.T) {
	t.Parallel()
	p, err := newMachines(t.TempDir(), "taken", small)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.release(); err != nil {
			t.Error(err)
		}
	})
	web := p.made[1]
	p.on(t, "web-1", foreign)
	old := func() string {
		a, err := get(t.Context(), client(2*time.Second), "http://"+web.IPv4.String()+"/")
		if err != nil {
			return err.Error()
		}
		return a.body
	}
	if old() != "the old shop\n" {
		t.Fatalf("the old shop is closed: %s", old())
	}
	before := map[string]string{}
	for host := range p.machines {
		before[host] = p.on(t, host, condition)
	}

	if err := p.configure(map[string]string{"infractl:hosts": "{}", "infractl:vip": ""}); err != nil {
		t.Fatal(err)
	}
	// Nobody is trusted whom nobody vouches for.
	requireCode(t, p.infractl("hosts", "add", "-e", p.env, "web", web.IPv4.String(), "--yes"), 2, web.Fingerprint)
	requireCode(t, p.infractl("hosts", "add", "-e", p.env, "web", web.IPv4.String(), "--yes", "--host-key", p.made[0].Fingerprint), 1, web.IPv4.String())
	for i, m := range p.made {
		tier, _, _ := strings.Cut(small[i].host, "-")
		requireCode(t, p.infractl("hosts", "add", "-e", p.env, tier, m.IPv4.String(), "--yes", "--host-key", m.Fingerprint, "--name", m.Name, "--private", m.IPv4.String()), 0)
	}
	requireCode(t, p.infractl("hosts", "add", "-e", p.env, "spare", web.IPv4.String(), "--yes", "--host-key", web.Fingerprint, "--private", web.IPv4.String()), 2, "web")
	requireCode(t, p.infractl("hosts", "list", "-e", p.env), 0, web.Name, web.IPv4.String())

	r := p.infractl("hosts", "check", "-e", p.env, "--json")
	requireCode(t, r, 0)
	var found struct {
		Servers []struct {
			Hosts []string
			Files []struct{ Path, Diff string }
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &found); err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{}
	for _, s := range found.Servers {
		for _, f := range s.Files {
			shown[strings.Join(s.Hosts, " ")+" "+f.Path] = f.Diff
		}
	}
	if _, ok := shown["web-1 /etc/nginx/nginx.conf"]; !ok {
		t.Errorf("check does not say that nginx.conf is written over: %v", r)
	}
	preview := p.infractl("preview", "-e", p.env)
	requireCode(t, preview, 0, "root /srv/old", "copy")
	if out := p.on(t, "web-1", condition); out != before["web-1"] {
		t.Fatalf("looking has changed something:\n%s\n%s", before["web-1"], out)
	}

	r = p.up(t)
	report(os.Stdout, "up of four servers, one of them in use", "%.1f s", r.took.Seconds())
	o := p.outputs(t)
	eventually(t, time.Minute, "the new site serves", func() error {
		a, err := get(t.Context(), client(2*time.Second), o.URL+"/")
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("status %d", a.status)
		}
		return err
	})
	if strings.Contains(old(), "the old shop") {
		t.Error("the old shop is open still")
	}
	if r := p.up(t); !strings.Contains(r.stdout+r.stderr, "no changes") {
		t.Errorf("another up finds something to do: %v", r)
	}

	requireCode(t, p.infractl("destroy", "-e", p.env, "--yes"), 0)
	for host := range p.machines {
		eventually(t, time.Minute, host+" lets in", func() error {
			_, err := lab("ssh", p.machine(host), "true")
			return err
		})
		lost, more := differences(before[host], p.on(t, host, condition))
		if host != "web-1" {
			// The packages that came stay, and their units are known from then on.
			lost = slices.DeleteFunc(lost, func(line string) bool { return strings.HasSuffix(line, " not-found inactive") })
			more = nil
		}
		if len(lost)+len(more) > 0 {
			t.Errorf("%s is not as it was: it lacks\n%s\nand has\n%s", host, strings.Join(lost, "\n"), strings.Join(more, "\n"))
		}
		if ours := p.on(t, host, "grep -rlE 'Managed by infractl|infractl:' /etc /usr/local || true"); ours != "" {
			t.Errorf("%s has files of infractl's: %s", host, ours)
		}
	}
	if old() != "the old shop\n" {
		t.Errorf("the old shop is closed: %s", old())
	}
}

// differences are the lines that only the first of two texts has, and those that
// only the second has.
func differences(before, after string) (lost, more []string) {
	only := func(text, other string) []string {
		lines := strings.Split(other, "\n")
		return slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return slices.Contains(lines, line) })
	}
	return only(before, after), only(after, before)
}

// TestCheckNamesWhatIsWrongWithAServer spoils one server in one way after the other.
func TestCheckNamesWhatIsWrongWithAServer(t *testing.T) {
	t.Parallel()
	p, err := newOwn(t.TempDir(), "checked", 142, small, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.release(); err != nil {
			t.Error(err)
		}
	})
	requireCode(t, p.infractl("hosts", "check", "-e", p.env), 0)
	for _, c := range []struct {
		name        string
		spoil, mend string
		says        []string
	}{
		{"a port that somebody has", "systemd-run --quiet --unit=squatter python3 -m http.server 80", "systemctl stop squatter", []string{"80", "python3"}},
		{"a clock an hour off", `printf '#!/bin/sh\nexec /usr/bin/date -d "1 hour ago" "$@"\n' >/usr/local/sbin/date && chmod +x /usr/local/sbin/date`, "rm /usr/local/sbin/date", []string{"clock", "timedatectl"}},
		{"an interrupted dpkg", "touch /var/lib/dpkg/updates/0001", "rm /var/lib/dpkg/updates/0001", []string{"dpkg --configure -a"}},
		{"a held dpkg lock", `systemd-run --quiet --unit=holder python3 -c 'import fcntl,time; f=open("/var/lib/dpkg/lock-frontend","w"); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(600)' && sleep 1`, "systemctl stop holder", []string{"lock", "python3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.on(t, "web-1", c.spoil)
			t.Cleanup(func() { p.on(t, "web-1", c.mend) })
			r := p.infractl("hosts", "check", "-e", p.env)
			requireCode(t, r, 1, append(c.says, p.machines["web-1"])...)
		})
	}
	t.Run("a virtual IP that another machine has", func(t *testing.T) {
		p.on(t, "web-1", `ip netns add stranger && ip link add stranger link "$(ip -o -4 route show default | sed 's/.* dev \([^ ]*\).*/\1/')" type macvlan mode bridge &&
ip link set stranger netns stranger && ip -n stranger addr add 198.19.0.142/24 dev stranger && ip -n stranger link set stranger up`)
		t.Cleanup(func() { p.on(t, "web-1", "ip netns del stranger") })
		requireCode(t, p.infractl("hosts", "check", "-e", p.env), 1, p.machines["lb-1"], "another machine has the virtual IP 198.19.0.142", "infractl:vip")
		requireCode(t, p.infractl("up", "-e", p.env, "--yes"), 1, "another machine has the virtual IP 198.19.0.142", "Nothing was changed")
	})
	t.Run("another host key", func(t *testing.T) {
		config := strings.Replace(p.base["infractl:hosts"], p.made[1].Fingerprint, p.made[0].Fingerprint, 1)
		if err := p.configure(map[string]string{"infractl:hosts": config}); err != nil {
			t.Fatal(err)
		}
		requireCode(t, p.infractl("hosts", "check", "-e", p.env), 1, p.machines["web-1"], p.made[1].Fingerprint, p.made[0].Fingerprint)
		requireCode(t, p.infractl("up", "-e", p.env, "--yes"), 1, p.machines["web-1"], "host key", "Nothing was changed")
		for host := range p.machines {
			if out := p.on(t, host, "ls -d /etc/infractl /var/lib/infractl 2>/dev/null || true"); out != "" {
				t.Errorf("%s was changed: %s", host, out)
			}
		}
	})
}
