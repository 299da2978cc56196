package api

import (
	"context"
	"net/netip"
)

// Machines is the world behind the API: what really happens when a server is
// created, a floating IP is assigned or a firewall is changed. Calls for one
// server are never made concurrently; calls for different servers are. Every
// method is idempotent, since the emulator repeats calls after its own restart.
// Two methods are outside that order: Running, which may be called at any
// time, and RouteFloatingIP, whose calls are in order for one address but do
// not wait for a server that is busy booting or shutting down.
type Machines interface {
	// Create makes the server's disk from its image and puts its user data
	// and interfaces in place. It does not start it. For a server that is
	// there already it keeps the disk and brings the public addresses, cores
	// and memory to what s says; a running server whose s has not changed is
	// left alone (the emulator repeats the call after its own restart).
	Create(ctx context.Context, s Server) error
	// Start boots the server and returns once its init runs, not once it is reachable.
	Start(ctx context.Context, id int64) error
	// Stop powers it off: at once, or after an orderly shutdown.
	Stop(ctx context.Context, id int64, orderly bool) error
	// Running says whether the server is powered on. It answers from memory,
	// without waiting for anything, since every listing of servers asks it.
	Running(id int64) bool
	// Rebuild replaces the disk by a fresh one of s.Image, with s.UserData.
	Rebuild(ctx context.Context, s Server) error
	// Delete removes the server and everything of it.
	Delete(ctx context.Context, id int64) error

	// Attach connects a server to a private network, or changes its addresses in it.
	Attach(ctx context.Context, id int64, a Attachment) error
	Detach(ctx context.Context, id, network int64) error
	// DeleteNetwork removes what is left of a network without servers.
	DeleteNetwork(ctx context.Context, network int64) error

	// SetFirewall replaces what is let through between the world and the
	// server's public interface. nil means there is no firewall and all is let through.
	SetFirewall(ctx context.Context, id int64, rules *FirewallRules) error

	// RouteFloatingIP sends traffic for an address (or IPv6 prefix) to a
	// server; server 0 means nowhere.
	RouteFloatingIP(ctx context.Context, prefix netip.Prefix, server int64) error

	// CreateVolume, DeleteVolume, ResizeVolume, AttachVolume (server 0 means
	// detach) handle block devices; size is in GB (10^9 bytes).
	CreateVolume(ctx context.Context, id int64, size int, format string) error
	ResizeVolume(ctx context.Context, id int64, size int) error
	AttachVolume(ctx context.Context, id, server int64) error
	DeleteVolume(ctx context.Context, id int64) error
}

// Server is a server as Machines sees it.
type Server struct {
	ID   int64
	Name string
	// Image is an image's name, such as debian-13.
	Image string
	// UserData is cloud-init's, as given by the client; may be empty.
	UserData string
	// SSHKeys are public keys for root, in authorized_keys format.
	SSHKeys []string
	// RootPassword is set when there are no keys.
	RootPassword string
	// IPv4 and IPv6 are the public addresses; invalid when there is none.
	// The server uses the first address (…::1) of its IPv6 prefix, a /64.
	IPv4 netip.Addr
	IPv6 netip.Prefix
	// Cores and MemoryMB limit what the machine may use.
	Cores    int
	MemoryMB int
}

// Attachment is a server's place in a private network.
type Attachment struct {
	Network int64
	// Range is the whole network's range, reached through Gateway.
	Range   netip.Prefix
	Gateway netip.Addr
	IP      netip.Addr
	Aliases []netip.Addr
	MAC     string
}

// FirewallRules are the merged rules of all firewalls applied to a server.
// Inbound traffic that no rule allows is dropped; outbound traffic is let
// through unless there is at least one outbound rule. Replies always pass.
type FirewallRules struct {
	In, Out []FirewallRule
}

// FirewallRule allows traffic of one protocol from (inbound) or to (outbound) Peers.
type FirewallRule struct {
	// Protocol is tcp, udp, icmp, esp or gre.
	Protocol string
	// First and Last are ports for tcp and udp.
	First, Last uint16
	Peers       []netip.Prefix
}
