package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Firmware is what starts the loader on a machine's disk.
type Firmware string

const (
	UEFI Firmware = "uefi" // OVMF, with variables of its own in <Dir>/vars.fd
	BIOS Firmware = "bios" // SeaBIOS
)

// A Bus is how a machine reaches its disk, and with it the driver the guest needs.
type Bus string

const (
	VirtioBlk  Bus = "virtio-blk"  // /dev/vda
	VirtioSCSI Bus = "virtio-scsi" // /dev/sda, by sd_mod
	NVMe       Bus = "nvme"        // /dev/nvme0n1
	AHCI       Bus = "ahci"        // /dev/sda, the SATA controller that q35 has anyway
	USB        Bus = "usb"         // /dev/sda, a mass storage device (bulk only) on xHCI
)

// checkDisk refuses what no firmware or device of QEMU can do.
func checkDisk(f Firmware, b Bus, sectorSize int) error {
	if f != UEFI && f != BIOS {
		return fmt.Errorf("firmware %q: expected %q or %q", f, UEFI, BIOS)
	}
	if all := []Bus{VirtioBlk, VirtioSCSI, NVMe, AHCI, USB}; !slices.Contains(all, b) {
		return fmt.Errorf("bus %q: expected one of %q", b, all)
	}
	switch {
	case sectorSize != 512 && sectorSize != 4096:
		return fmt.Errorf("sectors of %d bytes: expected 512 or 4096", sectorSize)
	case sectorSize == 512:
		return nil
	case f == BIOS:
		return fmt.Errorf("sectors of %d bytes: SeaBIOS boots from 512 only; use UEFI", sectorSize)
	case b == AHCI:
		return fmt.Errorf("sectors of %d bytes on %s: QEMU's SATA disks have 512 only; use another bus", sectorSize, b)
	}
	return nil
}

// diskArgs are the devices between the machine and the block backend "disk". The firmware is told to boot from it.
func (h hardware) diskArgs() []string {
	device := "drive=disk,bootindex=1"
	if h.sectorSize == 4096 {
		device += ",logical_block_size=4096,physical_block_size=4096"
	}
	switch h.bus {
	case VirtioSCSI:
		return []string{"-device", "virtio-scsi-pci,id=scsi", "-device", "scsi-hd,bus=scsi.0," + device}
	case NVMe:
		return []string{"-device", "nvme,serial=proa," + device}
	case AHCI:
		return []string{"-device", "ide-hd,bus=ide.0," + device}
	case USB:
		// usb-storage ignores sector sizes; the two devices it is made of do not.
		return []string{"-device", "qemu-xhci,id=xhci", "-device", "usb-bot,bus=xhci.0,id=stick",
			"-device", "scsi-hd,bus=stick.0,scsi-id=0,lun=0," + device}
	default:
		return []string{"-device", "virtio-blk-pci," + device}
	}
}

// An EmptyDisk is a disk without anything on it, unless somebody has used it before. What machines write to it stays in <Dir>/NAME.raw until
// RemoveDisk.
type EmptyDisk struct {
	Name string // its serial number, of at most 20 letters
	Size int64
	USB  bool                    // a stick, plugged in from the start: /dev/sda where it is the only one
	Used func(file string) error // writes what it has before the machine is turned on for the first time; nil: nothing
}

// MoreDisk is the image of one of Config.Disks.
func (m *Machine) MoreDisk(name string) string { return filepath.Join(m.cfg.Dir, name+".raw") }

// makeDisks makes the images of further disks; KeepDisk keeps them too.
func (m *Machine) makeDisks() error {
	for _, d := range m.cfg.Disks {
		name := m.MoreDisk(d.Name)
		flags := os.O_RDWR | os.O_CREATE
		if !m.cfg.KeepDisk {
			flags |= os.O_TRUNC
		}
		f, err := os.OpenFile(name, flags, 0o644)
		if err != nil {
			return fmt.Errorf("make disk: %w", err)
		}
		err = errors.Join(f.Truncate(d.Size), f.Close())
		if err == nil && d.Used != nil && !m.cfg.KeepDisk {
			err = d.Used(name)
		}
		if err != nil {
			return fmt.Errorf("make disk: %w", err)
		}
		m.hw.more = append(m.hw.more, moreDisk{name, d.USB})
	}
	return nil
}

// moreDisk is the raw image of a further disk.
type moreDisk struct {
	file string
	usb  bool
}

// moreDiskArgs are the further disks; flushes do not reach the host, as with the first one.
func (h hardware) moreDiskArgs() (a []string) {
	for n, d := range h.more {
		device := "virtio-blk-pci"
		if d.usb {
			a = append(a, "-device", fmt.Sprintf("qemu-xhci,id=more%d-bus", n))
			device = fmt.Sprintf("usb-storage,bus=more%d-bus.0", n)
		}
		serial := strings.TrimSuffix(filepath.Base(d.file), ".raw")
		a = append(a, "-drive", fmt.Sprintf("if=none,id=more%d,format=raw,cache=unsafe,discard=unmap,file=%s", n, value(d.file)),
			"-device", fmt.Sprintf("%s,drive=more%d,serial=%s", device, n, value(serial)))
	}
	return a
}
