package store

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemoveDeepTree: a workload can make directories deeper than this process may hold descriptors or a path can name. What is
// left of it must not stop every later change of the store.
func TestRemoveDeepTree(t *testing.T) {
	s := open(t)
	outside := filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	top := s.path("tmp", "gone-1")
	fd, err := unix.Open(filepath.Dir(top), unix.O_PATH|unix.O_DIRECTORY, 0)
	for i := 0; i < 3000 && err == nil; i++ {
		name := "a"
		if i == 0 {
			name = "gone-1"
		}
		if err = unix.Mkdirat(fd, name, 0o755); err == nil {
			below := -1
			if below, err = unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
				unix.Close(fd)
				fd = below
			}
		}
		if err == nil && i%100 == 0 {
			for _, e := range []error{unix.Mkdirat(fd, ".up-7", 0o700), unix.Mkdirat(fd, "b", 0o700), unix.Symlinkat(outside, fd, "l"),
				unix.Mknodat(fd, "f", unix.S_IFIFO|0o600, 0), unix.Mknodat(fd, "b/f", unix.S_IFREG|0o400, 0)} {
				if e != nil {
					err = e
				}
			}
		}
	}
	unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	unlock, err := s.Lock()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatalf("%.200v", err)
	}
	unlock()
	if n := holds(t, s, "tmp"); n != 0 {
		t.Errorf("tmp holds %d", n)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error("followed a link:", err)
	}
}
