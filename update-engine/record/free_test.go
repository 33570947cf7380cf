package record

import (
	"errors"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFree(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		t.Fatal(err)
	}
	if free, err := s.Free(); err != nil || free <= 0 || free > int64(st.Blocks)*st.Bsize {
		t.Errorf("free: %d, %v", free, err)
	}
	if _, err := (&Store{dir: "/nowhere"}).Free(); err == nil {
		t.Error("a folder that is not there: no error")
	}
	// Every Linux has a file system that is mounted read-only or none that is; sysfs of an unprivileged container is the usual one.
	for _, dir := range []string{"/sys", "/proc/sys", "/boot/efi"} {
		if unix.Statfs(dir, &st) == nil && st.Flags&unix.ST_RDONLY != 0 {
			if _, err := (&Store{dir: dir}).Free(); !errors.Is(err, syscall.EROFS) {
				t.Errorf("%s is read-only: %v", dir, err)
			}
		}
	}
}
