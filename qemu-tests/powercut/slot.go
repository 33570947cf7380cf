package powercut

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"math/bits"
	"os"
	"path/filepath"

	"github.com/proa-os/proa/internal/verity"
	"github.com/proa-os/proa/qemu-tests/world"
)

const blockSize = verity.BlockSize

// known is a release with a root.img that is proven to have its root hash.
type known struct {
	world.Image
	root   *os.File
	blocks int64 // data and tree
	super  verity.Superblock
}

func openKnown(image world.Image) (*known, error) {
	f, err := os.Open(filepath.Join(image.Dir, "root.img"))
	if err != nil {
		return nil, fmt.Errorf("release %s: %w", image.Version(), err)
	}
	k := &known{Image: image, root: f, blocks: image.Release.Root.Size / blockSize}
	if err := k.prove(); err != nil {
		f.Close()
		return nil, fmt.Errorf("release %s: %w", image.Version(), err)
	}
	return k, nil
}

// prove builds the tree anew and compares it, and its root hash.
func (k *known) prove() error {
	r := k.Release.Root
	tree := make([]byte, r.Size-r.HashOffset)
	if _, err := k.root.ReadAt(tree, r.HashOffset); err != nil {
		return fmt.Errorf("read verity tree: %w", err)
	}
	var err error
	if k.super, err = verity.ParseSuperblock(tree); err != nil {
		return err
	}
	if salt := hex.EncodeToString(k.super.Salt[:]); salt != r.Salt {
		return fmt.Errorf("root.img has salt %s, release.json says %s", salt, r.Salt)
	}
	built := make(memory, len(tree))
	hash, n, err := verity.Build(k.root, r.HashOffset, k.super.Salt, k.super.UUID, built)
	if err != nil {
		return err
	}
	if hash != r.RootHash || n != int64(len(tree)) || !bytes.Equal(built, tree) {
		return fmt.Errorf("root.img has root hash %s with a tree of %d bytes, release.json says %s with %d", hash, n, r.RootHash, len(tree))
	}
	return nil
}

// memory is a small file that fits exactly.
type memory []byte

func (m memory) WriteAt(p []byte, at int64) (int, error) {
	if at+int64(len(p)) > int64(len(m)) {
		return 0, fmt.Errorf("write %d bytes at %d: there are only %d", len(p), at, len(m))
	}
	return copy(m[at:], p), nil
}

// A blockSet has a bit for each block.
type blockSet []uint64

func (s blockSet) set(i int64, on bool) (changed bool) {
	was := s[i/64]&(1<<(i%64)) != 0
	if on != was {
		s[i/64] ^= 1 << (i % 64)
	}
	return on != was
}

// slotOnDisk is a partition for root images, and in which blocks it differs from each release.
type slotOnDisk struct {
	region
	name     string
	disk     *os.File
	releases []*known
	touched  blockSet
	any      bool       // something is touched
	differ   []blockSet // by release
	count    []int64    // bits in differ
}

func newSlot(disk *os.File, name string, r region, releases []*known) (*slotOnDisk, error) {
	s := &slotOnDisk{region: r, name: name, disk: disk, releases: releases, touched: make(blockSet, r.size/blockSize/64+1)}
	for _, k := range releases {
		if k.blocks*blockSize > r.size {
			return nil, fmt.Errorf("release %s does not fit in %s", k.Version(), name)
		}
		s.differ = append(s.differ, make(blockSet, k.blocks/64+1))
		s.count = append(s.count, 0)
		s.touch(r.offset, k.blocks*blockSize)
	}
	return s, s.compare()
}

// touch notes a write, of which a part may be outside.
func (s *slotOnDisk) touch(offset, length int64) {
	begin := max(offset, s.offset) - s.offset
	end := min(offset+length, s.offset+s.size) - s.offset
	for b := begin / blockSize; b*blockSize < end; b++ {
		s.touched.set(b, true)
	}
	s.any = true
}

// compare looks at the blocks that were written.
func (s *slotOnDisk) compare() error {
	if !s.any {
		return nil
	}
	a, b := make([]byte, blockSize), make([]byte, blockSize)
	for w, word := range s.touched {
		for ; word != 0; word &= word - 1 {
			i := int64(w*64 + bits.TrailingZeros64(word))
			for r, k := range s.releases {
				if i >= k.blocks {
					continue
				}
				same, err := sameBytes(s.disk, k.root, s.offset+i*blockSize, i*blockSize, a, b)
				if err != nil {
					return fmt.Errorf("compare block %d of %s with release %s: %w", i, s.name, k.Version(), err)
				}
				if s.differ[r].set(i, !same) {
					s.count[r] += map[bool]int64{true: -1, false: 1}[same]
				}
			}
		}
		s.touched[w] = 0
	}
	s.any = false
	return nil
}

// taken reports whether /init would take the slot for that of a release: it looks at the superblock and the top of the tree.
func (s *slotOnDisk) taken(k *known) (bool, error) {
	head := make([]byte, 2*blockSize)
	if _, err := s.disk.ReadAt(head, s.offset+k.Release.Root.HashOffset); err != nil {
		return false, fmt.Errorf("read %s: %w", s.name, err)
	}
	return verity.Match(head[:blockSize], head[blockSize:], k.Release.Root.RootHash), nil
}

// verify hashes the whole slot.
func (s *slotOnDisk) verify(k *known) error {
	r := k.Release.Root
	part := io.NewSectionReader(s.disk, s.offset, s.size)
	hash, err := verity.RootHash(part, r.HashOffset, k.super.Salt)
	if err != nil {
		return fmt.Errorf("verify %s: %w", s.name, err)
	}
	if hash != r.RootHash {
		return fmt.Errorf("verify %s: root hash %s, release %s has %s", s.name, hash, k.Version(), r.RootHash)
	}
	return nil
}
