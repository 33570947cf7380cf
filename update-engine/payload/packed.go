package payload

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/column"
	"github.com/proa-os/proa/update-engine/residue"
)

// A segmentPacker packs segments of one output.
type segmentPacker struct {
	packer   Packer
	in       Input
	space    space
	external int64
	prefix   int64      // bytes before a segment that it may refer to, at most
	models   *sync.Pool // of package residue; nil to do without
}

// worthModelling is from how many bytes on, of a diff stream as it is packed otherwise, package residue is asked, too.
const worthModelling = 2 << 10

// packed is a segment and its blob, stream by stream.
type packed struct {
	seg   Segment
	blobs [][]byte
	// residue is the diff stream in a smaller way that takes time to unpack; its length is 0 if there is none.
	residue []byte
	work    int // of unpacking it, as package residue counts it
}

// pack describes a segment in the way that takes the fewest bytes.
func (p segmentPacker) pack(ctx context.Context, t task) (packed, error) {
	made, err := p.read(t)
	if err != nil {
		return packed{}, err
	}
	t.seg.SHA256 = digest.Of(made)
	streams, ok, err := p.streams(t, made)
	if err != nil {
		return packed{}, err
	}
	if !ok || isZero(made) {
		return p.replace(ctx, t, made)
	}
	// To pack a segment as well as possible takes seconds: first it is guessed which way leads anywhere.
	const (
		best = 0.7 // what the best packer makes of what the fast one leaves, at most
		few  = 32  // times less than the segment is less than what it could be replaced with
	)
	quick := segmentPacker{packer: Fast{}, in: p.in, space: p.space, external: p.external, prefix: p.prefix}
	d, err := quick.diff(ctx, t, streams)
	if err != nil {
		return packed{}, err
	}
	if d.seg.Stored()*few < t.seg.Length {
		return p.diff(ctx, t, streams)
	}
	r, err := quick.replace(ctx, t, made)
	if err != nil {
		return packed{}, err
	}
	if float64(d.seg.Stored())*best > float64(r.seg.Stored()) {
		return p.replace(ctx, t, made)
	}
	hopeless := float64(r.seg.Stored())*best > float64(d.seg.Stored())
	if d, err = p.diff(ctx, t, streams); err != nil || hopeless {
		return d, err
	}
	if r, err = p.replace(ctx, t, made); err != nil || r.seg.Stored() < d.seg.Stored() {
		return r, err
	}
	return d, nil
}

// read returns the made bytes of a segment.
func (p segmentPacker) read(t task) ([]byte, error) {
	b := make([]byte, 0, t.seg.Length)
	for c := t.at; int64(len(b)) < t.seg.Length; {
		c.skipCopies()
		n, _ := c.here()
		n = min(n, t.seg.Length-int64(len(b)))
		piece := b[len(b) : int64(len(b))+n]
		if k, err := p.in.R.ReadAt(piece, c.at); int64(k) != n {
			return nil, fmt.Errorf("read %d bytes at %d: %w", n, c.at, truncated(err))
		}
		b = b[:int64(len(b))+n]
		c.step(n)
	}
	return b, nil
}

// replace has what the output holds before the segment as prefix, or what is more like it, if that is better.
func (p segmentPacker) replace(ctx context.Context, t task, made []byte) (packed, error) {
	best, err := p.replaceWith(ctx, t, made, nearPrefix(t, p.prefix, p.external))
	if err != nil || t.kin.Length == 0 {
		return best, err
	}
	if far, err := p.replaceWith(ctx, t, made, t.kin); err != nil || far.seg.Stored() < best.seg.Stored() {
		return far, err
	}
	return best, nil
}

// nearPrefix is what the output, which begins at a source address, holds before a segment, of at most n bytes.
func nearPrefix(t task, n, base int64) Range {
	n = min(t.at.at, n)
	return Range{At: base + t.at.at - n, Length: n}
}

func (p segmentPacker) replaceWith(ctx context.Context, t task, made []byte, prefix Range) (packed, error) {
	t.seg.Op = Replace
	b := make([]byte, prefix.Length)
	if err := p.space.read(b, prefix.At); err != nil {
		return packed{}, err
	}
	s, blob, err := pack(ctx, p.packer, made, b)
	if err != nil {
		return packed{}, err
	}
	t.seg.Streams[0] = s
	if s.Codec == Zstd && prefix.Length > 0 {
		t.seg.Prefix = prefix
	}
	return packed{seg: t.seg, blobs: [][]byte{blob}}, nil
}

// A diff's streams, and what the second of them was subtracted from.
type streams struct {
	op                   Op
	control, diff, extra []byte
	old                  []byte
	places               []residue.Place
	ranges               []column.Range
}

// streams returns false if there are no instructions, or too many for one segment.
func (p segmentPacker) streams(t task, made []byte) (s streams, ok bool, err error) {
	var shift, added int64
	for _, x := range t.instructions {
		added += x.add
	}
	s.diff, s.old = make([]byte, 0, added), make([]byte, 0, added)
	s.extra = make([]byte, 0, int64(len(made))-added)
	c := t.at
	for _, x := range t.instructions {
		if x.add == 0 {
			x.shift = shift // whatever it is, nothing is read
		}
		s.control = binary.AppendVarint(s.control, x.shift-shift)
		s.control = binary.AppendUvarint(s.control, uint64(x.add))
		s.control = binary.AppendUvarint(s.control, uint64(x.extra))
		shift = x.shift
		if err := p.subtract(&s, made[:x.add], x.shift, &c, t.tables); err != nil {
			return s, false, err
		}
		s.extra = append(s.extra, made[x.add:x.add+x.extra]...)
		made = made[x.add+x.extra:]
		c.skipMade(x.extra)
	}
	s.op = Diff
	s.ranges = s.ranges[:min(len(s.ranges), maxRanges)]
	if len(s.control) > 0 && len(s.ranges) > 0 {
		s.op, s.control = Fit, append(rangesText(s.ranges), s.control...)
		column.New().Pack(s.diff, s.old, s.ranges)
	}
	return s, len(s.control) > 0 && len(s.control) <= maxControl, nil
}

// mostlyCode reports whether most of the differences are not in records: what is left of those after the prediction is not worth a machine's
// work.
func (s streams) mostlyCode() bool {
	all, inside := 0, 0
	for _, v := range s.diff {
		if v != 0 {
			all++
		}
	}
	for _, r := range s.ranges {
		for _, v := range s.diff[r.At:r.End()] {
			if v != 0 {
				inside++
			}
		}
	}
	return inside*3 <= all
}

// subtract appends the differences of made bytes, the first of which is at c, to the source at a shift; it leaves c behind them.
func (p segmentPacker) subtract(s *streams, made []byte, shift int64, c *cursor, tables []table) error {
	for len(made) > 0 {
		c.skipCopies()
		n, _ := c.here()
		n = min(n, int64(len(made)))
		known := len(s.old)
		s.old = s.old[:known+int(n)] // as much was made
		old := s.old[known:]
		if err := p.space.read(old, c.at+shift); err != nil {
			return err
		}
		s.ranges = appendRanges(s.ranges, tables, len(s.diff), c.at, n, shift)
		for i, b := range old {
			s.diff = append(s.diff, made[i]-b)
		}
		s.places = appendPlace(s.places, residue.Place{Length: int(n), At: c.at, Shift: shift})
		made = made[n:]
		c.step(n)
	}
	return nil
}

// diff packs the three streams of a segment.
func (p segmentPacker) diff(ctx context.Context, t task, s streams) (packed, error) {
	t.seg.Op = s.op
	var out packed
	for i, b := range [][]byte{s.control, s.diff, s.extra} {
		stream, blob, err := pack(ctx, p.packer, b, nil)
		if err != nil {
			return packed{}, err
		}
		t.seg.Streams[i] = stream
		out.blobs = append(out.blobs, blob)
	}
	out.seg = t.seg
	if stored := t.seg.Streams[1].Stored; p.models != nil && stored >= worthModelling && s.mostlyCode() {
		m := p.models.Get().(*residue.Model)
		defer p.models.Put(m)
		if b := m.Encode(s.diff, s.old, s.places); int64(len(b)) < stored {
			out.residue, out.work = b, m.Work()
		}
	}
	return out, nil
}
