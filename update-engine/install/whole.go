package install

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/verity"
	"github.com/proa-os/proa/update-engine/match"
)

// Whole reads a slot from its first byte to the last and compares it with the root hash that a boot program boots: what a machine is
// told to go back to was good once, and the disk may have failed since. It returns the root hash.
func Whole(ctx context.Context, slot File, boot Folder, program string) (digest.SHA256, error) {
	f, err := boot.Open(program)
	if err != nil {
		return digest.SHA256{}, err
	}
	defer f.Close()
	want, offset, err := match.RootHash(f)
	if err != nil {
		return digest.SHA256{}, fmt.Errorf("boot program %s: %w", program, err)
	}
	size, err := slot.Size()
	if err != nil {
		return want, err
	}
	const block = 4096
	if offset > size-block {
		return want, fmt.Errorf("the other slot has %d bytes, boot program %s looks for its tree at %d", size, program, offset)
	}
	b := make([]byte, block)
	if _, err := io.ReadFull(io.NewSectionReader(slot, offset, block), b); err != nil {
		return want, fmt.Errorf("read the other slot: %w", err)
	}
	super, err := verity.ParseSuperblock(b)
	if err != nil {
		return want, fmt.Errorf("the other slot does not hold what %s boots: %w", program, err)
	}
	treeSize, err := verity.TreeSize(offset)
	if err != nil {
		return want, err
	}
	if offset+treeSize > size {
		return want, fmt.Errorf("the other slot has %d bytes, what %s boots has %d", size, program, offset+treeSize)
	}
	tree := &buffer{b: make([]byte, treeSize)} // 8 MiB for a root image of 1 GiB
	got, _, err := verity.Build(cancelled{ctx, slot}, offset, super.Salt, super.UUID, tree)
	if err != nil {
		return want, fmt.Errorf("read the other slot: %w", err)
	}
	if got != want {
		return want, fmt.Errorf("the other slot has root hash %s, boot program %s boots %s: it is damaged or of another release", got, program, want)
	}
	there := make([]byte, treeSize)
	if _, err := io.ReadFull(io.NewSectionReader(slot, offset, treeSize), there); err != nil {
		return want, fmt.Errorf("read the other slot: %w", err)
	}
	if !bytes.Equal(there, tree.b) {
		return want, fmt.Errorf("the verity tree in the other slot is damaged")
	}
	return want, nil
}
