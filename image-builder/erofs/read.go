package erofs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/proa-os/proa/image-builder/tree"
)

// What Read understands (fs/erofs/erofs_fs.h). A plain inode's data are whole blocks; an inline one's last piece, shorter than a
// block, follows the inode itself.
const (
	superOffset = 1024
	superSize   = 128
	inodeUnit   = 32 // bytes: a compact inode; an extended one takes two
	direntSize  = 12

	layoutPlain  = 0
	layoutInline = 2

	xattrHeader = 12

	maxDirSize = 64 << 20 // bytes
	maxEntries = 1 << 21
)

// A Superblock is what a reader needs to know of the whole file system.
type Superblock struct {
	Size int64 // bytes of the file system, where the verity superblock begins in a root image
	UUID [16]byte

	root      uint64 // inode number
	meta      int64  // byte where inodes begin
	sharedXat int64  // byte where shared extended attributes begin
}

// ReadSuperblock reads and checks the superblock. It refuses compression, several devices and other block sizes.
func ReadSuperblock(r io.ReaderAt) (Superblock, error) {
	b := make([]byte, superSize)
	if _, err := r.ReadAt(b, superOffset); err != nil {
		return Superblock{}, fmt.Errorf("read EROFS superblock: %w", noEOF(err))
	}
	le := binary.LittleEndian
	if string(b[:4]) != magic {
		return Superblock{}, fmt.Errorf("no EROFS: expected the magic %x, found %x", magic, b[:4])
	}
	incompat, devices := le.Uint32(b[80:]), le.Uint16(b[86:])
	if b[12] != 12 || incompat != 0 || devices != 0 || b[90] != 0 {
		return Superblock{}, fmt.Errorf("EROFS with blocks of 2^%d bytes, features %#x, %d more devices is not supported, expected 2^12, 0, 0", b[12], incompat, devices)
	}
	return Superblock{
		Size: int64(le.Uint32(b[36:])) * BlockSize, UUID: [16]byte(b[48:64]), root: uint64(le.Uint16(b[14:])),
		meta: int64(le.Uint32(b[40:])) * BlockSize, sharedXat: int64(le.Uint32(b[44:])) * BlockSize,
	}, nil
}

// Read reads a file system into a tree, whose contents stay in r. It is for images of Make, in either layout of plain files, and trusts
// none of them: what points out of the file system, loops or repeats is an error.
func Read(r io.ReaderAt) (*tree.Tree, error) {
	s, err := ReadSuperblock(r)
	if err != nil {
		return nil, err
	}
	f := &reader{Superblock: s, r: io.NewSectionReader(r, 0, s.Size), t: tree.New()}
	if err := f.dir("", s.root); err != nil {
		return nil, fmt.Errorf("read EROFS: %w", err)
	}
	return f.t, nil
}

type reader struct {
	Superblock
	r *io.SectionReader
	t *tree.Tree
}

// inode is what both kinds of inodes say.
type inode struct {
	layout   int
	mode     uint16
	uid, gid uint32
	size     int64
	union    uint32 // first block, or the device
	behind   int64  // byte after inode and extended attributes, where inline data is
	xattrs   map[string]string
}

func (f *reader) dir(name string, nid uint64) error {
	ino, err := f.inode(nid)
	if err != nil {
		return fmt.Errorf("directory %q: %w", name, err)
	}
	if ino.mode&0o170000 != 0o040000 || ino.size > maxDirSize {
		return fmt.Errorf("directory %q: mode %#o with %d bytes", name, ino.mode, ino.size)
	}
	if strings.Count(name, "/") > 64 {
		return fmt.Errorf("directory %q is too deep: is there a loop?", name)
	}
	b, err := f.content(ino).bytes()
	if err != nil {
		return fmt.Errorf("directory %q: %w", name, err)
	}
	for len(b) > 0 {
		block := b[:min(len(b), BlockSize)]
		b = b[len(block):]
		if err := f.dirBlock(name, nid, block); err != nil {
			return fmt.Errorf("directory %q: %w", name, err)
		}
	}
	return nil
}

// dirBlock reads one block of a directory: entries, then their names.
func (f *reader) dirBlock(dir string, self uint64, b []byte) error {
	le := binary.LittleEndian
	if len(b) < direntSize {
		return errors.New("a block without entries")
	}
	first := int(le.Uint16(b[8:]))
	if first == 0 || first%direntSize != 0 || first > len(b) {
		return fmt.Errorf("names begin at byte %d", first)
	}
	for i := 0; i < first; i += direntSize {
		start, end := int(le.Uint16(b[i+8:])), len(b)
		if i+direntSize < first {
			end = int(le.Uint16(b[i+direntSize+8:]))
		}
		if start < first || end > len(b) || start >= end {
			return fmt.Errorf("name at bytes %d to %d", start, end)
		}
		name, _, _ := strings.Cut(string(b[start:end]), "\x00")
		nid := le.Uint64(b[i:])
		if name == "." || name == ".." {
			continue
		}
		if name == "" || strings.Contains(name, "/") || nid == self || nid == f.root {
			return fmt.Errorf("entry %q leads to inode %d", name, nid)
		}
		if err := f.entry(path.Join(dir, name), nid); err != nil {
			return err
		}
	}
	return nil
}

func (f *reader) entry(name string, nid uint64) error {
	ino, err := f.inode(nid)
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	e := tree.Entry{Path: name, Mode: uint32(ino.mode) & 0o7777, UID: int(ino.uid), GID: int(ino.gid), Xattrs: ino.xattrs}
	switch ino.mode & 0o170000 {
	case 0o040000:
		e.Type = tree.Dir
	case 0o100000:
		e.Type, e.Size, e.Content = tree.File, ino.size, f.content(ino)
	case 0o120000:
		b, err := f.content(ino).bytes()
		if err != nil {
			return fmt.Errorf("link %q: %w", name, err)
		}
		e.Type, e.Target = tree.Symlink, string(b)
	case 0o020000:
		e.Type, e.Major, e.Minor = tree.Char, ino.union>>8&0xfff, ino.union&0xff|ino.union>>12&0xfff00
	default:
		return fmt.Errorf("%q: mode %#o is not supported", name, ino.mode)
	}
	if f.t.Len() >= maxEntries {
		return fmt.Errorf("more than %d entries", maxEntries)
	}
	if err := f.t.Add(e); err != nil {
		return err
	}
	if e.Type == tree.Dir {
		return f.dir(name, nid)
	}
	return nil
}

func (f *reader) inode(nid uint64) (inode, error) {
	at := f.meta + int64(nid)*inodeUnit
	if nid > uint64(f.Size)/inodeUnit || at >= f.Size {
		return inode{}, fmt.Errorf("inode %d is outside the file system", nid)
	}
	b := make([]byte, 2*inodeUnit)
	if n, err := f.r.ReadAt(b, at); n < inodeUnit {
		return inode{}, noEOF(err)
	}
	le := binary.LittleEndian
	format := le.Uint16(b)
	ino := inode{layout: int(format >> 1 & 7), mode: le.Uint16(b[4:]), union: le.Uint32(b[16:])}
	if format&1 == 0 {
		ino.size, ino.uid, ino.gid, ino.behind = int64(le.Uint32(b[8:])), uint32(le.Uint16(b[24:])), uint32(le.Uint16(b[26:])), at+inodeUnit
	} else {
		ino.size, ino.uid, ino.gid, ino.behind = int64(le.Uint64(b[8:])), le.Uint32(b[24:]), le.Uint32(b[28:]), at+2*inodeUnit
	}
	if format>>4 != 0 || ino.layout != layoutPlain && ino.layout != layoutInline || ino.size < 0 || ino.size > f.Size {
		return inode{}, fmt.Errorf("inode %d: format %#x with %d bytes is not supported", nid, format, ino.size)
	}
	if n := int64(le.Uint16(b[2:])); n > 0 {
		body := make([]byte, xattrHeader+(n-1)*4)
		if _, err := f.r.ReadAt(body, ino.behind); err != nil {
			return inode{}, fmt.Errorf("extended attributes of inode %d: %w", nid, noEOF(err))
		}
		ino.behind += int64(len(body))
		var err error
		if ino.xattrs, err = f.xattrs(body); err != nil {
			return inode{}, fmt.Errorf("extended attributes of inode %d: %w", nid, err)
		}
	}
	return ino, nil
}

// xattrs reads the attributes behind an inode, and those that they refer to because several inodes share them.
func (f *reader) xattrs(body []byte) (map[string]string, error) {
	all := map[string]string{}
	shared := int(body[4])
	if xattrHeader+4*shared > len(body) {
		return nil, fmt.Errorf("%d shared ones in %d bytes", shared, len(body))
	}
	for i := range shared {
		at := f.sharedXat + int64(binary.LittleEndian.Uint32(body[xattrHeader+4*i:]))*4
		b := make([]byte, 4+255+1<<16)
		n, err := f.r.ReadAt(b, at)
		if n < 4 {
			return nil, noEOF(err)
		}
		if _, err := xattr(b[:n], all); err != nil {
			return nil, err
		}
	}
	for rest := body[xattrHeader+4*shared:]; len(rest) >= 4; {
		n, err := xattr(rest, all)
		if err != nil {
			return nil, err
		}
		rest = rest[min((n+3)/4*4, len(rest)):]
	}
	return all, nil
}

// xattr reads one attribute: lengths and the number of the name's prefix, the rest of the name, the value.
func xattr(b []byte, all map[string]string) (int, error) {
	prefix, ok := map[byte]string{1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security."}[b[1]]
	name, value := int(b[0]), int(binary.LittleEndian.Uint16(b[2:]))
	if !ok || 4+name+value > len(b) {
		return 0, fmt.Errorf("prefix %d with lengths %d and %d in %d bytes", b[1], name, value, len(b))
	}
	all[prefix+string(b[4:4+name])] = string(b[4+name : 4+name+value])
	return 4 + name + value, nil
}

// extent is the content of an inode: whole blocks, then what is behind the inode.
type extent struct {
	r             io.ReaderAt
	start, blocks int64 // bytes
	tail, rest    int64 // bytes
}

func (f *reader) content(ino inode) extent {
	x := extent{r: f.r, start: int64(ino.union) * BlockSize, blocks: ino.size}
	if ino.layout == layoutInline {
		x.blocks = ino.size / BlockSize * BlockSize
		x.tail, x.rest = ino.behind, ino.size-x.blocks
	}
	return x
}

// Open implements tree.Content.
func (x extent) Open() (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(io.NewSectionReader(x.r, x.start, x.blocks), io.NewSectionReader(x.r, x.tail, x.rest))), nil
}

func (x extent) bytes() ([]byte, error) {
	var b bytes.Buffer
	r, err := x.Open()
	if err != nil {
		return nil, err
	}
	if n, err := io.Copy(&b, r); err != nil || n != x.blocks+x.rest {
		return nil, errors.Join(err, fmt.Errorf("expected %d bytes, found %d", x.blocks+x.rest, n))
	}
	return b.Bytes(), nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
