package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Control is a client of the emulator's control API, for tests and for the
// command line. A Control may be used by several goroutines at once.
type Control struct {
	endpoint string
	token    string
	client   *http.Client
}

// NewControl makes a client for an emulator. The endpoint is that of the API,
// such as http://198.19.255.1:4080/v1; the control API is beside it. A request
// may take 10 seconds where its context does not say less.
func NewControl(endpoint, token string) *Control {
	endpoint = strings.TrimSuffix(strings.TrimSuffix(endpoint, "/"), "/v1")
	return &Control{endpoint: endpoint + "/_lab", token: token, client: &http.Client{Timeout: 10 * time.Second}}
}

// AddFault orders a fault and returns it with its ID.
func (c *Control) AddFault(ctx context.Context, f Fault) (Fault, error) {
	var out struct{ Fault Fault }
	err := c.Do(ctx, http.MethodPost, "/faults", f, &out)
	return out.Fault, err
}

// Faults lists the faults in force.
func (c *Control) Faults(ctx context.Context) ([]Fault, error) {
	var out struct{ Faults []Fault }
	err := c.Do(ctx, http.MethodGet, "/faults", nil, &out)
	return out.Faults, err
}

// DeleteFault ends a fault. One that is over by itself is an error not_found.
func (c *Control) DeleteFault(ctx context.Context, id int64) error {
	return c.Do(ctx, http.MethodDelete, fmt.Sprintf("/faults/%d", id), nil, nil)
}

// ClearFaults ends all faults.
func (c *Control) ClearFaults(ctx context.Context) error {
	return c.Do(ctx, http.MethodDelete, "/faults", nil, nil)
}

// Settings returns the emulator's settings.
func (c *Control) Settings(ctx context.Context) (Settings, error) {
	var out Settings
	err := c.Do(ctx, http.MethodGet, "/settings", nil, &out)
	return out, err
}

// ChangeSettings sets all settings. Setting the rate limit fills the budget up.
func (c *Control) ChangeSettings(ctx context.Context, s Settings) error {
	return c.Do(ctx, http.MethodPut, "/settings", s, nil)
}

// Requests lists the newest requests to the API (not those to the control
// API), oldest first.
func (c *Control) Requests(ctx context.Context) ([]Request, error) {
	var out struct{ Requests []Request }
	err := c.Do(ctx, http.MethodGet, "/requests", nil, &out)
	return out.Requests, err
}

// ClearRequests forgets the requests so far.
func (c *Control) ClearRequests(ctx context.Context) error {
	return c.Do(ctx, http.MethodDelete, "/requests", nil, nil)
}

// Do calls any path under /_lab, also those that Config.Control serves. in is
// sent as JSON where it is not nil, the answer is decoded into out where that
// is not nil. The emulator's refusals are errors with code and message.
func (c *Control) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("lab control %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.endpoint+path, body)
	if err != nil {
		return fmt.Errorf("lab control %s %s: %w", method, path, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return fmt.Errorf("lab control %s %s: %w (is the lab up?)", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("lab control %s %s: %w", method, path, err)
	}
	if resp.StatusCode >= 400 {
		var told struct {
			Error struct{ Code, Message string }
		}
		if json.Unmarshal(b, &told) == nil && told.Error.Code != "" {
			return fmt.Errorf("lab control %s %s: %w", method, path,
				&apiError{Code: told.Error.Code, Message: told.Error.Message, Status: resp.StatusCode})
		}
		return fmt.Errorf("lab control %s %s: %s", method, path, resp.Status)
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("lab control %s %s: unexpected answer: %w", method, path, err)
	}
	return nil
}

// HasCode says whether an error of a Control is the emulator's refusal with a
// code such as not_found.
func HasCode(err error, code string) bool {
	var known *apiError
	return errors.As(err, &known) && known.Code == code
}
