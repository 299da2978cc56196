package main

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// TestMain lets the test binary be the plugin, so that tests can start and kill it.
func TestMain(m *testing.M) {
	if os.Getenv("INFRACTL_TEST_PLUGIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// start starts the plugin for an engine and returns it with its port.
func start(t *testing.T, engine string) (*exec.Cmd, int) {
	t.Helper()
	c := exec.Command(os.Args[0], engine)
	c.Env = append(os.Environ(), "INFRACTL_TEST_PLUGIN=1")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the first line is %q", line)
	}
	conn, err := grpc.NewClient("127.0.0.1:"+strconv.Itoa(port), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := pulumirpc.NewResourceProviderClient(conn).GetPluginInfo(t.Context(), &emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	return c, port
}

// ends waits for the plugin to end.
func ends(t *testing.T, c *exec.Cmd, within time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case <-done:
	case <-ctx.Done():
		t.Errorf("the plugin still runs after %s", within)
	}
}

func TestPluginEndsWithItsEngine(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	pulumirpc.RegisterEngineServer(s, &engine{t: t})
	go s.Serve(listener)
	c, _ := start(t, listener.Addr().String())
	s.Stop()
	ends(t, c, 3*engineCheck)
}

func TestPluginEndsWhenInterrupted(t *testing.T) {
	address := serve(t, func(s *grpc.Server) { pulumirpc.RegisterEngineServer(s, &engine{t: t}) })
	c, _ := start(t, address)
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	ends(t, c, 5*time.Second)
}
