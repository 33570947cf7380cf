package inroot

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRegular: links lead where they would for a process whose root it is.
func TestRegular(t *testing.T) {
	dir := t.TempDir()
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"absolute": "/file", "up": "../../../file", "out": "/etc/passwd", "round": "/round", "magic": "/proc/self/root/etc/passwd"} {
		try(os.Symlink(to, filepath.Join(dir, name)))
	}
	try(os.WriteFile(filepath.Join(dir, "file"), []byte("inside"), 0o644))
	try(unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
	root, err := os.Open(dir)
	try(err)
	defer root.Close()
	for _, name := range []string{"file", "/file", "../file", "absolute", "up"} {
		f, err := Regular(int(root.Fd()), name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if b, err := io.ReadAll(f); string(b) != "inside" {
			t.Errorf("%s: %q %v", name, b, err)
		}
		f.Close()
	}
	for name, want := range map[string]error{"out": fs.ErrNotExist, "magic": fs.ErrNotExist, "round": unix.ELOOP, "pipe": ErrNotRegular, ".": ErrNotRegular} {
		if _, err := Regular(int(root.Fd()), name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}
