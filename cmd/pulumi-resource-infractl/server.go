package main

import (
	"context"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// server is the SDK's gRPC server for a provider, with one thing put right: it
// does not say that its answer to Diff has a detailed diff, and without that
// the engine ignores it and cannot show what differs on a host (SDK v3.259.0).
type server struct {
	pulumirpc.ResourceProviderServer
}

func newServer(p plugin.Provider) pulumirpc.ResourceProviderServer {
	return server{plugin.NewProviderServer(p)}
}

// Diff compares what is there with what is desired.
func (s server) Diff(ctx context.Context, req *pulumirpc.DiffRequest) (*pulumirpc.DiffResponse, error) {
	response, err := s.ResourceProviderServer.Diff(ctx, req)
	if response != nil {
		response.HasDetailedDiff = len(response.DetailedDiff) > 0
	}
	return response, err
}
