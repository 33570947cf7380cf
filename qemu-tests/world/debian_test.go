package world

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/proa-os/proa/internal/testenv"
)

// The image is one that the registry gives back whole: its Python starts from its own files.
func TestPushPages(t *testing.T) {
	testenv.Machines(t) // packages may have to be fetched
	r, err := StartRegistry()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.PushPages(t.Context(), "../..", "lab/pages:1", "a page\n"); err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(r.Addr+"/lab/pages:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	untar := exec.Command("tar", "-x", "-C", dir, "--no-same-owner")
	untar.Stdin = mutate.Extract(img)
	if out, err := untar.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	loader := exec.Command(filepath.Join(dir, "lib64/ld-linux-x86-64.so.2"), "--library-path", filepath.Join(dir, "usr/lib/x86_64-linux-gnu"), filepath.Join(dir, "usr/bin/python3.13"), "-c", "import http.server, ssl; print('fine')")
	loader.Env = []string{"PYTHONHOME=" + filepath.Join(dir, "usr")}
	if out, err := loader.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "fine" {
		t.Errorf("python3.13: %v\n%s", err, out)
	}
}
