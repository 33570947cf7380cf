package tree

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// Content is where a file's bytes are. Open may be called any number of times.
type Content interface {
	Open() (io.ReadCloser, error)
}

// Bytes is content in memory.
type Bytes []byte

// Open implements Content.
func (b Bytes) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }

// HostFile is the content of a file of the host, by its name there.
type HostFile string

// Open implements Content.
func (f HostFile) Open() (io.ReadCloser, error) { return os.Open(string(f)) }

// section is a range of something larger, such as a spool.
type section struct {
	r      io.ReaderAt
	off, n int64
}

func (s section) Open() (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(s.r, s.off, s.n)), nil
}

// ReadFile returns the content of the file that name leads to.
func (t *Tree) ReadFile(name string) ([]byte, error) {
	e, ok := t.Resolve(name)
	if !ok || e.Type != File {
		return nil, fmt.Errorf("read %q: the tree has no such file", name)
	}
	b, err := e.read()
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", name, err)
	}
	return b, nil
}

func (e *Entry) read() ([]byte, error) {
	var b bytes.Buffer
	err := e.copy(&b)
	return b.Bytes(), err
}

// copy writes the content of a file, which must have the size that was promised.
func (e *Entry) copy(w io.Writer) error {
	r, err := e.Content.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(w, io.LimitReader(r, e.Size+1))
	if err != nil {
		return err
	}
	if n != e.Size {
		return fmt.Errorf("expected %d bytes, found %d: the file changed while the image was built", e.Size, n)
	}
	return nil
}

// WriteTo writes the content of a file and checks its size; cpio and elfcheck read files with it.
func (e Entry) WriteTo(w io.Writer) (int64, error) {
	if e.Type != File {
		return 0, fmt.Errorf("read %q: it is a %s", e.Path, e.Type)
	}
	if err := e.copy(w); err != nil {
		return 0, fmt.Errorf("read %q: %w", e.Path, err)
	}
	return e.Size, nil
}

// A Spool keeps file contents that come as a stream, in one unnamed temporary file. Close it when the trees that
// were read with it are written. Several trees may be read with it at the same time.
type Spool struct {
	f   *os.File
	end atomic.Int64
}

// NewSpool makes a spool in dir; empty means the host's directory for temporary files.
func NewSpool(dir string) (*Spool, error) {
	f, err := os.CreateTemp(dir, "proa-spool-")
	if err != nil {
		return nil, fmt.Errorf("make spool: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("make spool: %w", err)
	}
	return &Spool{f: f}, nil
}

// Close gives the space back; contents can no longer be read.
func (s *Spool) Close() error { return s.f.Close() }

// keep copies n bytes of r.
func (s *Spool) keep(r io.Reader, n int64) (Content, error) {
	off := s.end.Add(n) - n
	w := io.NewOffsetWriter(s.f, off)
	if _, err := io.CopyN(w, r, n); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return section{s.f, off, n}, nil
}
