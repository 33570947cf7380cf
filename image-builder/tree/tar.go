package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

const paxXattr = "SCHILY.xattr."

// An Archive is an uncompressed tar, such as an open file.
type Archive interface {
	io.ReadSeeker
	io.ReaderAt
}

// FromTar reads the files of a package. Contents stay where they are in the archive, which must stay open and unchanged. Owners
// are the archive's numbers; their names, and times, are ignored.
func FromTar(archive Archive, pkg string) (*Tree, error) {
	t := New()
	r := tar.NewReader(archive)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read archive of %s: %w", pkg, err)
		}
		if err := t.addHeader(h, archive, pkg); err != nil {
			return nil, fmt.Errorf("read archive of %s: %w", pkg, err)
		}
	}
}

func (t *Tree) addHeader(h *tar.Header, archive Archive, pkg string) error {
	e := Entry{Path: h.Name, Mode: uint32(h.Mode) & permissions, UID: h.Uid, GID: h.Gid, Package: pkg}
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, paxXattr); ok {
			if e.Xattrs == nil {
				e.Xattrs = map[string]string{}
			}
			e.Xattrs[name] = value
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		e.Type = Dir
	case tar.TypeReg:
		e.Type, e.Size = File, h.Size
		var err error
		if e.Content, err = inPlace(h, archive); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	case tar.TypeSymlink:
		e.Type, e.Target, e.Mode = Symlink, h.Linkname, 0o777
	case tar.TypeLink:
		to, ok := t.Lookup(h.Linkname)
		if !ok || to.Type != File {
			return fmt.Errorf("%s: hard link to %q, which is not a file before it", h.Name, h.Linkname)
		}
		path := e.Path
		e = to
		e.Path = path
	case tar.TypeChar:
		e.Type, e.Major, e.Minor = Char, uint32(h.Devmajor), uint32(h.Devminor)
	default:
		return fmt.Errorf("%s: entries of type %q are not supported", h.Name, h.Typeflag)
	}
	return t.Add(e)
}

// inPlace returns the content of the file whose header was just read: tar.Reader reads no further than it must, so the archive
// stands at the content's first byte. A sparse file's content is not one piece.
func inPlace(h *tar.Header, archive Archive) (Content, error) {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return nil, errors.New("sparse files are not supported")
		}
	}
	off, err := archive.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	end, err := archive.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if off+h.Size > end {
		return nil, io.ErrUnexpectedEOF
	}
	_, err = archive.Seek(off, io.SeekStart)
	return section{archive, off, h.Size}, err
}

// WriteTar writes the whole tree with its root, in USTAR format and where that cannot say it in PAX. Every entry
// has the time mtime.
func (t *Tree) WriteTar(w io.Writer, mtime time.Time) error {
	tw := tar.NewWriter(w)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, ModTime: mtime}); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	for e := range t.All() {
		if err := e.writeTar(tw, mtime); err != nil {
			return fmt.Errorf("write archive: %s: %w", e.Path, err)
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

func (e *Entry) writeTar(w *tar.Writer, mtime time.Time) error {
	h := &tar.Header{Name: "./" + e.Path, Mode: int64(e.Mode), Uid: e.UID, Gid: e.GID, ModTime: mtime}
	for name, value := range e.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+name] = value
	}
	switch e.Type {
	case Dir:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case File:
		h.Typeflag, h.Size = tar.TypeReg, e.Size
	case Symlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
	case Char:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(e.Major), int64(e.Minor)
	}
	if err := w.WriteHeader(h); err != nil || e.Type != File {
		return err
	}
	return e.copy(w)
}
