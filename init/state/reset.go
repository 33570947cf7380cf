package state

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/gpt"
)

// Reset removes the state partition of d from its table, on w. From then on the disk is like one before its first boot; what was
// in state is not overwritten. If there is no state partition, nothing is written; nor is it if the next boot could not make state
// again, which is an error: the machine would be lost to its owner.
//
// The backup goes to the end of a disk that has grown: only there is it looked for when a power cut damages the primary.
func Reset(w io.WriterAt, d disk.Disk) error {
	table := *d.Table
	table.Partitions = slices.DeleteFunc(slices.Clone(d.Table.Partitions), func(p gpt.Partition) bool { return p.Name == disk.NameState })
	if len(table.Partitions) == len(d.Table.Partitions) {
		return nil
	}
	after := d
	after.Table = &table
	if _, _, err := Plan(after, [16]byte{}); err != nil {
		return fmt.Errorf("forget state: nothing was written, as it could not be made again%s: %w", obstacle(d.Table), err)
	}
	if err := table.GrowTo(d.Size); err != nil {
		return fmt.Errorf("forget state: %w", err)
	}
	return table.Write(w)
}

// obstacle names, for a message, a partition that lies behind state, where Plan finds no room for it any more.
func obstacle(table *gpt.Table) string {
	at := slices.IndexFunc(table.Partitions, func(p gpt.Partition) bool { return p.Name == disk.NameState })
	for _, p := range table.Partitions {
		if p.FirstLBA > table.Partitions[at].LastLBA {
			return fmt.Sprintf(" with partition %d %q behind it (remove that one first)", p.Number, p.Name)
		}
	}
	return ""
}

// blockSize and blocksPerGroup are what Format asks mke2fs for, and what follows from it.
const (
	blockSize      = 4096
	blocksPerGroup = 8 * blockSize
)

// Blank reports whether a partition of size bytes was wiped: the first MiB, where every kind of file system has its mark, and
// all blocks in which Format puts copies of the superblock have only zeros in them. One bit is enough for a no, as is an error.
func Blank(r io.ReaderAt, size int64) (bool, error) {
	b := make([]byte, 1<<20)
	if size < int64(len(b)) {
		return false, fmt.Errorf("look for a file system: the partition has only %d bytes", size)
	}
	for i, block := range superblocks(size) {
		if i > 0 {
			b = b[:blockSize]
		}
		if n, err := r.ReadAt(b, block*blockSize); n < len(b) {
			return false, fmt.Errorf("look for a file system in block %d: %w", block, errors.Join(err, io.ErrUnexpectedEOF))
		}
		if slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
			return false, nil
		}
	}
	return true, nil
}

// superblocks returns the blocks with a copy of the superblock in a file system of size bytes: the first of groups 0, 1
// and the powers of 3, 5 and 7 (the kernel's Documentation/filesystems/ext4/blockgroup.rst, "sparse_super").
func superblocks(size int64) []int64 {
	groups := []int64{0, 1}
	for _, base := range []int64{3, 5, 7} {
		for g := base; g <= size/(blocksPerGroup*blockSize); g *= base {
			groups = append(groups, g)
		}
	}
	slices.Sort(groups)
	var blocks []int64
	for _, g := range groups {
		if block := g * blocksPerGroup; (block+1)*blockSize <= size {
			blocks = append(blocks, block)
		}
	}
	return blocks
}
