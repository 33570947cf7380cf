// Package grub makes an image bootable by a BIOS: GRUB (i386-pc) reads the same boot programs from the same ESP as systemd-boot
// does under UEFI, and follows the same rule (internal/slot).
//
//	sector 0, bytes 0-439   boot.img, told where the next part is
//	partition bios          core.img: GRUB's kernel, its drivers and commands; no module is read later
//	ESP grub/grub.cfg       the script of this package: chooses, counts, starts
//	ESP EFI/Linux/grubenv   what was counted (internal/grubenv)
//	ESP EFI/Linux/proa_*    boot programs; their section .grub is a script with the places of kernel and initramfs (internal/uki)
//
// The file names in EFI/Linux are the truth under both firmwares. GRUB cannot rename, so it keeps the tries that it has taken in the
// environment block, by file name, before it starts a counted boot program; where that fails it starts a good one instead. Nothing
// needs to be written when a release becomes good: the counter disappears from its name, and no name without one is looked up.
//
// What systemd-stub does for the command line is done too, with addons as well (grub/platform.env and grub/ignition.env are theirs): the SMBIOS string io.systemd.stub.kernel-cmdline-extra= (type 11;
// here only the last string of the first such structure) is put behind it, and proa.try is, in a counted boot.
//
// BIOS is a matter of x86; other architectures have no boot sector.
//
// See the manual "GNU GRUB", section "BIOS installation"; boot.S and diskboot.S of grub-core/boot/i386/pc for the patched bytes.
package grub

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/tooltree"
)

// ConfigPath is where on the ESP core.img looks for Config.
const ConfigPath = "grub/grub.cfg"

// Config is GRUB's configuration, the same on every disk.
//
//go:embed grub.cfg
var Config string

// platform is the folder of GRUB's parts for BIOS in the tools tree.
const platform = "usr/lib/grub/i386-pc"

// modules are what core.img needs to read a GPT, FAT and a loopback device, to run Config and to start Linux.
func modules() []string {
	return []string{"biosdisk", "part_gpt", "fat", "loopback", "normal", "configfile", "test", "true", "regexp", "loadenv",
		"echo", "sleep", "reboot", "serial", "terminal", "smbios", "linux", "boot"}
}

// sector is the unit in which a BIOS addresses disks.
const sector = 512

// Install writes boot sector and core image to the disk w with the table t, whose partition table must have been written. It leaves
// everything in sector 0 but the boot code as it is.
func Install(ctx context.Context, tools *tooltree.Tree, w io.WriterAt, t *gpt.Table) error {
	if err := install(ctx, tools, w, t); err != nil {
		return fmt.Errorf("install GRUB: %w", err)
	}
	return nil
}

func install(ctx context.Context, tools *tooltree.Tree, w io.WriterAt, t *gpt.Table) error {
	esp, err := t.Find("esp")
	if err != nil {
		return err
	}
	bios, err := t.Find("bios")
	if err != nil {
		return err
	}
	boot, err := os.ReadFile(tools.Path(filepath.Join(platform, "boot.img")))
	if err != nil {
		return err
	}
	core, err := coreImage(ctx, tools, esp.Number)
	if err != nil {
		return err
	}
	if size := t.Size(bios); int64(len(core)) > size {
		return fmt.Errorf("core image has %d bytes, partition bios only %d", len(core), size)
	}
	if boot, err = bootCode(boot, t.Offset(bios)/sector); err != nil {
		return err
	}
	if err := chain(core, t.Offset(bios)/sector); err != nil {
		return err
	}
	if _, err := w.WriteAt(core, t.Offset(bios)); err != nil {
		return fmt.Errorf("write core image: %w", err)
	}
	if _, err := w.WriteAt(boot, 0); err != nil {
		return fmt.Errorf("write boot code: %w", err)
	}
	return nil
}

// coreImage runs grub-mkimage; the result depends on the tools tree and the partition number alone.
func coreImage(ctx context.Context, tools *tooltree.Tree, esp int) ([]byte, error) {
	dir, err := os.MkdirTemp("", "proa-grub-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "core.img")
	// Without a disk name the prefix is on the disk that the BIOS has booted.
	args := append([]string{"--format=i386-pc", "--directory=" + tools.Path(platform), fmt.Sprintf("--prefix=(,gpt%d)/grub", esp), "--output=" + out}, modules()...)
	cmd := tools.Command(ctx, "grub-mkimage", args...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("grub-mkimage: %w: %s", err, bytes.TrimSpace(output.Bytes()))
	}
	core, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	return append(core, make([]byte, (sector-len(core)%sector)%sector)...), nil
}

// Places in boot.img.
const (
	bootCodeSize = 440
	bootSector   = 0x5c // LBA of core.img, 8 bytes
	bootDrive    = 0x64 // 0xff: the disk that the BIOS has booted
	bootCheck    = 0x66 // a jump that trusts the BIOS's drive number; without it, floppies only
)

// bootCode returns the code for sector 0, which loads the sector at lba.
func bootCode(boot []byte, lba int64) ([]byte, error) {
	if len(boot) != sector || boot[510] != 0x55 || boot[511] != 0xaa {
		return nil, errors.New("boot.img: expected a boot sector of 512 bytes with the signature 55aa")
	}
	code := bytes.Clone(boot[:bootCodeSize])
	binary.LittleEndian.PutUint64(code[bootSector:], uint64(lba))
	code[bootDrive] = 0xff
	copy(code[bootCheck:], "\x90\x90")
	return code, nil
}

// listAt is where the first sector of core.img (diskboot.img) has its only block list: the LBA of the rest (8 bytes), its
// sectors (2) and the segment it is loaded to (2).
const listAt = sector - 12

// chain tells core.img, which begins at lba, where the rest of it is.
func chain(core []byte, lba int64) error {
	if len(core) < 2*sector {
		return fmt.Errorf("core image: %d bytes are too few", len(core))
	}
	if got, want := int(binary.LittleEndian.Uint16(core[listAt+8:])), len(core)/sector-1; got != want {
		return fmt.Errorf("core image: its block list has %d sectors, expected %d", got, want)
	}
	binary.LittleEndian.PutUint64(core[listAt:], uint64(lba+1))
	return nil
}
