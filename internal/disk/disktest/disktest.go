// Package disktest is a machine's disks made of files: a sysfs in a temporary directory, and image files as devices.
package disktest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/verity"
)

// A World is a machine with disks.
type World struct {
	t      testing.TB
	sys    string
	images map[string]string // device node to image file
}

// New returns a machine without disks.
func New(t testing.TB) *World {
	w := &World{t: t, sys: t.TempDir(), images: map[string]string{}}
	w.check(os.MkdirAll(filepath.Join(w.sys, "class/block"), 0o755))
	return w
}

func (w *World) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// Scanner returns the Scanner that sees the machine's disks.
func (w *World) Scanner() *disk.Scanner {
	return &disk.Scanner{
		Sys: os.DirFS(w.sys),
		Open: func(path string) (disk.Device, error) {
			image, ok := w.images[path]
			if !ok {
				return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
			}
			return os.Open(image)
		},
	}
}

// Attach makes the image file the disk called name, with 512-byte sectors and the partitions of its table as the kernel would
// show them.
func (w *World) Attach(name, image string) {
	w.t.Helper()
	w.AttachSectors(name, image, 512)
}

// AttachSectors is Attach for a disk with sectors of another size. sysfs counts in 512 bytes all the same.
func (w *World) AttachSectors(name, image string, sectorSize int) {
	w.t.Helper()
	w.attach("devices/"+name, name, image, sectorSize)
}

// AttachUSB is Attach for a disk in a USB port.
func (w *World) AttachUSB(name, image string) {
	w.t.Helper()
	w.attach("devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host0/target0:0:0/0:0:0:0/block/"+name, name, image, 512)
}

func (w *World) attach(dir, name, image string, sectorSize int) {
	w.t.Helper()
	fi, err := os.Stat(image)
	w.check(err)
	w.images["/dev/"+name] = image
	w.Set(dir+"/size", fi.Size()/512)
	w.Set(dir+"/queue/logical_block_size", int64(sectorSize))
	w.check(os.Mkdir(filepath.Join(w.sys, dir, "device"), 0o755))
	w.check(os.Symlink("../../"+dir, filepath.Join(w.sys, "class/block", name)))

	f, err := os.Open(image)
	w.check(err)
	defer f.Close()
	table, err := gpt.Read(f, fi.Size(), sectorSize)
	if err != nil || table.PrimaryError != nil {
		return // the kernel shows no partitions either
	}
	for _, p := range table.Partitions {
		part := name + strconv.Itoa(p.Number)
		if last := name[len(name)-1]; last >= '0' && last <= '9' {
			part = name + "p" + strconv.Itoa(p.Number)
		}
		w.Set(dir+"/"+part+"/partition", int64(p.Number))
		w.Set(dir+"/"+part+"/start", table.Offset(p)/512)
		w.Set(dir+"/"+part+"/size", table.Size(p)/512)
		w.check(os.MkdirAll(filepath.Join(w.sys, dir, part, "holders"), 0o755))
		w.check(os.Symlink("../../"+dir+"/"+part, filepath.Join(w.sys, "class/block", part)))
	}
}

// Hold makes a device-mapper device sit on a partition, given as "vda/vda3".
func (w *World) Hold(partition string) {
	w.t.Helper()
	w.Set("devices/"+partition+"/holders/dm-0", 0)
}

// Set writes a number into a file of the sysfs.
func (w *World) Set(name string, value int64) {
	w.t.Helper()
	file := filepath.Join(w.sys, filepath.FromSlash(name))
	w.check(os.MkdirAll(filepath.Dir(file), 0o755))
	w.check(os.WriteFile(file, fmt.Appendln(nil, value), 0o644))
}

// RootImage returns a root image: blocks data blocks filled with fill, followed by their tree.
func RootImage(t testing.TB, blocks int, fill byte) (image []byte, root digest.SHA256, hashOffset int64) {
	t.Helper()
	data := bytes.Repeat([]byte{fill}, blocks*verity.BlockSize)
	tree := &buffer{}
	root, _, err := verity.Build(bytes.NewReader(data), int64(len(data)), [32]byte{1, 2, 3}, [16]byte{4}, tree)
	if err != nil {
		t.Fatal(err)
	}
	return append(data, tree.b...), root, int64(len(data))
}

type buffer struct{ b []byte }

func (b *buffer) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(b.b) {
		b.b = append(b.b, make([]byte, need-len(b.b))...)
	}
	return copy(b.b[off:], p), nil
}

// Image sizes, in bytes.
const (
	SlotSize  = 2 << 20
	imageSize = 1<<20 + 4<<20 + 1<<20 + 2*SlotSize + 1<<20
)

// Image writes a disk image as the image builder ships it, without state, and returns its file: ESP 4 MiB, BIOS 1 MiB, two slots of
// SlotSize with the given root images in them, and tables for both sector sizes. The file has size bytes, or what the partitions need if that is zero.
func Image(t testing.TB, size int64, rootA, rootB []byte) string {
	t.Helper()
	table := &gpt.Table{DiskGUID: gpt.NewGUID([16]byte{1}), SectorSize: 512, Sectors: imageSize / 512}
	file := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(file)
	if err == nil {
		err = f.Truncate(max(size, imageSize))
	}
	for i, p := range []struct {
		name    string
		typ     gpt.GUID
		size    int64
		content []byte
	}{
		{disk.NameESP, gpt.TypeESP, 4 << 20, nil},
		{"bios", gpt.TypeBIOSBoot, 1 << 20, nil},
		{disk.NameRootA, gpt.TypeRootAMD64, SlotSize, rootA},
		{disk.NameRootB, gpt.TypeRootAMD64, SlotSize, rootB},
	} {
		part, aerr := table.Add(gpt.Partition{Name: p.name, TypeGUID: p.typ, GUID: gpt.NewGUID([16]byte{2, byte(i)})}, p.size)
		if aerr != nil {
			t.Fatal(aerr)
		}
		if err == nil {
			_, err = f.WriteAt(p.content, table.Offset(part))
		}
	}
	if err == nil {
		err = table.WriteBoth(f)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return file
}
