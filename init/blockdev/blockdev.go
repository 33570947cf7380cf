// Package blockdev talks to the kernel about disks: writing, flushing, and what partitions there are.
//
// init changes the partition table of a disk whose other partitions are in use, where the kernel refuses to read the
// table again. So a new partition is announced alone (BLKPG), and a whole table is read only while nothing uses the disk.
package blockdev

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Disk is a block device opened for reading and writing. Sync (of *os.File) returns when the device's own cache is flushed.
type Disk struct {
	*os.File
}

// Open opens a disk or a partition.
func Open(path string) (*Disk, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && fi.Mode().Type() != os.ModeDevice {
		err = fmt.Errorf("open %s: expected a block device, found %v", path, fi.Mode())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Disk{f}, nil
}

// AddPartition makes a partition known to the kernel; nothing is written. start and size are bytes and whole sectors. When it
// returns the device node is there.
func (d *Disk) AddPartition(number int, start, size int64) error {
	p := partition(number, start, size)
	arg := unix.BlkpgIoctlArg{
		Op:      unix.BLKPG_ADD_PARTITION,
		Datalen: int32(unsafe.Sizeof(p)),
		Data:    (*byte)(unsafe.Pointer(&p)),
	}
	if err := d.ioctl(unix.BLKPG, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("add partition %d to %s in the kernel, %d bytes at %d: %w", number, d.Name(), size, start, err)
	}
	return nil
}

func partition(number int, start, size int64) unix.BlkpgPartition {
	return unix.BlkpgPartition{Pno: int32(number), Start: start, Length: size}
}

// Reread makes the kernel read the partition table again. No partition may be in use.
func (d *Disk) Reread() error {
	if err := d.ioctl(unix.BLKRRPART, nil); err != nil {
		return fmt.Errorf("read partition table of %s again in the kernel: %w", d.Name(), err)
	}
	return nil
}

func (d *Disk) ioctl(request uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// Number returns the device number of a device node as device-mapper takes it, "major:minor".
func Number(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("stat %s: expected a block device, found mode %o", path, st.Mode)
	}
	return fmt.Sprintf("%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))), nil
}
