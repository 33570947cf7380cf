package powercut

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/qemu-tests/vm/blklog"
	"github.com/proa-os/proa/qemu-tests/world"
)

// sectorSize is that of the machines whose writes are replayed.
const sectorSize = 512

// bootCode is the part of sector 0 that the firmware of a BIOS machine starts; the partition table begins behind it.
const bootCode = 440

// A Disk is a raw image that is written to only through it. It is a blklog.Disk.
type Disk struct {
	file     *os.File
	size     int64
	releases []*known
	slots    []*slotOnDisk
	esp      region
	quiet    []region // state: nothing there decides what boots

	places  map[string]region        // of the partitions that never move
	code    digest.SHA256            // of the boot code and the BIOS boot partition
	loaders map[string]digest.SHA256 // files of the ESP outside EFI/Linux

	changed bool // something but slots and state, since the picks were made
	picks   Picks
	why     error // what picks could not be made of
}

// A region is a range of bytes.
type region struct{ offset, size int64 }

func (r region) overlaps(offset, length int64) bool {
	return offset < r.offset+r.size && r.offset < offset+length
}

func (r region) contains(offset, length int64) bool {
	return offset >= r.offset && offset+length <= r.offset+r.size
}

// Open opens the disk image in the file name, of which a machine with one of the releases must come up as it is. Close it.
func Open(name string, releases ...world.Image) (*Disk, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	d := &Disk{file: f, changed: true}
	if err := d.open(releases); err != nil {
		d.Close()
		return nil, fmt.Errorf("open disk %s: %w", name, err)
	}
	return d, nil
}

func (d *Disk) open(releases []world.Image) error {
	fi, err := d.file.Stat()
	if err != nil {
		return err
	}
	d.size = fi.Size()
	for _, image := range releases {
		k, err := openKnown(image)
		if err != nil {
			return err
		}
		d.releases = append(d.releases, k)
	}
	table, err := gpt.Read(d.file, d.size, sectorSize)
	if err != nil {
		return err
	}
	d.places = map[string]region{}
	for _, p := range table.Partitions {
		r := region{table.Offset(p), table.Size(p)}
		switch p.Name {
		case "state":
			d.quiet = append(d.quiet, r) // it is made and it grows
			continue
		case "esp":
			d.esp = r
		case "root-a", "root-b":
			s, err := newSlot(d.file, p.Name, r, d.releases)
			if err != nil {
				return err
			}
			d.slots = append(d.slots, s)
		}
		d.places[p.Name] = r
	}
	if d.esp.size == 0 || len(d.slots) != 2 {
		return fmt.Errorf("expected an esp and two slots, found %v", d.places)
	}
	if d.code, err = d.bootCode(); err != nil {
		return err
	}
	if d.loaders, err = d.loaderFiles(); err != nil {
		return err
	}
	_, err = d.Judge()
	return err
}

// Close closes the image and those of the releases.
func (d *Disk) Close() error {
	for _, k := range d.releases {
		k.root.Close()
	}
	return d.file.Close()
}

// WriteAt implements blklog.Disk.
func (d *Disk) WriteAt(p []byte, offset int64) (int, error) {
	d.touch(offset, int64(len(p)))
	return d.file.WriteAt(p, offset)
}

// Discard implements blklog.Disk.
func (d *Disk) Discard(offset, length int64) error {
	d.touch(offset, length)
	return blklog.File{File: d.file}.Discard(offset, length)
}

// touch notes what a write changes.
func (d *Disk) touch(offset, length int64) {
	for _, s := range d.slots {
		if s.overlaps(offset, length) {
			s.touch(offset, length)
		}
	}
	if d.Decides(offset, length) {
		d.changed = true
	}
}

// Decides reports whether a write may change what a loader finds: it is not to slots or state alone.
func (d *Disk) Decides(offset, length int64) bool {
	for _, s := range d.slots {
		if s.contains(offset, length) {
			return false
		}
	}
	for _, r := range d.quiet {
		if r.contains(offset, length) {
			return false
		}
	}
	return true
}

// bootCode hashes what a BIOS machine starts before GRUB reads a file system.
func (d *Disk) bootCode() (digest.SHA256, error) {
	bios := d.places["bios"]
	sum, _, err := digest.OfReader(io.MultiReader(io.NewSectionReader(d.file, 0, bootCode), io.NewSectionReader(d.file, bios.offset, bios.size)))
	return sum, err
}

// ESP returns the bytes of the ESP, as they are while nothing is written.
func (d *Disk) ESP() *io.SectionReader { return io.NewSectionReader(d.file, d.esp.offset, d.esp.size) }

// OnESP reports whether a write is to the ESP.
func (d *Disk) OnESP(offset, length int64) bool { return d.esp.overlaps(offset, length) }

// File is the image, to read and to copy.
func (d *Disk) File() *os.File { return d.file }

// checkTable reads the partition table and compares it with what it was.
func (d *Disk) checkTable() error {
	table, err := gpt.Read(d.file, d.size, sectorSize)
	if err != nil {
		return err
	}
	for name, want := range d.places {
		p, err := table.Find(name)
		if err != nil {
			return fmt.Errorf("partition table: %w", err)
		}
		if got := (region{table.Offset(p), table.Size(p)}); got != want {
			return fmt.Errorf("partition table: %s has %d bytes at %d, before %d at %d", name, got.size, got.offset, want.size, want.offset)
		}
	}
	if p, err := table.Find("state"); err == nil {
		d.quiet = []region{{table.Offset(p), table.Size(p)}}
	}
	code, err := d.bootCode()
	if err != nil {
		return err
	}
	if code != d.code {
		return fmt.Errorf("boot code or BIOS boot partition: sha256 %s, before %s", code, d.code)
	}
	return nil
}

// sameBytes compares a range of the disk with a file's.
func sameBytes(disk, file io.ReaderAt, offset, at int64, a, b []byte) (bool, error) {
	if _, err := disk.ReadAt(a, offset); err != nil {
		return false, err
	}
	if _, err := file.ReadAt(b, at); err != nil {
		return false, err
	}
	return bytes.Equal(a, b), nil
}
