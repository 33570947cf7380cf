// Package verity builds and recognises dm-verity hash trees.
//
// image-builder appends a tree to the root image. The update agent, which gets the image without its tree, builds
// the tree anew and compares the root hash with the signed one. init finds a slot by looking at two blocks (Match)
// before it gives the device to the kernel.
//
// The format is that of cryptsetup's veritysetup (Documentation/admin-guide/device-mapper/verity.rst and the
// "on-disk format" page it names), byte for byte, in one variant: format version 1 with hash type 1 (the salt is
// hashed before the block), SHA-256, data and hash blocks of 4096 bytes, a salt of 32 bytes. Anything else is
// refused.
//
//	block        content
//	0            superblock
//	1            top level: one block, its hash with the salt is the root hash
//	2 ..         the levels below, each 128 times longer at most, the hashes of the data last
//
// A hash block holds the hashes of 128 blocks of the level below, 32 bytes each; the last block of a level is
// padded with zeros. An image of a single block has no levels: its own hash is the root hash.
//
// The superblock, little-endian, in a block filled up with zeros:
//
//	offset size
//	0      8    "verity\0\0"
//	8      4    format version, 1
//	12     4    hash type, 1
//	16     16   UUID
//	32     32   "sha256", padded with zeros
//	64     4    bytes per data block, 4096
//	68     4    bytes per hash block, 4096
//	72     8    data blocks
//	80     2    salt length, 32
//	82     6    zero
//	88     256  salt, padded with zeros
//	344    168  zero
package verity

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/proa-os/proa/internal/digest"
)

const (
	BlockSize = 4096 // bytes, of data and hash blocks alike

	signature  = "verity\x00\x00"
	algorithm  = "sha256"
	fanout     = BlockSize / sha256.Size // hashes in a hash block
	saltOffset = 88
	usedBytes  = 512 // of the superblock's block
)

// A Superblock is what stands in front of a tree.
type Superblock struct {
	UUID       [16]byte
	Salt       [32]byte
	DataBlocks uint64 // of BlockSize
}

// Marshal returns the block.
func (s Superblock) Marshal() []byte {
	b := make([]byte, BlockSize)
	copy(b, signature)
	binary.LittleEndian.PutUint32(b[8:], 1)
	binary.LittleEndian.PutUint32(b[12:], 1)
	copy(b[16:32], s.UUID[:])
	copy(b[32:64], algorithm)
	binary.LittleEndian.PutUint32(b[64:], BlockSize)
	binary.LittleEndian.PutUint32(b[68:], BlockSize)
	binary.LittleEndian.PutUint64(b[72:], s.DataBlocks)
	binary.LittleEndian.PutUint16(b[80:], uint16(len(s.Salt)))
	copy(b[saltOffset:], s.Salt[:])
	return b
}

// ParseSuperblock reads the superblock at the start of b, which must hold 512 bytes or more.
func ParseSuperblock(b []byte) (Superblock, error) {
	if len(b) < usedBytes {
		return Superblock{}, fmt.Errorf("parse verity superblock: expected %d bytes, found %d", usedBytes, len(b))
	}
	if string(b[:8]) != signature {
		return Superblock{}, fmt.Errorf("parse verity superblock: no signature %q", "verity")
	}
	s := Superblock{
		UUID:       [16]byte(b[16:32]),
		Salt:       [32]byte(b[saltOffset:]),
		DataBlocks: binary.LittleEndian.Uint64(b[72:]),
	}
	if s.DataBlocks == 0 || s.DataBlocks > 1<<63/BlockSize {
		return Superblock{}, fmt.Errorf("parse verity superblock: %d data blocks", s.DataBlocks)
	}
	// Whatever is not a field above must be as Marshal writes it.
	if want := s.Marshal(); string(want[:usedBytes]) != string(b[:usedBytes]) {
		return Superblock{}, fmt.Errorf("parse verity superblock: version %d, hash type %d, algorithm %q, blocks of %d and %d, salt of %d bytes are not supported; "+
			"expected 1, 1, %q, %d, %d, %d", binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:]), b[32:64],
			binary.LittleEndian.Uint32(b[64:]), binary.LittleEndian.Uint32(b[68:]), binary.LittleEndian.Uint16(b[80:]),
			algorithm, BlockSize, BlockSize, len(s.Salt))
	}
	return s, nil
}

// Match reports whether two blocks, a superblock and the one behind it, begin the tree with this root hash. It
// is how a slot is found: true means that the salt and the top block are the right ones, and with them, checked
// by the kernel block by block, all the data. The root hash does not cover DataBlocks and the UUID: compare
// DataBlocks with the size you expect. An image of one block has no top block and never matches.
func Match(superblock, top []byte, root digest.SHA256) bool {
	s, err := ParseSuperblock(superblock)
	if err != nil || len(top) < BlockSize || s.DataBlocks < 2 {
		return false
	}
	return newHasher(s.Salt).sum(top[:BlockSize]) == root
}

// TreeSize returns the bytes of superblock and tree for size bytes of data.
func TreeSize(size int64) (int64, error) {
	levels, err := layout(size)
	if err != nil {
		return 0, err
	}
	return treeSize(levels), nil
}

// A level is one row of hash blocks.
type level struct {
	first  int64 // block, counted from the superblock
	blocks int64
}

// layout returns the levels, the one with the hashes of the data first. It is empty for a single block.
func layout(size int64) ([]level, error) {
	if size <= 0 || size%BlockSize != 0 {
		return nil, fmt.Errorf("verity tree: size %d of the data is not a positive multiple of %d", size, BlockSize)
	}
	var levels []level
	for n := size / BlockSize; n > 1; {
		n = (n + fanout - 1) / fanout
		levels = append(levels, level{blocks: n})
	}
	next := int64(1)
	for i := len(levels) - 1; i >= 0; i-- {
		levels[i].first = next
		next += levels[i].blocks
	}
	return levels, nil
}

func treeSize(levels []level) int64 {
	n := int64(1)
	for _, l := range levels {
		n += l.blocks
	}
	return n * BlockSize
}
