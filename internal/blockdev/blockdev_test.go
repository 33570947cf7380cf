package blockdev

import (
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's layout on the machines that Proa is for, little-endian ones of 64 bits (linux/blkpg.h): two 64-bit numbers, an int, two names of
// 64 bytes.
func TestPartitionLayout(t *testing.T) {
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

// Who has a partition open for a moment is waited for, who keeps it is not, and no other error is tried again.
func TestWhileBusy(t *testing.T) {
	for _, c := range []struct {
		long  time.Duration
		errs  []error
		want  error
		calls int
	}{
		{time.Minute, []error{unix.EBUSY, unix.EBUSY, nil}, nil, 3},
		{time.Minute, []error{unix.EBUSY, unix.ENXIO, nil}, unix.ENXIO, 2},
		{-time.Second, []error{unix.EBUSY, nil}, unix.EBUSY, 1},
	} {
		calls := 0
		err := whileBusy(c.long, func() error { calls++; return c.errs[calls-1] })
		if err != c.want || calls != c.calls {
			t.Errorf("%v: got %v after %d calls, want %v after %d", c.errs, err, calls, c.want, c.calls)
		}
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
