package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/infractl/infractl/lab/api"
	"github.com/infractl/infractl/lab/machine"
)

// buildID tells builds of this program apart.
var buildID = sync.OnceValue(func() string {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
})

// Serve is the lab's daemon: it has the machines and answers the API, until
// ctx ends. It leaves the machines as they are.
func Serve(ctx context.Context, o Options, logger *slog.Logger) (err error) {
	if err := o.setDefaults(); err != nil {
		return err
	}
	if err := Check(); err != nil {
		return err
	}
	if marker, err := machine.ReadMarker(); err == nil && marker.Dir != o.Dir {
		return otherLab(marker.Dir)
	}
	if err := machine.EnterDaemonGroup(); err != nil {
		return err
	}
	c, err := o.ensureState()
	if err != nil {
		return err
	}
	fleet, err := machine.Open(ctx, machine.Config{Dir: o.Dir, Cache: o.Cache, Logger: logger})
	if err != nil {
		return err
	}
	defer fleet.Close()
	address := netip.AddrPortFrom(machine.Computer4.Addr(), machine.APIPort).String()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%w: the API's address %s: %w", machine.ErrConflict, address, err)
	}
	d := &daemon{fleet: fleet, dir: o.Dir}
	emulator, err := api.New(api.Config{
		StateFile: filepath.Join(o.Dir, "api.json"),
		Machines:  fleet,
		Tokens:    []string{c.Token, c.VIPToken},
		IPv4Pool:  machine.Servers4,
		IPv6Pool:  machine.Servers6,
		Images:    machine.Images(),
		Logger:    logger,
		Control:   d.routes(),
	})
	if err != nil {
		listener.Close()
		return fmt.Errorf("the API emulator: %w", err)
	}
	if server, ok := fleet.Relay(); ok {
		relay, err := startRelay(netip.AddrPortFrom(machine.Computer4.Addr(), 53), net.JoinHostPort(server, "53"))
		if err != nil {
			d.warn(fmt.Sprintf("machines cannot resolve names: %v", err))
		} else {
			defer relay.Close()
		}
	}
	go d.checkWays(ctx)
	server := &http.Server{
		Handler:           onlyThisComputer(emulator),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	logger.Info("the lab is up", "endpoint", Endpoint, "dir", o.Dir)
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	// No new requests, then the actions under way, then their machines.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if stopped := server.Shutdown(last); stopped != nil {
		server.Close()
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	err = errors.Join(err, emulator.Close())
	logger.Info("the lab's daemon ends", "error", err)
	return err
}

// onlyThisComputer keeps machines from the lab's controls, whatever token they have.
func onlyThisComputer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if strings.HasPrefix(r.URL.Path, "/_lab") && (err != nil || peer.Addr().Unmap() != machine.Computer4.Addr()) {
			answerError(w, http.StatusForbidden, "forbidden", errors.New("the lab's controls are for this computer, not for its machines"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// daemon is what the daemon has besides the API.
type daemon struct {
	fleet *machine.Fleet
	dir   string

	// mu guards what follows.
	mu       sync.Mutex
	warnings []string
	checked  bool
}

func (d *daemon) warn(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.warnings = append(d.warnings, text)
}

// checkWays looks once whether machines will reach what they need.
func (d *daemon) checkWays(ctx context.Context) {
	if err := d.fleet.CheckWays(ctx); err != nil && ctx.Err() == nil {
		for line := range strings.Lines(err.Error()) {
			d.warn(strings.TrimSpace(line))
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.checked = true
}
