// Package bunzip2 unpacks bzip2: what machines read of payloads. Streams of differences are nearly all zeros, on which compress/bzip2 spends
// most of its time; it also takes its memory anew for each stream.
//
//	Huffman codes ─▶ symbols ─▶ moved to front ─▶ linked in their order (Burrows-Wheeler) ─▶ runs lengthened ─▶ bytes
//
// It reads what Seward's bzip2 1.0 writes; package bzip2 describes the format and packs.
package bunzip2

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	highest   = 9       // level
	step      = 100_000 // bytes of a block for each level
	groupSize = 50      // symbols that share a code
	minCodes  = 2
	maxCodes  = 6
	longest   = 20 // bits of a code; the reference writes 17

	runB = 1 // the higher one of the two digits of a number of zeros

	blockMagic = 0x314159265359 // pi
	endMagic   = 0x177245385090 // its root
)

var le = binary.LittleEndian

// Errors of Unpack.
var (
	errDamaged = errors.New("unpack bzip2: damaged")
	errShort   = errors.New("unpack bzip2: it ends too early")
	errLong    = errors.New("unpack bzip2: more")
	errBehind  = errors.New("unpack bzip2: bytes behind the end of the stream")
)

// An Unpacker unpacks streams, one after the other. Its zero value is ready. It is not safe for concurrent use.
type Unpacker struct {
	in    bitReader
	level int
	own   []byte
	list  []byte // of a block's bytes, four each: in the lowest eight bits one of them, above the place of the next
	codes [maxCodes]code
	order []uint8 // which of the codes each group has
	bytes [256]uint8
}

// Unpack fills out with what the one stream in packed holds; it is an error if that is more or less. It takes streams as Pack and other programs
// make them, but for the randomised blocks of versions before 0.9.5. The checksums are not looked at: whoever calls it compares a hash. A long run
// costs hardly more than its first bytes, which makes it several times as fast as compress/bzip2 where nearly all is zero.
//
// It needs four bytes of memory for each byte of the level's block. They are those of work, if that has as many and nobody else needs it
// meanwhile; otherwise the Unpacker takes some and keeps them.
func (u *Unpacker) Unpack(out, packed, work []byte) error {
	u.in = bitReader{b: packed}
	if head := u.in.bits(24); head != 'B'<<16|'Z'<<8|'h' {
		return errDamaged
	}
	u.level = int(u.in.bits(8)) - '0'
	if u.level < 1 || u.level > highest {
		return errDamaged
	}
	need := u.level * step * 4
	if len(work) < need {
		if len(u.own) < need {
			u.own = make([]byte, need)
		}
		work = u.own
	}
	u.list = work[:need]
	rest := out
	for {
		magic := u.in.bits(24) << 24
		magic |= u.in.bits(24)
		u.in.bits(32) // a checksum
		switch {
		case u.in.left() < 0:
			return errShort
		case magic == endMagic && len(rest) > 0:
			return fmt.Errorf("unpack bzip2: %d bytes, expected %d", len(out)-len(rest), len(out))
		case magic == endMagic && u.in.left() >= 8:
			return errBehind
		case magic == endMagic:
			return nil
		case magic != blockMagic:
			return errDamaged
		}
		var err error
		if rest, err = u.block(rest); err == errLong {
			return fmt.Errorf("%w than the %d bytes of the stream", err, len(out))
		} else if err != nil {
			return err
		}
	}
}

// block unpacks a block into the beginning of out, and returns the rest of that.
func (u *Unpacker) block(out []byte) ([]byte, error) {
	if u.in.bits(1) != 0 {
		return nil, errDamaged
	}
	origin := int(u.in.bits(24))
	used := u.used()
	if used == 0 || !u.tables(used+2) {
		return nil, u.damage()
	}
	n, ok := u.symbols(used)
	if !ok || origin >= n {
		return nil, u.damage()
	}
	return lengthen(out, u.list[:4*n], le.Uint32(u.list[4*origin:])>>8)
}

// damage is what is wrong if anything is.
func (u *Unpacker) damage() error {
	if u.in.left() < 0 {
		return errShort
	}
	return errDamaged
}

// used reads which bytes occur into the list of bytes, and returns how many.
func (u *Unpacker) used() (n int) {
	rows := u.in.bits(16)
	for row := range 16 {
		if rows>>(15-row)&1 == 0 {
			continue
		}
		word := u.in.bits(16)
		for i := range 16 {
			if word>>(15-i)&1 == 1 {
				u.bytes[n] = uint8(row*16 + i)
				n++
			}
		}
	}
	return n
}

// tables reads the codes, and which group has which.
func (u *Unpacker) tables(alphabet int) bool {
	n, groups := int(u.in.bits(3)), int(u.in.bits(15))
	if n < minCodes || n > maxCodes || groups == 0 {
		return false
	}
	front := [maxCodes]uint8{0, 1, 2, 3, 4, 5}
	u.order = u.order[:0]
	for range groups {
		place := 0
		for u.in.bits(1) == 1 {
			if place++; place >= n {
				return false
			}
		}
		which := front[place]
		copy(front[1:place+1], front[:place])
		front[0] = which
		u.order = append(u.order, which)
	}
	for i := range n {
		var lengths [258]uint8
		length := int(u.in.bits(5))
		for s := range alphabet {
			for u.in.bits(1) == 1 {
				length += 1 - 2*int(u.in.bits(1))
				if length < 1 || length > longest {
					return false
				}
			}
			if length < 1 || length > longest {
				return false
			}
			lengths[s] = uint8(length)
		}
		if !u.codes[i].set(lengths[:alphabet]) {
			return false
		}
	}
	return u.in.left() >= 0
}

// symbols reads a block's symbols, undoes moving to the front, and links the bytes in their order. It returns how many there are.
func (u *Unpacker) symbols(used int) (n int, ok bool) {
	limit := u.level * step
	var counts [256]uint32
	run, digit := 0, 1 // of zeros, which is being read
	for group := 0; ; group++ {
		if group >= len(u.order) {
			return 0, false
		}
		c := &u.codes[u.order[group]]
		if u.in.left() < 0 {
			return 0, false
		}
		for range groupSize {
			s := c.next(&u.in)
			if s <= runB {
				if run += digit << s; run > limit-n {
					return 0, false
				}
				digit <<= 1
				continue
			}
			if run > 0 {
				b := u.bytes[0]
				counts[b] += uint32(run)
				for end := n + run; n < end; n++ {
					le.PutUint32(u.list[4*n:], uint32(b))
				}
				run, digit = 0, 1
			}
			if s == used+1 {
				u.link(n, &counts)
				return n, u.in.left() >= 0
			}
			if s > used || n >= limit {
				return 0, false
			}
			b := u.bytes[s-1]
			copy(u.bytes[1:s], u.bytes[:s-1])
			u.bytes[0] = b
			counts[b]++
			le.PutUint32(u.list[4*n:], uint32(b))
			n++
		}
	}
}

// link writes above each byte the place of the one that follows it.
func (u *Unpacker) link(n int, counts *[256]uint32) {
	var sum uint32
	for b, c := range counts {
		counts[b] = sum
		sum += c
	}
	for i := range n {
		b := u.list[4*i]
		to := u.list[4*counts[b]:]
		le.PutUint32(to, uint32(to[0])|uint32(i)<<8)
		counts[b]++
	}
}

// lengthen writes the bytes of a list from a place on, and after four equal ones as many more as the next one says. It returns what is
// left of out.
func lengthen(out, list []byte, at uint32) ([]byte, error) {
	equal, last := 0, -1
	for range len(list) / 4 {
		v := le.Uint32(list[4*at:])
		at = v >> 8
		b := byte(v)
		if equal == 4 {
			if int(b) > len(out) {
				return nil, errLong
			}
			fill(out[:b], byte(last))
			out = out[b:]
			equal, last = 0, -1
			continue
		}
		if len(out) == 0 {
			return nil, errLong
		}
		out[0] = b
		out = out[1:]
		if int(b) != last {
			equal, last = 0, int(b)
		}
		equal++
	}
	return out, nil
}

func fill(b []byte, v byte) {
	if v == 0 {
		clear(b)
		return
	}
	for i := range b {
		b[i] = v
	}
}

// quick is how many bits of a code are looked up at once.
const quick = 10

// A code says which symbol bits stand for.
type code struct {
	table [1 << quick]uint16  // symbol, and above it the bits, of which there are at most quick; 0 if there are more
	limit [longest + 2]uint32 // behind the last code of each length, with longest bits
	first [longest + 2]int32  // what is to be added to a code of each length to get its place in syms
	syms  [258]uint16         // in the order of their codes
}

// set makes a code of the lengths for each symbol; it is false if there are more codes than bits for them.
func (c *code) set(lengths []uint8) bool {
	clear(c.table[:])
	var next, place uint32
	for n := uint8(1); n <= longest; n++ {
		c.first[n] = int32(place) - int32(next)
		for s, l := range lengths {
			if l != n {
				continue
			}
			if next >= 1<<n {
				return false
			}
			if n <= quick {
				for i := range uint32(1) << (quick - n) {
					c.table[next<<(quick-n)|i] = uint16(s) | uint16(n)<<9
				}
			}
			c.syms[place] = uint16(s)
			place++
			next++
		}
		c.limit[n] = next << (longest - n)
		next <<= 1
	}
	return true
}

// next reads a symbol; bits that are no code are one behind all of them.
func (c *code) next(in *bitReader) int {
	v := in.peek()
	if t := c.table[v>>(longest-quick)]; t != 0 {
		in.skip(uint(t >> 9))
		return int(t & 511)
	}
	for n := quick + 1; n <= longest; n++ {
		if v < c.limit[n] {
			in.skip(uint(n))
			return int(c.syms[int32(v>>(longest-n))+c.first[n]])
		}
	}
	return len(c.syms)
}

// A bitReader reads bits, the highest first. Behind the end there are zeros.
type bitReader struct {
	b    []byte
	at   int // next byte to be held
	held uint64
	n    uint // bits held
}

// left is how many bits were not read; it is negative if some were that are not there.
func (r *bitReader) left() int { return (len(r.b)-r.at)*8 + int(r.n) }

func (r *bitReader) fill() {
	for ; r.n <= 56; r.n += 8 {
		var v byte
		if r.at < len(r.b) {
			v = r.b[r.at]
		}
		r.at++
		r.held = r.held<<8 | uint64(v)
	}
}

// bits reads n bits, at most 32.
func (r *bitReader) bits(n uint) uint64 {
	if r.n < n {
		r.fill()
	}
	r.n -= n
	return r.held >> r.n & (1<<n - 1)
}

// peek returns the next bits, as many as a code has at most; skip goes behind n of them.
func (r *bitReader) peek() uint32 {
	if r.n < longest {
		r.fill()
	}
	return uint32(r.held>>(r.n-longest)) & (1<<longest - 1)
}

func (r *bitReader) skip(n uint) { r.n -= n }
