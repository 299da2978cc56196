// Package traces lists everything of this computer in which a lab could leave
// something behind, for tests that compare before and after.
package traces

import (
	"fmt"
	"os/exec"
)

// commands print one kind of thing each, in an order that does not change by itself.
var commands = map[string]string{
	"network namespaces": "ls /run/netns 2>/dev/null || true",
	"interfaces":         "ip -o link | sed 's/^[0-9]*: //' | sort",
	"addresses":          "ip -o addr | sed 's/^[0-9]*: //' | grep -v valid_lft.*sec | sort",
	"routes":             "ip route show table all | sort; ip -6 route show table all | sort",
	"firewall rules":     "nft list ruleset",
	"kernel parameters":  "sysctl -a --pattern 'forward|rp_filter|inotify' 2>/dev/null | sort",
	// /run/netns itself is a mount of iproute2's, which goes with the lab only if it came with it.
	"mounts":         "sed 's/^[0-9]* [0-9]* //' /proc/self/mountinfo | grep -v ' /run/netns ' | sort",
	"control groups": "find /sys/fs/cgroup -name 'infractl-lab*' -o -name 'ilab-*'",
	"loop devices":   "losetup -a",
	"processes":      "ps -eo stat,args | grep -v '^Z' | grep -E '[s]ystemd-nspawn|[k]eeper.sh|[i]lab-' || true",
	"files":          "ls -d /run/infractl-lab /run/systemd/nspawn/*/ilab-* /var/lib/infractl-lab-test-* 2>/dev/null || true",
}

// Take returns what there is now, by kind.
func Take() (map[string]string, error) {
	taken := map[string]string{}
	for kind, command := range commands {
		out, err := exec.Command("sh", "-c", command).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("list %s: %w: %s", kind, err, out)
		}
		taken[kind] = string(out)
	}
	return taken, nil
}

// Differences describes what is not as it was.
func Differences(before, after map[string]string) []string {
	var out []string
	for kind := range before {
		if before[kind] != after[kind] {
			out = append(out, fmt.Sprintf("%s were\n%s\nand are\n%s", kind, before[kind], after[kind]))
		}
	}
	return out
}
