package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// description is the published description of the API. Every answer that the
// tests of this package get is held against it, where it is there: it is
// reference data of some computers, not a part of this repository.
type description struct {
	// operations are by method and path, such as GET /servers/{id}.
	operations map[string]map[string]*jsonschema.Schema // by status: 200, 4xx

	mu      sync.Mutex
	checked map[string]int
}

var loadDescription = sync.OnceValues(func() (*description, error) {
	path := os.Getenv("INFRACTL_HCLOUD_OPENAPI")
	if path == "" {
		root, err := repositoryRoot()
		if err != nil {
			return nil, err
		}
		path = filepath.Join(root, "..", "shared", "reference", "hcloud-openapi", "hcloud.json")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return newDescription(doc.(map[string]any))
})

func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", os.ErrNotExist
		}
	}
}

func newDescription(doc map[string]any) (*description, error) {
	toJSONSchema(doc)
	const name = "mem:///hcloud.json"
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource(name, doc); err != nil {
		return nil, err
	}
	d := &description{operations: map[string]map[string]*jsonschema.Schema{}, checked: map[string]int{}}
	for path, item := range doc["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			operation, ok := op.(map[string]any)
			if !ok || operation["responses"] == nil || !ours(path) {
				continue
			}
			key := strings.ToUpper(method) + " " + path
			d.operations[key] = map[string]*jsonschema.Schema{}
			for status, r := range operation["responses"].(map[string]any) {
				if r.(map[string]any)["content"] == nil {
					d.operations[key][status] = nil // no body
					continue
				}
				at := name + "#/paths/" + pointer(path) + "/" + method + "/responses/" + status + "/content/application~1json/schema"
				s, err := compiler.Compile(at)
				if err != nil {
					return nil, fmt.Errorf("%s %s: %w", key, status, err)
				}
				d.operations[key][status] = s
			}
		}
	}
	return d, nil
}

func pointer(s string) string {
	s = strings.NewReplacer("~", "~0", "/", "~1").Replace(s)
	return strings.NewReplacer("{", "%7B", "}", "%7D").Replace(s)
}

// ours says whether a path belongs to what the emulator emulates at all.
func ours(path string) bool {
	kind, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return slices.Contains([]string{"actions", "datacenters", "firewalls", "floating_ips", "images", "locations", "networks",
		"placement_groups", "pricing", "primary_ips", "server_types", "servers", "ssh_keys", "volumes"}, kind)
}

// toJSONSchema turns what OpenAPI 3.0 says in its own way into JSON Schema:
// nullable. It also takes out what is no longer true: datacenter was required
// in servers and primary IPs when the description was published, and was
// removed from the API after 1 July 2026.
func toJSONSchema(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = toJSONSchema(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = toJSONSchema(v[k])
		}
		properties, _ := v["properties"].(map[string]any)
		if required, ok := v["required"].([]any); ok && properties["datacenter"] != nil {
			v["required"] = slices.DeleteFunc(required, func(name any) bool { return name == "datacenter" })
		}
		if v["nullable"] == true {
			delete(v, "nullable")
			return map[string]any{"anyOf": []any{map[string]any{"type": "null"}, v}}
		}
	}
	return v
}

// find returns the operation of a request. Fixed parts of a path go before
// parameters, so that /servers/actions is not a server.
func (d *description) find(method, path string) (string, bool) {
	parts := strings.Split(path, "/")
	best, fixed := "", -1
	for key := range d.operations {
		m, pattern, _ := strings.Cut(key, " ")
		names := strings.Split(pattern, "/")
		if m != method || len(names) != len(parts) {
			continue
		}
		n, ok := 0, true
		for i := range names {
			switch {
			case names[i] == parts[i]:
				n++
			case strings.HasPrefix(names[i], "{"):
			default:
				ok = false
			}
		}
		if ok && n > fixed {
			best, fixed = key, n
		}
	}
	return best, fixed >= 0
}

// check holds one answer against the description.
func (d *description) check(method, path string, status int, body []byte) error {
	key, ok := d.find(method, path)
	if !ok {
		if status == http.StatusNotFound || status == http.StatusUnauthorized {
			return nil
		}
		return fmt.Errorf("the description has no such operation, the emulator answers %d", status)
	}
	schema, ok := d.operations[key][strconv.Itoa(status)]
	if !ok {
		schema, ok = d.operations[key][strconv.Itoa(status)[:1]+"xx"]
	}
	if !ok {
		return fmt.Errorf("status %d is not in the description", status)
	}
	d.mu.Lock()
	d.checked[key]++
	d.mu.Unlock()
	if schema == nil {
		if len(body) > 0 {
			return fmt.Errorf("status %d has a body: %s", status, body)
		}
		return nil
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("status %d: %w", status, err)
	}
	return schema.Validate(v)
}

// conforming holds every answer of an emulator against the description.
func conforming(t testing.TB, next http.Handler) http.Handler {
	d, err := loadDescription()
	if err != nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, isAPI := strings.CutPrefix(r.URL.Path, "/v1")
		if !isAPI {
			next.ServeHTTP(w, r)
			return
		}
		seen := httptest.NewRecorder()
		next.ServeHTTP(seen, r)
		if err := d.check(r.Method, path, seen.Code, seen.Body.Bytes()); err != nil {
			t.Errorf("%s %s does not answer as described: %v\n%s", r.Method, r.URL.Path, err, seen.Body)
		}
		if got := seen.Header().Get("Content-Type"); got != "application/json" {
			t.Errorf("%s %s answers with Content-Type %q", r.Method, r.URL.Path, got)
		}
		if seen.Header().Get("X-Correlation-Id") == "" {
			t.Errorf("%s %s answers without X-Correlation-Id", r.Method, r.URL.Path)
		}
		for k, v := range seen.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(seen.Code)
		_, _ = io.Copy(w, seen.Body)
	})
}

// TestMain tells which operations were held against the description.
func TestMain(m *testing.M) {
	code := m.Run()
	d, err := loadDescription()
	switch {
	case err != nil:
		fmt.Println("answers were not held against the API's published description:", err)
	case testing.Verbose():
		var missed []string
		n := 0
		for key := range d.operations {
			if d.checked[key] == 0 {
				missed = append(missed, key)
			} else {
				n += d.checked[key]
			}
		}
		sort.Strings(missed)
		fmt.Printf("%d answers of %d operations were held against the API's published description; not asked for: %s\n",
			n, len(d.operations)-len(missed), strings.Join(missed, ", "))
	}
	os.Exit(code)
}

func TestTheDescriptionRefusesAnswersThatAreNotAsPublished(t *testing.T) {
	d, err := loadDescription()
	if err != nil {
		t.Skip("the API's published description is not on this computer: ", err)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/servers", `{"servers":[]}`, 200},
		{"GET", "/servers/1", `{"server":{"id":1}}`, 200},
		{"GET", "/actions/1", `{"action":{"id":1,"command":"x","status":"done","progress":1,"started":"2026-01-01T00:00:00Z","finished":null,"error":null,"resources":[]}}`, 200},
		{"GET", "/servers/1", `{"error":{"code":"not_found"}}`, 404},
		{"DELETE", "/ssh_keys/1", `{}`, 204},
	} {
		if err := d.check(c.method, c.path, c.status, []byte(c.body)); err == nil {
			t.Errorf("%s %s: %s passes", c.method, c.path, c.body)
		}
	}
	ok, _ := json.Marshal(map[string]any{"error": map[string]any{"code": "not_found", "message": "x", "details": nil}})
	if err := d.check("GET", "/servers/1", 404, ok); err != nil {
		t.Errorf("a good answer is refused: %v", err)
	}
}

func TestServersAndPrimaryIPsConformWithDatacenterToo(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Datacenter = true })
	s := l.newServer("web-1")
	for _, path := range []string{fmt.Sprintf("/v1/servers/%d", s.ID), fmt.Sprintf("/v1/primary_ips/%d", s.PublicNet.IPv4.ID)} {
		_, _, body := l.raw("GET", path, testToken, "")
		for _, r := range body {
			if dc, _ := r.(map[string]any)["datacenter"].(map[string]any); dc["name"] != "fsn1-dc14" {
				t.Errorf("%s: datacenter is %v", path, dc)
			}
		}
	}
	_, _, body := l.raw("POST", "/v1/servers", testToken, `{"name":"web-2","server_type":"cx23","image":"debian-12","datacenter":"nbg1-dc3"}`)
	if where := body["server"].(map[string]any)["location"].(map[string]any)["name"]; where != "nbg1" {
		t.Errorf("server is in %v", where)
	}
	if err := l.control.Do(t.Context(), "PUT", "/settings", map[string]any{"datacenter": false}, nil); err != nil {
		t.Fatal(err)
	}
	_, _, body = l.raw("GET", fmt.Sprintf("/v1/servers/%d", s.ID), testToken, "")
	if _, there := body["server"].(map[string]any)["datacenter"]; there {
		t.Error("datacenter is there after it was switched off")
	}
	status, _, body := l.raw("POST", "/v1/servers", testToken, `{"name":"web-3","server_type":"cx23","image":"debian-12","datacenter":"nbg1-dc3"}`)
	if status != 422 || errorCode(body) != "invalid_input" {
		t.Errorf("datacenter is let in: %d %v", status, body)
	}
}
