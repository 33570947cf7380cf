package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/testenv"
)

func TestDiskArgs(t *testing.T) {
	for _, tt := range []struct {
		bus  Bus
		size int
		want string
	}{
		{VirtioBlk, 512, "-device virtio-blk-pci,drive=disk,bootindex=1"},
		{VirtioBlk, 4096, "-device virtio-blk-pci,drive=disk,bootindex=1,logical_block_size=4096,physical_block_size=4096"},
		{VirtioSCSI, 512, "-device virtio-scsi-pci,id=scsi -device scsi-hd,bus=scsi.0,drive=disk,bootindex=1"},
		{VirtioSCSI, 4096, "scsi-hd,bus=scsi.0,drive=disk,bootindex=1,logical_block_size=4096,physical_block_size=4096"},
		{NVMe, 512, "-device nvme,serial=proa,drive=disk,bootindex=1"},
		{NVMe, 4096, "-device nvme,serial=proa,drive=disk,bootindex=1,logical_block_size=4096,physical_block_size=4096"},
		{AHCI, 512, "-device ide-hd,bus=ide.0,drive=disk,bootindex=1"},
		{USB, 512, "-device qemu-xhci,id=xhci -device usb-bot,bus=xhci.0,id=stick -device scsi-hd,bus=stick.0,scsi-id=0,lun=0,drive=disk,bootindex=1"},
		{USB, 4096, "lun=0,drive=disk,bootindex=1,logical_block_size=4096,physical_block_size=4096"},
	} {
		got := strings.Join(hardware{disk: "d", bus: tt.bus, sectorSize: tt.size}.args(), " ")
		if !strings.Contains(got, tt.want) || strings.Contains(got, "block_size") != (tt.size == 4096) {
			t.Errorf("%s with %d: got %s\nwant it to contain %s", tt.bus, tt.size, got, tt.want)
		}
	}
}

func TestArgsBIOS(t *testing.T) {
	got := strings.Join(hardware{disk: "/run/disk.raw", kernelArgs: []string{"a=b"}}.args(), " ")
	for _, want := range []string{"file=/run/disk.raw", "-smbios type=11,value=io.systemd.stub.kernel-cmdline-extra=a=b"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s\nwant it to contain %s", got, want)
		}
	}
	if strings.Contains(got, "pflash") {
		t.Errorf("got %s\nwant it without UEFI firmware", got)
	}
}

func TestDiskErrors(t *testing.T) {
	for want, c := range map[string]struct {
		firmware Firmware
		bus      Bus
		size     int
	}{
		`firmware "coreboot"`: {"coreboot", VirtioBlk, 512},
		`bus "floppy"`:        {UEFI, "floppy", 512},
		"expected 512 or 4":   {UEFI, NVMe, 520},
		"SeaBIOS boots from":  {BIOS, VirtioBlk, 4096},
		"SATA disks have 512": {UEFI, AHCI, 4096},
	} {
		if err := checkDisk(c.firmware, c.bus, c.size); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", c, err, want)
		}
	}
}

// bootSector prints text on the first serial port and halts.
func bootSector(text string) []byte {
	code := []byte{
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd8, // mov ds, ax
		0xbe, 0x20, 0x7c, // mov si, text
		0xac,       // next: lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x11, // jz end
		0x88, 0xc4, // mov ah, al
		0xba, 0xfd, 0x03, // mov dx, line status
		0xec,       // wait: in al, dx
		0xa8, 0x20, // test al, transmitter empty
		0x74, 0xfb, // jz wait
		0xb2, 0xf8, // mov dl, data
		0x88, 0xe0, // mov al, ah
		0xee,       // out dx, al
		0xeb, 0xea, // jmp next
		0xf4,       // end: hlt
		0xeb, 0xfd, // jmp end
	}
	sector := make([]byte, 512)
	copy(sector[copy(sector, code):], text)
	sector[510], sector[511] = 0x55, 0xaa
	return sector
}

// TestFirmwareReachesDisk boots a sector by SeaBIOS, and has OVMF look for a loader, from every kind of disk.
func TestFirmwareReachesDisk(t *testing.T) {
	testenv.Machines(t)
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, bootSector("the boot sector runs\r\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	path := map[Bus]string{VirtioBlk: `Pci\([^)]*\): Not Found`, VirtioSCSI: `Scsi\(`, NVMe: `NVMe\(`, AHCI: `Sata\(`, USB: `USB\(`}
	for bus := range path {
		for _, c := range []Config{{Firmware: BIOS, SectorSize: 512}, {Firmware: UEFI, SectorSize: 512}, {Firmware: UEFI, SectorSize: 4096}} {
			c.Bus = bus
			if checkDisk(c.Firmware, c.Bus, c.SectorSize) != nil {
				continue
			}
			t.Run(fmt.Sprintf("%s-%s-%d", c.Firmware, c.Bus, c.SectorSize), func(t *testing.T) {
				c.Dir, c.Disk, c.DiskSize = t.TempDir(), image, 64<<20
				c.MemoryMiB, c.Timeout = 256, time.Minute
				m, err := Start(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				want := "^the boot sector runs$"
				if c.Firmware == UEFI {
					want = `BdsDxe: failed to load Boot0001 .*` + path[bus]
				}
				if _, err := m.WaitConsole(t.Context(), want); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
