package relocate

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/testenv"
)

func write(t *testing.T, name, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

// dump is everything in a tree that matters, one line a name.
func dump(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, name)
		fmt.Fprintf(&b, "%s %o %d:%d %d", rel, st.Mode, st.Uid, st.Gid, st.Rdev)
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			fmt.Fprintf(&b, " %d links", st.Nlink)
		}
		if rel != "." {
			fmt.Fprintf(&b, " %d", st.Mtim.Sec)
		}
		if text, err := os.ReadFile(name); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			fmt.Fprintf(&b, " %q", text)
		}
		if target, err := os.Readlink(name); err == nil {
			fmt.Fprintf(&b, " -> %s", target)
		}
		value := make([]byte, 100)
		if n, err := unix.Lgetxattr(name, "trusted.overlay.opaque", value); err == nil {
			fmt.Fprintf(&b, " opaque=%s", value[:n])
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A copy has everything an overlay and a machine rely on, and a second copy over the first is the same.
func TestCopy(t *testing.T) {
	if os.Geteuid() != 0 {
		testenv.Missing(t, "as an ordinary user: owners, devices and attributes of overlays are root's")
	}
	from, to := t.TempDir(), t.TempDir()
	write(t, from+"/lib/etc/upper/shadow", "secret", 0o640)
	if err := os.Chown(from+"/lib/etc/upper/shadow", 0, 42); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(from+"/lib/etc/upper/removed", unix.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
	write(t, from+"/lib/etc/upper/dir/a", "a", 0o4755)
	opaque := unix.Lsetxattr(from+"/lib/etc/upper/dir", "trusted.overlay.opaque", []byte("y"), 0)
	if err := os.Link(from+"/lib/etc/upper/dir/a", from+"/b"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../x", from+"/lib/link"); err != nil {
		t.Fatal(err)
	}
	write(t, from+"/tmp/f", "", 0o600)
	if err := os.Chmod(from+"/tmp", 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	want := dump(t, from)
	if opaque == nil && !strings.Contains(want, "opaque=y") {
		t.Fatalf("the test sees no attribute:\n%s", want)
	}
	for n := range 2 {
		if err := Copy(from, to); err != nil {
			t.Fatal(err)
		}
		if got := dump(t, to); got != want {
			t.Errorf("copy %d: got\n%s\nwant\n%s", n, got, want)
		}
	}
}

// What the target holds stays where state has nothing of that name, but for what belongs to one machine only.
func TestCopyOverAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		testenv.Missing(t, "as an ordinary user: the copy sets owners")
	}
	from, to := t.TempDir(), t.TempDir()
	write(t, from+"/lib/etc/upper/hostname", "new", 0o644)
	write(t, from+"/srv/a", "new", 0o644)
	write(t, from+"/srv/c/d", "new", 0o644)
	write(t, to+"/lib/etc/upper/sudoers", "another machine's", 0o644)
	write(t, to+"/lib/ignition/provisioned", "", 0o644)
	write(t, to+"/lib/containers/data", "kept", 0o644)
	write(t, to+"/srv/a/was/a/directory", "", 0o644)
	write(t, to+"/srv/c", "was a file", 0o644)
	if err := Copy(from, to); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"lib/containers/data": "kept", "srv/a": "new", "srv/c/d": "new", "lib/etc/upper/hostname": "new"} {
		if got, err := os.ReadFile(filepath.Join(to, name)); string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"lib/etc/upper/sudoers", "lib/ignition/provisioned"} {
		if _, err := os.Lstat(filepath.Join(to, name)); err == nil {
			t.Errorf("%s of another machine is still there", name)
		}
	}
}

// A link on the target does not lead out of it, whether a reset was asked for or not: what it leads to may be the machine's own state.
func TestCopyOverLink(t *testing.T) {
	if os.Geteuid() != 0 {
		testenv.Missing(t, "as an ordinary user: the copy sets owners")
	}
	for _, request := range []string{"", requestText} {
		from, to, own := t.TempDir(), t.TempDir(), t.TempDir()
		write(t, from+"/lib/etc/upper/hostname", "new", 0o644)
		write(t, own+"/etc/upper/hostname", "own", 0o644)
		write(t, own+"/ignition/reset", request, 0o644)
		want := dump(t, own)
		if err := os.Symlink(own, to+"/lib"); err != nil {
			t.Fatal(err)
		}
		if err := Copy(from, to); err != nil {
			t.Fatal(err)
		}
		if got := dump(t, own); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if b, err := os.ReadFile(to + "/lib/etc/upper/hostname"); string(b) != "new" {
			t.Errorf("hostname: got %q, %v", b, err)
		}
	}
}

// Nothing stays of a state that a factory reset has asked to be forgotten, wherever an earlier copy was cut short. A request that keeps
// something is not one of those.
func TestCopyOverForgotten(t *testing.T) {
	if os.Geteuid() != 0 {
		testenv.Missing(t, "as an ordinary user: the copy sets owners")
	}
	names := []string{"lib/containers/data", "lib/ignition/provisioned", "lib/etc/upper/hostname", "log/old", "lost+found/1"}
	for missing := range len(names) {
		from, to := t.TempDir(), t.TempDir()
		write(t, from+"/srv/a", "new", 0o644)
		for _, name := range names[missing:] {
			write(t, to+"/"+name, "old", 0o644)
		}
		write(t, to+"/"+Request, requestText, 0o600)
		for range 2 {
			if err := Copy(from, to); err != nil {
				t.Fatal(err)
			}
		}
		var left []string
		err := filepath.WalkDir(to, func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				left = append(left, strings.TrimPrefix(name, to+"/"))
			}
			return err
		})
		if got := strings.Join(left, " "); err != nil || got != "lost+found/1 srv/a" {
			t.Errorf("%d gone before: left %s, %v", missing, got, err)
		}
	}
	from, to := t.TempDir(), t.TempDir()
	write(t, to+"/"+Request, requestText+"lib/containers\n", 0o600)
	write(t, to+"/lib/containers/data", "kept", 0o644)
	if err := Copy(from, to); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(to + "/lib/containers/data"); string(b) != "kept" {
		t.Errorf("got %q, %v", b, err)
	}
}
