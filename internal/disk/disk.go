// Package disk finds the disk Proa runs from, and on it the slot that is booted.
//
// init asks it before it sets up dm-verity, the update agent before it writes the other slot. Both know only the
// root hash and the hash offset from the kernel command line; the disk is found by content. A slot is a partition
// called root-a or root-b in whose verity superblock and top hash block at the hash offset lead to that root hash
// (internal/verity). Labels, numbers, attributes and device names choose nothing, and nothing here is trusted: a
// wrong choice gives a device whose blocks dm-verity refuses.
//
// The disks are those of /sys/class/block that hang on a device; loop, device-mapper, RAM and md devices do not,
// and floppies and optical drives are left alone because asking an empty one takes seconds. Partitions are read
// from the GPT itself (internal/gpt) and must lie where the kernel says they lie, so that no device path here
// ever names other bytes than the table does.
//
// More than one slot can match: both slots of a disk may hold the same release, or a copy of the disk may be
// attached. Then the one in use by another block device (dm-verity; sysfs "holders") comes first, then a disk that is
// not on USB, for a stick with the same image is plugged in more often than not by chance, then the
// disk whose name is shorter or earlier in the alphabet, then root-a. The rest is named in Layout.Others. So
// init takes the same slot on every boot with the same disks, and a running machine the one it runs from.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/gpt"
)

// The partition names of Proa's table (docs/formats.md, "disk").
const (
	NameESP   = "esp"
	NameRootA = "root-a"
	NameRootB = "root-b"
	NameState = "state"
)

// A Device is an opened disk.
type Device interface {
	io.ReaderAt
	io.Closer
}

// A Scanner looks for disks.
type Scanner struct {
	Sys  fs.FS                             // sysfs
	Open func(path string) (Device, error) // opens a device node, by its path below /dev, for reading
}

// System returns the Scanner of this machine.
func System() *Scanner {
	return &Scanner{
		Sys:  os.DirFS("/sys"),
		Open: func(path string) (Device, error) { return openFresh(path) },
	}
}

// openFresh opens a device and forgets what the kernel has cached of it. A slot is written through the node of its partition, whose cache is
// another than the disk's: an earlier look at the disk would still show what was there before.
func openFresh(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return nil, errors.Join(fmt.Errorf("drop page cache of %s: %w", path, err), f.Close())
	}
	return f, nil
}

// A Disk is a whole disk with its partition table.
type Disk struct {
	Name       string // the kernel's name: vda, nvme0n1
	Path       string // device node: /dev/vda
	Size       int64  // bytes
	SectorSize int    // bytes
	USB        bool   // attached by USB
	Table      *gpt.Table
}

// A Partition is one entry of the table and the device node for it.
type Partition struct {
	Path   string // device node: /dev/vda3, /dev/nvme0n1p3
	Number int
	Name   string
	Type   gpt.GUID
	GUID   gpt.GUID
	Start  int64 // bytes from the start of the disk
	Size   int64 // bytes
}

// A Layout is Proa's disk.
type Layout struct {
	Disk            Disk
	ESP             *Partition
	RootA, RootB    *Partition
	State           *Partition // nil before the first boot
	Active, Passive *Partition // RootA and RootB, or the other way round
	Others          []string   // device nodes of further slots that match and were not chosen
}

// A StaleError says that the slot is there but the kernel does not know its partitions as the table has them. Either it is
// still reading the table, or it has refused a damaged primary (Layout.Disk.Table.PrimaryError) that the backup can mend.
type StaleError struct {
	Layout *Layout // partitions unknown to the kernel have no Path
	Reason string
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("disk %s: the kernel does not see its partitions as the table has them: %s", e.Layout.Disk.Path, e.Reason)
}

// Find returns the disk with the slot that belongs to root. The error is a *StaleError, or names each disk and why it
// is not the one.
func (s *Scanner) Find(root digest.SHA256, hashOffset int64) (*Layout, error) {
	names, err := s.disks()
	if err != nil {
		return nil, fmt.Errorf("look for disks: %w", err)
	}
	var found []candidate
	var seen []string
	for _, name := range names {
		list, err := s.match(name, root, hashOffset)
		if err != nil {
			seen = append(seen, fmt.Sprintf("%s: %v", name, err))
		}
		found = append(found, list...)
	}
	if len(found) == 0 {
		if len(seen) == 0 {
			seen = []string{"the kernel shows no disk at all; its driver may be missing in the boot program"}
		}
		return nil, fmt.Errorf("find the slot with root hash %s: %s", root, strings.Join(seen, "; "))
	}
	sort.SliceStable(found, func(i, j int) bool { return found[i].compare(found[j]) < 0 })
	best := found[0]
	for _, c := range found[1:] {
		best.layout.Others = append(best.layout.Others, c.device())
	}
	if best.stale != "" {
		return nil, &StaleError{Layout: best.layout, Reason: best.stale}
	}
	return best.layout, nil
}

// disks returns the kernel names of what may be Proa's disk, in the order of preference.
func (s *Scanner) disks() ([]string, error) {
	entries, err := fs.ReadDir(s.Sys, "class/block")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, "sr") || strings.HasPrefix(name, "fd") {
			continue
		}
		if _, err := fs.Stat(s.Sys, path.Join("class/block", name, "device")); err != nil {
			continue // virtual, or a partition
		}
		names = append(names, name)
	}
	sort.Slice(names, func(i, j int) bool { return compareNames(names[i], names[j]) < 0 })
	return names, nil
}

// compareNames puts sda before sdb before sdaa, and nvme2n1 before nvme10n1.
func compareNames(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// open reads geometry and table of one disk. The caller closes dev.
func (s *Scanner) open(name string) (d Disk, dev Device, err error) {
	d = Disk{Name: name, Path: node(name), USB: s.usb(name)}
	sectors, err := s.number(name, "size")
	if err != nil {
		return Disk{}, nil, err
	}
	sectorSize, err := s.number(name, "queue/logical_block_size")
	if err != nil {
		return Disk{}, nil, err
	}
	d.Size, d.SectorSize = sectors*sysfsSector, int(sectorSize)
	if d.Size == 0 {
		return Disk{}, nil, errors.New("has no medium")
	}
	if dev, err = s.Open(d.Path); err != nil {
		return Disk{}, nil, err
	}
	if d.Table, err = gpt.Read(dev, d.Size, d.SectorSize); err != nil {
		return Disk{}, nil, errors.Join(err, dev.Close())
	}
	return d, dev, nil
}

// usb reports whether a disk is attached by USB: its place among the devices, to which its link in sysfs leads, is then below a
// USB bus (devices/pci0000:00/0000:00:14.0/usb2/2-1/...).
func (s *Scanner) usb(name string) bool {
	target, err := fs.ReadLink(s.Sys, path.Join("class/block", name))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(strings.Split(target, "/"), func(elem string) bool {
		number, ok := strings.CutPrefix(elem, "usb")
		_, err := strconv.ParseUint(number, 10, 32)
		return ok && err == nil
	})
}

// sysfsSector is the unit of "size" and "start" in sysfs, whatever the disk's own sectors are (Documentation/ABI/stable/sysfs-block).
const sysfsSector = 512

func (s *Scanner) number(elem ...string) (int64, error) {
	name := path.Join("class/block", path.Join(elem...))
	b, err := fs.ReadFile(s.Sys, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n < 0 || n > 1<<54 {
		return 0, fmt.Errorf("read %s: expected a number, found %q", name, b)
	}
	return n, nil
}

// node is the device node of a kernel name, in which "!" stands for "/" (cciss!c0d0).
func node(name string) string { return "/dev/" + strings.ReplaceAll(name, "!", "/") }
