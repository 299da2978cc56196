package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// hidden is the text of an output that must be secret.
func hidden(t *testing.T, outputs resource.PropertyMap, key resource.PropertyKey) string {
	t.Helper()
	if !outputs[key].IsSecret() {
		t.Fatalf("%s is not secret", key)
	}
	return outputs[key].SecretValue().Element.StringValue()
}

// turn moves the clock.
func turn(t *testing.T, by time.Duration) {
	t.Helper()
	now = func() time.Time { return time.Now().Add(by) }
	t.Cleanup(func() { now = time.Now })
}

func TestHostKeyIsAPairThatOpenSSHUnderstands(t *testing.T) {
	e := newEngine(t)
	id, outputs, err := e.create("infractl:secret:HostKey", nil, false)
	if err != nil {
		t.Fatal(err)
	}
	private := hidden(t, outputs, "privateKey")
	signer, err := ssh.ParsePrivateKey([]byte(private))
	if err != nil || !strings.HasPrefix(private, "-----BEGIN OPENSSH PRIVATE KEY-----") {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))); got != outputs["publicKey"].StringValue() || id != ssh.FingerprintSHA256(signer.PublicKey()) {
		t.Errorf("%s is not %s", outputs["publicKey"], got)
	}
	_, other, err := e.create("infractl:secret:HostKey", nil, false)
	if err != nil || other["publicKey"].StringValue() == outputs["publicKey"].StringValue() {
		t.Error("two keys are the same")
	}
	if changes := e.diff("infractl:secret:HostKey", outputs, nil); len(changes) > 0 {
		t.Errorf("changes: %v", changes)
	}
}

func TestPasswordHasTheLengthAndAlphabet(t *testing.T) {
	e := newEngine(t)
	inputs, failures := e.check("infractl:secret:Password", nil)
	if len(failures) > 0 {
		t.Fatal(failures)
	}
	_, outputs, err := e.create("infractl:secret:Password", inputs, false)
	if err != nil {
		t.Fatal(err)
	}
	if word := hidden(t, outputs, "value"); !regexp.MustCompile(`^[A-Za-z0-9]{32}$`).MatchString(word) {
		t.Errorf("password is %q", word)
	}
	if changes := e.diff("infractl:secret:Password", outputs, inputs); len(changes) > 0 {
		t.Errorf("changes: %v", changes)
	}
	longer := object(map[string]any{"length": 40})
	if changes := e.diff("infractl:secret:Password", outputs, longer); changes["length"] != "UPDATE_REPLACE" {
		t.Errorf("changes: %v", changes)
	}
	for _, bad := range []any{3, 1000, 20.5, "32"} {
		if _, failures := e.check("infractl:secret:Password", object(map[string]any{"length": bad})); len(failures) != 1 {
			t.Errorf("%v: %v", bad, failures)
		}
	}
}

// issueTest makes an authority and a certificate.
func issueTest(t *testing.T, e *engine) (authority, inputs, outputs resource.PropertyMap) {
	t.Helper()
	_, authority, err := e.create("infractl:secret:Authority", object(map[string]any{"commonName": "test authority"}), false)
	if err != nil {
		t.Fatal(err)
	}
	inputs, failures := e.check("infractl:secret:Certificate", resource.PropertyMap{
		"authorityCertificate": authority["certificate"], "authorityKey": authority["privateKey"],
		"commonName": resource.NewStringProperty("db-1"), "addresses": resource.NewPropertyValue([]any{"127.0.0.1", "db-1.internal"}),
	})
	if len(failures) > 0 {
		t.Fatal(failures)
	}
	_, outputs, err = e.create("infractl:secret:Certificate", inputs, false)
	if err != nil {
		t.Fatal(err)
	}
	return authority, inputs, outputs
}

func TestCertificateServesTLSThatTheAuthorityVouchesFor(t *testing.T) {
	e := newEngine(t)
	authority, _, outputs := issueTest(t, e)
	pair, err := tls.X509KeyPair([]byte(outputs["certificate"].StringValue()), []byte(hidden(t, outputs, "privateKey")))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(authority["certificate"].StringValue())) {
		t.Fatal("the authority's certificate cannot be read")
	}
	for name, fine := range map[string]bool{"127.0.0.1": true, "db-1.internal": true, "10.0.4.12": false} {
		raw, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		err = tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: name}).Handshake()
		raw.Close()
		if (err == nil) != fine {
			t.Errorf("as %s: %v", name, err)
		}
	}
}

func TestCertificateIsRenewedInTheLastThirdOfItsLife(t *testing.T) {
	e := newEngine(t)
	_, inputs, outputs := issueTest(t, e)
	turn(t, certificateLife/2)
	if changes := e.diff("infractl:secret:Certificate", outputs, inputs); len(changes) > 0 {
		t.Errorf("half way: %v", changes)
	}
	turn(t, certificateLife*3/4)
	if changes := e.diff("infractl:secret:Certificate", outputs, inputs); changes["certificate"] != "UPDATE" {
		t.Fatalf("three quarters: %v", changes)
	}
	r, err := e.client.Update(t.Context(), &pulumirpc.UpdateRequest{
		Id: "x", Urn: urnFor("infractl:secret:Certificate", "web-1"), Olds: packed(t, outputs), OldInputs: packed(t, inputs), News: packed(t, inputs),
	})
	if err != nil {
		t.Fatal(err)
	}
	renewed := unpacked(t, r.Properties)
	if renewed["certificate"].StringValue() == outputs["certificate"].StringValue() {
		t.Error("the certificate is still the same")
	}
	if changes := e.diff("infractl:secret:Certificate", renewed, inputs); len(changes) > 0 {
		t.Errorf("after the renewal: %v", changes)
	}
}

func TestRenewedAuthorityKeepsItsKey(t *testing.T) {
	e := newEngine(t)
	authority, _, leaf := issueTest(t, e)
	inputs := object(map[string]any{"commonName": "test authority"})
	if changes := e.diff("infractl:secret:Authority", authority, inputs); len(changes) > 0 {
		t.Errorf("changes: %v", changes)
	}
	turn(t, authorityLife*3/4)
	if changes := e.diff("infractl:secret:Authority", authority, inputs); changes["certificate"] != "UPDATE" {
		t.Fatalf("changes: %v", changes)
	}
	r, err := e.client.Update(t.Context(), &pulumirpc.UpdateRequest{
		Id: "x", Urn: urnFor("infractl:secret:Authority", "web-1"), Olds: packed(t, authority), OldInputs: packed(t, inputs), News: packed(t, inputs),
	})
	if err != nil {
		t.Fatal(err)
	}
	renewed := unpacked(t, r.Properties)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(renewed["certificate"].StringValue()))
	c, err := parseCertificate(leaf["certificate"].StringValue())
	if err != nil {
		t.Fatal(err)
	}
	// Verified at a time when both are valid, as the test's clock is turned.
	parent, err := parseCertificate(renewed["certificate"].StringValue())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckSignatureFrom(parent); err != nil {
		t.Errorf("a certificate of before is not vouched for: %v", err)
	}
	if hidden(t, renewed, "privateKey") != hidden(t, authority, "privateKey") {
		t.Error("the key is another")
	}
}

func TestCertificateOfAnotherAuthorityIsRefused(t *testing.T) {
	e := newEngine(t)
	_, inputs, _ := issueTest(t, e)
	other, _, _ := issueTest(t, e)
	inputs["authorityKey"] = other["privateKey"]
	_, _, err := e.create("infractl:secret:Certificate", inputs, false)
	if err == nil || !strings.Contains(err.Error(), "does not belong") {
		t.Errorf("got %v", err)
	}
	inputs["authorityKey"] = resource.MakeSecret(resource.NewStringProperty("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"))
	if _, failures := e.check("infractl:secret:Certificate", inputs); len(failures) != 1 || strings.Contains(failures[0], "c2VjcmV0") {
		t.Errorf("failures: %v", failures)
	}
}

func TestSecretsAreUnknownAndSecretInAPreview(t *testing.T) {
	e := newEngine(t)
	for kind, c := range map[string]struct {
		inputs resource.PropertyMap
		secret resource.PropertyKey
	}{
		"infractl:secret:HostKey":   {nil, "privateKey"},
		"infractl:secret:Password":  {object(map[string]any{"length": 32}), "value"},
		"infractl:secret:Authority": {object(map[string]any{"commonName": "x"}), "privateKey"},
		"infractl:secret:Certificate": {resource.PropertyMap{
			"authorityCertificate": unknown(), "authorityKey": resource.MakeSecret(unknown()), "commonName": resource.NewStringProperty("x"),
		}, "privateKey"},
	} {
		inputs, failures := e.check(kind, c.inputs)
		if len(failures) > 0 {
			t.Errorf("%s: %v", kind, failures)
		}
		_, outputs, err := e.create(kind, inputs, true)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if v := outputs[c.secret]; !v.IsSecret() || !v.SecretValue().Element.IsComputed() {
			t.Errorf("%s: %s is %v", kind, c.secret, v)
		}
	}
}

func TestReadKeepsASecret(t *testing.T) {
	e := newEngine(t)
	_, outputs, err := e.create("infractl:secret:HostKey", nil, false)
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.client.Read(t.Context(), &pulumirpc.ReadRequest{Id: "x", Urn: urnFor("infractl:secret:HostKey", "k"), Properties: packed(t, outputs)})
	if err != nil {
		t.Fatal(err)
	}
	if !unpacked(t, r.Properties).DeepEquals(outputs) || r.Id != "x" {
		t.Error("it is another one")
	}
}
