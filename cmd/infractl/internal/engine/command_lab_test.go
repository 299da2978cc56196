//go:build lab

package engine

import (
	"os"
	"testing"
)

func TestTheVersionThatACLIWasBuiltFromIsWhatItSays(t *testing.T) {
	const built = "../../../../bin/pulumi"
	if !executable(built) {
		t.Skip("bin/pulumi was not built: there is an official one")
	}
	read, ok := builtVersion(built)
	said, err := saidVersion(t.Context(), built)
	if !ok || err != nil || !read.EQ(said) {
		t.Errorf("it was built from %s (%v) and says %s (%v)", read, ok, said, err)
	}
	if v, ok := builtVersion(os.Args[0]); ok {
		t.Errorf("this test is taken for Pulumi %s", v)
	}
}
