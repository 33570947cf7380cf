package gpt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unicode/utf16"
)

// Write writes t: the backup array and header, then the primary ones, then the protective MBR. If w has a Sync
// method, as *os.File, it is called between these and at the end. A power cut therefore leaves the old or the
// new table readable, never neither. The 440 bytes of boot code in sector 0 stay as they are.
//
// The headers of a table for the other sector size are overwritten with zeros while the primary is still the old one: no moment
// has the new table beside an old one of the other kind.
func (t *Table) Write(w io.WriterAt) error {
	if err := t.Validate(); err != nil {
		return fmt.Errorf("write partition table: %w", err)
	}
	return run(w, slices.Concat(t.backupSteps(), []step{{}}, t.otherSteps(), []step{{}}, t.primarySteps(), []step{{}}))
}

// otherSteps take the headers for the other sector size away. Conventional arrays for sectors of 512 bytes cover them anyway.
func (t *Table) otherSteps() []step {
	if t.Conventional && t.SectorSize == 512 {
		return nil
	}
	other := t.otherSize()
	return []step{
		{"primary header for the other sector size", other, make([]byte, 512)},
		{"backup header for the other sector size", int64(t.Sectors)*int64(t.SectorSize)/other*other - other, make([]byte, 512)},
	}
}

// WriteBoth writes t, and the same table for the other sector size. It is for images: it does not care for power cuts. Partitions
// must begin and end on multiples of 4096 bytes, as all do that Add and Fill place on a whole MiB.
func (t *Table) WriteBoth(w io.WriterAt) error {
	u, err := t.forOther()
	if err == nil && t.Conventional {
		err = errors.New("a conventional table is for one sector size")
	}
	if err == nil {
		err = errors.Join(t.Validate(), u.Validate())
	}
	if err != nil {
		return fmt.Errorf("write partition tables: %w", err)
	}
	large, small := t, u
	if t.SectorSize == 512 {
		large, small = u, t
	}
	// The last sector of the large ones has the last small one in it, which must come second.
	return run(w, slices.Concat(large.backupSteps(), large.primarySteps(), small.backupSteps(), small.primarySteps(), []step{{}}))
}

// otherSize returns the other sector size.
func (t *Table) otherSize() int64 {
	if t.SectorSize == 512 {
		return 4096
	}
	return 512
}

// forOther returns t for the other sector size.
func (t *Table) forOther() (*Table, error) {
	u := &Table{DiskGUID: t.DiskGUID, SectorSize: int(t.otherSize())}
	from, to := uint64(t.SectorSize), uint64(u.SectorSize)
	if t.Sectors*from%to != 0 {
		return nil, fmt.Errorf("a disk of %d sectors of %d bytes has no whole number of sectors of %d", t.Sectors, from, to)
	}
	u.Sectors = t.Sectors * from / to
	for _, p := range t.Partitions {
		first, end := p.FirstLBA*from, (p.LastLBA+1)*from
		if first%to != 0 || end%to != 0 {
			return nil, fmt.Errorf("partition %d %q: bytes %d to %d are not whole sectors of %d", p.Number, p.Name, first, end, to)
		}
		p.FirstLBA, p.LastLBA = first/to, end/to-1
		u.Partitions = append(u.Partitions, p)
	}
	return u, nil
}

// A step is one write or, without data, the Sync of those before it.
type step struct {
	name string
	off  int64
	data []byte
}

func (t *Table) backupSteps() []step {
	_, array := t.arrays()
	last, content := t.Sectors-1, t.marshalEntries()
	return []step{
		{"backup entries", t.bytes(array), content},
		{"backup header", t.bytes(last), t.marshalHeader(last, 1, array, content)},
	}
}

func (t *Table) primarySteps() []step {
	array, _ := t.arrays()
	content := t.marshalEntries()
	return []step{
		{"primary entries", t.bytes(array), content},
		{"primary header", t.bytes(1), t.marshalHeader(1, t.Sectors-1, array, content)},
		{"protective MBR", mbrCodeSize, marshalMBR()},
	}
}

func run(w io.WriterAt, steps []step) error {
	for _, s := range steps {
		if s.data == nil {
			if err := syncWriter(w); err != nil {
				return fmt.Errorf("write partition table: %w", err)
			}
			continue
		}
		if _, err := w.WriteAt(s.data, s.off); err != nil {
			return fmt.Errorf("write partition table: %s at byte %d: %w", s.name, s.off, err)
		}
	}
	return nil
}

func syncWriter(w io.WriterAt) error {
	if s, ok := w.(interface{ Sync() error }); ok {
		return s.Sync()
	}
	return nil
}

func (t *Table) bytes(sector uint64) int64 { return int64(sector) * int64(t.SectorSize) }

func (t *Table) marshalEntries() []byte {
	b := make([]byte, entries*entrySize)
	for _, p := range t.Partitions {
		e := b[(p.Number-1)*entrySize:][:entrySize]
		encodeGUID(e[0:], p.TypeGUID)
		encodeGUID(e[16:], p.GUID)
		binary.LittleEndian.PutUint64(e[32:], p.FirstLBA)
		binary.LittleEndian.PutUint64(e[40:], p.LastLBA)
		binary.LittleEndian.PutUint64(e[48:], p.Attributes)
		for i, u := range utf16.Encode([]rune(p.Name)) {
			binary.LittleEndian.PutUint16(e[56+2*i:], u)
		}
	}
	return b
}

// marshalHeader returns one whole sector.
func (t *Table) marshalHeader(self, other, array uint64, content []byte) []byte {
	b := make([]byte, t.SectorSize)
	copy(b, signature)
	binary.LittleEndian.PutUint32(b[8:], revision)
	binary.LittleEndian.PutUint32(b[12:], headerSize)
	binary.LittleEndian.PutUint64(b[24:], self)
	binary.LittleEndian.PutUint64(b[32:], other)
	binary.LittleEndian.PutUint64(b[40:], t.FirstUsable())
	binary.LittleEndian.PutUint64(b[48:], t.LastUsable())
	encodeGUID(b[56:], t.DiskGUID)
	binary.LittleEndian.PutUint64(b[72:], array)
	binary.LittleEndian.PutUint32(b[80:], entries)
	binary.LittleEndian.PutUint32(b[84:], entrySize)
	binary.LittleEndian.PutUint32(b[88:], crc32.ChecksumIEEE(content))
	binary.LittleEndian.PutUint32(b[16:], crc32.ChecksumIEEE(b[:headerSize]))
	return b
}

const mbrCodeSize = 440 // bytes of sector 0 that belong to the boot code

// marshalMBR returns bytes 440 to 511 of sector 0: no disk signature and one partition of type 0xee over the
// whole disk (5.2.3). Programs that know only the MBR then see a full disk. Its size is the largest there is, which stands for
// "to the end" (Linux, block/partitions/efi.c): the number of sectors depends on their size, and grows with the disk.
func marshalMBR() []byte {
	b := make([]byte, 512-mbrCodeSize)
	p := b[446-mbrCodeSize:]
	copy(p, []byte{0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff}) // not active, CHS 0/0/2 to "too large"
	binary.LittleEndian.PutUint32(p[8:], 1)
	binary.LittleEndian.PutUint32(p[12:], 0xffffffff)
	b[510-mbrCodeSize], b[511-mbrCodeSize] = 0x55, 0xaa
	return b
}
