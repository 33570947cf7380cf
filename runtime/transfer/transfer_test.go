package transfer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string) *Tree {
	t.Helper()
	tree, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: owners need root; the stories in qemu-tests run as root")
	}
}

// try does the steps and stops at the first error.
func try(t *testing.T, steps ...error) {
	t.Helper()
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
}

// TestCopy: what is packed on one side is unpacked on the other, and tar reads it as well.
func TestCopy(t *testing.T) {
	needRoot(t)
	from, to := t.TempDir(), t.TempDir()
	at := filepath.Join
	old := time.Unix(1e9, 5000)
	try(t, os.MkdirAll(at(from, "d/sub"), 0o750), os.WriteFile(at(from, "d/file"), []byte("content"), 0o640), os.Link(at(from, "d/file"), at(from, "d/same")),
		os.Symlink("/etc/passwd", at(from, "d/link")), unix.Mkfifo(at(from, "d/fifo"), 0o600), os.Chown(at(from, "d/file"), 7, 8), unix.Chmod(at(from, "d/file"), 0o4750),
		os.Chtimes(at(from, "d/file"), old, old), os.Chtimes(at(from, "d/sub"), old, old))
	var archive bytes.Buffer
	try(t, open(t, from).Pack(&archive, "/d", "new", false))
	saved := archive.Bytes()
	try(t, open(t, to).Unpack(bytes.NewReader(saved), "/", true))
	var st, same syscall.Stat_t
	try(t, syscall.Stat(at(to, "new/file"), &st), syscall.Stat(at(to, "new/same"), &same))
	if st.Uid != 7 || st.Gid != 8 || st.Mode&0o7777 != 0o4750 || st.Mtim.Nano() != old.UnixNano() || st.Ino != same.Ino {
		t.Errorf("%+v", st)
	}
	if l, err := os.Readlink(at(to, "new/link")); l != "/etc/passwd" {
		t.Errorf("link %q %v", l, err)
	}
	if info, err := os.Stat(at(to, "new/sub")); err != nil || !info.ModTime().Equal(old) || info.Mode().Perm() != 0o750 {
		t.Errorf("directory: %v %v", info, err)
	}
	// Without owners everything is root's and nothing setuid.
	try(t, os.Mkdir(at(to, "mine"), 0o755), open(t, to).Unpack(bytes.NewReader(saved), "/mine", false), syscall.Stat(at(to, "mine/new/file"), &st))
	if st.Uid != 0 || st.Mode&0o7777 != 0o750 {
		t.Errorf("%+v", st)
	}
	c := exec.Command("tar", "-t")
	c.Stdin = bytes.NewReader(saved)
	if out, err := c.CombinedOutput(); err != nil || string(out) != "new/\nnew/fifo\nnew/file\nnew/link\nnew/same\nnew/sub/\n" {
		t.Errorf("tar: %v\n%s", err, out)
	}
	// With numbers of a user namespace.
	shifted := open(t, to)
	shifted.First, shifted.Count = 100000, 1000
	try(t, os.Mkdir(at(to, "shifted"), 0o755), shifted.Unpack(bytes.NewReader(saved), "/shifted", true), syscall.Stat(at(to, "shifted/new/file"), &st))
	if st.Uid != 100007 || st.Gid != 100008 {
		t.Errorf("%+v", st)
	}
	archive.Reset()
	try(t, shifted.Pack(&archive, "/shifted/new/file", "f", false))
	if h, err := tar.NewReader(&archive).Next(); err != nil || h.Uid != 7 {
		t.Errorf("%+v %v", h, err)
	}
}

// archiveOf is a hostile one.
func archiveOf(headers ...tar.Header) io.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		if h.Size > 0 {
			w.Write([]byte("evil"))
		}
	}
	w.Close()
	return &b
}

// TestStaysInside: neither names, nor links of the archive, nor links that are there lead out of the tree.
func TestStaysInside(t *testing.T) {
	needRoot(t)
	for name, headers := range map[string][]tar.Header{
		"dots":            {{Typeflag: tar.TypeReg, Name: "../victim"}},
		"dots inside":     {{Typeflag: tar.TypeReg, Name: "a/../../victim"}},
		"its own link":    {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "OUT"}, {Typeflag: tar.TypeReg, Name: "l/victim"}},
		"its own, as dir": {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "OUT"}, {Typeflag: tar.TypeDir, Name: "l"}, {Typeflag: tar.TypeReg, Name: "l/victim"}},
		"a link there":    {{Typeflag: tar.TypeReg, Name: "there/victim"}},
		"a hard link out": {{Typeflag: tar.TypeLink, Name: "h", Linkname: "../victim"}},
		"a hard link via": {{Typeflag: tar.TypeLink, Name: "h", Linkname: "there/victim"}},
		"a device":        {{Typeflag: tar.TypeBlock, Name: "sda", Devmajor: 8}},
	} {
		outside := t.TempDir()
		tree := filepath.Join(outside, "tree")
		try(t, os.Mkdir(tree, 0o755), os.Symlink(outside, filepath.Join(tree, "there")), os.WriteFile(filepath.Join(outside, "victim"), []byte("good"), 0o644))
		for i := range headers {
			headers[i].Linkname = strings.ReplaceAll(headers[i].Linkname, "OUT", outside)
		}
		if err := open(t, tree).Unpack(archiveOf(headers...), "/", true); err == nil {
			t.Errorf("%s: no error", name)
		}
		if b, err := os.ReadFile(filepath.Join(outside, "victim")); string(b) != "good" {
			t.Errorf("%s: %q %v", name, b, err)
		}
		if b, err := os.ReadFile(filepath.Join(tree, "h")); err == nil {
			t.Errorf("%s: it has %q", name, b)
		}
	}
	// A link that is replaced is not written through, and a path that is asked for leads to what it means inside.
	outside := t.TempDir()
	tree := filepath.Join(outside, "tree")
	try(t, os.MkdirAll(filepath.Join(tree, "etc"), 0o755), os.WriteFile(filepath.Join(tree, "victim"), []byte("inside"), 0o644), os.WriteFile(filepath.Join(outside, "victim"), []byte("good"), 0o644),
		os.Symlink(filepath.Join(outside, "victim"), filepath.Join(tree, "f")), os.Symlink("../../..", filepath.Join(tree, "etc/up")))
	try(t, open(t, tree).Unpack(archiveOf(tar.Header{Typeflag: tar.TypeReg, Name: "f"}), "/", false))
	if b, _ := os.ReadFile(filepath.Join(outside, "victim")); string(b) != "good" {
		t.Errorf("written through a link: %q", b)
	}
	var archive bytes.Buffer
	try(t, open(t, tree).Pack(&archive, "/etc/up/victim", "v", true))
	r := tar.NewReader(&archive)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(r); string(b) != "inside" {
		t.Errorf("read %q", b)
	}
}

// TestRace: somebody swaps a directory for a link to outside all the time.
func TestRace(t *testing.T) {
	needRoot(t)
	outside := t.TempDir()
	tree := filepath.Join(outside, "tree")
	try(t, os.MkdirAll(filepath.Join(tree, "d"), 0o755), os.Symlink(outside, filepath.Join(tree, "l")))
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, filepath.Join(tree, "d"), unix.AT_FDCWD, filepath.Join(tree, "l"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	tr := open(t, tree)
	for i := range 300 {
		tr.Unpack(archiveOf(tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d/sub/victim%d", i)}), "/", false)
		var b bytes.Buffer
		tr.Pack(&b, "/d", "d", false)
		if bytes.Contains(b.Bytes(), []byte("tree/")) {
			t.Fatal("what is outside was packed")
		}
	}
	if es, _ := filepath.Glob(filepath.Join(outside, "sub*")); len(es) > 0 {
		t.Errorf("outside: %v", es)
	}
}

// TestMount: a file that is a mount in the mount namespace of a container's is written through, and nothing takes its place.
func TestMount(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	var sources []string
	for _, name := range []string{"conf", "fixed"} {
		source := filepath.Join(dir, name+"-source")
		sources = append(sources, source)
		try(t, os.WriteFile(source, []byte("old"), 0o644), os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	root := elsewhere(t, func() error {
		return errors.Join(unix.Mount(sources[0], filepath.Join(dir, "conf"), "", unix.MS_BIND, ""), unix.Mount(sources[1], filepath.Join(dir, "fixed"), "", unix.MS_BIND, ""),
			unix.Mount("", filepath.Join(dir, "fixed"), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	})
	tree := open(t, root)
	try(t, tree.Unpack(archiveOf(tar.Header{Typeflag: tar.TypeReg, Name: "conf", Mode: 0o600}), dir, false))
	if err := tree.Unpack(archiveOf(tar.Header{Typeflag: tar.TypeReg, Name: "fixed"}), dir, false); !errors.Is(err, unix.EROFS) {
		t.Errorf("onto a read-only mount: %v", err)
	}
	if err := tree.Unpack(archiveOf(tar.Header{Typeflag: tar.TypeSymlink, Name: "conf", Linkname: "x"}), dir, false); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a link onto a mount: %v", err)
	}
	for i, want := range []string{"evil", "old"} {
		source, seen := sources[i], root+strings.TrimSuffix(sources[i], "-source")
		a, _ := os.ReadFile(source)
		b, _ := os.ReadFile(seen)
		if string(a) != want || string(b) != want {
			t.Errorf("%s has %q, in the container there is %q, want %q", source, a, b, want)
		}
	}
}

// elsewhere does something in a mount namespace of its own, and returns that one's root.
func elsewhere(t *testing.T, do func() error) string {
	t.Helper()
	end, done := make(chan struct{}), make(chan error)
	t.Cleanup(func() { close(end) })
	var root string
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with the goroutine
		root = fmt.Sprintf("/proc/self/task/%d/root", unix.Gettid())
		err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		if err == nil {
			err = do()
		}
		done <- err
		<-end
	}()
	try(t, <-done)
	return root
}
