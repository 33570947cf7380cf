package inspect

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/proa-os/proa/image-builder/erofs"
	"github.com/proa-os/proa/image-builder/fat"
	"github.com/proa-os/proa/image-builder/inventory"
	"github.com/proa-os/proa/image-builder/tree"
	"github.com/proa-os/proa/internal/cmdline"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/gpt"
	bootname "github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/internal/uki"
	"github.com/proa-os/proa/internal/verity"
)

// programs is where the loaders look for boot programs, addons where systemd-stub looks for what it adds to each of them.
const (
	programs = "EFI/Linux"
	addons   = "loader/addons"
)

// ReadTable reads the partition table, whatever the sectors are; of a disk that has one for each size, that for 512 bytes.
func ReadTable(r io.ReaderAt, size int64) (*gpt.Table, error) {
	t, err := gpt.Read(r, size, 512)
	if err != nil {
		if large, largeErr := gpt.Read(r, size, 4096); largeErr == nil {
			return large, nil
		}
	}
	return t, err
}

// tables reads the partition table, and looks for another one for larger sectors.
func (i *Image) tables(r io.ReaderAt, size int64) (*gpt.Table, error) {
	t, err := ReadTable(r, size)
	if err != nil {
		return nil, err
	}
	i.SectorSizes, i.DiskGUID = []int{t.SectorSize}, string(t.DiskGUID)
	all := []*gpt.Table{t}
	if large, err := gpt.Read(r, size, 4096); err == nil && t.SectorSize == 512 {
		i.SectorSizes, all = append(i.SectorSizes, 4096), append(all, large)
		if !sameLayout(t, large) {
			i.warn("the partition tables for sectors of 512 and 4096 bytes do not say the same")
		}
	}
	for _, t := range all {
		for _, err := range []error{t.PrimaryError, t.BackupError} {
			if err != nil {
				i.warn("partition table for sectors of %d bytes: %v", t.SectorSize, err)
			}
		}
	}
	return t, nil
}

// sameLayout reports whether two tables put the same partitions at the same bytes.
func sameLayout(a, b *gpt.Table) bool {
	return slices.EqualFunc(a.Partitions, b.Partitions, func(p, q gpt.Partition) bool {
		return p.Name == q.Name && p.GUID == q.GUID && p.TypeGUID == q.TypeGUID && a.Offset(p) == b.Offset(q) && a.Size(p) == b.Size(q)
	})
}

func (i *Image) disk(r io.ReaderAt, size int64, o Options) error {
	t, err := i.tables(r, size)
	if err != nil {
		return err
	}
	for _, p := range t.Partitions {
		part := io.NewSectionReader(r, t.Offset(p), t.Size(p))
		i.Partitions = append(i.Partitions, Partition{p.Number, p.Name, string(p.TypeGUID), string(p.GUID), t.Offset(p), t.Size(p)})
		switch p.Name {
		case "esp":
			if err := i.esp(part); err != nil {
				return fmt.Errorf("partition esp: %w", err)
			}
		case "root-a", "root-b":
			s, err := slot(p.Name, part, part.Size(), o)
			if err != nil {
				i.warn("slot %s: %v", p.Name, err)
			}
			i.Slots = append(i.Slots, s)
		}
	}
	for _, p := range i.Programs {
		s := i.Slot(p.RootHash)
		switch {
		case s == nil:
			i.warn("boot program %s: no slot has its root hash %s", p.File, p.RootHash)
			continue
		case s.HashOffset != p.HashOffset:
			i.warn("boot program %s: hash offset %d, its slot's is %d", p.File, p.HashOffset, s.HashOffset)
		}
		s.Programs = append(s.Programs, p.File)
	}
	return nil
}

func (i *Image) esp(r *io.SectionReader) error {
	f, err := fat.Open(r)
	if err != nil {
		return err
	}
	list, err := f.ReadDir(programs)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.Dir || !strings.HasSuffix(strings.ToLower(e.Name), ".efi") {
			continue
		}
		b, err := f.ReadFile(path.Join(programs, e.Name))
		if err != nil {
			return err
		}
		p, err := bootProgram(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			i.warn("boot program %s: %v", e.Name, err)
			continue
		}
		p.File = e.Name
		if name, err := bootname.Parse(e.Name); err != nil {
			i.warn("%v", err)
		} else {
			p.Good, p.TriesLeft, p.TriesDone = name.Good(), name.Left, name.Done
			if name.Version != p.Version {
				i.warn("boot program %s: its os-release says version %s", e.Name, p.Version)
			}
		}
		i.Programs = append(i.Programs, p)
	}
	return i.addons(f)
}

func (i *Image) addons(f *fat.FS) error {
	list, err := f.ReadDir(addons)
	if err != nil {
		return nil // there need not be any
	}
	for _, e := range list {
		if e.Dir || !strings.HasSuffix(strings.ToLower(e.Name), ".addon.efi") {
			continue
		}
		b, err := f.ReadFile(path.Join(addons, e.Name))
		if err != nil {
			return err
		}
		line, err := uki.ReadAddon(b)
		if err != nil {
			i.warn("addon %s: %v", e.Name, err)
			continue
		}
		i.Addons = append(i.Addons, Addon{e.Name, line})
	}
	return nil
}

func bootProgram(r io.ReaderAt, size int64) (p BootProgram, err error) {
	program, err := uki.Open(r)
	if err != nil {
		return p, err
	}
	p = BootProgram{File: "boot.efi", Size: size}
	if p.SHA256, _, err = digest.OfReader(io.NewSectionReader(r, 0, size)); err != nil {
		return p, err
	}
	text := map[string]string{}
	for _, s := range program.Sections() {
		content, err := program.Section(s.Name)
		if err != nil {
			return p, err
		}
		sum, n, err := digest.OfReader(content)
		if err != nil || n != s.Size {
			return p, errors.Join(err, fmt.Errorf("section %s: expected %d bytes, found %d", s.Name, s.Size, n))
		}
		p.Sections = append(p.Sections, Section{s.Name, s.Size, sum})
		if s.Size < 1<<16 {
			b := make([]byte, s.Size)
			if _, err := content.ReadAt(b, 0); err != nil && err != io.EOF {
				return p, err
			}
			text[s.Name] = string(b)
		}
	}
	p.Kernel = strings.TrimRight(text[uki.SectionUname], "\n\x00")
	p.Version = version(osRelease(text[uki.SectionOSRelease], "IMAGE_VERSION"))
	if p.CommandLine, err = program.Cmdline(); err != nil {
		return p, err
	}
	p.RootHash, p.HashOffset, err = cmdline.Proa(cmdline.Parse(p.CommandLine))
	return p, err
}

// slot looks at a root image and at what may be a root image. An empty slot is not filled and no error.
func slot(name string, r io.ReaderAt, size int64, o Options) (Slot, error) {
	s := Slot{Name: name}
	super, err := erofs.ReadSuperblock(r)
	if err != nil {
		b := make([]byte, 1<<16)
		if n, readErr := r.ReadAt(b, 0); readErr == nil && len(bytes.Trim(b[:n], "\x00")) == 0 {
			return s, nil
		}
		return s, err
	}
	blocks := make([]byte, 2*verity.BlockSize)
	if super.Size+int64(len(blocks)) > size {
		return s, fmt.Errorf("a file system of %d bytes leaves no room for a verity tree in %d", super.Size, size)
	}
	if _, err := r.ReadAt(blocks, super.Size); err != nil {
		return s, err
	}
	v, err := verity.ParseSuperblock(blocks)
	if err != nil {
		return s, fmt.Errorf("behind the file system: %w", err)
	}
	h := sha256.New()
	h.Write(v.Salt[:])
	h.Write(blocks[verity.BlockSize:])
	root := digest.SHA256(h.Sum(nil))
	treeSize, err := verity.TreeSize(super.Size)
	if err != nil {
		return s, err
	}
	if v.DataBlocks*verity.BlockSize != uint64(super.Size) || super.Size+treeSize > size {
		return s, fmt.Errorf("verity tree for %d blocks behind a file system of %d bytes", v.DataBlocks, super.Size)
	}
	s.Filled, s.RootHash, s.HashOffset, s.Size = true, &root, super.Size, super.Size+treeSize
	if o.Verify {
		ok, err := verify(r, v, super.Size, treeSize, root)
		if err != nil {
			return s, err
		}
		s.Verified = &ok
	}
	return s, s.readRelease(r)
}

// readRelease reads version and packages out of the file system.
func (s *Slot) readRelease(r io.ReaderAt) error {
	t, err := erofs.Read(r)
	if err != nil {
		return err
	}
	text, err := t.ReadFile("usr/lib/os-release")
	if err != nil {
		return err
	}
	s.Version = version(osRelease(string(text), "IMAGE_VERSION"))
	if _, ok := t.Lookup(inventory.Path); !ok {
		return nil // releases before 0.2 have none
	}
	b, err := t.ReadFile(inventory.Path)
	if err != nil {
		return err
	}
	s.Packages, err = inventory.Parse(b)
	return err
}

// verify builds the tree anew and compares it to the last byte.
func verify(r io.ReaderAt, v verity.Superblock, size, treeSize int64, root digest.SHA256) (bool, error) {
	fresh := make(buffer, treeSize)
	got, _, err := verity.Build(io.NewSectionReader(r, 0, size), size, v.Salt, v.UUID, fresh)
	if err != nil {
		return false, err
	}
	stored := make([]byte, treeSize)
	if _, err := r.ReadAt(stored, size); err != nil && err != io.EOF {
		return false, err
	}
	return got == root && bytes.Equal(fresh, stored), nil
}

type buffer []byte

func (b buffer) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(len(b)) {
		return 0, io.ErrShortWrite
	}
	return copy(b[off:], p), nil
}

// Tree returns the files of a release's directory, a disk image (slot A's, or the only filled one's) or a root image. It stays readable until
// the file is closed.
func Tree(r io.ReaderAt, size int64) (*tree.Tree, error) {
	kind, err := kindOf(r)
	if err != nil {
		return nil, err
	}
	if kind == KindRoot {
		return erofs.Read(r)
	}
	if kind != KindDisk {
		return nil, fmt.Errorf("a %s has no files", kind)
	}
	t, err := ReadTable(r, size)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"root-a", "root-b"} {
		p, err := t.Find(name)
		if err != nil {
			return nil, err
		}
		part := io.NewSectionReader(r, t.Offset(p), t.Size(p))
		if _, err := erofs.ReadSuperblock(part); err == nil {
			return erofs.Read(part)
		}
	}
	return nil, errors.New("both slots are empty")
}

// osRelease returns a value of os-release(5).
func osRelease(text, key string) string {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), key+"="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}
