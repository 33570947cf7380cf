package gunzip

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// A stream is a member made symbol by symbol, which no compressor can be asked for.
type stream struct {
	b    []byte
	bits uint64
	n    uint
	text []byte
}

func newStream() *stream { return &stream{b: []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0}} }

// put writes the lowest n bits.
func (s *stream) put(v uint64, n uint) {
	s.bits |= v << s.n
	for s.n += n; s.n >= 8; s.n -= 8 {
		s.b = append(s.b, byte(s.bits))
		s.bits >>= 8
	}
}

// code writes a Huffman code, whose highest bit comes first.
func (s *stream) code(v uint16, n uint) { s.put(uint64(bits.Reverse16(v)>>(16-n)), n) }

// store writes stored blocks.
func (s *stream) store(text []byte) {
	for len(text) > 0 {
		piece := text[:min(len(text), 1<<16-1)]
		s.put(0, 3)
		s.put(0, -s.n&7)
		s.b = binary.LittleEndian.AppendUint16(s.b, uint16(len(piece)))
		s.b = binary.LittleEndian.AppendUint16(s.b, ^uint16(len(piece)))
		s.b, s.text, text = append(s.b, piece...), append(s.text, piece...), text[len(piece):]
	}
}

// Within a block of the fixed code (RFC 1951, 3.2.6): literals of eight bits, copies of 258 bytes.

func (s *stream) begin() { s.put(1<<1, 3) }
func (s *stream) stop()  { s.code(0, 7) }

func (s *stream) literal(c byte) {
	s.code(0x30+uint16(c), 8) // c is below 144
	s.text = append(s.text, c)
}

// copy writes a copy from 1 to 4, or 7 or 8, bytes before.
func (s *stream) copy(distance int) {
	s.code(0xc0+285-280, 8)
	if distance <= 4 {
		s.code(uint16(distance-1), 5)
	} else {
		s.code(5, 5)
		s.put(uint64(distance-7), 1)
	}
	for range 258 {
		s.text = append(s.text, s.text[len(s.text)-distance])
	}
}

func (s *stream) end() []byte {
	s.put(1, 3) // the last block: stored, of nothing
	s.put(0, -s.n&7)
	s.b = append(s.b, 0, 0, 0xff, 0xff)
	s.b = binary.LittleEndian.AppendUint32(s.b, crc32.ChecksumIEEE(s.text))
	return binary.LittleEndian.AppendUint32(s.b, uint32(len(s.text)))
}

// TestLastRound: a round of fast that begins with room for one byte puts out literals and a copy, and must find room for all.
func TestLastRound(t *testing.T) {
	for before := outSize - 4; before <= outSize; before++ {
		for literals := range 5 {
			for _, distance := range []int{1, 3, 7, 8} {
				s := newStream()
				s.store(bytes.Repeat([]byte("0123456789"), outSize)[:before])
				s.begin()
				for range literals {
					s.literal('x')
				}
				s.copy(distance)
				s.stop()
				s.store(make([]byte, 100)) // fast wants input behind it
				s.check(t)
			}
		}
	}
}

// check compares what is read with what was meant, and with compress/gzip.
func (s *stream) check(t *testing.T) {
	t.Helper()
	b := s.end()
	if got, err := unpack(bytes.NewReader(b)); err != nil || !bytes.Equal(got, s.text) {
		t.Errorf("%d bytes of %d, %v", len(got), len(s.text), err)
	}
	same(t, b)
}

// long makes a stream of several times what out holds, of stored blocks and such of the fixed code.
func long(r *rand.Rand) *stream {
	s := newStream()
	s.store([]byte("begins so"))
	for len(s.text) < 4*outSize {
		if r.IntN(50) == 0 {
			s.store(bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(outSize)))
		}
		s.begin()
		for range r.IntN(400) {
			if r.IntN(4) == 0 {
				s.copy([]int{1, 2, 3, 4, 7, 8}[r.IntN(6)])
			} else {
				s.literal(byte(r.IntN(144)))
			}
		}
		s.stop()
	}
	return s
}

// TestLong: wherever the symbols lie as out gets full.
func TestLong(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		long(r).check(t)
	}
}
