package payload

import (
	"fmt"
	"io"
	"math/bits"
)

// Kin are the parts of a source address space that a segment has most in common with, wherever they are: programs of one language have
// the same library in them, and are far apart in an image. A zstd frame whose prefix is there becomes half as long as one whose prefix
// is what happens to lie before it.
//
// A hash of each 64 bytes, wherever they begin, is looked at; one in 256 is a sample, by its value, so that equal bytes give equal
// samples. Of each sample it is known in which regions of the address space it was seen last.
type kin struct {
	gear [256]uint64
	seen map[uint64]regions
}

// regions are the numbers of the last ones with a sample, each more by one than it is; 0 is none.
type regions [8]uint16

const regionSize = 1 << 20 // bytes

func newKin() *kin {
	k := &kin{seen: map[uint64]regions{}}
	for i := range k.gear {
		high, low := bits.Mul64(uint64(i+1)*factor, factor)
		k.gear[i] = high ^ low
	}
	return k
}

// samples calls f for each sample of n bytes of r, with the place behind it.
func (k *kin) samples(r io.ReaderAt, at, n int64, f func(sample uint64, end int64)) error {
	buf := make([]byte, min(n, 256<<10))
	var hash uint64
	for n > 0 {
		b := buf[:min(n, int64(len(buf)))]
		if got, err := r.ReadAt(b, at); got != len(b) {
			return fmt.Errorf("read %d bytes at %d: %w", len(b), at, truncated(err))
		}
		for i, c := range b {
			if hash = hash<<1 + k.gear[c]; hash>>56 == 0 {
				f(hash, at+int64(i)+1)
			}
		}
		at, n = at+int64(len(b)), n-int64(len(b))
	}
	return nil
}

// learn notes n bytes of r, which are in the address space at base more than they are in r.
func (k *kin) learn(r io.ReaderAt, at, n, base int64) error {
	return k.samples(r, at, n, func(sample uint64, end int64) {
		region := uint16((base+end-1)/regionSize) + 1
		if seen := k.seen[sample]; seen[0] != region {
			copy(seen[1:], seen[:])
			seen[0] = region
			k.seen[sample] = seen
		}
	})
}

// find returns which part of the address space, of at most length bytes and before where near ends, has the most samples of a segment of
// in, and whether that is clearly more than near has.
func (k *kin) find(in Input, t task, length int64, near Range) (best Range, ok bool, err error) {
	limit := near.At + near.Length
	whole := int(limit / regionSize) // regions that may be used
	wide := int(length / regionSize)
	if whole < 1 || wide < 1 {
		return best, false, nil
	}
	counts, last := make([]int, whole), make([]int, whole) // of the windows that begin with a region
	n, nearby := 0, 0                                      // samples, and those that are near
	err = eachMade(t, func(at, length int64) error {
		return k.samples(in.R, at, length, func(sample uint64, _ int64) {
			n++
			lately := int64(k.seen[sample][0]-1) * regionSize
			if k.seen[sample][0] > 0 && lately >= near.At-near.At%regionSize && near.Length > 0 {
				nearby++
			}
			for _, region := range k.seen[sample] {
				r := int(region) - 1
				for w := max(0, r-wide+1); r >= 0 && r < whole && w <= r; w++ {
					if last[w] != n {
						last[w] = n
						counts[w]++
					}
				}
			}
		})
	})
	first := 0
	for w, c := range counts {
		if c > counts[first] {
			first = w
		}
	}
	best = Range{At: int64(first) * regionSize, Length: min(length, limit-int64(first)*regionSize)}
	return best, err == nil && counts[first] > nearby+nearby/4+n/50, err
}

// eachMade calls f for each part of an output that a segment makes.
func eachMade(t task, f func(at, n int64) error) error {
	c := t.at
	for left := t.seg.Length; left > 0; {
		c.skipCopies()
		n, _ := c.here()
		n = min(n, left)
		if err := f(c.at, n); err != nil {
			return err
		}
		c.step(n)
		left -= n
	}
	return nil
}
