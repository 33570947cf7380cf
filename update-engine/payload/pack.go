package payload

import (
	"bytes"
	"context"
	"fmt"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

// A Packer packs streams on the release desk. The best one is in package squeeze; Fast is for those who cannot wait.
type Packer interface {
	// Pack returns data packed with the codec that it names, Zstd or Bzip2. If there is a prefix the codec is Zstd, and whoever
	// unpacks the frame is given the same prefix. The same arguments give the same bytes.
	Pack(ctx context.Context, data, prefix []byte) (Codec, []byte, error)
}

// Options are the release desk's choices.
type Options struct {
	Packer  Packer // Fast{} if nil
	Workers int    // how many segments or files are worked on at once; GOMAXPROCS if 0
	Segment int64  // greatest number of made bytes in a segment; if 0, what is best
}

func (o Options) withDefaults() Options {
	if o.Packer == nil {
		o.Packer = Fast{}
	}
	if o.Workers < 1 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Segment < 1 || o.Segment > MaxSegment {
		o.Segment = MaxSegment
	}
	return o
}

// Fast packs with zstd at a low level, in this process.
type Fast struct{}

// Pack implements Packer.
func (Fast) Pack(_ context.Context, data, prefix []byte) (Codec, []byte, error) {
	o := []zstd.EOption{zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(window(len(prefix) + len(data))), zstd.WithSingleSegment(true)}
	if len(prefix) > 0 {
		o = append(o, zstd.WithEncoderDictRaw(0, prefix))
	}
	// One encoder a stream: the bytes then depend on nothing but the stream.
	e, err := zstd.NewWriter(nil, o...)
	if err != nil {
		return Zstd, nil, fmt.Errorf("pack zstd: %w", err)
	}
	defer e.Close()
	return Zstd, e.EncodeAll(data, nil), nil
}

// window is the smallest one in which all of n bytes are seen, or the largest that there may be: the encoder clears two of them for each stream,
// which for a short one takes longer than all the rest.
func window(n int) int {
	w := zstd.MinWindowSize
	for w < n && w < maxZstdWindow {
		w *= 2
	}
	return w
}

// pack packs a stream as well as it can be; the blob of Zeros is nil.
func pack(ctx context.Context, p Packer, data, prefix []byte) (Stream, []byte, error) {
	s := Stream{Codec: Zeros, Length: int64(len(data))}
	if isZero(data) {
		return s, nil, nil
	}
	c, blob, err := p.Pack(ctx, data, prefix)
	if err != nil {
		return s, nil, err
	}
	if len(blob) >= len(data) {
		c, blob = Raw, data
	}
	s.Codec, s.Stored = c, int64(len(blob))
	return s, blob, nil
}

func isZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }
