package rubbish

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// few lets f hold at most a hundred descriptors.
func few(t *testing.T, f func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	f()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
}

func gone(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v, want that it has gone", name, err)
	}
}

// TestDeep: a workload can make directories deeper than this process may hold descriptors or a path can name.
func TestDeep(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	top := filepath.Join(t.TempDir(), "gone-1")
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
	few(t, func() { err = Remove(top) })
	if err != nil {
		t.Fatalf("%.200v", err)
	}
	gone(t, top)
	if _, err := os.Stat(outside); err != nil {
		t.Error("followed a link:", err)
	}
}

// TestOther: what is no directory, and what is not there.
func TestOther(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{os.WriteFile(dir+"/f", nil, 0), os.Symlink("/", dir+"/l"), unix.Mkfifo(dir+"/p", 0)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"f", "l", "p", "none", "none/none"} {
		if err := Remove(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
		gone(t, filepath.Join(dir, name))
	}
}

// TestMarked: as by chattr +i and +a, which a privileged workload can do to what it sees of the machine's.
func TestMarked(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT CHECKED that marked files go: needs root")
	}
	top := filepath.Join(t.TempDir(), "top")
	for _, d := range []string{"i/in/deep", "a/in/deep"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"file", "i/file", "i/in/file", "a/file", "a/in/deep/file"} {
		if err := os.WriteFile(filepath.Join(top, f), nil, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	const i, a = 0x10, 0x20
	for _, mark := range []struct {
		flag int
		name string
	}{{i, "file"}, {a, "a/in/deep/file"}, {a, "a/in/deep"}, {a, "a/in"}, {a, "a"}, {i, "i/in/file"}, {i, "i/in/deep"}, {i, "i/in"}, {i, "i/file"}, {i, "i"}, {i, ""}} {
		f, err := os.Open(filepath.Join(top, mark.name))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, mark.flag); err != nil {
			t.Skip("SKIPPED, NOT CHECKED that marked files go: the file system has no marks:", err)
		}
		t.Cleanup(func() { unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0); f.Close() })
	}
	if err := Remove(top); err != nil {
		t.Error(err)
	}
	gone(t, top)
}

// TestMounted: what is mounted in it stays as it is.
func TestMounted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT CHECKED that mounts stay: needs root")
	}
	top, other := t.TempDir(), t.TempDir()
	point := filepath.Join(top, "in/point")
	for _, err := range []error{os.WriteFile(other+"/f", nil, 0o600), os.MkdirAll(point, 0o700), unix.Mount(other, point, "", unix.MS_BIND, "")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { unix.Unmount(point, unix.MNT_DETACH) })
	if err := Remove(top); !errors.Is(err, unix.EBUSY) {
		t.Errorf("got %v, want %v", err, unix.EBUSY)
	}
	if _, err := os.Stat(other + "/f"); err != nil {
		t.Error(err)
	}
}
