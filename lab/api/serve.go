package api

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxBody is more than any valid request has: user data is at most 32 KiB.
const maxBody = 1 << 20

// reply is an answer: a status, and a body to be told as JSON (nil: none).
type reply struct {
	status int
	body   any
}

// handler answers a request under the emulator's lock. It changes nothing
// before it is sure to succeed.
type handler func(c *call) (reply, error)

// call is one request.
type call struct {
	e     *Emulator
	s     *state
	r     *http.Request
	query url.Values
	body  []byte
	now   time.Time
	// after is what begins once the state is on disk.
	after []func()
}

// now is the API's clock: UTC in whole seconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// later runs something that is no action in the queue of a resource.
func (c *call) later(key string, run func()) {
	c.after = append(c.after, func() { c.e.jobs.add(key, run) })
}

// serve makes an http.Handler of a handler.
func (e *Emulator) serve(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			writeError(w, failure("json_error", "the request's body cannot be read: %v", err))
			return
		}
		c := &call{e: e, r: r, query: r.URL.Query(), body: body, now: now()}
		status, out, err := e.answer(c, h)
		if err != nil {
			var known *apiError
			if !errors.As(err, &known) {
				e.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
				known = failure("server_error", "%v", err)
			}
			writeError(w, known)
			return
		}
		writeJSON(w, status, out)
	})
}

// answer runs a handler, makes sure that what it changed is on disk, and
// starts what it began.
func (e *Emulator) answer(c *call, h handler) (int, []byte, error) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return 0, nil, failure("unavailable", "the API is shutting down")
	}
	c.s = e.state
	rep, err := h(c)
	var out []byte
	if err == nil && rep.body != nil {
		// Told under the lock, since the body shares maps with the state.
		out, err = json.Marshal(rep.body)
	}
	changes := err == nil && c.r.Method != http.MethodGet
	if changes {
		e.version++
	}
	version := e.version
	e.mu.Unlock()
	if err != nil {
		return 0, nil, err
	}
	if changes {
		if err := e.flush(version); err != nil {
			return 0, nil, err
		}
	}
	for _, begin := range c.after {
		begin()
	}
	return rep.status, out, nil
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if status != http.StatusNoContent {
		_, _ = w.Write(body) // the client has gone; nothing to be done about it
	}
}

func writeError(w http.ResponseWriter, err *apiError) { writeJSON(w, err.status(), err.body()) }

// decode reads the request's body into v. What has the wrong type is an
// invalid_input naming the field.
func (c *call) decode(v any) error {
	if len(bytes.TrimSpace(c.body)) == 0 {
		return nil
	}
	err := json.Unmarshal(c.body, v)
	var typed *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &typed):
		name := typed.Field
		if name == "" {
			name = "body"
		}
		return invalid(name, "must not be a JSON %s", typed.Value)
	default:
		var known *apiError
		if errors.As(err, &known) {
			return known
		}
		return failure("json_error", "the request's body is not JSON: %v", err)
	}
}

// pathID reads an ID in the path.
func (c *call) pathID(name string) (int64, error) {
	id, err := strconv.ParseInt(c.r.PathValue(name), 10, 64)
	if err != nil || id <= 0 {
		return 0, failure("not_found", "there is nothing with ID '%s'", c.r.PathValue(name))
	}
	return id, nil
}

// authenticated lets only callers with a token in.
func (e *Emulator) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		known := strings.EqualFold(scheme, "Bearer") && slices.ContainsFunc(e.cfg.Tokens, func(t string) bool {
			return subtle.ConstantTimeCompare([]byte(t), []byte(token)) == 1
		})
		if !known {
			writeError(w, failure("unauthorized", "unable to authenticate"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// limited charges each request to the project's budget.
func (e *Emulator) limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !e.budget.take(w.Header(), time.Now()) {
			writeError(w, failure("rate_limit_exceeded", "limit of %d requests per hour reached", e.budget.perHour()))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// correlated gives each answer an ID and keeps a note of the request.
func (e *Emulator) correlated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := randomHex(16)
		w.Header().Set("X-Correlation-Id", id)
		began := time.Now()
		seen := &statusWriter{ResponseWriter: w}
		defer func() {
			status := seen.status
			gone := recover()
			if gone != nil {
				status = 0 // dropped
			}
			took := time.Since(began)
			e.recent.add(Request{
				Time: began.UTC(), Method: r.Method, Path: r.URL.RequestURI(), Status: status,
				Milliseconds: float64(took.Microseconds()) / 1000, CorrelationID: id,
			})
			e.log.Debug("request", "method", r.Method, "path", r.URL.RequestURI(), "status", status, "took", took, "id", id)
			if gone != nil {
				panic(gone)
			}
		}()
		next.ServeHTTP(seen, r)
	})
}

// statusWriter remembers the status that was sent.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// randomHex returns n random bytes, told in 2n characters.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, see its documentation
	return hex.EncodeToString(b)
}
