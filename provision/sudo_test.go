package provision

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/infractl/infractl/provision/ask"
	"github.com/infractl/infractl/provision/desired"
)

// fakeSudo stands for sudo 1.9 where tests run without root: the same options,
// prompts, tries, words and habits of reading. What it does is noted in $LOG.
// The real one is tried in openssh_test.go.
const fakeSudo = `#!/bin/sh
ask= prompt=
while [ "$1" != -- ]; do
	case $1 in
	-n) ask=no ;;
	-S) ask=yes ;;
	-p) prompt=$2; shift ;;
	esac
	shift
done
shift
echo "called $ask" >>"$LOG"
if [ -z "$PASSWORD" ]; then
	exec env -u PASSWORD -u LOG "$@"
fi
if [ $ask = no ]; then
	echo "sudo: a password is required" >&2
	exit 1
fi
for try in 1 2 3; do
	printf %s "$prompt" >&2
	IFS= read -r word || { echo "sudo: no password was provided" >&2; exit 1; }
	echo "tried $word" >>"$LOG"
	[ "$word" != "$PASSWORD" ] || exec env -u PASSWORD -u LOG "$@"
	echo "Sorry, try again." >&2
done
echo "sudo: 3 incorrect password attempts" >&2
exit 1
`

// sudoHost is a host of a user's own on which sudo wants a password, if there is
// one. What sudo was told is in the file that it returns.
func sudoHost(t *testing.T, password string) (h *host, target Target, log func() []string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sudo"), []byte(fakeSudo), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "log")
	var commands bytes.Buffer
	var mu sync.Mutex
	h = newHost(t, running(func(h *host, command string, in io.Reader, out, errors io.Writer) int {
		mu.Lock()
		commands.WriteString(command + "\n")
		mu.Unlock()
		c := exec.Command("sh", "-c", command)
		c.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "PASSWORD="+password, "LOG="+file)
		c.Env = slices.DeleteFunc(c.Env, func(v string) bool { return strings.HasPrefix(v, sudoVariable) })
		c.Stdout, c.Stderr = out, errors
		stdin, err := c.StdinPipe()
		if err != nil || c.Start() != nil {
			return 126
		}
		go func() { io.Copy(stdin, in); stdin.Close() }()
		c.Wait()
		return c.ProcessState.ExitCode()
	}))
	target = h.own(t, h.known())
	t.Setenv(sudoVariable, "")
	t.Setenv(ask.Variable, "")
	old := &sudoPassword
	forget := func() {
		old.mu.Lock()
		defer old.mu.Unlock()
		old.text, old.known, old.proven, old.wrong, old.refused = "", false, false, "", map[string]bool{}
	}
	forget()
	t.Cleanup(func() {
		forget()
		mu.Lock()
		defer mu.Unlock()
		for _, word := range []string{"sesame", "wrong"} {
			if strings.Contains(commands.String(), word) {
				t.Errorf("a password is in a command: %s", commands.String())
			}
		}
	})
	return h, target, func() []string {
		text, _ := os.ReadFile(file)
		os.Remove(file)
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
}

func TestSudoWithoutAPasswordIsNotGivenOne(t *testing.T) {
	_, target, log := sudoHost(t, "")
	t.Setenv(sudoVariable, "open sesame")
	c, err := Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out, err := c.output(t.Context(), "test", "printf '@infractl\\n'; cat")
	if err != nil || len(out) > 0 {
		t.Errorf("%q, %v", out, err)
	}
	if got := log(); !slices.Equal(got, []string{"called no", "called no"}) {
		t.Errorf("sudo: %q", got)
	}
}

func TestSudoGetsThePasswordAndTheScriptDoesNot(t *testing.T) {
	for name, ready := range map[string]func(t *testing.T){
		"from the environment": func(t *testing.T) { t.Setenv(sudoVariable, "open sesame") },
		"from a person": func(t *testing.T) {
			answering(t, func(q ask.Question) (string, error) {
				if q.Kind != ask.SudoPassword || q.Subject != "infractl on web-1" {
					t.Errorf("asked for %v", q)
				}
				return "open sesame", nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, target, log := sudoHost(t, "open sesame")
			ready(t)
			c, err := Connect(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// The script reads what follows it and nothing else, and has no
			// variable with the password.
			s, err := c.start(t.Context(), "test", "printf '@infractl\\n'; env; head -c 5; printf 'it %s' ran")
			if err != nil {
				t.Fatal(err)
			}
			go io.WriteString(s.in, "input")
			out, _ := io.ReadAll(s.out)
			if err := s.wait(); err != nil || !strings.HasSuffix(string(out), "inputit ran") || strings.Contains(string(out), "sesame") {
				t.Errorf("%q, %v", out, err)
			}
			if text := s.errors.String(); text != "" {
				t.Errorf("standard error: %q", text)
			}
			if got := log(); !slices.Equal(got, []string{"called no", "called yes", "tried open sesame", "called yes", "tried open sesame"}) {
				t.Errorf("sudo: %q", got)
			}
		})
	}
}

func TestPasswordIsAskedForOnceForAllHosts(t *testing.T) {
	_, target, _ := sudoHost(t, "open sesame")
	asked := answering(t, func(ask.Question) (string, error) {
		time.Sleep(20 * time.Millisecond)
		return "open sesame", nil
	})
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			target := target
			target.Name = fmt.Sprintf("web-%d", i)
			c, err := Connect(t.Context(), target)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if out, err := c.Run(t.Context(), "test", "echo yes"); err != nil || string(out) != "yes\n" {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
	wg.Wait()
	if len(*asked) != 1 {
		t.Errorf("asked %d times", len(*asked))
	}
}

func TestWrongPasswordIsTriedOnceOnOneHost(t *testing.T) {
	_, target, log := sudoHost(t, "open sesame")
	t.Setenv(sudoVariable, "wrong")
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() {
			target := target
			target.Name = "web-1"
			_, errs[i] = Connect(t.Context(), target)
		})
	}
	wg.Wait()
	refused := 0
	for _, err := range errs {
		expect(t, err, ErrPassword, "infractl", sudoVariable, "tried once only")
		if strings.Contains(err.Error(), "sudo refused the password") {
			refused++
		} else if !strings.Contains(err.Error(), "was refused by web-1") {
			t.Error(err)
		}
		if strings.Contains(err.Error(), "wrong ") {
			t.Errorf("the password is in %q", err)
		}
	}
	tried := slices.DeleteFunc(log(), func(line string) bool { return !strings.HasPrefix(line, "tried") })
	if refused != 1 || !slices.Equal(tried, []string{"tried wrong"}) {
		t.Errorf("%d refused, sudo: %q", refused, tried)
	}
}

func TestWaitReadyDoesNotTryAWrongPasswordAgain(t *testing.T) {
	_, target, log := sudoHost(t, "open sesame")
	t.Setenv(sudoVariable, "wrong")
	start := time.Now()
	_, err := WaitReady(t.Context(), target, Wait{})
	expect(t, err, ErrPassword)
	if tried := strings.Count(strings.Join(log(), "\n"), "tried"); tried != 1 || time.Since(start) > 5*time.Second {
		t.Errorf("%d tries in %s", tried, time.Since(start))
	}
}

func TestPasswordThatIsRightElsewhereIsTriedOnceHere(t *testing.T) {
	_, good, _ := sudoHost(t, "open sesame")
	t.Setenv(sudoVariable, "open sesame")
	c, err := Connect(t.Context(), good)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	text, known, proven := sudoPassword.text, sudoPassword.known, sudoPassword.proven
	_, other, log := sudoHost(t, "something else, sesame")
	sudoPassword.text, sudoPassword.known, sudoPassword.proven = text, known, proven
	for range 3 {
		_, err = Connect(t.Context(), other)
		expect(t, err, ErrPassword, "sudo refused the password of user infractl")
	}
	if tried := strings.Count(strings.Join(log(), "\n"), "tried"); tried != 1 {
		t.Errorf("%d tries", tried)
	}
}

func TestPasswordThatNobodyCanBeAskedFor(t *testing.T) {
	_, target, _ := sudoHost(t, "open sesame")
	_, err := Connect(t.Context(), target)
	expect(t, err, ErrSudo, "sudo asks user infractl for a password", "no terminal", "NOPASSWD", sudoVariable)
	expect(t, err, ErrPassword)
	// Somebody may give it in the next run of the same process.
	t.Setenv(sudoVariable, "open sesame")
	c, err := Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestPasswordMustBeOneLine(t *testing.T) {
	for _, text := range []string{"open\nsesame", "\x00"} {
		_, target, log := sudoHost(t, "open sesame")
		answering(t, func(ask.Question) (string, error) { return text, nil })
		_, err := Connect(t.Context(), target)
		expect(t, err, ErrPassword, "one line")
		if strings.Contains(strings.Join(log(), "\n"), "tried") {
			t.Error("it was tried")
		}
	}
}

func TestHostsThatAreNotOwnGetNoPassword(t *testing.T) {
	h, _, log := sudoHost(t, "open sesame")
	t.Setenv(sudoVariable, "open sesame")
	c, err := Connect(t.Context(), h.target())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Inspect(t.Context(), desired.Host{})
	expect(t, err, ErrSudo, "sudo: a password is required", "NOPASSWD")
	if got := log(); !slices.Equal(got, []string{"called no"}) {
		t.Errorf("sudo: %q", got)
	}
}

func TestWaitingForAPersonEndsWithTheContext(t *testing.T) {
	_, target, _ := sudoHost(t, "open sesame")
	release := make(chan struct{})
	defer close(release)
	answering(t, func(ask.Question) (string, error) { <-release; return "open sesame", nil })
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := Connect(ctx, target); err == nil {
				t.Error("no error")
			}
		})
	}
	wg.Wait()
}

func TestPromptIsFoundHoweverItComes(t *testing.T) {
	for size := 1; size < 40; size++ {
		var in closing
		var rest bytes.Buffer
		p := newPrompter(&in, "sesame", &rest)
		text := "We trust you have received\n[infractl-" + p.mark + "Sorry, try again.\n[infra" + p.mark + "end"
		for chunk := range slices.Chunk([]byte(text), size) {
			if n, err := p.Write(chunk); n != len(chunk) || err != nil {
				t.Fatal(n, err)
			}
		}
		if want := strings.ReplaceAll(text, p.mark, ""); rest.String() != want || !p.refused() {
			t.Errorf("in pieces of %d: %q", size, rest.String())
		}
		in.wait(t, "sesame\n")
	}
}

// closing notes what is written to it and whether it is closed.
type closing struct {
	mu     sync.Mutex
	text   string
	closed bool
}

func (c *closing) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text += string(p)
	return len(p), nil
}

func (c *closing) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *closing) wait(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		text, closed := c.text, c.closed
		c.mu.Unlock()
		if text == want && closed {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("input %q, closed %v", text, closed)
		}
	}
}
