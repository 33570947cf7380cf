package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/gpt"
)

// A Resizer is the whole disk (blockdev.Disk).
type Resizer interface {
	io.WriterAt
	Sync() error
	// ResizePartition tells the kernel that a partition, in bytes, ends elsewhere, without writing it.
	ResizePartition(number int, start, size int64) error
}

// PlanGrowth returns the table in which state reaches the end of a disk that has become larger since its table was written, or
// nil on a disk that has not: there state is left as it is, somebody may want it so. State stays as it is also if less than a MiB
// is to be gained or another partition lies behind it. The table is one for the larger disk all the same: a backup that is not at
// the end of the disk is not found when the primary is damaged.
func PlanGrowth(d disk.Disk) (*gpt.Table, gpt.Partition, error) {
	old, err := d.Table.Find(disk.NameState)
	if err != nil {
		return nil, gpt.Partition{}, err
	}
	table := *d.Table
	table.Partitions = slices.Clone(d.Table.Partitions)
	if err := table.GrowTo(d.Size); err != nil {
		return nil, gpt.Partition{}, err
	}
	if table.Sectors == d.Table.Sectors {
		return nil, gpt.Partition{}, nil
	}
	if err := table.Validate(); err != nil {
		return nil, gpt.Partition{}, err
	}
	p, err := table.Extend(disk.NameState)
	if err != nil {
		p = old // not the last on the disk
	}
	return &table, p, nil
}

// Grow carries out a PlanGrowth. The table comes first: a kernel that starts with the larger partition and the smaller file
// system is fine, the other way round it would refuse to mount. old is the size of the partition in bytes, as the kernel knows it.
func Grow(w Resizer, table *gpt.Table, p gpt.Partition, old int64) error {
	if err := table.Write(w); err != nil || table.Size(p) == old {
		return err
	}
	return w.ResizePartition(p.Number, table.Offset(p), table.Size(p))
}

// worthGrowing is more than what a file system leaves free for want of space for another block group: its tables, at the
// most 8 MiB with what mke2fs takes for small disks.
const worthGrowing = 16 << 20 // bytes

// Behind reports whether the ext4 file system in a partition of size bytes is so much smaller that it is worth growing, and its
// size in bytes.
func Behind(r io.ReaderAt, size int64) (now int64, behind bool, err error) {
	now, err = fileSystemSize(r)
	return now, err == nil && size-now >= worthGrowing, err
}

// fileSystemSize reads the superblock (the kernel's Documentation/filesystems/ext4/super.rst).
func fileSystemSize(r io.ReaderAt) (int64, error) {
	const superblock, magic, sixtyFourBit = 1024, 0xef53, 0x80
	b := make([]byte, 1024)
	if n, err := r.ReadAt(b, superblock); n < len(b) {
		return 0, fmt.Errorf("read superblock: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	le := binary.LittleEndian
	if m := le.Uint16(b[0x38:]); m != magic {
		return 0, fmt.Errorf("read superblock: expected magic %#x, found %#x", magic, m)
	}
	blocks := uint64(le.Uint32(b[0x4:]))
	if le.Uint32(b[0x60:])&sixtyFourBit != 0 {
		blocks |= uint64(le.Uint32(b[0x150:])) << 32
	}
	shift := le.Uint32(b[0x18:])
	if shift > 6 || blocks > 1<<40 {
		return 0, fmt.Errorf("read superblock: %d blocks of 2^%d KiB make no sense", blocks, shift)
	}
	return int64(blocks << (10 + shift)), nil
}

// GrowFileSystem lets the ext4 file system mounted at target fill a partition of size bytes (EXT4_IOC_RESIZE_FS, fs/ext4/ioctl.c).
// The kernel adds block groups one flexible group at a time, each in a transaction: a power cut leaves some size in between.
func GrowFileSystem(target string, size int64) error {
	const resizeFS = 0x40086610 // _IOW('f', 16, __u64), the same on amd64 and arm64
	f, err := os.Open(target)
	if err != nil {
		return err
	}
	defer f.Close()
	blocks := uint64(size / blockSize)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), resizeFS, uintptr(unsafe.Pointer(&blocks))); errno != 0 {
		return fmt.Errorf("grow the file system on %s to %d blocks: %w", target, blocks, errno)
	}
	return nil
}
