package assets

import (
	"bytes"
	"compress/gzip"
	"io"
	"regexp"
	"testing"
)

func TestNamesChangeWithTheContent(t *testing.T) {
	for _, file := range All() {
		if !regexp.MustCompile(`^\w+\.[0-9a-f]{12}\.\w+$`).MatchString(file.Hashed) {
			t.Errorf("%s is served as %s", file.Name, file.Hashed)
		}
	}
}

func TestCompressedFilesAreTheSameEachTimeAndUnpackToTheContent(t *testing.T) {
	for _, file := range All() {
		packed := file.Gzip()
		if packed == nil {
			continue
		}
		if !bytes.Equal(packed, file.Gzip()) {
			t.Errorf("%s is compressed differently each time", file.Name)
		}
		reader, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		if content, err := io.ReadAll(reader); err != nil || !bytes.Equal(content, file.Content) {
			t.Errorf("%s does not unpack to itself: %v", file.Name, err)
		}
	}
}
