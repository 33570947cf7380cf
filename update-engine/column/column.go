// Package column foretells the numbers in tables of a program by how the numbers before them have changed: for the diff streams of
// payloads, of kernel modules above all, half of which are relocations, symbols and types.
//
//	old records ─▶ where the same number led to, or one nearby ─▶ forecast ─▶ what differs from it ─▶ diff stream, nearly all zeros
//
// When a function grows, every record that leads to something behind it changes, and all by the same number. A general packer sees a thousand
// differences, and this package one. It learns while it reads and guesses nothing that it was not shown in the same stream; it does not look at
// what file the records are of. Which bytes are records, the writer of a payload says (Range); a wrong range costs bytes, never correctness.
//
// # The numbers
//
// All are little-endian. Each has a forecast of by how much it has changed, its move, which has 32 bits and a sign. What is stored in its place is
// the move less the forecast, as a zigzag number (2n, or -2n-1 if n is negative) of the number's own width. Other bytes of a record, the type of a
// relocation and the size of a symbol among them, are as they are in a diff stream.
//
//	Words     one number of 4 bytes
//	Rela      offset (8): as the record before it in the range; bytes 12 to 15, the symbol; addend (16 to 23): a place of that symbol
//	Symbol    name (4): as the record before it in the range; bytes 4 to 7, section and kind; value (8 to 15): a place of the section
//	Version   the first 4 bytes, as of Words
//
// There are five tables of moves, all of them empty when a stream begins: of words, of blocks of 32 words, and of places, of 16 and of 128 places. A
// word's forecast is the move of the same word, else the last one in its block that was not zero, else none. A place has an owner: the number of
// a symbol that its relocation has, or for the offset of a relocation the Target of the range; numbers from 2^31 on are owners of the symbols, of the sections, and from
// 2^31 + 2 on of the places in sections. Its forecast is the move of the same place of that owner and file, else of the last one among the
// 16, else the 128 around it, else that in the same column of the record before it. An entry is found by the highest bits of its key times 0x9e3779b1, and a new
// key replaces the old one.
//
// Unpack and Pack cannot fail: whoever calls them sees to it that ranges are in the stream, and compares a hash.
package column

import "encoding/binary"

// Kind says what the records of a range are.
type Kind uint8

// The kinds, and the bytes of a record.
const (
	Words   Kind = 0 // 4: a number that names something, such as a type of BTF
	Rela    Kind = 1 // 24: Elf64_Rela
	Symbol  Kind = 2 // 24: Elf64_Sym
	Version Kind = 3 // 64: struct modversion_info
	kinds        = 4
)

// Size is the bytes of a record, zero if there is no such kind.
func (k Kind) Size() int {
	if k >= kinds {
		return 0
	}
	return [kinds]int{4, 24, 24, 64}[k]
}

// A Range is records that follow each other in a stream of differences.
type Range struct {
	At, Count int // index of the first byte, and number of records
	Kind      Kind
	First     bool   // what was learnt of the places and symbols of another file is of no use from here on
	Target    uint32 // of Rela: number of the symbol that stands for the section which the offsets lead into
}

// End is the index behind the last record.
func (r Range) End() int { return r.At + r.Count*r.Kind.Size() }

// A Predictor is used for one stream after the other. It is not safe for concurrent use. It takes a megabyte of memory.
type Predictor struct {
	places, regions, wide, words, blocks table
	file                                 uint32
	last                                 [columns]uint32 // how far a column's number was moved in the record before
	unpack                               bool
}

// New returns a predictor.
func New() *Predictor {
	return &Predictor{places: newTable(15), regions: newTable(15), wide: newTable(13), words: newTable(15), blocks: newTable(12)}
}

// Pack replaces the differences in ranges of a stream by what a prediction leaves of them. old is what was subtracted.
func (p *Predictor) Pack(diff, old []byte, ranges []Range) { p.run(diff, old, ranges, false) }

// Unpack undoes Pack. The ranges must be inside the stream.
func (p *Predictor) Unpack(diff, old []byte, ranges []Range) { p.run(diff, old, ranges, true) }

func (p *Predictor) run(diff, old []byte, ranges []Range, unpack bool) {
	p.unpack, p.file = unpack, 0
	for _, t := range []*table{&p.places, &p.regions, &p.wide, &p.words, &p.blocks} {
		clear(t.entries)
	}
	for _, r := range ranges {
		p.last = [columns]uint32{}
		if r.First {
			p.file++
		}
		size := r.Kind.Size()
		for at := r.At; at < r.At+r.Count*size; at += size {
			d, o := diff[at:at+size], old[at:at+size]
			switch r.Kind {
			case Words:
				p.word(d, o)
			case Rela:
				p.rela(d, o, r.Target)
			case Symbol:
				p.symbol(d, o)
			case Version:
				p.word(d[:4], o[:4])
			}
		}
	}
}

// The columns of records that have some.
const (
	offset = iota
	info
	addend
	name
	section
	value
	columns
)

var le = binary.LittleEndian

// word is a number that is the same in every file, which may stand for itself.
func (p *Predictor) word(d, o []byte) {
	v := le.Uint32(o)
	move, ok := p.words.get(v)
	if !ok {
		move, _ = p.blocks.get(v >> 5)
	}
	move = p.code32(d, v, move)
	p.words.set(v, move)
	if move != 0 {
		p.blocks.set(v>>5, move)
	}
}

// place predicts how far a number that leads into the section of a symbol has moved.
func (p *Predictor) place(symbol, v uint32, column int) uint32 {
	if move, ok := p.places.get(p.key(symbol, v)); ok {
		return move
	}
	if move, ok := p.regions.get(p.key(symbol, v>>4) + 1); ok {
		return move
	}
	if move, ok := p.wide.get(p.key(symbol, v>>7) + 2); ok {
		return move
	}
	return p.last[column]
}

func (p *Predictor) learn(symbol, v, move uint32, column int) {
	p.places.set(p.key(symbol, v), move)
	p.regions.set(p.key(symbol, v>>4)+1, move)
	p.wide.set(p.key(symbol, v>>7)+2, move)
	p.last[column] = move
}

// key mixes the file, a symbol and a number.
func (p *Predictor) key(symbol, v uint32) uint32 {
	h := (p.file+1)*0x85ebca6b ^ (symbol+1)*0xc2b2ae35
	return h ^ h>>15 ^ v
}

const symbols = 1 << 31 // stands for the table of symbols where a section's symbol would

func (p *Predictor) rela(d, o []byte, target uint32) {
	at := uint32(le.Uint64(o))
	move := p.code64(d, o, p.last[offset])
	p.learn(target, at, move, offset)

	symbol := le.Uint32(o[12:])
	move = p.code32(d[12:], symbol, p.place(symbols, symbol, info))
	p.learn(symbols, symbol, move, info)
	// The type is left as it is: it is the same, or it is another relocation.
	v := uint32(le.Uint64(o[16:]))
	move = p.code64(d[16:], o[16:], p.place(symbol, v, addend))
	p.learn(symbol, v, move, addend)
}

func (p *Predictor) symbol(d, o []byte) {
	v := le.Uint32(o)
	p.last[name] = p.code32(d, v, p.last[name])
	sections := uint32(symbols + 1)
	s := uint32(le.Uint16(o[6:]))
	which := le.Uint32(o[4:])
	p.last[section] = p.code32(d[4:], which, p.place(sections, which, section))
	p.learn(sections, which, p.last[section], section)
	v = uint32(le.Uint64(o[8:]))
	move := p.code64(d[8:], o[8:], p.place(sections+1+s, v, value))
	p.learn(sections+1+s, v, move, value)
}

// code32 codes the difference of a number to the old one, given a guess, and returns it.
func (p *Predictor) code32(d []byte, old, guess uint32) (move uint32) {
	if p.unpack {
		rest := le.Uint32(d)
		move = guess + (rest>>1 ^ -(rest & 1))
		put(d, uint64(old), uint64(old+move), 4)
		return move
	}
	move = join(d, old)
	rest := int32(move - guess)
	le.PutUint32(d, uint32(rest<<1)^uint32(rest>>31))
	return move
}

// code64 is code32 for numbers of 64 bits which hardly move further than 31 of them say.
func (p *Predictor) code64(d, o []byte, guess uint32) (move uint32) {
	old, want := le.Uint64(o), int64(int32(guess))
	if p.unpack {
		rest := le.Uint64(d)
		moved := want + int64(rest>>1^-(rest&1))
		put(d, old, old+uint64(moved), 8)
		return uint32(moved)
	}
	var b [8]byte
	for i := range b {
		b[i] = o[i] + d[i]
	}
	moved := int64(le.Uint64(b[:]) - old)
	rest := moved - want
	le.PutUint64(d, uint64(rest<<1)^uint64(rest>>63))
	return uint32(moved)
}

// join returns by how much a number has grown whose bytes have grown by those of d.
func join(d []byte, old uint32) uint32 {
	var b [4]byte
	for i := range b {
		b[i] = byte(old>>(8*i)) + d[i]
	}
	return le.Uint32(b[:]) - old
}

// put writes by how much the bytes of a number differ.
func put(d []byte, old, changed uint64, n int) {
	for i := range n {
		d[i] = byte(changed>>(8*i)) - byte(old>>(8*i))
	}
}

// A table remembers the latest value of keys; another key may take the place of one.
type table struct {
	bits    int
	entries []entry
}

type entry struct{ key, move uint32 }

func newTable(bits int) table { return table{bits, make([]entry, 1<<bits)} }

func (t *table) at(key uint32) *entry { return &t.entries[key*0x9e3779b1>>(32-t.bits)] }

func (t *table) get(key uint32) (move uint32, ok bool) {
	e := t.at(key)
	return e.move, e.key == key+1
}

func (t *table) set(key, move uint32) { *t.at(key) = entry{key + 1, move} }
