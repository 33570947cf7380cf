package payload

import (
	"errors"
	"fmt"

	"github.com/proa-os/proa/internal/digest"
)

// Limits of the format: what a reader needs memory for is bounded by them.
const (
	// MaxSegment is the greatest number of made bytes in a segment.
	MaxSegment = 4 << 20
	// MaxPrefix is the greatest length in bytes of the prefix of a zstd frame.
	MaxPrefix = 11 << 20

	maxManifest   = 2 << 20
	maxOutputs    = 2
	maxOutputSize = 16 << 30
	maxSourceSize = 16 << 30
	maxRuns       = 1 << 16
	maxSegments   = 1 << 13
	maxControl    = 1 << 20
	maxZstdWindow = 16 << 20
)

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

// Op says what makes the bytes of a segment. What is copied needs no segment: it is a run's.
type Op uint8

// The operations of segments.
const (
	Diff    Op = 2 // bytes of a source with differences, and new ones between
	Replace Op = 3 // new bytes
	Fit     Op = 4 // Diff, but the differences of records are to what package column predicts of them; since version 3
)

// differs reports whether segments of the operation have three streams.
func (o Op) differs() bool { return o == Diff || o == Fit }

func (o Op) String() string {
	switch o {
	case Diff:
		return "DIFF"
	case Replace:
		return "REPLACE"
	case Fit:
		return "FIT"
	}
	return fmt.Sprintf("number %d", uint8(o))
}

// Codec says how a stream is packed.
type Codec uint8

// The codecs.
const (
	Raw   Codec = 0
	Zstd  Codec = 1
	Bzip2 Codec = 2
	Zeros Codec = 3
	// Residue is for diff streams only: package residue looks at the source's bytes, too.
	Residue Codec = 4
)

func (c Codec) String() string {
	switch c {
	case Raw:
		return "raw"
	case Zstd:
		return "zstd"
	case Bzip2:
		return "bzip2"
	case Zeros:
		return "zeros"
	case Residue:
		return "residue"
	}
	return fmt.Sprintf("codec %d", uint8(c))
}

// ErrUnsupported is wrapped by errors about a payload that is well formed, but for a newer reader.
var ErrUnsupported = errors.New("not supported by this version: take the full payload, or update in smaller steps")

// ErrDamaged is wrapped by errors about bytes that cannot be those of the payload: whoever sent them has changed them.
var ErrDamaged = errors.New("damaged")

// damage marks an error as one of the bytes that came.
type damage struct{ error }

func (d damage) Unwrap() error        { return d.error }
func (d damage) Is(target error) bool { return target == ErrDamaged }

func damaged(err error) error {
	if err == nil {
		return nil
	}
	return damage{err}
}

// ErrSource is wrapped by errors about a delta whose sources are not those of this machine.
var ErrSource = errors.New("this delta is for another source: take the full payload")

// A Manifest is what a payload holds, before its blobs.
type Manifest struct {
	Source   digest.SHA256 // root hash of the root image that must be running; zero in a full payload
	RootSize int64         // bytes of that root image, without its tree
	Boot     digest.SHA256 // of the boot program that must have started it
	BootSize int64         // bytes
	Outputs  []Output      // in the order of their blobs, kinds ascending

	size   int64         // bytes of header and packed manifest
	digest digest.SHA256 // of them
}

// An Output is one of the two things that a payload makes.
type Output struct {
	Kind     Kind
	Size     int64 // bytes
	SHA256   digest.SHA256
	Runs     []Run
	Segments []Segment // of the made bytes of the runs
}

// A Run is a part of an output: made bytes, then copied ones.
type Run struct {
	Made, Copied int64 // bytes
	Shift        int64 // source address of the copied bytes, less their address in the output
}

// A Segment is a part of the made bytes of an output and what makes it.
type Segment struct {
	Op      Op
	Length  int64         // made bytes
	SHA256  digest.SHA256 // of them
	Streams [3]Stream     // DIFF: control, diff, extra; REPLACE: the first only
	Prefix  Range         // of the stream of a REPLACE
}

// A Stream is a packed part of a segment.
type Stream struct {
	Codec  Codec
	Length int64 // bytes it unpacks to
	Stored int64 // bytes of the payload
}

// A Range is a part of the source address space of an output.
type Range struct{ At, Length int64 }

// Stored is the length in bytes of the segment's blob.
func (s Segment) Stored() int64 {
	return s.Streams[0].Stored + s.Streams[1].Stored + s.Streams[2].Stored
}

// Made is the number of bytes of an output that its segments make; the others are copied.
func (o Output) Made() int64 {
	var n int64
	for _, r := range o.Runs {
		n += r.Made
	}
	return n
}

// Size is the length in bytes of the whole payload.
func (m *Manifest) Size() int64 {
	n := m.size
	for _, o := range m.Outputs {
		for _, s := range o.Segments {
			n += s.Stored()
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

// external is how many bytes of source address space an output has before itself.
func (m *Manifest) external(k Kind) int64 {
	if k == RootImage {
		return m.RootSize
	}
	n := m.BootSize
	if root := m.Output(RootImage); root != nil {
		n += root.Size
	}
	return n
}

// blob returns where in the payload the blob of segment i of an output begins; for the number of segments, where the last one ends.
func (m *Manifest) blob(k Kind, i int) int64 {
	at := m.size
	for _, o := range m.Outputs {
		segments := o.Segments
		if o.Kind == k {
			segments = segments[:i]
		}
		for _, s := range segments {
			at += s.Stored()
		}
		if o.Kind == k {
			break
		}
	}
	return at
}
