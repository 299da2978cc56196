//go:build lab && !hosts

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestStatusWarnsOfAHostThatAnOperatorHasDrained(t *testing.T) {
	healthyAgain(t)
	site.on(t, "web-1", "/usr/local/lib/infractl/drain 10 'by a tester'")
	t.Cleanup(func() {
		site.on(t, "web-1", "/usr/local/lib/infractl/undrain")
		healthyAgain(t)
	})
	l, r := lookAt(t)
	if r.code != 0 || !l.Healthy || !strings.Contains(l.said(), "warning: web-1 is drained: by a tester") {
		t.Errorf("exit code %d\n%s", r.code, l.said())
	}
	// One that a run has forgotten is another matter.
	site.on(t, "web-1", "echo change >/run/infractl/drained")
	l, r = lookAt(t)
	if r.code != 1 || !strings.Contains(l.said(), "problem: web-1 is still drained by a run (change)") {
		t.Errorf("exit code %d\n%s", r.code, l.said())
	}
}

func TestStatusSeesDriftAndWhoDoesNotServe(t *testing.T) {
	healthyAgain(t)
	site.on(t, "web-2", "sed -i '$a # edited' /etc/nginx/nginx.conf")
	site.on(t, "web-1", "systemctl stop nginx")
	t.Cleanup(func() {
		site.on(t, "web-2", "sed -i '/^# edited$/d' /etc/nginx/nginx.conf")
		site.on(t, "web-1", "systemctl start nginx")
		healthyAgain(t)
	})
	eventually(t, 20*time.Second, "both are said", func() error {
		l, r := lookAt(t)
		for _, want := range []string{"problem: web-1 is down: nginx.service is inactive (dead)", "warning: web-2 is not as the last run left it: /etc/nginx/nginx.conf"} {
			if r.code != 1 || !strings.Contains(l.said(), want) {
				return fmt.Errorf("exit code %d, and not %q:\n%s", r.code, want, l.said())
			}
		}
		return nil
	})
}

func TestStatusSeesALoadBalancerThatCannotClaimTheVirtualIP(t *testing.T) {
	healthyAgain(t)
	holder := site.holder(t, site.VIP.IPv4)
	site.on(t, holder, "systemctl stop infractl-vip")
	t.Cleanup(func() {
		site.on(t, holder, "systemctl start infractl-vip")
		healthyAgain(t)
	})
	l, r := lookAt(t)
	if r.code != 1 || !strings.Contains(l.said(), "problem: "+holder+" is not ready: infractl-vip.service is inactive (dead)") {
		t.Errorf("exit code %d\n%s", r.code, l.said())
	}
}

func TestWatchingGoesOnUntilItIsInterrupted(t *testing.T) {
	healthyAgain(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := site.command(ctx, "status", "-e", site.env, "--json", "--watch=1s", "--timeout", "10s")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for i := range 3 {
		var l look
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &l) != nil || len(l.Hosts) == 0 {
			t.Fatalf("look %d: %q, %v", i, lines.Text(), lines.Err())
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		continue // what was under way
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
}

func TestLoggingInNeedsNothingButTheHostsName(t *testing.T) {
	r := site.infractl("ssh", "-e", site.env, "web-1", "--", "sh", "-c", "hostname; id -un; echo '$HOME'; exit 7")
	if r.code != 7 || r.stdout != site.env+"-web-1\ninfractl\n$HOME\n" {
		t.Errorf("%v", r)
	}
	// A host that shows another key is not let in.
	site.on(t, "web-2", "cp -a /etc/ssh /root/ssh.before && rm /etc/ssh/ssh_host_* && ssh-keygen -q -A && systemctl restart ssh")
	t.Cleanup(func() {
		// The lab's own way in knows the key on the disk, whichever it is.
		site.on(t, "web-2", "rm -r /etc/ssh && mv /root/ssh.before /etc/ssh && systemctl restart ssh")
		healthyAgain(t)
	})
	if r := site.infractl("ssh", "-e", site.env, "web-2", "--", "true"); r.code != 255 || !strings.Contains(r.stderr, "REMOTE HOST IDENTIFICATION HAS CHANGED") {
		t.Errorf("%v", r)
	}
	if l, r := lookAt(t); r.code != 1 || !strings.Contains(l.said(), "web-2 cannot be reached: the host key is not the expected one") {
		t.Errorf("exit code %d\n%s", r.code, l.said())
	}
}

func TestACommandRunsOnAllHostsAtOnce(t *testing.T) {
	r := site.infractl("exec", "-e", site.env, "--all", "--", "id -un; hostname >&2")
	if r.code != 0 {
		t.Fatalf("%v", r)
	}
	for _, tier := range []string{"lb", "web", "app", "db"} {
		for _, name := range hostsOf(tier) {
			if !strings.Contains(r.stdout, fmt.Sprintf("%-5s | root\n", name)) || !strings.Contains(r.stderr, fmt.Sprintf("%-5s | %s-%s\n", name, site.env, name)) {
				t.Errorf("%s is missing: %v", name, r)
			}
		}
	}
	r = site.infractl("exec", "-e", site.env, "--tier", "web", "--user", "--", `id -un; test "$(hostname)" != `+site.env+"-web-2")
	if r.code != 1 || !strings.Contains(r.stdout, "web-1 | infractl\n") || !strings.Contains(r.stderr, "failed on 1 of 2 hosts:\n  web-2: exit code 1") {
		t.Errorf("%v", r)
	}
	r = site.infractl("exec", "-e", site.env, "--host", "web-1", "--timeout", "2s", "--", "sleep 321")
	if r.code != 1 || !strings.Contains(r.stderr, "web-1: not finished after 2s") {
		t.Errorf("%v", r)
	}
	eventually(t, 10*time.Second, "the command has ended on the host", func() error {
		if out := site.on(t, "web-1", "pgrep -fx 'sleep 321' || true"); out != "" {
			return fmt.Errorf("it runs as %s", out)
		}
		return nil
	})
}

func TestARequestIsFoundInTheLogsOfEveryTier(t *testing.T) {
	mark := fmt.Sprintf("/?mark=%d", time.Now().UnixNano())
	if a, err := get(t.Context(), client(5*time.Second), site.URL+mark); err != nil || a.status != http.StatusOK {
		t.Fatalf("%+v, %v", a, err)
	}
	eventually(t, 20*time.Second, "the request is in the logs", func() error {
		r := site.infractl("logs", "-e", site.env, "--since", "2m", "--grep", strings.ReplaceAll(mark, "?", `\?`), "--json")
		if r.code != 0 {
			return fmt.Errorf("%v", r)
		}
		for _, want := range []string{`"identifier":"haproxy"`, `"identifier":"access"`} {
			if !strings.Contains(r.stdout, want) {
				return fmt.Errorf("there is no %s: %v", want, r)
			}
		}
		return nil
	})
	r := site.infractl("logs", "-e", site.env, "--tier", "db", "-n", "5")
	if r.code != 0 || !strings.Contains(r.stdout, "db-1  postgres") {
		t.Errorf("%v", r)
	}
}

func TestFollowedLogsLoseNothingWhenAHostIsPoweredOff(t *testing.T) {
	healthyAgain(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := site.command(ctx, "logs", "-e", site.env, "--tier", "web", "--unit", "marks", "-f", "-n", "0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs text
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[string]int{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			mu.Lock()
			seen[lines.Text()[strings.LastIndexByte(lines.Text(), ' ')+1:]]++
			mu.Unlock()
		}
	}()
	n := 0
	mark := func(host string) {
		n++
		site.on(t, host, fmt.Sprintf("systemd-run --quiet --wait --unit=marks echo mark-%d && journalctl --sync", n))
	}
	await := func() {
		t.Helper()
		eventually(t, time.Minute, "every mark is shown", func() error {
			mu.Lock()
			defer mu.Unlock()
			for i := 1; i <= n; i++ {
				if seen[fmt.Sprint("mark-", i)] == 0 {
					return fmt.Errorf("mark %d is not: %v\n%s", i, seen, &errs)
				}
			}
			return nil
		})
	}
	defer func() {
		if t.Failed() {
			t.Logf("the journal of web-2:\n%s", site.on(t, "web-2", "journalctl --no-pager --unit=marks; ls -l /var/log/journal/*"))
		}
	}()
	time.Sleep(3 * time.Second) // until it listens
	mark("web-1")
	mark("web-2")
	await()
	mark("web-2") // right before the end
	killHost(t, "web-2")
	mark("web-1")
	startHost(t, "web-2")
	eventually(t, time.Minute, "web-2 is up", func() error {
		_, err := lab("ssh", site.machine("web-2"), "true")
		return err
	})
	mark("web-2") // perhaps before the command is back
	await()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, errs.String())
	}
	for i := 1; i <= n; i++ {
		if times := seen[fmt.Sprint("mark-", i)]; times != 1 {
			t.Errorf("mark %d was shown %d times", i, times)
		}
	}
	if !strings.Contains(errs.String(), "web-2 does not answer any more") || !strings.Contains(errs.String(), "web-2 can be read again") {
		t.Errorf("%s", errs.String())
	}
	healthyAgain(t)
}
