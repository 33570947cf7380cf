package registry_test

import (
	"bytes"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/ref"
	"github.com/proa-os/proa/runtime/registry"
	"github.com/proa-os/proa/runtime/registrytest"
)

// flipper changes the first byte of every answer.
type flipper struct{ http.ResponseWriter }

func (f flipper) Write(p []byte) (int, error) {
	q := bytes.Clone(p)
	q[0] ^= 1
	return f.ResponseWriter.Write(q)
}

// serve starts a registry with one image; while bad is set it lies about paths that contain what.
func serve(t *testing.T, bad *atomic.Pointer[string]) (*registrytest.Registry, ref.Ref) {
	t.Helper()
	r, err := registrytest.StartHandler("127.0.0.1:0", func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if what := bad.Load(); what != nil && r.Method == http.MethodGet && strings.Contains(r.URL.Path, *what) {
				w = flipper{w}
			}
			h.ServeHTTP(w, r)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	if _, err := r.PushBusybox("web:1", []byte("no program"), map[string]string{"/www/index.html": "hello"}, []string{"httpd"}); err != nil {
		t.Fatal(err)
	}
	name, err := ref.Parse(r.Addr + "/web:1")
	if err != nil {
		t.Fatal(err)
	}
	return r, name
}

func fetch(t *testing.T, o registry.Options) (image.Digest, int, error) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	o.Dir = root
	top, err := registry.Fetch(t.Context(), o)
	es, _ := os.ReadDir(dir + "/blobs/sha256")
	return top, len(es), err
}

func TestFetch(t *testing.T) {
	var bad atomic.Pointer[string]
	_, name := serve(t, &bad)
	var last registry.Event
	top, blobs, err := fetch(t, registry.Options{Ref: name, Insecure: true, Progress: func(e registry.Event) { last = e }})
	if err != nil || blobs != 4 { // manifest, configuration, two layers
		t.Fatalf("%d blobs, %v", blobs, err)
	}
	if last.Done != last.Total || last.Total == 0 {
		t.Errorf("last progress %+v", last)
	}
	byDigest, err := ref.Parse(strings.TrimSuffix(name.String(), ":1") + "@" + top.String())
	if err != nil {
		t.Fatal(err)
	}
	if again, _, err := fetch(t, registry.Options{Ref: byDigest, Insecure: true}); err != nil || again != top {
		t.Errorf("by digest: %s %v", again, err)
	}
}

func TestFetchRefuses(t *testing.T) {
	var bad atomic.Pointer[string]
	_, name := serve(t, &bad)
	if _, blobs, err := fetch(t, registry.Options{Ref: name}); err == nil || !strings.Contains(err.Error(), "refuse plain http") || blobs != 0 {
		t.Errorf("without TLS: %d blobs, %v", blobs, err)
	}
	lie := "/blobs/"
	bad.Store(&lie)
	if _, blobs, err := fetch(t, registry.Options{Ref: name, Insecure: true}); err == nil || blobs > 1 {
		t.Errorf("changed blob: %d blobs, %v", blobs, err)
	}
}
