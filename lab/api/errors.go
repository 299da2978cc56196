package api

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// apiError is an error as the API tells it.
type apiError struct {
	Code    string
	Message string
	Details any
	// Status is the HTTP status; 0 means the code's own.
	Status int
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%s)", e.Message, e.Code) }

// statuses are the HTTP statuses of the general error codes (Hetzner's API
// documentation, "Errors"). Codes that belong to an operation are 422.
var statuses = map[string]int{
	"json_error":              http.StatusBadRequest,
	"unauthorized":            http.StatusUnauthorized,
	"token_readonly":          http.StatusForbidden,
	"forbidden":               http.StatusForbidden,
	"resource_limit_exceeded": http.StatusForbidden,
	"not_found":               http.StatusNotFound,
	"method_not_allowed":      http.StatusMethodNotAllowed,
	"uniqueness_error":        http.StatusConflict,
	"conflict":                http.StatusConflict,
	"deprecated_api_endpoint": http.StatusGone,
	"resource_unavailable":    http.StatusPreconditionFailed,
	"placement_error":         http.StatusPreconditionFailed,
	"locked":                  http.StatusLocked,
	"protected":               http.StatusLocked,
	"rate_limit_exceeded":     http.StatusTooManyRequests,
	"server_error":            http.StatusInternalServerError,
	"unknown_error":           http.StatusInternalServerError,
	"bad_gateway":             http.StatusBadGateway,
	"unavailable":             http.StatusServiceUnavailable,
	"maintenance":             http.StatusServiceUnavailable,
	"timeout":                 http.StatusGatewayTimeout,
	// The description gives 404 for this one, unlike for its kin.
	"firewall_resource_not_found": http.StatusNotFound,
}

func (e *apiError) status() int {
	if e.Status != 0 {
		return e.Status
	}
	if s, ok := statuses[e.Code]; ok {
		return s
	}
	return http.StatusUnprocessableEntity
}

func (e *apiError) body() []byte {
	type inner struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Details any    `json:"details"`
	}
	b, err := json.Marshal(map[string]inner{"error": {e.Code, e.Message, e.Details}})
	if err != nil {
		// Details are made of strings and maps only, or were JSON before.
		return []byte(`{"error":{"code":"server_error","message":"error details cannot be told","details":null}}`)
	}
	return b
}

func failure(code, format string, args ...any) *apiError {
	return &apiError{Code: code, Message: fmt.Sprintf(format, args...)}
}

func notFound(kind string, id int64) *apiError {
	return failure("not_found", "%s with ID '%d' not found", kind, id)
}

func locked(kind string, id int64) *apiError {
	return failure("locked", "%s with ID '%d' is locked: another action is running", kind, id)
}

func protected(kind string) *apiError {
	return failure("protected", "%s is protected against this action", kind)
}

// field is what is wrong with one field of a request.
type field struct {
	Name     string   `json:"name"`
	Messages []string `json:"messages"`
}

// invalid is an invalid_input error about one field.
func invalid(name, format string, args ...any) *apiError {
	var v problems
	v.add(name, format, args...)
	return v.err()
}

// problems collects what is wrong with a request. An invalid_input error always
// carries details.fields: clients rely on it.
type problems struct{ fields []field }

func (v *problems) add(name, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	for i := range v.fields {
		if v.fields[i].Name == name {
			v.fields[i].Messages = append(v.fields[i].Messages, msg)
			return
		}
	}
	v.fields = append(v.fields, field{name, []string{msg}})
}

func (v *problems) any() bool { return len(v.fields) > 0 }

func (v *problems) err() *apiError {
	f := v.fields[0]
	return &apiError{
		Code:    "invalid_input",
		Message: fmt.Sprintf("invalid input in field '%s': %s", f.Name, f.Messages[0]),
		Details: map[string]any{"fields": v.fields},
	}
}
