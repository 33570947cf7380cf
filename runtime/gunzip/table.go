package gunzip

import (
	"fmt"
	"math/bits"
)

// An entry of a table tells a symbol and how to go on:
//
//	bits 0-7    how many bits to drop: the code and what follows it
//	bits 8-12   of these, how many are the code
//	bit  13     a literal
//	bit  14     the end of the block
//	bit  15     a second look: bits 16-31 are where its table begins
//	bits 16-31  the literal, or the base of a length or distance
//
// 0 is a code that no symbol has.
type entry uint32

const (
	isLiteral entry = 1 << 13
	isEnd     entry = 1 << 14
	isSecond  entry = 1 << 15
)

// A table is one for the first bits of a code, and behind it tables for the longer ones.
type table struct {
	start   uint // bits of the first look
	second  uint // of the second
	entries []entry
}

// build makes the table of a code by the lengths of its symbols (RFC 1951, 3.2.2). what makes the entry of a symbol without its code.
func (t *table) build(lengths []uint8, what func(symbol int) (entry, error)) error {
	var count, next [maxBits + 2]int
	longest, symbols := uint(0), 0
	for _, l := range lengths {
		if l > 0 {
			count[l]++
			symbols++
			longest = max(longest, uint(l))
		}
	}
	code := 0
	for l := 1; l <= maxBits; l++ {
		code = (code + count[l-1]) << 1
		next[l] = code
		if code+count[l] > 1<<l {
			return fmt.Errorf("%w: too many codes of %d bits", ErrCorrupt, l)
		}
	}
	complete := next[maxBits]+count[maxBits] == 1<<maxBits
	if !complete && (symbols > 1 || longest > 1) {
		return fmt.Errorf("%w: an incomplete code", ErrCorrupt)
	}
	t.second = 0
	if longest > t.start {
		t.second = longest - t.start
	}
	t.entries = append(t.entries[:0], make([]entry, 1<<t.start)...)
	for symbol, l := range lengths {
		if l == 0 {
			continue
		}
		e, err := what(symbol)
		if err != nil {
			return err
		}
		n := uint(l)
		e += entry(n) | entry(n)<<8
		reversed := int(bits.Reverse16(uint16(next[l])) >> (16 - n))
		next[l]++
		t.put(reversed, n, e)
	}
	return nil
}

// put writes an entry wherever its code, the lowest bit first, is the beginning.
func (t *table) put(code int, n uint, e entry) {
	if n <= t.start {
		for i := code; i < 1<<t.start; i += 1 << n {
			t.entries[i] = e
		}
		return
	}
	first := code & (1<<t.start - 1)
	if t.entries[first] == 0 {
		t.entries[first] = isSecond | entry(len(t.entries))<<16
		t.entries = append(t.entries, make([]entry, 1<<t.second)...)
	}
	at := int(t.entries[first] >> 16)
	for i := code >> t.start; i < 1<<t.second; i += 1 << (n - t.start) {
		t.entries[at+i] = e
	}
}

// lookup finds the entry of the code at the lowest bits.
func (t *table) lookup(bits uint64) entry {
	e := t.entries[bits&(1<<t.start-1)]
	if e&isSecond != 0 {
		e = t.entries[int(e>>16)+int(bits>>t.start&(1<<t.second-1))]
	}
	return e
}

// ofLength is a symbol of literals and lengths (RFC 1951, 3.2.5).
func ofLength(symbol int) (entry, error) {
	switch {
	case symbol < 256:
		return isLiteral | entry(symbol)<<16, nil
	case symbol == 256:
		return isEnd, nil
	case symbol < 265:
		return entry(symbol-254) << 16, nil
	case symbol < 285:
		extra := entry(symbol-261) / 4
		return extra | (4+entry(symbol-261)%4)<<extra<<16 + 3<<16, nil
	case symbol == 285:
		return 258 << 16, nil
	}
	return 0, nil // 286 and 287 take part in the fixed code and mean nothing
}

// ofDistance is a symbol of distances.
func ofDistance(symbol int) (entry, error) {
	switch {
	case symbol < 4:
		return entry(symbol+1) << 16, nil
	case symbol < 30:
		extra := entry(symbol-2) / 2
		return extra | ((2+entry(symbol)%2)<<extra+1)<<16, nil
	}
	return 0, nil
}
