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
	for _, c := range []struct {
		st   unix.Statfs_t
		root bool
		free int64
		err  error
	}{
		{unix.Statfs_t{Blocks: 1000, Bfree: 500, Bavail: 400, Bsize: 4096, Files: 1000, Ffree: 64}, false, 400 * 4096, nil},
		{unix.Statfs_t{Blocks: 1000, Bfree: 500, Bavail: 400, Bsize: 4096, Files: 1000, Ffree: 64}, true, 480 * 4096, nil},
		{unix.Statfs_t{Blocks: 1000, Bfree: 500, Bavail: 400, Bsize: 4096, Files: 1000, Ffree: 63}, true, 0, ErrFiles},
		{unix.Statfs_t{Blocks: 1000, Bfree: 500, Bavail: 400, Bsize: 4096}, false, 400 * 4096, nil}, // it does not count files
		{unix.Statfs_t{Blocks: 1000, Bfree: 500, Bavail: 400, Bsize: 4096, Flags: unix.ST_RDONLY}, true, 0, syscall.EROFS},
	} {
		if got, err := free(c.st, c.root); got != c.free || !errors.Is(err, c.err) {
			t.Errorf("%+v, root %v: got %d, %v, want %d, %v", c.st, c.root, got, err, c.free, c.err)
		}
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
