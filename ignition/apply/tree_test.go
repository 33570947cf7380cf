package apply

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"
	"syscall"
	"testing"
)

// A file tree as text, one entry a line, contents indented behind "|", what lacks a last newline behind ":":
//
//	etc dir 0755 0:0
//	etc/hostname file 0644 0:0
//	    |web1
//	opt link 0:0 -> var/opt

// ownerMap is Owners without root: it remembers owners by inode. What nobody has set belongs to 0:0, as if root ran.
type ownerMap map[uint64][2]int

func inode(info fs.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

func (m ownerMap) Lchown(root *os.Root, name string, uid, gid int) error {
	info, err := root.Lstat(name)
	if err == nil {
		m[inode(info)] = [2]int{uid, gid}
	}
	return err
}

func (m ownerMap) Owner(info fs.FileInfo) (uid, gid int) {
	o := m[inode(info)]
	return o[0], o[1]
}

// build makes the tree that text describes.
func build(t *testing.T, root *os.Root, owners Owners, text string) {
	t.Helper()
	var name string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "    "); ok {
			content := rest[1:]
			if rest[0] == ':' {
				content = strings.TrimSuffix(content, "\n")
			}
			appendTo(t, root, name, content)
			continue
		}
		if strings.TrimSpace(line) == "" {
			continue
		}
		f := strings.Fields(line)
		name = f[0]
		var mode, uid, gid int
		if _, err := fmt.Sscanf(strings.Join(f[2:], " "), "%o %d:%d", &mode, &uid, &gid); err != nil && f[1] != "link" {
			t.Fatalf("tree line %q: %v", line, err)
		}
		var err error
		switch f[1] {
		case "dir":
			err = root.Mkdir(name, 0o700)
		case "file":
			err = root.WriteFile(name, nil, 0o600)
		case "link":
			if _, err := fmt.Sscanf(f[2], "%d:%d", &uid, &gid); err != nil {
				t.Fatalf("tree line %q: %v", line, err)
			}
			err = root.Symlink(f[4], name)
		}
		if err == nil {
			err = owners.Lchown(root, name, uid, gid)
		}
		if err == nil && f[1] != "link" {
			err = root.Chmod(name, fileMode(mode))
		}
		if err != nil {
			t.Fatalf("tree line %q: %v", line, err)
		}
	}
}

func appendTo(t *testing.T, root *os.Root, name, text string) {
	t.Helper()
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// dump is the inverse of build, without the journal when plain is true.
func dump(t *testing.T, root *os.Root, owners Owners, plain bool) string {
	t.Helper()
	var names []string
	err := fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if name != "." && !(plain && strings.HasPrefix(name, StateDir)) {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, name := range names {
		info, err := root.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		uid, gid := owners.Owner(info)
		mode := info.Sys().(*syscall.Stat_t).Mode & 0o7777
		switch {
		case info.IsDir():
			fmt.Fprintf(&b, "%s dir %04o %d:%d\n", name, mode, uid, gid)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := root.Readlink(name)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s link %d:%d -> %s\n", name, uid, gid, target)
		default:
			content, err := root.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			links := ""
			if n := info.Sys().(*syscall.Stat_t).Nlink; n > 1 {
				links = fmt.Sprintf(" links=%d", n)
			}
			fmt.Fprintf(&b, "%s file %04o %d:%d%s\n", name, mode, uid, gid, links)
			for line := range strings.Lines(string(content)) {
				if strings.HasSuffix(line, "\n") {
					b.WriteString("    |" + line)
				} else {
					b.WriteString("    :" + line + "\n")
				}
			}
		}
	}
	return b.String()
}

// difference shows the first line where two dumps part.
func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			return fmt.Sprintf("line %d: got %q, want %q", i+1, at(g, i), at(w, i))
		}
	}
	return "none"
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(end)"
}

func TestTreeTextRoundTrip(t *testing.T) {
	text := "etc dir 0750 0:4\netc/a file 0640 1:2\n    |one\n    :two\netc/l link 3:4 -> ../x\n"
	root, owners := newTree(t), ownerMap{}
	build(t, root, owners, text)
	if got := dump(t, root, owners, false); got != text {
		t.Error(difference(got, text))
	}
}

func newTree(t *testing.T) *os.Root {
	t.Helper()
	// In memory where there is such a place: the tests sync thousands of times.
	parent, err := os.MkdirTemp("/dev/shm", "ignition")
	if err != nil {
		parent = t.TempDir()
	} else {
		t.Cleanup(func() { os.RemoveAll(parent) })
	}
	dir := path.Join(parent, "root") // what is beside it is outside
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}
