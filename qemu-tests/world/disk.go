package world

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/image-builder/fat"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/internal/slot"
)

// A Disk is a raw disk image of a machine that is off, to look into and to damage.
type Disk struct {
	file  *os.File
	table *gpt.Table
}

// OpenDisk opens the image file name for reading and writing, of a machine with either sector size.
func OpenDisk(name string) (*Disk, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	table, err := readTable(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open disk %s: %w", name, err)
	}
	return &Disk{file: f, table: table}, nil
}

func readTable(f *os.File) (*gpt.Table, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	table, err := gpt.Read(f, fi.Size(), 512)
	if err == nil {
		return table, nil
	}
	table, lerr := gpt.Read(f, fi.Size(), 4096)
	if lerr == nil {
		return table, nil
	}
	return nil, errors.Join(err, lerr)
}

// Close ends the work on it.
func (d *Disk) Close() error { return d.file.Close() }

// section is a partition's bytes and where they begin.
func (d *Disk) section(name string) (*io.SectionReader, int64, error) {
	p, err := d.table.Find(name)
	if err != nil {
		return nil, 0, err
	}
	return io.NewSectionReader(d.file, d.table.Offset(p), d.table.Size(p)), d.table.Offset(p), nil
}

func (d *Disk) esp() (*fat.FS, error) {
	esp, _, err := d.section("esp")
	if err != nil {
		return nil, err
	}
	return fat.Open(esp)
}

// BootPrograms are the names of the files in the ESP's EFI/Linux, without GRUB's environment block.
func (d *Disk) BootPrograms() ([]string, error) {
	fs, err := d.esp()
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(bootFolder)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Name != grubenv.File {
			names = append(names, e.Name)
		}
	}
	return names, nil
}

// Counts are the tries that GRUB has left to boot programs.
func (d *Disk) Counts() (slot.Counts, error) {
	fs, err := d.esp()
	if err != nil {
		return nil, err
	}
	block, err := fs.ReadFile(path.Join(bootFolder, grubenv.File))
	if err != nil {
		return nil, err
	}
	return grubenv.Parse(block)
}

// bootFolder is where both loaders look for boot programs.
const bootFolder = "EFI/Linux"

// AddBootProgram puts a file into the ESP's EFI/Linux.
func (d *Disk) AddBootProgram(name string, program []byte) error {
	return d.changeESP(func(files []fat.File) []fat.File {
		return append(files, fat.BytesFile(path.Join(bootFolder, name), program))
	})
}

// RemoveBootProgram takes a file out of the ESP's EFI/Linux.
func (d *Disk) RemoveBootProgram(name string) error {
	return d.changeESP(func(files []fat.File) []fat.File {
		return slices.DeleteFunc(files, func(f fat.File) bool { return f.Path == path.Join(bootFolder, name) })
	})
}

// changeESP writes the ESP anew.
func (d *Disk) changeESP(change func([]fat.File) []fat.File) error {
	_, offset, err := d.section("esp")
	if err != nil {
		return err
	}
	fs, err := d.esp()
	if err != nil {
		return err
	}
	files, err := fs.Files()
	if err != nil {
		return err
	}
	o := fs.Options()
	o.Time = time.Now()
	return fat.Write(io.NewOffsetWriter(d.file, offset), o, change(files))
}

// FillSlot copies a root image into a partition.
func (d *Disk) FillSlot(partition, rootImage string) error {
	slot, offset, err := d.section(partition)
	if err != nil {
		return err
	}
	in, err := os.Open(rootImage)
	if err != nil {
		return err
	}
	defer in.Close()
	n, err := io.Copy(io.NewOffsetWriter(d.file, offset), in)
	if err == nil && n > slot.Size() {
		err = fmt.Errorf("fill %s: the root image has %d bytes, it only %d", partition, n, slot.Size())
	}
	return err
}

// FlipBit changes one bit of the first place in a partition that holds text.
func (d *Disk) FlipBit(partition string, text []byte) error {
	s, offset, err := d.section(partition)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(s)
	if err != nil {
		return err
	}
	i := bytes.Index(b, text)
	if i < 0 {
		return fmt.Errorf("flip a bit of %s: no %q in it", partition, text)
	}
	_, err = d.file.WriteAt([]byte{b[i] ^ 1}, offset+int64(i))
	return err
}

// Wipe makes a partition read as zeros, as blkdiscard does on most disks, and gives its space back to the host.
func (d *Disk) Wipe(partition string) error {
	p, err := d.table.Find(partition)
	if err != nil {
		return err
	}
	if err := unix.Fallocate(int(d.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, d.table.Offset(p), d.table.Size(p)); err != nil {
		return fmt.Errorf("wipe %s: %w", partition, err)
	}
	return nil
}
