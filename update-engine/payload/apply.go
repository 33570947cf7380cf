package payload

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/bunzip2"
	"github.com/proa-os/proa/update-engine/column"
	"github.com/proa-os/proa/update-engine/residue"
)

// Sources are what the operations of a delta read, and what the boot program of a full payload reads of the new root image.
type Sources struct {
	Root     io.ReaderAt // the running root image, through its verity device: nothing else authenticates what is read here
	RootSize int64       // bytes, without the verity tree
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

// A Mark is how far Apply has come. The zero Mark is the beginning.
type Mark struct {
	Kind    Kind
	Segment int   // index of the next segment of this output
	Written int64 // bytes of this output
	Read    int64 // where that segment's blob begins: bytes of the payload, header and manifest included
}

const (
	copyStep  = 4 << 20   // bytes written between two checkpoints of one segment, at least
	copyPiece = 256 << 10 // bytes read from a source at once
)

// Apply reads the blobs from body and writes the outputs in order, beginning at the mark from: body then stands at byte from.Read
// of the payload, or behind the manifest if from is the zero Mark. It compares every segment with its SHA-256 before it writes it, and
// reads body to its end, so that a digest.Reader there has its say. Memory: no more than 20 MB at a time, whatever the size of the output; all that is
// big is made between Begin and Complete of an output, once, and given back when Complete is called: the sink keeps none of what it is given.
func (m *Manifest) Apply(body io.Reader, src Sources, from Mark, sink Sink) error {
	if err := m.apply(body, src, from, sink); err != nil {
		return fmt.Errorf("apply payload: %w", err)
	}
	return nil
}

func (m *Manifest) apply(body io.Reader, src Sources, from Mark, sink Sink) error {
	if from == (Mark{}) {
		from = Mark{Kind: m.Outputs[0].Kind, Read: m.size}
	}
	if err := m.checkMark(from); err != nil {
		return err
	}
	if err := m.CheckSources(src); err != nil {
		return err
	}
	a := applier{m: m, body: body, read: from.Read, src: src, sink: sink}
	for _, o := range m.Outputs {
		if o.Kind < from.Kind {
			continue
		}
		at := Mark{Kind: o.Kind, Read: a.read}
		if o.Kind == from.Kind {
			at = from
		}
		if err := a.output(o, at); err != nil {
			return fmt.Errorf("%s: %w", o.Kind, err)
		}
	}
	var one [1]byte
	switch n, err := io.ReadFull(body, one[:]); {
	case n > 0:
		return damaged(fmt.Errorf("bytes behind the last blob, at %d", a.read))
	case err != io.EOF:
		return fmt.Errorf("read end: %w", err)
	}
	return nil
}

// buffers makes them as large as the manifest says an output needs them. The largest is not the collector's, which would give it back late.
func (a *applier) buffers(o Output) error {
	var packed, control, made, room int64
	for _, s := range o.Segments {
		for _, stream := range s.Streams {
			if stream.Codec == Bzip2 || stream.Codec == Residue {
				packed = max(packed, stream.Stored)
			}
		}
		made, room = max(made, s.Length+inPlace, s.Streams[0].Stored), max(room, s.Prefix.Length)
		if s.Op.differs() {
			control = max(control, s.Streams[0].Length)
			room = max(room, s.Length)
		}
	}
	a.packed, a.control = make([]byte, packed), make([]byte, control)
	b, err := unix.Mmap(-1, 0, int(max(room+made, 1)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return fmt.Errorf("take %d bytes of memory: %w", room+made, err)
	}
	a.memory = memory{b: b[:room+made], room: room}
	return nil
}

// CheckSources reports, before anything is written, that a delta is for other sources than src. Whether the running root image has the
// root hash m.Source is for the caller to know, from the kernel's command line.
func (m *Manifest) CheckSources(src Sources) error {
	if m.Source.IsZero() {
		return nil
	}
	switch {
	case src.Root == nil || src.RootSize != m.RootSize:
		return fmt.Errorf("root image: expected %d bytes, found %d: %w", m.RootSize, src.RootSize, ErrSource)
	case m.BootSize == 0:
		return nil
	case src.Boot == nil || src.BootSize != m.BootSize:
		return fmt.Errorf("boot program: expected %d bytes, found %d: %w", m.BootSize, src.BootSize, ErrSource)
	}
	got, _, err := digest.OfReader(io.NewSectionReader(src.Boot, 0, src.BootSize))
	if err != nil {
		return fmt.Errorf("read boot program: %w", err)
	}
	if got != m.Boot {
		return fmt.Errorf("boot program: expected sha256 %s, found %s: %w", m.Boot, got, ErrSource)
	}
	return nil
}

// checkMark refuses what is no mark of this payload.
func (m *Manifest) checkMark(k Mark) error {
	o := m.Output(k.Kind)
	if o == nil {
		return fmt.Errorf("mark %+v: the payload makes no %s", k, k.Kind)
	}
	if k.Segment < 0 || k.Segment > len(o.Segments) || k.Read != m.blob(k.Kind, k.Segment) {
		return fmt.Errorf("mark %+v: not a checkpoint of this payload", k)
	}
	first, last := o.span(k.Segment)
	if k.Written < first || k.Written > last {
		return fmt.Errorf("mark %+v: not a checkpoint of this payload, segment %d writes from %d to %d", k, k.Segment, first, last)
	}
	return nil
}

// span returns what part of an output is written along with segment i: from its first made byte, or the beginning, to the one
// behind its last, with all copied bytes between and behind. Behind the last segment there is nothing.
func (o Output) span(i int) (first, last int64) {
	c := o.cursor(i)
	first = c.at
	if i < len(o.Segments) {
		c.skipMade(o.Segments[i].Length)
	}
	c.skipCopies()
	return first, c.at
}

// cursor returns where segment i begins to write.
func (o Output) cursor(i int) cursor {
	c := newCursor(o.Runs)
	for _, s := range o.Segments[:i] {
		c.skipMade(s.Length)
	}
	if i > 0 {
		c.skipCopies()
	}
	return c
}

type applier struct {
	m    *Manifest
	body io.Reader
	read int64 // bytes of the payload read so far
	src  Sources
	sink Sink

	zstd    *zstd.Decoder
	bzip2   bunzip2.Unpacker
	memory  memory
	packed  []byte // a stream of bzip2 or package residue as it is stored
	control []byte
	places  []residue.Place
	piece   []byte // of a source
	model   *residue.Model
	columns *column.Predictor

	// Of the output:
	kind   Kind
	w      io.WriterAt
	space  space
	nearby nearby
	from   int64 // what is before this address is written already
	shown  int64 // address of the last checkpoint
}

func (a *applier) output(o Output, from Mark) error {
	var err error
	if a.w, err = a.sink.Begin(o); err != nil {
		return err
	}
	self, _ := a.w.(io.ReaderAt)
	if a.space, err = a.m.space(a.src, o, self); err != nil {
		return err
	}
	if o.Kind == RootImage {
		a.src.NewRoot = self
	}
	a.nearby.forget()
	a.kind, a.from, a.shown = o.Kind, from.Written, from.Written
	if err := a.segments(o, from); err != nil {
		return err
	}
	return a.sink.Complete(o)
}

// segments makes and writes those of an output from a mark on. What it needed is given back: Complete takes memory, too.
func (a *applier) segments(o Output, from Mark) (err error) {
	if a.zstd, err = newDecoder(); err != nil {
		return err
	}
	defer func() {
		a.zstd.Close()
		err = errors.Join(err, a.memory.free())
		// Those who have worked in it would go on naming it: the collector must not find what is no memory any more.
		a.zstd, a.model, a.bzip2 = nil, nil, bunzip2.Unpacker{}
		a.packed, a.control, a.memory = nil, nil, memory{}
	}()
	if err := a.buffers(o); err != nil {
		return err
	}
	c := o.cursor(from.Segment)
	// One more round than there are segments if there are none: all of it is copied.
	for i := from.Segment; i < len(o.Segments) || i == 0; i++ {
		if err := a.segment(o, i, &c); err != nil {
			return fmt.Errorf("segment %d of %d: %w", i+1, len(o.Segments), err)
		}
	}
	return nil
}

// segment makes segment i and writes its bytes, and the copied ones between and behind them; for segment 0 those before it, too.
func (a *applier) segment(o Output, i int, c *cursor) error {
	mark := Mark{Kind: o.Kind, Segment: i, Read: a.read}
	var made []byte
	todo := i < len(o.Segments)
	for {
		n, copied := c.here()
		if n > 0 && todo { // not before: what was copied up to here may be a prefix
			var err error
			if made, err = a.make(o.Segments[i], *c); err != nil {
				return err
			}
			todo = false
		}
		switch {
		case copied > 0:
			n = min(copied, copyPiece)
			if err := a.copy(c.at, n, c.run.Shift); err != nil {
				return err
			}
		case n > 0 && len(made) > 0:
			n = min(n, int64(len(made)))
			if err := a.write(made[:n], c.at); err != nil {
				return err
			}
			made = made[n:]
		default:
			return a.checkpoint(Mark{Kind: o.Kind, Segment: min(i+1, len(o.Segments)), Written: c.at, Read: a.read})
		}
		c.step(n)
		_, copied = c.here()
		if mark.Written = c.at; c.at-a.shown >= copyStep && (copied > 0 || len(made) > 0) {
			if err := a.checkpoint(mark); err != nil {
				return err
			}
		}
	}
}

func (a *applier) checkpoint(k Mark) error {
	a.shown = k.Written
	return a.sink.Checkpoint(k)
}

// write writes what is not written yet.
func (a *applier) write(b []byte, at int64) error {
	if skip := a.from - at; skip > 0 {
		skip = min(skip, int64(len(b)))
		b, at = b[skip:], at+skip
	}
	if len(b) == 0 {
		return nil
	}
	if _, err := a.w.WriteAt(b, at); err != nil {
		return fmt.Errorf("write %d bytes at %d: %w", len(b), at, err)
	}
	return nil
}

func (a *applier) copy(at, n, shift int64) error {
	if at+n <= a.from {
		return nil
	}
	b, err := a.source(at+shift, n)
	if err != nil {
		return err
	}
	return a.write(b, at)
}

// source reads at most copyPiece bytes; they are good until the next call.
func (a *applier) source(at, n int64) ([]byte, error) {
	if a.piece == nil {
		a.piece = make([]byte, copyPiece)
	}
	return a.piece[:n], a.space.read(a.piece[:n], at)
}

// A space is the source address space of an output.
type space []part

type part struct {
	name string
	r    io.ReaderAt
	size int64
}

// space returns the address space of an output, that itself included, as far as it can be read.
func (m *Manifest) space(src Sources, o Output, self io.ReaderAt) (space, error) {
	if o.Kind == RootImage {
		return space{{"running root image", src.Root, m.RootSize}, {"new root image", self, o.Size}}, nil
	}
	sp := space{{"running boot program", src.Boot, m.BootSize}}
	if root := m.Output(RootImage); root != nil {
		if src.NewRoot == nil && m.reads(o, m.BootSize, m.BootSize+root.Size) {
			return nil, fmt.Errorf("the new root image is needed, and was not given")
		}
		sp = append(sp, part{"new root image", src.NewRoot, root.Size})
	}
	return append(sp, part{"new boot program", self, o.Size}), nil
}

// reads reports whether copies or prefixes of an output read addresses from first to last.
func (m *Manifest) reads(o Output, first, last int64) bool {
	c := newCursor(o.Runs)
	for made, copied := c.here(); made+copied > 0; made, copied = c.here() {
		if at := c.at + c.run.Shift; copied > 0 && at < last && at+copied > first {
			return true
		}
		c.step(made + copied)
	}
	for _, s := range o.Segments {
		if s.Prefix.Length > 0 && s.Prefix.At < last && s.Prefix.At+s.Prefix.Length > first {
			return true
		}
	}
	return false
}

// read fills b from an address on, across parts.
func (s space) read(b []byte, at int64) error {
	for _, p := range s {
		if at >= p.size {
			at -= p.size
			continue
		}
		n := min(int64(len(b)), p.size-at)
		if n == 0 {
			break
		}
		if p.r == nil {
			return fmt.Errorf("read %d bytes at %d of the %s: it cannot be read", n, at, p.name)
		}
		if k, err := p.r.ReadAt(b[:n], at); int64(k) != n {
			return fmt.Errorf("read %d bytes at %d of the %s: %w", n, at, p.name, truncated(err))
		}
		b, at = b[n:], 0
	}
	if len(b) > 0 {
		return fmt.Errorf("read %d bytes behind the sources", len(b))
	}
	return nil
}
