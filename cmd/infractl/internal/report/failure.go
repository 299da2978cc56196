package report

import (
	"fmt"
	"regexp"
	"strings"
)

// Failure is one resource that could not be changed, or the program's own
// error if Name is empty.
type Failure struct {
	Name string `json:"name,omitempty"`
	Noun string `json:"kind,omitempty"`
	// Operation is what was tried: create, update, delete and so on.
	Operation string `json:"operation,omitempty"`
	Message   string `json:"message"`
	// Advice is what to do next; it may be empty.
	Advice string `json:"advice,omitempty"`
}

// Title is the failure's first line.
func (f Failure) Title() string {
	if f.Name == "" {
		return f.Message
	}
	what := f.Name + ": " + f.Noun
	if f.Name == f.Noun {
		what = f.Name
	}
	if f.Operation == "" {
		return fmt.Sprintf("%s: %s", what, f.Message)
	}
	return fmt.Sprintf("%s: cannot %s: %s", what, f.Operation, f.Message)
}

// meaning is what an error code of the cloud's API means to a user.
type meaning struct{ message, advice string }

// meanings are by error code (https://docs.hetzner.cloud/reference/cloud#errors).
var meanings = map[string]meaning{
	"unauthorized":              {"the cloud does not accept the token in HCLOUD_TOKEN", "Make a new one in the cloud console."},
	"token_readonly":            {"the token in HCLOUD_TOKEN may only read", "Make one that may read and write."},
	"forbidden":                 {"the token in HCLOUD_TOKEN may not do this", "Make one that may read and write."},
	"uniqueness_error":          {"something in the cloud project has this name already, and it is not in this environment's state", "Delete or rename it in the cloud console, then run up again."},
	"resource_limit_exceeded":   {"the cloud project's limit is reached", "Ask for a higher limit in the cloud console, or delete what is not needed, then run up again."},
	"resource_unavailable":      {"the cloud has none left at this location just now", "Run up again later, or choose another type or location in the configuration."},
	"placement_error":           {"the cloud has no separate machine left for this placement group just now", "Run up again later, or choose another type or location in the configuration."},
	"rate_limit_exceeded":       {"the cloud's limit of calls per hour is used up", "Wait a few minutes, then run up again: it goes on from here."},
	"conflict":                  {"the cloud is still busy with it", "Run up again: it goes on from here."},
	"locked":                    {"the cloud is still busy with it", "Run up again: it goes on from here."},
	"service_error":             {"the cloud had an error of its own", "Run up again: it goes on from here."},
	"server_error":              {"the cloud had an error of its own", "Run up again: it goes on from here."},
	"unavailable":               {"the cloud's API is not available", "Run up again later: it goes on from here."},
	"maintenance":               {"the cloud is in maintenance", "Run up again later: it goes on from here."},
	"timeout":                   {"the cloud took too long", "Run up again: it goes on from here."},
	"protected":                 {"it is protected against deletion", "If it is really to go, lift its protection in the cloud console."},
	"resource_in_use":           {"something else in the cloud still uses it", "Detach it in the cloud console, then run up again."},
	"unsupported_error":         {"the cloud cannot do this here", ""},
	"invalid_server_type":       {"the server type does not fit", "Choose another type in the configuration."},
	"no_space_left_in_location": {"the location has no space left", "Choose another location in the configuration, or run up again later."},
}

var (
	// apiCode is the error code in hcloud-go's messages: "text (code, correlation)".
	apiCode = regexp.MustCompile(`\(([a-z][a-z_]+)(?:, ([0-9A-Za-z-]+))?\)`)
	// place is where a bridged provider says in its own code it was.
	place = regexp.MustCompile(`^\s*\S+\.go:\d+:\s*`)
	// sdk is the bridge's name for itself.
	sdk = regexp.MustCompile(`^(sdk|provider)\.[A-Za-z_.]+:\s*`)
	// urn is an engine's name for a resource, after what it did to it.
	urnWords  = regexp.MustCompile(`^(?:creating|updating|deleting|refreshing|reading|replacing|diffing|checking)?\s*urn:pulumi:\S+:\s+`)
	countHead = regexp.MustCompile(`^\d+ errors? occurred:\s*`)
	trailer   = regexp.MustCompile(`:?\s*provider=\S+@\S+$`)
	markup    = regexp.MustCompile(`<\{%[^%]*%\}>`)
	ansi      = regexp.MustCompile("\x1b\\[[0-9;]*m")
)

// clean takes from a message what only says which part of the machinery
// passed it on.
func clean(message string) string {
	m := strings.TrimSpace(ansi.ReplaceAllString(markup.ReplaceAllString(message, ""), ""))
	for {
		before := m
		m = strings.TrimSpace(strings.TrimPrefix(m, "error: "))
		m = strings.TrimPrefix(m, "an unhandled error occurred: ")
		m = strings.TrimPrefix(m, "Preview failed: ")
		m = strings.TrimPrefix(m, "program failed: ")
		m = strings.TrimPrefix(m, "run error: ")
		m = strings.TrimPrefix(m, "waiting for RPCs: ")
		m = strings.TrimPrefix(m, "rpc error: code = Unknown desc = ")
		m = countHead.ReplaceAllString(m, "")
		m = strings.TrimSpace(strings.TrimPrefix(m, "* "))
		m = place.ReplaceAllString(m, "")
		m = sdk.ReplaceAllString(m, "")
		m = urnWords.ReplaceAllString(m, "")
		m = trailer.ReplaceAllString(m, "")
		if m == before {
			return m
		}
	}
}

// explain gives an error message in the user's terms.
func explain(message string) (string, string) {
	m := clean(message)
	for _, found := range apiCode.FindAllStringSubmatch(m, -1) {
		known, ok := meanings[found[1]]
		if !ok {
			continue
		}
		words := strings.TrimSpace(strings.TrimSuffix(m, found[0]))
		return fmt.Sprintf("%s (the cloud says: %s, %s)", known.message, words, found[1]), known.advice
	}
	if strings.Contains(m, "cannot be deleted") && strings.Contains(m, "protect") {
		return "it is protected, since it holds data or the environment's address", "Nothing but `infractl destroy` deletes it."
	}
	if strings.Contains(m, "unable to replace resource") && strings.Contains(m, "protection") {
		return "it would have to be made anew, but it is protected, since it holds data or the environment's address", "infractl preview says why."
	}
	return m, ""
}
