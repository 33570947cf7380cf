// Package cpio writes the initramfs: a tree as a cpio archive in the "new ASCII" format without checksums, the one
// the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).
//
// For each entry, every number being 8 hexadecimal digits:
//
//	offset size
//	0      6    "070701"
//	6      8    inode number, counting from 1
//	14     8    mode with the file type, as in stat(2)
//	22     8    uid
//	30     8    gid
//	38     8    number of links, always 1
//	46     8    time, always 0
//	54     8    size of the content
//	62     16   major and minor number of the device the file was on, always 0
//	78     16   major and minor number of the device the file is
//	94     8    length of the name with its zero byte
//	102    8    checksum, always 0
//	110         name, a zero byte, zeros up to a multiple of 4
//	            content (a link's target), zeros up to a multiple of 4
//
// The last entry is called "TRAILER!!!"; the archive ends with zeros up to a multiple of 512. The result depends on
// the tree alone. Extended attributes cannot be said in this format and are refused.
package cpio

import (
	"bufio"
	"fmt"
	"io"
	"math"

	"github.com/proa-os/proa/image-builder/tree"
)

const (
	trailer = "TRAILER!!!"
	block   = 512 // bytes
)

// Types of files (stat(2)).
const (
	modeChar    = 0o020000
	modeDir     = 0o040000
	modeFile    = 0o100000
	modeSymlink = 0o120000
)

// Write writes all entries of t, in its order, without the root.
func Write(w io.Writer, t *tree.Tree) error {
	b := bufio.NewWriter(w)
	a := &archive{w: b}
	for e := range t.All() {
		if err := a.add(e); err != nil {
			return fmt.Errorf("write cpio: %q: %w", e.Path, err)
		}
	}
	err := a.header(trailer, 0, tree.Entry{}, 0)
	if err == nil {
		err = a.pad(block)
	}
	if err == nil {
		err = b.Flush()
	}
	if err != nil {
		return fmt.Errorf("write cpio: %w", err)
	}
	return nil
}

type archive struct {
	w     io.Writer
	n     int64 // bytes written
	inode uint32
}

func (a *archive) Write(p []byte) (int, error) {
	n, err := a.w.Write(p)
	a.n += int64(n)
	return n, err
}

func (a *archive) add(e tree.Entry) error {
	if len(e.Xattrs) > 0 {
		return fmt.Errorf("extended attributes cannot be written")
	}
	a.inode++
	var mode uint32
	var size int64
	switch e.Type {
	case tree.Dir:
		mode = modeDir
	case tree.File:
		mode, size = modeFile, e.Size
	case tree.Symlink:
		mode, size = modeSymlink, int64(len(e.Target))
	case tree.Char:
		mode = modeChar
	default:
		return fmt.Errorf("type %q cannot be written", e.Type)
	}
	if size > math.MaxUint32 {
		return fmt.Errorf("%d bytes are more than the format can say", size)
	}
	if err := a.header(e.Path, mode|e.Mode, e, size); err != nil {
		return err
	}
	var err error
	switch e.Type {
	case tree.File:
		_, err = e.WriteTo(a)
	case tree.Symlink:
		_, err = io.WriteString(a, e.Target)
	}
	if err != nil {
		return err
	}
	return a.pad(4)
}

func (a *archive) header(name string, mode uint32, e tree.Entry, size int64) error {
	inode := a.inode
	if name == trailer {
		inode = 0
	}
	_, err := fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		inode, mode, e.UID, e.GID, 1, 0, size, 0, 0, e.Major, e.Minor, len(name)+1, 0, name)
	if err != nil {
		return err
	}
	return a.pad(4)
}

func (a *archive) pad(unit int64) error {
	_, err := a.Write(make([]byte, (unit-a.n%unit)%unit))
	return err
}
