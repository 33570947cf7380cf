package payload

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/proa-os/proa/internal/digest"
)

const (
	magic   = "\x89PROA\r\n\x1a"
	version = 1

	headerSize      = 64
	maxManifest     = 16 << 20
	outputHeadSize  = 1 + 8 + digestSize + 4
	segmentSize     = 1 + 1 + 4 + 4 + digestSize
	digestSize      = len(digest.SHA256{})
	maxOutputs      = 2
	maxOutputSize   = 1 << 40
	maxZstdWindow   = 8 << 20
	maxSegmentCount = maxManifest / segmentSize
)

// MaxSegment is the greatest number of target bytes in a segment.
const MaxSegment = 4 << 20

// Kind says what an output is.
type Kind uint8

// The outputs, in the order in which a payload holds them.
const (
	RootImage   Kind = 1 // the EROFS part, without the verity tree
	BootProgram Kind = 2 // the UKI
)

func (k Kind) String() string {
	switch k {
	case RootImage:
		return "root image"
	case BootProgram:
		return "boot program"
	}
	return fmt.Sprintf("output kind %d", uint8(k))
}

// Op says where the bytes of a segment come from.
type Op uint8

// The operations. This version reads and writes Replace only.
const (
	Copy    Op = 1
	Diff    Op = 2
	Replace Op = 3
)

func (o Op) String() string {
	switch o {
	case Copy:
		return "COPY (1)"
	case Diff:
		return "DIFF (2)"
	case Replace:
		return "REPLACE (3)"
	}
	return fmt.Sprintf("number %d", uint8(o))
}

// Codec says how a blob is packed.
type Codec uint8

// The codecs of a REPLACE blob. Number 2 is bzip2's, in deltas.
const (
	Raw   Codec = 0
	Zstd  Codec = 1
	Zeros Codec = 3
)

// ErrUnsupported is wrapped by errors about a payload that is well formed, but for a newer reader.
var ErrUnsupported = errors.New("not supported by this version: take the full payload, or update in smaller steps")

// A Manifest is what a payload holds, before its blobs.
type Manifest struct {
	Source  digest.SHA256 // root hash of the root image that must be running; zero in a full payload
	Outputs []Output      // in the order of their blobs, kinds ascending

	size   int64         // bytes of the encoded manifest
	digest digest.SHA256 // of the header and the encoded manifest
}

// An Output is one of the two things that a payload makes.
type Output struct {
	Kind     Kind
	Size     int64 // bytes
	SHA256   digest.SHA256
	Segments []Segment
}

// A Segment is a part of an output and what makes it.
type Segment struct {
	Op     Op
	Codec  Codec
	Length int64         // bytes of the output
	Stored int64         // bytes of the blob
	SHA256 digest.SHA256 // of the bytes of the output
}

// Size is the length in bytes of the whole payload.
func (m *Manifest) Size() int64 {
	n := headerSize + m.size
	for _, o := range m.Outputs {
		for _, s := range o.Segments {
			n += s.Stored
		}
	}
	return n
}

// Digest is the SHA-256 of the header and the manifest. The signed release.json names it, so a payload that is taken up in the middle is
// as authentic as one read from its first byte: the manifest names the hashes of what follows.
func (m *Manifest) Digest() digest.SHA256 { return m.digest }

// Output returns the output of a kind, or nil.
func (m *Manifest) Output(k Kind) *Output {
	for i := range m.Outputs {
		if m.Outputs[i].Kind == k {
			return &m.Outputs[i]
		}
	}
	return nil
}

// ReadManifest reads the header and the manifest, and leaves r at the first blob.
func ReadManifest(r io.Reader) (*Manifest, error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return nil, fmt.Errorf("read payload header: %w", truncated(err))
	}
	if string(h[:8]) != magic {
		return nil, fmt.Errorf("read payload header: expected magic %q, found %q: this is not a payload", magic, h[:8])
	}
	if v := binary.LittleEndian.Uint32(h[8:]); v != version {
		return nil, fmt.Errorf("read payload header: format version %d, this program reads %d: %w", v, version, ErrUnsupported)
	}
	size := binary.LittleEndian.Uint32(h[12:])
	if size > maxManifest {
		return nil, fmt.Errorf("read payload header: manifest of %d bytes, at most %d are allowed", size, maxManifest)
	}
	if !bytes.Equal(h[48:], make([]byte, 16)) {
		return nil, fmt.Errorf("read payload header: bytes 48 to 63 are not zero")
	}
	// Read in steps, so that a header that lies about the size costs no more memory than the input has.
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, int64(size)); err != nil {
		return nil, fmt.Errorf("read payload manifest: %w", truncated(err))
	}
	if got := digest.Of(b.Bytes()); got != digest.SHA256(h[16:48]) {
		return nil, fmt.Errorf("read payload manifest: expected sha256 %s, found %s: damaged", digest.SHA256(h[16:48]), got)
	}
	m, err := parseManifest(b.Bytes())
	if err != nil {
		return nil, fmt.Errorf("read payload manifest: %w", err)
	}
	m.digest = digest.Of(append(h[:], b.Bytes()...))
	return m, nil
}

func truncated(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A scanner takes fixed-size fields from the manifest; after the end it yields zeros and remembers.
type scanner struct {
	b     []byte
	short bool
}

func (s *scanner) take(n int) []byte {
	if len(s.b) < n {
		s.short, s.b = true, nil
		return make([]byte, n)
	}
	f := s.b[:n]
	s.b = s.b[n:]
	return f
}

func (s *scanner) uint8() uint8              { return s.take(1)[0] }
func (s *scanner) uint32() uint32            { return binary.LittleEndian.Uint32(s.take(4)) }
func (s *scanner) uint64() uint64            { return binary.LittleEndian.Uint64(s.take(8)) }
func (s *scanner) digest() (d digest.SHA256) { copy(d[:], s.take(digestSize)); return d }

var errShort = errors.New("it ends too early")

func parseManifest(b []byte) (*Manifest, error) {
	s := &scanner{b: b}
	m := &Manifest{Source: s.digest(), size: int64(len(b))}
	outputs := int(s.uint8())
	if s.short {
		return nil, errShort
	}
	if outputs < 1 || outputs > maxOutputs {
		return nil, fmt.Errorf("%d outputs, want 1 or %d", outputs, maxOutputs)
	}
	counts := make([]int, outputs)
	for i := range outputs {
		o := Output{Kind: Kind(s.uint8()), Size: int64(s.uint64()), SHA256: s.digest()}
		counts[i] = int(s.uint32())
		switch {
		case s.short:
			return nil, errShort
		case o.Kind != RootImage && o.Kind != BootProgram:
			return nil, fmt.Errorf("output %d: unknown kind %d: %w", i, uint8(o.Kind), ErrUnsupported)
		case i > 0 && o.Kind <= m.Outputs[i-1].Kind:
			return nil, fmt.Errorf("output %d: the %s cannot follow the %s", i, o.Kind, m.Outputs[i-1].Kind)
		case o.Size < 1 || o.Size > maxOutputSize:
			return nil, fmt.Errorf("%s: size of %d bytes is not from 1 to %d", o.Kind, o.Size, int64(maxOutputSize))
		case counts[i] < 1 || counts[i] > maxSegmentCount:
			return nil, fmt.Errorf("%s: %d segments, want 1 to %d", o.Kind, counts[i], maxSegmentCount)
		}
		m.Outputs = append(m.Outputs, o)
	}
	for i, n := range counts {
		if err := m.Outputs[i].parseSegments(s, n); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Outputs[i].Kind, err)
		}
	}
	if len(s.b) != 0 {
		return nil, fmt.Errorf("%d bytes behind the last segment", len(s.b))
	}
	return m, nil
}

func (o *Output) parseSegments(s *scanner, n int) error {
	left := o.Size
	for i := range n {
		seg := Segment{Op: Op(s.uint8())}
		if !s.short && seg.Op != Replace {
			return fmt.Errorf("segment %d: operation %s: %w", i, seg.Op, ErrUnsupported)
		}
		seg.Codec, seg.Length, seg.Stored, seg.SHA256 = Codec(s.uint8()), int64(s.uint32()), int64(s.uint32()), s.digest()
		if s.short {
			return errShort
		}
		if err := seg.check(); err != nil {
			return fmt.Errorf("segment %d: %w", i, err)
		}
		if left -= seg.Length; left < 0 {
			return fmt.Errorf("segment %d ends %d bytes behind the end of the output", i, -left)
		}
		o.Segments = append(o.Segments, seg)
	}
	if left != 0 {
		return fmt.Errorf("the segments leave the last %d bytes of %d open", left, o.Size)
	}
	return nil
}

func (s Segment) check() error {
	if s.Length < 1 || s.Length > MaxSegment {
		return fmt.Errorf("length of %d bytes is not from 1 to %d", s.Length, MaxSegment)
	}
	ok := false
	switch s.Codec {
	case Raw:
		ok = s.Stored == s.Length
	case Zstd:
		ok = s.Stored > 0 && s.Stored < s.Length
	case Zeros:
		ok = s.Stored == 0
	default:
		return fmt.Errorf("codec %d: %w", uint8(s.Codec), ErrUnsupported)
	}
	if !ok {
		return fmt.Errorf("blob of %d bytes for %d bytes with codec %d", s.Stored, s.Length, uint8(s.Codec))
	}
	return nil
}

// encode returns the header and the manifest.
func (m *Manifest) encode() []byte {
	b := append([]byte{}, m.Source[:]...)
	b = append(b, uint8(len(m.Outputs)))
	for _, o := range m.Outputs {
		b = append(b, uint8(o.Kind))
		b = binary.LittleEndian.AppendUint64(b, uint64(o.Size))
		b = append(b, o.SHA256[:]...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(o.Segments)))
	}
	for _, o := range m.Outputs {
		for _, s := range o.Segments {
			b = append(b, uint8(s.Op), uint8(s.Codec))
			b = binary.LittleEndian.AppendUint32(b, uint32(s.Length))
			b = binary.LittleEndian.AppendUint32(b, uint32(s.Stored))
			b = append(b, s.SHA256[:]...)
		}
	}
	sum := digest.Of(b)
	h := make([]byte, headerSize, headerSize+len(b))
	copy(h, magic)
	binary.LittleEndian.PutUint32(h[8:], version)
	binary.LittleEndian.PutUint32(h[12:], uint32(len(b)))
	copy(h[16:], sum[:])
	return append(h, b...)
}
