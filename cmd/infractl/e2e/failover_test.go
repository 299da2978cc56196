//go:build lab

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"testing"
	"time"
)

func TestTheVirtualIPMovesWhenItsHolderFails(t *testing.T) {
	for _, failure := range []struct {
		name string
		// limit is the longest that the virtual IP may be silent.
		limit time.Duration
		fail  func(t *testing.T, host string)
		mend  func(t *testing.T, host string)
	}{
		{"the host is killed", hostGoneLimit, killHost, startHost},
		{"the host freezes", hostGoneLimit, freezeHost, thawHost},
		{"HAProxy is stopped", failoverLimit,
			func(t *testing.T, host string) { site.on(t, host, "systemctl stop haproxy") },
			func(t *testing.T, host string) { site.on(t, host, "systemctl start haproxy") }},
		{"HAProxy hangs", failoverLimit,
			func(t *testing.T, host string) { site.on(t, host, "pkill -STOP haproxy") },
			func(t *testing.T, host string) { site.on(t, host, "pkill -CONT haproxy") }},
	} {
		t.Run(failure.name, func(t *testing.T) {
			requireEveryLoadBalancerReady(t)
			before := site.holder(t, site.VIP.IPv4)
			// A request that waits longer than a client's patience would hide
			// the outage's end, so each is given up soon and the next asks anew.
			l := startLoad([]string{site.URL + "/healthz"}, 100, 400*time.Millisecond, time.Minute)
			time.Sleep(500 * time.Millisecond)
			failure.fail(t, before)
			time.Sleep(4 * time.Second)
			after := site.holder(t, site.VIP.IPv4)
			failure.mend(t, before)
			time.Sleep(6 * time.Second)
			samples := l.stop()

			silent := outage(samples)
			report(os.Stdout, "virtual IP silent when "+failure.name, "%d ms", silent.Milliseconds())
			if silent > failure.limit {
				t.Errorf("the virtual IP was silent for %s", silent)
			}
			if after == before || after == "" {
				t.Errorf("the virtual IP is still with %q", after)
			}
			if now := site.holder(t, site.VIP.IPv4); now != after {
				t.Errorf("the virtual IP flapped: it moved from %s to %s, and then to %s", before, after, now)
			}
			if last := samples[len(samples)-1]; !last.good() {
				t.Errorf("the last request failed: %v, status %d", last.err, last.status)
			}
			requireEveryLoadBalancerReady(t)
			if now := site.holder(t, site.VIP.IPv4); now != after {
				t.Errorf("the virtual IP flapped back to %s once %s was well", now, before)
			}
		})
	}
}

// requireEveryLoadBalancerReady waits until every load balancer would take the
// virtual IP, so that one test's end is not the next one's failure.
func requireEveryLoadBalancerReady(t *testing.T) {
	t.Helper()
	for _, name := range hostsOf("lb") {
		eventually(t, time.Minute, name+" is ready", func() error {
			out, err := lab("ssh", site.machine(name), "sudo", "sh", "-c",
				shellQuote("systemctl is-active haproxy keepalived && cat /run/infractl/lb-health"))
			if err != nil {
				return err
			}
			if out != "active\nactive\n0\n" {
				return fmt.Errorf("answered %q", out)
			}
			return nil
		})
	}
	time.Sleep(time.Second)
}

func TestNoIdempotentRequestFailsWhenAHostBehindIsKilled(t *testing.T) {
	for _, victim := range []string{"web-2", "app-1"} {
		t.Run(victim, func(t *testing.T) {
			l := startLoad([]string{site.URL + "/", site.URL + staticPath(t), site.URL + "/api/entries"}, 100, 20*time.Second, time.Minute)
			time.Sleep(time.Second)
			killHost(t, victim)
			time.Sleep(6 * time.Second)
			startHost(t, victim)
			time.Sleep(5 * time.Second)
			samples := l.stop()
			bad := failures(samples)
			report(os.Stdout, "requests while "+victim+" is killed and comes back", "%d, failed %d, slowest %d ms",
				len(samples), len(bad), slowest(samples).Milliseconds())
			for _, s := range bad[:min(len(bad), 5)] {
				t.Errorf("a request failed: %v, status %d, after %s", s.err, s.status, s.took)
			}
			if len(samples) < 500 {
				t.Errorf("only %d requests were sent", len(samples))
			}
			requireServedBy(t, victim)
		})
	}
}

// requireServedBy waits until a web or application host serves again.
func requireServedBy(t *testing.T, name string) {
	t.Helper()
	eventually(t, time.Minute, name+" serves again", func() error {
		a, err := get(t.Context(), client(2*time.Second), site.URL+"/")
		if err != nil {
			return err
		}
		if a.status != http.StatusOK || !slices.Contains([]string{a.web, a.app}, name) {
			return fmt.Errorf("status %d from %s and %s", a.status, a.web, a.app)
		}
		return nil
	})
}

// useConnections opens connections to the site and sends a request over each once a
// second, until an answer says that it closes the connection, or for at most limit.
// How each ended comes through the channel: nil if by such an answer.
func useConnections(t *testing.T, count int, limit time.Duration) <-chan error {
	t.Helper()
	address, err := url.Parse(site.URL)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(limit)
	ends := make(chan error, count)
	for i := range count {
		c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(t.Context(), "tcp", net.JoinHostPort(address.Hostname(), "80"))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(deadline) // a connection always can
			time.Sleep(time.Second * time.Duration(i) / time.Duration(count))
			for in := bufio.NewReader(c); ; time.Sleep(time.Second) {
				if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", address.Host); err != nil {
					ends <- err
					return
				}
				res, err := http.ReadResponse(in, nil)
				if err == nil {
					_, err = io.Copy(io.Discard, res.Body)
				}
				if err != nil || res.Close {
					ends <- err
					return
				}
			}
		}()
	}
	return ends
}

// requireEndedByAnswers waits for the ends of useConnections.
func requireEndedByAnswers(t *testing.T, ends <-chan error) {
	t.Helper()
	for range cap(ends) {
		if err := <-ends; err != nil {
			t.Errorf("a connection in use was cut, not closed with an answer: %v", err)
		}
	}
}

func TestAReloadCutsNoConnection(t *testing.T) {
	requireEveryLoadBalancerReady(t)
	ends := useConnections(t, 30, time.Minute)
	time.Sleep(2 * time.Second)
	site.on(t, site.holder(t, site.VIP.IPv4), "systemctl reload haproxy.service")
	requireEndedByAnswers(t, ends)
}

func TestTheVirtualIPMovesOnPurpose(t *testing.T) {
	requireEveryLoadBalancerReady(t)
	from := site.holder(t, site.VIP.IPv4)
	to := map[string]string{"lb-1": "lb-2", "lb-2": "lb-1"}[from]
	ends := useConnections(t, 10, 30*time.Second)
	r := site.infractl("failover", "--to", to, "--json", "-e", site.env)
	requireCode(t, r, 0)
	requireEndedByAnswers(t, ends)
	var result struct {
		From, To string
		Moved    float64
	}
	if err := json.Unmarshal([]byte(r.stdout), &result); err != nil || result.From != from || result.To != to || result.Moved <= 0 {
		t.Errorf("%+v, %v", result, err)
	}
	report(os.Stdout, "virtual IP moved on purpose", "%.1f s, the command %.1f s", result.Moved, r.took.Seconds())
	if now := site.holder(t, site.VIP.IPv4); now != to {
		t.Errorf("the virtual IP is at %s", now)
	}
	for _, host := range []string{from, to} {
		if reason := drainedBecause(t, host); reason != "" {
			t.Errorf("%s is still drained: %s", host, reason)
		}
	}
	requireCode(t, site.infractl("failover", "--to", to, "-e", site.env), 0, to+" holds the virtual IP already")
	// There is nobody left to take it.
	requireCode(t, site.infractl("drain", from, "-e", site.env), 0)
	t.Cleanup(func() { site.infractl("undrain", from, "-e", site.env) })
	requireCode(t, site.infractl("failover", "-e", site.env), 2, from+" is drained (by ")
	if now := site.holder(t, site.VIP.IPv4); now != to {
		t.Errorf("the virtual IP is at %s", now)
	}
}
