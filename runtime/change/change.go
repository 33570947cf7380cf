// Package change tells what the upper directory of an overlay changes of what lies below it (linux, Documentation/filesystems/overlayfs.rst),
// in docker's terms: added, changed, deleted.
//
// A directory is changed if something in it is, or its mode or time. Of a deleted directory what was in it is not told. A file counts as
// changed when it was copied up, whatever it holds now. Renamed directories that the kernel only refers to (redirect_dir) are told as added,
// without what is in them. The upper directory may be written to meanwhile, by an enemy: no link in it leads anywhere.
package change

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Change is what has become of one path.
type Change struct {
	Kind string `json:"kind"` // A, C or D
	Path string `json:"path"` // from / on
}

// Kinds of changes.
const (
	Added   = "A"
	Changed = "C"
	Deleted = "D"
)

// List lists changes, sorted by path. lower is all that is below, as one tree. What is added at one of the paths but for, with all below it,
// is none, and a directory that holds such a one is not changed by it.
func List(upper, lower *os.Root, but ...string) ([]Change, error) {
	l := &listing{upper: upper, lower: lower, but: but}
	if _, _, err := l.walk(".", true); err != nil {
		return nil, err
	}
	slices.SortFunc(l.out, func(a, b Change) int { return cmp.Compare(a.Path, b.Path) })
	return l.out, nil
}

type listing struct {
	upper, lower *os.Root
	but          []string
	out          []Change
}

func (l *listing) add(kind, name string) { l.out = append(l.out, Change{kind, path.Join("/", name)}) }

// walk lists what is in a directory of the upper tree, and reports whether that was anything. below says that it is a directory in the
// lower one, too; touched that something was left out, so that the directory's time says nothing.
func (l *listing) walk(dir string, below bool) (changed, touched bool, err error) {
	names, opaque, err := read(l.upper, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil // gone meanwhile
	}
	if err != nil {
		return false, false, err
	}
	for _, name := range names {
		one, out, err := l.entry(path.Join(dir, name), below)
		if err != nil {
			return false, false, err
		}
		changed, touched = changed || one, touched || out
	}
	if !opaque || !below {
		return changed, touched, nil
	}
	hidden, _, err := read(l.lower, dir)
	if err != nil {
		return false, false, err
	}
	for _, name := range hidden {
		if !slices.Contains(names, name) {
			l.add(Deleted, path.Join(dir, name))
			changed = true
		}
	}
	return changed, touched, nil
}

// entry lists one entry of the upper tree with all below it, or leaves it out.
func (l *listing) entry(name string, below bool) (changed, out bool, err error) {
	now, err := l.upper.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	var was fs.FileInfo
	if below { // else what leads to it may be a link there
		if was, err = l.lower.Lstat(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, false, err
		}
	}
	there := was != nil && err == nil
	if !there && slices.Contains(l.but, path.Join("/", name)) {
		return false, true, nil
	}
	if whiteout(now) {
		if there {
			l.add(Deleted, name)
		}
		return there, false, nil
	}
	touched := false
	err = nil
	if now.IsDir() {
		changed, touched, err = l.walk(name, there && was.IsDir())
	}
	switch {
	case err != nil:
		return false, false, err
	case !there:
		l.add(Added, name)
	case now.IsDir() && was.IsDir() && !changed && now.Mode() == was.Mode() && (touched || now.ModTime().Equal(was.ModTime())):
		return false, false, nil // copied up, and nothing came of it
	default:
		l.add(Changed, name)
	}
	return true, false, nil
}

// whiteout reports whether this is how overlayfs notes that something was deleted.
func whiteout(i fs.FileInfo) bool {
	st, ok := i.Sys().(*syscall.Stat_t)
	return ok && i.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0
}

// read lists a directory. opaque says that nothing below it is seen through.
func read(root *os.Root, dir string) (names []string, opaque bool, err error) {
	f, err := root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	if names, err = f.Readdirnames(-1); err != nil {
		return nil, false, err
	}
	value := make([]byte, 2)
	n, err := unix.Fgetxattr(int(f.Fd()), "trusted.overlay.opaque", value)
	return names, err == nil && string(value[:n]) == "y", nil
}
