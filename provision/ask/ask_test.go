package ask

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func serve(t *testing.T, handle func(context.Context, Question) (string, error)) *Server {
	t.Helper()
	t.Setenv(Variable, "")
	s, err := Serve(handle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestEachQuestionIsAskedOnceAndOneAtATime(t *testing.T) {
	var asked, now atomic.Int32
	serve(t, func(_ context.Context, q Question) (string, error) {
		asked.Add(1)
		if now.Add(1) > 1 {
			t.Error("two questions at once")
		}
		time.Sleep(5 * time.Millisecond)
		now.Add(-1)
		return "for " + q.Kind, nil
	})
	var wg sync.WaitGroup
	for range 20 {
		for _, q := range []Question{{SudoPassword, "anna on web-1"}, {SudoPassword, "anna on web-2"}, {Passphrase, "/k/a"}, {Passphrase, "/k/b"}} {
			wg.Go(func() {
				text, err := Ask(t.Context(), q)
				if err != nil || text != "for "+q.Kind {
					t.Errorf("%v: %q, %v", q, text, err)
				}
			})
		}
	}
	wg.Wait()
	if asked.Load() != 3 {
		t.Errorf("asked %d times", asked.Load())
	}
}

func TestNobodyToAsk(t *testing.T) {
	t.Setenv(Variable, "")
	if _, err := Ask(t.Context(), Question{SudoPassword, ""}); !errors.Is(err, ErrNobody) {
		t.Errorf("without a socket: %v", err)
	}
	t.Setenv(Variable, filepath.Join(t.TempDir(), "gone"))
	if _, err := Ask(t.Context(), Question{SudoPassword, ""}); !errors.Is(err, ErrNobody) {
		t.Errorf("with a socket that is gone: %v", err)
	}
	serve(t, func(context.Context, Question) (string, error) { return "", ErrNobody })
	if _, err := Ask(t.Context(), Question{SudoPassword, ""}); !errors.Is(err, ErrNobody) {
		t.Errorf("without a terminal: %v", err)
	}
}

func TestRefusalIsHandedOn(t *testing.T) {
	serve(t, func(context.Context, Question) (string, error) { return "", errors.New("wrong three times") })
	if _, err := Ask(t.Context(), Question{Passphrase, "/k"}); err == nil || err.Error() != "wrong three times" {
		t.Errorf("got %v", err)
	}
}

func TestAskingEndsWithItsContext(t *testing.T) {
	serve(t, func(ctx context.Context, _ Question) (string, error) { <-ctx.Done(); return "", ctx.Err() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Ask(ctx, Question{SudoPassword, ""}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestOnlyTheUserCanReachTheSocket(t *testing.T) {
	s := serve(t, func(context.Context, Question) (string, error) { return "", nil })
	info, err := os.Stat(s.dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	name := os.Getenv(Variable)
	s.Close()
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) || os.Getenv(Variable) != "" {
		t.Errorf("something is left: %v", err)
	}
	if _, err := net.Dial("unix", name); err == nil {
		t.Error("it still answers")
	}
}

func TestNonsenseIsNotAnswered(t *testing.T) {
	serve(t, func(context.Context, Question) (string, error) { t.Error("asked"); return "", nil })
	conn, err := net.Dial("unix", os.Getenv(Variable))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("nonsense\n")); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
}
