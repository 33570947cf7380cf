package blockdev

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"
)

// The kernel's layout on 64-bit machines (linux/blkpg.h): two 64-bit numbers, an int, two names of 64 bytes.
func TestPartitionLayout(t *testing.T) {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("another layout")
	}
	p := partition(5, 1<<20, 2<<20)
	b := (*[152]byte)(unsafe.Pointer(&p))
	if unsafe.Sizeof(p) != 152 {
		t.Fatalf("struct blkpg_partition has %d bytes, want 152", unsafe.Sizeof(p))
	}
	want := [152]byte{2: 0x10, 10: 0x20, 16: 5}
	if *b != want {
		t.Errorf("got % x", *b)
	}
}

func TestNotADevice(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, "/dev/null", file + "x"} {
		if d, err := Open(path); err == nil {
			t.Errorf("open %s: got %v", path, d.Name())
		}
		if n, err := Number(path); err == nil {
			t.Errorf("number of %s: got %s", path, n)
		}
	}
}
