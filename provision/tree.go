package provision

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/infractl/infractl/provision/desired"
)

// pieceSize is the length in bytes of the pieces in which an archive is sent.
const pieceSize = 256 << 10

// sendTree writes a tree's content as the script's function tree reads it. The
// digest is computed again on the way: what arrives under the name of a digest
// must be what the digest says.
func sendTree(w io.Writer, t desired.Tree) error {
	pieces := &pieceWriter{w: w}
	buffered := bufio.NewWriterSize(pieces, pieceSize)
	// The fastest level: between servers the processor is the bottleneck.
	zip, err := gzip.NewWriterLevel(buffered, gzip.BestSpeed)
	if err != nil {
		return err
	}
	sum, err := writeTree(zip, t.Source)
	if err != nil {
		return err
	}
	if sum != t.Digest {
		return fmt.Errorf("%s has changed since its digest was taken (%s, now %s)", t.Source, t.Digest, sum)
	}
	if err := zip.Close(); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	_, err = io.WriteString(w, "0\n")
	return err
}

// writeTree writes the directory dir as a tar archive and returns its digest.
func writeTree(w io.Writer, dir string) (string, error) {
	entries, err := desired.Entries(dir)
	if err != nil {
		return "", err
	}
	sum := desired.NewDigester()
	archive := tar.NewWriter(w)
	for _, e := range entries {
		if err := writeEntry(archive, sum, dir, e); err != nil {
			return "", err
		}
	}
	return sum.Sum(), archive.Close()
}

func writeEntry(archive *tar.Writer, sum *desired.Digester, dir string, e desired.Entry) error {
	// A file keeps its time, to the second: web servers make validators of
	// it, which must be the same on all hosts that serve the file.
	header := &tar.Header{Name: e.Path, ModTime: e.Modified.Truncate(time.Second), Format: tar.FormatPAX}
	switch e.Kind {
	case desired.Directory:
		header.Typeflag, header.Mode, header.Name = tar.TypeDir, 0o755, e.Path+"/"
	case desired.Symlink:
		header.Typeflag, header.Mode, header.Linkname = tar.TypeSymlink, 0o777, e.Link
	case desired.Executable:
		header.Typeflag, header.Mode, header.Size = tar.TypeReg, 0o755, e.Size
	default:
		header.Typeflag, header.Mode, header.Size = tar.TypeReg, 0o644, e.Size
	}
	if err := archive.WriteHeader(header); err != nil {
		return fmt.Errorf("packing %s: %w", e.Path, err)
	}
	if header.Typeflag != tar.TypeReg {
		return sum.Add(e, nil)
	}
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(e.Path)))
	if err != nil {
		return err
	}
	defer f.Close()
	return sum.Add(e, io.TeeReader(f, archive))
}

// pieceWriter writes the length of every piece before it.
type pieceWriter struct{ w io.Writer }

func (p *pieceWriter) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if _, err := fmt.Fprintf(p.w, "%d\n", len(b)); err != nil {
		return 0, err
	}
	return p.w.Write(b)
}
