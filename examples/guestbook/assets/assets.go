// Package assets has the files that browsers load besides pages. Each is served
// under a name that contains a hash of its content, so that browsers and
// proxies may keep it forever: another content has another name.
package assets

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed files/*
var files embed.FS

// Prefix is the path below which all files are served.
const Prefix = "/assets/"

// CacheControl is the header for everything below Prefix.
const CacheControl = "public, max-age=31536000, immutable"

// File is one asset.
type File struct {
	Name    string // as in the source, such as style.css
	Hashed  string // as served, such as style.0123456789ab.css
	Content []byte
}

// All returns every asset, sorted by name.
func All() []File {
	entries, err := fs.ReadDir(files, "files")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	all := make([]File, 0, len(entries))
	for _, entry := range entries {
		content, err := files.ReadFile("files/" + entry.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(content)
		ext := path.Ext(entry.Name())
		all = append(all, File{
			Name:    entry.Name(),
			Hashed:  strings.TrimSuffix(entry.Name(), ext) + "." + hex.EncodeToString(sum[:6]) + ext,
			Content: content,
		})
	}
	return all
}

// Gzip returns the content compressed as well as gzip can, the same bytes each
// time, or nil where that saves nothing.
func (f File) Gzip() []byte {
	var buffer bytes.Buffer
	writer, err := gzip.NewWriterLevel(&buffer, gzip.BestCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	// Writing to memory cannot fail.
	_, _ = writer.Write(f.Content)
	_ = writer.Close()
	if buffer.Len() >= len(f.Content) {
		return nil
	}
	return buffer.Bytes()
}

// Paths maps a file's name to the path it is served under.
func Paths() map[string]string {
	paths := map[string]string{}
	for _, file := range All() {
		paths[file.Name] = Prefix + file.Hashed
	}
	return paths
}

// Handler serves the files below Prefix. In front of the application a web
// server does that; this is for running it alone.
func Handler() http.Handler {
	type answer struct {
		contentType string
		content     []byte
	}
	answers := map[string]answer{}
	for _, file := range All() {
		answers[Prefix+file.Hashed] = answer{mime.TypeByExtension(path.Ext(file.Name)), file.Content}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		found, ok := answers[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", CacheControl)
		w.Header().Set("Content-Type", found.contentType)
		w.Header().Set("Content-Length", fmt.Sprint(len(found.content)))
		_, _ = w.Write(found.content)
	})
}
