package stacks

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestMachinesAreDescribedWithoutAState(t *testing.T) {
	e := decodeGood(t, racks(two))
	hosts, err := Describe(e)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(slices.Sorted(maps.Keys(hosts)), " "); got != "app-2 db-1" {
		t.Fatalf("described are %s", got)
	}
	for path, want := range map[string]string{
		"/etc/haproxy/haproxy.cfg":            "10.9.0.2",
		"/etc/nginx/infractl-listen.conf":     "10.9.0.1:8081",
		"/etc/infractl/host":                  "prod db-1",
		"/etc/infractl/postgresql/server.key": "@@secret.db.tls.key@@",
	} {
		if text := hosts["db-1"].Files[path].Content; !strings.Contains(text, want) {
			t.Errorf("%s on db-1 lacks %s:\n%s", path, want, text)
		}
	}
	if _, there := hosts["app-2"].Files["/etc/infractl/postgresql/server.key"]; there {
		t.Error("app-2 would have a database")
	}
}

func TestOnlyMachinesThatNoAPIMadeAreDescribed(t *testing.T) {
	config := racks(`{"lb":[{"address":"192.0.2.11"}]}`)
	delete(config, "infractl:target")
	config["infractl:tiers"] = `{"lb":{"target":"hosts"}}`
	delete(config, "infractl:vip")
	hosts, err := Describe(decodeGood(t, config))
	if err != nil || len(hosts) != 1 || len(hosts["lb-1"].Files) == 0 {
		t.Errorf("%d hosts, %v", len(hosts), err)
	}
}

func TestPortsAreThoseOfAllTiersOnTheMachine(t *testing.T) {
	e := decodeGood(t, racks(two))
	ports := e.Ports(e.OwnMachines()[0])
	for port, who := range map[int]string{80: "HAProxy", 8081: "nginx", 5432: "PostgreSQL", 18001: "the application's processes", 8080: "the application"} {
		if ports[port] != who {
			t.Errorf("%d: %q, not %q", port, ports[port], who)
		}
	}
	if who := ports[18003]; who != "" {
		t.Errorf("%s has more ports than processes", who)
	}
}
