package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unicode/utf16"
)

const (
	signature = "EFI PART"
	revision  = 0x00010000
)

// Read reads the table of a disk of size bytes. A damaged primary is replaced by the backup, and the Table says
// so (PrimaryError). The table may be made for a smaller disk than size, one that has grown since: then Sectors
// is the smaller number, and GrowTo follows the disk. A table for a larger disk is refused. The protective MBR
// is not looked at, nor is a table for the other sector size.
func Read(r io.ReaderAt, size int64, sectorSize int) (*Table, error) {
	d := disk{r: r, sectorSize: sectorSize}
	if size > 0 && sectorSize > 0 {
		d.sectors = uint64(size) / uint64(sectorSize)
	}
	if err := (&Table{SectorSize: sectorSize, Sectors: d.sectors}).validateSize(); err != nil {
		return nil, fmt.Errorf("read partition table: %w", err)
	}
	primary, other, err := d.readCopy(1)
	if err != nil {
		backup, _, berr := d.readCopy(d.sectors - 1)
		if berr != nil {
			return nil, fmt.Errorf("read partition table: neither copy is usable: %w", errors.Join(err, berr))
		}
		backup.PrimaryError = err
		return backup, nil
	}
	backup, _, err := d.readCopy(other)
	switch {
	case err != nil:
		primary.BackupError = err
	case !primary.equal(backup):
		primary.BackupError = fmt.Errorf("header in sector %d: differs from the primary", other)
	}
	return primary, nil
}

func (t *Table) equal(u *Table) bool {
	return t.DiskGUID == u.DiskGUID && t.Sectors == u.Sectors && slices.Equal(t.Partitions, u.Partitions)
}

type disk struct {
	r          io.ReaderAt
	sectorSize int
	sectors    uint64
}

// readCopy reads the header in the given sector and its entries; other is where it says its twin is.
func (d disk) readCopy(sector uint64) (t *Table, other uint64, err error) {
	t, other, err = d.readHeader(sector)
	if err != nil {
		return nil, 0, fmt.Errorf("header in sector %d: %w", sector, err)
	}
	return t, other, nil
}

func (d disk) readHeader(sector uint64) (*Table, uint64, error) {
	if sector >= d.sectors {
		return nil, 0, fmt.Errorf("disk has only %d sectors", d.sectors)
	}
	h, err := d.read(sector, d.sectorSize)
	if err != nil {
		return nil, 0, err
	}
	if string(h[:8]) != signature {
		return nil, 0, fmt.Errorf("no GPT signature %q", signature)
	}
	size := binary.LittleEndian.Uint32(h[12:])
	if rev := binary.LittleEndian.Uint32(h[8:]); rev != revision || size < headerSize || size > uint32(d.sectorSize) {
		return nil, 0, fmt.Errorf("revision %#x with %d bytes is not supported, expected %#x with %d", rev, size, revision, headerSize)
	}
	sum := binary.LittleEndian.Uint32(h[16:])
	copy(h[16:20], []byte{0, 0, 0, 0})
	if got := crc32.ChecksumIEEE(h[:size]); got != sum {
		return nil, 0, fmt.Errorf("checksum is %08x, expected %08x", got, sum)
	}
	self, other := binary.LittleEndian.Uint64(h[24:]), binary.LittleEndian.Uint64(h[32:])
	if self != sector {
		return nil, 0, fmt.Errorf("says it is in sector %d", self)
	}
	if last := max(self, other); last >= d.sectors || min(self, other) != 1 {
		return nil, 0, fmt.Errorf("table is made for %d sectors with its headers in %d and %d, the disk has %d", last+1, self, other, d.sectors)
	}
	if n, s := binary.LittleEndian.Uint32(h[80:]), binary.LittleEndian.Uint32(h[84:]); n != entries || s != entrySize {
		return nil, 0, fmt.Errorf("array of %d entries of %d bytes is not supported, expected %d of %d", n, s, entries, entrySize)
	}
	t := &Table{DiskGUID: decodeGUID(h[56:]), SectorSize: d.sectorSize, Sectors: max(self, other) + 1}
	return t, other, d.readEntries(t, h)
}

// readEntries reads the array that header h speaks of. It must be outside the usable sectors, on the header's side (5.3.1).
func (d disk) readEntries(t *Table, h []byte) error {
	self, array := binary.LittleEndian.Uint64(h[24:]), binary.LittleEndian.Uint64(h[72:])
	first, last := binary.LittleEndian.Uint64(h[40:]), binary.LittleEndian.Uint64(h[48:])
	if first > last || last >= t.Sectors {
		return fmt.Errorf("usable sectors %d to %d are not within the %d of the disk", first, last, t.Sectors)
	}
	from, to := uint64(2), first // where the array may be
	if self != 1 {
		from, to = last+1, self
	}
	if n := arraySize / uint64(d.sectorSize); array < from || array > to || to-array < n {
		return fmt.Errorf("entries in sector %d: expected %d sectors between %d and %d", array, n, from, to)
	}
	b, err := d.read(array, arraySize)
	if err != nil {
		return err
	}
	if got, want := crc32.ChecksumIEEE(b), binary.LittleEndian.Uint32(h[88:]); got != want {
		return fmt.Errorf("checksum of the entries is %08x, expected %08x", got, want)
	}
	t.Partitions = parseEntries(b)
	if err := t.validateGUID(); err != nil {
		return err
	}
	return t.validatePartitions(first, last)
}

func (d disk) read(sector uint64, n int) ([]byte, error) {
	b := make([]byte, n)
	if n, err := d.r.ReadAt(b, int64(sector)*int64(d.sectorSize)); n < len(b) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b, nil
}

func parseEntries(b []byte) []Partition {
	var list []Partition
	for i := range entries {
		e := b[i*entrySize:][:entrySize]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		list = append(list, Partition{
			Number:     i + 1,
			TypeGUID:   decodeGUID(e[0:]),
			GUID:       decodeGUID(e[16:]),
			FirstLBA:   binary.LittleEndian.Uint64(e[32:]),
			LastLBA:    binary.LittleEndian.Uint64(e[40:]),
			Attributes: binary.LittleEndian.Uint64(e[48:]),
			Name:       parseName(e[56:128]),
		})
	}
	return list
}

// parseName ends at the first zero; a lone surrogate becomes U+FFFD.
func parseName(b []byte) string {
	var u []uint16
	for ; len(b) >= 2; b = b[2:] {
		c := binary.LittleEndian.Uint16(b)
		if c == 0 {
			break
		}
		u = append(u, c)
	}
	return string(utf16.Decode(u))
}
