package vm

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestCopySparse(t *testing.T) {
	const mib = 1 << 20
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	src, err := os.Create(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	pieces := map[int64][]byte{0: []byte("head"), 5*mib + 17: bytes.Repeat([]byte("x"), 70000), 64*mib - 4: []byte("tail")}
	for at, b := range pieces {
		if _, err := src.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := src.Truncate(100 * mib); err != nil { // A hole at the end.
		t.Fatal(err)
	}
	const size = 2 << 40 // as large as stories have them
	if err := CopySparse(to, from, size); err != nil {
		t.Fatal(err)
	}
	dst, err := os.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	info, err := dst.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() != size {
		t.Errorf("got %d bytes, want %d", info.Size(), int64(size))
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 2*mib {
		t.Errorf("got %d bytes on disk, want the holes kept", used)
	}
	for at, want := range pieces {
		got := make([]byte, len(want))
		if _, err := dst.ReadAt(got, at); err != nil || !bytes.Equal(got, want) {
			t.Errorf("at %d: got %.20q, %v, want %.20q", at, got, err, want)
		}
	}
}

func TestCopySparseErrors(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "from")
	if err := os.WriteFile(from, make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := CopySparse(filepath.Join(dir, "to"), from, 512); err == nil || !strings.Contains(err.Error(), "larger disk") {
		t.Errorf("got %v, want an error about the size", err)
	}
	if err := CopySparse(filepath.Join(dir, "to"), filepath.Join(dir, "none"), 0); err == nil {
		t.Error("got no error for a missing image")
	}
}
