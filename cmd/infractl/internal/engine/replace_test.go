package engine

import (
	"slices"
	"strings"
	"testing"
)

func TestAHostIsForgottenWithItsKeyAndNothingElse(t *testing.T) {
	st := testState(t)
	server, urns := belongings(st, "web-1")
	if server.ID != "21" {
		t.Fatalf("server %+v", server)
	}
	var dropped []string
	for _, r := range st.drop(urns) {
		dropped = append(dropped, r.Type+" "+r.name())
	}
	slices.Sort(dropped)
	want := []string{
		"hcloud:index/server:Server web-1", "hcloud:index/serverNetwork:ServerNetwork web-1",
		"infractl:host:Configuration web-1", "infractl:secret:HostKey web-1",
	}
	if !slices.Equal(dropped, want) {
		t.Errorf("forgotten: %q", dropped)
	}
	// Cut off here, the next run finds nothing more to forget.
	if server, urns := belongings(st, "web-1"); server.ID != "" || len(urns) != 0 {
		t.Errorf("left: %+v %v", server, urns)
	}
}

func TestADatabaseHostIsNotReplaced(t *testing.T) {
	e := &Engine{Environment: "lab"}
	err := e.CheckReplace("db-1")
	if KindOf(err) != Invalid || !strings.Contains(err.Error(), "up --recreate db-1") {
		t.Errorf("%v", err)
	}
	if err := e.CheckReplace("web-9"); KindOf(err) != Invalid || !strings.Contains(err.Error(), "web-9 is not in the configuration") {
		t.Errorf("%v", err)
	}
}

func TestTheHolderIsThatOfIPv4AndBothFamiliesAreLookedAt(t *testing.T) {
	four := func(server string) Holder { return Holder{Family: "ipv4", Server: server} }
	six := func(server string) Holder { return Holder{Family: "ipv6", Server: server} }
	for _, c := range []struct {
		all    []Holder
		server string
		apart  bool
	}{
		{[]Holder{four("lab-lb-1")}, "lab-lb-1", false},
		{[]Holder{six("lab-lb-2")}, "lab-lb-2", false},
		{[]Holder{six("lab-lb-2"), four("lab-lb-2")}, "lab-lb-2", false},
		{[]Holder{six("lab-lb-2"), four("lab-lb-1")}, "lab-lb-1", true},
		{[]Holder{four("lab-lb-1"), six("lab-lb-2")}, "lab-lb-1", true},
		{[]Holder{four("lab-lb-1"), six("")}, "lab-lb-1", true},
		{[]Holder{four("")}, "", false},
	} {
		if server, apart := together(c.all); server != c.server || apart != c.apart {
			t.Errorf("%v: %q, apart %v", c.all, server, apart)
		}
	}
}

func TestOutputsAreReadFromTheState(t *testing.T) {
	st, err := parseState([]byte(`{"deployment":{"resources":[{"urn":"a::s","type":"pulumi:pulumi:Stack","outputs":{"url":"http://x/","ssh":{"port":22}}}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	out := (&Engine{state: st}).Recorded()
	ssh, _ := out["ssh"].(map[string]any)
	if out["url"] != "http://x/" || ssh["port"] != float64(22) {
		t.Errorf("%v", out)
	}
	if out := (&Engine{state: testState(t)}).Recorded(); out != nil {
		t.Errorf("a state without outputs gives %v", out)
	}
}
