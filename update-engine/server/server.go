// Package server serves a repository folder over HTTP: static files, with ranges, ETags and conditional requests.
//
// It is what any web server does, for tests, the demo and small sites; nothing in it is trusted by the machines. The files' names carry
// versions or hashes, so that all but timestamp.json may be cached for ever.
package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strings"
)

// Handler serves metadata/ and targets/ of the repository in root, and nothing else of it; folders are not listed.
func Handler(root *os.Root) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
		if dir, _, _ := strings.Cut(name, "/"); dir != "metadata" && dir != "targets" || strings.HasPrefix(path.Base(name), ".") {
			http.NotFound(w, r)
			return
		}
		serveFile(w, r, root, name)
	})
}

func serveFile(w http.ResponseWriter, r *http.Request, root *os.Root, name string) {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		http.NotFound(w, r)
		return
	}
	if err != nil {
		http.Error(w, "cannot read it", http.StatusInternalServerError)
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", fmt.Sprintf(`"%x-%x"`, fi.ModTime().UnixNano(), fi.Size()))
	if path.Base(name) == "timestamp.json" {
		w.Header().Set("Cache-Control", "no-cache")
	} else {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeContent(w, r, "", fi.ModTime(), f)
}
