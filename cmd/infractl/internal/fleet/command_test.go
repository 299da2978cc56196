package fleet_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet/fleettest"
)

// execute runs a command on a host of its own.
func execute(t *testing.T, ctx context.Context, words ...string) (stdout, stderr string, code int, files string) {
	t.Helper()
	f, hosts := fleettest.New(t, "web-1")
	conn, err := f.Connect(t.Context(), f.Hosts[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	var out, errs bytes.Buffer
	code, err = fleet.Exec(ctx, conn, fleet.Command{Words: words}, &out, &errs)
	if err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), code, hosts["web-1"].Files
}

func TestSeveralWordsArriveAsTheyAre(t *testing.T) {
	words := []string{"printf", `%s\n`, "", " ", "it's", "$HOME", "`id`", "a;b", "*", `\`, "-n", "a\nb", "é"}
	stdout, _, code, _ := execute(t, t.Context(), words...)
	if want := strings.Join(words[2:], "\n") + "\n"; stdout != want || code != 0 {
		t.Errorf("%d, %q", code, stdout)
	}
}

func TestASingleWordIsALineForTheShell(t *testing.T) {
	stdout, stderr, code, _ := execute(t, t.Context(), "echo one | tr o 0; echo two >&2; exit 7")
	if stdout != "0ne\n" || stderr != "two\n" || code != 7 {
		t.Errorf("%d, %q, %q", code, stdout, stderr)
	}
}

func TestACommandFindsAnOrdinaryEnvironment(t *testing.T) {
	stdout, _, _, _ := execute(t, t.Context(), "umask; locale charmap; cat; type hello attended")
	if !strings.HasPrefix(stdout, "0022\nUTF-8\nhello: not found") {
		t.Errorf("%q", stdout)
	}
}

func TestAProgramThatIsNotThereHasItsExitCode(t *testing.T) {
	_, stderr, code, _ := execute(t, t.Context(), "no-such-program", "x")
	if code != 127 || !strings.Contains(stderr, "no-such-program") {
		t.Errorf("%d, %q", code, stderr)
	}
}

func TestACommandEndsWhenNobodyListensAnyMore(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, _, _, files := execute(t, ctx, `exec >/dev/null 2>&1; touch "$FILES/begun"; (trap 'touch "$FILES/ended"; exit' TERM; while :; do sleep 0.05; done) & wait`)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
	if _, err := os.Stat(filepath.Join(files, "begun")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(files, "ended")); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal("what the command had started goes on")
		}
	}
}

func TestHostsAreChosenByTierAndName(t *testing.T) {
	f := &fleet.Fleet{}
	for _, name := range []string{"lb-1", "web-1", "web-2", "app-1"} {
		tier, _, _ := strings.Cut(name, "-")
		f.Hosts = append(f.Hosts, fleet.Host{Name: name, Server: "shop-" + name, Tier: tier})
	}
	for _, c := range []struct {
		tiers, names []string
		want         string
	}{
		{[]string{"web"}, nil, "web-1 web-2"},
		{[]string{"app", "lb"}, nil, "lb-1 app-1"},
		{[]string{"web"}, []string{"web-2", "shop-lb-1"}, "lb-1 web-1 web-2"},
		{[]string{"wbe"}, nil, `there is no tier "wbe"; there are lb, web, app, db`},
		{nil, []string{"web-3"}, `there is no host "web-3"; there are lb-1, web-1, web-2, app-1`},
		{[]string{"db"}, nil, "there is no host in tier db"},
	} {
		hosts, err := f.Select(c.tiers, c.names)
		var names []string
		for _, h := range hosts {
			names = append(names, h.Name)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%v %v: %q, not %q", c.tiers, c.names, got, c.want)
		}
	}
}
