package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// ownServer is an SSH server on this computer that runs what it is told as the
// user of the test. It returns the properties by which a configuration reaches it.
func ownServer(t *testing.T) map[string]any {
	t.Helper()
	newKey := func() (ssh.Signer, ed25519.PrivateKey) {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.NewSignerFromKey(private)
		if err != nil {
			t.Fatal(err)
		}
		return signer, private
	}
	hostKey, _ := newKey()
	_, identity := newKey()
	block, err := ssh.MarshalPrivateKey(identity, "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("INFRACTL_SSH_IDENTITY", file)
	empty := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("INFRACTL_SSH_CONFIG", empty)
	t.Setenv("SSH_AUTH_SOCK", "")
	config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	config.AddHostKey(hostKey)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			go serveSSH(raw, config)
		}
	}()
	return map[string]any{
		"name": "web-1", "own": true, "address": "127.0.0.1", "port": listener.Addr().(*net.TCPAddr).Port, "user": "root",
		"hostKey": strings.TrimSpace(string(ssh.MarshalAuthorizedKey(hostKey.PublicKey()))),
	}
}

func serveSSH(raw net.Conn, config *ssh.ServerConfig) {
	_, channels, requests, err := ssh.NewServerConn(raw, config)
	if err != nil {
		raw.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		go func() {
			defer channel.Close()
			for r := range requests {
				var payload struct{ Command string }
				if r.Type != "exec" || ssh.Unmarshal(r.Payload, &payload) != nil {
					r.Reply(false, nil)
					continue
				}
				r.Reply(true, nil)
				command := exec.Command("sh", "-c", payload.Command)
				command.Stdin, command.Stdout, command.Stderr = channel, channel, channel.Stderr()
				command.Run()
				channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(command.ProcessState.ExitCode())}))
				return
			}
		}()
	}
}

func TestFirstPreviewOfAnOwnServerSaysWhatStandsThere(t *testing.T) {
	e := newEngine(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, mode := range map[string]os.FileMode{"theirs": 0o644, "private": 0o600, "tells": 0o644} {
		if err := os.WriteFile(at(name), []byte("text of "+name+"\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	inputs := object(ownServer(t))
	inputs["files"] = resource.NewObjectProperty(object(map[string]any{
		at("theirs"): map[string]any{"content": "ours\n"}, at("private"): map[string]any{"content": "ours\n"},
		at("tells"): map[string]any{"content": "@@secret.word@@\n"}, at("new"): map[string]any{"content": "new\n"},
	}))
	inputs["secrets"] = resource.MakeSecret(resource.NewObjectProperty(resource.PropertyMap{"word": unknown()}))
	checked, failures := e.check(hostType, inputs)
	if len(failures) > 0 {
		t.Fatal(failures)
	}
	_, outputs, err := e.create(hostType, checked, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := outputs[foundProperty]; !ok {
		t.Fatalf("nothing was found: %v", outputs)
	}
	if said := e.said(pulumirpc.LogSeverity_INFO); !strings.Contains(said, at("theirs")) || strings.Contains(said, at("new")) {
		t.Errorf("it says %q", said)
	}
	files := outputs[foundProperty].ObjectValue()["files"].ObjectValue()
	if len(files) != 3 {
		t.Errorf("found %v", files)
	}
	for name, want := range map[string]string{"theirs": "text of theirs\n", "private": "(differs; not shown,", "tells": "(differs; not shown,"} {
		f := files[resource.PropertyKey(at(name))].ObjectValue()
		if !strings.HasPrefix(f["content"].StringValue(), want) || !f["foreign"].BoolValue() {
			t.Errorf("%s is %v", name, f)
		}
	}
	for name := range map[string]bool{"theirs": true, "private": true, "tells": true} {
		if text, err := os.ReadFile(at(name)); err != nil || string(text) != "text of "+name+"\n" {
			t.Errorf("the preview changed %s: %q, %v", name, text, err)
		}
	}
}

func TestPreviewOfAnOwnServerThatDoesNotAnswerSaysHowToGoOn(t *testing.T) {
	e := newEngine(t)
	inputs := ownServer(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	inputs["port"] = closed.Addr().(*net.TCPAddr).Port
	checked, failures := e.check(hostType, object(inputs))
	if len(failures) > 0 {
		t.Fatal(failures)
	}
	if _, _, err := e.create(hostType, checked, true); err == nil || !strings.Contains(err.Error(), "web-1") || !strings.Contains(err.Error(), skipVariable) {
		t.Errorf("got %v", err)
	}
	t.Setenv(skipVariable, "web-1")
	if _, outputs, err := e.create(hostType, checked, true); err != nil || !outputs[foundProperty].IsNull() {
		t.Errorf("got %v, %v", outputs, err)
	}
	if said := e.said(pulumirpc.LogSeverity_WARNING); !strings.Contains(said, "the preview goes on without") {
		t.Errorf("it warns: %q", said)
	}
}

func TestPreviewOfAnUpdateLooksOnlyWhereAFileIsNew(t *testing.T) {
	e := newEngine(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"known", "theirs"} {
		if err := os.WriteFile(at(name), []byte("text of "+name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	own := ownServer(t)
	properties := func(files map[string]any) resource.PropertyMap {
		inputs := object(own)
		inputs["files"] = resource.NewObjectProperty(object(files))
		checked, failures := e.check(hostType, inputs)
		if len(failures) > 0 {
			t.Fatal(failures)
		}
		return checked
	}
	known := map[string]any{at("known"): map[string]any{"content": "ours\n"}}
	more := map[string]any{at("known"): map[string]any{"content": "ours, changed\n"}, at("theirs"): map[string]any{"content": "ours\n"}}
	preview := func(from, to map[string]any) resource.PropertyMap {
		old, new := packed(t, properties(from)), packed(t, properties(to))
		r, err := e.client.Update(t.Context(), &pulumirpc.UpdateRequest{Id: "web-1", Urn: urnFor(hostType, "web-1"), Olds: old, OldInputs: old, News: new, Preview: true})
		if err != nil {
			t.Fatal(err)
		}
		return unpacked(t, r.Properties)
	}
	found := preview(known, more)[foundProperty].ObjectValue()
	if files := found["files"].ObjectValue(); len(found) != 1 || len(files) != 1 || files[resource.PropertyKey(at("theirs"))].ObjectValue()["content"].StringValue() != "text of theirs\n" {
		t.Errorf("found %v", found)
	}
	// Nobody answers there any more, and nobody needs to.
	own["port"] = 1
	if outputs := preview(more, known); !outputs[foundProperty].IsNull() {
		t.Errorf("found %v", outputs[foundProperty])
	}
}
