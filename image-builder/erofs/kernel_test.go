package erofs

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/image-builder/tree"
	"github.com/proa-os/proa/internal/guesttest"
	"github.com/proa-os/proa/internal/testenv"
)

func TestMain(m *testing.M) { guesttest.Main(m) }

var oddTime = time.Date(2031, 3, 4, 5, 6, 7, 0, time.UTC)

// TestKernelReadsItBack makes a file system of everything that is odd but allowed; the kernel mounts it and finds that and
// nothing else. The guest makes the same tree again to compare with.
func TestKernelReadsItBack(t *testing.T) {
	if guesttest.Inside() {
		readBack(t, odd(t))
		return
	}
	tools := testenv.Machines(t)
	img := filepath.Join(t.TempDir(), "odd.erofs")
	if _, err := Make(t.Context(), tools, odd(t), img, uuid, oddTime); err != nil {
		t.Fatal(err)
	}
	if out, err := tools.Command(t.Context(), "fsck.erofs", img).CombinedOutput(); err != nil {
		t.Errorf("fsck.erofs: %v\n%s", err, out)
	}
	guesttest.Run(t, guesttest.Machine{Modules: []string{"virtio_blk", "crc32c_generic", "erofs"}, Disks: []guesttest.Disk{{File: img, Options: ",readonly=on"}}})
}

// odd is the same tree at every call.
func odd(t *testing.T) *tree.Tree {
	t.Helper()
	tr := linked(t)
	add := func(e tree.Entry) {
		t.Helper()
		if err := tr.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	file := func(path string, content []byte) tree.Entry {
		return tree.Entry{Path: path, Type: tree.File, Mode: 0o644, Size: int64(len(content)), Content: tree.Bytes(content)}
	}
	for _, size := range []int{0, 1, 31, 32, 4000, 4064, 4095, 4096, 4097, 8191, 8192, 1<<20 + 1, 24<<20 + 7} {
		add(file(fmt.Sprintf("size/%d", size), noise(size)))
	}
	add(file("size/zeros", make([]byte, 3<<20)))
	for i, name := range []string{
		strings.Repeat("n", 255), strings.Repeat("ü", 127), " ", "-rf", "a b", `q"uo'te\`, "*?[", "$HOME", "#", ".hidden", "...",
		"trailing.", "файл", "\u202egnp.exe", "e\u0301", "é", "COM1", "not\xff\xfeutf8",
	} {
		add(file("name/"+name, fmt.Appendf(nil, "content %d", i)))
	}
	add(file(strings.Repeat("deep/", 300)+"end", []byte("at the bottom")))
	for i := range 3000 {
		add(file(fmt.Sprintf("many/%d", i), fmt.Append(nil, i)))
	}
	for i, target := range []string{"/", "..", ".", "nowhere", strings.Repeat("x", 255), strings.Repeat("y/", 2000), "size/1"} {
		add(tree.Entry{Path: fmt.Sprintf("link/%d", i), Type: tree.Symlink, Mode: 0o777, Target: target})
	}
	for _, mode := range []uint32{0, 0o111, 0o4755, 0o2755, 0o1777, 0o7777, 0o400} {
		e := file(fmt.Sprintf("mode/file-%o", mode), []byte("m"))
		e.Mode = mode
		add(e)
		add(tree.Entry{Path: fmt.Sprintf("mode/dir-%o", mode), Type: tree.Dir, Mode: mode})
	}
	for _, id := range []int{1, 65534, 65535, 65536, 1<<31 - 1, 1<<32 - 2} {
		e := file(fmt.Sprintf("owner/%d", id), []byte("o"))
		e.UID, e.GID = id, id-1
		add(e)
	}
	for _, d := range [][2]uint32{{0, 0}, {1, 3}, {255, 255}, {256, 256}, {4095, 1<<20 - 1}} {
		add(tree.Entry{Path: fmt.Sprintf("device/%d-%d", d[0], d[1]), Type: tree.Char, Mode: 0o640, GID: 6, Major: d[0], Minor: d[1]})
	}
	addXattrs(add, file)
	return tr
}

func addXattrs(add func(tree.Entry), file func(string, []byte) tree.Entry) {
	for name, xattrs := range map[string]map[string]string{
		"capability": {"security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
		"empty":      {"user.empty": ""},
		"binary":     {"user.binary": "\x00\x01\xff\n", "trusted.binary": "\x00"},
		"shared-1":   {"user.shared": strings.Repeat("s", 500)},
		"shared-2":   {"user.shared": strings.Repeat("s", 500)},
		"long":       {"user." + strings.Repeat("k", 250): strings.Repeat("v", 2000)},
		"several":    {"user.a": "1", "user.b": "2", "user.c": "3", "trusted.d": "4", "security.e": "5"},
	} {
		e := file("xattr/"+name, []byte(name))
		e.Xattrs = xattrs
		add(e)
	}
	add(tree.Entry{Path: "xattr/dir", Type: tree.Dir, Mode: 0o755, Xattrs: map[string]string{"user.of": "a directory"}})
}

// linked is a tree from a package with hard links, which become files of their own.
func linked(t *testing.T) *tree.Tree {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./hard/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "./hard/one", Mode: 0o640, Uid: 3, Size: 5},
		{Typeflag: tar.TypeLink, Name: "./hard/two", Linkname: "./hard/one"},
		{Typeflag: tar.TypeLink, Name: "./hard/three", Linkname: "hard/two"},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, strings.Repeat("h", int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tr, err := tree.FromTar(bytes.NewReader(b.Bytes()), "linked")
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func noise(size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(size), byte(size >> 8)}).Read(b)
	return b
}

// readBack mounts the disk and compares both ways.
func readBack(t *testing.T, want *tree.Tree) {
	const root = "/mnt"
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/dev/vda", root, "erofs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/new", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing gives %v, want %v", err, unix.EROFS)
	}
	entries := map[string]tree.Entry{}
	for e := range want.All() {
		entries[e.Path] = e
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name := strings.TrimPrefix(path, root+"/")
		e, ok := entries[name]
		if !ok {
			t.Errorf("%q is in the file system and not in the tree", name)
			return nil
		}
		delete(entries, name)
		compare(t, path, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range entries {
		t.Errorf("%q is in the tree and not in the file system", name)
	}
	t.Logf("compared %d entries", want.Len())
}

func compare(t *testing.T, path string, e tree.Entry) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Errorf("%q: %v", e.Path, err)
		return
	}
	types := map[tree.Type]uint32{tree.Dir: unix.S_IFDIR, tree.File: unix.S_IFREG, tree.Symlink: unix.S_IFLNK, tree.Char: unix.S_IFCHR}
	if got, want := st.Mode, types[e.Type]|e.Mode; got != want {
		t.Errorf("%q: mode %#o, want %#o", e.Path, got, want)
	}
	if int64(st.Uid) != int64(e.UID) || int64(st.Gid) != int64(e.GID) {
		t.Errorf("%q: owner %d:%d, want %d:%d", e.Path, st.Uid, st.Gid, e.UID, e.GID)
	}
	if st.Mtim.Sec != oddTime.Unix() {
		t.Errorf("%q: time %d, want %d", e.Path, st.Mtim.Sec, oddTime.Unix())
	}
	switch e.Type {
	case tree.File:
		got, err := os.ReadFile(path)
		var want bytes.Buffer
		if _, werr := e.WriteTo(&want); err != nil || werr != nil || st.Size != e.Size || !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%q: size %d, %d bytes read (%v), want %d (%v): or other bytes", e.Path, st.Size, len(got), err, e.Size, werr)
		}
	case tree.Symlink:
		if got, err := os.Readlink(path); err != nil || got != e.Target {
			t.Errorf("%q: target %q, %v, want %q", e.Path, got, err, e.Target)
		}
	case tree.Char:
		if got := [2]uint32{unix.Major(st.Rdev), unix.Minor(st.Rdev)}; got != [2]uint32{e.Major, e.Minor} {
			t.Errorf("%q: device %v, want %d:%d", e.Path, got, e.Major, e.Minor)
		}
	}
	compareXattrs(t, path, e)
}

func compareXattrs(t *testing.T, path string, e tree.Entry) {
	t.Helper()
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Errorf("%q: list attributes: %v", e.Path, err)
		return
	}
	names := strings.FieldsFunc(string(list[:max(n, 0)]), func(r rune) bool { return r == 0 })
	for name, want := range e.Xattrs {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil || string(value[:n]) != want {
			t.Errorf("%q: attribute %s is %q, %v, want %q", e.Path, name, value[:max(n, 0)], err, want)
		}
		names = slices.DeleteFunc(names, func(s string) bool { return s == name })
	}
	if len(names) > 0 {
		t.Errorf("%q: attributes %q too many", e.Path, names)
	}
}
