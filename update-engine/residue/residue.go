package residue

import "encoding/binary"

// A Place says where the next so many bytes of a stream are.
type Place struct {
	Length int
	At     int64 // address in the output
	Shift  int64 // source address less At
}

const (
	block   = 64
	outside = 4 // the place in an operand of what is in none
)

// A Model packs and unpacks streams, one after the other, in 6 MB of memory. It is not safe for concurrent use.
type Model struct {
	blocks       [256]chance
	quick        [1 << 16]chance
	flags, value *mixer
	exact, near  table
	state
}

// A chance is an adaptive probability of 16 bits.
type chance uint16

const seldom chance = 1 << 12

func (c chance) of4096() int { return int(max(c>>4, 1)) }

func (c *chance) learn(bit int) {
	if bit == 1 {
		*c += (65535 - *c) >> 5
	} else {
		*c -= *c >> 5
	}
}

// state is what is known of one stream.
type state struct {
	c       *coder
	old     []byte
	diff    []byte
	places  []Place
	behind  int     // index behind the first of the places
	history uint32  // of flags, the last one lowest
	last    uint32  // differences since the last one that is not zero
	recent  [5]byte // differences that are not zero, by their place in an operand
	operand operand
}

type operand struct {
	first             int // index of its first byte; -1 if there is none
	place, move, word uint32
}

// NewModel returns a model.
func NewModel() *Model {
	l := newLogistic()
	return &Model{
		flags: newMixer(l, 16, 100, 5*16), value: newMixer(l, 17, 60, 2*5*32),
		exact: newTable(16), near: newTable(12),
	}
}

// Encode packs the differences of bytes that are at the places to the old bytes there. The lengths of all three are the same.
func (m *Model) Encode(diff, old []byte, places []Place) []byte {
	c := newEncoder()
	m.run(c, diff, old, places)
	return c.end()
}

// Decode unpacks as many differences as there are old bytes.
func (m *Model) Decode(diff, packed, old []byte, places []Place) {
	m.run(newDecoder(packed), diff, old, places)
}

// Work is how many bits of the last stream needed all contexts: ten million of them are a second's work or so.
func (m *Model) Work() int { return m.flags.work + m.value.work }

func (m *Model) run(c *coder, diff, old []byte, places []Place) {
	for i := range m.blocks {
		m.blocks[i] = seldom
	}
	for i := range m.quick {
		m.quick[i] = seldom
	}
	m.flags.reset()
	m.value.reset()
	clear(m.exact.entries)
	clear(m.near.entries)
	m.state = state{c: c, old: old, diff: diff, places: places, operand: operand{first: -1}}
	if len(places) > 0 {
		m.behind = places[0].Length
	}
	var answers uint8
	for i := 0; i < len(diff); i += block {
		end := min(i+block, len(diff))
		bit := 0
		if !c.decoding && !isZero(diff[i:end]) {
			bit = 1
		}
		bit = c.code(bit, m.blocks[answers].of4096())
		m.blocks[answers].learn(bit)
		answers = answers<<1 | uint8(bit)
		if bit == 0 {
			clear(diff[i:end])
			m.skip(end - i)
			continue
		}
		for ; i < end; i++ {
			m.one(i)
		}
		i = end - block
	}
}

func isZero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// skip goes over n zeros.
func (m *Model) skip(n int) {
	if m.operand.first >= 0 {
		m.finish()
	}
	m.history = 0
	m.last += uint32(n)
}

// byteAt is an old byte, zero outside of the stream.
func (m *Model) byteAt(i int) uint32 {
	if i < 0 || i >= len(m.old) {
		return 0
	}
	return uint32(m.old[i])
}

// operandAt is the operand that begins at i.
func (m *Model) operandAt(i int) operand {
	for i >= m.behind && len(m.places) > 1 {
		m.places = m.places[1:]
		m.behind += m.places[0].Length
	}
	o := operand{first: i}
	if len(m.places) > 0 {
		p := m.places[0]
		o.move = uint32(p.Shift)
		o.place = uint32(p.At + p.Shift + int64(i-(m.behind-p.Length)))
	}
	if i+4 <= len(m.old) {
		o.word = binary.LittleEndian.Uint32(m.old[i:])
	} else {
		for k := range 4 {
			o.word |= m.byteAt(i+k) << (8 * k)
		}
	}
	return o
}

func (o operand) target() uint32 { return o.place + 4 + o.word }

// finish learns from an operand all of whose differences are known.
func (m *Model) finish() {
	o := m.operand
	m.operand.first = -1
	if o.first+4 > len(m.diff) {
		return
	}
	var changed uint32
	for k := range 4 {
		changed |= uint32(m.old[o.first+k]+m.diff[o.first+k]) << (8 * k)
	}
	moved := changed - o.word - o.move
	m.exact.learn(o.target(), moved)
	m.near.learn(o.target()>>12, moved)
}

// A guess is what both tables say of a difference.
type guess struct {
	exact, near           byte
	trustExact, trustNear uint32
}

// one codes difference i.
func (m *Model) one(i int) {
	o, in := m.operand, outside
	if o.first >= 0 {
		in = i - o.first
	} else {
		o = m.operandAt(i)
	}
	var g guess
	k := i - o.first
	g.exact, g.trustExact = m.exact.guess(o.target(), o.word, o.move, k, m.diff[o.first:i])
	g.near, g.trustNear = m.near.guess(o.target()>>12, o.word, o.move, k, m.diff[o.first:i])
	bit := 0
	if !m.c.decoding && m.diff[i] != 0 {
		bit = 1
	}
	bit = m.flag(bit, i, in, g)
	m.history = m.history<<1 | uint32(bit)
	m.last++
	if bit == 0 {
		m.diff[i] = 0
	} else {
		m.last = 0
		if in == outside {
			m.operand, in = o, 0
		}
		m.diff[i] = m.byte(i, in, g)
		m.recent[in] = m.diff[i]
	}
	if m.operand.first >= 0 && i-m.operand.first == 3 {
		m.finish()
	}
}

// flag codes the bit that says whether difference i is not zero. Nearly all are where nothing speaks for it.
func (m *Model) flag(bit, i, in int, g guess) int {
	quick := &m.quick[mix(uint32(in), m.byteAt(i-1)|m.byteAt(i-2)<<8)>>16]
	if p := quick.of4096(); in == outside && g.exact|g.near == 0 && p < 64 {
		bit = m.c.code(bit, p)
	} else {
		contexts, set := m.flagContexts(i, in, g)
		bit = m.flags.code(m.c, bit, &contexts, set)
	}
	quick.learn(bit)
	return bit
}

// flagContexts are those of the bit that says whether a difference is not zero.
func (m *Model) flagContexts(i, in int, g guess) ([contexts]uint32, int) {
	a := uint32(in)
	b0, b1, b2, b3 := m.byteAt(i), m.byteAt(i-1), m.byteAt(i-2), m.byteAt(i-3)
	set := in*16 + 2*bitOf(g.trustExact > 0) + bitOf(g.trustNear > 0)
	exact, near := uint32(bitOf(g.exact != 0)), uint32(bitOf(g.near != 0))
	set += 8*int(exact) + 4*int(near)
	return [contexts]uint32{
		mix(a, b0|b1<<8),
		mix(a, b1|b2<<8|b3<<16),
		mix(a, m.history&0xfff),
		mix(a, exact|near<<1|g.trustExact<<2|g.trustNear<<5|b1<<8),
		mix(a, min(m.last, 255)|b1<<8),
		mix(a, b0|m.byteAt(i+1)<<8|m.byteAt(i+2)<<16|m.byteAt(i+3)<<24),
	}, set
}

func bitOf(b bool) int {
	if b {
		return 1
	}
	return 0
}

// mix hashes a place in an operand and a context.
func mix(a, b uint32) uint32 {
	h := (b + 1) * golden
	h ^= h >> 15
	h = (h + a + 1) * 0x85ebca6b
	return h ^ h>>13
}

// byte codes the bits of difference i, which is not zero.
func (m *Model) byte(i, in int, g guess) byte {
	a := uint32(in)
	var before uint32
	if i > 0 {
		before = uint32(m.diff[i-1])
	}
	base := m.valueContexts(i, a, before, g)
	if g.exact != 0 {
		hit := m.value.code(m.c, bitOf(m.diff[i] == g.exact), &base, 5*32+in*32+8*int(g.trustExact-1)+4*bitOf(g.near == g.exact)+int(min(g.trustNear, 3)))
		if hit == 1 {
			return g.exact
		}
	}
	tree := uint32(1)
	for k := 7; k >= 0; k-- {
		var contexts [contexts]uint32
		for j, h := range base {
			h = (h + tree) * golden
			contexts[j] = h ^ h>>14
		}
		set := in * 32
		if g.exact != 0 && 1<<(7-k)|uint32(g.exact)>>(k+1) == tree {
			set += 16
		}
		if g.near != 0 && 1<<(7-k)|uint32(g.near)>>(k+1) == tree {
			set += 2
		}
		bit := int(m.diff[i]) >> k & 1
		tree = tree<<1 | uint32(m.value.code(m.c, bit, &contexts, set))
	}
	return byte(tree)
}

// valueContexts are those of the bits of a difference, to which the bits before in the byte are added.
func (m *Model) valueContexts(i int, a, before uint32, g guess) [contexts]uint32 {
	move := uint32(0)
	if len(m.places) > 0 {
		move = uint32(m.places[0].Shift)
	}
	return [contexts]uint32{
		mix(0, uint32(g.exact)|g.trustExact<<8),
		mix(a, uint32(g.near)|g.trustNear<<8),
		mix(a, uint32(m.recent[a])),
		mix(a, before),
		mix(a+8, m.byteAt(i)+move<<8),
		mix(a, move),
	}
}
