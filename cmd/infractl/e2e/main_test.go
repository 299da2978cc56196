//go:build lab

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	theLab "github.com/infractl/infractl/lab"
)

// site is the environment that the tests share: two hosts in every tier but the
// database's. Each test leaves it healthy.
var site struct {
	*project
	outputs
	// firstUp is what bringing it up from nothing printed and took.
	firstUp run
	// firstPage is the time from the start of that up to the first good page.
	firstPage time.Duration
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "infractl-e2e-")
		if err != nil {
			return fail(err)
		}
		defer os.RemoveAll(dir)
		// The tests ask more of the API in an hour than a project may.
		control, err := theLab.Connect(theLab.Options{Project: checkout()})
		if err != nil {
			return fail(err)
		}
		settings, err := control.Settings(context.Background())
		if err != nil {
			return fail(err)
		}
		unlimited := settings
		unlimited.RateLimit = -1
		if err := control.ChangeSettings(context.Background(), unlimited); err != nil {
			return fail(err)
		}
		defer func() { _ = control.ChangeSettings(context.Background(), settings) }()
		p, err := newSite(dir)
		if err != nil {
			return fail(err)
		}
		site.project = p
		// Also after a failure: nothing that the tests made is left in the lab.
		defer func() {
			if r := p.infractl("destroy", "-e", p.env, "--yes"); r.code != 0 {
				fmt.Fprintln(os.Stderr, r)
			}
			if err := p.release(); err != nil {
				fail(err)
			}
		}()
		began := time.Now()
		site.firstUp = p.infractl("up", "-e", p.env, "--yes")
		if site.firstUp.code != 0 {
			return fail(fmt.Errorf("%v", site.firstUp))
		}
		if site.outputs, err = p.readOutputs(); err != nil {
			return fail(err)
		}
		var last string
		for time.Since(began) < 3*time.Minute {
			a, err := get(context.Background(), client(2*time.Second), site.URL+"/")
			if err == nil && a.status == http.StatusOK {
				site.firstPage = time.Since(began)
				break
			}
			last = fmt.Sprintf("status %d, %v", a.status, err)
			time.Sleep(20 * time.Millisecond)
		}
		if site.firstPage == 0 {
			return fail(fmt.Errorf("no good page within three minutes: %s", last))
		}
		report(os.Stdout, "from nothing to the first good page", "%.1f s", site.firstPage.Seconds())
		return m.Run()
	}())
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}

func names[T any](all []T, name func(T) string) []string {
	var out []string
	for _, one := range all {
		out = append(out, name(one))
	}
	return out
}
