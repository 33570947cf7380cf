package verity

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/proa-os/proa/internal/digest"
)

const workers = 2 // goroutines that read and hash data

// Build writes the superblock and the tree for the first size bytes of data to w, from its offset 0, and returns
// the root hash and how many bytes it wrote. Use an io.OffsetWriter to append the tree to its data.
//
// The data is read once, in order but for two reads at a time, and memory use does not depend on size. To cancel,
// let data return an error.
func Build(data io.ReaderAt, size int64, salt [32]byte, uuid [16]byte, w io.WriterAt) (root digest.SHA256, written int64, err error) {
	levels, err := layout(size)
	if err != nil {
		return digest.SHA256{}, 0, err
	}
	root, err = build(data, size, levels, salt, w)
	if err != nil {
		return digest.SHA256{}, 0, err
	}
	// Last, so that a tree is recognised only when it is there.
	s := Superblock{UUID: uuid, Salt: salt, DataBlocks: uint64(size / BlockSize)}
	if _, err := w.WriteAt(s.Marshal(), 0); err != nil {
		return digest.SHA256{}, 0, fmt.Errorf("write verity superblock: %w", err)
	}
	return root, treeSize(levels), nil
}

// RootHash returns what Build would, and keeps no tree.
func RootHash(data io.ReaderAt, size int64, salt [32]byte) (digest.SHA256, error) {
	levels, err := layout(size)
	if err != nil {
		return digest.SHA256{}, err
	}
	return build(data, size, levels, salt, discard{})
}

type discard struct{}

func (discard) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// build hashes the data in pieces of 128 blocks, a hash block each, several at a time, and hands the hash blocks
// to the tree in order.
func build(data io.ReaderAt, size int64, levels []level, salt [32]byte, w io.WriterAt) (digest.SHA256, error) {
	t := &tree{levels: make([]row, len(levels)), hasher: newHasher(salt), w: w}
	for i, l := range levels {
		t.levels[i].level = l
	}
	var pieces [workers]piece
	for i := range pieces {
		pieces[i] = piece{hasher: newHasher(salt), data: make([]byte, fanout*BlockSize)}
	}
	for off := int64(0); off < size; {
		var wg sync.WaitGroup
		n := 0
		for ; n < len(pieces) && off < size; n++ {
			p := &pieces[n]
			p.off, p.size = off, min(int64(len(p.data)), size-off)
			off += p.size
			wg.Go(func() { p.err = p.hash(data) })
		}
		wg.Wait()
		for i := range n {
			p := &pieces[i]
			if p.err != nil {
				return digest.SHA256{}, fmt.Errorf("read data at byte %d of %d: %w", p.off, size, p.err)
			}
			if err := t.push(p.hashes[:p.size/BlockSize]); err != nil {
				return digest.SHA256{}, err
			}
		}
	}
	return t.finish()
}

// A piece is the part of the data that one hash block covers.
type piece struct {
	hasher hasher
	data   []byte
	hashes [fanout]digest.SHA256
	off    int64
	size   int64
	err    error
}

func (p *piece) hash(r io.ReaderAt) error {
	b := p.data[:p.size]
	if n, err := r.ReadAt(b, p.off); n < len(b) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	for i := 0; len(b) > 0; i, b = i+1, b[BlockSize:] {
		p.hashes[i] = p.hasher.sum(b[:BlockSize])
	}
	return nil
}

// A tree holds one unfinished hash block of each level.
type tree struct {
	levels []row
	hasher hasher
	w      io.WriterAt
	top    digest.SHA256 // hash of the highest block that is finished
}

type row struct {
	level
	block  [BlockSize]byte
	fill   int   // bytes of block
	blocks int64 // already written
}

func (t *tree) push(hashes []digest.SHA256) error {
	for _, h := range hashes {
		if err := t.add(0, h); err != nil {
			return err
		}
	}
	return nil
}

// add appends a hash to level i; above the last level it is the root hash.
func (t *tree) add(i int, h digest.SHA256) error {
	if i == len(t.levels) {
		t.top = h
		return nil
	}
	l := &t.levels[i]
	l.fill += copy(l.block[l.fill:], h[:])
	if l.fill < BlockSize {
		return nil
	}
	return t.flush(i)
}

// flush writes the block of level i and adds its hash to the level above.
func (t *tree) flush(i int) error {
	l := &t.levels[i]
	clear(l.block[l.fill:])
	off := (l.first + l.blocks) * BlockSize
	if _, err := t.w.WriteAt(l.block[:], off); err != nil {
		return fmt.Errorf("write verity tree at byte %d: %w", off, err)
	}
	l.fill = 0
	l.blocks++
	return t.add(i+1, t.hasher.sum(l.block[:]))
}

func (t *tree) finish() (digest.SHA256, error) {
	for i := range t.levels {
		if t.levels[i].fill == 0 {
			continue
		}
		if err := t.flush(i); err != nil {
			return digest.SHA256{}, err
		}
	}
	return t.top, nil
}

// A hasher is SHA-256 with the salt in front.
type hasher struct {
	h    hash.Hash
	salt [32]byte
}

func newHasher(salt [32]byte) hasher { return hasher{h: sha256.New(), salt: salt} }

func (h hasher) sum(block []byte) (d digest.SHA256) {
	h.h.Reset()
	h.h.Write(h.salt[:])
	h.h.Write(block)
	h.h.Sum(d[:0])
	return d
}
