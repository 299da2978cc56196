// Command hostless is a plugin in the place of pulumi-resource-infractl, for
// tests of how infractl drives the engine: it has the same resource types, but
// configures no hosts. A configuration takes as long as HOSTLESS_DELAY says (a
// duration such as 200ms), and fails for the host that HOSTLESS_FAIL names.
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/blang/semver"
	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "hostless:", err)
		os.Exit(1)
	}
}

func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 {
		var gone context.CancelFunc
		ctx, gone = context.WithCancel(ctx)
		defer gone()
		if err := rpcutil.Healthcheck(ctx, os.Args[1], time.Second, gone); err != nil {
			return err
		}
	}
	quit := make(chan bool)
	context.AfterFunc(ctx, func() { close(quit) })
	handle, err := rpcutil.ServeWithOptions(rpcutil.ServeOptions{
		Cancel: quit,
		Init: func(s *grpc.Server) error {
			pulumirpc.RegisterResourceProviderServer(s, plugin.NewProviderServer(&provider{life: ctx}))
			return nil
		},
	})
	if err != nil {
		return err
	}
	fmt.Println(handle.Port)
	return <-handle.Done
}

type provider struct {
	plugin.UnimplementedProvider
	life context.Context
}

func (p *provider) Handshake(context.Context, plugin.ProviderHandshakeRequest) (*plugin.ProviderHandshakeResponse, error) {
	return &plugin.ProviderHandshakeResponse{AcceptSecrets: true, AcceptResources: true, AcceptOutputs: true}, nil
}

func (p *provider) GetPluginInfo(context.Context) (plugin.PluginInfo, error) {
	return plugin.PluginInfo{Version: &semver.Version{}}, nil
}

func (p *provider) SignalCancellation(context.Context) error { return nil }

func (p *provider) CheckConfig(_ context.Context, r plugin.CheckConfigRequest) (plugin.CheckConfigResponse, error) {
	return plugin.CheckConfigResponse{Properties: r.News}, nil
}

func (p *provider) DiffConfig(context.Context, plugin.DiffConfigRequest) (plugin.DiffConfigResponse, error) {
	return plugin.DiffResult{Changes: plugin.DiffNone}, nil
}

func (p *provider) Configure(context.Context, plugin.ConfigureRequest) (plugin.ConfigureResponse, error) {
	return plugin.ConfigureResponse{}, nil
}

func (p *provider) Check(_ context.Context, r plugin.CheckRequest) (plugin.CheckResponse, error) {
	return plugin.CheckResponse{Properties: r.News}, nil
}

func (p *provider) Diff(_ context.Context, r plugin.DiffRequest) (plugin.DiffResult, error) {
	if r.OldInputs.DeepEquals(r.NewInputs) {
		return plugin.DiffResult{Changes: plugin.DiffNone}, nil
	}
	return plugin.DiffResult{Changes: plugin.DiffSome}, nil
}

func (p *provider) Create(ctx context.Context, r plugin.CreateRequest) (plugin.CreateResponse, error) {
	out := r.Properties.Copy()
	if r.Preview {
		for _, k := range generated(r.URN) {
			out[resource.PropertyKey(k)] = resource.MakeComputed(resource.NewProperty(""))
		}
		return plugin.CreateResponse{Properties: out}, nil
	}
	if err := p.configure(ctx, r.URN); err != nil {
		return plugin.CreateResponse{}, err
	}
	made, err := generate(r.URN)
	if err != nil {
		return plugin.CreateResponse{}, err
	}
	for k, v := range made {
		out[resource.PropertyKey(k)] = resource.MakeSecret(resource.NewProperty(v))
	}
	return plugin.CreateResponse{ID: resource.ID(uuid.NewString()), Properties: out}, nil
}

func (p *provider) Update(ctx context.Context, r plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	out := r.OldOutputs.Copy()
	for k, v := range r.NewInputs {
		out[k] = v
	}
	if r.Preview {
		return plugin.UpdateResponse{Properties: out}, nil
	}
	return plugin.UpdateResponse{Properties: out}, p.configure(ctx, r.URN)
}

func (p *provider) Read(_ context.Context, r plugin.ReadRequest) (plugin.ReadResponse, error) {
	return plugin.ReadResponse{ReadResult: plugin.ReadResult{ID: r.ID, Inputs: r.Inputs, Outputs: r.State}, Status: resource.StatusOK}, nil
}

func (p *provider) Delete(context.Context, plugin.DeleteRequest) (plugin.DeleteResponse, error) {
	return plugin.DeleteResponse{}, nil
}

// configure takes its time, if the resource is a host's configuration.
func (p *provider) configure(ctx context.Context, urn resource.URN) error {
	if urn.Type() != "infractl:host:Configuration" {
		return nil
	}
	delay, err := time.ParseDuration(os.Getenv("HOSTLESS_DELAY"))
	if err != nil {
		delay = 0
	}
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return ctx.Err()
	case <-p.life.Done():
		return context.Canceled
	}
	if urn.Name() == os.Getenv("HOSTLESS_FAIL") {
		return fmt.Errorf("%s: validate haproxy: line 3 is wrong", urn.Name())
	}
	return nil
}

// generated are the properties that a resource makes up.
func generated(urn resource.URN) []string {
	switch urn.Type() {
	case "infractl:secret:HostKey":
		return []string{"publicKey", "privateKey"}
	case "infractl:secret:Password":
		return []string{"value"}
	case "infractl:secret:Authority", "infractl:secret:Certificate":
		return []string{"certificate", "privateKey"}
	}
	return nil
}

func generate(urn resource.URN) (map[string]string, error) {
	out := map[string]string{}
	for _, k := range generated(urn) {
		out[k] = strings.ReplaceAll(uuid.NewString(), "-", "")
	}
	if urn.Type() != "infractl:secret:HostKey" {
		return out, nil
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return nil, err
	}
	out["publicKey"] = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	out["privateKey"] = string(pem.EncodeToMemory(block))
	return out, nil
}
