package install_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"

	"github.com/proa-os/proa/update-engine/install"
)

// fate is what becomes of writes that were not synced when power is lost.
type fate string

const (
	lost fate = "lost"
	torn fate = "torn" // the second half of each is lost
	kept fate = "kept"
)

var errPower = errors.New("power lost")

// disk is a passive slot and an ESP folder that lose power in step failAt.
type disk struct {
	slot  *file
	files map[string]*file

	steps, failAt int // failAt 0: never
	last          string
	fate          fate
	rot           int // this byte of the slot is read wrong; 0: none
}

// step counts one change of the disk; the step at failAt fails, and all after it.
func (d *disk) step(what string) error {
	d.steps++
	if d.failAt == 0 || d.steps < d.failAt {
		return nil
	}
	if d.steps == d.failAt {
		d.last = what
	}
	return errPower
}

// powerOff leaves what is durable.
func (d *disk) powerOff() {
	d.slot.settle(d.fate)
	for _, f := range d.files {
		f.settle(d.fate)
	}
}

func (d *disk) List() ([]string, error) {
	var names []string
	for n := range d.files {
		names = append(names, n)
	}
	slices.Sort(names)
	return names, nil
}

func (d *disk) Open(name string) (install.File, error) {
	f, ok := d.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return f, nil
}

func (d *disk) Create(name string) (install.File, error) {
	if err := d.step("create " + name); err != nil {
		return nil, err
	}
	d.files[name] = &file{d: d}
	return d.files[name], nil
}

// Rename and Remove are durable when they return; when power is lost in them they may have happened or not.
func (d *disk) Rename(oldName, newName string) error {
	f, ok := d.files[oldName]
	if !ok {
		return fs.ErrNotExist
	}
	before := d.steps
	err := d.step("rename " + oldName)
	if err == nil || before+1 == d.failAt && d.fate == kept {
		delete(d.files, oldName)
		d.files[newName] = f
	}
	return err
}

func (d *disk) Remove(name string) error {
	before := d.steps
	err := d.step("remove " + name)
	if err == nil || before+1 == d.failAt && d.fate == kept {
		delete(d.files, name)
	}
	return err
}

type write struct {
	off int64
	b   []byte
}

type file struct {
	d       *disk
	seen    []byte // with all writes
	durable []byte // as of the last sync
	pending []write
	writes  int
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.seen)) {
		return 0, io.EOF
	}
	n := copy(p, f.seen[off:])
	if rot := int64(f.d.rot); f == f.d.slot && rot > 0 && off <= rot && rot < off+int64(n) {
		p[rot-off] ^= 1
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	w := write{off, bytes.Clone(p)}
	if err := f.d.step("write"); err != nil {
		if f.d.steps == f.d.failAt {
			f.pending = append(f.pending, w) // it was under way
		}
		return 0, err
	}
	f.writes++
	f.pending = append(f.pending, w)
	f.seen = w.apply(f.seen)
	return len(p), nil
}

func (w write) apply(b []byte) []byte {
	if need := int(w.off) + len(w.b); need > len(b) {
		b = append(b, make([]byte, need-len(b))...)
	}
	copy(b[w.off:], w.b)
	return b
}

func (f *file) Sync() error {
	if err := f.d.step("sync"); err != nil {
		return err
	}
	f.settle(kept)
	return nil
}

// settle makes the pending writes durable, as far as their fate lets it.
func (f *file) settle(fate fate) {
	for _, w := range f.pending {
		switch fate {
		case torn:
			w.b = w.b[:len(w.b)/2]
		case lost:
			continue
		}
		f.durable = w.apply(bytes.Clone(f.durable))
	}
	f.pending = nil
	f.seen = bytes.Clone(f.durable)
}

func (f *file) Size() (int64, error) { return int64(len(f.seen)), nil }
func (f *file) Close() error         { return nil }
