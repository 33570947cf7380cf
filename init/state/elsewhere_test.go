package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

const someID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"

func TestElsewhere(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, ok, err := Elsewhere(root); ok || err != nil {
		t.Errorf("a machine without a pointer: got %v, %v", ok, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "lib/ignition"), 0o755); err != nil {
		t.Fatal(err)
	}
	for text, good := range map[string]bool{
		"var 1\n" + someID + "\n":                  true,
		"var 1\n" + strings.ToUpper(someID) + "\n": true,
		"":                            false,
		"var 2\n" + someID + "\n":     false,
		"var 1\n" + someID[1:] + "\n": false,
		"var 1\n/dev/sda1\n":          false,
		"var 1\n" + someID + "\n" + someID + "\n": false,
	} {
		if err := os.WriteFile(filepath.Join(dir, Pointer), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		id, ok, err := Elsewhere(root)
		if ok != good || (err == nil) != good || good && id.String() != someID {
			t.Errorf("%q: got %s, %v, %v", text, id, ok, err)
		}
	}
}

// A file system that mke2fs has made is found by the UUID that it was given.
func TestIs(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 8<<20); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id := ID{0x0a, 0x1b, 0x2c, 0x3d, 0x4e, 0x5f, 0x60, 0x71, 0x82, 0x93, 0xa4, 0xb5, 0xc6, 0xd7, 0xe8, 0xf9}
	if Is(f, id) || Is(f, ID{}) {
		t.Error("an empty disk is taken for state")
	}
	if out, err := testenv.Tools(t).Command(t.Context(), "mke2fs", "-q", "-t", "ext4", "-U", someID, image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !Is(f, id) || Is(f, ID{1}) {
		t.Error("the file system is not known by its UUID alone")
	}
}
