// Command pulumi-resource-infractl is the provider plugin: it serves the
// resources of package infractl to the Pulumi engine.
//
// The engine starts it with its own address as the only argument and reads the
// port that the plugin listens on from the first line of its output. Without an
// argument the plugin waits for an engine to attach (PULUMI_DEBUG_PROVIDERS).
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

const (
	// engineCheck is how often the engine is asked whether it is alive.
	engineCheck = 2 * time.Second
	// shutdownTime is how long running operations may take to stop when the
	// engine is gone. What they do on hosts ends there without this process.
	shutdownTime = 15 * time.Second
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pulumi-resource-infractl:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	// The engine ends its plugins by an interrupt.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := newProvider()
	switch len(arguments) {
	case 0:
	case 1:
		if err := p.Attach(arguments[0]); err != nil {
			return err
		}
		var gone context.CancelFunc
		ctx, gone = context.WithCancel(ctx)
		defer gone()
		if err := rpcutil.Healthcheck(ctx, arguments[0], engineCheck, gone); err != nil {
			return fmt.Errorf("watching the engine at %s: %w", arguments[0], err)
		}
	default:
		return fmt.Errorf("usage: pulumi-resource-infractl [ENGINE]; it is started by Pulumi, not by hand")
	}

	shutdown := make(chan bool)
	go func() {
		<-ctx.Done()
		p.cancel()
		close(shutdown)
		time.Sleep(shutdownTime)
		os.Exit(1)
	}()
	server, err := rpcutil.ServeWithOptions(rpcutil.ServeOptions{
		Cancel: shutdown,
		Init: func(s *grpc.Server) error {
			pulumirpc.RegisterResourceProviderServer(s, newServer(p))
			return nil
		},
	})
	if err != nil {
		return err
	}
	fmt.Println(server.Port)
	return <-server.Done
}
