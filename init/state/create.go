// Package state makes, mounts, grows and forgets the state partition, the only one Proa writes to in daily use.
//
// It is not shipped: the first boot makes it in the space behind the slots. A power cut at any moment of that must be
// harmless, and what was made must never be made again over somebody's files. So the entry in the partition table comes
// last and is the commit point:
//
//  1. the partition is announced to the running kernel only; nothing is on disk
//  2. mke2fs makes an ext4 file system in it, and the disk's cache is flushed
//  3. the table with the new entry is written, the backup before the primary (internal/gpt)
//
// Before step 3 a disk has no state partition and the next boot begins anew; the space is free whatever lies in it, also
// where the shipped image had its backup table. After step 3 the file system is whole. A state partition is therefore never
// formatted: when it cannot be mounted, e2fsck may repair what is safe to repair, and if that fails the boot does, with
// everything left as it is.
//
// Removing the entry from the table asks for fresh state: that is all a factory reset does (Reset), and again the one commit
// point. A partition that was wiped (Blank: only zeros wherever a superblock could be) is reset in the same way, so that
// a power cut while its file system is made anew is a power cut of a first boot.
//
// When the disk becomes larger, the entry does (Grow), then the mounted file system (GrowFileSystem). Both are compared at
// every boot, and each step is whole by itself: a power cut between them leaves a file system smaller than its partition.
package state

import (
	"fmt"
	"io"
	"slices"

	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/gpt"
)

// MinSize is the smallest state partition worth having, in bytes. From 128 MiB on ext4 has a backup of its superblock.
const MinSize = 256 << 20

// A Writer is the whole disk (blockdev.Disk).
type Writer interface {
	io.WriterAt
	Sync() error
	// AddPartition makes a partition, in bytes, known to the kernel without writing it.
	AddPartition(number int, start, size int64) error
}

// Plan returns the table of d with a state partition that fills the rest of the disk. id becomes the partition's GUID.
func Plan(d disk.Disk, id [16]byte) (*gpt.Table, gpt.Partition, error) {
	table := *d.Table
	table.Partitions = slices.Clone(d.Table.Partitions)
	if err := table.GrowTo(d.Size); err != nil {
		return nil, gpt.Partition{}, err
	}
	p, err := table.Fill(gpt.Partition{Name: disk.NameState, TypeGUID: gpt.TypeLinux, GUID: gpt.NewGUID(id)})
	if err != nil {
		return nil, gpt.Partition{}, tooSmall(d, 0)
	}
	if size := table.Size(p); size < MinSize {
		return nil, gpt.Partition{}, tooSmall(d, size)
	}
	return &table, p, nil
}

func tooSmall(d disk.Disk, free int64) error {
	const mib = 1 << 20
	return fmt.Errorf("disk %s is too small: it has %d MiB, of which %d MiB are free for state; expected at least %d MiB free: give the machine a disk of %d MiB or more",
		d.Path, d.Size/mib, free/mib, MinSize/mib, (d.Size-free+MinSize)/mib+1)
}

// Create carries out a Plan. format makes the file system in the partition and returns when it is on disk for good.
func Create(w Writer, table *gpt.Table, p gpt.Partition, format func() error) error {
	if err := w.AddPartition(p.Number, table.Offset(p), table.Size(p)); err != nil {
		return err
	}
	if err := format(); err != nil {
		return fmt.Errorf("make file system for state: %w", err)
	}
	return table.Write(w)
}
