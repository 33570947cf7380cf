package payload

import (
	"bytes"
	"fmt"
	"io"
)

// block is how many bytes two images have to have in common for common to see it.
const block = 4096

// common finds what an input has of whole blocks of the sources, which follow each other in address space, at whatever place it
// has them; the rest is made. It knows nothing of file systems: package extent sees more.
func common(in Input, sources []Input) (layout, error) {
	content := make([]byte, in.Size)
	if _, err := io.ReadFull(io.NewSectionReader(in.R, 0, in.Size), content); err != nil {
		return layout{}, fmt.Errorf("read %s: %w", in.Kind, truncated(err))
	}
	b := blocks{places: map[uint64]int64{}}
	for _, s := range sources {
		if err := b.index(s); err != nil {
			return layout{}, fmt.Errorf("read %s: %w", s.Kind, err)
		}
	}
	var l assembly
	made := 0 // first byte that no run has
	for i := 0; i+block <= len(content); {
		at, ok, hash := int64(0), false, hashOf(content[i:i+block])
		for ; ; i++ { // roll on
			if at, ok = b.places[hash]; ok || i+block >= len(content) {
				break
			}
			hash = roll(hash, content[i], content[i+block])
		}
		if !ok {
			break
		}
		first, last, err := b.extend(content, made, i, at)
		if err != nil {
			return layout{}, err
		}
		if last-first < block { // only the hash was equal
			i++
			continue
		}
		l.extra(int64(first - made))
		l.copy(int64(last-first), at-int64(i))
		i, made = last, last
	}
	l.extra(int64(len(content) - made))
	return l.layout(), nil
}

// blocks are where blocks of the sources are, by their hash.
type blocks struct {
	places map[uint64]int64
	space  space
	size   int64
}

func (b *blocks) index(in Input) error {
	buf := make([]byte, 256*block)
	for off := int64(0); off+block <= in.Size; off += int64(len(buf)) {
		n := min(int64(len(buf)), in.Size-off)
		if k, err := in.R.ReadAt(buf[:n], off); int64(k) != n {
			return truncated(err)
		}
		for i := int64(0); i+block <= n; i += block {
			content := buf[i : i+block]
			if len(bytes.TrimLeft(content, string(content[:1]))) == 0 {
				continue // zeros and the like are everywhere, and pack well
			}
			h := hashOf(content)
			if _, ok := b.places[h]; !ok {
				b.places[h] = b.size + off + i
			}
		}
	}
	b.space = append(b.space, part{in.Kind.String(), in.R, in.Size})
	b.size += in.Size
	return nil
}

// extend returns how much around byte i of the content is equal to what is around the source address at, back to byte from at most.
func (b *blocks) extend(content []byte, from, i int, at int64) (first, last int, err error) {
	first, last = i, i
	buf := make([]byte, 16*block)
	for last < len(content) {
		n := int(min(int64(len(buf)), int64(len(content)-last), b.size-(at+int64(last-i))))
		if n <= 0 {
			break
		}
		if err := b.space.read(buf[:n], at+int64(last-i)); err != nil {
			return 0, 0, err
		}
		same := commonPrefix(buf[:n], content[last:last+n])
		if last += same; same < n {
			break
		}
	}
	for first > from {
		n := int(min(int64(len(buf)), int64(first-from), at-int64(i-first)))
		if n <= 0 {
			break
		}
		if err := b.space.read(buf[:n], at-int64(i-first)-int64(n)); err != nil {
			return 0, 0, err
		}
		k := n
		for k > 0 && buf[k-1] == content[first-1] {
			k--
			first--
		}
		if k > 0 {
			break
		}
	}
	return first, last, nil
}

func commonPrefix(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// The rolling hash is a polynomial of the block's bytes modulo 2^64.
const factor = 0x9e3779b97f4a7c15

func hashOf(b []byte) uint64 {
	var h uint64
	for _, c := range b {
		h = h*factor + uint64(c) + 1
	}
	return h
}

// roll moves the hash of a block on by one byte.
func roll(h uint64, out, in byte) uint64 {
	return h*factor + uint64(in) + 1 - (uint64(out)+1)*leaving
}

// leaving is factor to the power of block, modulo 2^64.
const leaving = 0x8e96c1bd11acc001
