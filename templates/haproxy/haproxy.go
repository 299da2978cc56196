// Package haproxy renders the load balancers' HAProxy: one frontend for the
// world, the web tier behind it, and what watches and measures it.
//
// # When a web host dies
//
// Requests that are safe to repeat (GET, HEAD, OPTIONS) never fail because one
// web host does: a connection that cannot be made, or on which nothing comes
// back, is given up after about a second and the request goes to another host.
// Three mechanisms divide the work, since each sees what the others cannot:
// the connect timeout (no connection yet), TCP_USER_TIMEOUT (data was sent and
// not acknowledged) and TCP keep-alive (the request was acknowledged, then the
// host went silent). Health checks keep further requests away from it.
package haproxy

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net/netip"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/duty"
	"github.com/infractl/infractl/templates/nginx"
)

//go:embed *.tmpl
var files embed.FS

const (
	// MonitorPort is where HAProxy says on loopback whether this load balancer
	// can serve: GET /alive answers 200 as long as it reaches a web host.
	MonitorPort = 8404
	// MetricsPort is where Prometheus finds /metrics, on the private address.
	MetricsPort = 8405
	config      = "/etc/haproxy/haproxy.cfg"
	// Switches is the map by which HAProxy is told what to do differently for a
	// while; "closing on" makes it close client connections after each response.
	Switches = "/etc/haproxy/switches.map"
	// Socket is where HAProxy takes commands.
	Socket = "/run/haproxy/admin.sock"
)

// Input describes one load balancer.
type Input struct {
	// Debian is the release: 12 or 13.
	Debian int
	// Host is the short name, such as lb-1.
	Host string
	// Address is the address in the private network.
	Address netip.Addr
	// MemoryMB is the host's memory in MiB.
	MemoryMB int
	// Web are the hosts behind it.
	Web []templates.Server
	// Monitors are the ranges that may read metrics; none means nobody.
	Monitors []netip.Prefix
	// DebugHeaders tells clients in X-Infractl-Lb who answered.
	DebugHeaders bool
}

// Validate says what is wrong with the input, or nil.
func (in Input) Validate() error {
	if err := templates.CheckDebian(in.Debian); err != nil {
		return err
	}
	if err := templates.CheckHost("the load balancer's name", in.Host); err != nil {
		return err
	}
	if err := templates.CheckAddress("the private address", in.Address); err != nil {
		return err
	}
	if err := templates.CheckMemory(in.MemoryMB); err != nil {
		return err
	}
	if err := templates.CheckServers("the web tier", in.Web); err != nil {
		return err
	}
	for _, p := range in.Monitors {
		if err := templates.CheckPrefix("a range that may read metrics", p); err != nil {
			return err
		}
	}
	return nil
}

// MaxConnections is how many client connections a host with so much memory, in
// MiB, takes at once. HAProxy's manual (management guide, 2.6, section 6) counts
// 33 kB for a connection between a client and a server; a request that may have
// to be repeated keeps a copy in another buffer of 16 kB. HAProxy gets half the
// memory, since the kernel's socket buffers need about as much again.
func MaxConnections(memoryMB int) int {
	const perConnection = 33 + 17 // kB
	n := memoryMB * 1024 / 2 / perConnection / 1000 * 1000
	return min(max(n, 1000), 400_000)
}

// Render describes the host's share of this package.
func Render(in Input) (desired.Host, error) {
	if err := in.Validate(); err != nil {
		return desired.Host{}, fmt.Errorf("HAProxy of %s: %w", in.Host, err)
	}
	data := struct {
		Input
		Version       string
		Connections   int
		Monitor       uint16
		Metrics       uint16
		HealthPath    string
		PrivateFolder string
		Switches      string
	}{
		Input: in, Connections: MaxConnections(in.MemoryMB), Monitor: MonitorPort, Metrics: MetricsPort,
		HealthPath: nginx.HealthPath, PrivateFolder: nginx.PrivateFolder, Switches: Switches,
	}
	// The version names the configuration by its content, and HAProxy tells it
	// on loopback: a reload counts as done when the new one answers.
	draft, err := templates.Text(files, "haproxy.cfg.tmpl", data)
	if err != nil {
		return desired.Host{}, err
	}
	sum := sha256.Sum256([]byte(draft))
	data.Version = hex.EncodeToString(sum[:6])
	f := templates.Files{From: files, Data: data}
	f.Add(config, "haproxy.cfg.tmpl", desired.File{})
	f.Add(Switches, "switches.map.tmpl", desired.File{})
	f.Add("/etc/systemd/system/haproxy.service.d/infractl.conf", "haproxy.service.tmpl", desired.File{})
	f.Add("/etc/nftables.d/haproxy.nft", "haproxy.nft.tmpl", desired.File{})
	if f.Err != nil {
		return desired.Host{}, f.Err
	}
	return desired.Host{
		Packages: []string{"haproxy", "socat"},
		Files:    f.Made,
		Units: []desired.Unit{duty.Around(desired.Unit{
			Name: "haproxy.service", Enabled: true, Active: true,
			ReloadOn: []string{config, Switches},
			// Not with -q, which hides what is wrong as well.
			Validate: "haproxy -c -f " + config,
			Health: fmt.Sprintf("curl -fsS --max-time 1 http://127.0.0.1:%d/version | grep -qx %s",
				MonitorPort, data.Version),
			AtOnce: true, // it asks for the version of the configuration
		})},
	}, nil
}
