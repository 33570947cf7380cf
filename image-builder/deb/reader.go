package deb

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

const (
	maxControl    = 4 << 20  // bytes of the control file; the largest of Debian 13 has 60 KiB
	maxControlTar = 64 << 20 // bytes of control.tar, uncompressed; check sums and scripts fill it
)

// Reader is one package file, read as a stream: the control file is there at once, then Data yields the
// uncompressed tar of the files.
type Reader struct {
	Control Paragraph
	Data    io.Reader // data.tar, uncompressed; read errors name what is wrong

	release func()
}

// NewReader reads up to the start of the files. r is read without seeking and not past the data member.
// The caller closes the Reader.
func NewReader(r io.Reader) (*Reader, error) { return newReader(r, maxFiles) }

// newReader is NewReader for files of at most so many bytes, uncompressed.
func newReader(r io.Reader, limit int64) (*Reader, error) {
	a, err := newArReader(r)
	if err != nil {
		return nil, err
	}
	m, err := a.expect("debian-binary")
	if err != nil {
		return nil, err
	}
	format, err := io.ReadAll(io.LimitReader(m, 16))
	if err != nil {
		return nil, fmt.Errorf("read debian-binary: %w", err)
	}
	if !strings.HasPrefix(string(format), "2.") {
		return nil, fmt.Errorf("read debian-binary: expected format 2.x, found %q", format)
	}
	m, err = a.expect("control.tar")
	if err != nil {
		return nil, err
	}
	control, err := readControl(m)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", m.name, err)
	}
	if m, err = a.expect("data.tar"); err != nil {
		return nil, err
	}
	data, release, err := decompress(m)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", m.name, err)
	}
	return &Reader{Control: control, Data: &dataReader{m, &capped{data, limit}}, release: release}, nil
}

// Close frees the decompressor; it does not close the underlying reader.
func (r *Reader) Close() { r.release() }

// Tar iterates over the files. It uses up Data.
func (r *Reader) Tar() *tar.Reader { return tar.NewReader(r.Data) }

// expect returns the next member whose name is want, or want plus a compression suffix. Members that start with "_" are
// skipped, as deb(5) says.
func (a *arReader) expect(want string) (*member, error) {
	for {
		m, err := a.next()
		if err == io.EOF {
			return nil, fmt.Errorf("read package: member %s is missing", want)
		}
		if err != nil {
			return nil, err
		}
		switch {
		case strings.HasPrefix(m.name, "_"):
		case m.name == want, want != "debian-binary" && strings.HasPrefix(m.name, want+"."):
			return m, nil
		default:
			return nil, fmt.Errorf("read package: expected member %s, found %q", want, m.name)
		}
	}
}

func readControl(m *member) (Paragraph, error) {
	data, release, err := decompress(m)
	if err != nil {
		return Paragraph{}, err
	}
	defer release()
	t := tar.NewReader(&capped{data, maxControlTar})
	var text []byte
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return Paragraph{}, err
		}
		if path.Clean(h.Name) != "control" {
			continue
		}
		if text != nil { // dpkg takes the last one, others the first
			return Paragraph{}, fmt.Errorf("file control is there twice")
		}
		if h.Typeflag != tar.TypeReg || h.Size == 0 || h.Size > maxControl {
			return Paragraph{}, fmt.Errorf("file control is of type %q and has %d bytes, expected a file of at most %d", h.Typeflag, h.Size, maxControl)
		}
		if text, err = io.ReadAll(t); err != nil {
			return Paragraph{}, fmt.Errorf("file control: %w", err)
		}
	}
	if text == nil {
		return Paragraph{}, fmt.Errorf("file control is missing")
	}
	return ParseParagraph("control", text)
}

// ParseParagraph reads a text that holds exactly one paragraph; name is what errors call it.
func ParseParagraph(name string, b []byte) (Paragraph, error) {
	r := NewParagraphReader(name, bytes.NewReader(b))
	p, err := r.Next()
	if err == io.EOF {
		return Paragraph{}, fmt.Errorf("%s: no paragraph", name)
	}
	if err != nil {
		return Paragraph{}, err
	}
	if q, err := r.Next(); err == nil {
		return Paragraph{}, fmt.Errorf("%s:%d: expected one paragraph, found a second", name, q.Line)
	} else if err != io.EOF {
		return Paragraph{}, err
	}
	return p, nil
}

func decompress(m *member) (r io.Reader, release func(), err error) {
	_, suffix, _ := strings.Cut(m.name, ".tar")
	return Decompress(suffix, m)
}

// Decompress returns the uncompressed stream of r; suffix is ".xz", ".zst", ".gz" or "". release must be called
// when the stream is no longer read.
func Decompress(suffix string, r io.Reader) (plain io.Reader, release func(), err error) {
	release = func() {}
	r = bufio.NewReaderSize(r, 64<<10) // the xz decoder reads byte by byte
	switch suffix {
	case "":
		plain = r
	case ".xz":
		plain, err = xz.NewReader(r)
	case ".gz":
		plain, err = gzip.NewReader(r)
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20)); err == nil {
			plain, release = z, z.Close
		}
	default:
		return nil, nil, fmt.Errorf("compression %q is not one of .xz, .zst, .gz", suffix)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("decompress %s: %w", strings.TrimPrefix(suffix, "."), noEOF(err))
	}
	return plain, release, nil
}

// dataReader puts the member's name in front of read errors, and ends only if all of the member was there: some decompressors
// take a cut between two frames for the end.
type dataReader struct {
	m     *member
	plain io.Reader
}

func (d *dataReader) Read(p []byte) (int, error) {
	n, err := d.plain.Read(p)
	if err == io.EOF {
		if _, rest := io.Copy(io.Discard, d.m); rest != nil {
			err = rest
		}
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read %s: %w", d.m.name, err)
	}
	return n, err
}

// capped fails where io.LimitReader would end: a small file can decompress to more than any disk holds.
type capped struct {
	r    io.Reader
	left int64 // bytes
}

func (c *capped) Read(p []byte) (int, error) {
	if int64(len(p)) > c.left+1 {
		p = p[:c.left+1]
	}
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, errors.New("it decompresses to more than a package may have")
	}
	return n, err
}
