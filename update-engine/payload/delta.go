package payload

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/bsdiff"
	"github.com/proa-os/proa/update-engine/extent"
	"github.com/proa-os/proa/update-engine/module"
	"github.com/proa-os/proa/update-engine/residue"
)

// MaxShare is the percentage of the full payload above which a delta is not worth its keeping: a machine had better take the full one.
const MaxShare = 60

// Worthwhile reports whether a delta of that many bytes is to be published beside a full payload of that many.
func Worthwhile(delta, full int64) bool { return delta*100 <= full*MaxShare }

// A Delta is what CreateDelta compares. Root images are without their verity trees.
type Delta struct {
	Source           digest.SHA256 // root hash of the old root image
	OldRoot, OldBoot Input
	NewRoot, NewBoot Input
}

// CreateDelta writes a payload that makes the new root image and boot program on a machine that runs the old ones, and returns its
// manifest. Images that package extent cannot read are compared block by block. The same images, options and packer give the same
// bytes. progress, if not nil, is told how many of how many bytes are done; each byte is looked at twice.
func CreateDelta(ctx context.Context, w io.Writer, images Delta, o Options, progress func(done, total int64)) (*Manifest, error) {
	images.OldRoot.Kind, images.NewRoot.Kind = RootImage, RootImage
	images.OldBoot.Kind, images.NewBoot.Kind = BootProgram, BootProgram
	m, err := createDelta(ctx, w, images, o.withDefaults(), progress)
	if err != nil {
		return nil, fmt.Errorf("make delta from root hash %s: %w", images.Source, err)
	}
	return m, nil
}

func createDelta(ctx context.Context, w io.Writer, images Delta, o Options, progress func(done, total int64)) (*Manifest, error) {
	if images.Source.IsZero() || images.OldRoot.Size < 1 || images.OldBoot.Size < 1 {
		return nil, fmt.Errorf("the source has no root hash, or a part of it is empty")
	}
	boot, _, err := digest.OfReader(io.NewSectionReader(images.OldBoot.R, 0, images.OldBoot.Size))
	if err != nil {
		return nil, fmt.Errorf("old %s: %w", BootProgram, err)
	}
	d := &draft{
		options: o, progress: progress, prefix: deltaPrefix, models: &sync.Pool{New: func() any { return residue.NewModel() }}, sources: [2]io.ReaderAt{images.OldRoot.R, images.OldBoot.R},
		m: &Manifest{Source: images.Source, RootSize: images.OldRoot.Size, Boot: boot, BootSize: images.OldBoot.Size},
	}
	if err := d.outputs([]Input{images.NewRoot, images.NewBoot}); err != nil {
		return nil, err
	}
	d.total *= 2
	plain := versionReadBy(images.OldRoot) < Version
	for i, c := range []comparison{
		{new: images.NewRoot, sources: []Input{images.OldRoot}, plain: plain},
		{new: images.NewBoot, sources: []Input{images.OldBoot, images.NewRoot}, plain: plain},
	} {
		l, err := d.compare(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.new.Kind, err)
		}
		if err := d.output(ctx, i, c.new, l); err != nil {
			return nil, err
		}
	}
	return d.m, d.write(w)
}

// A comparison is of a new image with those that follow each other in its source address space. The first of them is the one it
// was made from.
type comparison struct {
	new     Input
	sources []Input
	plain   bool // whoever applies the payload cannot read a Fit
}

func (c comparison) tables(old, new []byte) []module.Table {
	if c.plain {
		return nil
	}
	return module.Tables(old, new)
}

// A neighbour is a new piece of an output and the old one that is to be like it.
type neighbour struct {
	new, old extent.Extent // old's offset is a source address; its length is 0 if there is none
	equal    bool
}

// compare finds out how an image can be described.
func (d *draft) compare(ctx context.Context, c comparison) (layout, error) {
	before := d.done
	files, gaps, err := c.neighbours()
	if err != nil {
		// Not an image as image-builder makes them. The blocks that are nowhere in the sources are replaced.
		l, err := common(c.new, c.sources)
		d.show(c.new.Size)
		return l, err
	}
	pieces := gaps
	err = inOrder(ctx, d.options.Workers, slices.Values(files), c.describe(&sync.Pool{New: func() any { return new(bsdiff.Differ) }}), func(p piece) error {
		pieces = append(pieces, p)
		d.show(p.length())
		return nil
	})
	if err != nil {
		return layout{}, err
	}
	slices.SortFunc(pieces, func(a, b piece) int { return int(a.at - b.at) })
	var a assembly
	for _, p := range pieces {
		if a.at != p.at {
			return layout{}, fmt.Errorf("the extents leave bytes %d to %d out", a.at, p.at)
		}
		p.addTo(&a)
		a.tables = append(a.tables, p.tables...)
	}
	d.show(c.new.Size - (d.done - before))
	return a.layout(), nil
}

// neighbours pairs the files of the new image with those of the sources, and describes its gaps.
func (c comparison) neighbours() (files []neighbour, gaps []piece, err error) {
	var maps []*extent.Map
	var old []extent.Extent
	var base int64
	for _, s := range c.sources {
		m, err := readExtents(s)
		if err != nil {
			return nil, nil, err
		}
		for _, f := range m.Files {
			f.Offset += base
			old = append(old, f)
		}
		maps = append(maps, m)
		base += s.Size
	}
	m, err := readExtents(c.new)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range extent.Match(old, m.Files) {
		n := neighbour{new: m.Files[p.New], equal: p.Equal}
		if p.Old >= 0 {
			n.old = old[p.Old]
		}
		files = append(files, n)
	}
	gaps, err = c.gaps(maps[0].Gaps, m.Gaps)
	return files, gaps, err
}

func readExtents(in Input) (m *extent.Map, err error) {
	if in.Kind == RootImage {
		m, err = extent.Read(in.R, in.Size)
	} else {
		m, err = extent.ReadBoot(in.R, in.Size)
	}
	if err != nil {
		return nil, err
	}
	return m, m.Hash(in.R)
}

// gaps compares all that is between the files at once: a directory that has moved is found wherever it is now.
func (c comparison) gaps(old, new []extent.Extent) ([]piece, error) {
	before, err := gather(c.sources[0].R, old)
	if err != nil {
		return nil, err
	}
	after, err := gather(c.new.R, new)
	if err != nil {
		return nil, err
	}
	return scattered(bsdiff.Diff(before, after), old, new), nil
}

// scattered are the pieces of new ranges, whose content was gathered and compared with that of old ones.
func scattered(control []bsdiff.Control, old, new []extent.Extent) []piece {
	var pieces []piece
	parts := partsOf(control, old)
	for _, g := range new {
		p := piece{at: g.Offset}
		for left := g.Length; left > 0; {
			part := parts[0]
			n := min(part.length, left)
			part.length = n
			p.parts = append(p.parts, part)
			if left -= n; parts[0].length == n {
				parts = parts[1:]
				continue
			}
			parts[0].length -= n
			if parts[0].add {
				parts[0].from += n
			}
		}
		pieces = append(pieces, p)
	}
	return pieces
}

func gather(r io.ReaderAt, list []extent.Extent) ([]byte, error) {
	var b []byte
	for _, e := range list {
		piece := make([]byte, e.Length)
		if n, err := r.ReadAt(piece, e.Offset); int64(n) != e.Length {
			return nil, fmt.Errorf("read %d bytes at %d: %w", e.Length, e.Offset, truncated(err))
		}
		b = append(b, piece...)
	}
	return b, nil
}

// describe returns what compares a file with its neighbour.
func (c comparison) describe(differs *sync.Pool) func(context.Context, neighbour) (piece, error) {
	var all space
	for _, s := range c.sources {
		all = append(all, part{"old " + s.Kind.String(), s.R, s.Size})
	}
	return func(ctx context.Context, n neighbour) (piece, error) {
		p := piece{at: n.new.Offset}
		if n.old.Length == 0 || ctx.Err() != nil {
			p.parts = []pieceOf{{length: n.new.Length}}
			return p, ctx.Err()
		}
		content, err := gather(c.new.R, []extent.Extent{n.new})
		if err != nil {
			return p, err
		}
		old := make([]byte, n.old.Length)
		if err := all.read(old, n.old.Offset); err != nil {
			return p, err
		}
		if same := int64(commonPrefix(old[:min(len(old), len(content))], content)); n.equal && same >= n.new.Size {
			p.parts = []pieceOf{{length: same, copied: true, from: n.old.Offset}, {length: n.new.Length - same}}
			return p, nil
		}
		differ := differs.Get().(*bsdiff.Differ)
		defer differs.Put(differ)
		if tables := c.tables(old, content); len(tables) > 0 {
			return ofTables(tables, differ, n, old, content), nil
		}
		p.parts = partsOf(differ.Diff(old, content), []extent.Extent{n.old})
		return p, nil
	}
}
