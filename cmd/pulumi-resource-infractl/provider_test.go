package main

import (
	"context"
	"encoding/json"
	"flag"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// engine is the engine's side of the plugin: it calls over gRPC, and hears what
// the plugin logs.
type engine struct {
	pulumirpc.UnimplementedEngineServer
	t      *testing.T
	client pulumirpc.ResourceProviderClient

	mu   sync.Mutex
	logs []*pulumirpc.LogRequest
}

func (e *engine) Log(_ context.Context, req *pulumirpc.LogRequest) (*emptypb.Empty, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.logs = append(e.logs, req)
	return &emptypb.Empty{}, nil
}

func (e *engine) said(severity pulumirpc.LogSeverity) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []string
	for _, l := range e.logs {
		if l.Severity == severity {
			all = append(all, l.Message)
		}
	}
	return strings.Join(all, "\n")
}

// serve starts a gRPC server and returns its address.
func serve(t *testing.T, register func(*grpc.Server)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	register(s)
	go s.Serve(listener)
	t.Cleanup(s.Stop)
	return listener.Addr().String()
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	e := &engine{t: t}
	p := newProvider()
	t.Cleanup(p.cancel)
	if err := p.Attach(serve(t, func(s *grpc.Server) { pulumirpc.RegisterEngineServer(s, e) })); err != nil {
		t.Fatal(err)
	}
	address := serve(t, func(s *grpc.Server) { pulumirpc.RegisterResourceProviderServer(s, newServer(p)) })
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	e.client = pulumirpc.NewResourceProviderClient(conn)
	if _, err := e.client.Handshake(t.Context(), &pulumirpc.ProviderHandshakeRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.client.Configure(t.Context(), &pulumirpc.ConfigureRequest{AcceptSecrets: true, AcceptResources: true}); err != nil {
		t.Fatal(err)
	}
	return e
}

var update = flag.Bool("update", false, "write the golden files anew")

const hostType = "infractl:host:Configuration"

func urnFor(kind, name string) string {
	return "urn:pulumi:test::test::" + kind + "::" + name
}

var marshal = plugin.MarshalOptions{KeepUnknowns: true, KeepSecrets: true, KeepResources: true}

func packed(t *testing.T, m resource.PropertyMap) *structpb.Struct {
	t.Helper()
	s, err := plugin.MarshalProperties(m, marshal)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func unpacked(t *testing.T, s *structpb.Struct) resource.PropertyMap {
	t.Helper()
	m, err := plugin.UnmarshalProperties(s, marshal)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// check returns the checked inputs and the failures.
func (e *engine) check(kind string, inputs resource.PropertyMap) (resource.PropertyMap, []string) {
	e.t.Helper()
	r, err := e.client.Check(e.t.Context(), &pulumirpc.CheckRequest{Urn: urnFor(kind, "web-1"), News: packed(e.t, inputs)})
	if err != nil {
		e.t.Fatal(err)
	}
	var failures []string
	for _, f := range r.Failures {
		if f.Property != "" {
			e.t.Errorf("the engine would print the value of %s", f.Property)
		}
		failures = append(failures, f.Reason)
	}
	return unpacked(e.t, r.Inputs), failures
}

func (e *engine) create(kind string, inputs resource.PropertyMap, preview bool) (string, resource.PropertyMap, error) {
	e.t.Helper()
	r, err := e.client.Create(e.t.Context(), &pulumirpc.CreateRequest{Urn: urnFor(kind, "web-1"), Properties: packed(e.t, inputs), Preview: preview})
	if err != nil {
		return "", nil, err
	}
	if kind == hostType && !r.RefreshBeforeUpdate {
		e.t.Error("the host would not be looked at before an update")
	}
	return r.Id, unpacked(e.t, r.Properties), nil
}

// diff returns the kinds of change by path.
func (e *engine) diff(kind string, outputs, inputs resource.PropertyMap) map[string]string {
	e.t.Helper()
	r, err := e.client.Diff(e.t.Context(), &pulumirpc.DiffRequest{
		Id: "x", Urn: urnFor(kind, "web-1"), Olds: packed(e.t, outputs), OldInputs: packed(e.t, inputs), News: packed(e.t, inputs),
	})
	if err != nil {
		e.t.Fatal(err)
	}
	changes := map[string]string{}
	for path, d := range r.DetailedDiff {
		changes[path] = d.Kind.String()
	}
	if (len(changes) > 0) != r.HasDetailedDiff || (len(changes) > 0) != (r.Changes == pulumirpc.DiffResponse_DIFF_SOME) {
		e.t.Errorf("the engine would not show the diff: %v", r)
	}
	return changes
}

// object makes properties from a literal.
func object(v map[string]any) resource.PropertyMap { return resource.NewPropertyMapFromMap(v) }

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF3Mq0T6rS1ou7lMFoaCvuH0ENWXpHCVEkpy2O0U3HGD"

// good are inputs without a mistake.
func good() map[string]any {
	return map[string]any{
		"name": "web-1", "address": "198.18.0.7", "port": 22, "user": "infractl", "hostKey": publicKey,
		"packages": []any{"nginx", "libstdc++6"},
		"users":    []any{map[string]any{"name": "app", "groups": []any{"ssl-cert"}}},
		"files": map[string]any{
			"/etc/nginx/nginx.conf": map[string]any{"content": "a\n@@secret.word@@ @@value.id@@ @@interface.10.0.2.11@@\n", "mode": "0640"},
			"/srv/app/current":      map[string]any{"link": "/srv/app/releases/1"},
		},
		"trees": map[string]any{"/srv/app/releases/1": map[string]any{"source": "dist", "digest": "sha256:" + strings.Repeat("a", 64)}},
		"units": []any{map[string]any{
			"name": "nginx.service", "enabled": true, "active": true, "reloadOn": []any{"/etc/nginx/"},
			"validate": "nginx -t", "health": "curl -sf http://10.0.2.11/", "healthTimeout": 5, "guarded": false,
		}},
		"values":  map[string]any{"id": "42"},
		"secrets": map[string]any{"word": "xyzzy-4711"},
	}
}

func TestCheckFillsInDefaults(t *testing.T) {
	e := newEngine(t)
	inputs := good()
	delete(inputs, "port")
	delete(inputs, "user")
	inputs["units"] = []any{map[string]any{"name": "a.service"}}
	checked, failures := e.check(hostType, object(inputs))
	if len(failures) > 0 {
		t.Fatal(failures)
	}
	if checked["port"].NumberValue() != 22 || checked["user"].StringValue() != "root" || !checked["secrets"].IsSecret() {
		t.Errorf("checked: %v", checked)
	}
	if got := checked["files"].ObjectValue()["/etc/nginx/nginx.conf"].ObjectValue(); got["mode"].StringValue() != "0640" || got["owner"].StringValue() != "root" || got["group"].StringValue() != "root" {
		t.Errorf("file: %v", got)
	}
	if got := checked["units"].ArrayValue()[0].ObjectValue(); !got["enabled"].IsBool() || !got["active"].IsBool() {
		t.Errorf("unit: %v", got)
	}
	if again, failures := e.check(hostType, checked); len(failures) > 0 || !again.DeepEquals(checked) {
		t.Errorf("checking twice is not the same as once: %v", failures)
	}
}

func TestHostOfTheUsersOwnHasNoDefaults(t *testing.T) {
	e := newEngine(t)
	inputs := good()
	for _, key := range []string{"port", "user", "hostKey"} {
		delete(inputs, key)
	}
	inputs["own"], inputs["jump"], inputs["knownHosts"] = true, "", []any{}
	checked, failures := e.check(hostType, object(inputs))
	if len(failures) > 0 {
		t.Fatal(failures)
	}
	for _, key := range []resource.PropertyKey{"port", "user", "hostKey", "jump", "knownHosts"} {
		if v, ok := checked[key]; ok {
			t.Errorf("%s is %v", key, v)
		}
	}
	// What is written down after a change is what was asked for.
	inputs["jump"], inputs["knownHosts"], inputs["user"] = "bastion", []any{"bastion " + publicKey, "web " + publicKey}, "Anna.Smith"
	checked, failures = e.check(hostType, object(inputs))
	if len(failures) > 0 {
		t.Fatal(failures)
	}
	var in hostInputs
	if err := decode(checked, &in); err != nil {
		t.Fatal(err)
	}
	outputs := checked.Copy()
	setTarget(outputs, in.target())
	if changes := e.diff(hostType, outputs, checked); len(changes) > 0 || !in.target().Own || in.target().Port != 0 {
		t.Errorf("%v, %+v", changes, in.target())
	}
	delete(checked, "jump")
	if changes := e.diff(hostType, outputs, checked); len(changes) != 1 || changes["jump"] != "DELETE" {
		t.Errorf("%v", changes)
	}
}

func TestCheckGolden(t *testing.T) {
	e := newEngine(t)
	var got strings.Builder
	for _, c := range []struct {
		name   string
		change func(m map[string]any)
	}{
		{"nothing wrong", func(map[string]any) {}},
		{"unknown property", func(m map[string]any) { m["adress"] = "x" }},
		{"everything missing", func(m map[string]any) { clear(m) }},
		{"connection", func(m map[string]any) {
			m["name"], m["address"], m["port"], m["user"], m["hostKey"] = "Web 1", "not an address!", 70000, "Root!", "SHA256:abc"
		}},
		{"a host of the user's own", func(m map[string]any) {
			m["own"], m["address"], m["jump"] = true, "My_Alias", "anna@bastion:2222,[2001:db8::1]:22"
			m["knownHosts"] = []any{"bastion ssh-ed25519 " + strings.Fields(publicKey)[1], "@cert-authority *.example.com " + publicKey}
			delete(m, "hostKey")
			delete(m, "port")
			delete(m, "user")
		}},
		{"a fingerprint", func(m map[string]any) { m["hostKey"] = "SHA256:" + strings.Repeat("A", 43) }},
		{"an authority", func(m map[string]any) { m["hostKey"] = "@cert-authority " + publicKey }},
		{"connection of a host of the user's own", func(m map[string]any) {
			m["own"], m["address"], m["port"], m["user"], m["hostKey"] = true, "-oProxyCommand=x", 0, "Root!", "@revoked "+publicKey
			m["jump"], m["knownHosts"] = "a b", []any{"nonsense", "a " + publicKey + "\nb " + publicKey, 3}
		}},
		{"an alias for a host that is not", func(m map[string]any) { m["address"], m["own"] = "My_Alias", false }},
		{"own that is no truth value", func(m map[string]any) { m["own"], m["jump"], m["knownHosts"] = "yes", 3, "x" }},
		{"types", func(m map[string]any) {
			m["packages"], m["files"], m["units"], m["values"], m["port"] = "nginx", []any{}, map[string]any{}, "x", "22"
		}},
		{"packages", func(m map[string]any) { m["packages"] = []any{"nginx", "nginx", "NGINX", "a b", "-y", 3} }},
		{"users", func(m map[string]any) {
			m["users"] = []any{map[string]any{"name": "app"}, map[string]any{"name": "app"}, map[string]any{"name": "a b", "home": "srv", "groups": []any{"$(id)"}, "shell": "/bin/sh"}, map[string]any{}}
		}},
		{"paths", func(m map[string]any) {
			f := map[string]any{}
			for _, name := range []string{"etc/a", "/etc/../b", "/etc//c", "/etc/d/", "/e", "/proc/sys/x", "/var/lib/infractl/manifest", "/etc/a\nb", "", "/", "/etc/up", "/etc/up/down/deep"} {
				f[name] = map[string]any{"content": "x"}
			}
			m["files"] = f
		}},
		{"files", func(m map[string]any) {
			m["files"] = map[string]any{
				"/etc/mode":   map[string]any{"content": "", "mode": "644"},
				"/etc/mode2":  map[string]any{"content": "", "mode": "0888"},
				"/etc/owner":  map[string]any{"owner": "a b", "group": "$x"},
				"/etc/link":   map[string]any{"link": "x", "content": "y", "mode": "0644"},
				"/etc/number": map[string]any{"content": 3},
				"/etc/key":    map[string]any{"contents": "x"},
			}
		}},
		{"placeholders", func(m map[string]any) {
			m["files"] = map[string]any{"/etc/a": map[string]any{"content": "@@value.no@@ @@secret.no@@ @@secret.no@@ @@interface.eth0@@ @@hostname.x@@ @@value.id@@"}}
		}},
		{"trees", func(m map[string]any) {
			m["trees"] = map[string]any{
				"/srv/a": map[string]any{"source": "x", "digest": "abc"}, "/srv/b": map[string]any{}, "srv/c": map[string]any{"source": "x", "digest": "sha256:" + strings.Repeat("0", 64)},
				"/etc/nginx": map[string]any{"source": "x", "digest": "sha256:" + strings.Repeat("0", 64)},
			}
		}},
		{"units", func(m map[string]any) {
			m["units"] = []any{
				map[string]any{"name": "nginx"}, map[string]any{"name": "a.service"}, map[string]any{"name": "a.service"},
				map[string]any{"name": "*.service"}, map[string]any{"name": "--now.service"}, map[string]any{},
				map[string]any{"name": "b.service", "active": "yes", "reloadOn": []any{"etc/x", "/etc//y"}, "health": "curl @@secret.word@@", "healthTimeout": 1.5, "restart": true},
				map[string]any{"name": "c.service", "healthTimeout": 100000},
			}
		}},
		{"values and secrets", func(m map[string]any) {
			m["values"], m["secrets"] = map[string]any{"a b": "x", "id": 42}, map[string]any{"word": 4711}
		}},
	} {
		inputs := good()
		c.change(inputs)
		_, failures := e.check(hostType, object(inputs))
		got.WriteString("# " + c.name + "\n")
		for _, f := range failures {
			got.WriteString(f + "\n")
		}
	}
	golden := filepath.Join("testdata", "check.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("the messages differ from %s; run go test -update and look at the difference:\n%s", golden, got.String())
	}
}

func TestPreviewWorksWithUnknownValuesAndTouchesNothing(t *testing.T) {
	e := newEngine(t)
	inputs := object(good())
	inputs["address"] = unknown()
	inputs["hostKey"] = unknown()
	inputs["values"] = resource.NewObjectProperty(resource.PropertyMap{"id": unknown()})
	inputs["secrets"] = resource.MakeSecret(resource.NewObjectProperty(resource.PropertyMap{"word": unknown()}))
	checked, failures := e.check(hostType, inputs)
	if len(failures) > 0 {
		t.Fatal(failures)
	}
	_, outputs, err := e.create(hostType, checked, true)
	if err != nil {
		t.Fatal(err)
	}
	if !outputs["address"].IsComputed() || !strings.Contains(outputs["files"].String(), "@@secret.word@@") {
		t.Errorf("outputs: %v", outputs)
	}
	inputs["values"], inputs["secrets"] = unknown(), unknown()
	if _, failures := e.check(hostType, inputs); len(failures) > 0 {
		t.Error(failures)
	}
	changes := e.diff(hostType, object(good()), checked)
	for _, path := range []string{"address", "hostKey", "values.id", "secrets.word"} {
		if changes[path] != "UPDATE" {
			t.Errorf("%s: %q in %v", path, changes[path], changes)
		}
	}
}

func TestDiffNamesEveryDifferenceByItsPath(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m map[string]any)
		want   map[string]string
	}{
		"nothing":   {func(map[string]any) {}, map[string]string{}},
		"a text":    {func(m map[string]any) { file(m)["content"] = "edited" }, map[string]string{`files["/etc/nginx/nginx.conf"].content`: "UPDATE"}},
		"a mode":    {func(m map[string]any) { file(m)["mode"] = "0600" }, map[string]string{`files["/etc/nginx/nginx.conf"].mode`: "UPDATE"}},
		"a missing": {func(m map[string]any) { delete(m["files"].(map[string]any), "/srv/app/current") }, map[string]string{`files["/srv/app/current"]`: "ADD"}},
		"a leftover": {
			func(m map[string]any) { m["files"].(map[string]any)["/etc/old"] = map[string]any{"mode": "0644"} },
			map[string]string{`files["/etc/old"]`: "DELETE"},
		},
		"a package":   {func(m map[string]any) { m["packages"] = []any{"libstdc++6"} }, map[string]string{"packages[0]": "ADD"}},
		"their order": {func(m map[string]any) { m["packages"] = []any{"libstdc++6", "nginx"} }, map[string]string{}},
		"a unit":      {func(m map[string]any) { unit(m)["active"] = false }, map[string]string{"units[0].active": "UPDATE"}},
		"a unit that has not loaded its files": {
			func(m map[string]any) { unit(m)["pending"] = "reload" }, map[string]string{"units[0].pending": "DELETE"},
		},
		"where a tree comes from": {func(m map[string]any) { tree(m)["source"] = "elsewhere" }, map[string]string{}},
		"a tree":                  {func(m map[string]any) { tree(m)["digest"] = "sha256:b" }, map[string]string{`trees["/srv/app/releases/1"].digest`: "UPDATE"}},
		"an address":              {func(m map[string]any) { m["address"] = "198.18.0.8" }, map[string]string{"address": "UPDATE"}},
		"a host key":              {func(m map[string]any) { m["hostKey"] = "x" }, map[string]string{"hostKey": "UPDATE"}},
		"another host":            {func(m map[string]any) { m["name"] = "web-2" }, map[string]string{"name": "UPDATE_REPLACE"}},
		"a value":                 {func(m map[string]any) { m["values"] = map[string]any{"id": "43"} }, map[string]string{"values.id": "UPDATE"}},
		"a secret":                {func(m map[string]any) { m["secrets"] = map[string]any{"word": "old"} }, map[string]string{"secrets.word": "UPDATE"}},
		"no list at all":          {func(m map[string]any) { delete(m, "users") }, map[string]string{"users": "ADD"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			inputs, failures := e.check(hostType, object(good()))
			if len(failures) > 0 {
				t.Fatal(failures)
			}
			seen := good()
			c.change(seen)
			outputs := e.normal(object(seen))
			if got := e.diff(hostType, outputs, inputs); !maps.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func file(m map[string]any) map[string]any {
	return m["files"].(map[string]any)["/etc/nginx/nginx.conf"].(map[string]any)
}

func unit(m map[string]any) map[string]any { return m["units"].([]any)[0].(map[string]any) }

func tree(m map[string]any) map[string]any {
	return m["trees"].(map[string]any)["/srv/app/releases/1"].(map[string]any)
}

// normal gives outputs the form that reading a host gives them.
func (e *engine) normal(m resource.PropertyMap) resource.PropertyMap {
	for name, f := range m["files"].ObjectValue() {
		if f.ObjectValue()["link"].IsNull() && !f.ObjectValue()["content"].IsNull() {
			m["files"].ObjectValue()[name] = withDefaults(f.ObjectValue())
		}
	}
	for i, u := range m["units"].ArrayValue() {
		delete(u.ObjectValue(), "guarded")
		m["units"].ArrayValue()[i] = u
	}
	return m
}

func TestUnreachableHostIsAnErrorThatNamesTheWayOut(t *testing.T) {
	e := newEngine(t)
	useKey(t)
	m := good()
	m["address"], m["port"] = "127.0.0.1", closedPort(t)
	inputs, failures := e.check(hostType, object(m))
	if len(failures) > 0 {
		t.Fatal(failures)
	}
	read := func() (*pulumirpc.ReadResponse, error) {
		return e.client.Read(t.Context(), &pulumirpc.ReadRequest{Id: "web-1", Urn: urnFor(hostType, "web-1"), Inputs: packed(t, inputs), Properties: packed(t, inputs)})
	}
	_, err := read()
	for _, want := range []string{"web-1", "cannot be reached", skipVariable + "=1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not mention %q", err, want)
		}
	}
	t.Setenv(skipVariable, "web-10,lb-1")
	if _, err := read(); err == nil {
		t.Error("a host that is not named is skipped")
	}
	t.Setenv(skipVariable, "lb-1,web-1")
	if _, err := read(); err != nil {
		t.Errorf("a host that is named is not skipped: %v", err)
	}
	t.Setenv(skipVariable, "1")
	r, err := read()
	if err != nil {
		t.Fatal(err)
	}
	if got := unpacked(t, r.Properties); !got.DeepEquals(inputs) || r.Id != "web-1" || !r.RefreshBeforeUpdate || !unpacked(t, r.Inputs).DeepEquals(inputs) {
		t.Errorf("the state was not kept: %v", got)
	}
	if warning := e.said(pulumirpc.LogSeverity_WARNING); !strings.Contains(warning, "web-1") || strings.Contains(warning, "xyzzy") {
		t.Errorf("warning: %q", warning)
	}
	// A host that is gone needs nothing removed from it.
	if _, err := e.client.Delete(t.Context(), &pulumirpc.DeleteRequest{Id: "web-1", Urn: urnFor(hostType, "web-1"), Properties: packed(t, inputs), OldInputs: packed(t, inputs)}); err != nil {
		t.Error(err)
	}
}

func TestUpdateOfAnUnreachableHostFailsAndSaysSo(t *testing.T) {
	e := newEngine(t)
	useKey(t)
	m := good()
	m["address"], m["port"] = "127.0.0.1", closedPort(t)
	inputs := object(m)
	_, err := e.client.Update(t.Context(), &pulumirpc.UpdateRequest{Id: "web-1", Urn: urnFor(hostType, "web-1"), Olds: packed(t, inputs), OldInputs: packed(t, inputs), News: packed(t, inputs)})
	if err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("got %v", err)
	}
}

func TestTimingsAreWritten(t *testing.T) {
	e := newEngine(t)
	useKey(t)
	name := filepath.Join(t.TempDir(), "timings")
	t.Setenv("INFRACTL_TIMINGS", name)
	m := good()
	m["address"], m["port"] = "127.0.0.1", closedPort(t)
	for range 2 {
		e.client.Read(t.Context(), &pulumirpc.ReadRequest{Id: "web-1", Urn: urnFor(hostType, "web-1"), Inputs: packed(t, object(m)), Properties: packed(t, object(m))})
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	var line struct {
		Host, Op   string
		Start, End time.Time
	}
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil || len(lines) != 2 || line.Host != "web-1" || line.Op != "read" || line.End.Before(line.Start) {
		t.Errorf("%v: %q", err, text)
	}
	if !strings.Contains(e.said(pulumirpc.LogSeverity_DEBUG), "web-1: read took") {
		t.Error("the time is not logged")
	}
}

func TestCancellingEndsAWait(t *testing.T) {
	e := newEngine(t)
	useKey(t)
	m := good()
	m["address"], m["port"] = "127.0.0.1", closedPort(t)
	go func() {
		time.Sleep(300 * time.Millisecond)
		e.client.Cancel(context.WithoutCancel(t.Context()), &emptypb.Empty{})
	}()
	start := time.Now()
	if _, _, err := e.create(hostType, object(m), false); err == nil || !strings.Contains(err.Error(), "interrupted while waiting for it to boot") {
		t.Errorf("%v", err)
	}
	if time.Since(start) > 10*time.Second {
		t.Errorf("it took %s", time.Since(start))
	}
}

func TestUnknownResourceTypeIsAnError(t *testing.T) {
	e := newEngine(t)
	_, err := e.client.Check(t.Context(), &pulumirpc.CheckRequest{Urn: urnFor("infractl:host:Nothing", "x"), News: packed(t, nil)})
	if err == nil || !strings.Contains(err.Error(), "infractl:host:Nothing") {
		t.Errorf("got %v", err)
	}
}

func TestSchemaAndVersionAreWellFormed(t *testing.T) {
	e := newEngine(t)
	r, err := e.client.GetSchema(t.Context(), &pulumirpc.GetSchemaRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var s struct{ Resources map[string]any }
	if err := json.Unmarshal([]byte(r.Schema), &s); err != nil {
		t.Fatal(err)
	}
	for kind := range newProvider().kinds {
		if _, ok := s.Resources[string(kind)]; !ok {
			t.Errorf("the schema lacks %s", kind)
		}
	}
	if info, err := e.client.GetPluginInfo(t.Context(), &emptypb.Empty{}); err != nil || info.Version != version {
		t.Errorf("%v, %v", info, err)
	}
}

// useKey gives this process a key to log in with.
func useKey(t *testing.T) {
	t.Helper()
	e := newEngine(t)
	_, outputs, err := e.create("infractl:secret:HostKey", nil, false)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(name, []byte(outputs["privateKey"].SecretValue().Element.StringValue()), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("INFRACTL_SSH_IDENTITY", name)
}

// closedPort is a port that nobody listens on.
func closedPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestServerThatGotAnotherJobIsNotStripped(t *testing.T) {
	urn := resource.NewURN("shop", "infractl", "", "infractl:host:Configuration", "web-3")
	for owner, want := range map[string]string{
		"shop web-3\n": "", "": "", "shop app-3\n": "shop app-3", "staging web-3\n": "staging web-3",
	} {
		if got := heir(owner, urn, "web-3"); got != want {
			t.Errorf("%q: %q, not %q", owner, got, want)
		}
	}
}
