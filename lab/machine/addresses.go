package machine

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// The lab's addresses. The IPv4 range is set aside for tests of network
// equipment (RFC 2544), the IPv6 range for documentation (RFC 3849); neither
// is used on the internet.
var (
	// Range4 and Range6 are all public addresses of the lab.
	Range4 = netip.MustParsePrefix("198.18.0.0/15")
	Range6 = netip.MustParsePrefix("2001:db8:1ab::/48")
	// Servers4 and Servers6 are the parts that servers and floating IPs get theirs from.
	Servers4 = netip.MustParsePrefix("198.18.0.0/16")
	Servers6 = netip.MustParsePrefix("2001:db8:1ab::/49")
	// Computer4 and Computer6 are this computer's addresses on its link to the lab's router.
	Computer4 = netip.MustParsePrefix("198.19.255.1/30")
	Computer6 = netip.MustParsePrefix("2001:db8:1ab:ffff::1/64")
	router4   = netip.MustParsePrefix("198.19.255.2/30")
	router6   = netip.MustParsePrefix("2001:db8:1ab:ffff::2/64")
	// publicGateway4 is every server's gateway, as in the real cloud.
	publicGateway4 = netip.MustParseAddr("172.31.1.1")
	publicGateway6 = netip.MustParseAddr("fe80::1")
)

// APIPort is the TCP port of the API on Computer4.
const APIPort = 4080

const (
	// computerLink is this computer's end of the cable to the router, routerUplink the other.
	computerLink = namePrefix + "up"
	routerUplink = "up"
	publicMTU    = 1500
	// privateMTU is what the real cloud's private networks carry.
	privateMTU = 1450
)

// gatewayMAC is the link-layer address of every router port.
var gatewayMAC = net.HardwareAddr{0x02, 0x1a, 0xb0, 0x00, 0x00, 0x01}

// publicMAC is the link-layer address of a server's public interface.
func publicMAC(id int64) net.HardwareAddr {
	mac := net.HardwareAddr{0x96, 0x00, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(mac[2:], uint32(id))
	return mac
}

// firstHost is the address a server uses of its IPv6 prefix.
func firstHost(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }
