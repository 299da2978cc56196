package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/infractl/infractl/lab"
	"github.com/infractl/infractl/lab/machine"
)

func TestLabStatusIsATableOfHostsAndFaults(t *testing.T) {
	var out strings.Builder
	err := printStatus(&out, lab.Status{
		State: "up", Endpoint: "http://198.19.255.1:4080/v1", Dir: "/var/lib/infractl-lab", Guarded: true,
		Machines: []machine.State{
			{ID: 1, Name: "lab-lb-1", Image: "debian-13", Status: "frozen", IPv4: netip.MustParseAddr("198.18.0.1"),
				Private: []netip.Addr{netip.MustParseAddr("10.0.1.11")}, Floating: []netip.Prefix{netip.MustParsePrefix("198.18.0.9/32")}},
			{ID: 2, Name: "lab-web-1", Image: "debian-12", Status: "off", IPv6: netip.MustParseAddr("2001:db8:1ab:1::1")},
		},
		Faults: machine.FaultList{
			Cuts:       []machine.Cut{{From: 1, To: 2, Scope: machine.Private}},
			Isolations: []machine.Isolation{{Server: 2, Scope: machine.Both}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `lab       up
endpoint  http://198.19.255.1:4080/v1
state     /var/lib/infractl-lab
guard     on

HOST       IMAGE      STATE   UP  PUBLIC             PRIVATE    FLOATING
lab-lb-1   debian-13  frozen  -   198.18.0.1         10.0.1.11  198.18.0.9/32
lab-web-1  debian-12  off     -   2001:db8:1ab:1::1  -          -

FAULT     HOST       TO         NETWORK
cut       lab-lb-1   lab-web-1  private
isolated  lab-web-1  -          both
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestLabFaultWantsTheRightNumberOfHosts(t *testing.T) {
	for _, args := range [][]string{{"cut", "web-1"}, {"freeze"}, {"kill", "a", "b"}, {"heal", "web-1"}} {
		err := newApp().Run(append([]string{"infractl", "lab", "fault"}, args...))
		if exitCode(err) != 2 || !strings.Contains(err.Error(), "host names") {
			t.Errorf("%v: exit code %d, %v", args, exitCode(err), err)
		}
	}
}
