// Package diff says what has changed between two releases, from their image files: packages with versions, files with bytes, the parts of the
// boot program.
//
// It reads what package inspect reads: directories of built releases, disk images, root images, boot programs. Files are compared by type,
// mode, owner, size, target and content, in the root images themselves; times, places on the disk and hashes that follow from the rest
// are not.
package diff

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/proa-os/proa/image-builder/inspect"
	"github.com/proa-os/proa/image-builder/tree"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
)

// A Diff is what has changed from Old to New. The JSON form is `image-builder diff --json`.
type Diff struct {
	Old      Side      `json:"old"`
	New      Side      `json:"new"`
	Packages []Package `json:"packages"`
	Files    []File    `json:"files"`
	Boot     []Part    `json:"boot_program"`
	Totals   Totals    `json:"totals"`
}

// A Side is one of the two.
type Side struct {
	File        string `json:"file"`
	Version     string `json:"version,omitempty"`
	Kernel      string `json:"kernel,omitempty"`
	CommandLine string `json:"command_line,omitempty"` // without the proa.* keys
	RootSize    int64  `json:"root_size,omitempty"`    // bytes
}

// A Package was added (no old version), removed (no new one) or has another version.
type Package struct {
	Name string `json:"name"`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

// The kinds of changes.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// A File is an entry of the root image's tree that has changed.
type File struct {
	Path    string `json:"path"`
	Change  string `json:"change"`
	OldSize int64  `json:"old_size"` // bytes, of files
	NewSize int64  `json:"new_size"`
	// What names what is different in an entry that both have, such as "content" or "mode 0644 -> 0755".
	What []string `json:"what,omitempty"`
}

// A Part is a section of the boot program that has changed.
type Part struct {
	Name    string `json:"name"`
	OldSize int64  `json:"old_size"` // bytes, 0 if it is new
	NewSize int64  `json:"new_size"`
}

// Totals sum up.
type Totals struct {
	Added      int   `json:"added"`
	Removed    int   `json:"removed"`
	Changed    int   `json:"changed"`
	NewContent int64 `json:"new_content"` // bytes of files that are added or whose content has changed
	OldContent int64 `json:"old_content"` // bytes of files that are removed or whose content has changed
}

// Empty reports whether nothing has changed.
func (d *Diff) Empty() bool {
	return len(d.Packages)+len(d.Files)+len(d.Boot) == 0 && d.Old.CommandLine == d.New.CommandLine
}

// Files compares two images.
func Files(oldName, newName string) (*Diff, error) {
	a, err := open(oldName)
	if err != nil {
		return nil, err
	}
	defer a.file.Close()
	b, err := open(newName)
	if err != nil {
		return nil, err
	}
	defer b.file.Close()
	d := &Diff{Old: a.Side, New: b.Side, Packages: comparePackages(a.packages, b.packages)}
	if (a.tree == nil) != (b.tree == nil) {
		return nil, fmt.Errorf("compare %s with %s: one of them has no root image", a.File, b.File)
	}
	if a.tree != nil {
		if err := d.compareTrees(a.tree, b.tree); err != nil {
			return nil, fmt.Errorf("compare %s with %s: %w", a.File, b.File, err)
		}
	}
	if a.program != nil && b.program != nil {
		d.compareBoot(a.program.Sections, b.program.Sections)
	}
	return d, nil
}

// side is a Side with what it is compared by.
type side struct {
	Side
	file     *inspect.Source
	tree     *tree.Tree // nil for a boot program
	packages []release.Package
	program  *inspect.BootProgram // nil for a root image
}

func open(name string) (*side, error) {
	i, err := inspect.File(name, inspect.Options{})
	if err != nil {
		return nil, err
	}
	f, err := inspect.Open(name)
	if err != nil {
		return nil, err
	}
	s := &side{Side: Side{File: filepath.Clean(name)}, file: f}
	if i.Kind != inspect.KindBoot {
		if s.tree, err = inspect.Tree(f, f.Size); err != nil {
			f.Close()
			return nil, fmt.Errorf("compare %s: %w", name, err)
		}
	}
	var root digest.SHA256
	for _, slot := range i.Slots {
		if slot.Filled {
			s.packages, s.Version, s.RootSize, root = slot.Packages, slot.Version, slot.Size, *slot.RootHash
			break
		}
	}
	for n, p := range i.Programs {
		if i.Kind == inspect.KindBoot || p.RootHash == root {
			s.program = &i.Programs[n]
			s.Version, s.Kernel, s.CommandLine = cmp.Or(s.Version, p.Version), p.Kernel, plainLine(p.CommandLine)
			break
		}
	}
	return s, nil
}

// plainLine leaves out the keys that follow from the root image.
func plainLine(line string) string {
	words := slices.DeleteFunc(strings.Fields(line), func(w string) bool { return strings.HasPrefix(w, "proa.") })
	return strings.Join(words, " ")
}

func comparePackages(a, b []release.Package) []Package {
	merged := map[string]Package{}
	for _, p := range a {
		merged[p.Name] = Package{Name: p.Name, Old: p.Version}
	}
	for _, p := range b {
		m := merged[p.Name]
		m.Name, m.New = p.Name, p.Version
		merged[p.Name] = m
	}
	list := []Package{}
	for _, name := range slices.Sorted(maps.Keys(merged)) {
		if p := merged[name]; p.Old != p.New {
			list = append(list, p)
		}
	}
	return list
}

func (d *Diff) compareBoot(a, b []inspect.Section) {
	find := func(list []inspect.Section, name string) (inspect.Section, bool) {
		i := slices.IndexFunc(list, func(s inspect.Section) bool { return s.Name == name })
		if i < 0 {
			return inspect.Section{}, false
		}
		return list[i], true
	}
	for _, s := range a {
		if n, _ := find(b, s.Name); n.SHA256 != s.SHA256 && s.Name != ".cmdline" {
			d.Boot = append(d.Boot, Part{s.Name, s.Size, n.Size})
		}
	}
	for _, s := range b {
		if _, ok := find(a, s.Name); !ok {
			d.Boot = append(d.Boot, Part{s.Name, 0, s.Size})
		}
	}
}

func (d *Diff) compareTrees(a, b *tree.Tree) error {
	for e := range a.All() {
		n, ok := b.Lookup(e.Path)
		if !ok || n.Path != e.Path { // found through a link: it is another entry
			d.Files = append(d.Files, File{Path: e.Path, Change: Removed, OldSize: e.Size})
			d.Totals.Removed++
			d.Totals.OldContent += e.Size
			continue
		}
		what, content, err := compareEntries(e, n)
		if err != nil {
			return err
		}
		if len(what) > 0 {
			d.Files = append(d.Files, File{Path: e.Path, Change: Changed, OldSize: e.Size, NewSize: n.Size, What: what})
			d.Totals.Changed++
		}
		if content {
			d.Totals.OldContent += e.Size
			d.Totals.NewContent += n.Size
		}
	}
	for e := range b.All() {
		if o, ok := a.Lookup(e.Path); !ok || o.Path != e.Path {
			d.Files = append(d.Files, File{Path: e.Path, Change: Added, NewSize: e.Size})
			d.Totals.Added++
			d.Totals.NewContent += e.Size
		}
	}
	slices.SortFunc(d.Files, func(x, y File) int { return cmp.Compare(x.Path, y.Path) })
	return nil
}

// FirstEntry returns the path of the first entry that is not the same in both trees.
func FirstEntry(a, b *tree.Tree) (path string, ok bool) {
	var d Diff
	if err := d.compareTrees(a, b); err != nil || len(d.Files) == 0 {
		return "", false
	}
	return d.Files[0].Path, true
}

// compareEntries says what differs, and whether content does.
func compareEntries(a, b tree.Entry) (what []string, content bool, err error) {
	if a.Type != b.Type {
		return []string{fmt.Sprintf("%s -> %s", a.Type, b.Type)}, true, nil
	}
	if a.Type == tree.File {
		same, err := sameContent(a, b)
		if err != nil {
			return nil, false, err
		}
		if content = !same; content {
			what = append(what, "content")
		}
	}
	if a.Mode != b.Mode {
		what = append(what, fmt.Sprintf("mode %04o -> %04o", a.Mode, b.Mode))
	}
	if a.UID != b.UID || a.GID != b.GID {
		what = append(what, fmt.Sprintf("owner %d:%d -> %d:%d", a.UID, a.GID, b.UID, b.GID))
	}
	if a.Target != b.Target {
		what = append(what, fmt.Sprintf("target %s -> %s", a.Target, b.Target))
	}
	if a.Major != b.Major || a.Minor != b.Minor {
		what = append(what, fmt.Sprintf("device %d:%d -> %d:%d", a.Major, a.Minor, b.Major, b.Minor))
	}
	if !maps.Equal(a.Xattrs, b.Xattrs) {
		what = append(what, "extended attributes")
	}
	return what, content, nil
}

func sameContent(a, b tree.Entry) (bool, error) {
	if a.Size != b.Size {
		return false, nil
	}
	x, err := a.Content.Open()
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := b.Content.Open()
	if err != nil {
		return false, err
	}
	defer y.Close()
	at, err := First(x, y)
	if err != nil {
		return false, fmt.Errorf("%s: %w", a.Path, err)
	}
	return at < 0, nil
}

// First returns the offset of the first byte in which a and b differ, or -1. Where one ends, the other's next byte differs.
func First(a, b io.Reader) (int64, error) {
	bufA, bufB := make([]byte, 1<<17), make([]byte, 1<<17)
	for at := int64(0); ; {
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		for _, err := range []error{errA, errB} {
			if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
				return 0, err
			}
		}
		if string(bufA[:n]) != string(bufB[:m]) {
			i := 0
			for i < min(n, m) && bufA[i] == bufB[i] {
				i++
			}
			return at + int64(i), nil
		}
		if errA != nil {
			return -1, nil
		}
		at += int64(n)
	}
}
