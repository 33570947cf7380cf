package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/registrytest"
	"github.com/proa-os/proa/runtime/endpoint"
	"github.com/proa-os/proa/runtime/image"
)

func client(list ...endpoint.Endpoint) *Client {
	for i := range list {
		list[i].Tags, list[i].Digests = true, true
	}
	c := New(list)
	c.pause = time.Millisecond
	return c
}

func TestManifest(t *testing.T) {
	r, err := registrytest.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want, err := r.PushBusybox("web:1", []byte("no program"), nil, []string{"httpd"})
	if err != nil {
		t.Fatal(err)
	}
	c := client(endpoint.Endpoint{Name: r.Addr + "/web", Insecure: true})
	for _, id := range []string{"1", want} {
		b, err := c.Manifest(t.Context(), id)
		if got := image.Digest(digest.Of(b)); err != nil || got.String() != want {
			t.Errorf("%s: %s %v, want %s", id, got, err, want)
		}
	}
	if _, err := c.Manifest(t.Context(), "2"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a tag that is not there: %v", err)
	}
	plain := client(endpoint.Endpoint{Name: r.Addr + "/web"})
	if _, err := plain.Manifest(t.Context(), "1"); err == nil || !strings.Contains(err.Error(), "refuse plain http") {
		t.Errorf("without TLS: %v", err)
	}
}

// breaking serves one blob, n bytes at a time: then the connection breaks.
type breaking struct {
	blob   []byte
	n      int
	ranges bool
	asked  atomic.Int64
	lie    string // Content-Range of every answer
}

func (b *breaking) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.URL.Path, "/blobs/") {
		return
	}
	b.asked.Add(1)
	var at int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at); err == nil && b.ranges {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, len(b.blob)-1, len(b.blob)))
		if b.lie != "" {
			w.Header().Set("Content-Range", b.lie)
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(b.blob)-at))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		at = 0
	}
	end := min(at+b.n, len(b.blob))
	w.Write(b.blob[at:end])
	w.(http.Flusher).Flush()
	if end < len(b.blob) {
		panic(http.ErrAbortHandler)
	}
}

// TestResume: a blob whose transfer breaks is taken up where it broke, not from the start; where a registry has no ranges, the
// known part is read over.
func TestResume(t *testing.T) {
	blob := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	d := image.Digest(sha256.Sum256(blob))
	for name, c := range map[string]struct {
		serve *breaking
		from  int
		want  string // error
	}{
		"ranges":       {&breaking{blob: blob, n: 300 << 10, ranges: true}, 0, ""},
		"from a part":  {&breaking{blob: blob, n: 300 << 10, ranges: true}, 123457, ""},
		"no ranges":    {&breaking{blob: blob, n: len(blob)}, 500000, ""},
		"no progress":  {&breaking{blob: blob, n: 10}, 0, "gave up after 5 tries"},
		"other range":  {&breaking{blob: blob, n: len(blob), ranges: true, lie: "bytes 1-2/3"}, 5, "asked for bytes from 5 on"},
		"endless tail": {&breaking{blob: append(bytes.Clone(blob), blob...), n: 4 << 20}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(c.serve)
			s.Config.ErrorLog = nil
			s.Start()
			defer s.Close()
			var got bytes.Buffer
			got.Write(blob[:c.from])
			cl := client(endpoint.Endpoint{Name: strings.TrimPrefix(s.URL, "http://") + "/x", Insecure: true})
			err := cl.CopyBlob(t.Context(), d, int64(c.from), int64(len(blob)), &got)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want %q in it", err, c.want)
				}
				return
			}
			if err != nil || !bytes.Equal(got.Bytes(), blob) {
				t.Errorf("%d bytes, %v", got.Len(), err)
			}
			if n := c.serve.asked.Load(); n > 4 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// TestMirrors: a mirror that is down or has not the image is passed over, for tags, digests and in the middle of a blob.
func TestMirrors(t *testing.T) {
	r, err := registrytest.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want, err := r.PushBusybox("web:1", []byte("no program"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := client(endpoint.Endpoint{Name: "127.0.0.1:1/web", Insecure: true, Mirror: true}, endpoint.Endpoint{Name: r.Addr + "/other", Insecure: true, Mirror: true},
		endpoint.Endpoint{Name: r.Addr + "/web", Insecure: true})
	b, err := c.Manifest(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.Resolve(image.Digest(digest.Of(b)), func(d image.Descriptor) ([]byte, error) {
		if d.Digest.String() == want {
			return b, nil
		}
		return c.Blob(t.Context(), d.Digest)
	})
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	l := img.Layers[0]
	if err := c.CopyBlob(t.Context(), l.Digest, 0, l.Size, &got); err != nil || image.Digest(digest.Of(got.Bytes())) != l.Digest {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	if _, err := c.Manifest(t.Context(), "2"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("one endpoint could not be asked, so nobody knows: %v", err)
	}
}

// TestTLS: an unknown authority is refused, and taken with its certificate in the endpoint; so is a client that names itself.
func TestTLS(t *testing.T) {
	user := ""
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, ok := r.BasicAuth()
		if !ok || u != "ann" || p != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			http.Error(w, "{}", http.StatusUnauthorized)
			return
		}
		user = u
		fmt.Fprint(w, `{"schemaVersion":2}`)
	}))
	s.Config.ErrorLog = nil
	defer s.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	e := endpoint.Endpoint{Name: strings.TrimPrefix(s.URL, "https://") + "/x", Auth: endpoint.Auth{Username: "ann", Password: "secret"}}
	if _, err := client(e).Manifest(t.Context(), "1"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("unknown authority: %v", err)
	}
	e.CA = ca
	if _, err := client(e).Manifest(t.Context(), "1"); err != nil || user != "ann" {
		t.Errorf("%v, user %q", err, user)
	}
	e.Auth.Password = "wrong"
	if _, err := client(e).Manifest(t.Context(), "1"); err == nil || !strings.Contains(err.Error(), "containerctl login") {
		t.Errorf("wrong password: %v", err)
	}
}

// TestLongAnswer: no document grows beyond its bound in memory.
func TestLongAnswer(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "manifests") {
			for range 10 {
				w.Write(make([]byte, 1<<20))
			}
		}
	}))
	defer s.Close()
	_, err := client(endpoint.Endpoint{Name: strings.TrimPrefix(s.URL, "http://") + "/x", Insecure: true}).Manifest(t.Context(), "1")
	if err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("error %v", err)
	}
}

func TestCancel(t *testing.T) {
	stop := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "blobs") {
			<-stop
		}
	}))
	defer s.Close()
	defer close(stop)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := client(endpoint.Endpoint{Name: strings.TrimPrefix(s.URL, "http://") + "/x", Insecure: true}).CopyBlob(ctx, image.Digest{}, 0, 10, new(bytes.Buffer))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}
