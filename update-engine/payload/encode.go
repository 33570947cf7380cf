package payload

import (
	"encoding/binary"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/proa-os/proa/internal/digest"
)

// encode returns the header and the packed manifest, and notes their size and digest. What it writes parseManifest reads.
func (m *Manifest) encode() ([]byte, error) {
	text := m.text()
	packed := text
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, err
	}
	defer e.Close()
	if z := e.EncodeAll(text, nil); len(z) < len(text) {
		packed = z
	}
	b := make([]byte, headerSize, headerSize+len(packed))
	sum := digest.Of(packed)
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], m.version())
	binary.LittleEndian.PutUint32(b[12:], uint32(len(packed)))
	copy(b[16:], sum[:])
	binary.LittleEndian.PutUint32(b[48:], uint32(len(text)))
	b = append(b, packed...)
	m.size, m.digest = int64(len(b)), digest.Of(b)
	return b, nil
}

// version is that of the oldest reader which can read the payload.
func (m *Manifest) version() uint32 {
	for _, o := range m.Outputs {
		if slices.ContainsFunc(o.Segments, func(s Segment) bool { return s.Op == Fit }) {
			return Version
		}
	}
	return firstVersion
}

func (m *Manifest) text() []byte {
	b := append([]byte{}, m.Source[:]...)
	b = binary.AppendUvarint(b, uint64(m.RootSize))
	b = append(b, m.Boot[:]...)
	b = binary.AppendUvarint(b, uint64(m.BootSize))
	b = append(b, uint8(len(m.Outputs)))
	for _, o := range m.Outputs {
		b = append(b, uint8(o.Kind))
		b = binary.AppendUvarint(b, uint64(o.Size))
		b = append(b, o.SHA256[:]...)
		b = binary.AppendUvarint(b, uint64(len(o.Runs)))
		b = binary.AppendUvarint(b, uint64(len(o.Segments)))
		b = appendRuns(b, o.Runs)
		c := newCursor(o.Runs)
		for _, s := range o.Segments {
			c.skipCopies()
			b = appendSegment(b, s, m.external(o.Kind)+c.at)
			c.skipMade(s.Length)
		}
	}
	return b
}

func appendRuns(b []byte, runs []Run) []byte {
	var shift int64
	for _, r := range runs {
		b = binary.AppendUvarint(b, uint64(r.Made))
		b = binary.AppendUvarint(b, uint64(r.Copied))
		if r.Copied > 0 {
			b = binary.AppendVarint(b, r.Shift-shift)
			shift = r.Shift
		}
	}
	return b
}

// appendSegment is told the source address of the segment's first byte in the output itself.
func appendSegment(b []byte, s Segment, self int64) []byte {
	b = append(b, uint8(s.Op)<<4|uint8(s.Streams[0].Codec))
	b = binary.AppendUvarint(b, uint64(s.Length))
	b = append(b, s.SHA256[:]...)
	if s.Op == Replace {
		b = appendStored(b, s.Streams[0])
		if s.Streams[0].Codec == Zstd {
			b = binary.AppendUvarint(b, uint64(s.Prefix.Length))
		}
		if s.Prefix.Length > 0 {
			b = binary.AppendVarint(b, s.Prefix.At+s.Prefix.Length-self)
		}
		return b
	}
	b = binary.AppendUvarint(b, uint64(s.Streams[0].Length))
	b = appendStored(b, s.Streams[0])
	b = append(b, uint8(s.Streams[1].Codec)|uint8(s.Streams[2].Codec)<<4)
	b = binary.AppendUvarint(b, uint64(s.Streams[1].Length))
	b = appendStored(b, s.Streams[1])
	return appendStored(b, s.Streams[2])
}

func appendStored(b []byte, s Stream) []byte {
	if s.Codec != Raw && s.Codec != Zeros {
		b = binary.AppendUvarint(b, uint64(s.Stored))
	}
	return b
}
