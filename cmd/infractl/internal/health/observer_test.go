package health

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet/fleettest"
	"github.com/infractl/infractl/provision/desired"
)

// observer looks at hosts in this process, of which three are web hosts: this
// computer has nothing of what other tiers have.
func observer(t *testing.T, path string) (*Observer, map[string]*fleettest.Host) {
	t.Helper()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	t.Cleanup(site.Close)
	f, hosts := fleettest.New(t, "web-1", "web-2", "web-3")
	f.URL = site.URL + "/"
	o := &Observer{
		Environment: "test", Fleet: f, HealthPath: path, Apart: time.Hour,
		Holders: func(context.Context) ([]engine.Holder, error) { return nil, nil },
	}
	t.Cleanup(o.Close)
	return o, hosts
}

func TestDeadHostsAreWaitedForNoLongerThanTheLimit(t *testing.T) {
	o, hosts := observer(t, "/healthz")
	hosts["web-2"].Silence()
	hosts["web-3"].Stop()
	const limit = 2 * time.Second
	began := time.Now()
	s := o.Look(t.Context(), limit)
	if took := time.Since(began); took > limit+500*time.Millisecond {
		t.Errorf("took %s", took)
	}
	for i, want := range []struct {
		reachable bool
		err       string
	}{{true, ""}, {false, "no answer within 2.0 s"}, {false, "connection refused"}} {
		if h := s.Hosts[i]; h.Reachable != want.reachable || h.Error != want.err {
			t.Errorf("%s: %v, %q", h.Name, h.Reachable, h.Error)
		}
	}
	if s.Healthy || s.Site.Status != 200 || s.Site.Asked != o.Fleet.URL+"healthz" {
		t.Errorf("%+v", s)
	}
	if h := s.Hosts[0]; h.Load == nil || h.MemoryUsed == nil || h.DiskUsed == nil || h.Kernel == "" {
		t.Errorf("web-1 says too little: %+v", h)
	}
}

func TestAHostThatBootedIsFoundAgainAtOnce(t *testing.T) {
	o, hosts := observer(t, "")
	if s := o.Look(t.Context(), 5*time.Second); !s.Hosts[0].Reachable {
		t.Fatalf("%+v", s.Hosts[0])
	}
	hosts["web-1"].Stop()
	hosts["web-1"].Start()
	s := o.Look(t.Context(), 5*time.Second)
	if !s.Hosts[0].Reachable {
		t.Errorf("%+v", s.Hosts[0])
	}
	if s.Site.Status != http.StatusTeapot {
		t.Errorf("without a path the site itself is asked, but: %+v", s.Site)
	}
}

func TestASiteThatDoesNotAnswerIsSaidWhileHostsDo(t *testing.T) {
	o, _ := observer(t, "/healthz")
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	o.Fleet.URL = silent.URL
	s := o.Look(t.Context(), 5*time.Second)
	if s.Site.Error != "no answer within 2.0 s" || s.Site.Status != 0 || !s.Hosts[0].Reachable || s.Seconds > 4 {
		t.Errorf("%+v", s)
	}
}

func TestDriftIsLookedForWhileTheHostIsAsked(t *testing.T) {
	o, hosts := observer(t, "/healthz")
	file := filepath.Join(hosts["web-1"].Files, "managed")
	asked := 0
	o.Described = func() (map[string]desired.Host, error) {
		asked++
		h := desired.Host{Files: map[string]desired.File{file: {Content: "as it should be\n", Mode: "0644"}}}
		return map[string]desired.Host{"web-1": h}, nil
	}
	if err := os.WriteFile(file, []byte("edited\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// This computer is no host of infractl's, whose notes would be missing.
	o.Fleet.Hosts = o.Fleet.Hosts[:1]
	s := o.Look(t.Context(), 5*time.Second)
	d := s.Hosts[0].Drift
	if d == nil || len(d.Files) == 0 || d.Files[0] != file {
		t.Fatalf("%+v", s.Hosts[0])
	}
	if !strings.Contains(strings.Join(told(s), "\n"), file) {
		t.Errorf("%q", told(s))
	}
	// It is not looked for again for a while.
	if s := o.Look(t.Context(), 5*time.Second); s.Hosts[0].Drift == nil || asked != 1 {
		t.Errorf("asked %d times; %+v", asked, s.Hosts[0].Drift)
	}
}
