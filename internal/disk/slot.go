package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/verity"
)

// A candidate is one matching slot.
type candidate struct {
	layout *Layout
	held   bool   // another block device is on top of it
	stale  string // how the kernel's view differs from the table, or empty
}

// compare is the order of preference; the sort is stable, so disks and slots keep theirs. A disk whose table must be mended
// or is still being read comes before a whole one on USB: it has the machine's state.
func (c candidate) compare(d candidate) int {
	rank := func(c candidate) int {
		if c.held {
			return 0
		}
		n := 1
		if c.layout.Disk.USB {
			n += 2
		}
		if c.stale != "" {
			n++
		}
		return n
	}
	return rank(c) - rank(d)
}

// device names the slot in Layout.Others.
func (c candidate) device() string {
	if c.layout.Active.Path != "" {
		return c.layout.Active.Path
	}
	return c.layout.Disk.Path + " " + c.layout.Active.Name
}

// match returns the matching slots of one disk, root-a first. The error says why there is none.
func (s *Scanner) match(name string, root digest.SHA256, hashOffset int64) (list []candidate, err error) {
	d, dev, err := s.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()

	var reasons []string
	for _, active := range []string{NameRootA, NameRootB} {
		p, err := d.Table.Find(active)
		if err == nil {
			err = holds(dev, d.Table.Offset(p), d.Table.Size(p), root, hashOffset)
		}
		if err != nil {
			reasons = append(reasons, fmt.Sprintf("%s: %v", active, err))
			continue
		}
		c, err := s.layout(d, active)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New(strings.Join(reasons, ", "))
	}
	return list, nil
}

// holds reports, as an error, why the partition at start is not a slot with this root hash.
func holds(r io.ReaderAt, start, size int64, root digest.SHA256, hashOffset int64) error {
	if hashOffset > size-2*verity.BlockSize {
		return fmt.Errorf("has %d bytes, too few for a hash offset of %d", size, hashOffset)
	}
	blocks := make([]byte, 2*verity.BlockSize)
	if n, err := r.ReadAt(blocks, start+hashOffset); n < len(blocks) {
		return fmt.Errorf("read verity superblock: %w", err)
	}
	super, err := verity.ParseSuperblock(blocks)
	if err != nil {
		return err
	}
	if !verity.Match(blocks[:verity.BlockSize], blocks[verity.BlockSize:], root) {
		return errors.New("holds another root image")
	}
	if got, want := super.DataBlocks, uint64(hashOffset/verity.BlockSize); got != want {
		return fmt.Errorf("verity superblock: expected %d data blocks, found %d", want, got)
	}
	tree, err := verity.TreeSize(hashOffset)
	if err != nil {
		return err
	}
	if hashOffset+tree > size {
		return fmt.Errorf("has %d bytes, expected at least %d", size, hashOffset+tree)
	}
	return nil
}

// layout looks up all partitions, with the given slot as the active one.
func (s *Scanner) layout(d Disk, active string) (candidate, error) {
	known, err := s.partitions(d.Name)
	if err != nil {
		return candidate{}, err
	}
	var c candidate
	lookup := func(name string) *Partition {
		p, ferr := d.Table.Find(name)
		if ferr != nil {
			err = errors.Join(err, ferr)
			return nil
		}
		part, held, stale := known.resolve(d.Table, p)
		if stale != "" {
			c.stale = stale
		}
		if name == active {
			c.held = held
		}
		return part
	}
	c.layout = &Layout{Disk: d, ESP: lookup(NameESP), RootA: lookup(NameRootA), RootB: lookup(NameRootB)}
	for _, p := range d.Table.Partitions {
		if p.Name == NameState && c.layout.State == nil {
			c.layout.State = lookup(NameState) // an error if there are two
		}
	}
	c.layout.Active, c.layout.Passive = c.layout.RootA, c.layout.RootB
	if active == NameRootB {
		c.layout.Active, c.layout.Passive = c.layout.RootB, c.layout.RootA
	}
	return c, err
}

// kernelPartition is a partition as sysfs shows it.
type kernelPartition struct {
	name        string // vda3
	start, size int64  // bytes
	held        bool
}

// kernelPartitions are those of one disk, by number.
type kernelPartitions map[int]kernelPartition

// partitions reads the kernel's view: every directory in that of the disk that has a file "partition".
func (s *Scanner) partitions(disk string) (kernelPartitions, error) {
	entries, err := fs.ReadDir(s.Sys, path.Join("class/block", disk))
	if err != nil {
		return nil, err
	}
	known := kernelPartitions{}
	for _, e := range entries {
		dir := path.Join(disk, e.Name())
		if _, err := fs.Stat(s.Sys, path.Join("class/block", dir, "partition")); err != nil {
			continue
		}
		var values [3]int64
		for i, file := range []string{"partition", "start", "size"} {
			if values[i], err = s.number(dir, file); err != nil {
				return nil, err
			}
		}
		holders, err := fs.ReadDir(s.Sys, path.Join("class/block", dir, "holders"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		known[int(values[0])] = kernelPartition{e.Name(), values[1] * sysfsSector, values[2] * sysfsSector, len(holders) > 0}
	}
	return known, nil
}

// resolve finds the device node for p. stale says how the kernel's view differs, or is empty.
func (k kernelPartitions) resolve(t *gpt.Table, p gpt.Partition) (part *Partition, held bool, stale string) {
	part = &Partition{
		Number: p.Number, Name: p.Name, Type: p.TypeGUID, GUID: p.GUID,
		Start: t.Offset(p), Size: t.Size(p),
	}
	kp, ok := k[p.Number]
	switch {
	case !ok:
		return part, false, fmt.Sprintf("partition %d (%s) is unknown to it", p.Number, p.Name)
	case kp.start != part.Start || kp.size != part.Size:
		return part, false, fmt.Sprintf("partition %d (%s): expected %d bytes at %d, found %d bytes at %d",
			p.Number, p.Name, part.Size, part.Start, kp.size, kp.start)
	}
	part.Path = node(kp.name)
	return part, kp.held, ""
}

// Node returns the device node of a partition of the disk called disk, as the kernel has it now, whatever the table says.
func (s *Scanner) Node(disk string, number int) (string, error) {
	known, err := s.partitions(disk)
	if err != nil {
		return "", err
	}
	p, ok := known[number]
	if !ok {
		return "", fmt.Errorf("disk %s: the kernel has no partition %d", disk, number)
	}
	return node(p.name), nil
}
