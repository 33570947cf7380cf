package world

import (
	"archive/tar"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/proa-os/proa/internal/testenv"
)

func TestPushBusybox(t *testing.T) {
	testenv.Tools(t)
	r, err := StartRegistry()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	command := []string{"/bin/sh", "-c", "echo hello"}
	digest, err := r.PushBusybox(t.Context(), "lab/hello:1", map[string]string{"/www/a/index.html": "hello\n"}, command)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(r.HostHost()+"/lab/hello@"+digest, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	image, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil || !slices.Equal(config.Config.Cmd, command) {
		t.Errorf("got command %v, %v, want %q", config, err, command)
	}
	files := map[string]string{}
	rootfs := mutate.Extract(image)
	defer rootfs.Close()
	for tr := tar.NewReader(rootfs); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(h.Name, "/")] = h.Linkname + string(b[:min(len(b), 10)])
	}
	for path, want := range map[string]string{"www/a/index.html": "hello\n", "bin/sh": "busybox", "bin/httpd": "busybox"} {
		if files[path] != want {
			t.Errorf("%s: got %q, want %q", path, files[path], want)
		}
	}
	if !strings.HasPrefix(files["bin/busybox"], "\x7fELF") {
		t.Error("got no busybox")
	}
	if again, err := r.PushBusybox(t.Context(), "lab/again:1", map[string]string{"/www/a/index.html": "hello\n"}, command); err != nil || again != digest {
		t.Errorf("got digest %s, %v, want the same for the same content", again, err)
	}
	if !strings.HasPrefix(r.GuestHost(), "10.0.2.2:") {
		t.Errorf("got %s", r.GuestHost())
	}
}
