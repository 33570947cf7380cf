// Package gpt reads and writes GUID partition tables (UEFI 2.10, chapter 5).
//
// image-builder lays out a disk with it, init adds the state partition on first boot with it and lets it grow, tests look
// into disk images with it. It touches no kernel interface: a caller that changes the table of a disk in use must tell
// the kernel itself.
//
// A table is made for one sector size: its header is in sector 1 and all its numbers are sectors. But the places of its two
// entry arrays are free, and here they are chosen so that the tables for sectors of 512 and of 4096 bytes do not touch
// each other. A disk image can therefore carry both, with the same partitions (WriteBoth), and starts from a disk of either
// kind. What a disk of n bytes holds, n rounded down to 4096:
//
//	byte               content
//	0                  protective MBR for both; bytes 0-439 are boot code, which no Write touches
//	512                primary header for 512-byte sectors (sector 1)
//	4096               primary header for 4096-byte sectors (sector 1)
//	8192               its entry array: 128 entries of 128 bytes (sector 2)
//	24576              entry array for 512-byte sectors (sector 48)
//	1048576            partitions
//	n-36864            backup entry array for 512-byte sectors
//	n-20480            backup entry array for 4096-byte sectors
//	n-4096             backup header for 4096-byte sectors (the last sector)
//	n-512              backup header for 512-byte sectors (the last sector)
//
// A machine knows its sector size, so Write keeps one table only and takes the other one's headers away. It must: the other
// one would not be changed any more, and a copy of the disk on one of the other kind would believe it.
//
// A header, little-endian (5.3.2):
//
//	offset size
//	0      8    "EFI PART"
//	8      4    revision 1.0 = 0x00010000
//	12     4    header size, 92
//	16     4    CRC-32 of the header, this field as zero
//	20     4    zero
//	24     8    sector of this header
//	32     8    sector of the other header
//	40     8    first sector for partitions
//	48     8    last sector for partitions
//	56     16   disk GUID
//	72     8    first sector of the entry array
//	80     4    entries, 128
//	84     4    bytes per entry, 128
//	88     4    CRC-32 of the entry array
//
// An entry (5.3.3):
//
//	0      16   type GUID, zero if unused
//	16     16   partition GUID
//	32     8    first sector
//	40     8    last sector, inclusive
//	48     8    attributes
//	56     72   name, UTF-16LE, padded with zeros
//
// The subset: arrays of exactly 128 entries of 128 bytes, sectors of 512 or 4096 bytes. Read takes arrays wherever the
// specification lets them be, refuses tables with a wrong checksum, with partitions that overlap or lie outside the disk, and
// falls back from a damaged primary to the backup. Write puts them in the places above, and refuses partitions that are in the
// way, as those of another system may be, unless the table is Conventional: then the arrays lie where all other programs put them, right
// behind the primary header and right before the backup's, and there is nothing for the other sector size. That is for disks
// which are not images of a machine. Write puts the backup first, so that at every moment one of the two is whole.
package gpt

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode/utf16"
)

const (
	entries    = 128     // in an array
	entrySize  = 128     // bytes
	alignment  = 1 << 20 // bytes: what partitions made by Add and Fill begin and end on
	nameUnits  = 36      // UTF-16 code units in a name
	headerSize = 92      // bytes
	arraySize  = entries * entrySize

	headArea = 1 << 20            // bytes in front of the first partition
	tailArea = 4096 + 2*arraySize // bytes behind the last one: a sector for the headers, two arrays
)

// A Table is the content of a partition table.
type Table struct {
	DiskGUID   GUID
	SectorSize int    // bytes, 512 or 4096
	Sectors    uint64 // of the disk the table is made for, both headers included
	Partitions []Partition

	// Conventional makes Write put the arrays beside their headers. Read does not set it.
	Conventional bool

	// PrimaryError and BackupError are set by Read: why that copy is damaged, or nil. At most one is set; Write
	// mends both. A backup that is whole but differs from the primary counts as damaged.
	PrimaryError, BackupError error
}

// A Partition is one used entry.
type Partition struct {
	Number     int // 1 to 128, the position in the array; what Linux calls the partition
	TypeGUID   GUID
	GUID       GUID
	Name       string // at most 36 UTF-16 code units; Linux shows it as PARTLABEL
	FirstLBA   uint64 // sector
	LastLBA    uint64 // sector, inclusive
	Attributes uint64
}

// Sectors returns the length of p in sectors.
func (p Partition) Sectors() uint64 { return p.LastLBA - p.FirstLBA + 1 }

// Offset returns where p begins, in bytes, on a disk with t's sectors.
func (t *Table) Offset(p Partition) int64 { return int64(p.FirstLBA) * int64(t.SectorSize) }

// Size returns the length of p in bytes.
func (t *Table) Size(p Partition) int64 { return int64(p.Sectors()) * int64(t.SectorSize) }

// Find returns the partition called name, which is an error if there is none or more than one.
func (t *Table) Find(name string) (Partition, error) {
	var found []Partition
	for _, p := range t.Partitions {
		if p.Name == name {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		return Partition{}, fmt.Errorf("find partition %q: expected one, found %d", name, len(found))
	}
	return found[0], nil
}

// FirstUsable returns the first sector a partition may have.
func (t *Table) FirstUsable() uint64 {
	if t.Conventional {
		return 2 + arraySize/uint64(t.SectorSize)
	}
	return headArea / uint64(t.SectorSize)
}

// LastUsable returns the last sector a partition may have.
func (t *Table) LastUsable() uint64 {
	if t.Conventional {
		return t.Sectors - 2 - arraySize/uint64(t.SectorSize)
	}
	return (t.end()-tailArea)/uint64(t.SectorSize) - 1
}

// end returns the length of the disk as both sector sizes see it, in bytes.
func (t *Table) end() uint64 { return t.Sectors * uint64(t.SectorSize) / 4096 * 4096 }

// arrays returns the first sectors of the primary and of the backup array.
func (t *Table) arrays() (primary, backup uint64) {
	if t.Conventional {
		return 2, t.LastUsable() + 1
	}
	if t.SectorSize == 512 {
		return 24576 / 512, (t.end() - tailArea) / 512
	}
	return 2, (t.end() - tailArea + arraySize) / 4096
}

// Clone returns a copy that shares nothing with t.
func (t *Table) Clone() *Table {
	u := *t
	u.Partitions = slices.Clone(t.Partitions)
	return &u
}

// Fingerprint returns a text that differs for tables that differ in anything a reader of the disk would see.
func (t *Table) Fingerprint() string {
	parts := slices.Clone(t.Partitions)
	sort.Slice(parts, func(i, j int) bool { return parts[i].Number < parts[j].Number })
	h := sha256.New()
	fmt.Fprintf(h, "%s %d %d", t.DiskGUID, t.SectorSize, t.Sectors)
	for _, p := range parts {
		fmt.Fprintf(h, "\n%+v", p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// A Block is a run of sectors, the last one included.
type Block struct{ First, Last uint64 }

// Free returns the usable sectors that no partition has, in their order.
func (t *Table) Free() []Block {
	parts := slices.Clone(t.Partitions)
	sort.Slice(parts, func(i, j int) bool { return parts[i].FirstLBA < parts[j].FirstLBA })
	var free []Block
	next := t.FirstUsable()
	for _, p := range parts {
		if p.FirstLBA > next {
			free = append(free, Block{next, min(p.FirstLBA-1, t.LastUsable())})
		}
		next = max(next, p.LastLBA+1)
	}
	if next <= t.LastUsable() {
		free = append(free, Block{next, t.LastUsable()})
	}
	return free
}

// Add appends p, at least size bytes long, behind the last partition, on the next whole MiB. It sets p's place,
// and its number if that is zero, and returns the result.
func (t *Table) Add(p Partition, size int64) (Partition, error) {
	if size <= 0 {
		return Partition{}, fmt.Errorf("add partition %q: size %d is not positive", p.Name, size)
	}
	if err := t.validateSize(); err != nil {
		return Partition{}, fmt.Errorf("add partition %q: %w", p.Name, err)
	}
	first := t.nextFree()
	sectors := (uint64(size) + uint64(t.SectorSize) - 1) / uint64(t.SectorSize)
	if end := t.LastUsable(); first > end || sectors > end-first+1 {
		return Partition{}, fmt.Errorf("add partition %q: %d bytes do not fit: free are sectors %d to %d of %d bytes",
			p.Name, size, first, end, t.SectorSize)
	}
	return t.place(p, first, first+sectors-1)
}

// Fill appends p behind the last partition, from the next whole MiB to the last one.
func (t *Table) Fill(p Partition) (Partition, error) {
	if err := t.validateSize(); err != nil {
		return Partition{}, fmt.Errorf("add partition %q: %w", p.Name, err)
	}
	first, end := t.nextFree(), t.lastWhole()
	if first >= end {
		return Partition{}, fmt.Errorf("add partition %q: no whole MiB is free behind sector %d of %d", p.Name, first, t.Sectors)
	}
	return t.place(p, first, end-1)
}

// Extend lets the last partition on the disk end at the last whole MiB, and returns it. It is an error if it is not called
// name; it does not become smaller.
func (t *Table) Extend(name string) (Partition, error) {
	if err := t.Validate(); err != nil {
		return Partition{}, fmt.Errorf("extend partition %q: %w", name, err)
	}
	last := -1
	for i, p := range t.Partitions {
		if last < 0 || p.LastLBA > t.Partitions[last].LastLBA {
			last = i
		}
	}
	if last < 0 || t.Partitions[last].Name != name {
		return Partition{}, fmt.Errorf("extend partition %q: it is not the last on the disk", name)
	}
	p := &t.Partitions[last]
	p.LastLBA = max(p.LastLBA, t.lastWhole()-1)
	return *p, nil
}

// lastWhole returns the sector behind the last whole MiB that partitions may use.
func (t *Table) lastWhole() uint64 {
	unit := alignment / uint64(t.SectorSize)
	return (t.LastUsable() + 1) / unit * unit
}

// nextFree returns the first aligned sector behind every partition.
func (t *Table) nextFree() uint64 {
	free := t.FirstUsable()
	for _, p := range t.Partitions {
		free = max(free, p.LastLBA+1)
	}
	unit := alignment / uint64(t.SectorSize)
	return (free + unit - 1) / unit * unit
}

func (t *Table) place(p Partition, first, last uint64) (Partition, error) {
	p.FirstLBA, p.LastLBA = first, last
	for n := 1; p.Number == 0 && n <= entries; n++ {
		if !slices.ContainsFunc(t.Partitions, func(q Partition) bool { return q.Number == n }) {
			p.Number = n
		}
	}
	t.Partitions = append(t.Partitions, p)
	if err := t.Validate(); err != nil {
		t.Partitions = t.Partitions[:len(t.Partitions)-1]
		return Partition{}, fmt.Errorf("add partition %q: %w", p.Name, err)
	}
	return p, nil
}

// GrowTo makes t fit a disk of size bytes, which must not be smaller than before: the backup moves to its end.
func (t *Table) GrowTo(size int64) error {
	if err := t.validateSize(); err != nil {
		return fmt.Errorf("grow partition table: %w", err)
	}
	sectors := uint64(size) / uint64(t.SectorSize)
	if size < 0 || sectors < t.Sectors {
		return fmt.Errorf("grow partition table: disk has %d bytes, the table is made for %d sectors of %d", size, t.Sectors, t.SectorSize)
	}
	t.Sectors = sectors
	return nil
}

// Validate checks what Write relies on and Read promises.
func (t *Table) Validate() error {
	if err := t.validateSize(); err != nil {
		return err
	}
	if err := t.validateGUID(); err != nil {
		return err
	}
	return t.validatePartitions(t.FirstUsable(), t.LastUsable())
}

// validatePartitions checks the partitions of a table in which the sectors from first to last are usable.
func (t *Table) validatePartitions(first, last uint64) error {
	for i, p := range t.Partitions {
		if err := p.validate(first, last); err != nil {
			return fmt.Errorf("partition %d %q: %w", p.Number, p.Name, err)
		}
		for _, q := range t.Partitions[:i] {
			switch {
			case p.Number == q.Number:
				return fmt.Errorf("partition %d is there twice, as %q and %q", p.Number, q.Name, p.Name)
			case p.GUID == q.GUID:
				return fmt.Errorf("partitions %d and %d have the same GUID %s", q.Number, p.Number, p.GUID)
			case p.FirstLBA <= q.LastLBA && q.FirstLBA <= p.LastLBA:
				return fmt.Errorf("partitions %d (sectors %d to %d) and %d (%d to %d) overlap",
					q.Number, q.FirstLBA, q.LastLBA, p.Number, p.FirstLBA, p.LastLBA)
			}
		}
	}
	return nil
}

func (t *Table) validateGUID() error {
	if b, err := t.DiskGUID.bytes(); err != nil || b == [16]byte{} {
		return fmt.Errorf("disk GUID %q is missing or malformed", t.DiskGUID)
	}
	return nil
}

func (t *Table) validateSize() error {
	if t.SectorSize != 512 && t.SectorSize != 4096 {
		return fmt.Errorf("sector size is %d, expected 512 or 4096", t.SectorSize)
	}
	if t.Sectors <= 2*t.FirstUsable() || t.Sectors > 1<<63/uint64(t.SectorSize) {
		return fmt.Errorf("a disk of %d sectors of %d bytes cannot hold a partition table", t.Sectors, t.SectorSize)
	}
	return nil
}

func (p Partition) validate(first, last uint64) error {
	typ, err := p.TypeGUID.bytes()
	if err != nil {
		return err
	}
	id, err := p.GUID.bytes()
	if err != nil {
		return err
	}
	switch {
	case p.Number < 1 || p.Number > entries:
		return fmt.Errorf("number is not within 1 to %d", entries)
	case typ == [16]byte{} || id == [16]byte{}:
		return fmt.Errorf("type %q or GUID %q is missing", p.TypeGUID, p.GUID)
	case len(utf16.Encode([]rune(p.Name))) > nameUnits || strings.ContainsRune(p.Name, 0):
		return fmt.Errorf("name is longer than %d UTF-16 code units or has a zero in it", nameUnits)
	case p.FirstLBA > p.LastLBA:
		return fmt.Errorf("ends at sector %d, before it begins at %d", p.LastLBA, p.FirstLBA)
	case p.FirstLBA < first || p.LastLBA > last:
		return fmt.Errorf("sectors %d to %d are not within the usable %d to %d", p.FirstLBA, p.LastLBA, first, last)
	}
	return nil
}
