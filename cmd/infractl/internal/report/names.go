// Package report shows people what the engine does: while it runs, one line
// for each thing that happens, or a live display in a terminal; before it runs,
// a plan; and afterwards what failed and what to do about it.
package report

import "strings"

// nouns are what resources are called, by type.
var nouns = map[string]string{
	serverType: "server",
	"hcloud:index/serverNetwork:ServerNetwork":   "private address",
	"hcloud:index/network:Network":               "network",
	"hcloud:index/networkSubnet:NetworkSubnet":   "subnet",
	"hcloud:index/firewall:Firewall":             "firewall",
	"hcloud:index/placementGroup:PlacementGroup": "placement group",
	"hcloud:index/floatingIp:FloatingIp":         "floating IP",
	"hcloud:index/sshKey:SshKey":                 "SSH key",
	ConfigurationType:                            "configuration",
	"infractl:secret:HostKey":                    "host key",
	"infractl:secret:Password":                   "password",
	"infractl:secret:Authority":                  "certificate authority",
	"infractl:secret:Certificate":                "certificate",
}

// ConfigurationType is the type of what is on a host.
const ConfigurationType = "infractl:host:Configuration"

// serverType is the type of what a host runs on.
const serverType = "hcloud:index/server:Server"

// hidden says whether a resource is only a part of the engine's bookkeeping.
func hidden(typ string) bool {
	return strings.HasPrefix(typ, "pulumi:") || strings.HasPrefix(typ, "infractl:tier:")
}

// noun is what a resource of the type is called.
func noun(typ string) string {
	if n, ok := nouns[typ]; ok {
		return n
	}
	return typ[strings.LastIndexByte(typ, ':')+1:]
}

// name is a resource's name, from its URN.
func name(urn string) string {
	return urn[strings.LastIndex(urn, "::")+2:]
}

// typeOf is a resource's type, from its URN.
func typeOf(urn string) string {
	parts := strings.Split(urn, "::")
	if len(parts) < 4 {
		return ""
	}
	t := parts[2]
	return t[strings.LastIndexByte(t, '$')+1:]
}

// verb is an operation's name in three forms.
type verb struct{ doing, done, infinitive string }

// verbs are the operations that are shown, by the engine's name.
var verbs = map[string]verb{
	"create":             {"creating", "created", "create"},
	"update":             {"updating", "updated", "update"},
	"delete":             {"deleting", "deleted", "delete"},
	"replace":            {"replacing", "replaced", "replace"},
	"create-replacement": {"replacing", "replaced", "replace"},
	"delete-replaced":    {"removing the old one", "removed the old one", "remove the old one"},
	"discard-replaced":   {"forgetting the old one", "forgot the old one", "forget the old one"},
}

// Mark is a sign for something that is well, missing, or missing but not needed.
func (s Style) Mark(ok, needed bool) string {
	switch {
	case ok:
		return s.paint(green, "✓")
	case needed:
		return s.paint(red, "✗")
	}
	return s.paint(yellow, "–")
}
