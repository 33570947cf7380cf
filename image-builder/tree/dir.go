package tree

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/proa-os/proa/internal/digest"
)

// FromDir reads all below root, which is how the project's own files come in. What git cannot carry does not count:
// everything belongs to root, directories have mode 0755, files 0755 if the owner may execute them, else 0644.
// Contents are read at once, so root may be closed afterwards.
func FromDir(root *os.Root, pkg string) (*Tree, error) {
	t := New()
	fsys := root.FS()
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		e := Entry{Path: name, Package: pkg}
		switch d.Type() {
		case fs.ModeDir:
			e.Type, e.Mode = Dir, 0o755
		case fs.ModeSymlink:
			e.Type, e.Mode = Symlink, 0o777
			if e.Target, err = root.Readlink(name); err != nil {
				return err
			}
		case 0:
			b, err := root.ReadFile(name)
			if err != nil {
				return err
			}
			e.Type, e.Mode, e.Content, e.Size = File, 0o644, Bytes(b), int64(len(b))
			fi, err := d.Info()
			if err != nil {
				return err
			}
			if fi.Mode()&0o100 != 0 {
				e.Mode = 0o755
			}
		default:
			return fmt.Errorf("%s: type %s is not supported", name, d.Type())
		}
		return t.Add(e)
	})
	if err != nil {
		return nil, fmt.Errorf("read directory of %s: %w", pkg, err)
	}
	return t, nil
}

// Dump writes one line for each entry; equal trees have equal dumps.
//
//	etc: dir 0755 0:0
//	etc/hosts: file 0644 0:0 <sha256>
//	bin: symlink 0777 0:0 usr/bin
//	dev/console: char 0600 0:0 5:1
//
// Extended attributes follow as name=<hexadecimal value>.
func (t *Tree) Dump(w io.Writer) error {
	for e := range t.All() {
		if _, err := fmt.Fprintf(w, "%s: %s %04o %d:%d", e.Path, e.Type, e.Mode, e.UID, e.GID); err != nil {
			return err
		}
		var more string
		switch e.Type {
		case File:
			h := sha256.New()
			if _, err := e.WriteTo(h); err != nil {
				return err
			}
			more = " " + digest.SHA256(h.Sum(nil)).String()
		case Symlink:
			more = " " + e.Target
		case Char:
			more = fmt.Sprintf(" %d:%d", e.Major, e.Minor)
		}
		for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
			more += fmt.Sprintf(" %s=%x", name, e.Xattrs[name])
		}
		if _, err := fmt.Fprintln(w, more); err != nil {
			return err
		}
	}
	return nil
}
