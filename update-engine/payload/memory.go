package payload

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// memory is where segments are made: room for the longest prefix, and behind it for the longest segment. What a segment made stays there, with
// the prefix before it, and is where the next one of a full payload finds its prefix without reading it back. A DIFF
// has no prefix and unpacks its streams there; what it adds to them lies where it makes the segment afterwards. A zstd frame of a REPLACE is
// unpacked onto itself: it lies at the end, where what it makes gets to when it is used up.
type memory struct {
	b     []byte
	room  int64 // for prefixes, or what a DIFF unpacks
	end   int64 // source address of the end of what is kept, in the output itself
	kept  int64 // where that end is in b
	known int64 // bytes that are kept before it
}

// free gives it back to the kernel. Nobody may use any of it afterwards.
func (m *memory) free() error {
	if m.b == nil {
		return nil
	}
	return unix.Munmap(m.b[:cap(m.b)])
}

func (m *memory) forget() { m.end, m.kept, m.known = 0, 0, 0 }

// made is where the next segment of n bytes is made.
func (m *memory) made(n int64) []byte { return m.b[m.room : m.room+n] }

// idle is what nobody needs before a segment is made: all of where that will be.
func (m *memory) idle() []byte { return m.b[m.room:] }

// inPlace is how much longer than a segment the place must be where a frame is unpacked onto itself: a block of zstd, and what is more in a frame
// than in the bytes it stands for, if it is larger. A frame that keeps to less overwrites itself, and what it makes is not what is signed.
const inPlace = maxBlock + 4<<10

// last is where a frame of n bytes lies that is unpacked onto itself.
func (m *memory) last(n int64) []byte { return m.b[int64(len(m.b))-n:] }

// scratch is n bytes besides. What was kept is gone.
func (m *memory) scratch(n int64) []byte {
	m.forget()
	return m.b[:n]
}

// keep remembers that n bytes were made, at a source address of the output.
func (m *memory) keep(at, n int64) {
	if m.end != at {
		m.known = 0
	}
	m.end, m.kept, m.known = at+n, m.room+n, m.known+n
}

// settle moves what is kept to where a prefix ends: a segment without one is made behind it.
func (m *memory) settle() {
	if m.kept == m.room {
		return
	}
	m.known = min(m.known, m.room)
	copy(m.b[m.room-m.known:m.room], m.b[m.kept-m.known:m.kept])
	m.kept = m.room
}

// behind is where a prefix and a segment are unpacked, behind each other. The decoder writes a block without counting bytes if it may write behind it.
func (m *memory) behind(prefix, n int64) []byte {
	return m.b[m.room-prefix : m.room+n : m.room+n+inPlace]
}

const (
	maxBlock    = 128 << 10 // RFC 8878, section 3.1.1.2.4
	blockHeader = 3
	frameStart  = 9
)

// prefixed returns a frame of the prefix r, in blocks that are not packed, and n more bytes. For the latter, whose blocks the caller knows, there is
// room for stored bytes at the end. For the decoder the prefix is then not a dictionary, with which it takes twice as long.
func (m *memory) prefixed(r Range, n, stored int64, s space) ([]byte, error) {
	blocks := (r.Length + maxBlock - 1) / maxBlock
	end := int64(len(m.b)) - stored
	begin := end - r.Length - blocks*blockHeader
	place := func(i int64) []byte {
		at := begin + i*(blockHeader+maxBlock) + blockHeader
		return m.b[at:min(at+maxBlock, end)]
	}
	near := m.end == r.At+r.Length
	if near && m.known >= r.Length {
		from := m.kept - r.Length
		moves := func(i int64) int64 { return begin + (i+1)*blockHeader - from } // so far up
		for i := blocks - 1; i >= 0 && moves(i) > 0; i-- {
			copy(place(i), m.b[from+i*maxBlock:])
		}
		for i := int64(0); i < blocks && moves(i) <= 0; i++ {
			copy(place(i), m.b[from+i*maxBlock:])
		}
	} else {
		for i := range blocks {
			if err := s.read(place(i), r.At+i*maxBlock); err != nil {
				m.forget()
				return nil, err
			}
		}
	}
	for i := range blocks { // Not before: they lie where others were.
		at := begin + i*(blockHeader+maxBlock)
		head := uint32(len(place(i))) << 3 // raw, not the last one
		m.b[at], m.b[at+1], m.b[at+2] = byte(head), byte(head>>8), byte(head>>16)
	}
	head := m.b[begin-frameStart : begin]
	binary.LittleEndian.PutUint32(head, 0xfd2fb528)
	head[4] = 0xa0 // a single segment, whose length has four bytes
	binary.LittleEndian.PutUint32(head[5:], uint32(r.Length+n))
	m.end, m.kept, m.known = r.At+r.Length, m.room, r.Length // when it is unpacked
	return m.b[begin-frameStart:], nil
}
