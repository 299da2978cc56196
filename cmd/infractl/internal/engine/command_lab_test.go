//go:build lab

package engine

import (
	"os"
	"testing"
)

func TestTheVersionOfACLIIsWhatItSays(t *testing.T) {
	found, err := findPulumi(t.Context(), []string{"../../../../bin"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if said, err := saidVersion(t.Context(), found.path); err != nil || !found.version.EQ(said) {
		t.Errorf("%s is taken for %s and says %s (%v)", found.path, found.version, said, err)
	}
	if v, ok := builtVersion(os.Args[0]); ok {
		t.Errorf("this test is taken for Pulumi %s", v)
	}
}
