// Package blklog reads logs of disk writes and replays them, so that a test can look at every state in which a power cut
// could have left a disk.
//
// The format is device-mapper's log-writes (the kernel's Documentation/admin-guide/device-mapper/log-writes.rst and
// drivers/md/dm-log-writes.c), which QEMU's blklogwrites driver writes. Numbers are little-endian; everything is in
// units of the log's sector, a power of two from 512 bytes on:
//
//	sector 0      8 magic, 8 version 1, 8 number of entries, 4 bytes of a sector
//	then entries  8 first sector on the disk, 8 sectors, 8 flags, 8 length of the mark; a mark's text follows at once;
//	              padded to a sector; then the sectors' data, but for a discard
//
// Entries are in the order in which the disk completed them. What is before a flush was durable when the flush
// completed; of what is behind the last flush, a real disk may keep any part. Replay of the first n entries is the state
// of a disk that keeps all it has been given.
//
// Refused: other versions, sizes and flags, and entries that do not fit in the file or below 2^63.
package blklog

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"

	"golang.org/x/sys/unix"
)

const (
	magic     = 0x6a736677736872
	version   = 1
	superSize = 28
	entrySize = 32
	maxSector = 64 << 10
)

// Flags say what an entry is besides a write.
type Flags uint64

const (
	Flush    Flags = 1 << iota // the disk has made durable what came before
	FUA                        // this write was durable when it completed
	Discard                    // the sectors have no content any more
	Mark                       // a text in the log, no write
	Metadata                   // a write of a file system's metadata

	known = Flush | FUA | Discard | Mark | Metadata
)

// An Entry is one request to the disk.
type Entry struct {
	Offset, Length int64 // bytes of the disk
	Flags          Flags
	Mark           string

	data int64 // where the bytes are in the log
}

// A Log is an open log. Its entries may be looked at and not changed.
type Log struct {
	SectorSize int
	Entries    []Entry

	r io.ReaderAt
}

// Header is an empty log, to which QEMU appends.
func Header(sectorSize int) []byte {
	b := make([]byte, sectorSize)
	binary.LittleEndian.PutUint64(b, magic)
	binary.LittleEndian.PutUint64(b[8:], version)
	binary.LittleEndian.PutUint32(b[24:], uint32(sectorSize))
	return b
}

// Open reads the headers of all entries of a log of size bytes. Data is read from r when it is replayed.
func Open(r io.ReaderAt, size int64) (*Log, error) {
	b := make([]byte, superSize)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read write log: superblock: %w", err)
	}
	if got := binary.LittleEndian.Uint64(b); got != magic {
		return nil, fmt.Errorf("read write log: magic %#x, expected %#x", got, magic)
	}
	if got := binary.LittleEndian.Uint64(b[8:]); got != version {
		return nil, fmt.Errorf("read write log: version %d, expected %d", got, version)
	}
	sector := binary.LittleEndian.Uint32(b[24:])
	if sector < 512 || sector > maxSector || bits.OnesCount32(sector) != 1 {
		return nil, fmt.Errorf("read write log: sectors of %d bytes, expected a power of two from 512 to %d", sector, maxSector)
	}
	entries := binary.LittleEndian.Uint64(b[16:])
	if entries > uint64(size)/uint64(sector) {
		return nil, fmt.Errorf("read write log: %d entries do not fit in %d bytes", entries, size)
	}
	l := &Log{SectorSize: int(sector), r: r}
	at := int64(sector)
	for i := range entries {
		e, next, err := l.entry(at, size)
		if err != nil {
			return nil, fmt.Errorf("read write log: entry %d of %d at %d: %w", i, entries, at, err)
		}
		l.Entries = append(l.Entries, e)
		at = next
	}
	return l, nil
}

// entry reads the header at a place of the log and returns the place of the next one.
func (l *Log) entry(at, size int64) (Entry, int64, error) {
	sector := int64(l.SectorSize)
	if at > size-sector {
		return Entry{}, 0, fmt.Errorf("behind the log's %d bytes", size)
	}
	b := make([]byte, sector)
	if _, err := l.r.ReadAt(b, at); err != nil {
		return Entry{}, 0, err
	}
	first, count := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	flags, mark := Flags(binary.LittleEndian.Uint64(b[16:])), binary.LittleEndian.Uint64(b[24:])
	limit := uint64(math.MaxInt64 / sector)
	switch {
	case flags&^known != 0:
		return Entry{}, 0, fmt.Errorf("unknown flags %#x", uint64(flags&^known))
	case first > limit || count > limit-first:
		return Entry{}, 0, fmt.Errorf("%d sectors from %d are no place on a disk", count, first)
	case mark > uint64(sector-entrySize):
		return Entry{}, 0, fmt.Errorf("a mark of %d bytes does not fit in a sector", mark)
	}
	e := Entry{Offset: int64(first) * sector, Length: int64(count) * sector, Flags: flags, data: at + sector}
	next := e.data
	if flags&Mark != 0 {
		e.Mark = string(b[entrySize : entrySize+mark])
	}
	if flags&Discard == 0 {
		if e.Length > size-e.data {
			return Entry{}, 0, fmt.Errorf("%d bytes of data go behind the log's %d bytes", e.Length, size)
		}
		next += e.Length
	}
	return e, next, nil
}

// Flushes are the places behind each flush: Replay(d, 0, n) with one of them is what the disk had promised to keep.
func (l *Log) Flushes() []int {
	var at []int
	for i, e := range l.Entries {
		if e.Flags&Flush != 0 {
			at = append(at, i+1)
		}
	}
	return at
}

// A Disk is what a log is replayed onto.
type Disk interface {
	io.WriterAt
	Discard(offset, length int64) error // makes it read as zeros
}

// Replay does the entries from, up to and without to.
func (l *Log) Replay(d Disk, from, to int) error {
	if from < 0 || to > len(l.Entries) || from > to {
		return fmt.Errorf("replay entries %d to %d: the log has %d", from, to, len(l.Entries))
	}
	for i, e := range l.Entries[from:to] {
		if err := l.Apply(d, e); err != nil {
			return fmt.Errorf("replay entry %d: %w", from+i, err)
		}
	}
	return nil
}

// Apply does one entry of l, in whatever order the caller wants them.
func (l *Log) Apply(d Disk, e Entry) error {
	switch {
	case e.Flags&Mark != 0 || e.Length == 0:
		return nil
	case e.Flags&Discard != 0:
		return d.Discard(e.Offset, e.Length)
	}
	_, err := io.Copy(io.NewOffsetWriter(d, e.Offset), io.NewSectionReader(l.r, e.data, e.Length))
	return err
}

// Part is the request that an entry would have been if only its bytes from, up to and without to, had reached the disk.
func (e Entry) Part(from, to int64) Entry {
	e.Offset, e.Length, e.data = e.Offset+from, to-from, e.data+from
	return e
}

// File is a raw image as a Disk. What is discarded becomes a hole.
type File struct{ *os.File }

// Discard implements Disk.
func (f File) Discard(offset, length int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
}
