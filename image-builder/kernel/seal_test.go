package kernel

import (
	"os"
	"path/filepath"
	"testing"
)

// A prepared kernel that somebody has changed must not go into an image.
func TestIntact(t *testing.T) {
	for name, c := range map[string]struct {
		change func(dir string) error
		want   bool
	}{
		"untouched": {func(string) error { return nil }, true},
		"renamed":   {func(string) error { return nil }, true},
		"flipped, old time": {func(dir string) error {
			f := filepath.Join(dir, "usr/a.ko")
			fi, err := os.Stat(f)
			if err != nil {
				return err
			}
			if err := os.WriteFile(f, []byte("modulE"), 0o644); err != nil {
				return err
			}
			return os.Chtimes(f, fi.ModTime(), fi.ModTime())
		}, false},
		"missing": {func(dir string) error { return os.Remove(filepath.Join(dir, "usr/a.ko")) }, false},
		"more":    {func(dir string) error { return os.WriteFile(filepath.Join(dir, "usr/b.ko"), nil, 0o644) }, false},
		"no seal": {func(dir string) error { return os.Remove(filepath.Join(dir, sealFile)) }, false},
		"gone":    {os.RemoveAll, false},
	} {
		dir := filepath.Join(t.TempDir(), "kernel")
		if err := os.MkdirAll(filepath.Join(dir, "usr"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "usr/a.ko"), []byte("module"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := writeSeal(dir); err != nil {
			t.Fatal(err)
		}
		if name == "renamed" { // as prepare does after the seal
			if err := os.Rename(dir, dir+"2"); err != nil {
				t.Fatal(err)
			}
			dir += "2"
		}
		if err := c.change(dir); err != nil {
			t.Fatal(err)
		}
		if got := intact(dir); got != c.want {
			t.Errorf("%s: intact: %v, want %v", name, got, c.want)
		}
		if err := discard(dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 0 {
			t.Errorf("%s: left: %v, %v", name, left, err)
		}
	}
}
