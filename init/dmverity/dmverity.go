// Package dmverity puts the kernel's dm-verity target on a slot, by device-mapper's ioctls.
//
// Three calls on /dev/mapper/control (linux/dm-ioctl.h): create a device, load its table, resume it. Every block
// read through the device is checked against the root hash; a block that does not fit panics the kernel
// (panic_on_corruption), which then reboots by panic= on the command line, so that corruption uses up a try instead of
// handing errors to programs. Data and tree are in one partition: the data, the superblock, the tree. The superblock is
// not read by the kernel; its salt and the number of blocks are given in the table
// (Documentation/admin-guide/device-mapper/verity.rst).
//
// A request is a struct dm_ioctl, for a table followed by one struct dm_target_spec and its parameters:
//
//	offset size
//	0      12   version 4.0.0
//	12     4    bytes of the request
//	16     4    offset of the target, 312
//	20     4    targets
//	28     4    flags
//	40     8    device number, set by the kernel
//	48     128  name
//	176    129  UUID
//	312    8    first sector of the target, 0
//	320    8    its sectors of 512 bytes
//	332    4    offset of the next target from this one
//	336    16   "verity"
//	352         parameters, ended by a zero
package dmverity

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/blockdev"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/verity"
)

const (
	controlFile = "/dev/mapper/control"
	sectorSize  = 512 // device-mapper's unit
)

// A Target is what dm-verity is to check.
type Target struct {
	Device     string // "major:minor" of the slot
	DataBlocks int64  // of 4096 bytes; the superblock follows
	RootHash   digest.SHA256
	Salt       [32]byte
}

// parameters is the table line of the target: version 1, data device, hash device, the block sizes, the number of data
// blocks, the first block of the tree (behind the superblock), algorithm, root hash, salt, one optional argument.
func (t Target) parameters() string {
	return fmt.Sprintf("1 %s %s %d %d %d %d sha256 %s %s 1 panic_on_corruption",
		t.Device, t.Device, verity.BlockSize, verity.BlockSize, t.DataBlocks, t.DataBlocks+1, t.RootHash, hex.EncodeToString(t.Salt[:]))
}

// UUID returns the device-mapper UUID of the device for a root hash, which sysfs shows as dm/uuid: package disk reads there what runs.
func UUID(root digest.SHA256) string { return disk.VerityUUID + root.String() }

// Slot describes a slot to dm-verity: path is its device node, root and hashOffset are what package disk has found it by. That has
// proven that the salt, which is read from the slot, and the top hash block make the root hash.
func Slot(path string, root digest.SHA256, hashOffset int64) (Target, error) {
	number, err := blockdev.Number(path)
	if err != nil {
		return Target{}, err
	}
	dev, err := os.Open(path)
	if err != nil {
		return Target{}, err
	}
	defer dev.Close()
	block := make([]byte, verity.BlockSize)
	if _, err := dev.ReadAt(block, hashOffset); err != nil {
		return Target{}, fmt.Errorf("read verity superblock of %s: %w", path, err)
	}
	super, err := verity.ParseSuperblock(block)
	if err != nil {
		return Target{}, fmt.Errorf("%s: %w", path, err)
	}
	return Target{Device: number, DataBlocks: hashOffset / verity.BlockSize, RootHash: root, Salt: super.Salt}, nil
}

// Activate makes a read-only device called name and returns its node. Nothing is left behind after an error.
func Activate(name string, t Target) (path string, err error) {
	control, err := os.OpenFile(controlFile, os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("open device-mapper: %w (is the module dm_mod loaded?)", err)
	}
	defer func() { err = errors.Join(err, control.Close()) }()

	request := newRequest(name, UUID(t.RootHash), 0)
	if err := call(control, unix.DM_DEV_CREATE, request); err != nil {
		return "", fmt.Errorf("create device %s: %w", name, err)
	}
	dev := request.device()
	defer func() {
		if err != nil {
			err = errors.Join(err, call(control, unix.DM_DEV_REMOVE, newRequest(name, "", 0)))
		}
	}()
	load := newRequest(name, "", unix.DM_READONLY_FLAG).withTarget("verity", t.DataBlocks*verity.BlockSize/sectorSize, t.parameters())
	if err := call(control, unix.DM_TABLE_LOAD, load); err != nil {
		return "", fmt.Errorf("load table %q: %w (the kernel log has the reason)", t.parameters(), err)
	}
	if err := call(control, unix.DM_DEV_SUSPEND, newRequest(name, "", 0)); err != nil { // without the flag it resumes
		return "", fmt.Errorf("resume device %s: %w", name, err)
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(dev)), nil
}

// Remove removes a device that nothing uses. That there is none is no error.
func Remove(name string) error { return remove(name, 0) }

// RemoveLater removes a device as soon as nothing uses it any more, which may be now.
func RemoveLater(name string) error { return remove(name, unix.DM_DEFERRED_REMOVE) }

func remove(name string, flags uint32) (err error) {
	control, err := os.OpenFile(controlFile, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open device-mapper: %w", err)
	}
	defer func() { err = errors.Join(err, control.Close()) }()
	if err := call(control, unix.DM_DEV_REMOVE, newRequest(name, "", flags)); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("remove device %s: %w", name, err)
	}
	return nil
}

// A request is the argument of one ioctl; the kernel writes its answer over it.
type request []byte

func newRequest(name, uuid string, flags uint32) request {
	r := make(request, unix.SizeofDmIoctl)
	binary.NativeEndian.PutUint32(r[0:], 4) // the oldest version with all we use
	binary.NativeEndian.PutUint32(r[12:], uint32(len(r)))
	binary.NativeEndian.PutUint32(r[16:], unix.SizeofDmIoctl)
	binary.NativeEndian.PutUint32(r[28:], flags)
	copy(r[48:48+unix.DM_NAME_LEN-1], name)
	copy(r[176:176+unix.DM_UUID_LEN-1], uuid)
	return r
}

// withTarget appends the only target of a table.
func (r request) withTarget(kind string, sectors int64, parameters string) request {
	const align = 8
	size := (unix.SizeofDmTargetSpec + len(parameters) + 1 + align - 1) / align * align
	t := make([]byte, size)
	binary.NativeEndian.PutUint64(t[8:], uint64(sectors))
	binary.NativeEndian.PutUint32(t[20:], uint32(size))
	copy(t[24:24+unix.DM_MAX_TYPE_NAME-1], kind)
	copy(t[unix.SizeofDmTargetSpec:], parameters)

	r = append(r, t...)
	binary.NativeEndian.PutUint32(r[12:], uint32(len(r)))
	binary.NativeEndian.PutUint32(r[20:], 1)
	return r
}

// device returns the device number the kernel has filled in.
func (r request) device() uint64 { return binary.NativeEndian.Uint64(r[40:]) }

func call(control *os.File, command uint, r request) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), uintptr(command), uintptr(unsafe.Pointer(&r[0])))
	runtime.KeepAlive(r)
	if errno != 0 {
		return errno
	}
	return nil
}
