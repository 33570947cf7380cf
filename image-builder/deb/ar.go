package deb

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	arMagic      = "!<arch>\n"
	arHeaderSize = 60
)

// member is one file of an ar archive; it reads that file's content.
type member struct {
	name string
	size int64
	io.Reader
}

// arReader iterates over the members of an ar(5) archive in the common (System V) variant without long names:
//
//	offset  size  field
//	0       16    name, padded with spaces, may end in "/"
//	16      12    time    28  6  uid    34  6  gid    40  8  mode (not looked at)
//	48      10    size in decimal
//	58      2     "`\n"
//
// Content is padded to an even length by one byte.
type arReader struct {
	r   io.Reader
	cur *io.LimitedReader // rest of the current member
	pad int64
}

func newArReader(r io.Reader) (*arReader, error) {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return nil, fmt.Errorf("read ar magic: %w", noEOF(err))
	}
	if string(magic) != arMagic {
		return nil, fmt.Errorf("read ar magic: expected %q, found %q", arMagic, magic)
	}
	return &arReader{r: r}, nil
}

// next skips what is left of the current member and returns the following one, or io.EOF after the last.
func (a *arReader) next() (*member, error) {
	if a.cur != nil {
		skip := a.cur.N + a.pad
		n, err := io.CopyN(io.Discard, a.r, skip)
		// The padding byte behind the last member may be missing.
		if err == io.EOF && n == a.cur.N {
			return nil, io.EOF
		}
		if err != nil {
			return nil, fmt.Errorf("skip ar member: %w", noEOF(err))
		}
	}
	var h [arHeaderSize]byte
	if _, err := io.ReadFull(a.r, h[:]); err == io.EOF {
		return nil, io.EOF
	} else if err != nil {
		return nil, fmt.Errorf("read ar header: %w", noEOF(err))
	}
	if !bytes.Equal(h[58:60], []byte("`\n")) {
		return nil, fmt.Errorf("read ar header: expected \"`\\n\" at its end, found %q", h[58:60])
	}
	name := strings.TrimSuffix(strings.TrimRight(string(h[0:16]), " "), "/")
	size, err := strconv.ParseInt(strings.TrimRight(string(h[48:58]), " "), 10, 64)
	if err != nil || size < 0 {
		return nil, fmt.Errorf("read ar header of %q: size %q is not a decimal number", name, h[48:58])
	}
	a.cur = &io.LimitedReader{R: a.r, N: size}
	a.pad = size % 2
	return &member{name: name, size: size, Reader: &exactReader{a.cur}}, nil
}

// exactReader ends with io.EOF only if all announced bytes came.
type exactReader struct{ l *io.LimitedReader }

func (e *exactReader) Read(p []byte) (int, error) {
	n, err := e.l.Read(p)
	if err == io.EOF && e.l.N > 0 {
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
