package change

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestList judges by what the kernel's overlayfs makes of changes.
func TestList(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipping: mounting needs root")
	}
	dir := t.TempDir()
	at := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	for _, d := range []string{"upper", "work", "seen", "lower/etc/deep", "lower/kept/inner", "lower/gone/inner", "lower/anew/old", "lower/swap", "lower/same"} {
		if err := os.MkdirAll(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"lower/etc/passwd", "lower/etc/deep/f", "lower/kept/f", "lower/gone/f", "lower/anew/f", "lower/anew/both", "lower/file", "lower/removed", "lower/swap/f", "lower/same/f"} {
		if err := os.WriteFile(at(f), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("etc", at("lower/link")), os.Symlink("etc", at("lower/dirlink"))); err != nil {
		t.Fatal(err)
	}
	options := "lowerdir=" + at("lower") + ",upperdir=" + at("upper") + ",workdir=" + at("work")
	if err := unix.Mount("overlay", at("seen"), "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(at("seen"), unix.MNT_DETACH)
	write := func(name string) error { return os.WriteFile(at("seen", name), []byte("y"), 0o644) }
	before, err := os.Stat(at("seen/etc/deep"))
	err = errors.Join(err,
		write("etc/passwd"), os.MkdirAll(at("seen/new/dir"), 0o755), write("new/dir/f"), // changed, and added
		os.RemoveAll(at("seen/gone")), os.Remove(at("seen/removed")), // deleted
		os.RemoveAll(at("seen/anew")), os.Mkdir(at("seen/anew"), 0o755), write("anew/both"), write("anew/own"), // an opaque directory
		os.RemoveAll(at("seen/swap")), write("swap"), os.Remove(at("seen/file")), os.Mkdir(at("seen/file"), 0o755), write("file/f"), // of another type
		os.Remove(at("seen/dirlink")), os.Mkdir(at("seen/dirlink"), 0o755), write("dirlink/passwd"), os.Chmod(at("seen/link"), 0o755),
		os.Chmod(at("seen/kept/inner"), 0o700),
		write("new/short"), os.Remove(at("seen/new/short")), // comes and goes
		os.Mkdir(at("seen/same/ours"), 0o755), write("same/ours/f"), // is left out
		write("same/x"), os.Remove(at("seen/same/x")), // nothing in the end
		write("etc/deep/x"), os.Remove(at("seen/etc/deep/x")), os.Chtimes(at("seen/etc/deep"), time.Now(), before.ModTime()),
		unix.Mkfifo(at("seen/new/fifo"), 0o600), os.Symlink("/etc/passwd", at("seen/new/out")))
	if err != nil {
		t.Fatal(err)
	}
	upper, err := os.OpenRoot(at("upper"))
	if err != nil {
		t.Fatal(err)
	}
	defer upper.Close()
	lower, err := os.OpenRoot(at("lower"))
	if err != nil {
		t.Fatal(err)
	}
	defer lower.Close()
	list, err := List(upper, lower, "/same/ours", "/etc/passwd", "/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range list {
		got = append(got, c.Kind+" "+c.Path)
	}
	want := []string{"C /anew", "C /anew/both", "D /anew/f", "D /anew/old", "A /anew/own", "C /dirlink", "A /dirlink/passwd", "C /etc", "C /etc/passwd", "C /file", "A /file/f", "D /gone",
		"C /kept", "C /kept/inner", "A /new", "A /new/dir", "A /new/dir/f", "A /new/fifo", "A /new/out", "D /removed", "C /swap"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
