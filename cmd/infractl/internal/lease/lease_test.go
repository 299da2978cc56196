package lease

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/process"
)

// Tests that need other processes start this binary again: these variables say
// what it is to do then, and where.
const (
	roleVariable = "INFRACTL_TEST_ROLE"
	dirVariable  = "INFRACTL_TEST_DIR"
)

func TestMain(m *testing.M) {
	roles := map[string]func(string){"hold": holdForGood, "count": countAlone, "race": takeOnce}
	if role := roles[os.Getenv(roleVariable)]; role != nil {
		role(os.Getenv(dirVariable))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child prepares this binary to play a role in another process.
func child(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role, dirVariable+"="+dir)
	cmd.Stderr = os.Stderr
	t.Cleanup(func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

// must ends a process that plays a role and cannot.
func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// brief is the time to live in tests that wait for it, long enough for a
// computer that is busy.
const brief = 600 * time.Millisecond

// quick are options of tests that wait for a lease to run out.
func quick(patience time.Duration) Options {
	return Options{TTL: brief, Patience: patience, Poll: 5 * time.Millisecond}
}

func me(id string) Holder {
	return Holder{ID: id, Owner: id + "@here", Command: "up", Process: process.Self(), Since: time.Now()}
}

// stranger is a process of which nothing is known on this computer.
func stranger(id string) Holder {
	h := me(id)
	h.Process = process.ID{Boot: "elsewhere", Namespace: "pid:[1]", PID: 12, Started: 1}
	return h
}

// leave writes the lease of a holder that does not renew it.
func leave(t *testing.T, dir string, h Holder, ttl time.Duration) {
	t.Helper()
	last, err := place(dir).last()
	if err == nil {
		err = place(dir).claim(State{Holder: h, RenewedAt: time.Now().Add(-24 * time.Hour), TTL: ttl.Seconds(), number: last.number + 1})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func take(t *testing.T, dir string, h Holder, o Options) *Lease {
	t.Helper()
	l, err := Take(t.Context(), dir, h, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Release() })
	return l
}

// listener collects what is said.
type listener struct {
	mu   sync.Mutex
	said []string
}

func (l *listener) say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, fmt.Sprintf(format, args...))
}

func (l *listener) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.said, "\n")
}

func TestLeaseKeepsOthersOutUntilItIsReleased(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	first := take(t, dir, me("ann"), Options{})
	_, err := Take(t.Context(), dir, me("bob"), Options{})
	var held *HeldError
	if !errors.As(err, &held) || !strings.HasPrefix(err.Error(), "ann@here (infractl up, process ") {
		t.Fatalf("the second holder: %v", err)
	}
	if s, err := Look(dir); err != nil || s == nil || s.ID != "ann" {
		t.Errorf("looking at it: %+v, %v", s, err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	if s, err := Look(dir); err != nil || s != nil {
		t.Errorf("after its release: %+v, %v", s, err)
	}
	second := take(t, dir, me("bob"), Options{})
	if second.Waited() {
		t.Error("it says that it had to wait")
	}
	if err := first.Release(); err != nil {
		t.Errorf("releasing twice: %v", err)
	}
	if s, _ := Look(dir); s == nil || s.ID != "bob" {
		t.Errorf("the second release took another's lease: %+v", s)
	}
}

func TestNobodyHoldsALeaseThatNeverWas(t *testing.T) {
	t.Parallel()
	if s, err := Look(filepath.Join(t.TempDir(), "none")); s != nil || err != nil {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestWaitingNamesTheHolderOnceAndEndsWithItsRelease(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := take(t, dir, me("ann"), quick(0))
	time.AfterFunc(2*brief, func() { _ = first.Release() })
	heard := &listener{}
	o := quick(20 * time.Second)
	o.Say = heard.say
	second := take(t, dir, me("bob"), o)
	if !second.Waited() {
		t.Error("it does not say that it had to wait")
	}
	// Longer than the time to live: the first one was renewed meanwhile.
	if got := heard.String(); !strings.HasPrefix(got, "waiting up to 20 s for ann@here (infractl up, process ") || strings.Contains(got, "\n") {
		t.Errorf("said: %s", got)
	}
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	take(t, dir, me("ann"), Options{})
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(stop) })
	if _, err := Take(ctx, dir, me("bob"), quick(time.Minute)); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

func TestLeaseThatIsRenewedIsNotTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := take(t, dir, me("ann"), quick(0))
	_, err := Take(t.Context(), dir, me("bob"), quick(2*brief))
	var held *HeldError
	if !errors.As(err, &held) || held.State.Sequence == 0 {
		t.Errorf("the second holder: %v (%+v)", err, held)
	}
	if err := first.Err(); err != nil {
		t.Error(err)
	}
}

func TestAnotherComputersLeaseIsTakenOnlyAfterItWasSeenUnchangedForItsTimeToLive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// Its clock is a day behind, which says nothing.
	leave(t, dir, stranger("far"), brief)
	if _, err := Take(t.Context(), dir, me("bob"), quick(0)); err == nil {
		t.Fatal("a look was enough")
	}
	heard := &listener{}
	o := quick(20 * time.Second)
	o.Say = heard.say
	began := time.Now()
	take(t, dir, me("bob"), o)
	if took := time.Since(began); took < brief {
		t.Errorf("taken after %s", took)
	}
	if got := heard.String(); !strings.Contains(got, "took over the lock of far@here") || !strings.Contains(got, "no sign of life") {
		t.Errorf("said: %s", got)
	}
}

func TestTheHoldersTimeToLiveCountsNotTheWaiters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	leave(t, dir, stranger("far"), time.Hour)
	if _, err := Take(t.Context(), dir, me("bob"), quick(2*brief)); err == nil {
		t.Error("taken by the waiter's time to live")
	}
}

func TestWatchBeginsAnewAfterAGap(t *testing.T) {
	t.Parallel()
	var w watch
	s := State{number: 1, raw: "x"}
	const ttl = 90 * time.Millisecond
	for end := time.Now().Add(60 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		w.unchanged(s, ttl)
	}
	time.Sleep(60 * time.Millisecond) // as if it had been suspended
	if quiet := w.unchanged(s, ttl); quiet != 0 {
		t.Errorf("it counts %s in which it saw nothing", quiet)
	}
	s.raw = "y"
	if quiet := w.unchanged(s, ttl); quiet != 0 {
		t.Errorf("a renewed lease has been unchanged for %s", quiet)
	}
}

func TestLeaseOfADeadProcessIsTakenAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := child(t, "hold", dir)
	start(t, cmd, filepath.Join(dir, "holding"))
	if _, err := Take(t.Context(), dir, me("bob"), Options{}); err == nil {
		t.Fatal("taken from a living process")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	heard := &listener{}
	began := time.Now()
	take(t, dir, me("bob"), Options{Say: heard.say})
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %s", took)
	}
	if got := heard.String(); !strings.Contains(got, "took over the lock of child@here") || !strings.Contains(got, "no longer running") {
		t.Errorf("said: %s", got)
	}
}

// start starts a child and waits for the file that says it is ready.
func start(t *testing.T, cmd *exec.Cmd, ready string) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			return
		}
	}
	t.Fatal("the child does not begin")
}

// holdForGood takes the lease, and says in a file once it was lost.
func holdForGood(dir string) {
	h := me("child")
	l, err := Take(context.Background(), dir, h, quick(0))
	must(err)
	must(os.WriteFile(filepath.Join(dir, "holding"), nil, 0o600))
	<-l.Lost()
	must(os.WriteFile(filepath.Join(dir, "new"), []byte(l.Err().Error()), 0o600))
	must(os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "lost")))
}

func TestSuspendedHolderLosesItsLeaseAndNoticesWhoHasIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := child(t, "hold", dir)
	start(t, cmd, filepath.Join(dir, "holding"))
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	take(t, dir, me("bob"), quick(20*time.Second))
	if _, err := os.Stat(filepath.Join(dir, "lost")); err == nil {
		t.Fatal("a suspended process has noticed something")
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	why, err := os.ReadFile(filepath.Join(dir, "lost"))
	if err != nil || !strings.Contains(string(why), "taken over by bob@here (infractl up, process ") {
		t.Errorf("it says %q, %v", why, err)
	}
}

func TestHolderSuspendedForLessThanItsTimeToLiveGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := child(t, "hold", dir)
	start(t, cmd, filepath.Join(dir, "holding"))
	for range 3 {
		_ = cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(brief * 2 / 3)
		_ = cmd.Process.Signal(syscall.SIGCONT)
		time.Sleep(brief / 3)
	}
	// Longer suspended, but nobody wanted it meanwhile.
	_ = cmd.Process.Signal(syscall.SIGSTOP)
	time.Sleep(2 * brief)
	_ = cmd.Process.Signal(syscall.SIGCONT)
	time.Sleep(brief)
	if why, err := os.ReadFile(filepath.Join(dir, "lost")); err == nil {
		t.Errorf("it lost its lease: %s", why)
	}
}

func TestExactlyOneOfManyTakesAnExpiredLease(t *testing.T) {
	t.Parallel()
	for _, former := range []Holder{stranger("far"), dead(t)} {
		t.Run(former.ID, func(t *testing.T) {
			dir := t.TempDir()
			leave(t, dir, former, 100*time.Millisecond)
			var winners atomic.Int32
			var wg sync.WaitGroup
			for i := range 64 {
				wg.Go(func() {
					o := quick(time.Second)
					o.TTL = time.Minute // so that the winner keeps it
					if _, err := Take(t.Context(), dir, me(strconv.Itoa(i)), o); err == nil {
						winners.Add(1)
					} else if h := (*HeldError)(nil); !errors.As(err, &h) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := winners.Load(); n != 1 {
				t.Errorf("%d have taken it", n)
			}
		})
	}
}

// dead is a holder on this computer whose process has ended.
func dead(t *testing.T) Holder {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	h := me("dead")
	h.Process.PID = cmd.Process.Pid
	return h
}

func TestExactlyOneOfManyProcessesTakesADeadOnesLease(t *testing.T) {
	t.Parallel()
	for range 5 {
		dir := t.TempDir()
		leave(t, dir, dead(t), time.Minute)
		var all []*exec.Cmd
		for range 8 {
			cmd := child(t, "race", dir)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			all = append(all, cmd)
		}
		// They wait for this, so that they begin together.
		if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, cmd := range all {
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		}
		won, err := filepath.Glob(filepath.Join(dir, "won-*"))
		if err != nil || len(won) != 1 {
			t.Errorf("%d have taken it: %v, %v", len(won), won, err)
		}
	}
}

// takeOnce tries to take the lease and says in a file if it has got it. It ends
// only after all others have tried: a dead winner's lease is free to take.
func takeOnce(dir string) {
	for {
		if _, err := os.Stat(filepath.Join(dir, "go")); err == nil {
			break
		}
		time.Sleep(100 * time.Microsecond)
	}
	id := strconv.Itoa(os.Getpid())
	_, err := Take(context.Background(), dir, me(id), Options{})
	var held *HeldError
	if err == nil {
		must(os.WriteFile(filepath.Join(dir, "won-"+id), nil, 0o600))
	} else if !errors.As(err, &held) {
		must(err)
	}
	must(os.WriteFile(filepath.Join(dir, "tried-"+id), nil, 0o600))
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if tried, _ := filepath.Glob(filepath.Join(dir, "tried-*")); len(tried) == 8 {
			return
		}
	}
}

func TestManyProcessesTakeTurns(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "counter"), []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	const processes, turns = 6, 20
	var all []*exec.Cmd
	for range processes {
		cmd := child(t, "count", dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, cmd)
	}
	for _, cmd := range all {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "counter"))
	if got := string(text); err != nil || got != strconv.Itoa(processes*turns) {
		t.Errorf("the counter is %s, not %d (%v): two had the lease at a time", got, processes*turns, err)
	}
	if left, _ := place(dir).numbers(); len(left) != 1 {
		t.Errorf("files of leases are left: %v", left)
	}
}

// countAlone counts up in a file, which only works if nobody else does so at
// the same time.
func countAlone(dir string) {
	counter := filepath.Join(dir, "counter")
	for i := range 20 {
		o := Options{TTL: time.Minute, Patience: time.Minute, Poll: time.Millisecond}
		l, err := Take(context.Background(), dir, me(fmt.Sprintf("%d-%d", os.Getpid(), i)), o)
		must(err)
		text, err := os.ReadFile(counter)
		must(err)
		n, err := strconv.Atoi(string(text))
		must(err)
		time.Sleep(time.Millisecond)
		must(os.WriteFile(counter, []byte(strconv.Itoa(n+1)), 0o600))
		must(l.Release())
	}
}

func TestNumberThatWasDeletedIsNotTakenAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, id := range []string{"a", "b", "c"} {
		l := take(t, dir, me(id), Options{})
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
	}
	holder := take(t, dir, me("d"), Options{})
	// Somebody who looked when the second was the last one.
	err := place(dir).claim(State{Holder: me("late"), number: 3})
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v", err)
	}
	if all, _ := place(dir).numbers(); len(all) != 1 || all[0] != 4 {
		t.Errorf("there are %v", all)
	}
	if err := holder.renew(); err != nil {
		t.Error(err)
	}
}

func TestRemovedLeaseIsNoticedWithWhoRemovedIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := take(t, dir, me("ann"), quick(0))
	seen, err := Look(dir)
	if err != nil || seen == nil {
		t.Fatal(err)
	}
	by := me("bob")
	by.Command = "unlock"
	if err := Remove(dir, *seen, by); err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.Lost():
	case <-time.After(10 * time.Second):
		t.Fatal("it was not noticed")
	}
	if err := l.Err(); !strings.Contains(err.Error(), "removed by bob@here with infractl unlock at ") {
		t.Errorf("it says: %v", err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
	take(t, dir, me("cid"), Options{})
	if err := Remove(dir, *seen, by); err == nil {
		t.Error("a lease was removed that nobody had looked at")
	}
}

func TestDeletedLeaseIsNoticed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := take(t, dir, me("ann"), quick(0))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.Lost():
		if want := "the environment's lock was deleted"; l.Err().Error() != want {
			t.Errorf("it says: %v", l.Err())
		}
	case <-time.After(10 * time.Second):
		t.Error("it was not noticed")
	}
}

func TestLeaseThatCannotBeRenewedIsGivenUpInTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := quick(0)
	o.TTL = time.Second
	l := take(t, dir, me("ann"), o)
	// A directory that cannot be read stands for any fault of the file system.
	began := time.Now()
	moved := dir + "-moved"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(moved) })
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.Lost():
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on for good")
	}
	if took := time.Since(began); took >= o.TTL+o.TTL/renewals {
		t.Errorf("it took %s, longer than others wait", took)
	}
	if err := l.Err(); !strings.Contains(err.Error(), "could not be renewed: cannot read") {
		t.Errorf("it says: %v", err)
	}
}

func TestHalfWrittenLeaseIsWatchedLikeAnyOther(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(place(dir).path(1), []byte(`{"id":"an`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Take(t.Context(), dir, me("bob"), quick(0))
	if err == nil || err.Error() != "somebody who has just begun" {
		t.Errorf("%v", err)
	}
	began := time.Now()
	take(t, dir, me("bob"), quick(20*time.Second))
	if took := time.Since(began); took < brief {
		t.Errorf("taken after %s", took)
	}
}
