// Package gunzip decompresses gzip (RFC 1952, RFC 1951): most of the CPU time of a pull, and all layers of most images come so.
//
// It stands between a verified blob and package layer. It does what compress/gzip does in half of the time: the input is taken eight bytes at a
// time, a table of 2048 entries tells a symbol and all that belongs to it by one look, and copies are made eight bytes at a time. Members that follow
// each other are one stream; bytes behind the last one that are no member are an error, as are a wrong checksum, a wrong length, and codes
// that are not complete (but for a code of one symbol, which RFC 1951 allows). Nothing is asked of the processor that Go does not have everywhere.
//
//	in    up to 64 KiB of the blob, bits that are next in an uint64
//	out   32 KiB of what was put out, for copies, and up to 96 KiB that are still to be read
package gunzip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	window   = 32 << 10
	outSize  = 128 << 10
	slack    = 1 + 258 + 8 // the last round of fast: a second literal, a copy, and what copies of eight bytes write too much
	inSize   = 64 << 10
	litBits  = 11
	distBits = 8
	maxBits  = 15
)

// ErrCorrupt says that the input is not gzip, or was damaged.
var ErrCorrupt = errors.New("not a valid gzip stream")

// state is what comes next in the input.
type state int

const (
	member state = iota
	block
	stored
	symbols
	trailer
)

// Reader is an io.Reader of the decompressed stream.
type Reader struct {
	r   io.Reader
	err error // of r, or the end

	in       []byte // all of it is input; pos is the next
	pos      int
	bits     uint64 // from the lowest; above n there may be more of what in holds
	n        uint
	out      []byte
	read     int // of out, by the caller
	w        int // of out
	crc      uint32
	size     uint32 // of the member, modulo 2^32
	history  int    // bytes of this member before w that a copy may reach
	first    bool
	state    state
	last     bool // block
	left     int  // of a stored block
	lit      table
	dist     table
	lengths  [286 + 30 + maxBits]uint8
	failure  error
	inBuffer [inSize]byte
}

// NewReader reads the first header, so that what is not gzip is known at once.
func NewReader(r io.Reader) (*Reader, error) {
	z := &Reader{r: r, out: make([]byte, outSize+slack), first: true}
	z.in = z.inBuffer[:0]
	z.lit.start, z.dist.start = litBits, distBits
	if err := z.header(); err != nil {
		return nil, err
	}
	return z, nil
}

// Close is there for io.ReadCloser.
func (z *Reader) Close() error { return nil }

func (z *Reader) Read(p []byte) (int, error) {
	for z.read == z.w {
		if z.failure != nil {
			return 0, z.failure
		}
		if len(p) == 0 {
			return 0, nil
		}
		z.slide()
		from := z.w
		err := z.produce()
		z.crc = crc32.Update(z.crc, crc32.IEEETable, z.out[from:z.w])
		z.size += uint32(z.w - from)
		if err == nil && z.state == trailer {
			err = z.finish()
		}
		z.failure = err // what was put out before it is read first
	}
	n := copy(p, z.out[z.read:z.w])
	z.read += n
	return n, nil
}

// slide keeps the window when there is no more room for a good piece.
func (z *Reader) slide() {
	if z.w < outSize-window {
		return
	}
	copy(z.out, z.out[z.w-window:z.w])
	z.w, z.read, z.history = window, window, min(z.history, window)
}

// produce decodes until out is full or the member ends.
func (z *Reader) produce() error {
	for z.w < outSize && z.state != trailer {
		var err error
		switch z.state {
		case block:
			err = z.blockHeader()
		case stored:
			err = z.copyStored()
		case symbols:
			err = z.inflate()
		default:
			err = fmt.Errorf("%w: state %d", ErrCorrupt, z.state)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fill brings at least want bytes of input behind pos, if there are so many.
func (z *Reader) fill(want int) bool {
	z.giveBack()
	for len(z.in)-z.pos < want && z.err == nil { // a reader that has an end, or an error, and not nothing for ever
		n := copy(z.inBuffer[:], z.in[z.pos:])
		z.pos, z.in = 0, z.inBuffer[:n]
		var k int
		k, z.err = z.r.Read(z.inBuffer[n:])
		z.in = z.inBuffer[:n+k]
	}
	return len(z.in)-z.pos >= want
}

// more reads on when all of in has gone to bits, which it leaves as they are; what giveBack may want stays.
func (z *Reader) more() bool {
	kept := copy(z.inBuffer[:], z.in[len(z.in)-min(8, len(z.in)):])
	z.in, z.pos = z.inBuffer[:kept], kept
	for len(z.in) == kept && z.err == nil {
		var n int
		n, z.err = z.r.Read(z.inBuffer[kept:])
		z.in = z.inBuffer[:kept+n]
	}
	return len(z.in) > kept
}

// giveBack returns whole bytes from bits to in.
func (z *Reader) giveBack() {
	z.pos -= int(z.n >> 3)
	z.n &= 7
	z.bits &= 1<<z.n - 1
}

// short is why there are not enough bytes.
func (z *Reader) short() error {
	if z.err == nil || z.err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return z.err
}

// take returns the next bytes.
func (z *Reader) take(n int) ([]byte, error) {
	if !z.fill(n) {
		return nil, z.short()
	}
	z.pos += n
	return z.in[z.pos-n : z.pos], nil
}

// header reads that of a member; io.EOF where there is none after another.
func (z *Reader) header() error {
	if !z.fill(1) && !z.first && z.err == io.EOF {
		return io.EOF
	}
	h, err := z.take(10)
	if err != nil {
		return err
	}
	flags := h[3] // h is gone with the next take
	if h[0] != 0x1f || h[1] != 0x8b || h[2] != 8 || flags&0xe0 != 0 {
		return fmt.Errorf("%w: no header of a member", ErrCorrupt)
	}
	if flags&4 != 0 { // extra field
		b, err := z.take(2)
		if err == nil {
			_, err = z.take(int(binary.LittleEndian.Uint16(b))) // at most inSize
		}
		if err != nil {
			return err
		}
	}
	for _, flag := range []byte{8, 16} { // name, comment
		for flags&flag != 0 {
			b, err := z.take(1)
			if err != nil {
				return err
			}
			if b[0] == 0 {
				break
			}
		}
	}
	if flags&2 != 0 { // checksum of the header
		if _, err := z.take(2); err != nil {
			return err
		}
	}
	z.first, z.state, z.last = false, block, false
	z.crc, z.size, z.history = 0, 0, 0
	return nil
}

// finish compares the trailer of a member and goes on with the next.
func (z *Reader) finish() error {
	z.n = z.n &^ 7 // the rest of the last byte
	b, err := z.take(8)
	if err != nil {
		return err
	}
	if sum, size := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]); sum != z.crc || size != z.size {
		return fmt.Errorf("%w: checksum %08x of %d bytes, expected %08x of %d", ErrCorrupt, z.crc, z.size, sum, size)
	}
	return z.header()
}
