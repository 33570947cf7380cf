package gpt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// Write writes t: the backup array and header, then the primary ones, then the protective MBR. If w has a Sync
// method, as *os.File, it is called between these and at the end. A power cut therefore leaves the old or the
// new table readable, never neither. The 440 bytes of boot code in sector 0 stay as they are.
func (t *Table) Write(w io.WriterAt) error {
	if err := t.Validate(); err != nil {
		return fmt.Errorf("write partition table: %w", err)
	}
	array := t.marshalEntries()
	n := t.arraySectors()
	last := t.Sectors - 1
	steps := []struct {
		name string
		off  int64
		data []byte
	}{
		{"backup entries", t.bytes(last - n), array},
		{"backup header", t.bytes(last), t.marshalHeader(last, 1, last-n, array)},
		{"", 0, nil},
		{"primary entries", t.bytes(2), array},
		{"primary header", t.bytes(1), t.marshalHeader(1, last, 2, array)},
		{"protective MBR", mbrCodeSize, t.marshalMBR()},
		{"", 0, nil},
	}
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
// whole disk (5.2.3). Programs that know only the MBR then see a full disk.
func (t *Table) marshalMBR() []byte {
	b := make([]byte, 512-mbrCodeSize)
	p := b[446-mbrCodeSize:]
	copy(p, []byte{0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff}) // not active, CHS 0/0/2 to "too large"
	binary.LittleEndian.PutUint32(p[8:], 1)
	binary.LittleEndian.PutUint32(p[12:], uint32(min(t.Sectors-1, 0xffffffff)))
	b[510-mbrCodeSize], b[511-mbrCodeSize] = 0x55, 0xaa
	return b
}
