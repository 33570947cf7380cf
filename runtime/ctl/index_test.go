package ctl

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/proa-os/proa/internal/registrytest"
)

// TestPullIndex: of an index for many machines this one's image is pulled, with layers compressed in either way, and a program is told how far it is.
func TestPullIndex(t *testing.T) {
	m := bareMachine(t)
	build := func(arch, text string) v1.Image {
		t.Helper()
		img, err := registrytest.Build(registrytest.Image{Layers: [][]registrytest.File{{{Name: "first", Body: text}}}, Config: v1.Config{Cmd: []string{"/x"}}})
		if err != nil {
			t.Fatal(err)
		}
		c, err := img.ConfigFile()
		if err == nil {
			c = c.DeepCopy()
			c.Architecture = arch
			img, err = mutate.ConfigFile(img, c)
		}
		if err != nil {
			t.Fatal(err)
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			h := &tar.Header{Name: "second", Mode: 0o644, Size: int64(len(text))}
			if err := errors.Join(w.WriteHeader(h), writeText(w, text), w.Close()); err != nil {
				return nil, err
			}
			return io.NopCloser(&b), nil
		}, tarball.WithCompression(compression.ZStd), tarball.WithMediaType("application/vnd.oci.image.layer.v1.tar+zstd"))
		if err == nil {
			img, err = mutate.AppendLayers(mutate.MediaType(img, "application/vnd.oci.image.manifest.v1+json"), layer)
		}
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	images := map[string]v1.Image{"linux/" + runtime.GOARCH: build(runtime.GOARCH, "ours"), "linux/s390x": build("s390x", "theirs"), "windows/" + runtime.GOARCH: build(runtime.GOARCH, "windows")}
	top, err := m.reg.PushIndex("many:1", images)
	if err != nil {
		t.Fatal(err)
	}
	out, errs, code := m.ctl("pull", "--tls-verify=false", "--progress", "json", m.reg.Addr+"/many:1")
	if code != 0 || strings.TrimSpace(out) != top {
		t.Fatalf("exit %d, %q, want %s: %s", code, out, top, errs)
	}
	for _, want := range []string{`"state":"waiting"`, `"state":"verified"`, `"state":"unpacked"`} {
		if strings.Count(errs, want) != 2 {
			t.Errorf("want %s of two layers in\n%s", want, errs)
		}
	}
	for _, name := range []string{"first", "second"} {
		found, err := filepath.Glob(filepath.Join(m.dir, "store/layers/*", name))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %v, %v", name, found, err)
		}
		if b, err := os.ReadFile(found[0]); err != nil || string(b) != "ours" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	delete(images, "linux/"+runtime.GOARCH)
	if _, err := m.reg.PushIndex("foreign:1", images); err != nil {
		t.Fatal(err)
	}
	m.mustFail("linux/"+runtime.GOARCH, "pull", "--tls-verify=false", m.reg.Addr+"/foreign:1")
	_, errs, code = m.ctl("pull", "--tls-verify=false", "--progress", "bars", m.reg.Addr+"/many:1")
	if code != 0 || !strings.Contains(errs, "[====") || !strings.Contains(errs, "2 layers, ") || !strings.Contains(errs, " present") {
		t.Errorf("bars: exit %d, %q", code, errs)
	}
	if _, errs, code = m.ctl("pull", "--tls-verify=false", "-q", m.reg.Addr+"/many:1"); code != 0 || errs != "" {
		t.Errorf("quiet: exit %d, %q", code, errs)
	}
}

func writeText(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}
