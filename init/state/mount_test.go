package state

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

func TestMakeDirs(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	makeAndCheck := func() {
		t.Helper()
		if err := MakeDirs(root, Dirs()); err != nil {
			t.Fatal(err)
		}
		for _, d := range Dirs() {
			fi, err := root.Stat(d.Name)
			if err != nil || fi.Mode() != d.Mode|fs.ModeDir {
				t.Errorf("%s: got %v, %v; want %v", d.Name, fi.Mode(), err, d.Mode)
			}
		}
	}
	makeAndCheck()
	if err := os.WriteFile(filepath.Join(dir, "home", "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// As after a power cut between making a directory and setting its mode.
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	makeAndCheck()
	if _, err := os.Stat(filepath.Join(dir, "home", "kept")); err != nil {
		t.Error(err)
	}
}

// State is not verified: what lies in it must not lead out of it.
func TestMakeDirsHostile(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"file":            func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"link to outside": func(path string) error { return os.Symlink("/", path) },
		"link to inside":  func(path string) error { return os.Symlink("home", path) },
		"link to nowhere": func(path string) error { return os.Symlink("nowhere", path) },
	} {
		dir := t.TempDir()
		if err := make(filepath.Join(dir, "lib")); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if err := MakeDirs(root, Dirs()); err == nil {
			t.Errorf("%s in the place of a directory: no error", name)
		}
	}
}

// A superblock as mke2fs makes it, and as the kernel marks it.
func TestKnownBad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if out, err := testenv.Tools(t).Command(t.Context(), "mke2fs", "-q", "-F", "-t", "ext4", path, "8M").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	if knownBad(path) {
		t.Error("a new file system is said to have errors")
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{3}, 1024+0x3a); err != nil { // clean, errors detected
		t.Fatal(err)
	}
	if !knownBad(path) {
		t.Error("errors are not seen")
	}
	if knownBad(path+".none") || knownBad(os.DevNull) {
		t.Error("errors in nothing")
	}
}
