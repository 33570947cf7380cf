package tree

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func file(p, content string) Entry {
	return Entry{Path: p, Type: File, Mode: 0o644, Content: Bytes(content), Size: int64(len(content))}
}

func dir(p string, mode uint32) Entry { return Entry{Path: p, Type: Dir, Mode: mode} }

func link(p, target string) Entry {
	return Entry{Path: p, Type: Symlink, Mode: 0o777, Target: target}
}

func make1(t testing.TB, entries ...Entry) *Tree {
	t.Helper()
	tr := New()
	for _, e := range entries {
		if err := tr.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

// text is the dump with contents in place of hashes, for files of a few characters.
func text(t testing.TB, tr *Tree) string {
	t.Helper()
	var b strings.Builder
	if err := tr.Dump(&b); err != nil {
		t.Fatal(err)
	}
	s := b.String()
	for e := range tr.All() {
		if e.Type == File {
			content, err := tr.ReadFile(e.Path)
			if err != nil {
				t.Fatal(err)
			}
			var one strings.Builder
			if err := make1(t, e).Dump(&one); err != nil {
				t.Fatal(err)
			}
			fields := strings.Fields(one.String()[strings.Index(one.String(), e.Path+": "):])
			s = strings.Replace(s, fields[4], string(content), 1)
		}
	}
	return s
}

func check(t *testing.T, tr *Tree, want string) {
	t.Helper()
	if got := text(t, tr); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestAdd(t *testing.T) {
	tr := make1(t, link("/bin", "usr/bin"), link("lib64", "/usr/lib64"), dir("./usr/bin/", 0o755),
		file("bin/sh", "sh"), file("/lib64/ld.so", "ld"), dir("lib64", 0o700), dir("tmp", 0o1777),
		file("a-b", "1"), file("a/c", "2"),
		Entry{Path: "dev/console", Type: Char, Mode: 0o600, Major: 5, Minor: 1, GID: 5, Xattrs: map[string]string{"user.x": "\x01", "user.a": "b"}})
	check(t, tr, `a: dir 0755 0:0
a-b: file 0644 0:0 1
a/c: file 0644 0:0 2
bin: symlink 0777 0:0 usr/bin
dev: dir 0755 0:0
dev/console: char 0600 0:5 5:1 user.a=62 user.x=01
lib64: symlink 0777 0:0 /usr/lib64
tmp: dir 1777 0:0
usr: dir 0755 0:0
usr/bin: dir 0755 0:0
usr/bin/sh: file 0644 0:0 sh
usr/lib64: dir 0755 0:0
usr/lib64/ld.so: file 0644 0:0 ld
`)
	for name, want := range map[string]string{"/bin/sh": "usr/bin/sh", "bin": "bin", "usr/../bin": "", "none/x": "", "a-b/x": ""} {
		if e, _ := tr.Lookup(name); e.Path != want {
			t.Errorf("Lookup(%q) = %q, want %q", name, e.Path, want)
		}
	}
	if e, ok := tr.Resolve("bin"); !ok || e.Path != "usr/bin" {
		t.Errorf("Resolve(bin) = %q, %t", e.Path, ok)
	}
}

func TestLinks(t *testing.T) {
	tr := make1(t, file("usr/lib/x/real", "r"), link("usr/lib/x/rel", "../x/./real"), link("etc/up", "../../../usr//lib/"),
		link("loop", "loop2"), link("loop2", "loop"), link("dangling", "nowhere/at"), link("top", "/"))
	for name, want := range map[string]string{"usr/lib/x/rel": "usr/lib/x/real", "etc/up/x/rel": "usr/lib/x/real", "top/etc/up": "usr/lib",
		"loop": "", "loop/x": "", "dangling": ""} {
		if e, _ := tr.Resolve(name); e.Path != want {
			t.Errorf("Resolve(%q) = %q, want %q", name, e.Path, want)
		}
	}
	// A file through a link whose target does not exist yet makes the target.
	if err := tr.Add(file("dangling/new", "n")); err != nil {
		t.Fatal(err)
	}
	if _, ok := tr.Lookup("nowhere/at/new"); !ok {
		t.Error("nowhere/at/new was not made")
	}
	if err := tr.Add(file("loop/x", "")); err == nil {
		t.Error("a loop of links was followed to its end")
	}
}

func TestConflicts(t *testing.T) {
	base := func() *Tree {
		return make1(t, file("f", "old"), dir("d/sub", 0o700), link("l", "f"), Entry{Path: "dev/null", Type: Char, Mode: 0o666, Major: 1, Minor: 3})
	}
	for _, c := range []struct {
		e            Entry
		add, replace string // error, or empty
	}{
		{file("f", "new"), "there is a file already, from no package; this one is from two", ""},
		{link("f", "x"), "there is a file", ""},
		{file("l", "new"), "there is a symlink", ""},
		{dir("d", 0o711), "", ""},
		{file("d", "x"), "there is a dir", "there is a dir"},
		{dir("f", 0o755), "there is a file", "there is a file"},
		{dir("l", 0o755), "there is a symlink", "there is a symlink"},
		{file("f/x", ""), "not a directory", "not a directory"},
		{file("l/x", ""), "not a directory", "not a directory"},
		{file("../f", ""), "has \"..\" in it", "has \"..\" in it"},
		{file("a\nb", ""), "control characters", "control characters"},
		{file("/", ""), "the root is a directory", "the root is a directory"},
		{dir("/", 0o700), "", ""},
		{link("n", ""), "empty", "empty"},
		{Entry{Path: "n", Type: File}, "needs a content", "needs a content"},
		{Entry{Path: "n", Type: "fifo"}, "not supported", "not supported"},
		{dir("n", 0o40755), "more than permission bits", "more than permission bits"},
		{Entry{Path: "n", Type: Dir, UID: -1}, "negative", "negative"},
	} {
		c.e.Package = "two"
		if err := base().Add(c.e); !says(err, c.add) {
			t.Errorf("add %s %q: %v, want %q", c.e.Type, c.e.Path, err, c.add)
		}
		if err := base().Replace(c.e); !says(err, c.replace) {
			t.Errorf("replace %s %q: %v, want %q", c.e.Type, c.e.Path, err, c.replace)
		}
	}
}

func says(err error, want string) bool {
	if err == nil || want == "" {
		return err == nil && want == ""
	}
	return strings.Contains(err.Error(), want)
}

func TestMergeAndOverlay(t *testing.T) {
	tr := make1(t, link("bin", "usr/bin"), dir("root", 0o700), file("usr/bin/a", "a"), file("etc/hosts", "debian"))
	if err := tr.Merge(make1(t, file("bin/b", "b"), file("root/.profile", "p"), dir("etc", 0o500))); err != nil {
		t.Fatal(err)
	}
	if err := tr.Merge(make1(t, file("etc/hosts", "other"))); !says(err, "there is a file already") {
		t.Errorf("two packages with one file: %v", err)
	}
	if err := tr.Overlay(make1(t, file("etc/hosts", "proa"), link("usr/bin/a", "b"), dir("root", 0o755))); err != nil {
		t.Fatal(err)
	}
	if err := tr.SetMode("bin/b", 0o4755, 1, 2); err != nil {
		t.Fatal(err)
	}
	// etc was only implied before the second tree said what it is.
	check(t, tr, `bin: symlink 0777 0:0 usr/bin
etc: dir 0500 0:0
etc/hosts: file 0644 0:0 proa
root: dir 0700 0:0
root/.profile: file 0644 0:0 p
usr: dir 0755 0:0
usr/bin: dir 0755 0:0
usr/bin/a: symlink 0777 0:0 b
usr/bin/b: file 4755 1:2 b
`)
	for name, mode := range map[string]uint32{"none": 0o644, "": 0o755, "etc": 0o10000} {
		if err := tr.SetMode(name, mode, 0, 0); err == nil {
			t.Errorf("SetMode(%q, %#o) went through", name, mode)
		}
	}
}

func TestRemove(t *testing.T) {
	all := func() *Tree {
		return make1(t, file("usr/share/doc/a/x", ""), file("usr/share/doc/b", ""), file("usr/share/zoneinfo/UTC", ""), file("usr/lib/a/doc/x", ""), file("usr/lib-x", ""))
	}
	for _, c := range []struct {
		pattern string
		removed int
		left    string // one entry that stays
	}{
		{"usr/share/doc", 4, "usr/share"},
		{"usr/share/doc/*", 3, "usr/share/doc"},
		{"usr/share/doc/**", 3, "usr/share/doc"},
		{"usr/**/doc", 6, "usr/lib/a"},
		{"**/doc/x", 1, "usr/lib/a/doc"},
		{"usr/lib", 4, "usr/lib-x"},
		{"usr/*/[ab]", 3, "usr/share/doc"},
		{"share", 0, "usr/share"},
		{"usr/lib-?", 1, "usr/lib"},
		{"**", 13, ""},
	} {
		tr := all()
		before := tr.Len()
		n, err := tr.Remove(c.pattern)
		if err != nil || n != c.removed || tr.Len() != before-n {
			t.Errorf("Remove(%q) = %d, %v, want %d of %d", c.pattern, n, err, c.removed, before)
		}
		if _, ok := tr.Lookup(c.left); !ok {
			t.Errorf("Remove(%q): %s is gone too", c.pattern, c.left)
		}
	}
	for _, pattern := range []string{"", "/usr", "usr/", "usr/[", "../usr", "usr//lib"} {
		if n, err := all().Remove(pattern); err == nil {
			t.Errorf("Remove(%q) = %d", pattern, n)
		}
	}
}

func TestFromTarAndBack(t *testing.T) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, h := range []struct {
		tar.Header
		content string
	}{
		{tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, ""},
		{tar.Header{Typeflag: tar.TypeDir, Name: "./var/", Mode: 0o42775, Gid: 8}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "./var/f", Mode: 0o4755, Uid: 3, Uname: "daemon", ModTime: time.Unix(9e8, 0),
			PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x02"}}, "content"},
		{tar.Header{Typeflag: tar.TypeLink, Name: "./var/hard", Linkname: "./var/f"}, ""},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "./var/soft", Linkname: "/f", Mode: 0o777}, ""},
		{tar.Header{Typeflag: tar.TypeChar, Name: "./var/null", Devmajor: 1, Devminor: 3, Mode: 0o666}, ""},
	} {
		h.Size = int64(len(h.content))
		if err := w.WriteHeader(&h.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(h.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tr, err := FromTar(bytes.NewReader(archive.Bytes()), "pkg")
	if err != nil {
		t.Fatal(err)
	}
	want := `var: dir 2775 0:8
var/f: file 4755 3:0 content security.capability=0102
var/hard: file 4755 3:0 content security.capability=0102
var/null: char 0666 0:0 1:3
var/soft: symlink 0777 0:0 /f
`
	check(t, tr, want)

	var first, second bytes.Buffer
	for _, b := range []*bytes.Buffer{&first, &second} {
		if err := tr.WriteTar(b, time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same tree makes different archives")
	}
	again, err := FromTar(bytes.NewReader(first.Bytes()), "pkg")
	if err != nil {
		t.Fatal(err)
	}
	check(t, again, want)
}

func TestFromTarRefuses(t *testing.T) {
	for want, h := range map[string]tar.Header{
		"not supported":        {Typeflag: tar.TypeFifo, Name: "./fifo"},
		"not a file before it": {Typeflag: tar.TypeLink, Name: "./a", Linkname: "./b"},
		"has \"..\" in it":     {Typeflag: tar.TypeDir, Name: "../x"},
		"block":                {Typeflag: tar.TypeBlock, Name: "./block"},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Close()
		if _, err := FromTar(bytes.NewReader(b.Bytes()), "pkg"); !says(err, want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// An archive that was cut off, or whose content is not one piece, must not become a file of other bytes.
func TestFromTarCut(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: 2000}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 2000)); err != nil {
		t.Fatal(err)
	}
	if _, err := FromTar(bytes.NewReader(b.Bytes()[:1000]), "pkg"); !says(err, "unexpected EOF") {
		t.Errorf("cut off: got %v", err)
	}
	for _, version := range []string{"0.1", "1.0"} {
		h := &tar.Header{PAXRecords: map[string]string{"GNU.sparse.minor": "0", "GNU.sparse.major": version}}
		if _, err := inPlace(h, bytes.NewReader(nil)); !says(err, "sparse") {
			t.Errorf("sparse %s: got %v", version, err)
		}
	}
}

func TestFromDir(t *testing.T) {
	d := t.TempDir()
	for name, mode := range map[string]os.FileMode{"usr/bin/run": 0o700, "usr/conf": 0o600} {
		if err := os.MkdirAll(filepath.Join(d, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, name), []byte(filepath.Base(name)), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../conf", filepath.Join(d, "usr/bin/link")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(d)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := FromDir(root, "proa")
	if err != nil {
		t.Fatal(err)
	}
	root.Close()
	check(t, tr, `usr: dir 0755 0:0
usr/bin: dir 0755 0:0
usr/bin/link: symlink 0777 0:0 ../conf
usr/bin/run: file 0755 0:0 run
usr/conf: file 0644 0:0 conf
`)
}

func TestContentThatChanged(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("four"), 0o600); err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int64]string{4: "", 3: "expected 3 bytes, found 4", 5: "expected 5 bytes, found 4"} {
		tr := make1(t, Entry{Path: "f", Type: File, Content: HostFile(name), Size: size})
		if err := tr.WriteTar(&bytes.Buffer{}, time.Unix(0, 0)); !says(err, want) && !says(err, "write too long") {
			t.Errorf("size %d: %v, want %q", size, err, want)
		}
		if _, err := tr.ReadFile("f"); !says(err, want) {
			t.Errorf("size %d: %v, want %q", size, err, want)
		}
	}
}
