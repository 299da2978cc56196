// Package nginx renders the web tier's nginx: it serves the release's static
// files, passes everything else to the application tier over connections that
// are kept, keeps what the application marks as cacheable, and serves that on
// while the application is down.
package nginx

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net/netip"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/duty"
)

//go:embed *.tmpl
var files embed.FS

const (
	// PrivateFolder is the part of the URL space that belongs to infractl. The
	// load balancers let no client's request for it through.
	PrivateFolder = "/-/infractl/"
	// HealthPath answers 200 while nginx itself works, whatever the
	// application does: a web host that can serve static and stale pages is
	// worth a request even when nothing stands behind it.
	HealthPath = PrivateFolder + "health"
	// StatusPort is where /status tells nginx's counters, on the private address.
	StatusPort = 8406

	config = "/etc/nginx/nginx.conf"
	listen = "/etc/nginx/infractl-listen.conf"
)

// Input describes one web host.
type Input struct {
	// Debian is the release: 12 or 13.
	Debian int
	// Host is the short name, such as web-1.
	Host string
	// Address is the private address, the only one that nginx listens on, and
	// Port the port for the load balancers.
	Address netip.Addr
	Port    uint16
	// MemoryMB is the host's memory in MiB, Cores its number of processors.
	MemoryMB, Cores int
	// LBs are the load balancers' private addresses: only they may connect,
	// and only they are believed about where a request came from.
	LBs []netip.Addr
	// App are the hosts behind it.
	App []templates.Server
	// Application is the application's name, which names the folders under /srv.
	Application string
	// Static are the release's static files, or nil if it has none.
	Static *desired.Tree
	// ImmutablePaths are URL paths, such as /assets/, below which a file never
	// changes its content, besides files whose names carry a hash.
	ImmutablePaths []string
	// Monitors are the ranges that may read the status; none means nobody.
	Monitors []netip.Prefix
	// DebugHeaders tells clients in X-Infractl-Web, X-Infractl-App and
	// X-Infractl-Cache who answered.
	DebugHeaders bool
}

// Validate says what is wrong with the input, or nil.
func (in Input) Validate() error {
	if err := templates.CheckDebian(in.Debian); err != nil {
		return err
	}
	if err := templates.CheckHost("the web host's name", in.Host); err != nil {
		return err
	}
	if err := templates.CheckAddress("the private address", in.Address); err != nil {
		return err
	}
	if err := templates.CheckPort("the web tier's port", in.Port); err != nil {
		return err
	}
	if err := templates.CheckMemory(in.MemoryMB); err != nil {
		return err
	}
	if err := templates.CheckCores(in.Cores); err != nil {
		return err
	}
	if len(in.LBs) == 0 {
		return fmt.Errorf("%w: there is no load balancer in front of the web tier", templates.ErrInput)
	}
	for _, a := range in.LBs {
		if err := templates.CheckAddress("a load balancer's address", a); err != nil {
			return err
		}
	}
	if err := templates.CheckServers("the application tier", in.App); err != nil {
		return err
	}
	if err := templates.CheckUser("the application's name", in.Application); err != nil {
		return err
	}
	if in.Static != nil {
		if _, err := templates.Short("the digest of the static files", in.Static.Digest); err != nil {
			return err
		}
	}
	for _, p := range in.ImmutablePaths {
		if err := templates.CheckPath("an immutable path", p); err != nil {
			return err
		}
	}
	for _, p := range in.Monitors {
		if err := templates.CheckPrefix("a range that may read the status", p); err != nil {
			return err
		}
	}
	return nil
}

// Connections is how many connections one worker process takes, on a host with
// so much memory in MiB and so many cores, of which each gets a worker. A
// request that is passed on holds two connections and buffers of typically
// 48 kB (proxy_buffers in use, headers, TLS-less); a quarter of the memory is
// for them, the rest for the page cache, which holds the static files.
func Connections(memoryMB, cores int) int {
	const perConnection = 24 // kB
	n := memoryMB * 1024 / 4 / perConnection / cores / 256 * 256
	return min(max(n, 1024), 65536)
}

// CacheMB is how much disk, in MiB, the cache of the application's answers may
// use. It is as much as half the memory, so that it stays in the page cache.
func CacheMB(memoryMB int) int { return min(max(memoryMB/2, 128), 8192) }

// Render describes the host's share of this package.
func Render(in Input) (desired.Host, error) {
	if err := in.Validate(); err != nil {
		return desired.Host{}, fmt.Errorf("nginx of %s: %w", in.Host, err)
	}
	data := struct {
		Input
		Version                   string
		Connections, CacheMB      int
		Root                      string
		PrivateFolder, HealthPath string
		StatusPort                uint16
		Tries                     int
	}{
		Input: in, Connections: Connections(in.MemoryMB, in.Cores), CacheMB: CacheMB(in.MemoryMB),
		PrivateFolder: PrivateFolder, HealthPath: HealthPath, StatusPort: StatusPort,
		Tries: min(len(in.App), 3) + min(len(in.App), 2),
	}
	host := desired.Host{Packages: []string{"nginx"}}
	if in.Static != nil {
		short, err := templates.Short("the digest of the static files", in.Static.Digest)
		if err != nil {
			return desired.Host{}, err
		}
		data.Root = "/srv/" + in.Application + "-static/releases/" + short
		host.Trees = map[string]desired.Tree{data.Root: *in.Static}
	}
	// The version names the configuration by its content, and nginx tells it: a
	// reload that the master process refused does not go unnoticed.
	draft, err := templates.Text(files, "nginx.conf.tmpl", data)
	if err != nil {
		return desired.Host{}, err
	}
	sum := sha256.Sum256([]byte(draft))
	data.Version = hex.EncodeToString(sum[:6])
	f := templates.Files{From: files, Data: data}
	f.Add(config, "nginx.conf.tmpl", desired.File{})
	f.Add(listen, "listen.conf.tmpl", desired.File{})
	f.Add("/etc/systemd/system/nginx.service.d/infractl.conf", "nginx.service.tmpl", desired.File{})
	duty.Add(&f, "web", true)
	f.Add("/etc/nftables.d/nginx.nft", "nginx.nft.tmpl", desired.File{})
	f.Add("/etc/sysctl.d/61-infractl-nginx.conf", "sysctl.conf.tmpl", desired.File{})
	if f.Err != nil {
		return desired.Host{}, f.Err
	}
	host.Files = f.Made
	host.Units = []desired.Unit{duty.Around(desired.Unit{
		Name: "nginx.service", Enabled: true, Active: true,
		ReloadOn: []string{config},
		// A worker cannot take an address from a wildcard socket that is open
		// already, so a change of the address needs a restart.
		RestartOn: []string{listen},
		Validate:  "nginx -t -q",
		Health: fmt.Sprintf("curl -fsS --max-time 1 http://%s%sversion | grep -qx %s",
			netip.AddrPortFrom(in.Address, in.Port), PrivateFolder, data.Version),
		AtOnce: true, // it asks for the version of the configuration
	})}
	return host, nil
}
