// Package blockdev talks to the kernel about disks: writing, flushing, and what partitions there are.
//
// init and ignition change the partition table of a disk whose other partitions are in use, where the kernel refuses to read the
// table again. So a partition that is new, larger or gone is announced alone (BLKPG), and a whole table is read only while nothing
// uses the disk.
package blockdev

import (
	"errors"
	"fmt"
	"os"
	"time"
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
	if err := d.blkpg(unix.BLKPG_ADD_PARTITION, number, start, size); err != nil {
		return fmt.Errorf("add partition %d to %s in the kernel, %d bytes at %d: %w", number, d.Name(), size, start, err)
	}
	return nil
}

// ResizePartition changes the size of a partition in the kernel, which may be in use; nothing is written. start must be what the
// kernel knows.
func (d *Disk) ResizePartition(number int, start, size int64) error {
	if err := d.blkpg(unix.BLKPG_RESIZE_PARTITION, number, start, size); err != nil {
		return fmt.Errorf("resize partition %d of %s in the kernel to %d bytes at %d: %w", number, d.Name(), size, start, err)
	}
	return nil
}

// moment is how long somebody may look into a partition: udev does when one has changed.
const moment = 20 * time.Second

// RemovePartition makes the kernel forget a partition, which must not be in use; nothing is written. The kernel also takes for use that
// somebody has its node open, so it waits a moment for that.
func (d *Disk) RemovePartition(number int) error {
	err := whileBusy(moment, func() error { return d.blkpg(unix.BLKPG_DEL_PARTITION, number, 0, 0) })
	if err != nil {
		return fmt.Errorf("remove partition %d of %s in the kernel: %w", number, d.Name(), err)
	}
	return nil
}

// whileBusy calls do until it does not return EBUSY, or for so long.
func whileBusy(long time.Duration, do func() error) error {
	for end := time.Now().Add(long); ; time.Sleep(20 * time.Millisecond) {
		if err := do(); !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
	}
}

func (d *Disk) blkpg(op int32, number int, start, size int64) error {
	p := partition(number, start, size)
	arg := unix.BlkpgIoctlArg{Op: op, Datalen: int32(unsafe.Sizeof(p)), Data: (*byte)(unsafe.Pointer(&p))}
	return d.ioctl(unix.BLKPG, unsafe.Pointer(&arg))
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
