package registry

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/runtime/endpoint"
	"github.com/proa-os/proa/runtime/image"
)

// silent is a client of a registry that may be silent for a moment only.
func silent(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	c := client(endpoint.Endpoint{Name: strings.TrimPrefix(s.URL, "http://") + "/x", Insecure: true})
	c.places[0].stall = 200 * time.Millisecond
	return c
}

// begin sends the start of an answer, and then nothing until the client has gone.
func begin(w http.ResponseWriter, r *http.Request, b []byte) {
	w.Write(b)
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

// stalls asks, and wants an error of silence before long.
func stalls(t *testing.T, ask func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- ask() }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "no data for 200ms") {
			t.Errorf("error %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("waits for ever")
	}
}

func TestSilence(t *testing.T) {
	for _, at := range []string{"/token", "/v2/x/manifests/1"} {
		t.Run(at, func(t *testing.T) {
			c := silent(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == at:
					begin(w, r, []byte(`{"token":`))
				case r.URL.Path == "/v2/" && at == "/token":
					w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, r.Host))
					w.WriteHeader(http.StatusUnauthorized)
				}
			})
			stalls(t, func() error { _, err := c.Manifest(t.Context(), "1"); return err })
		})
	}
	t.Run("drops", func(t *testing.T) {
		c := silent(t, func(w http.ResponseWriter, r *http.Request) {
			for strings.Contains(r.URL.Path, "manifests") && r.Context().Err() == nil {
				w.Write([]byte("."))
				w.(http.Flusher).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		})
		stalls(t, func() error { _, err := c.Manifest(t.Context(), "1"); return err })
	})
}

// TestStalledBlob: a blob that stops coming is taken up again where it stopped.
func TestStalledBlob(t *testing.T) {
	blob := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	var asked atomic.Int64
	c := silent(t, func(w http.ResponseWriter, r *http.Request) {
		var at int
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return
		}
		if asked.Add(1); r.Header.Get("Range") == "" {
			begin(w, r, blob[:1000])
			return
		}
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, len(blob)-1, len(blob)))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(blob[at:])
	})
	var got bytes.Buffer
	if err := c.CopyBlob(t.Context(), sha256.Sum256(blob), 0, int64(len(blob)), &got); err != nil || !bytes.Equal(got.Bytes(), blob) || asked.Load() != 2 {
		t.Errorf("%d bytes, asked %d times: %v", got.Len(), asked.Load(), err)
	}
}

// slow is a reader of answers that is busy for longer than a registry may be silent.
type slow struct{ bytes.Buffer }

func (s *slow) Write(p []byte) (int, error) {
	time.Sleep(300 * time.Millisecond)
	return s.Buffer.Write(p)
}

// TestSlowReader: the registry is not blamed for what takes long here.
func TestSlowReader(t *testing.T) {
	blob := bytes.Repeat([]byte("x"), 600<<10)
	var asked atomic.Int64
	c := silent(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			asked.Add(1)
			w.Write(blob)
		}
	})
	var got slow
	if err := c.CopyBlob(t.Context(), sha256.Sum256(blob), 0, int64(len(blob)), &got); err != nil || got.Len() != len(blob) || asked.Load() != 1 {
		t.Errorf("%d bytes, asked %d times: %v", got.Len(), asked.Load(), err)
	}
}

// TestUploadNobodyReads: neither is an upload waited for for ever that the registry takes nothing of; one it takes slowly is not given up.
func TestUploadNobodyReads(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) image.Digest {
		d := image.Digest(digest.Of(b))
		if err := os.WriteFile(filepath.Join(dir, "blobs/sha256", d.Hex()), b, 0o644); err != nil {
			t.Fatal(err)
		}
		return d
	}
	blob := make([]byte, 32<<20)
	m := write(fmt.Appendf(nil, `{"config":{"digest":%q,"size":%d}}`, write(blob), len(blob)))
	layout, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer layout.Close()
	registry := func(take func(r *http.Request)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodHead:
				w.WriteHeader(http.StatusNotFound)
			case r.Method == http.MethodPost:
				w.Header().Set("Location", "/upload")
				w.WriteHeader(http.StatusAccepted)
			case r.URL.Path == "/upload":
				take(r)
				w.WriteHeader(http.StatusCreated)
			case r.Method == http.MethodPut:
				w.WriteHeader(http.StatusCreated)
			}
		}
	}
	end := make(chan struct{})
	c := silent(t, registry(func(*http.Request) { <-end }))
	stalls(t, func() error { return c.Push(t.Context(), layout, m, "1") })
	close(end)
	c = silent(t, registry(func(r *http.Request) {
		for b := make([]byte, 4<<20); ; time.Sleep(50 * time.Millisecond) {
			if _, err := io.ReadFull(r.Body, b); err != nil {
				return
			}
		}
	}))
	if err := c.Push(t.Context(), layout, m, "1"); err != nil {
		t.Error(err)
	}
}
