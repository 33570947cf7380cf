package payload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"github.com/proa-os/proa/internal/digest"
)

// An Input is an output as the release desk has it.
type Input struct {
	Kind Kind
	R    io.ReaderAt
	Size int64 // bytes
}

// Create writes a full payload that makes the inputs, whose kinds ascend, and returns its manifest. The same inputs give the same
// bytes on every host. progress, if not nil, is told how many of how many input bytes are done.
func Create(ctx context.Context, w io.WriteSeeker, inputs []Input, progress func(done, total int64)) (*Manifest, error) {
	m, total, err := outline(inputs)
	if err != nil {
		return nil, fmt.Errorf("make payload: %w", err)
	}
	// All fields have fixed sizes, so the place of the first blob is known before its content is.
	if _, err := w.Seek(int64(len(m.encode())), io.SeekStart); err != nil {
		return nil, fmt.Errorf("make payload: %w", err)
	}
	var done int64
	for i, in := range inputs {
		err := pack(ctx, w, in, &m.Outputs[i], func(n int64) {
			if done += n; progress != nil {
				progress(done, total)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("make payload: %s: %w", in.Kind, err)
		}
	}
	if _, err := w.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("make payload: %w", err)
	}
	head := m.encode()
	if _, err := w.Write(head); err != nil {
		return nil, fmt.Errorf("make payload: write manifest: %w", err)
	}
	m.digest = digest.Of(head)
	return m, nil
}

// outline makes a manifest whose segments have their lengths only.
func outline(inputs []Input) (*Manifest, int64, error) {
	if len(inputs) < 1 || len(inputs) > maxOutputs {
		return nil, 0, fmt.Errorf("%d inputs, want 1 or %d", len(inputs), maxOutputs)
	}
	m := &Manifest{}
	var total int64
	for i, in := range inputs {
		if in.Size < 1 || i > 0 && in.Kind <= inputs[i-1].Kind {
			return nil, 0, fmt.Errorf("input %d (%s) is empty or out of order", i, in.Kind)
		}
		o := Output{Kind: in.Kind, Size: in.Size}
		for left := in.Size; left > 0; left -= MaxSegment {
			o.Segments = append(o.Segments, Segment{Op: Replace, Length: min(left, MaxSegment)})
		}
		m.Outputs = append(m.Outputs, o)
		total += in.Size
	}
	m.size = int64(len(m.encode()) - headerSize)
	if m.size > maxManifest {
		return nil, 0, fmt.Errorf("manifest of %d bytes, at most %d are allowed: the input is too big", m.size, maxManifest)
	}
	return m, total, nil
}

// pack compresses the segments of one output, a few at a time, and writes the blobs in order.
func pack(ctx context.Context, w io.Writer, in Input, o *Output, done func(int64)) error {
	type packed struct {
		seg  Segment
		data []byte // target bytes, for the hash of the whole
		blob []byte
		err  error
	}
	// Each segment has a channel of its own in the queue, so that the order of the queue is the order of the blobs
	// whoever finishes first; the queue's length bounds the memory.
	queue := make(chan chan packed, runtime.GOMAXPROCS(0))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(queue)
		var off int64
		for _, seg := range o.Segments {
			result := make(chan packed, 1)
			select {
			case queue <- result:
			case <-ctx.Done():
				return
			}
			go func(seg Segment, off int64) {
				data, blob, err := packSegment(in.R, off, &seg)
				result <- packed{seg, data, blob, err}
			}(seg, off)
			off += seg.Length
		}
	}()
	whole := sha256.New()
	i := 0
	for result := range queue {
		p := <-result
		if p.err != nil {
			return p.err
		}
		whole.Write(p.data)
		if _, err := w.Write(p.blob); err != nil {
			return fmt.Errorf("write blob: %w", err)
		}
		o.Segments[i] = p.seg
		i++
		done(p.seg.Length)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	o.SHA256 = digest.SHA256(whole.Sum(nil))
	return nil
}

// packSegment reads seg.Length bytes at off, fills in the rest of seg and returns the bytes and the blob.
func packSegment(r io.ReaderAt, off int64, seg *Segment) (data, blob []byte, err error) {
	data = make([]byte, seg.Length)
	if n, err := r.ReadAt(data, off); int64(n) != seg.Length {
		return nil, nil, fmt.Errorf("read %d bytes at %d: %w", seg.Length, off, truncated(err))
	}
	seg.SHA256 = digest.Of(data)
	if len(bytes.TrimLeft(data, "\x00")) == 0 {
		seg.Codec = Zeros
		return data, nil, nil
	}
	// One encoder a segment: the bytes then depend on nothing but the segment.
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(MaxSegment),
		zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, nil, err
	}
	defer e.Close()
	blob = e.EncodeAll(data, nil)
	seg.Codec = Zstd
	if len(blob) >= len(data) {
		seg.Codec, blob = Raw, data
	}
	seg.Stored = int64(len(blob))
	return data, blob, nil
}
