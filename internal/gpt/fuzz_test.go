package gpt

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"
)

// ends is a disk of which only the first and last bytes are not zero.
type ends struct {
	head, tail []byte
	size       int64
}

func (e ends) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= e.size {
		return 0, io.EOF
	}
	n := min(len(p), int(e.size-off))
	clear(p[:n])
	if off < int64(len(e.head)) {
		copy(p[:n], e.head[off:])
	}
	if tail := e.size - int64(len(e.tail)); off+int64(n) > tail {
		copy(p[max(tail-off, 0):n], e.tail[max(off-tail, 0):])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// seal makes the checksums of the header at h right, where its entries are within b, which begins at byte start of the disk.
func seal(b []byte, h, start int64, sectorSize int) {
	array := int64(binary.LittleEndian.Uint64(b[h+72:]))*int64(sectorSize) - start
	if array >= 0 && array+arraySize <= int64(len(b)) {
		binary.LittleEndian.PutUint32(b[h+88:], crc32.ChecksumIEEE(b[array:][:arraySize]))
	}
	binary.LittleEndian.PutUint32(b[h+12:], headerSize)
	clear(b[h+16 : h+20])
	binary.LittleEndian.PutUint32(b[h+16:], crc32.ChecksumIEEE(b[h:][:headerSize]))
}

// Whatever the first 40 KiB and the last 36 KiB of a disk hold, Read returns an error or a table without contradictions; and what
// Write takes of it comes back the same.
func FuzzRead(f *testing.F) {
	const size, head, tail = 4 * mib, 24576 + arraySize, tailArea
	image := make(memory, size)
	tab := &Table{DiskGUID: id(1), SectorSize: 512, Sectors: size / 512, Partitions: []Partition{
		{Number: 1, TypeGUID: TypeESP, GUID: id(2), Name: "esp", FirstLBA: 2048, LastLBA: 4095, Attributes: 1},
		{Number: 3, TypeGUID: TypeLinux, GUID: id(3), Name: "größer", FirstLBA: 4096, LastLBA: 6143},
	}}
	if err := tab.WriteBoth(image); err != nil {
		f.Fatal(err)
	}
	first, last := []byte(image[512:head]), []byte(image[size-tail:])
	f.Add(first, last, false, true)
	f.Add(first, last, true, true)
	f.Add(first[:100], last, false, false)
	f.Add(first, []byte{}, true, false)
	f.Fuzz(func(t *testing.T, first, last []byte, large, sealed bool) {
		sectorSize := 512
		if large {
			sectorSize = 4096
		}
		d := ends{head: make([]byte, head), tail: make([]byte, tail), size: size}
		copy(d.head[512:], first)
		copy(d.tail[max(tail-len(last), 0):], last[max(len(last)-tail, 0):])
		if sealed {
			seal(d.head, int64(sectorSize), 0, sectorSize)
			seal(d.tail, int64(tail-sectorSize), size-tail, sectorSize)
		}
		got, err := Read(d, size, sectorSize)
		if err != nil {
			return
		}
		if err := got.validatePartitions(2, got.Sectors-2); err != nil || got.Sectors > size/uint64(sectorSize) {
			t.Fatalf("read a table with contradictions: %v\n%s", err, text(got))
		}
		if got.Validate() != nil {
			return // another system's, whose partitions are where Write has its arrays
		}
		again := make(memory, size)
		if err := got.Write(again); err != nil {
			t.Fatalf("what Validate accepted, Write refuses: %v", err)
		}
		if back, err := Read(again, size, sectorSize); err != nil || text(back) != text(got) {
			t.Fatalf("wrote\n%sread %v\n%s", text(got), err, text(back))
		}
	})
}
