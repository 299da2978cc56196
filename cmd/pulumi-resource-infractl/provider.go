package main

import (
	"context"
	_ "embed"
	"fmt"
	"sync"
	"time"

	"github.com/blang/semver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// version is set by the linker in releases.
var version = "0.1.0"

//go:embed schema.json
var schema []byte

// kind is one type of resource. What it is asked for is what a plugin.Provider
// is asked for.
type kind interface {
	check(req plugin.CheckRequest) (resource.PropertyMap, []problem)
	diff(ctx context.Context, req plugin.DiffRequest) (plugin.DiffResult, error)
	create(ctx context.Context, req plugin.CreateRequest) (plugin.CreateResponse, error)
	read(ctx context.Context, req plugin.ReadRequest) (plugin.ReadResponse, error)
	update(ctx context.Context, req plugin.UpdateRequest) (plugin.UpdateResponse, error)
	remove(ctx context.Context, req plugin.DeleteRequest) error
}

// problem is a mistake in the inputs of a resource.
type problem struct {
	// path names the property, such as files["/etc/x"].mode.
	path   string
	reason string
}

// provider serves all resource types. It has no configuration: everything that
// a host needs is in the resource, and credentials are looked up in the
// environment when they are used.
type provider struct {
	plugin.UnimplementedProvider
	kinds map[tokens.Type]kind
	// life ends when the engine cancels or is gone.
	life   context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	engine pulumirpc.EngineClient
}

func newProvider() *provider {
	p := &provider{}
	p.life, p.cancel = context.WithCancel(context.Background())
	p.kinds = map[tokens.Type]kind{
		"infractl:host:Configuration": &configuration{log: p.log},
		"infractl:secret:HostKey":     hostKey{},
		"infractl:secret:Password":    password{},
		"infractl:secret:Authority":   authority{},
		"infractl:secret:Certificate": certificate{},
	}
	return p
}

// Attach connects to the engine, for logging.
func (p *provider) Attach(address string) error {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), rpcutil.GrpcChannelOptions())
	if err != nil {
		return fmt.Errorf("connecting to the engine at %s: %w", address, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.engine = pulumirpc.NewEngineClient(conn)
	return nil
}

// log tells the engine something about a resource. Ephemeral messages are shown
// as the resource's status while it is being worked on. What is said must not
// hold secrets.
func (p *provider) log(severity pulumirpc.LogSeverity, urn resource.URN, message string, ephemeral bool) {
	p.mu.Lock()
	engine := p.engine
	p.mu.Unlock()
	if engine == nil {
		return
	}
	// A message that the engine does not take is no reason to stop.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, _ = engine.Log(ctx, &pulumirpc.LogRequest{Severity: severity, Message: message, Urn: string(urn), Ephemeral: ephemeral})
}

// kind finds the type of a resource.
func (p *provider) kind(t tokens.Type) (kind, error) {
	if k, ok := p.kinds[t]; ok {
		return k, nil
	}
	return nil, fmt.Errorf("there is no resource type %s in the provider infractl %s", t, version)
}

// bound gives an operation a context that ends with the engine's interest in it.
func (p *provider) bound(ctx context.Context, seconds float64) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(p.life, cancel)
	done := func() { unhook(); cancel() }
	if seconds > 0 {
		timed, expire := context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
		return timed, func() { expire(); done() }
	}
	return ctx, done
}

// Handshake, CheckConfig, DiffConfig and Configure have nothing to decide.

// Handshake says what the provider understands.
func (p *provider) Handshake(context.Context, plugin.ProviderHandshakeRequest) (*plugin.ProviderHandshakeResponse, error) {
	return &plugin.ProviderHandshakeResponse{AcceptSecrets: true, AcceptResources: true}, nil
}

// CheckConfig accepts any configuration, since none is used.
func (p *provider) CheckConfig(_ context.Context, req plugin.CheckConfigRequest) (plugin.CheckConfigResponse, error) {
	return plugin.CheckConfigResponse{Properties: req.News}, nil
}

// DiffConfig never asks for a replacement of the provider.
func (p *provider) DiffConfig(context.Context, plugin.DiffConfigRequest) (plugin.DiffConfigResponse, error) {
	return plugin.DiffResult{Changes: plugin.DiffNone}, nil
}

// Configure does nothing.
func (p *provider) Configure(context.Context, plugin.ConfigureRequest) (plugin.ConfigureResponse, error) {
	return plugin.ConfigureResponse{}, nil
}

// GetSchema describes the resources.
func (p *provider) GetSchema(context.Context, plugin.GetSchemaRequest) (plugin.GetSchemaResponse, error) {
	return plugin.GetSchemaResponse{Schema: schema}, nil
}

// GetPluginInfo tells the version.
func (p *provider) GetPluginInfo(context.Context) (plugin.PluginInfo, error) {
	v, err := semver.ParseTolerant(version)
	if err != nil {
		return plugin.PluginInfo{}, err
	}
	return plugin.PluginInfo{Version: &v}, nil
}

// SignalCancellation stops running operations, except on hosts that are in the
// middle of a swap, which finish it or take it back.
func (p *provider) SignalCancellation(context.Context) error {
	p.cancel()
	return nil
}

// Close does what SignalCancellation does.
func (p *provider) Close() error {
	p.cancel()
	return nil
}

// Check validates a resource's inputs and fills in defaults.
func (p *provider) Check(_ context.Context, req plugin.CheckRequest) (plugin.CheckResponse, error) {
	k, err := p.kind(req.Type)
	if err != nil {
		return plugin.CheckResponse{}, err
	}
	inputs, problems := k.check(req)
	response := plugin.CheckResponse{Properties: inputs}
	for _, problem := range problems {
		// The engine prints the value of a property that is named in the
		// failure, secret or not, so the path is part of the reason.
		reason := problem.reason
		if problem.path != "" {
			reason = problem.path + ": " + reason
		}
		response.Failures = append(response.Failures, plugin.CheckFailure{Reason: reason})
	}
	return response, nil
}

// Diff compares what is there with what is desired.
func (p *provider) Diff(ctx context.Context, req plugin.DiffRequest) (plugin.DiffResponse, error) {
	k, err := p.kind(req.Type)
	if err != nil {
		return plugin.DiffResult{}, err
	}
	return k.diff(ctx, req)
}

// Create makes a resource.
func (p *provider) Create(ctx context.Context, req plugin.CreateRequest) (plugin.CreateResponse, error) {
	k, err := p.kind(req.Type)
	if err != nil {
		return plugin.CreateResponse{}, err
	}
	ctx, done := p.bound(ctx, req.Timeout)
	defer done()
	return k.create(ctx, req)
}

// Read sees what is really there.
func (p *provider) Read(ctx context.Context, req plugin.ReadRequest) (plugin.ReadResponse, error) {
	k, err := p.kind(req.Type)
	if err != nil {
		return plugin.ReadResponse{}, err
	}
	ctx, done := p.bound(ctx, req.Timeout)
	defer done()
	return k.read(ctx, req)
}

// Update changes a resource.
func (p *provider) Update(ctx context.Context, req plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	k, err := p.kind(req.Type)
	if err != nil {
		return plugin.UpdateResponse{}, err
	}
	ctx, done := p.bound(ctx, req.Timeout)
	defer done()
	return k.update(ctx, req)
}

// Delete removes a resource.
func (p *provider) Delete(ctx context.Context, req plugin.DeleteRequest) (plugin.DeleteResponse, error) {
	k, err := p.kind(req.Type)
	if err != nil {
		return plugin.DeleteResponse{}, err
	}
	ctx, done := p.bound(ctx, req.Timeout)
	defer done()
	return plugin.DeleteResponse{}, k.remove(ctx, req)
}
