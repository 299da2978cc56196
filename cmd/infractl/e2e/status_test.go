//go:build lab

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// look is what the tests read of status --json.
type look struct {
	Version int     `json:"version"`
	Healthy bool    `json:"healthy"`
	Seconds float64 `json:"seconds"`
	Site    struct {
		Status int `json:"status"`
	} `json:"site"`
	VIP []struct {
		Holder string `json:"holder"`
	} `json:"vip"`
	Masters []string `json:"masters"`
	Hosts   []struct {
		Name      string            `json:"name"`
		Reachable bool              `json:"reachable"`
		State     string            `json:"state"`
		Views     map[string]string `json:"views"`
		Drained   bool              `json:"drained"`
		Serving   string            `json:"serving"`
		Drift     *struct {
			Files []string `json:"files"`
		} `json:"drift"`
	} `json:"hosts"`
	Problems []struct {
		Level   string `json:"level"`
		Host    string `json:"host"`
		Message string `json:"message"`
	} `json:"problems"`
}

// said are the problems, one on a line.
func (l look) said() string {
	var b strings.Builder
	for _, p := range l.Problems {
		fmt.Fprintf(&b, "%s: %s\n", p.Level, p.Message)
	}
	return b.String()
}

// lookAt runs status, which may take its time where the computer is busy.
func lookAt(t *testing.T) (look, run) {
	t.Helper()
	r := site.infractl("status", "-e", site.env, "--json", "--timeout", "10s")
	var l look
	if err := json.Unmarshal([]byte(r.stdout), &l); err != nil {
		t.Fatalf("%v: %v", err, r)
	}
	return l, r
}

// healthyAgain waits until status says so.
func healthyAgain(t *testing.T) look {
	t.Helper()
	var l look
	eventually(t, 2*time.Minute, "the environment is healthy", func() error {
		var r run
		if l, r = lookAt(t); r.code != 0 || !l.Healthy {
			return fmt.Errorf("exit code %d\n%s", r.code, l.said())
		}
		return nil
	})
	return l
}

func TestStatusOfAHealthyEnvironment(t *testing.T) {
	l := healthyAgain(t)
	holder := site.holder(t, site.VIP.IPv4)
	if l.Version != 1 || l.Site.Status != http.StatusOK || len(l.VIP) != 1 || l.VIP[0].Holder != holder || len(l.Masters) != 1 || l.Masters[0] != holder {
		t.Errorf("%+v; the holder is %s", l, holder)
	}
	serving := map[string]string{"lb": "haproxy ", "web": "nginx 1.", "app": "guestbook ", "db": "postgresql 17."}
	for _, h := range l.Hosts {
		tier, _, _ := strings.Cut(h.Name, "-")
		if !h.Reachable || h.Drained || !strings.HasPrefix(h.Serving, serving[tier]) || h.Drift == nil || len(h.Drift.Files) > 0 {
			t.Errorf("%+v", h)
		}
		for lb, word := range h.Views {
			if word != "UP" {
				t.Errorf("%s sees %s %s", lb, h.Name, word)
			}
		}
		if tier == "web" && len(h.Views) != len(hostsOf("lb")) {
			t.Errorf("%s is not seen by every load balancer: %v", h.Name, h.Views)
		}
	}
	report(os.Stdout, "status of a healthy environment", "%.1f s for %d hosts", l.Seconds, len(l.Hosts))
}

func TestStatusNamesADeadHostWithinThreeSeconds(t *testing.T) {
	healthyAgain(t)
	freezeHost(t, "web-2")
	t.Cleanup(func() {
		thawHost(t, "web-2")
		healthyAgain(t)
	})
	r := site.infractl("status", "-e", site.env)
	report(os.Stdout, "status with a frozen host", "%d ms", r.took.Milliseconds())
	// Half a second is for starting on a busy computer.
	if r.took > 3500*time.Millisecond {
		t.Errorf("it took %s", r.took)
	}
	if r.code != 1 || !strings.Contains(r.stdout, "web-2 cannot be reached: no answer within") || !strings.Contains(r.stderr, "is not healthy") {
		t.Errorf("%v", r)
	}
	// Moments later the load balancers know it too.
	eventually(t, 20*time.Second, "the load balancers see web-2 down", func() error {
		l, r := lookAt(t)
		if r.code != 1 || !strings.Contains(l.said(), "problem: web-2 cannot be reached") || strings.Contains(l.said(), "still reach it") {
			return fmt.Errorf("exit code %d\n%s", r.code, l.said())
		}
		return nil
	})
}
