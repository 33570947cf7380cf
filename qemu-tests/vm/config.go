package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Config describes a machine. Dir must be set, and Disk or Kernel; everything else has a default.
type Config struct {
	Name string // in messages and process lists; "proa" by default

	// Dir is the machine's folder, made if it is not there: its disk, firmware variables and logs. Everything is left
	// in it; RemoveDisk takes the large part away.
	Dir string

	// Disk is a raw disk image. The machine gets a sparse copy, <Dir>/disk.raw, of DiskSize bytes (8 GiB by default;
	// terabytes cost nothing before they are written).
	// KeepDisk goes on with the copy, and the firmware variables, that Dir already has.
	Disk     string
	DiskSize int64
	KeepDisk bool

	// Resume is a snapshot of another machine, in the place of Disk, Kernel, Ignition and Key: this one goes on from there, as if it had booted once,
	// in hardware as that one's. What is added here, but for Ports, is there from its next boot on. Its clock is late by the age of the snapshot.
	Resume *Saved

	// Disks are further disks, empty at first unless Used says otherwise: on virtio, after the one above, and at /dev/disk/by-id/virtio-NAME.
	Disks []EmptyDisk

	// TPM gives the machine a TPM 2.0 of its own.
	TPM bool

	// VirtioPorts gives the machine virtio ports to the host. A failed provisioning writes its journal to one: Machine.Journal reads it. A machine
	// that is up writes its ssh host keys to the other: Machine.HostKeys reads them, and a login trusts no other key.
	VirtioPorts bool

	// LogWrites logs what is written to the disk from the first boot on, as Machine.LogWrites does.
	LogWrites bool

	// Firmware is UEFI by default, and BIOS starts the same disk.
	Firmware Firmware

	// Bus and SectorSize are how the guest sees the disk: VirtioBlk with 512 bytes by default. SeaBIOS and AHCI can
	// do 512 only.
	Bus        Bus
	SectorSize int

	// Kernel is a bzImage to start at once, without firmware and loader, with Initrd and KernelArgs as its command line.
	// Disk is then only a disk.
	Kernel, Initrd string

	// KernelArgs are added to the boot program's command line: by systemd-stub under UEFI, by the image's GRUB under
	// BIOS, both from the SMBIOS string io.systemd.stub.kernel-cmdline-extra. With an Ignition config,
	// ignition.platform.id=qemu is among them; no_timer_check, tsc=nowatchdog and systemd.default_device_timeout_sec=300 always are.
	KernelArgs []string

	// Ignition is a provisioning config, given to the guest by fw_cfg.
	Ignition []byte

	// Credentials are system credentials, given to the guest by SMBIOS strings (systemd.system-credentials(7)). Their values are text.
	Credentials map[string]string

	MemoryMiB int // 1024 by default
	CPUs      int // 2 by default

	// Ports are TCP ports of the guest to forward from the host's loopback, see Machine.Port. 22 always is.
	Ports []int

	// NICs are network cards to other machines, in the order in which the guest finds them, after the first one.
	NICs []NIC

	// Key logs in by ssh. The caller has put its public half in the Ignition config. A new one by default.
	Key *Key

	// Timeout is how long to wait for anything, in machine time; 300 s by default.
	Timeout time.Duration
}

// withDefaults checks c and fills it.
func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("configure machine: no folder; set Dir")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return c, fmt.Errorf("configure machine: %w", err)
	}
	c.Dir = dir
	if c.Resume != nil {
		if c, err = c.resumed(); err != nil {
			return c, fmt.Errorf("configure machine: %w", err)
		}
	}
	if c.Disk == "" && c.Kernel == "" {
		return c, errors.New("configure machine: nothing to boot; set Disk or Kernel")
	}
	if c.LogWrites && c.Disk == "" {
		return c, errors.New("configure machine: no writes to log; set Disk")
	}
	for _, f := range []string{c.Disk, c.Kernel, c.Initrd} {
		if f == "" {
			continue
		}
		if _, err := os.Stat(f); err != nil {
			return c, fmt.Errorf("configure machine: %w; build it with `make image`", err)
		}
	}
	if c.Key == nil {
		if c.Key, err = NewKey(); err != nil {
			return c, err
		}
	}
	c.Name = orDefault(c.Name, "proa")
	c.MemoryMiB = orDefault(c.MemoryMiB, 1024)
	c.CPUs = orDefault(c.CPUs, 2)
	c.DiskSize = orDefault(c.DiskSize, 8<<30)
	c.Firmware = orDefault(c.Firmware, UEFI)
	c.Bus = orDefault(c.Bus, VirtioBlk)
	c.SectorSize = orDefault(c.SectorSize, 512)
	if err := errors.Join(checkDisk(c.Firmware, c.Bus, c.SectorSize), checkNICs(c.NICs)); err != nil {
		return c, fmt.Errorf("configure machine: %w", err)
	}
	c.Timeout = orDefault(c.Timeout, 300*time.Second)
	if c.Resume != nil {
		return c, nil // whose kernel has the arguments below already
	}
	// A loaded host loses timer interrupts, which the kernel takes for a broken timer and panics, and lets the clock of one CPU wait,
	// which it takes for an unstable one. There a minute and a half is short for the first device to show up, too.
	c.KernelArgs = append([]string{"no_timer_check", "tsc=nowatchdog", "systemd.default_device_timeout_sec=300"}, c.KernelArgs...)
	if c.Ignition != nil {
		c.KernelArgs = append(c.KernelArgs, "ignition.platform.id=qemu")
	}
	return c, nil
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
