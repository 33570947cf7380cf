// Package tree is the file tree of an image while it is made: packages are merged into it, the project's own files
// laid over it, what is not wanted removed; then erofs and cpio write it out.
//
// Nothing is unpacked to a file system, so owners, modes, links and device nodes need no root and do not depend on
// the host. Entries are directories, files, symbolic links and character devices; a hard link becomes a copy of the
// file it links to; anything else is refused. File contents stay where they are until they are read.
//
// Paths are relative to the root, with slashes: "usr/bin/env". In what is passed in, a leading "/" or "./" does not
// matter. Parents are created as needed, and links among them are followed as a kernel would inside the tree: with
// a link bin -> usr/bin, adding "/bin/sh" adds "usr/bin/sh". So the entry of a path never lies below a link.
//
// The order of everything that comes out is that of the paths as strings, in which a parent precedes its children.
package tree

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// A Type is the kind of an entry.
type Type string

const (
	Dir     Type = "dir"
	File    Type = "file"
	Symlink Type = "symlink"
	Char    Type = "char" // character device
)

// An Entry is one path of a tree. The zero owner is root.
type Entry struct {
	Path         string
	Type         Type
	Mode         uint32 // permissions with setuid, setgid and sticky bit, as chmod(2) takes them
	UID, GID     int
	Size         int64             // of a file: bytes that Content yields
	Content      Content           // of a file
	Target       string            // of a link
	Major, Minor uint32            // of a device
	Xattrs       map[string]string // extended attributes
	Package      string            // where it comes from; errors and Report tell
}

// A Tree is a set of entries.
type Tree struct {
	entries map[string]*node
}

type node struct {
	Entry
	implied bool // a parent that nobody has added so far
}

const permissions = 0o7777

// New returns a tree that is empty but for its root, a directory of mode 0755.
func New() *Tree { return &Tree{entries: map[string]*node{}} }

// Len returns the number of entries, the root not counted.
func (t *Tree) Len() int { return len(t.entries) }

// All yields every entry but the root, parents first.
func (t *Tree) All() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, p := range slices.Sorted(maps.Keys(t.entries)) {
			if !yield(t.entries[p].Entry) {
				return
			}
		}
	}
}

// Add puts e into the tree. Nothing may be there already, but directories may meet: the first one's mode and owner
// stay.
func (t *Tree) Add(e Entry) error { return t.put(e, false) }

// Replace is Add, except that e takes the place of a file, link or device. A directory is never replaced by
// anything else, nor the other way round.
func (t *Tree) Replace(e Entry) error { return t.put(e, true) }

// Merge adds every entry of o, as another package on top: two packages may share directories only.
func (t *Tree) Merge(o *Tree) error { return t.each(o, t.Add) }

// Overlay lays o over t: what it has replaces what was there.
func (t *Tree) Overlay(o *Tree) error { return t.each(o, t.Replace) }

func (t *Tree) each(o *Tree, put func(Entry) error) error {
	for p, n := range o.sorted() {
		if n.implied {
			continue // the path of its children says enough
		}
		if err := put(n.Entry); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

func (t *Tree) sorted() iter.Seq2[string, *node] {
	return func(yield func(string, *node) bool) {
		for _, p := range slices.Sorted(maps.Keys(t.entries)) {
			if !yield(p, t.entries[p]) {
				return
			}
		}
	}
}

func (t *Tree) put(e Entry, replace bool) error {
	if err := e.check(); err != nil {
		return fmt.Errorf("add %s %q: %w", e.Type, e.Path, err)
	}
	if p, _ := clean(e.Path); p == "" {
		if e.Type != Dir {
			return fmt.Errorf("add %s %q: the root is a directory", e.Type, e.Path)
		}
		return nil
	}
	p, err := t.makeParents(e.Path, e.Package)
	if err != nil {
		return fmt.Errorf("add %s %q: %w", e.Type, e.Path, err)
	}
	e.Path = p
	old := t.entries[p]
	switch {
	case old == nil, old.implied && e.Type == Dir:
	case old.Type == Dir && e.Type == Dir:
		return nil
	case old.Type == Symlink && e.Type == Dir:
		if _, target, err := t.walk(p, true, nil); err == nil && (target == nil || target.Type == Dir) {
			return nil // usr/bin seen through a link, as in packages that still say bin/
		}
		fallthrough
	case old.Type == Dir || e.Type == Dir || !replace:
		return fmt.Errorf("add %s %q: there is a %s already, from %s; this one is from %s", e.Type, p, old.Type, source(old.Package), source(e.Package))
	}
	t.entries[p] = &node{Entry: e}
	return nil
}

func source(pkg string) string {
	if pkg == "" {
		return "no package"
	}
	return pkg
}

func (e *Entry) check() error {
	if _, err := clean(e.Path); err != nil {
		return err
	}
	if e.Mode&^permissions != 0 {
		return fmt.Errorf("mode %#o has more than permission bits", e.Mode)
	}
	if e.UID < 0 || e.GID < 0 {
		return fmt.Errorf("owner %d:%d is negative", e.UID, e.GID)
	}
	switch {
	case e.Type == File && (e.Content == nil || e.Size < 0):
		return fmt.Errorf("a file needs a content and a size")
	case e.Type == Symlink && (e.Target == "" || !plain(e.Target)):
		return fmt.Errorf("target %q is empty or has control characters", e.Target)
	case !slices.Contains([]Type{Dir, File, Symlink, Char}, e.Type):
		return fmt.Errorf("type %q is not supported", e.Type)
	}
	return nil
}

// Remove removes what matches pattern, directories with all they hold, and returns how many entries that were.
// A pattern is one of path.Match for the whole path; "**" as a part of it stands for any number of directories.
// Links are not followed.
func (t *Tree) Remove(pattern string) (int, error) {
	hits, err := t.Match(pattern)
	if err != nil {
		return 0, err
	}
	before := len(t.entries)
	for _, hit := range hits {
		delete(t.entries, hit.Path)
		if hit.Type != Dir {
			continue
		}
		maps.DeleteFunc(t.entries, func(p string, _ *node) bool { return strings.HasPrefix(p, hit.Path+"/") })
	}
	return before - len(t.entries), nil
}

// SetMode gives the entry at name, links followed, a mode and an owner.
func (t *Tree) SetMode(name string, mode uint32, uid, gid int) error {
	p, n, err := t.walk(name, true, nil)
	if err == nil && (n == nil || p == "") {
		err = fmt.Errorf("no such entry below the root")
	}
	if err != nil {
		return fmt.Errorf("set mode of %q: %w", name, err)
	}
	changed := n.Entry
	changed.Mode, changed.UID, changed.GID = mode, uid, gid
	if err := changed.check(); err != nil {
		return fmt.Errorf("set mode of %q: %w", name, err)
	}
	n.Entry, n.implied = changed, false
	return nil
}
