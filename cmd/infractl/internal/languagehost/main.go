// Command languagehost is what Pulumi needs to run a program written in Go: it
// compiles the program and starts it. It is for tests on computers that have
// no Go language host; users have the official one, which comes with the
// Pulumi CLI. Built under the name pulumi-language-go, it is found on PATH.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "pulumi-language-go:", err)
		os.Exit(1)
	}
}

// serve answers the engine until it goes away. By the plugin protocol, the
// first line on stdout is the port.
func serve() error {
	// The engine ends the host itself; a Ctrl-C in the terminal is not for it.
	signal.Ignore(os.Interrupt)
	h := &host{}
	if n := len(os.Args); n > 1 && !strings.HasPrefix(os.Args[n-1], "-") {
		h.engine = os.Args[n-1]
	}
	handle, err := rpcutil.ServeWithOptions(rpcutil.ServeOptions{
		Init: func(s *grpc.Server) error {
			pulumirpc.RegisterLanguageRuntimeServer(s, h)
			return nil
		},
	})
	if err != nil {
		return err
	}
	fmt.Println(handle.Port)
	return <-handle.Done
}

type host struct {
	pulumirpc.UnimplementedLanguageRuntimeServer
	engine string
}

func (h *host) Handshake(_ context.Context, r *pulumirpc.LanguageHandshakeRequest) (*pulumirpc.LanguageHandshakeResponse, error) {
	h.engine = r.GetEngineAddress()
	return &pulumirpc.LanguageHandshakeResponse{}, nil
}

func (h *host) GetPluginInfo(context.Context, *emptypb.Empty) (*pulumirpc.PluginInfo, error) {
	return &pulumirpc.PluginInfo{Version: "1.0.0"}, nil
}

// required are the plugins that the official host finds in the module cache:
// those of modules with a pulumi-plugin.json.
const (
	requiredName    = "hcloud"
	requiredVersion = "v1.39.1"
)

func (h *host) GetRequiredPlugins(context.Context, *pulumirpc.GetRequiredPluginsRequest) (*pulumirpc.GetRequiredPluginsResponse, error) {
	return &pulumirpc.GetRequiredPluginsResponse{Plugins: []*pulumirpc.PluginDependency{
		{Name: requiredName, Kind: "resource", Version: requiredVersion},
	}}, nil
}

func (h *host) GetRequiredPackages(context.Context, *pulumirpc.GetRequiredPackagesRequest) (*pulumirpc.GetRequiredPackagesResponse, error) {
	return &pulumirpc.GetRequiredPackagesResponse{Packages: []*pulumirpc.PackageDependency{
		{Name: requiredName, Kind: "resource", Version: requiredVersion},
	}}, nil
}

func (h *host) InstallDependencies(*pulumirpc.InstallDependenciesRequest, grpc.ServerStreamingServer[pulumirpc.InstallDependenciesResponse]) error {
	return nil
}

func (h *host) Cancel(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

func (h *host) Run(ctx context.Context, r *pulumirpc.RunRequest) (*pulumirpc.RunResponse, error) {
	dir, err := os.MkdirTemp("", "pulumi-language-go-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "program")
	source := filepath.Join(r.GetInfo().GetProgramDirectory(), r.GetInfo().GetEntryPoint())
	build := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		return &pulumirpc.RunResponse{Error: fmt.Sprintf("cannot compile %s: %v\n%s", source, err, out)}, nil
	}

	cmd := exec.CommandContext(ctx, program, r.GetArgs()...)
	cmd.Dir = r.GetPwd()
	cmd.Env, err = h.environment(r)
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return &pulumirpc.RunResponse{}, nil
	case errors.As(err, &exit) && exit.ExitCode() == 32:
		// The SDK's code for an error that the program has reported itself.
		return &pulumirpc.RunResponse{Bail: true}, nil
	}
	return &pulumirpc.RunResponse{Error: fmt.Sprintf("program failed: %v\n%s", err, output.String())}, nil
}

// environment tells the program where the engine is and what the stack's
// configuration says, as the SDK's Run expects it.
func (h *host) environment(r *pulumirpc.RunRequest) ([]string, error) {
	config, err := json.Marshal(r.GetConfig())
	if err != nil {
		return nil, err
	}
	secrets, err := json.Marshal(r.GetConfigSecretKeys())
	if err != nil {
		return nil, err
	}
	set := func(name, value string) string { return name + "=" + value }
	return append(os.Environ(),
		set(pulumi.EnvOrganization, r.GetOrganization()),
		set(pulumi.EnvProject, r.GetProject()),
		set(pulumi.EnvPulumiRootDirectory, r.GetInfo().GetRootDirectory()),
		set(pulumi.EnvStack, r.GetStack()),
		set(pulumi.EnvConfig, string(config)),
		set(pulumi.EnvConfigSecretKeys, string(secrets)),
		set(pulumi.EnvDryRun, strconv.FormatBool(r.GetDryRun())),
		set(pulumi.EnvParallel, strconv.Itoa(int(r.GetParallel()))),
		set(pulumi.EnvMonitor, r.GetMonitorAddress()),
		set(pulumi.EnvEngine, h.engine),
	), nil
}
