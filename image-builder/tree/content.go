package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
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

// section is a range of something larger, such as an archive.
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

// Archives are the open files that contents lie in. Close them when the trees that were read from them are written.
// Several readers may keep files at the same time.
type Archives struct {
	mu    sync.Mutex
	files []io.Closer
}

// Keep takes over f.
func (a *Archives) Keep(f io.Closer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.files = append(a.files, f)
}

// Close closes all files; contents can no longer be read.
func (a *Archives) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, f := range a.files {
		errs = append(errs, f.Close())
	}
	a.files = nil
	return errors.Join(errs...)
}
