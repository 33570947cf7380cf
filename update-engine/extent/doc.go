// Package extent says where in a root image or boot program each file lies, and which file of the new release is like which of the old.
//
//	root image   ─▶ Read     ┐
//	boot program ─▶ ReadBoot ┴▶ Map: files and gaps ─▶ Hash ─▶ Match: pairs of files ─▶ package payload makes COPY, DIFF, REPLACE of them
//
// Read knows EROFS as image-builder makes it (kernel: fs/erofs/erofs_fs.h): one device, blocks of 4096 bytes, no compression, no chunks;
// inodes of the plain layout, whose data are whole blocks, and of the inline one, whose last piece lies behind the inode and belongs to the
// gap there. ReadBoot knows boot programs (package internal/uki): every section is a file by its name, but of an initramfs that is a cpio
// archive (kernel: Documentation/driver-api/early-userspace/buffer-format.rst, "070701") each member is.
//
// It works on the release desk on images that were signed, or are about to be. Nevertheless it trusts none: what points out of the image,
// loops, overlaps or is absurdly large is an error. A Map covers its image: files and gaps ascend, do not overlap, and leave no byte out.
package extent

import (
	"crypto/sha256"
	"fmt"
	"io"
	"slices"

	"github.com/proa-os/proa/internal/digest"
)

// An Extent is a run of bytes of an image.
type Extent struct {
	Path   string        // of the file, without a leading slash; "" for a gap
	Offset int64         // bytes
	Length int64         // bytes that belong to nothing else: the content and what fills it up to a block
	Size   int64         // bytes of content in it, at most Length
	SHA256 digest.SHA256 // of the content; zero before Hash
}

// End is the first byte behind the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// A Map is how an image is divided.
type Map struct {
	Size  int64    // bytes of the image
	Files []Extent // ascending
	Gaps  []Extent // what is between: directories, inodes, headers
}

// newMap sorts the files and adds the gaps. Files at the very same place are one with several names, of which the first stays.
func newMap(size int64, files []Extent) (*Map, error) {
	slices.SortStableFunc(files, func(a, b Extent) int { return int(min(max(a.Offset-b.Offset, -1), 1)) })
	files = slices.CompactFunc(files, func(a, b Extent) bool { return a.Offset == b.Offset && a.Length == b.Length && a.Size == b.Size })
	m := &Map{Size: size, Files: files}
	var end int64
	gap := func(to int64) {
		if end < to {
			m.Gaps = append(m.Gaps, Extent{Offset: end, Length: to - end, Size: to - end})
		}
	}
	for i, f := range files {
		if f.Offset < end {
			return nil, fmt.Errorf("%q at %d overlaps %q, which ends at %d", f.Path, f.Offset, files[max(i-1, 0)].Path, end)
		}
		gap(f.Offset)
		end = f.End()
	}
	if end > size {
		return nil, fmt.Errorf("a file ends at %d, the image at %d", end, size)
	}
	gap(size)
	return m, nil
}

// Hash fills in the SHA-256 of the content of each file; r is the image.
func (m *Map) Hash(r io.ReaderAt) error {
	h, buf := sha256.New(), make([]byte, 256<<10)
	for i := range m.Files {
		f := &m.Files[i]
		h.Reset()
		// The wrapping keeps io.CopyBuffer from going around the buffer.
		n, err := io.CopyBuffer(h, struct{ io.Reader }{io.NewSectionReader(r, f.Offset, f.Size)}, buf)
		if err == nil && n != f.Size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("hash %q, %d bytes at %d: %w", f.Path, f.Size, f.Offset, err)
		}
		f.SHA256 = digest.SHA256(h.Sum(nil))
	}
	return nil
}

func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}
