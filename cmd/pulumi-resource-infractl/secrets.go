package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
)

// stored is what all secrets have in common: they live in the state only, so
// that there is nothing to read elsewhere and nothing to delete.
type stored struct{}

func (stored) read(_ context.Context, req plugin.ReadRequest) (plugin.ReadResponse, error) {
	if len(req.State) == 0 {
		return plugin.ReadResponse{}, fmt.Errorf("%s: a generated secret cannot be imported", req.ID)
	}
	return plugin.ReadResponse{ReadResult: plugin.ReadResult{ID: req.ID, Inputs: req.Inputs, Outputs: req.State}}, nil
}

func (stored) remove(context.Context, plugin.DeleteRequest) error { return nil }

// identifier is a new ID for a resource.
func identifier() (resource.ID, error) {
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	return resource.ID(hex.EncodeToString(b)), nil
}

// only refuses all properties but the allowed ones.
func only(inputs resource.PropertyMap, allowed ...string) []problem {
	k := &checker{inputs: inputs}
	k.keys(nil, inputs, allowed...)
	return k.problems
}

// hostKey is infractl:secret:HostKey, an SSH host key that exists before its
// server, so that the server can be recognised at the first connection.
type hostKey struct{ stored }

func (hostKey) check(req plugin.CheckRequest) (resource.PropertyMap, []problem) {
	return req.News, only(req.News)
}

func (hostKey) diff(context.Context, plugin.DiffRequest) (plugin.DiffResult, error) {
	return result(nil), nil
}

func (hostKey) create(_ context.Context, req plugin.CreateRequest) (plugin.CreateResponse, error) {
	if req.Preview {
		return plugin.CreateResponse{Properties: resource.PropertyMap{"publicKey": unknown(), "privateKey": secret(unknown())}}, nil
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return plugin.CreateResponse{}, err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return plugin.CreateResponse{}, err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return plugin.CreateResponse{}, err
	}
	return plugin.CreateResponse{
		ID: resource.ID(ssh.FingerprintSHA256(key)),
		Properties: resource.PropertyMap{
			"publicKey":  resource.NewStringProperty(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))),
			"privateKey": secret(resource.NewStringProperty(string(pem.EncodeToMemory(block)))),
		},
	}, nil
}

func (hostKey) update(_ context.Context, req plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	return plugin.UpdateResponse{Properties: req.OldOutputs}, nil
}

// password is infractl:secret:Password, a random word of letters and digits.
type password struct{ stored }

// alphabet has no character that means anything to a shell, a URL or SQL.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

func (password) check(req plugin.CheckRequest) (resource.PropertyMap, []problem) {
	inputs := req.News.Copy()
	if v, known := reveal(inputs["length"]); known && v.IsNull() {
		inputs["length"] = resource.NewNumberProperty(32)
	}
	k := &checker{inputs: inputs}
	k.keys(nil, inputs, "length")
	// 12 characters of this alphabet have 71 bits; bcrypt, SCRAM and HTTP
	// headers take 128 characters.
	k.whole(nil, inputs, "length", 12, 128)
	return inputs, k.problems
}

func (password) diff(_ context.Context, req plugin.DiffRequest) (plugin.DiffResult, error) {
	found := map[string]plugin.PropertyDiff{}
	compare(resource.PropertyPath{"length"}, req.OldOutputs["length"], req.NewInputs["length"], found)
	for path, change := range found {
		found[path] = change.ToReplace()
	}
	return result(found), nil
}

func (password) create(_ context.Context, req plugin.CreateRequest) (plugin.CreateResponse, error) {
	length := req.Properties["length"]
	if req.Preview {
		return plugin.CreateResponse{Properties: resource.PropertyMap{"length": length, "value": secret(unknown())}}, nil
	}
	id, err := identifier()
	if err != nil {
		return plugin.CreateResponse{}, err
	}
	var in struct {
		Length int `json:"length"`
	}
	if err := decode(req.Properties, &in); err != nil {
		return plugin.CreateResponse{}, err
	}
	text := make([]byte, in.Length)
	for i := range text {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			return plugin.CreateResponse{}, err
		}
		text[i] = alphabet[n.Int64()]
	}
	return plugin.CreateResponse{ID: id, Properties: resource.PropertyMap{
		"length": length, "value": secret(resource.NewStringProperty(string(text))),
	}}, nil
}

func (password) update(_ context.Context, req plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	return plugin.UpdateResponse{Properties: req.OldOutputs}, nil
}
