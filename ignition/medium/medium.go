// Package medium reads files from the media that hypervisors and people put configs on: ISO 9660, FAT and UDF file systems.
//
// It stands below package platform. Reading them here and not by mount(2) keeps bytes that anybody may have made away from the
// kernel's file systems, needs no privileges, and works before udev has made its links. Read only.
//
//	ISO 9660  ECMA-119, names of Joliet or of the Rock Ridge entry NM where there are any; one session; files of one extent
//	FAT       FAT12, 16 and 32 with long names (Microsoft's "FAT: General Overview of On-Disk Format"), on a bare disk
//	UDF       ECMA-167 as UDF 1.02 profiles it for CD: physical partitions, embedded and short allocation descriptors
//
// Refused: everything else, and files larger than the caller's limit. Names are compared without regard to case, as the systems
// that write these media disagree about it. Every length and address is checked against the medium; loops end at fixed counts.
package medium

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// errFormat is the error of bytes that are not the file system somebody has looked for.
var errFormat = errors.New("no file system that is known here")

// maxDir is the largest directory read, in bytes.
const maxDir = 4 << 20

// A Volume is a file system on a medium.
type Volume struct {
	Kind  string // "iso9660", "vfat" or "udf"
	Label string
	root  entry
	tree  tree
}

// entry is a file or directory; what its numbers mean is known to the tree.
type entry struct {
	name string
	dir  bool
	at   int64 // block, cluster or address of an information control block
	size int64
	data []byte // if the content is in the entry itself
}

// tree is a format: it lists directories and opens files.
type tree interface {
	list(dir entry) ([]entry, error)
	read(file entry, limit int64) ([]byte, error)
}

// Open recognises the file system on r. UDF comes first: a bridge disc has ISO 9660 as well, with mangled names.
func Open(r io.ReaderAt) (*Volume, error) {
	for _, open := range []func(io.ReaderAt) (*Volume, error){openUDF, openISO, openFAT} {
		v, err := open(r)
		if !errors.Is(err, errFormat) {
			return v, err
		}
	}
	return nil, errFormat
}

// ReadFile returns the file at name, a path with slashes, of at most limit bytes. The error is fs.ErrNotExist if there is none.
func (v *Volume) ReadFile(name string, limit int64) ([]byte, error) {
	at := v.root
	for element := range strings.SplitSeq(strings.Trim(path.Clean("/"+name), "/"), "/") {
		if !at.dir {
			return nil, fmt.Errorf("find %s on %s medium: %w", name, v.Kind, fs.ErrNotExist)
		}
		children, err := v.tree.list(at)
		if err != nil {
			return nil, fmt.Errorf("read %s medium: %w", v.Kind, err)
		}
		found := false
		for _, c := range children {
			if strings.EqualFold(c.name, element) {
				at, found = c, true
				break
			}
		}
		if !found {
			return nil, fmt.Errorf("find %s on %s medium: %w", name, v.Kind, fs.ErrNotExist)
		}
	}
	if at.dir {
		return nil, fmt.Errorf("read %s on %s medium: expected a file, found a directory", name, v.Kind)
	}
	if at.size > limit {
		return nil, fmt.Errorf("read %s on %s medium: expected at most %d bytes, found %d", name, v.Kind, limit, at.size)
	}
	b, err := v.tree.read(at, limit)
	if err != nil {
		return nil, fmt.Errorf("read %s on %s medium: %w", name, v.Kind, err)
	}
	return b, nil
}

// readAt reads exactly n bytes at offset.
func readAt(r io.ReaderAt, offset, n int64) ([]byte, error) {
	b := make([]byte, n)
	if got, err := r.ReadAt(b, offset); int64(got) < n {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("at byte %d: %w", offset, err)
	}
	return b, nil
}

// probe is readAt for what may not be there at all: a short medium is another format.
func probe(r io.ReaderAt, offset, n int64) ([]byte, error) {
	b, err := readAt(r, offset, n)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errFormat
	}
	return b, err
}
