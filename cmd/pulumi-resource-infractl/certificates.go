package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
)

const (
	// authorityLife and certificateLife are how long certificates are valid.
	// Each is renewed by the first up in the last third of its life, so a
	// certificate needs an up within eight months of its last third.
	authorityLife   = 10 * 365 * 24 * time.Hour
	certificateLife = 2 * 365 * 24 * time.Hour
	// skew is how far the hosts' clocks may be behind.
	skew = time.Hour
)

// now is the clock; tests turn it.
var now = time.Now

// due says that a certificate in PEM is in the last third of its life, or is
// not readable.
func due(v resource.PropertyValue) bool {
	v, known := reveal(v)
	if !known || !v.IsString() {
		return true
	}
	c, err := parseCertificate(v.StringValue())
	if err != nil {
		return true
	}
	return now().After(c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3))
}

func parseCertificate(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("it is no certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

func parseKey(text string) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("it is no private key in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		// The parser's words could quote the key.
		return nil, fmt.Errorf("it is no private key in PKCS #8")
	}
	if key, ok := key.(*ecdsa.PrivateKey); ok {
		return key, nil
	}
	return nil, fmt.Errorf("it is no ECDSA key")
}

// issue makes a certificate for key, signed by the parent, in PEM. A nil
// parent means that it signs itself.
func issue(template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) (string, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return "", err
	}
	template.SerialNumber = serial
	template.NotBefore = now().Add(-skew)
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), nil
}

func newKey() (*ecdsa.PrivateKey, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, "", err
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// authority is infractl:secret:Authority, a private certificate authority. When
// it is renewed it keeps its key, so that certificates of before stay valid.
type authority struct{ stored }

func (authority) check(req plugin.CheckRequest) (resource.PropertyMap, []problem) {
	k := &checker{inputs: req.News}
	k.keys(nil, req.News, "commonName")
	k.required(nil, req.News, "commonName")
	return req.News, k.problems
}

func (authority) diff(_ context.Context, req plugin.DiffRequest) (plugin.DiffResult, error) {
	changes := map[string]plugin.PropertyDiff{}
	compare(resource.PropertyPath{"commonName"}, req.OldOutputs["commonName"], req.NewInputs["commonName"], changes)
	for path, change := range changes {
		changes[path] = change.ToReplace()
	}
	if len(changes) == 0 && due(req.OldOutputs["certificate"]) {
		changes["certificate"] = plugin.PropertyDiff{Kind: plugin.DiffUpdate}
	}
	return result(changes), nil
}

func (authority) create(_ context.Context, req plugin.CreateRequest) (plugin.CreateResponse, error) {
	name := req.Properties["commonName"]
	if req.Preview {
		return plugin.CreateResponse{Properties: resource.PropertyMap{"commonName": name, "certificate": unknown(), "privateKey": secret(unknown())}}, nil
	}
	id, err := identifier()
	if err != nil {
		return plugin.CreateResponse{}, err
	}
	key, text, err := newKey()
	if err != nil {
		return plugin.CreateResponse{}, err
	}
	properties, err := selfSigned(name, key, text)
	return plugin.CreateResponse{ID: id, Properties: properties}, err
}

func (authority) update(_ context.Context, req plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	old, _ := reveal(req.OldOutputs["privateKey"])
	if req.Preview {
		properties := req.OldOutputs.Copy()
		properties["certificate"] = unknown()
		return plugin.UpdateResponse{Properties: properties}, nil
	}
	if !old.IsString() {
		return plugin.UpdateResponse{}, fmt.Errorf("the authority's private key is not in the state")
	}
	key, err := parseKey(old.StringValue())
	if err != nil {
		return plugin.UpdateResponse{}, fmt.Errorf("the authority's private key: %w", err)
	}
	properties, err := selfSigned(req.NewInputs["commonName"], key, old.StringValue())
	return plugin.UpdateResponse{Properties: properties}, err
}

func selfSigned(name resource.PropertyValue, key *ecdsa.PrivateKey, keyText string) (resource.PropertyMap, error) {
	plain, _ := reveal(name)
	text, err := issue(&x509.Certificate{
		Subject:               pkix.Name{CommonName: plain.StringValue()},
		NotAfter:              now().Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil, key, nil)
	if err != nil {
		return nil, err
	}
	return resource.PropertyMap{
		"commonName":  name,
		"certificate": resource.NewStringProperty(text),
		"privateKey":  secret(resource.NewStringProperty(keyText)),
	}, nil
}

// certificate is infractl:secret:Certificate, a server's certificate.
type certificate struct{ stored }

// certificateInputs are its properties.
type certificateInputs struct {
	AuthorityCertificate string   `json:"authorityCertificate"`
	AuthorityKey         string   `json:"authorityKey"`
	CommonName           string   `json:"commonName"`
	Addresses            []string `json:"addresses"`
}

func (certificate) check(req plugin.CheckRequest) (resource.PropertyMap, []problem) {
	inputs := req.News.Copy()
	k := &checker{inputs: inputs}
	k.keys(nil, inputs, "authorityCertificate", "authorityKey", "commonName", "addresses")
	k.required(nil, inputs, "commonName")
	if text, ok := k.required(nil, inputs, "authorityCertificate"); ok {
		if _, err := parseCertificate(text); err != nil {
			k.fail(at(nil, "authorityCertificate"), "%v", err)
		}
	}
	if text, ok := k.required(nil, inputs, "authorityKey"); ok {
		if _, err := parseKey(text); err != nil {
			k.fail(at(nil, "authorityKey"), "%v", err)
		}
	}
	k.texts(at(nil, "addresses"), inputs["addresses"], func(p resource.PropertyPath, address string) {
		if net.ParseIP(address) == nil && !hostNames.MatchString(strings.ToLower(address)) {
			k.fail(p, "%q is neither an IP address nor a host name", address)
		}
	})
	if v, ok := inputs["authorityKey"]; ok {
		inputs["authorityKey"] = secret(v)
	}
	return inputs, k.problems
}

func (certificate) diff(_ context.Context, req plugin.DiffRequest) (plugin.DiffResult, error) {
	changes := map[string]plugin.PropertyDiff{}
	for _, key := range []resource.PropertyKey{"authorityCertificate", "authorityKey", "commonName", "addresses"} {
		compare(resource.PropertyPath{string(key)}, empty(req.OldOutputs[key], req.NewInputs[key]), empty(req.NewInputs[key], req.OldOutputs[key]), changes)
	}
	if len(changes) == 0 && due(req.OldOutputs["certificate"]) {
		changes["certificate"] = plugin.PropertyDiff{Kind: plugin.DiffUpdate}
	}
	return result(changes), nil
}

func (c certificate) create(_ context.Context, req plugin.CreateRequest) (plugin.CreateResponse, error) {
	var id resource.ID
	if !req.Preview {
		var err error
		if id, err = identifier(); err != nil {
			return plugin.CreateResponse{}, err
		}
	}
	properties, err := c.outputs(req.Properties, req.Preview)
	return plugin.CreateResponse{ID: id, Properties: properties}, err
}

func (c certificate) update(_ context.Context, req plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	properties, err := c.outputs(req.NewInputs, req.Preview)
	return plugin.UpdateResponse{Properties: properties}, err
}

// outputs issues the certificate, with a new key each time.
func (certificate) outputs(inputs resource.PropertyMap, preview bool) (resource.PropertyMap, error) {
	out := inputs.Copy()
	if preview {
		out["certificate"], out["privateKey"] = unknown(), secret(unknown())
		return out, nil
	}
	var in certificateInputs
	if err := decode(inputs, &in); err != nil {
		return nil, err
	}
	parent, err := parseCertificate(in.AuthorityCertificate)
	if err != nil {
		return nil, fmt.Errorf("authorityCertificate: %w", err)
	}
	parentKey, err := parseKey(in.AuthorityKey)
	if err != nil {
		return nil, fmt.Errorf("authorityKey: %w", err)
	}
	if !parentKey.PublicKey.Equal(parent.PublicKey) {
		return nil, fmt.Errorf("authorityKey does not belong to authorityCertificate")
	}
	key, keyText, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: in.CommonName},
		NotAfter:    now().Add(certificateLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		// Without it verifiers guess from the common name, or refuse.
		BasicConstraintsValid: true,
	}
	if template.NotAfter.After(parent.NotAfter) {
		template.NotAfter = parent.NotAfter
	}
	for _, address := range in.Addresses {
		if ip := net.ParseIP(address); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, address)
		}
	}
	text, err := issue(template, parent, key, parentKey)
	if err != nil {
		return nil, err
	}
	out["certificate"] = resource.NewStringProperty(text)
	out["privateKey"] = secret(resource.NewStringProperty(keyText))
	return out, nil
}
