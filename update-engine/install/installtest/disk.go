// Package installtest is a machine's passive slot and ESP for tests, which lose power in any step they are told to.
//
// A step is one change: a write, a sync, a file created, renamed or removed. In step FailAt the power goes: Disk panics with a PowerCut,
// which Cut catches, so that nothing of the tested code runs on as an error would let it. What the disk then holds is not one
// thing: every write since the last sync of its file may have reached the disk, or not, or in part, in any order, and a
// directory change under way may be there, not there, or half. Fates lists the possibilities, After is the disk that comes back.
//
// The ESP is FAT as Linux and firmware treat it: a rename under way can leave either name, both (one file with two names: removing one
// frees the bytes of the other), none, or the old one beside the new one of an empty file; a removal under way can leave the name without its bytes; bytes that were never
// synced are what was there before the file; a file that was created and never synced may not exist.
package installtest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/install"
)

// A PowerCut is the panic in step Disk.FailAt.
type PowerCut struct {
	Step int
	What string // the change that was under way
}

func (p PowerCut) String() string { return fmt.Sprintf("power lost in step %d (%s)", p.Step, p.What) }

// A Disk has a passive slot and the folder of boot programs. It implements install.Folder.
type Disk struct {
	Slot   *File
	Steps  int // taken so far
	FailAt int // 0: never
	Room   int64
	Rot    int64 // this byte of the slot is read wrong; 0: none

	mu      sync.Mutex
	names   map[string]*File // as programs see the folder
	durable map[string]*File // as it is on the disk
	flight  *change          // of the folder, under way when the power went
}

// New returns a disk whose slot has content.
func New(slot []byte) *Disk {
	d := &Disk{Room: 1 << 40, names: map[string]*File{}, durable: map[string]*File{}}
	d.Slot = &File{d: d, seen: bytes.Clone(slot), durable: bytes.Clone(slot)}
	return d
}

// Put places a file into the folder, durably. Several names may share one file.
func (d *Disk) Put(content []byte, names ...string) {
	f := &File{d: d, esp: true, seen: bytes.Clone(content), durable: bytes.Clone(content)}
	for _, n := range names {
		d.names[n], d.durable[n] = f, f
	}
}

// Drop takes a file from the folder, durably and without a step.
func (d *Disk) Drop(name string) { delete(d.names, name); delete(d.durable, name) }

// Content is what is durable of a file in the folder, nil if it is not there.
func (d *Disk) Content(name string) []byte {
	if f := d.durable[name]; f != nil {
		return f.durable
	}
	return nil
}

// Changed reports whether the tested code has written to a file or created it.
func (d *Disk) Changed(name string) bool {
	f := d.names[name]
	return f != nil && (f.Writes > 0 || f.created)
}

// SlotContent is what is durable of the slot.
func (d *Disk) SlotContent() []byte { return d.Slot.durable }

// Clone is another disk with the same durable content, on which no step was taken.
func (d *Disk) Clone() *Disk {
	c := &Disk{Room: d.Room, durable: map[string]*File{}, names: map[string]*File{}}
	copies := map[*File]*File{}
	for _, f := range d.files() {
		copies[f] = &File{d: c, esp: f.esp, durable: bytes.Clone(f.durable), seen: bytes.Clone(f.durable)}
	}
	c.Slot = copies[d.Slot]
	for name, f := range d.durable {
		c.names[name], c.durable[name] = copies[f], copies[f]
	}
	return c
}

// Sum is of all that is durable.
func (d *Disk) Sum() digest.SHA256 {
	h := sha256.New()
	for _, n := range d.Names() {
		fmt.Fprintf(h, "%q %d\n", n, len(d.durable[n].durable))
		h.Write(d.durable[n].durable)
	}
	h.Write(d.Slot.durable)
	return digest.SHA256(h.Sum(nil))
}

// Cut runs f and returns the power cut that ended it, nil if it came to its end.
func (d *Disk) Cut(f func()) (cut *PowerCut) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case PowerCut:
			cut = &r
		default:
			panic(r)
		}
	}()
	f()
	return nil
}

// step counts a change. It panics when the power goes; record then keeps what was under way. Without power nothing goes on.
func (d *Disk) step(what string, record func()) {
	d.Steps++
	if d.FailAt == 0 || d.Steps < d.FailAt {
		return
	}
	if d.Steps == d.FailAt && record != nil {
		record()
	}
	panic(PowerCut{d.FailAt, what})
}

// Moment is a step of something else on the machine, such as its state: the power may go there too.
func (d *Disk) Moment(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.step(what, nil)
}

// List implements install.Folder.
func (d *Disk) List() ([]string, error) { return slices.Sorted(maps.Keys(d.names)), nil }

// Names lists what is durable.
func (d *Disk) Names() []string { return slices.Sorted(maps.Keys(d.durable)) }

// Bootable lists what a loader sees: neither systemd-boot nor GRUB looks at an empty file.
func (d *Disk) Bootable() []string {
	return slices.DeleteFunc(d.Names(), func(n string) bool { return len(d.durable[n].durable) == 0 })
}

// Open implements install.Folder.
func (d *Disk) Open(name string) (install.File, error) {
	f, ok := d.names[name]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	return f, nil
}

// Edit implements install.Folder.
func (d *Disk) Edit(name string) (install.File, error) { return d.Open(name) }

// Create implements install.Folder. The name lasts once the file or the folder is synced.
func (d *Disk) Create(name string) (install.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, exists := d.names[name]
	if !exists {
		f = &File{d: d, esp: true}
	}
	d.step("create "+name, func() { f.pending = append(f.pending, write{truncate: true}); d.names[name] = f })
	f.pending, f.seen, f.created = append(f.pending, write{truncate: true}), nil, true
	d.names[name] = f
	return f, nil
}

// Rename implements install.Folder.
func (d *Disk) Rename(oldName, newName string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.names[oldName]
	if !ok {
		return fmt.Errorf("rename %s: %w", oldName, fs.ErrNotExist)
	}
	d.step("rename "+oldName+" to "+newName, func() { d.flight = &change{oldName, newName, f} })
	if replaced := d.names[newName]; replaced != nil {
		replaced.free()
	}
	delete(d.names, oldName)
	d.names[newName] = f
	d.syncFolder()
	return nil
}

// Remove implements install.Folder.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.names[name]
	if !ok {
		return nil
	}
	d.step("remove "+name, func() { d.flight = &change{oldName: name, file: f} })
	delete(d.names, name)
	f.free()
	d.syncFolder()
	return nil
}

// syncFolder makes the names last, not the bytes behind them.
func (d *Disk) syncFolder() { d.durable = maps.Clone(d.names) }

// Free and Close make the Disk an agent.BootFolder.
func (d *Disk) Free() (int64, error) { return d.Room, nil }

// Close does nothing.
func (d *Disk) Close() error { return nil }

// A change of the folder.
type change struct {
	oldName, newName string // newName is empty for a removal
	file             *File
}

// A File is the slot or a file in the folder. It implements install.File.
type File struct {
	d       *Disk
	esp     bool
	seen    []byte // with all writes
	durable []byte // as of the last sync
	pending []write

	created bool

	Writes int // so far
}

type write struct {
	off      int64
	b        []byte
	truncate bool
}

const garbage = 0xe5 // what a disk block held before

func (w write) apply(b []byte) []byte {
	if w.truncate {
		return nil
	}
	if need := int(w.off) + len(w.b); need > len(b) {
		b = append(b, bytes.Repeat([]byte{garbage}, need-len(b))...)
	}
	copy(b[w.off:], w.b)
	return b
}

// ReadAt implements install.File.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.seen)) {
		return 0, io.EOF
	}
	n := copy(p, f.seen[off:])
	if rot := f.d.Rot; f == f.d.Slot && rot > 0 && off <= rot && rot < off+int64(n) {
		p[rot-off] ^= 1
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements install.File.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	w := write{off: off, b: bytes.Clone(p)}
	f.d.step(fmt.Sprintf("write %d bytes at %d", len(p), off), func() { f.pending = append(f.pending, w) })
	f.Writes++
	f.pending = append(f.pending, w)
	f.seen = w.apply(f.seen)
	return len(p), nil
}

// Sync implements install.File. It makes the file's names last too.
func (f *File) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.d.step("sync", nil)
	f.durable, f.pending = bytes.Clone(f.seen), nil
	for name, g := range f.d.names {
		if g == f {
			f.d.durable[name] = f
		}
	}
	return nil
}

// free gives the bytes back to the file system: whoever has another name for them reads something else from now on.
func (f *File) free() {
	f.seen = bytes.Repeat([]byte{garbage}, len(f.seen))
	f.durable, f.pending = bytes.Repeat([]byte{garbage}, len(f.durable)), nil
}

// Shrink makes the slot smaller.
func (f *File) Shrink(size int) { f.seen, f.durable = f.seen[:size], f.durable[:size] }

// Size implements install.File.
func (f *File) Size() (int64, error) { return int64(len(f.seen)), nil }

// Close implements install.File.
func (f *File) Close() error { return nil }
