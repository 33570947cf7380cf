// Package partition decides what happens to the partition table of a disk that a config describes: the reuse matrix of the Ignition
// specification (operator notes, "Partition Reuse Semantics"). It touches nothing; package device carries its plans out.
//
//	there  shouldExist  wipePartitionEntry  what is done
//	no     no           any                 nothing
//	no     yes          any                 created
//	yes    no           no                  refused
//	yes    no           yes                 deleted
//	yes    yes          any                 kept if it matches what the config says
//	yes    yes          no                  resized if only the size differs and resize is set, else refused
//	yes    yes          yes                 replaced if it does not match
//
// A partition matches if everything that the config says of it is so. Start and size 0 stand for what the partition would get
// if all partitions that the config names were deleted and made anew: the start of the largest free block, and all to its end. Both begin and end on whole MiB where there is room. A partition that reaches further behind the last whole MiB matches too, as other
// programs make them.
//
// Two things differ from upstream, both to lose nothing: number 0 with a label that a matching partition has already is that
// partition and no second one, so that a plan made again is the same; and a disk that holds something without being a GPT
// disk (a file system, a DOS table, a damaged GPT) is refused unless wipeTable is set.
package partition

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/internal/gpt"
)

// A Disk is what there is.
type Disk struct {
	Size       int64 // bytes
	SectorSize int   // bytes
	Table      *gpt.Table
	Holds      string // what is there instead of a table, for people; "" for nothing
}

// A Kind says what happens to a partition.
type Kind string

// The kinds, as people read them.
const (
	Keep    Kind = "keep"
	Create  Kind = "create"
	Delete  Kind = "delete"
	Resize  Kind = "resize"
	Replace Kind = "replace"
	Absent  Kind = "leave out" // it shall not exist, and does not
)

// A Change is what happens to one partition of the config.
type Change struct {
	Kind    Kind
	Index   int // in the config's list
	Was, Is gpt.Partition
	Why     string // what did not match
}

// A Plan is the way from what there is to what the config says.
type Plan struct {
	Erase   bool       // first forget everything that the ends of the disk hold
	Table   *gpt.Table // to be written; nil: there is none to write
	Before  *gpt.Table // what there was, nil for none
	Changes []Change
}

// Writes reports whether the plan changes the disk.
func (p *Plan) Writes() bool { return p.Erase || p.Table != nil }

// A Refusal is something that the config does not allow to be done. Index is that of the partition, -1 for the disk.
type Refusal struct {
	Index                       int
	What, Expected, Found, Next string
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("%s: expected %s, found %s; %s", r.What, r.Expected, r.Found, r.Next)
}

// Decide makes the plan. id returns a new GUID, for the table and for partitions without one.
func Decide(d Disk, want types.Disk, id func() gpt.GUID) (*Plan, error) {
	wipe := util.IsTrue(want.WipeTable)
	if d.Table == nil && d.Holds != "" && !wipe && len(want.Partitions) > 0 {
		return nil, &Refusal{-1, "the disk is in use for something else", "an empty disk or a GPT partition table", d.Holds,
			"set \"wipeTable\": true to lose that, or choose another disk"}
	}
	b := &builder{id: id, sector: int64(d.SectorSize), plan: &Plan{Erase: wipe || d.Table == nil && len(want.Partitions) > 0, Before: d.Table}}
	if err := b.start(d, wipe); err != nil {
		return nil, &Refusal{-1, "the disk cannot be partitioned", "a disk with room for a partition table", err.Error(), "choose another disk"}
	}
	parts := make([]numbered, len(want.Partitions))
	for n, p := range want.Partitions {
		parts[n] = numbered{n, p}
	}
	sort.SliceStable(parts, func(i, j int) bool { return parts[i].Number != 0 && parts[j].Number == 0 })
	if err := b.resolve(parts); err != nil {
		return nil, err
	}
	if err := b.decide(parts); err != nil {
		return nil, err
	}
	if wipe && len(want.Partitions) == 0 {
		return b.plan, nil
	}
	if b.changed || b.plan.Erase && len(want.Partitions) > 0 {
		sort.Slice(b.now.Partitions, func(i, j int) bool { return b.now.Partitions[i].Number < b.now.Partitions[j].Number })
		if err := b.now.Validate(); err != nil {
			return nil, &Refusal{-1, "the partition table would not be valid", "partitions that do not overlap, within the disk", err.Error(), "correct starts, sizes and GUIDs"}
		}
		b.plan.Table = b.now
	}
	return b.plan, nil
}

type numbered struct {
	index int
	types.Partition
}

type builder struct {
	id      func() gpt.GUID
	sector  int64
	plan    *Plan
	now     *gpt.Table // becomes the new table
	old     *gpt.Table // partitions that were there, none after wipeTable
	real    map[int]extent
	changed bool
}

// extent is a place in sectors; zero values are unset.
type extent struct{ first, last uint64 }

func (b *builder) start(d Disk, wipe bool) error {
	sectors := uint64(d.Size) / uint64(d.SectorSize)
	if d.Table == nil || wipe {
		b.now = &gpt.Table{DiskGUID: b.id(), SectorSize: d.SectorSize, Sectors: sectors, Conventional: true}
		b.old = b.now.Clone()
		return b.now.Validate()
	}
	b.now, b.old = d.Table.Clone(), d.Table.Clone()
	if err := b.now.GrowTo(d.Size); err != nil {
		return err
	}
	// An image of ours keeps its arrays where they are. Others may use the sectors that those would take.
	b.now.Conventional = b.now.Validate() != nil
	return b.now.Validate()
}

// find returns the partition that an entry of the config speaks of.
func (b *builder) find(p numbered) (gpt.Partition, bool) {
	for _, q := range b.old.Partitions {
		if p.Number != 0 && q.Number == p.Number {
			return q, true
		}
		if p.Number == 0 && p.Label != nil && q.Name == *p.Label && b.mismatch(p, q) == "" {
			return q, true
		}
	}
	return gpt.Partition{}, false
}

func (b *builder) sectors(mib *int) uint64 { return uint64(*mib) << 20 / uint64(b.sector) }

// resolve finds out what start and size 0 stand for: all partitions that the config names are taken away and put back one by one.
func (b *builder) resolve(parts []numbered) error {
	b.real = map[int]extent{}
	all := b.now.Clone()
	for _, p := range parts {
		if p.Number != 0 {
			all.Partitions = slices.DeleteFunc(all.Partitions, func(q gpt.Partition) bool { return q.Number == p.Number })
		}
	}
	for _, p := range parts {
		if util.IsFalse(p.ShouldExist) || p.Number == 0 {
			continue
		}
		q, exists := b.find(p)
		keep := exists && !util.IsTrue(p.WipePartitionEntry)
		var first, size *uint64
		switch {
		case p.StartMiB != nil && *p.StartMiB != 0:
			first = new(uint64)
			*first = b.sectors(p.StartMiB)
		case p.StartMiB == nil && keep:
			first = &q.FirstLBA
		}
		switch {
		case p.SizeMiB != nil && *p.SizeMiB != 0:
			size = new(uint64)
			*size = b.sectors(p.SizeMiB)
		case p.SizeMiB == nil && keep:
			size = new(uint64)
			*size = q.Sectors()
		}
		e, err := b.place(all, first, size)
		if err != nil {
			if exists && !util.IsTrue(p.WipePartitionEntry) && !util.IsTrue(p.Resize) {
				continue // it is compared with what the config says, and that is what is said
			}
			return b.noRoom(p, err)
		}
		b.real[p.index] = e
		all.Partitions = append(all.Partitions, gpt.Partition{Number: p.Number, FirstLBA: e.first, LastLBA: e.last})
	}
	return nil
}

func (b *builder) noRoom(p numbered, err error) error {
	return &Refusal{p.index, "no room for the partition", "free space on the disk", err.Error(), "use a larger disk, a smaller sizeMiB, or another startMiB"}
}

// place finds room in t: at first, or in the largest free block; for size sectors, or to the end of the largest block, in which first
// must be then.
func (b *builder) place(t *gpt.Table, first, size *uint64) (extent, error) {
	blocks := t.Free()
	unit := uint64(1<<20) / uint64(b.sector)
	var largest extent
	for _, f := range blocks {
		from := (f.First + unit - 1) / unit * unit
		if from <= f.Last && (largest == extent{} || f.Last-from > largest.last-largest.first) {
			largest = extent{from, f.Last}
		}
	}
	if (largest == extent{}) {
		return extent{}, fmt.Errorf("no free MiB on the disk")
	}
	if first == nil {
		first = &largest.first
	}
	if size == nil {
		if *first < largest.first || *first > largest.last {
			return extent{}, fmt.Errorf("the largest free block from %s on, and the start at %s outside it", b.bytes(largest.first), b.bytes(*first))
		}
		last := largest.last
		if end := (last + 1) / unit * unit; end > *first {
			last = end - 1
		}
		return extent{*first, last}, nil
	}
	for _, f := range blocks {
		if *first < f.First || *first > f.Last {
			continue
		}
		if free := f.Last - *first + 1; *size > free {
			return extent{}, fmt.Errorf("%s free at %s, %s wanted", b.bytes(free), b.bytes(*first), b.bytes(*size))
		}
		return extent{*first, *first + *size - 1}, nil
	}
	return extent{}, fmt.Errorf("nothing free at %s", b.bytes(*first))
}

// bytes shows a number of sectors.
func (b *builder) bytes(sectors uint64) string {
	n := int64(sectors) * b.sector
	if n%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d bytes", n)
}

// mismatch says how q, which is there, differs from what the config says, "" if it does not.
func (b *builder) mismatch(p numbered, q gpt.Partition) string {
	if why := b.mismatchBesidesSize(p, q); why != "" {
		return why
	}
	if p.SizeMiB == nil || *p.SizeMiB == 0 && p.Number == 0 {
		return ""
	}
	want := b.sectors(p.SizeMiB)
	if e, ok := b.real[p.index]; ok {
		want = e.last - e.first + 1
	}
	// Others end the last partition on the last sector and not on the last whole MiB.
	unit := uint64(1<<20) / uint64(b.sector)
	if *p.SizeMiB == 0 && q.Sectors() >= want && q.Sectors() < want+unit {
		return ""
	}
	if want != q.Sectors() {
		return fmt.Sprintf("size is %s, not %s", b.bytes(q.Sectors()), b.bytes(want))
	}
	return ""
}

func (b *builder) mismatchBesidesSize(p numbered, q gpt.Partition) string {
	if p.StartMiB != nil {
		want := b.sectors(p.StartMiB)
		if e, ok := b.real[p.index]; ok {
			want = e.first
		}
		if want != q.FirstLBA && !(*p.StartMiB == 0 && p.Number == 0) {
			return fmt.Sprintf("start is %s, not %s", b.bytes(q.FirstLBA), b.bytes(want))
		}
	}
	switch {
	case util.NotEmpty(p.GUID) && !strings.EqualFold(*p.GUID, q.GUID.String()):
		return fmt.Sprintf("GUID is %s, not %s", q.GUID, strings.ToLower(*p.GUID))
	case util.NotEmpty(p.TypeGUID) && !strings.EqualFold(*p.TypeGUID, q.TypeGUID.String()):
		return fmt.Sprintf("type is %s, not %s", q.TypeGUID, strings.ToLower(*p.TypeGUID))
	case p.Label != nil && *p.Label != q.Name:
		return fmt.Sprintf("label is %q, not %q", q.Name, *p.Label)
	}
	return ""
}

// decide is the matrix. As sgdisk is told to, it takes partitions away before it makes others.
func (b *builder) decide(parts []numbered) error {
	var create []Change
	for _, p := range parts {
		q, exists := b.find(p)
		wanted, wipe := !util.IsFalse(p.ShouldExist), util.IsTrue(p.WipePartitionEntry)
		c := Change{Index: p.index, Was: q}
		if exists {
			c.Why = b.mismatch(p, q)
		}
		switch {
		case !exists && !wanted:
			c.Kind = Absent
		case !exists:
			c.Kind = Create
		case !wanted && !wipe:
			return &Refusal{p.index, fmt.Sprintf("partition %d exists", p.Number), "none, as shouldExist is false", fmt.Sprintf("%q, %s", q.Name, b.bytes(q.Sectors())),
				"set \"wipePartitionEntry\": true to delete it"}
		case !wanted:
			c.Kind, c.Why = Delete, ""
		case c.Why == "":
			c.Kind, c.Is = Keep, q
		case wipe:
			c.Kind = Replace
		case util.IsTrue(p.Resize) && b.mismatchBesidesSize(p, q) == "":
			c.Kind = Resize
		default:
			return &Refusal{p.index, fmt.Sprintf("partition %d does not match", q.Number), "a partition as the config describes it", c.Why,
				"correct the config, or set \"wipePartitionEntry\": true to replace it; what it holds is lost then"}
		}
		if c.Kind == Delete || c.Kind == Replace || c.Kind == Resize {
			b.now.Partitions = slices.DeleteFunc(b.now.Partitions, func(r gpt.Partition) bool { return r.Number == q.Number })
			b.changed = true
		}
		if c.Kind == Create || c.Kind == Replace || c.Kind == Resize {
			create = append(create, c)
			continue
		}
		b.plan.Changes = append(b.plan.Changes, c)
	}
	for _, c := range create {
		p := numbered{c.Index, parts[slices.IndexFunc(parts, func(p numbered) bool { return p.index == c.Index })].Partition}
		is, err := b.make(p, c)
		if err != nil {
			return err
		}
		c.Is, b.changed = is, true
		b.now.Partitions = append(b.now.Partitions, is)
		b.plan.Changes = append(b.plan.Changes, c)
	}
	sort.SliceStable(b.plan.Changes, func(i, j int) bool { return b.plan.Changes[i].Index < b.plan.Changes[j].Index })
	return nil
}

// make describes a partition that is new, or has a new size.
func (b *builder) make(p numbered, c Change) (gpt.Partition, error) {
	e, ok := b.real[p.index]
	var first, size *uint64
	if p.StartMiB != nil {
		if first = &e.first; !ok && *p.StartMiB != 0 {
			*first = b.sectors(p.StartMiB)
		} else if !ok {
			first = nil
		}
	}
	if p.SizeMiB != nil && *p.SizeMiB != 0 {
		n := b.sectors(p.SizeMiB)
		size = &n
	} else if p.SizeMiB != nil && ok {
		n := e.last - e.first + 1
		size = &n
	}
	is := gpt.Partition{Number: p.Number, TypeGUID: gpt.TypeLinux}
	if c.Kind == Resize {
		is = c.Was
		first = &c.Was.FirstLBA
	}
	at, err := b.place(b.now, first, size)
	if err != nil {
		return is, b.noRoom(p, err)
	}
	is.FirstLBA, is.LastLBA = at.first, at.last
	if c.Kind == Resize {
		return is, nil
	}
	for n := 1; is.Number == 0; n++ {
		if !slices.ContainsFunc(b.now.Partitions, func(q gpt.Partition) bool { return q.Number == n }) {
			is.Number = n
		}
	}
	if p.Label != nil {
		is.Name = *p.Label
	}
	if util.NotEmpty(p.TypeGUID) {
		is.TypeGUID = gpt.GUID(strings.ToLower(*p.TypeGUID))
	}
	if is.GUID = b.id(); util.NotEmpty(p.GUID) {
		is.GUID = gpt.GUID(strings.ToLower(*p.GUID))
	}
	return is, nil
}
