package bzip2

import (
	"bytes"

	"github.com/proa-os/proa/update-engine/suffix"
)

const (
	highest   = 9                    // level
	step      = 100_000              // bytes of a block for each level
	spare     = 19                   // of them, which the reference leaves free, too
	blockSize = highest*step - spare // of shortened runs

	blockMagic = 0x314159265359 // pi
	endMagic   = 0x177245385090 // its root
)

// Pack returns data as a bzip2 stream, whose level is the lowest at which its blocks are as large as they can be: whoever unpacks it needs four
// bytes of memory for each byte of a level's block.
func Pack(data []byte) []byte {
	w := &bitWriter{}
	w.bits(24, 'B'<<16|'Z'<<8|'h')
	w.bits(8, '0'+highest)
	var all uint32
	longest := 0
	for len(data) > 0 {
		block, n := shorten(data)
		longest = max(longest, len(block))
		sum := checksum(data[:n])
		all = (all<<1 | all>>31) ^ sum
		writeBlock(w, block, sum)
		data = data[n:]
	}
	w.bits(48, endMagic)
	w.bits(32, uint64(all))
	out := w.flush()
	out[3] = '0' + byte(max(1, (longest+spare+step-1)/step))
	return out
}

// shorten returns a block and how many bytes of data it stands for: four equal bytes are followed by the number of further ones, up to 251.
func shorten(data []byte) (block []byte, n int) {
	block = make([]byte, 0, min(len(data)+len(data)/4+1, blockSize))
	for n < len(data) && len(block)+5 <= blockSize {
		c, run := data[n], 1
		for run < 255 && n+run < len(data) && data[n+run] == c {
			run++
		}
		n += run
		for range min(run, 4) {
			block = append(block, c)
		}
		if run >= 4 {
			block = append(block, byte(run-4))
		}
	}
	return block, n
}

// checksum is a CRC-32 whose highest bit comes first, unlike that of hash/crc32.
func checksum(b []byte) uint32 {
	table := checksumTable()
	sum := ^uint32(0)
	for _, c := range b {
		sum = sum<<8 ^ table[byte(sum>>24)^c]
	}
	return ^sum
}

func checksumTable() (t [256]uint32) {
	for i := range t {
		c := uint32(i) << 24
		for range 8 {
			if c&(1<<31) != 0 {
				c = c<<1 ^ 0x04c11db7
			} else {
				c <<= 1
			}
		}
		t[i] = c
	}
	return t
}

// transform returns the last column of the sorted rotations of a block, and which of them is the block itself. The smallest rotation's
// suffixes are in the order of the rotations that they begin: behind one that ends, the rotation goes on with what is smaller than all
// that others may go on with. Equal rotations have equal last bytes, so their order does not matter.
func transform(block []byte) (last []byte, origin int) {
	n, first := len(block), leastRotation(block)
	rotated := append(append(make([]byte, 0, n), block[first:]...), block[:first]...)
	array := make([]int32, n)
	suffix.Array(rotated, array)
	last = make([]byte, 0, n)
	for _, at := range array {
		if (int(at)+first)%n == 0 {
			origin = len(last)
		}
		last = append(last, rotated[(int(at)+n-1)%n])
	}
	return last, origin
}

// leastRotation returns where in a block its smallest rotation begins, in linear time: of two beginnings with k equal bytes, the one that is larger
// then is none, nor is any of the k behind it.
func leastRotation(block []byte) int {
	n := len(block)
	i, j := 0, 1
	for k := 0; i < n && j < n && k < n; {
		a, b := block[(i+k)%n], block[(j+k)%n]
		switch {
		case a == b:
			k++
			continue
		case a > b:
			i += k + 1
		default:
			j += k + 1
		}
		if k = 0; i == j {
			j++
		}
	}
	return min(i, j)
}

// Symbols are numbers of zeros in the two digits runA and runB, places in the list of bytes, one more than they are, and at the end the
// largest one.
const (
	runA = 0
	runB = 1
)

// symbols replaces each byte by its place in a list, in which it then moves to the front, and writes runs of the place 0 as a number whose
// digits are worth 1, 2, 4 ... (runA) and twice that (runB).
func symbols(last []byte) (out []uint16, used [256]bool, alphabet int) {
	for _, c := range last {
		used[c] = true
	}
	var list []byte
	for c, is := range used {
		if is {
			list = append(list, byte(c))
		}
	}
	zeros := 0
	flush := func() {
		for ; zeros > 0; zeros = (zeros - 1) / 2 {
			out = append(out, uint16(runB-zeros&1))
		}
	}
	for _, c := range last {
		if list[0] == c {
			zeros++
			continue
		}
		flush()
		place := bytes.IndexByte(list, c)
		copy(list[1:], list[:place])
		list[0] = c
		out = append(out, uint16(place+1))
	}
	flush()
	return append(out, uint16(len(list)+1)), used, len(list) + 2
}

// writeBlock writes a block of at least one byte.
func writeBlock(w *bitWriter, block []byte, sum uint32) {
	last, origin := transform(block)
	syms, used, alphabet := symbols(last)
	w.bits(48, blockMagic)
	w.bits(32, uint64(sum))
	w.bits(1, 0) // not randomised, as no version since 0.9.5 does
	w.bits(24, uint64(origin))
	writeUsed(w, used)
	c := bestCoding(syms, alphabet)
	c.writeTables(w)
	c.writeSymbols(w, syms)
}

// writeUsed says which bytes occur: first in which of sixteen rows, then in each of these.
func writeUsed(w *bitWriter, used [256]bool) {
	var rows uint64
	var words [16]uint64
	for c, is := range used {
		if is {
			rows |= 1 << (15 - c/16)
			words[c/16] |= 1 << (15 - c%16)
		}
	}
	w.bits(16, rows)
	for _, row := range words {
		if row != 0 {
			w.bits(16, row)
		}
	}
}

// A bitWriter writes bits, the highest first.
type bitWriter struct {
	out  []byte
	held uint64
	n    int // bits held, fewer than 8 between calls
}

// bits writes the n lowest bits of v, at most 48.
func (w *bitWriter) bits(n int, v uint64) {
	w.held = w.held<<n | v&(1<<n-1)
	for w.n += n; w.n >= 8; w.n -= 8 {
		w.out = append(w.out, byte(w.held>>(w.n-8)))
	}
}

// flush fills up the last byte and returns all.
func (w *bitWriter) flush() []byte {
	if w.n > 0 {
		w.bits(8-w.n, 0)
	}
	return w.out
}
