package store

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/ref"
)

// A fetched image in a directory, as the fetcher leaves it.
type fetched struct {
	dir   string
	top   image.Digest
	layer image.Digest // of the blob
	diff  image.Digest
}

func sum(b []byte) image.Digest { return image.Digest(sha256.Sum256(b)) }

// fetch writes an image with one layer that holds the file "f"; change may alter the plain archive's claimed diffID.
func fetch(t *testing.T, content string, diff func(image.Digest) image.Digest) fetched {
	t.Helper()
	f := fetched{dir: t.TempDir()}
	blobs := filepath.Join(f.dir, "blobs/sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(b []byte) image.Digest {
		d := sum(b)
		if err := os.WriteFile(filepath.Join(blobs, d.Hex()), b, 0o644); err != nil {
			t.Fatal(err)
		}
		return d
	}
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: int64(len(content)), Mode: 0o644})
	io.WriteString(w, content)
	w.Close()
	z := gzip.NewWriter(&packed)
	z.Write(plain.Bytes())
	z.Close()
	f.diff = diff(sum(plain.Bytes()))
	f.layer = put(packed.Bytes())
	config := put(fmt.Appendf(nil, `{"os":"linux","architecture":%q,"rootfs":{"diff_ids":[%q]},"config":{"Cmd":["/f"]}}`, runtime.GOARCH, f.diff))
	cfg, _ := os.ReadFile(filepath.Join(blobs, config.Hex()))
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},
		"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}]}`, config, len(cfg), f.layer, packed.Len())
	f.top = put(manifest)
	return f
}

func same(d image.Digest) image.Digest { return d }

func (f fetched) blob(d image.Digest) string { return filepath.Join(f.dir, "blobs/sha256", d.Hex()) }

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f fetched) importTo(t *testing.T, s *Store, name string) error {
	t.Helper()
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	r, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	_, err = s.Import(t.Context(), root, f.top, r)
	return err
}

// holds counts what is in a directory of the store.
func holds(t *testing.T, s *Store, dir string) int {
	t.Helper()
	es, err := os.ReadDir(s.path(dir))
	if err != nil {
		t.Fatal(err)
	}
	return len(es)
}

func TestImport(t *testing.T) {
	s := open(t)
	f := fetch(t, "content", same)
	if err := f.importTo(t, s, "example.org/a:1"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(s.LayerDir(f.diff), "f"))
	if err != nil || string(b) != "content" {
		t.Errorf("%q %v", b, err)
	}
	r, _ := ref.Parse("example.org/a:1")
	rec, err := s.Image(r)
	if err != nil || rec.Top != f.top || rec.Digest != f.top {
		t.Errorf("%+v %v", rec, err)
	}
	img, err := s.Load(rec.Digest)
	if err != nil || img.Config.Config.Cmd[0] != "/f" {
		t.Errorf("%+v %v", img, err)
	}
	// A second pull brings documents only.
	os.Remove(f.blob(f.layer))
	if err := f.importTo(t, s, "example.org/b:1"); err != nil {
		t.Fatal(err)
	}
	if n := holds(t, s, "images"); n != 2 {
		t.Errorf("%d images", n)
	}
}

// TestImportRefuses: the fetcher is an enemy. Whatever it leaves, root unpacks nothing and the store is as before.
func TestImportRefuses(t *testing.T) {
	rewrite := func(change func([]byte) []byte) func(*testing.T, fetched) {
		return func(t *testing.T, f fetched) {
			b, err := os.ReadFile(f.blob(f.layer))
			if err == nil {
				err = os.WriteFile(f.blob(f.layer), change(b), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	replace := func(with func(string) error) func(*testing.T, fetched) {
		return func(t *testing.T, f fetched) {
			name := f.blob(f.layer)
			if err := errors.Join(os.Remove(name), with(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*testing.T, fetched)
		want   string
	}{
		"one bit":   {rewrite(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), "expected sha256"},
		"truncated": {rewrite(func(b []byte) []byte { return b[:len(b)-1] }), "bytes, found"},
		"appended":  {rewrite(func(b []byte) []byte { return append(b, 0) }), "bytes, found"},
		"missing":   {func(_ *testing.T, f fetched) { os.Remove(f.blob(f.layer)) }, "no such file"},
		"fifo":      {replace(func(n string) error { return unix.Mkfifo(n, 0o644) }), "no regular file"},
		"directory": {replace(func(n string) error { return os.Mkdir(n, 0o755) }), "no regular file"},
		"link":      {replace(func(n string) error { return os.Symlink("/etc/passwd", n) }), ""},
		"manifest":  {func(_ *testing.T, f fetched) { os.WriteFile(f.blob(f.top), []byte(`{"schemaVersion":2}`), 0o644) }, "expected"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			f := fetch(t, "content", same)
			c.change(t, f)
			err := f.importTo(t, s, "example.org/a:1")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
			for _, d := range []string{"layers", "images", "blobs/sha256", "tmp"} {
				if n := holds(t, s, d); n != 0 {
					t.Errorf("%s holds %d", d, n)
				}
			}
		})
	}
}

func TestWrongDiffID(t *testing.T) {
	s := open(t)
	f := fetch(t, "content", func(d image.Digest) image.Digest { d[0] ^= 1; return d })
	if err := f.importTo(t, s, "example.org/a:1"); err == nil || !strings.Contains(err.Error(), "expected diffID") {
		t.Errorf("error %v", err)
	}
	if holds(t, s, "layers")+holds(t, s, "tmp") != 0 {
		t.Error("something of the layer is left")
	}
}

func TestImportAsksForDigest(t *testing.T) {
	s := open(t)
	f := fetch(t, "content", same)
	other := sum([]byte("other"))
	if err := f.importTo(t, s, "example.org/a@"+other.String()); err == nil || !strings.Contains(err.Error(), "the fetcher brought") {
		t.Errorf("error %v", err)
	}
}

// TestLeftovers: what a power cut left in tmp and fetch goes at the next change; a fetch directory in use stays.
func TestLeftovers(t *testing.T) {
	s := open(t)
	for _, d := range []string{"tmp/layer-1/tree", "fetch/pull-1/blobs"} {
		if err := os.MkdirAll(s.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	_, remove, err := s.FetchDir(os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if a, b := holds(t, s, "tmp"), holds(t, s, "fetch"); a != 0 || b != 1 {
		t.Errorf("tmp holds %d, fetch %d", a, b)
	}
	remove()
	if n := holds(t, s, "fetch"); n != 0 {
		t.Errorf("fetch holds %d", n)
	}
}

func TestContainers(t *testing.T) {
	s := open(t)
	f := fetch(t, "content", same)
	if err := f.importTo(t, s, "example.org/a:1"); err != nil {
		t.Fatal(err)
	}
	c := &Container{Name: "web", Image: "example.org/a:1", Manifest: f.top, Layers: []image.Digest{f.diff}, Created: time.Unix(1, 0).UTC(), Network: "none"}
	if err := s.AddContainer(c); err != nil {
		t.Fatal(err)
	}
	if err := s.AddContainer(c); !errors.Is(err, ErrExists) {
		t.Errorf("second one: %v", err)
	}
	got, err := s.Container("web")
	a, _ := json.Marshal(c)
	b, _ := json.Marshal(got)
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("%s %v", b, err)
	}
	r, _ := ref.Parse("example.org/a:1")
	if err := s.Untag(r); err != nil {
		t.Fatal(err)
	}
	if !s.HasLayer(f.diff) {
		t.Error("rmi took a container's layer away")
	}
	if err := s.RemoveContainer("web"); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(); err != nil || s.HasLayer(f.diff) {
		t.Errorf("a layer nobody needs is kept: %v", err)
	}
	for _, n := range []string{"", "..", "a/b", "-x", ".x", strings.Repeat("x", 64)} {
		if _, err := s.Container(n); err == nil || errors.Is(err, ErrNoContainer) {
			t.Errorf("name %q: %v", n, err)
		}
	}
}
