package payload

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/proa-os/proa/internal/digest"
)

// A segmentPacker packs segments of one output.
type segmentPacker struct {
	packer   Packer
	in       Input
	space    space
	external int64
}

// packed is a segment and its blob, stream by stream.
type packed struct {
	seg   Segment
	blobs [][]byte
}

// pack describes a segment in the way that takes the fewest bytes.
func (p segmentPacker) pack(ctx context.Context, t task) (packed, error) {
	made, err := p.read(t)
	if err != nil {
		return packed{}, err
	}
	t.seg.SHA256 = digest.Of(made)
	if len(t.instructions) == 0 || isZero(made) {
		return p.replace(ctx, t, made)
	}
	d, err := p.diff(ctx, t, made)
	if err != nil {
		return packed{}, err
	}
	// To pack a segment as well as possible takes a second or more: first it is guessed whether that can lead anywhere.
	const small, best = 4 << 10, 0.7 // bytes, and what the best packer makes of what the fast one leaves, at most
	if d.seg.Length > 0 && d.seg.Stored() < small {
		return d, nil
	}
	quick := segmentPacker{Fast{}, p.in, p.space, p.external}
	r, err := quick.replace(ctx, t, made)
	if err != nil || d.seg.Length > 0 && float64(r.seg.Stored())*best > float64(d.seg.Stored()) {
		return d, err
	}
	if r, err = p.replace(ctx, t, made); err != nil {
		return packed{}, err
	}
	if d.seg.Length > 0 && d.seg.Stored() <= r.seg.Stored() {
		return d, nil
	}
	return r, nil
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

// replace has what the output holds before the segment as prefix.
func (p segmentPacker) replace(ctx context.Context, t task, made []byte) (packed, error) {
	t.seg.Op = Replace
	n := min(t.at.at, MaxPrefix)
	prefix := make([]byte, n)
	if k, err := p.in.R.ReadAt(prefix, t.at.at-n); int64(k) != n && err != io.EOF {
		return packed{}, fmt.Errorf("read %d bytes at %d: %w", n, t.at.at-n, err)
	}
	s, blob, err := pack(ctx, p.packer, made, prefix)
	if err != nil {
		return packed{}, err
	}
	t.seg.Streams[0] = s
	if s.Codec == Zstd && n > 0 {
		t.seg.Prefix = Range{At: p.external + t.at.at - n, Length: n}
	}
	return packed{t.seg, [][]byte{blob}}, nil
}

// diff packs the three streams of a segment. If the instructions are too many for one, the length of the result is zero.
func (p segmentPacker) diff(ctx context.Context, t task, made []byte) (packed, error) {
	t.seg.Op = Diff
	var streams [3][]byte
	var shift int64
	c := t.at
	for _, x := range t.instructions {
		if x.add == 0 {
			x.shift = shift // whatever it is, nothing is read
		}
		streams[0] = binary.AppendVarint(streams[0], x.shift-shift)
		streams[0] = binary.AppendUvarint(streams[0], uint64(x.add))
		streams[0] = binary.AppendUvarint(streams[0], uint64(x.extra))
		shift = x.shift
		diff, err := p.subtract(made[:x.add], x.shift, &c)
		if err != nil {
			return packed{}, err
		}
		streams[1] = append(streams[1], diff...)
		streams[2] = append(streams[2], made[x.add:x.add+x.extra]...)
		made = made[x.add+x.extra:]
		c.skipMade(x.extra)
	}
	if len(streams[0]) > maxControl {
		return packed{}, nil
	}
	var out packed
	for i, b := range streams {
		s, blob, err := pack(ctx, p.packer, b, nil)
		if err != nil {
			return packed{}, err
		}
		t.seg.Streams[i] = s
		out.blobs = append(out.blobs, blob)
	}
	out.seg = t.seg
	return out, nil
}

// subtract returns the differences of made bytes, the first of which is at c, to the source at a shift; it leaves c behind them.
func (p segmentPacker) subtract(made []byte, shift int64, c *cursor) ([]byte, error) {
	diff := make([]byte, len(made))
	for rest := diff; len(rest) > 0; {
		c.skipCopies()
		n, _ := c.here()
		n = min(n, int64(len(rest)))
		if err := p.space.read(rest[:n], c.at+shift); err != nil {
			return nil, err
		}
		rest = rest[n:]
		c.step(n)
	}
	for i, b := range made {
		diff[i] = b - diff[i]
	}
	return diff, nil
}
