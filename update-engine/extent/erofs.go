package extent

import (
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"strings"
)

const (
	blockSize   = 4096
	superOffset = 1024
	superSize   = 128
	magic       = "\xe2\xe1\xf5\xe0"

	inodeUnit  = 32 // bytes: a compact inode; an extended one takes two
	direntSize = 12

	layoutPlain  = 0
	layoutInline = 2

	modeType = 0o170000
	modeDir  = 0o040000
	modeFile = 0o100000

	xattrHeader = 12

	maxDirSize = 64 << 20 // bytes
	maxDepth   = 64
	maxEntries = 1 << 21
)

// Read returns the files of the EROFS image of the given size, which is the whole root image without its verity tree.
func Read(r io.ReaderAt, size int64) (*Map, error) {
	f := &fileSystem{r: r, size: size, seen: make(map[uint64]bool)}
	m, err := f.read()
	if err != nil {
		return nil, fmt.Errorf("read extents of EROFS image: %w", err)
	}
	return m, nil
}

type fileSystem struct {
	r       io.ReaderAt
	size    int64
	meta    int64           // byte where inodes begin
	seen    map[uint64]bool // directories
	entries int
	files   []Extent
}

func (f *fileSystem) read() (*Map, error) {
	b := make([]byte, superSize)
	if err := readAt(f.r, b, superOffset); err != nil {
		return nil, fmt.Errorf("read superblock: %w", err)
	}
	le := binary.LittleEndian
	if string(b[:4]) != magic {
		return nil, fmt.Errorf("expected the magic %x, found %x", magic, b[:4])
	}
	if incompat, devices := le.Uint32(b[80:]), le.Uint16(b[86:]); b[12] != 12 || incompat != 0 || devices != 0 || b[90] != 0 {
		return nil, fmt.Errorf("blocks of 2^%d bytes, features %#x, %d more devices: expected 2^12, 0, 0; build the image without compression and chunks",
			b[12], incompat, devices)
	}
	if own := int64(le.Uint32(b[36:])) * blockSize; own != f.size {
		return nil, fmt.Errorf("expected %d bytes, the superblock says %d: is it the root image without its verity tree?", f.size, own)
	}
	f.meta = int64(le.Uint32(b[40:])) * blockSize
	if err := f.directory("", uint64(le.Uint16(b[14:])), 0); err != nil {
		return nil, err
	}
	return newMap(f.size, f.files)
}

// An inode is what both kinds of inodes say.
type inode struct {
	layout int
	mode   uint16
	size   int64
	block  uint32 // the first one
	behind int64  // byte after inode and extended attributes, where inline data is
}

func (f *fileSystem) inode(nid uint64) (inode, error) {
	at := f.meta + int64(nid)*inodeUnit
	if nid > uint64(f.size)/inodeUnit || at > f.size-inodeUnit {
		return inode{}, fmt.Errorf("inode %d is outside the file system", nid)
	}
	b := make([]byte, 2*inodeUnit)
	if err := readAt(f.r, b[:min(2*inodeUnit, f.size-at)], at); err != nil {
		return inode{}, fmt.Errorf("read inode %d: %w", nid, err)
	}
	le := binary.LittleEndian
	format := le.Uint16(b)
	i := inode{layout: int(format >> 1 & 7), mode: le.Uint16(b[4:]), block: le.Uint32(b[16:]), size: int64(le.Uint32(b[8:])), behind: at + inodeUnit}
	if format&1 == 1 {
		i.size, i.behind = int64(le.Uint64(b[8:])), at+2*inodeUnit
	}
	if n := int64(le.Uint16(b[2:])); n > 0 {
		i.behind += xattrHeader + (n-1)*4
	}
	if format>>4 != 0 || i.layout != layoutPlain && i.layout != layoutInline || i.size < 0 || i.size > f.size {
		return inode{}, fmt.Errorf("inode %d: format %#x with %d bytes: expected the plain or inline layout and at most %d bytes", nid, format, i.size, f.size)
	}
	return i, nil
}

// blocks is where the blocks of an inode are, and how many bytes of its content.
func (i inode) blocks() Extent {
	e := Extent{Offset: int64(i.block) * blockSize, Size: i.size}
	if i.layout == layoutInline {
		e.Size = i.size / blockSize * blockSize
	}
	e.Length = (e.Size + blockSize - 1) / blockSize * blockSize
	return e
}

// content reads a directory.
func (f *fileSystem) content(i inode) ([]byte, error) {
	b := make([]byte, i.size)
	x := i.blocks()
	if x.Size == 0 {
		x.Offset = 0 // -1 if there are no blocks
	}
	if tail := i.size - x.Size; x.Offset > f.size-x.Size || tail > 0 && i.behind > f.size-tail {
		return nil, fmt.Errorf("%d bytes at %d and %d are outside the file system", i.size, x.Offset, i.behind)
	}
	if err := readAt(f.r, b[:x.Size], x.Offset); err != nil {
		return nil, err
	}
	return b, readAt(f.r, b[x.Size:], i.behind)
}

func (f *fileSystem) directory(name string, nid uint64, depth int) error {
	i, err := f.inode(nid)
	if err != nil {
		return fmt.Errorf("directory %q: %w", name, err)
	}
	if i.mode&modeType != modeDir || i.size > maxDirSize || f.seen[nid] || depth > maxDepth {
		return fmt.Errorf("directory %q: inode %d of mode %#o with %d bytes, %d levels deep, is no directory, too large, or there twice", name, nid, i.mode, i.size, depth)
	}
	f.seen[nid] = true
	b, err := f.content(i)
	if err != nil {
		return fmt.Errorf("directory %q: %w", name, err)
	}
	for len(b) > 0 {
		block := b[:min(len(b), blockSize)]
		b = b[len(block):]
		if err := f.directoryBlock(name, block, depth); err != nil {
			return err
		}
	}
	return nil
}

// directoryBlock reads one block of a directory: entries of 12 bytes, then their names; the first entry says where names begin.
func (f *fileSystem) directoryBlock(dir string, b []byte, depth int) error {
	le := binary.LittleEndian
	if len(b) < direntSize {
		return fmt.Errorf("directory %q: a block without entries", dir)
	}
	first := int(le.Uint16(b[8:]))
	if first == 0 || first%direntSize != 0 || first > len(b) {
		return fmt.Errorf("directory %q: names begin at byte %d", dir, first)
	}
	for i := 0; i < first; i += direntSize {
		start, end := int(le.Uint16(b[i+8:])), len(b)
		if i+direntSize < first {
			end = int(le.Uint16(b[i+direntSize+8:]))
		}
		if start < first || end > len(b) || start >= end {
			return fmt.Errorf("directory %q: a name at bytes %d to %d", dir, start, end)
		}
		name, _, _ := strings.Cut(string(b[start:end]), "\x00")
		if name == "." || name == ".." {
			continue
		}
		if name == "" || strings.Contains(name, "/") {
			return fmt.Errorf("directory %q: an entry is called %q", dir, name)
		}
		if err := f.entry(path.Join(dir, name), le.Uint64(b[i:]), depth); err != nil {
			return err
		}
	}
	return nil
}

func (f *fileSystem) entry(name string, nid uint64, depth int) error {
	if f.entries++; f.entries > maxEntries {
		return fmt.Errorf("more than %d entries", maxEntries)
	}
	i, err := f.inode(nid)
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	switch i.mode & modeType {
	case modeDir:
		return f.directory(name, nid, depth+1)
	case modeFile:
		x := i.blocks()
		if x.Length == 0 {
			return nil
		}
		if x.Offset > f.size-x.Length {
			return fmt.Errorf("%q: %d bytes at %d are outside the file system", name, x.Length, x.Offset)
		}
		if x.Offset < superOffset+superSize {
			return fmt.Errorf("%q: its content begins at %d, where the superblock is", name, x.Offset)
		}
		x.Path = name
		f.files = append(f.files, x)
	}
	return nil
}
