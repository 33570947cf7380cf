package image

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/proa-os/proa/image-builder/fat"
	"github.com/proa-os/proa/image-builder/grub"
	"github.com/proa-os/proa/internal/arch"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/internal/release"
)

// The disk's layout (design, section 2). The state partition is not here: the machine makes it, as large as its disk.
//
// The image starts from disks with sectors of 512 and of 4096 bytes: it has a table for either (package gpt), and its ESP has
// the larger ones, which are whole sectors of both.
const (
	sectorSize = 4096
	mib        = 1 << 20
	espSize    = 512 * mib
	biosSize   = 1 * mib
	slotSize   = 1024 * mib
	// diskSize leaves a MiB before the first partition and one behind the last for the tables' copies.
	diskSize = 1*mib + espSize + biosSize + 2*slotSize + 1*mib
)

const loaderConfig = "timeout 0\nconsole-mode keep\n"

// addonsText is there so that its directory is: a first boot with kernel arguments writes an addon, and a directory that was being made when the
// power was cut may lead nowhere on FAT.
const addonsText = "systemd-stub(7) adds the sections of *.addon.efi here to every boot program.\n"

// rootType returns the Discoverable Partitions type of a root partition.
func rootType(name string) (gpt.GUID, error) {
	a, err := arch.Of(name)
	if err != nil {
		return "", err
	}
	return gpt.ParseGUID(a.RootType)
}

// bootsBIOS says which machines may have a BIOS instead of UEFI: those with GRUB on their disk.
func bootsBIOS(name string) bool {
	a, err := arch.Of(name)
	return err == nil && a.HasBIOS()
}

// diskImage makes disk.img: a sparse file with the ESP and slot A filled.
func diskImage(ctx context.Context, in *inputs, r *release.Release) error {
	in.say("write the disk image")
	f, err := os.Create(filepath.Join(in.work, "disk.img"))
	if err != nil {
		return fmt.Errorf("make the disk image: %w", err)
	}
	defer f.Close()
	if err := writeDisk(ctx, f, in, r); err != nil {
		return fmt.Errorf("make the disk image: %w", err)
	}
	return f.Close()
}

func writeDisk(ctx context.Context, f *os.File, in *inputs, r *release.Release) error {
	if err := f.Truncate(diskSize); err != nil {
		return err
	}
	t, err := layout(r)
	if err != nil {
		return err
	}
	if err := t.WriteBoth(f); err != nil {
		return err
	}
	if bootsBIOS(r.Arch) {
		if err := grub.Install(ctx, in.tools, f, t); err != nil {
			return err
		}
	}
	esp, err := t.Find("esp")
	if err != nil {
		return err
	}
	if err := writeESP(io.NewOffsetWriter(f, t.Offset(esp)), in, r, uint32(esp.FirstLBA)); err != nil {
		return fmt.Errorf("ESP: %w", err)
	}
	slot, err := t.Find("root-a")
	if err != nil {
		return err
	}
	root, err := os.Open(in.root.Path(rootFile))
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := f.Seek(t.Offset(slot), io.SeekStart); err != nil {
		return err
	}
	_, err = f.ReadFrom(root) // the kernel copies
	return err
}

func layout(r *release.Release) (*gpt.Table, error) {
	root, err := rootType(r.Arch)
	if err != nil {
		return nil, err
	}
	t := &gpt.Table{DiskGUID: guid("disk", r.Arch), SectorSize: sectorSize, Sectors: diskSize / sectorSize}
	for _, p := range []struct {
		name string
		kind gpt.GUID
		size int64
	}{
		{"esp", gpt.TypeESP, espSize}, {"bios", gpt.TypeBIOSBoot, biosSize}, {"root-a", root, slotSize}, {"root-b", root, slotSize},
	} {
		if _, err := t.Add(gpt.Partition{TypeGUID: p.kind, GUID: guid("partition", r.Arch, p.name), Name: p.name}, p.size); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// writeESP puts the loader where every firmware looks, and the boot program where the loader looks; it has no counter:
// a fresh image is good.
func writeESP(w io.WriterAt, in *inputs, r *release.Release, firstSector uint32) error {
	serial := derive("esp", r.Root.RootHash.String())
	program := fmt.Sprintf("EFI/Linux/proa_%s.efi", strings.Replace(r.Version, "-", "~", 1))
	files := []fat.File{fat.BytesFile("loader/loader.conf", []byte(loaderConfig)), fat.BytesFile("loader/addons/README.TXT", []byte(addonsText))}
	if bootsBIOS(r.Arch) {
		files = append(files, fat.BytesFile(grub.ConfigPath, []byte(grub.Config)), fat.BytesFile("EFI/Linux/"+grubenv.File, grubenv.Empty()))
	}
	a, err := arch.Of(r.Arch)
	if err != nil {
		return err
	}
	loader := in.tools.Path(a.BootLoader())
	for p, name := range map[string]string{
		a.RemovableLoader():                    loader,
		"EFI/systemd/" + filepath.Base(loader): loader,
		program:                                filepath.Join(in.work, "boot.efi"),
	} {
		fi, err := os.Stat(name)
		if err != nil {
			return err
		}
		files = append(files, fat.File{Path: p, Size: fi.Size(), Open: func() (io.ReadCloser, error) { return os.Open(name) }})
	}
	return fat.Write(w, fat.Options{
		Size: espSize, Label: "ESP", Serial: binary.BigEndian.Uint32(serial[:]), Time: Epoch, SectorSize: sectorSize, HiddenSectors: firstSector,
	}, files)
}
