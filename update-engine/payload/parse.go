package payload

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/proa-os/proa/internal/digest"
)

// Version is the newest version of the format. This package reads it and those down to firstVersion, and writes the oldest one that has what a payload
// needs.
const (
	Version      = 3
	firstVersion = 2
)

const (
	magic      = "\x89PROA\r\n\x1a"
	headerSize = 64
	digestSize = len(digest.SHA256{})
	maxNumber  = 1 << 40
)

// ReadManifest reads the header and the manifest, and leaves r at the first blob. Whether they are the signed ones is for the caller to know (Digest).
func ReadManifest(r io.Reader) (*Manifest, error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return nil, fmt.Errorf("read payload header: %w", truncated(err))
	}
	if string(h[:8]) != magic {
		return nil, damaged(fmt.Errorf("read payload header: expected magic %q, found %q: this is not a payload", magic, h[:8]))
	}
	v := binary.LittleEndian.Uint32(h[8:])
	if v < firstVersion || v > Version {
		return nil, fmt.Errorf("read payload header: format version %d, this program reads %d to %d: %w", v, firstVersion, Version, ErrUnsupported)
	}
	packed, size := binary.LittleEndian.Uint32(h[12:]), binary.LittleEndian.Uint32(h[48:])
	if size > maxManifest || packed > size {
		return nil, damaged(fmt.Errorf("read payload header: manifest of %d bytes packed in %d, at most %d are allowed", size, packed, maxManifest))
	}
	if !bytes.Equal(h[52:], make([]byte, 12)) {
		return nil, damaged(errors.New("read payload header: bytes 52 to 63 are not zero"))
	}
	// Read in steps, so that a header that lies about the size costs no more memory than the input has.
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, int64(packed)); err != nil {
		return nil, fmt.Errorf("read payload manifest: %w", truncated(err))
	}
	if got := digest.Of(b.Bytes()); got != digest.SHA256(h[16:48]) {
		return nil, damaged(fmt.Errorf("read payload manifest: expected sha256 %s, found %s: damaged", digest.SHA256(h[16:48]), got))
	}
	text, err := unpackManifest(b.Bytes(), int(size))
	if err != nil {
		return nil, damaged(fmt.Errorf("read payload manifest: %w", err))
	}
	m, err := parseManifest(text)
	if err != nil {
		return nil, damaged(fmt.Errorf("read payload manifest: %w", err))
	}
	if v < m.version() {
		return nil, damaged(fmt.Errorf("read payload manifest: format version %d does not have all of its operations", v))
	}
	m.size, m.digest = headerSize+int64(packed), digest.Of(append(h[:], b.Bytes()...))
	return m, nil
}

func unpackManifest(packed []byte, size int) ([]byte, error) {
	if len(packed) == size {
		return packed, nil
	}
	d, err := newDecoder()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	text := make([]byte, size)
	return text, unzstd(d, text, packed)
}

// newDecoder returns a decoder for whole frames: it needs no window of its own.
func newDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderMaxMemory(maxZstdWindow), zstd.WithDecodeAllCapLimit(true))
}

// unzstd unpacks frames that must fill out. Behind it, up to its capacity, anything may be afterwards.
func unzstd(d *zstd.Decoder, out, packed []byte) error {
	got, err := d.DecodeAll(packed, out[:0])
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), err == nil && len(got) > len(out):
		return fmt.Errorf("unpack zstd: more than the %d bytes of the stream", len(out))
	case err != nil:
		return fmt.Errorf("unpack zstd: %w", truncated(err))
	case len(got) < len(out):
		return fmt.Errorf("unpack zstd: %d bytes, expected %d", len(got), len(out))
	}
	return nil
}

// blocksOf returns where the blocks of a frame begin that refers to a prefix and makes n bytes. b is its beginning.
func blocksOf(b []byte, n int64) (int64, error) {
	var h zstd.Header
	err := h.Decode(b)
	switch {
	case err != nil:
		return 0, fmt.Errorf("unpack zstd: %w", truncated(err))
	case h.Skippable || h.HasCheckSum || h.DictionaryID != 0:
		return 0, errors.New("unpack zstd: expected a frame without checksum and dictionary, as it has a prefix")
	case h.WindowSize > maxZstdWindow:
		return 0, fmt.Errorf("unpack zstd: window of %d bytes, at most %d are allowed", h.WindowSize, maxZstdWindow)
	case h.HasFCS && h.FrameContentSize != uint64(n):
		return 0, fmt.Errorf("unpack zstd: %d bytes, expected %d", h.FrameContentSize, n)
	}
	return int64(h.HeaderSize), nil
}

func truncated(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A scanner takes fields from a manifest or a control stream; after the end, or a number out of range, it yields zeros and remembers.
type scanner struct {
	b   []byte
	err error
}

var (
	errShort  = errors.New("it ends too early")
	errNumber = errors.New("a number is longer than it need be, or not less than 2^40")
)

func (s *scanner) fail(err error) {
	if s.b = nil; s.err == nil {
		s.err = err
	}
}

func (s *scanner) take(n int) []byte {
	if len(s.b) < n {
		s.fail(errShort)
		return make([]byte, n)
	}
	f := s.b[:n]
	s.b = s.b[n:]
	return f
}

func (s *scanner) uint8() uint8              { return s.take(1)[0] }
func (s *scanner) digest() (d digest.SHA256) { copy(d[:], s.take(digestSize)); return d }

func (s *scanner) uint() int64 {
	v, n := binary.Uvarint(s.b)
	switch {
	case n == 0:
		s.fail(errShort)
		return 0
	case n < 0 || v >= maxNumber || n > 1 && s.b[n-1] == 0:
		s.fail(errNumber)
		return 0
	}
	s.b = s.b[n:]
	return int64(v)
}

// int is within 2^39 of zero.
func (s *scanner) int() int64 {
	v := s.uint()
	return v>>1 ^ -(v & 1)
}

func parseManifest(b []byte) (*Manifest, error) {
	s := &scanner{b: b}
	m := &Manifest{Source: s.digest(), RootSize: s.uint(), Boot: s.digest(), BootSize: s.uint()}
	outputs := int(s.uint8())
	switch {
	case s.err != nil:
		return nil, s.err
	case m.RootSize > maxSourceSize || m.BootSize > maxSourceSize:
		return nil, fmt.Errorf("sources of %d and %d bytes, at most %d are allowed", m.RootSize, m.BootSize, int64(maxSourceSize))
	case m.Source.IsZero() != (m.RootSize == 0) || m.Boot.IsZero() != (m.BootSize == 0) || m.Source.IsZero() && !m.Boot.IsZero():
		return nil, fmt.Errorf("a source has a hash, but no bytes, or bytes, but no hash")
	case outputs < 1 || outputs > maxOutputs:
		return nil, fmt.Errorf("%d outputs, want 1 or %d", outputs, maxOutputs)
	}
	for i := range outputs {
		o, err := parseOutput(s)
		if err != nil {
			return nil, fmt.Errorf("output %d: %w", i, err)
		}
		if i > 0 && o.Kind <= m.Outputs[i-1].Kind {
			return nil, fmt.Errorf("output %d: the %s cannot follow the %s", i, o.Kind, m.Outputs[i-1].Kind)
		}
		m.Outputs = append(m.Outputs, o)
		if err := m.parseParts(s, &m.Outputs[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", o.Kind, err)
		}
	}
	if len(s.b) != 0 {
		return nil, fmt.Errorf("%d bytes behind the last segment", len(s.b))
	}
	return m, nil
}

// parseOutput reads the head of an output; the slices have their lengths.
func parseOutput(s *scanner) (Output, error) {
	o := Output{Kind: Kind(s.uint8()), Size: s.uint(), SHA256: s.digest()}
	runs, segments := s.uint(), s.uint()
	switch {
	case s.err != nil:
		return o, s.err
	case o.Kind != RootImage && o.Kind != BootProgram:
		return o, fmt.Errorf("unknown kind %d: %w", uint8(o.Kind), ErrUnsupported)
	case o.Size < 1 || o.Size > maxOutputSize:
		return o, fmt.Errorf("%s: size of %d bytes is not from 1 to %d", o.Kind, o.Size, int64(maxOutputSize))
	case runs < 1 || runs > maxRuns || runs > int64(len(s.b)):
		return o, fmt.Errorf("%s: %d runs, want 1 to %d", o.Kind, runs, maxRuns)
	case segments > maxSegments || segments > int64(len(s.b)):
		return o, fmt.Errorf("%s: %d segments, at most %d are allowed", o.Kind, segments, maxSegments)
	}
	o.Runs, o.Segments = make([]Run, runs), make([]Segment, segments)
	return o, nil
}

func (m *Manifest) parseParts(s *scanner, o *Output) error {
	made, err := m.parseRuns(s, o)
	if err != nil {
		return err
	}
	c := newCursor(o.Runs)
	for i := range o.Segments {
		seg, err := parseSegment(s)
		if err != nil {
			return fmt.Errorf("segment %d: %w", i, err)
		}
		if made -= seg.Length; made < 0 {
			return fmt.Errorf("segment %d: ends %d bytes behind the last made byte", i, -made)
		}
		c.skipCopies()
		if seg.Prefix.Length > 0 {
			self := m.external(o.Kind) + c.at
			seg.Prefix.At += self - seg.Prefix.Length
			if seg.Prefix.At < 0 || seg.Prefix.At > self-seg.Prefix.Length {
				return fmt.Errorf("segment %d: its prefix of %d bytes at %d is not in the %d bytes that are known there", i, seg.Prefix.Length, seg.Prefix.At, self)
			}
		}
		c.skipMade(seg.Length)
		o.Segments[i] = seg
	}
	if made != 0 {
		return fmt.Errorf("the segments leave %d made bytes open", made)
	}
	return nil
}

// parseRuns checks that the runs cover the output and copy from inside the sources; it returns the number of made bytes.
func (m *Manifest) parseRuns(s *scanner, o *Output) (made int64, err error) {
	var at, shift int64
	for i := range o.Runs {
		r := Run{Made: s.uint(), Copied: s.uint()}
		if r.Copied > 0 {
			shift += s.int()
			r.Shift = shift
		}
		first, limit := at+r.Made+r.Shift, m.external(o.Kind)
		switch {
		case s.err != nil:
			return 0, s.err
		case r.Copied == 0 && (r.Made == 0 || i < len(o.Runs)-1):
			return 0, fmt.Errorf("run %d: %d made and %d copied bytes, only the last one may have none of these", i, r.Made, r.Copied)
		case r.Copied > 0 && (first < 0 || first > limit-r.Copied):
			return 0, fmt.Errorf("run %d: copies %d bytes at %d of the source, which has %d", i, r.Copied, first, limit)
		}
		if at += r.Made + r.Copied; at > o.Size {
			return 0, fmt.Errorf("run %d: ends %d bytes behind the end of the output", i, at-o.Size)
		}
		made += r.Made
		o.Runs[i] = r
	}
	if at != o.Size {
		return 0, fmt.Errorf("the runs leave the last %d bytes of %d open", o.Size-at, o.Size)
	}
	return made, nil
}

// parseSegment reads a segment; the prefix's place is still relative.
func parseSegment(s *scanner) (Segment, error) {
	code := s.uint8()
	seg := Segment{Op: Op(code >> 4), Length: s.uint(), SHA256: s.digest()}
	first := Codec(code & 15)
	switch {
	case s.err != nil:
		return seg, s.err
	case !seg.Op.differs() && seg.Op != Replace:
		return seg, fmt.Errorf("operation %s: %w", seg.Op, ErrUnsupported)
	case seg.Length < 1 || seg.Length > MaxSegment:
		return seg, fmt.Errorf("length of %d bytes is not from 1 to %d", seg.Length, MaxSegment)
	}
	if seg.Op == Replace {
		seg.Streams[0] = parseStream(s, first, seg.Length)
		if first == Zstd {
			seg.Prefix.Length = s.uint()
		}
		if seg.Prefix.Length > 0 {
			seg.Prefix.At = s.int()
		}
		if seg.Prefix.Length > MaxPrefix {
			return seg, fmt.Errorf("prefix of %d bytes, at most %d are allowed", seg.Prefix.Length, MaxPrefix)
		}
	} else {
		control := s.uint()
		seg.Streams[0] = parseStream(s, first, control)
		codecs := s.uint8()
		diff := s.uint()
		if control < 1 || control > maxControl || diff > seg.Length {
			return seg, fmt.Errorf("control stream of %d and diff stream of %d bytes for %d bytes: at most %d and as many are allowed", control, diff, seg.Length, maxControl)
		}
		seg.Streams[1] = parseStream(s, Codec(codecs&15), diff)
		seg.Streams[2] = parseStream(s, Codec(codecs>>4), seg.Length-diff)
	}
	if s.err != nil {
		return seg, s.err
	}
	for i, stream := range seg.Streams {
		if err := stream.check(seg.Op.differs() && i == 1); err != nil {
			return seg, fmt.Errorf("stream %d: %w", i, err)
		}
	}
	return seg, nil
}

// parseStream reads how many bytes a stream is stored in, if that is not known already.
func parseStream(s *scanner, c Codec, length int64) Stream {
	stream := Stream{Codec: c, Length: length}
	switch c {
	case Raw:
		stream.Stored = length
	case Zstd, Bzip2, Residue:
		stream.Stored = s.uint()
	}
	return stream
}

func (s Stream) check(ofDifferences bool) error {
	switch {
	case s.Codec == Raw || s.Codec == Zeros:
		return nil
	case s.Codec == Zstd || s.Codec == Bzip2 || s.Codec == Residue && ofDifferences:
		if s.Stored < 1 || s.Stored >= s.Length {
			return fmt.Errorf("stored in %d bytes for %d bytes with codec %s", s.Stored, s.Length, s.Codec)
		}
		return nil
	}
	return fmt.Errorf("%s: %w", s.Codec, ErrUnsupported)
}
