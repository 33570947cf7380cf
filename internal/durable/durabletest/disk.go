// Package durabletest is a directory in memory that loses power, for tests of what is kept with package durable.
//
// It promises no more than POSIX does. What is written to a file lasts when the file has been synced: until then a power cut leaves any part
// of it, or zeros in its place. What is made, renamed and removed lasts when the directory has been synced: until then each of these has
// happened or not, in any combination, and a file may have its new name without its new content. One rename is atomic (rename(2)).
package durabletest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/proa-os/proa/internal/durable"
)

// ErrInjected is the error of the call that fails.
var ErrInjected = errors.New("injected")

// A Disk implements durable.Directory.
type Disk struct {
	Calls  []string // what was called so far
	FailAt int      // the call that fails, without effect; counted from 1, 0: none
	After  func()   // if not nil, called after each call

	entries map[string]*inode // what a reader sees
	lasting map[string]*inode // what lasts
	pending []change          // of entries, since the directory was synced
}

// New is a disk on which these files last.
func New(files map[string]string) *Disk {
	d := &Disk{entries: map[string]*inode{}}
	for name, content := range files {
		d.entries[name] = &inode{content: content, after: []string{content}}
	}
	d.lasting = maps.Clone(d.entries)
	return d
}

// An inode is a file, whatever its names are.
type inode struct {
	content string
	after   []string // what a power cut may leave of it
}

// lost adds what a power cut may leave of a write behind what was there.
func (i *inode) lost(written string) {
	left := []string{strings.Repeat("\x00", len(written))}
	for n := range len(written) + 1 {
		left = append(left, written[:n])
		if n%16 == 1 { // the size of all of it, and a part of the content
			left = append(left, written[:n]+strings.Repeat("\x00", len(written)-n), strings.Repeat("\x00", n)+written[n:])
		}
	}
	for _, l := range left {
		i.after = append(i.after, i.content+l)
	}
}

// A change of a directory; to or from is nil if there is none.
type change struct {
	dir     string
	removed string
	added   string
	file    *inode
}

func (c change) apply(entries map[string]*inode) {
	delete(entries, c.removed)
	if c.added != "" {
		entries[c.added] = c.file
	}
}

func (d *Disk) call(what string, do func() error) error {
	d.Calls = append(d.Calls, what)
	err := ErrInjected
	if len(d.Calls) != d.FailAt {
		err = do()
	}
	if d.After != nil {
		d.After()
	}
	return err
}

func (d *Disk) change(c change) {
	c.apply(d.entries)
	d.pending = append(d.pending, c)
}

// OpenFile implements durable.Directory.
func (d *Disk) OpenFile(name string, flag int, _ fs.FileMode) (durable.File, error) {
	var f *inode
	err := d.call("open "+name, func() error {
		f = d.entries[name]
		switch {
		case f == nil && flag&os.O_CREATE == 0:
			return fs.ErrNotExist
		case f == nil:
			f = &inode{after: []string{""}}
			d.change(change{dir: path.Dir(name), added: name, file: f})
		case flag&os.O_TRUNC != 0:
			f.content = ""
			f.after = append(f.after, "")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return file{d, f}, nil
}

// Rename implements durable.Directory.
func (d *Disk) Rename(oldName, newName string) error {
	return d.call("rename "+oldName+" "+newName, func() error {
		f := d.entries[oldName]
		if f == nil {
			return fs.ErrNotExist
		}
		d.change(change{dir: path.Dir(newName), removed: oldName, added: newName, file: f})
		return nil
	})
}

// Remove implements durable.Directory.
func (d *Disk) Remove(name string) error {
	return d.call("remove "+name, func() error {
		if d.entries[name] == nil {
			return fs.ErrNotExist
		}
		d.change(change{dir: path.Dir(name), removed: name})
		return nil
	})
}

// Sync implements durable.Directory.
func (d *Disk) Sync(name string) error {
	return d.call("sync "+name, func() error {
		if f := d.entries[name]; f != nil {
			f.after = []string{f.content}
			return nil
		}
		d.pending = slices.DeleteFunc(d.pending, func(c change) bool {
			if c.dir == name {
				c.apply(d.lasting)
			}
			return c.dir == name
		})
		return nil
	})
}

type file struct {
	d *Disk
	f *inode
}

func (f file) Chmod(m fs.FileMode) error {
	return f.d.call(fmt.Sprintf("chmod %o", m), func() error { return nil })
}
func (f file) Close() error { return f.d.call("close", func() error { return nil }) }

// Write writes behind what is there: no file is opened to be changed in the middle.
func (f file) Write(b []byte) (int, error) {
	err := f.d.call("write", func() error {
		f.f.lost(string(b))
		f.f.content += string(b)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

func (f file) Sync() error {
	return f.d.call("sync", func() error { f.f.after = []string{f.f.content}; return nil })
}

// Seen is what a reader sees now.
func (d *Disk) Seen() map[string]string {
	files := map[string]string{}
	for name, f := range d.entries {
		files[name] = f.content
	}
	return files
}

// Cuts is all that a power cut may leave now: each is a disk's files.
func (d *Disk) Cuts() []map[string]string {
	var cuts []map[string]string
	seen := map[string]bool{}
	for happened := range 1 << len(d.pending) {
		entries := maps.Clone(d.lasting)
		for n, c := range d.pending {
			if happened>>n&1 == 1 {
				c.apply(entries)
			}
		}
		for _, files := range contents(entries, slices.Sorted(maps.Keys(entries))) {
			if key := fmt.Sprint(files); !seen[key] { // fmt sorts the names
				seen[key] = true
				cuts = append(cuts, files)
			}
		}
	}
	return cuts
}

// contents is every combination of what may be left of these files.
func contents(entries map[string]*inode, names []string) []map[string]string {
	if len(names) == 0 {
		return []map[string]string{{}}
	}
	var all []map[string]string
	for _, rest := range contents(entries, names[1:]) {
		for _, content := range entries[names[0]].after {
			files := maps.Clone(rest)
			files[names[0]] = content
			all = append(all, files)
		}
	}
	return all
}
