package rolling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
)

// hosts makes hosts of short names.
func hosts(names ...string) []fleet.Host {
	var out []fleet.Host
	for _, name := range names {
		h := fleet.Host{Name: name}
		if _, err := fmt.Sscanf(strings.ReplaceAll(name, "-", " "), "%s %d", &h.Tier, &h.Index); err != nil {
			panic(err)
		}
		out = append(out, h)
	}
	return out
}

// diary notes what is done to hosts.
type diary struct {
	lines   []string
	waiting []string
}

// work notes everything and finds every host well.
func (d *diary) work() Work {
	return Work{
		Do: func(_ context.Context, h fleet.Host) (bool, string, error) {
			d.lines = append(d.lines, h.Name)
			return true, "", nil
		},
		Missing:  func(context.Context, fleet.Host) string { return "" },
		Patience: time.Minute,
		Last:     func(context.Context) (string, error) { return "lb-1", nil },
		Waiting:  func(h fleet.Host, missing string) { d.waiting = append(d.waiting, h.Name+" "+missing) },
		Finished: func(r Result) { d.lines = append(d.lines, string(r.State)) },
	}
}

func states(r Report) string {
	var out []string
	for _, one := range r.Results {
		out = append(out, one.Host+" "+string(one.State))
	}
	return strings.Join(out, ", ")
}

func TestTiersGoInTheOrderOfTheirNeedsAndTheHolderLast(t *testing.T) {
	d := &diary{}
	r := d.work().Run(t.Context(), hosts("lb-1", "lb-2", "lb-3", "web-10", "web-2", "app-1", "db-1"))
	want := "db-1 done, app-1 done, web-2 done, web-10 done, lb-2 done, lb-3 done, lb-1 done"
	if got := states(r); got != want || r.Err != nil || r.Interrupted {
		t.Errorf("%s, %v, interrupted %v", got, r.Err, r.Interrupted)
	}
	if got := strings.Join(d.lines, " "); got != "db-1 done app-1 done web-2 done web-10 done lb-2 done lb-3 done lb-1 done" {
		t.Errorf("in time: %s", got)
	}
}

func TestAHolderThatChangesMeanwhileIsStillLast(t *testing.T) {
	d := &diary{}
	w := d.work()
	holder := "lb-1"
	w.Last = func(context.Context) (string, error) { return holder, nil }
	do := w.Do
	w.Do = func(ctx context.Context, h fleet.Host) (bool, string, error) {
		if h.Name == "lb-2" {
			holder = "lb-3"
		}
		return do(ctx, h)
	}
	if got := states(w.Run(t.Context(), hosts("lb-1", "lb-2", "lb-3"))); got != "lb-2 done, lb-1 done, lb-3 done" {
		t.Error(got)
	}
}

func TestWithoutKnowingTheHolderNoLoadBalancerIsTouched(t *testing.T) {
	d := &diary{}
	w := d.work()
	w.Last = func(context.Context) (string, error) { return "", errors.New("no answer") }
	r := w.Run(t.Context(), hosts("lb-1", "lb-2", "web-1"))
	if got := states(r); got != "web-1 done, lb-1 untouched, lb-2 untouched" || r.Err == nil || !strings.Contains(r.Err.Error(), "no answer") {
		t.Errorf("%s, %v", got, r.Err)
	}
}

func TestAFailureLeavesTheRestUntouched(t *testing.T) {
	d := &diary{}
	w := d.work()
	w.Do = func(_ context.Context, h fleet.Host) (bool, string, error) {
		if h.Name == "app-2" {
			return false, "", errors.New("app-2: restart: no")
		}
		return true, "", nil
	}
	r := w.Run(t.Context(), hosts("app-1", "app-2", "app-3", "web-1"))
	if got := states(r); got != "app-1 done, app-2 failed, app-3 untouched, web-1 untouched" {
		t.Error(got)
	}
	if r.Err == nil || r.Err.Error() != "app-2: restart: no" || r.Interrupted {
		t.Errorf("%v, interrupted %v", r.Err, r.Interrupted)
	}
	if got := r.Names(Failed, Untouched); !slices.Equal(got, []string{"app-2", "app-3", "web-1"}) {
		t.Errorf("%v", got)
	}
}

func TestTheNextHostWaitsUntilTheLastIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		w := d.work()
		var worked time.Time
		w.Do = func(_ context.Context, h fleet.Host) (bool, string, error) {
			if h.Name == "web-2" && time.Since(worked) < 20*time.Second {
				t.Errorf("web-2 came %s after web-1", time.Since(worked))
			}
			worked = time.Now()
			return true, "", nil
		}
		w.Missing = func(context.Context, fleet.Host) string {
			if time.Since(worked) < 20*time.Second {
				return "lb-1 does not see it"
			}
			return ""
		}
		r := w.Run(t.Context(), hosts("web-1", "web-2"))
		if got := states(r); got != "web-1 done, web-2 done" {
			t.Errorf("%s, %v", got, r.Err)
		}
		// Not once for every look.
		if got := strings.Join(d.waiting, "; "); got != "web-1 lb-1 does not see it; web-2 lb-1 does not see it" {
			t.Error(got)
		}
	})
}

func TestAHostThatDoesNotGetWellIsNamedWithWhatItLacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		w := d.work()
		w.Missing = func(context.Context, fleet.Host) string { return "lb-2 says DOWN" }
		began := time.Now()
		r := w.Run(t.Context(), hosts("web-1", "web-2"))
		if got := states(r); got != "web-1 failed, web-2 untouched" {
			t.Error(got)
		}
		var notWell *NotWellError
		if !errors.As(r.Err, &notWell) || notWell.Host != "web-1" || notWell.Missing != "lb-2 says DOWN" {
			t.Errorf("%v", r.Err)
		}
		if took := time.Since(began); took < time.Minute || took > 61*time.Second {
			t.Errorf("waited %s", took)
		}
	})
}

func TestAHostWithNothingToDoIsNotWaitedFor(t *testing.T) {
	d := &diary{}
	w := d.work()
	w.Do = func(context.Context, fleet.Host) (bool, string, error) { return false, "nothing to do", nil }
	w.Missing = func(context.Context, fleet.Host) string {
		t.Error("it was waited for")
		return ""
	}
	if got := states(w.Run(t.Context(), hosts("web-1"))); got != "web-1 unchanged" {
		t.Error(got)
	}
}

func TestAnInterruptLetsTheHostFinishAndStopsBeforeTheNext(t *testing.T) {
	d := &diary{}
	w := d.work()
	ctx, interrupt := context.WithCancel(t.Context())
	w.Do = func(inner context.Context, h fleet.Host) (bool, string, error) {
		interrupt()
		if inner.Err() != nil {
			t.Errorf("%s was not allowed to finish", h.Name)
		}
		return true, "", nil
	}
	waited := false
	w.Missing = func(inner context.Context, _ fleet.Host) string {
		waited = inner.Err() == nil
		return ""
	}
	r := w.Run(ctx, hosts("web-1", "web-2", "lb-1"))
	if got := states(r); got != "web-1 done, web-2 untouched, lb-1 untouched" || !r.Interrupted || r.Err != nil || !waited {
		t.Errorf("%s, interrupted %v, %v, waited %v", got, r.Interrupted, r.Err, waited)
	}
}

func TestAnInterruptAtTheLastHostIsNone(t *testing.T) {
	w := (&diary{}).work()
	ctx, interrupt := context.WithCancel(t.Context())
	w.Missing = func(context.Context, fleet.Host) string { interrupt(); return "" }
	if r := w.Run(ctx, hosts("web-1")); states(r) != "web-1 done" || r.Interrupted {
		t.Errorf("%+v", r)
	}
}

func TestASecondInterruptStopsTheHostAtOnce(t *testing.T) {
	w := (&diary{}).work()
	force := make(chan struct{})
	w.Force = force
	ctx, interrupt := context.WithCancel(t.Context())
	w.Do = func(inner context.Context, _ fleet.Host) (bool, string, error) {
		interrupt()
		close(force)
		<-inner.Done()
		return false, "", inner.Err()
	}
	r := w.Run(ctx, hosts("web-1", "web-2"))
	if got := states(r); got != "web-1 failed, web-2 untouched" || !r.Interrupted {
		t.Errorf("%s, interrupted %v", got, r.Interrupted)
	}
}

func TestASecondInterruptEndsTheWaiting(t *testing.T) {
	w := (&diary{}).work()
	force := make(chan struct{})
	w.Force = force
	w.Patience = time.Hour
	w.Missing = func(context.Context, fleet.Host) string { return "everything" }
	w.Waiting = func(fleet.Host, string) { close(force) }
	r := w.Run(t.Context(), hosts("web-1", "web-2"))
	if got := states(r); got != "web-1 failed, web-2 untouched" || !r.Interrupted {
		t.Errorf("%s, interrupted %v, %v", got, r.Interrupted, r.Err)
	}
}
