package bsdiff

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/proa-os/proa/update-engine/suffix"
)

// A Control describes one piece of the new file; the package comment says how. All are bytes.
type Control struct {
	Add, Copy int64
	Seek      int64 // of the last one: 0
}

// Diff returns what makes new of old.
func Diff(old, new []byte) []Control {
	var d Differ
	return d.Diff(old, new)
}

// A Differ compares pairs one after the other in the same memory: five bytes for each of the largest old file, and 256 KiB, or 4 MiB once
// an old file had 4 MiB. Its zero value is ready. It is not safe for concurrent use.
type Differ struct {
	array   []int32
	width   int     // how many bytes make a bucket
	drop    int     // but for so many bits of the last one
	buckets []int32 // where in the array suffixes begin with these bytes, and where the last ones end
}

// In a file of this size or more, buckets are by two and a half bytes instead of two: a search then ends after few steps where there is
// nothing to find, as in what is compressed. By three, they would fit in no cache.
const large = 4 << 20

// maxOld is how much of an old file is looked at: what an int32 can count.
const maxOld = math.MaxInt32

// Diff returns what makes new of old. It shares no memory with the Differ.
func (d *Differ) Diff(old, new []byte) []Control {
	old = old[:min(len(old), maxOld)]
	w := writer{old: old, new: new}
	// Equal beginnings need no search, and files mostly differ in few places.
	begin := commonPrefix(old, new)
	if begin < len(new) {
		d.sort(old)
		d.scan(&w, begin)
	} else {
		w.piece(begin, begin, 0)
	}
	return w.control
}

func (d *Differ) sort(old []byte) {
	if cap(d.array) < len(old) {
		d.array = make([]int32, len(old))
	}
	d.array = d.array[:len(old)]
	suffix.Array(old, d.array)
	d.width, d.drop = 2, 0
	if len(old) >= large {
		d.width, d.drop = 3, 4
	}
	n := 1<<(8*d.width-d.drop) + 1
	if cap(d.buckets) < n {
		d.buckets = make([]int32, n)
	}
	d.buckets = d.buckets[:n]
	clear(d.buckets)
	for i := range old {
		d.buckets[d.key(old[i:])+1]++
	}
	for i := range n - 1 {
		d.buckets[i+1] += d.buckets[i]
	}
}

// key is the bucket of a string; of one that is too short that in which it is the smallest.
func (d *Differ) key(s []byte) int {
	k := 0
	for i := range d.width {
		k <<= 8
		if i < len(s) {
			k |= int(s[i])
		}
	}
	return k >> d.drop
}

// longest returns the place in old of the longest beginning of s, and its length; (0, 0) if it is shorter than a bucket's bytes.
func (d *Differ) longest(old, s []byte) (at, length int) {
	if len(s) < d.width {
		return 0, 0
	}
	k := d.key(s)
	lo, hi := int(d.buckets[k]), int(d.buckets[k+1])
	// What lies between two suffixes has at least as much in common with s as the one of them that has less.
	var below, above int
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		p := int(d.array[mid])
		n := min(below, above)
		n += commonPrefix(old[p+n:], s[n:])
		if n > length {
			at, length = p, n
		}
		switch {
		case n == len(s):
			return p, n
		case p+n == len(old) || old[p+n] < s[n]:
			lo, below = mid+1, n
		default:
			hi, above = mid, n
		}
	}
	if length < d.width {
		return 0, 0
	}
	return at, length
}

// commonPrefix is how many bytes a and b begin with in common.
func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	a, b = a[:n], b[:n]
	i := 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for ; i < n && a[i] == b[i]; i++ {
	}
	return i
}

// better is by how many bytes a match has to beat what the current one has in common from here on.
const better = 8

// scan looks for matches from byte begin of the new file on; what is before is at the same place in the old one.
func (d *Differ) scan(w *writer, begin int) {
	old, new := w.old, w.new
	scan, length, at := begin, 0, 0
	for scan < len(new) {
		offset := w.at - w.done // of the current match
		equal := 0              // bytes that it has in common from scan to counted
		scan += length
		for counted := scan; scan < len(new); scan++ {
			at, length = d.longest(old, new[scan:])
			for ; counted < scan+length; counted++ {
				if o := counted + offset; o >= 0 && o < len(old) && old[o] == new[counted] {
					equal++
				}
			}
			if length == equal && length > 0 || length > equal+better {
				break
			}
			if o := scan + offset; counted > scan && o >= 0 && o < len(old) && old[o] == new[scan] {
				equal--
			}
			counted = max(counted, scan+1)
		}
		if length != equal || scan == len(new) {
			w.matched(at, scan)
		}
	}
}
