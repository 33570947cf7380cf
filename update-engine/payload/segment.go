package payload

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/column"
	"github.com/proa-os/proa/update-engine/residue"
)

// make returns the verified bytes of a segment whose first one is at c; they are good until the next call.
func (a *applier) make(s Segment, c cursor) ([]byte, error) {
	var err error
	if s.Op == Replace {
		err = a.replace(s)
	} else {
		err = a.diff(s, c)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Op, err)
	}
	a.read += s.Stored()
	made := a.memory.made(s.Length)
	if got := digest.Of(made); got != s.SHA256 {
		return nil, damaged(fmt.Errorf("%s: expected sha256 %s, found %s: damaged, nothing of it was written", s.Op, s.SHA256, got))
	}
	if n, _ := c.here(); s.Op == Replace && n >= s.Length {
		a.memory.keep(a.m.external(a.kind)+c.at, s.Length)
	}
	return made, nil
}

func (a *applier) replace(s Segment) error {
	stream := s.Streams[0]
	if s.Prefix.Length > 0 {
		return a.unpackBehind(s.Prefix, stream)
	}
	a.memory.settle()
	if stream.Codec == Zstd {
		return a.unpackZstd(a.memory.behind(0, s.Length), a.memory.last(stream.Stored))
	}
	return a.unpack(a.memory.made(s.Length), stream, nil)
}

// unpackBehind reads a frame that refers to a prefix and unpacks both behind each other.
func (a *applier) unpackBehind(prefix Range, s Stream) error {
	var first [zstd.HeaderMaxSize]byte
	head := first[:min(s.Stored, int64(len(first)))]
	if _, err := io.ReadFull(a.body, head); err != nil {
		return truncated(err)
	}
	skip, err := blocksOf(head, s.Length)
	if err != nil {
		return damaged(err)
	}
	head = head[skip:]
	frame, err := a.memory.prefixed(prefix, s.Length, s.Stored-skip, a.space)
	if err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	blocks := frame[int64(len(frame))-(s.Stored-skip):]
	if _, err := io.ReadFull(a.body, blocks[copy(blocks, head):]); err != nil {
		return truncated(err)
	}
	return damaged(unzstd(a.zstd, a.memory.behind(prefix.Length, s.Length), frame))
}

// unpackZstd reads a frame into packed and fills out with what it holds.
func (a *applier) unpackZstd(out, packed []byte) error {
	if _, err := io.ReadFull(a.body, packed); err != nil {
		return truncated(err)
	}
	return damaged(unzstd(a.zstd, out, packed))
}

// unpack reads a stream and fills out with what it holds. It may use memory that nobody needs meanwhile: as many bytes as a zstd stream is
// stored in, at least.
func (a *applier) unpack(out []byte, s Stream, work []byte) error {
	switch s.Codec {
	case Zeros:
		clear(out)
		return nil
	case Raw:
		_, err := io.ReadFull(a.body, out)
		return truncated(err)
	}
	// The whole stream first: an error of the network is then never taken for one of the codec.
	if s.Codec == Zstd {
		return a.unpackZstd(slices.Clip(out), work[:s.Stored])
	}
	packed := a.packed[:s.Stored]
	if _, err := io.ReadFull(a.body, packed); err != nil {
		return truncated(err)
	}
	return damaged(a.bzip2.Unpack(out, packed, work))
}

// diff makes a segment of what the sources have at the addresses behind c.
func (a *applier) diff(s Segment, c cursor) error {
	control := a.control[:s.Streams[0].Length]
	if err := a.unpack(control, s.Streams[0], a.memory.idle()); err != nil {
		return fmt.Errorf("control stream: %w", err)
	}
	var ranges []column.Range
	if s.Op == Fit {
		var err error
		if ranges, control, err = parseRanges(control, s.Streams[1].Length); err != nil {
			return damaged(fmt.Errorf("control stream: %w", err))
		}
	}
	if err := checkControl(control, s); err != nil {
		return damaged(fmt.Errorf("control stream: %w", err))
	}
	streams, made := a.memory.scratch(s.Length), a.memory.made(s.Length)
	added, extra := streams[:s.Streams[1].Length], streams[s.Streams[1].Length:]
	old := made[:len(added)]
	modelled := s.Streams[1].Codec == Residue
	if !modelled {
		if err := a.unpack(added, s.Streams[1], a.memory.idle()); err != nil {
			return fmt.Errorf("diff stream: %w", err)
		}
		if err := a.extra(extra, s.Streams[2], a.memory.idle()); err != nil {
			return err
		}
	}
	places, err := a.old(old, control, c)
	if err != nil {
		return err
	}
	if modelled { // which looks at the old bytes, too
		if err := a.residue(added, s.Streams[1], old, places); err != nil {
			return fmt.Errorf("diff stream: %w", err)
		}
		if err := a.extra(extra, s.Streams[2], a.memory.idle()[len(old):]); err != nil {
			return err
		}
	}
	a.unpredict(added, old, ranges)
	addBytes(added, old)
	return eachInstruction(control, func(_, add, n int64) error {
		copy(made, added[:add])
		copy(made[add:], extra[:n])
		made, added, extra = made[add+n:], added[add:], extra[n:]
		return nil
	})
}

func (a *applier) extra(out []byte, s Stream, work []byte) error {
	if err := a.unpack(out, s, work); err != nil {
		return fmt.Errorf("extra stream: %w", err)
	}
	return nil
}

// unpredict makes differences to the old bytes of those to what was predicted.
func (a *applier) unpredict(added, old []byte, ranges []column.Range) {
	if len(ranges) == 0 {
		return
	}
	if a.columns == nil {
		a.columns = column.New()
	}
	a.columns.Unpack(added, old, ranges)
}

// old reads what the instructions add to, and says where it is, until the next call.
func (a *applier) old(b, control []byte, c cursor) ([]residue.Place, error) {
	limit := a.m.external(a.kind)
	a.places = a.places[:0]
	err := eachInstruction(control, func(shift, add, extra int64) error {
		for add > 0 {
			c.skipCopies()
			n, _ := c.here()
			n = min(n, add)
			if at := c.at + shift; at < 0 || at > limit-n {
				return damaged(fmt.Errorf("reads %d bytes at %d of the source, which has %d", n, at, limit))
			}
			if err := a.nearby.read(b[:n], c.at+shift, a.space, limit); err != nil {
				return err
			}
			a.places = appendPlace(a.places, residue.Place{Length: int(n), At: c.at, Shift: shift})
			c.step(n)
			b, add = b[n:], add-n
		}
		c.skipMade(extra)
		return nil
	})
	return a.places, err
}

// appendPlace joins a place to the last one if it goes on there.
func appendPlace(list []residue.Place, p residue.Place) []residue.Place {
	if k := len(list) - 1; k >= 0 && list[k].Shift == p.Shift && list[k].At+int64(list[k].Length) == p.At {
		list[k].Length += p.Length
		return list
	}
	return append(list, p)
}

func (a *applier) residue(out []byte, s Stream, old []byte, places []residue.Place) error {
	packed := a.packed[:s.Stored]
	if _, err := io.ReadFull(a.body, packed); err != nil {
		return truncated(err)
	}
	if a.model == nil {
		a.model = residue.NewModel()
	}
	a.model.Decode(out, packed, old, places)
	return nil
}

// addBytes adds each byte of b to the one of a at the same place, modulo 256.
func addBytes(a, b []byte) {
	const low, high = 0x7f7f7f7f7f7f7f7f, 0x8080808080808080
	le := binary.LittleEndian
	for len(b) >= 8 {
		x, y := le.Uint64(a), le.Uint64(b)
		if x != 0 { // nearly always there is no difference
			y = (x&low + y&low) ^ (x^y)&high // no carry from byte to byte
		}
		le.PutUint64(a, y)
		a, b = a[8:], b[8:]
	}
	for i, v := range b {
		a[i] += v
	}
}

var errControl = errors.New("its instructions do not make the segment")

// checkControl refuses instructions that do not use up the streams exactly.
func checkControl(control []byte, s Segment) error {
	diff, extra := s.Streams[1].Length, s.Streams[2].Length
	err := eachInstruction(control, func(_, add, n int64) error {
		if diff, extra = diff-add, extra-n; diff < 0 || extra < 0 || add+n == 0 {
			return errControl
		}
		return nil
	})
	if err == nil && (diff != 0 || extra != 0) {
		err = errControl
	}
	if err == errControl {
		return fmt.Errorf("%w of %d bytes, %d of the diff and %d of the extra stream", err, s.Length, s.Streams[1].Length, s.Streams[2].Length)
	}
	return err
}

// eachInstruction calls f for each instruction of a control stream.
func eachInstruction(control []byte, f func(shift, add, extra int64) error) error {
	s := scanner{b: control}
	var shift int64
	for len(s.b) > 0 {
		shift += s.int()
		add, extra := s.uint(), s.uint()
		if s.err != nil {
			return s.err
		}
		if err := f(shift, add, extra); err != nil {
			return err
		}
	}
	return nil
}
