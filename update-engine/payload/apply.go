package payload

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/proa-os/proa/internal/digest"
)

// Sources are what the operations of a delta read, and what a full payload's boot program reads of the new root image.
type Sources struct {
	Root     io.ReaderAt // the running root image, through its verity device: nothing else authenticates what is read here
	RootSize int64       // bytes
	Boot     io.ReaderAt // the boot program that started it
	BootSize int64       // bytes
	// NewRoot is the new root image when Apply begins behind it; otherwise what Sink.Begin returned for it is read back, which
	// then must be an io.ReaderAt too.
	NewRoot io.ReaderAt
}

// A Sink takes what a payload makes. The update agent's writes slots; Prove's writes temporary files and compares hashes, which proves
// a payload before it is published.
type Sink interface {
	// Begin is called before the first byte of an output, also when Apply takes up in the middle of it; Apply writes the output,
	// in ascending order, to what it returns, and reads it back there if that is an io.ReaderAt.
	Begin(Output) (io.WriterAt, error)
	// Checkpoint is called when something was written. Apply can begin at every Mark once what was written before it is on the disk.
	Checkpoint(Mark) error
	// Complete is called when all of an output was written, before the next one begins.
	Complete(Output) error
}

// A Mark is how far Apply has come. The zero Mark is the first blob.
type Mark struct {
	Kind    Kind
	Segment int   // index of the next segment of this output
	Written int64 // bytes of this output
	Read    int64 // bytes of the payload, header and manifest included
}

// Apply reads the blobs from body and writes the outputs in order, beginning at the mark from: body then stands at byte from.Read
// of the payload, or behind the manifest if from is the zero Mark. It compares every segment with its SHA-256 before it writes it, and
// reads body to its end, so that a digest.Reader there has its say. Memory: two segments and the decoder's window, about 20
// MB, whatever the size of the output.
func (m *Manifest) Apply(body io.Reader, src Sources, from Mark, sink Sink) error {
	a := applier{body: body, read: headerSize + m.size, buf: make([]byte, MaxSegment), blob: make([]byte, MaxSegment)}
	var err error
	a.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
	if err != nil {
		return fmt.Errorf("apply payload: %w", err)
	}
	defer a.zstd.Close()
	if from == (Mark{}) {
		from = Mark{Kind: m.Outputs[0].Kind, Read: a.read}
	}
	found := false
	for _, o := range m.Outputs {
		at := Mark{Kind: o.Kind, Read: a.read}
		if o.Kind == from.Kind {
			found = true
			at = from
			if want := m.mark(o, from.Segment); want != from {
				return fmt.Errorf("apply payload: %s: mark %+v is not a checkpoint of this payload, expected %+v", o.Kind, from, want)
			}
		}
		if !found {
			a.read = m.mark(o, len(o.Segments)).Read
			continue
		}
		if err := a.output(o, at, sink); err != nil {
			return fmt.Errorf("apply payload: %s: %w", o.Kind, err)
		}
	}
	if !found {
		return fmt.Errorf("apply payload: it makes no %s to go on with", from.Kind)
	}
	var one [1]byte
	switch n, err := io.ReadFull(body, one[:]); {
	case n > 0:
		return fmt.Errorf("apply payload: bytes behind the last blob, at %d", a.read)
	case err != io.EOF:
		return fmt.Errorf("apply payload: read end: %w", err)
	}
	return nil
}

// mark returns the checkpoint before segment i of o, or the end if there are fewer.
func (m *Manifest) mark(o Output, i int) Mark {
	k := Mark{Kind: o.Kind, Read: headerSize + m.size}
	for _, before := range m.Outputs {
		if before.Kind == o.Kind {
			break
		}
		for _, s := range before.Segments {
			k.Read += s.Stored
		}
	}
	for _, s := range o.Segments[:max(0, min(i, len(o.Segments)))] {
		k.Segment++
		k.Written += s.Length
		k.Read += s.Stored
	}
	return k
}

type applier struct {
	body io.Reader
	read int64 // bytes of the payload read so far
	zstd *zstd.Decoder
	buf  []byte // target bytes of one segment
	blob []byte // and what they are packed in
}

func (a *applier) output(o Output, from Mark, sink Sink) error {
	w, err := sink.Begin(o)
	if err != nil {
		return err
	}
	a.read = from.Read
	off := from.Written
	for i := from.Segment; i < len(o.Segments); i++ {
		s := o.Segments[i]
		data, err := a.segment(s)
		if err != nil {
			return fmt.Errorf("segment %d of %d: %w", i+1, len(o.Segments), err)
		}
		if _, err := w.WriteAt(data, off); err != nil {
			return fmt.Errorf("write segment %d of %d at %d: %w", i+1, len(o.Segments), off, err)
		}
		off += s.Length
		a.read += s.Stored
		if err := sink.Checkpoint(Mark{Kind: o.Kind, Segment: i + 1, Written: off, Read: a.read}); err != nil {
			return err
		}
	}
	return sink.Complete(o)
}

// segment returns the verified target bytes of s; they are good until the next call.
func (a *applier) segment(s Segment) ([]byte, error) {
	data := a.buf[:s.Length]
	switch s.Codec {
	case Zeros:
		clear(data)
	case Raw:
		if _, err := io.ReadFull(a.body, data); err != nil {
			return nil, truncated(err)
		}
	case Zstd:
		if err := a.unpack(data, s.Stored); err != nil {
			return nil, err
		}
	}
	if got := digest.Of(data); got != s.SHA256 {
		return nil, fmt.Errorf("expected sha256 %s, found %s: damaged, nothing of it was written", s.SHA256, got)
	}
	return data, nil
}

func (a *applier) unpack(data []byte, stored int64) error {
	// The whole blob first: an error of the network is then never taken for one of the codec.
	blob := a.blob[:stored]
	if _, err := io.ReadFull(a.body, blob); err != nil {
		return truncated(err)
	}
	if err := a.zstd.Reset(bytes.NewReader(blob)); err != nil {
		return fmt.Errorf("unpack zstd: %w", err)
	}
	if _, err := io.ReadFull(a.zstd, data); err != nil {
		return fmt.Errorf("unpack zstd: %w", err)
	}
	var one [1]byte
	if n, err := io.ReadFull(a.zstd, one[:]); n > 0 || err != io.EOF {
		return fmt.Errorf("unpack zstd: more than the %d bytes of the segment", len(data))
	}
	return nil
}
