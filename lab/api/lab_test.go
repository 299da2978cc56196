package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
	"golang.org/x/crypto/ssh"
)

var testToken = strings.Repeat("t", TokenLength)

// lab is an emulator that listens, with a client.
type lab struct {
	t        testing.TB
	world    *recorder
	emulator *Emulator
	server   *httptest.Server
	client   *hcloud.Client
	control  *Control
	config   Config
}

func newLab(t testing.TB, change ...func(*Config)) *lab {
	t.Helper()
	l := &lab{t: t, world: newRecorder(t)}
	l.config = Config{
		Machines: l.world, Tokens: []string{testToken},
		// Tests make more requests in a second than a project in an hour.
		RateLimit: -1,
		Logger:    slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
	for _, f := range change {
		f(&l.config)
	}
	l.start()
	t.Cleanup(func() { l.stop() })
	return l
}

// onDisk is for the tests that are about the state file: the others are
// faster without.
func onDisk(t testing.TB) func(*Config) {
	return func(c *Config) { c.StateFile = filepath.Join(t.TempDir(), "state.json") }
}

func (l *lab) start() {
	l.t.Helper()
	e, err := New(l.config)
	if err != nil {
		l.t.Fatal(err)
	}
	l.emulator = e
	l.server = httptest.NewServer(conforming(l.t, e))
	l.client = l.newClient(testToken)
	l.control = NewControl(l.server.URL+"/v1", testToken)
}

func (l *lab) newClient(token string) *hcloud.Client {
	return hcloud.NewClient(
		hcloud.WithEndpoint(l.server.URL+"/v1"), hcloud.WithToken(token),
		hcloud.WithPollOpts(hcloud.PollOpts{BackoffFunc: hcloud.ConstantBackoff(time.Millisecond)}),
		hcloud.WithRetryOpts(hcloud.RetryOpts{BackoffFunc: hcloud.ConstantBackoff(time.Millisecond), MaxRetries: 2}),
	)
}

func (l *lab) stop() {
	l.server.Close()
	if err := l.emulator.Close(); err != nil {
		l.t.Error(err)
	}
}

// settle waits until nothing is under way.
func (l *lab) settle() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := l.emulator.Settle(ctx); err != nil {
		l.t.Fatal(err)
	}
}

// wait waits for actions and fails the test when one fails.
func (l *lab) wait(actions ...*hcloud.Action) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := l.client.Action.WaitFor(ctx, actions...); err != nil {
		l.t.Fatal(err)
	}
}

// testWriter is the test's log, until the test is over.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// must is for calls that return a value, the response and an error.
func must[T any](v T, _ *hcloud.Response, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantCode fails the test unless err is an API error with a code.
func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	var known hcloud.Error
	if !errors.As(err, &known) {
		t.Fatalf("error is %v, want one with code %s", err, code)
	}
	if string(known.Code) != code {
		t.Fatalf("error is %v, want code %s", err, code)
	}
	if code == "invalid_input" {
		if d, ok := known.Details.(hcloud.ErrorDetailsInvalidInput); !ok || len(d.Fields) == 0 || d.Fields[0].Name == "" {
			t.Fatalf("invalid_input without details.fields: %+v", known.Details)
		}
	}
}

// raw sends a request as it is and returns status, headers and decoded body.
func (l *lab) raw(method, path, token, body string) (int, http.Header, map[string]any) {
	l.t.Helper()
	req, err := http.NewRequest(method, l.server.URL+path, bytes.NewBufferString(body))
	if err != nil {
		l.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	var out map[string]any
	if len(b) > 0 {
		if err := json.Unmarshal(b, &out); err != nil {
			l.t.Fatalf("%s %s answered %q: %v", method, path, b, err)
		}
	}
	return resp.StatusCode, resp.Header, out
}

func errorCode(body map[string]any) string {
	inner, _ := body["error"].(map[string]any)
	code, _ := inner["code"].(string)
	return code
}

func newPublicKey(t testing.TB) string {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// newServer makes a server and waits until it runs.
func (l *lab) newServer(name string, change ...func(*hcloud.ServerCreateOpts)) *hcloud.Server {
	l.t.Helper()
	opts := hcloud.ServerCreateOpts{
		Name: name, ServerType: &hcloud.ServerType{Name: "cx23"},
		Image: &hcloud.Image{Name: "debian-13"}, Location: &hcloud.Location{Name: "fsn1"},
	}
	for _, f := range change {
		f(&opts)
	}
	r := must(l.client.Server.Create(context.Background(), opts))(l.t)
	l.wait(append(r.NextActions, r.Action)...)
	return l.get(r.Server.ID)
}

func (l *lab) get(id int64) *hcloud.Server {
	l.t.Helper()
	s := must(l.client.Server.GetByID(context.Background(), id))(l.t)
	if s == nil {
		l.t.Fatalf("server %d is gone", id)
	}
	return s
}
