package engine

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestAttributesThatWereCutOffAreRemovedAndNoOthers(t *testing.T) {
	const whole = `{"user.content_type":"application/json","md5":"AA=="}` + "\n"
	files := map[string]string{
		".pulumi/meta.yaml.attrs":                "",
		".pulumi/stacks/shop/lab.json":           "{",
		".pulumi/stacks/shop/lab.json.attrs":     whole[:20],
		".pulumi/stacks/shop/lab.json.bak.attrs": whole,
		".pulumi/stacks/shop/labs.json.attrs":    "",
		".pulumi/stacks/other/lab.json.attrs":    "",
	}
	dir := put(t, files)
	for range 2 {
		if err := mendAttributes("file://"+dir+"?no_tmp_dir=true", "shop", "lab"); err != nil {
			t.Fatal(err)
		}
	}
	var gone []string
	for name := range files {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			gone = append(gone, name)
		}
	}
	slices.Sort(gone)
	if want := []string{".pulumi/meta.yaml.attrs", ".pulumi/stacks/shop/lab.json.attrs"}; !slices.Equal(gone, want) {
		t.Errorf("removed %q", gone)
	}
	for _, nowhere := range []string{"file://" + filepath.Join(dir, "nothing"), "s3://bucket"} {
		if err := mendAttributes(nowhere, "shop", "lab"); err != nil {
			t.Errorf("%s: %v", nowhere, err)
		}
	}
}
