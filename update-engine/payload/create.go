package payload

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"

	"github.com/proa-os/proa/internal/digest"
)

// An Input is an output as the release desk has it.
type Input struct {
	Kind Kind
	R    io.ReaderAt
	Size int64 // bytes
}

// Create writes a full payload that makes the inputs, whose kinds ascend, and returns its manifest. What the boot program has in common
// with the root image is copied from there. The same inputs and the same packer give the same bytes on every host.
// progress, if not nil, is told how many of how many input bytes are done.
func Create(ctx context.Context, w io.Writer, inputs []Input, o Options, progress func(done, total int64)) (*Manifest, error) {
	if o.Segment == 0 {
		o.Segment = fullSegment
	}
	d := &draft{options: o.withDefaults(), m: &Manifest{}, prefix: fullPrefix, kin: newKin(), progress: progress}
	err := d.outputs(inputs)
	for i, in := range inputs {
		if err != nil {
			break
		}
		l := layout{runs: []Run{{Made: in.Size}}}
		if in.Kind == BootProgram && i > 0 {
			if l, err = common(in, []Input{inputs[i-1]}); err != nil {
				break
			}
		}
		err = d.output(ctx, i, in, l)
	}
	if err == nil {
		err = d.write(w)
	}
	if err != nil {
		return nil, fmt.Errorf("make payload: %w", err)
	}
	return d.m, nil
}

// What a machine needs memory for is a segment, as it is and as it is packed, and its prefix. In the same memory a shorter segment can refer to
// more; but each prefix is moved by the machine, and looked through by the desk, once for each segment. A delta replaces little and has segments of MaxSegment.
const (
	fullSegment = 3 << 20
	fullPrefix  = 13 << 19
	deltaPrefix = 4 << 20
)

// A layout is how an output is described before it is packed.
type layout struct {
	runs []Run
	// instructions describe the made bytes as a DIFF, all of them or none.
	instructions []instruction
	tables       []table // of records, ascending
}

// An instruction of a control stream, its shift not relative.
type instruction struct{ shift, add, extra int64 }

// A draft is a payload that is being made.
type draft struct {
	options     Options
	m           *Manifest
	blobs       [][]byte
	sources     [2]io.ReaderAt // running root image, running boot program
	root        io.ReaderAt    // the new root image
	residues    []alternative
	prefix      int64      // bytes that a segment may refer to, at most
	kin         *kin       // nil in a delta, which refers to what lies before
	models      *sync.Pool // *residue.Model
	done, total int64
	progress    func(done, total int64)
}

// outputs begins the manifest with what is known of the outputs.
func (d *draft) outputs(inputs []Input) error {
	if len(inputs) < 1 || len(inputs) > maxOutputs {
		return fmt.Errorf("%d inputs, want 1 or %d", len(inputs), maxOutputs)
	}
	for i, in := range inputs {
		if in.Size < 1 || in.Size > maxOutputSize || i > 0 && in.Kind <= inputs[i-1].Kind {
			return fmt.Errorf("input %d (%s) has %d bytes or is out of order", i, in.Kind, in.Size)
		}
		if in.Kind == RootImage {
			d.root = in.R
		}
		d.m.Outputs = append(d.m.Outputs, Output{Kind: in.Kind, Size: in.Size})
		d.total += in.Size
	}
	return nil
}

func (d *draft) show(n int64) {
	if d.done += n; n > 0 && d.progress != nil {
		d.progress(d.done, d.total)
	}
}

// An alternative is a smaller diff stream that machines have to work for.
type alternative struct {
	output, segment, blob int
	packed
}

func (a alternative) saved() int { return int(a.seg.Streams[1].Stored) - len(a.residue) }

const (
	maxWork   = 6_200_000 // bounds how long a machine computes for a whole payload: about two thirds of a second
	perMade   = 32        // as many bytes that are made take the time of one of that work
	minSaving = 20        // bytes for a thousand of that work: less is not worth the machine's time
)

// workOfMade is what making the bytes of the outputs so far takes, of maxWork.
func (d *draft) workOfMade() (work int) {
	for _, o := range d.m.Outputs {
		work += int(o.Made() / perMade)
	}
	return work
}

// takeResidues takes those alternatives that save most for their work.
func (d *draft) takeResidues() {
	slices.SortStableFunc(d.residues, func(a, b alternative) int { return b.saved()*a.work - a.saved()*b.work })
	work := d.workOfMade()
	for _, a := range d.residues {
		if work+a.work > maxWork || a.saved()*1000 < a.work*minSaving {
			continue
		}
		work += a.work
		s := &d.m.Outputs[a.output].Segments[a.segment].Streams[1]
		s.Codec, s.Stored = Residue, int64(len(a.residue))
		d.blobs[a.blob] = a.residue
	}
}

// write writes the payload from its first byte on.
func (d *draft) write(w io.Writer) error {
	d.takeResidues()
	head, err := d.m.encode()
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if _, err := parseManifest(d.m.text()); err != nil {
		return fmt.Errorf("the manifest breaks a limit of the format: %w", err)
	}
	for _, b := range append([][]byte{head}, d.blobs...) {
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// A task is one segment to be packed.
type task struct {
	seg          Segment
	at           cursor // its first made byte
	kin          Range  // what it is more like than what lies before it; its length is 0 if there is nothing
	instructions []instruction
	tables       []table // all of the output
}

// output packs the segments of output i, a few at a time, and appends the blobs in order.
func (d *draft) output(ctx context.Context, i int, in Input, l layout) error {
	o := &d.m.Outputs[i]
	o.Runs = l.runs
	self, err := d.m.space(Sources{Root: d.sources[0], Boot: d.sources[1], NewRoot: d.root}, *o, in.R)
	if err != nil {
		return err
	}
	tasks := split(l, d.options.Segment)
	var kinErr error
	p := segmentPacker{packer: d.options.Packer, in: in, space: self, external: d.m.external(in.Kind), prefix: d.prefix, models: d.models}
	if d.workOfMade() > maxWork {
		p.models = nil // no time would be left for any
	}
	err = inOrder(ctx, d.options.Workers, d.withKin(in, tasks, &kinErr), p.pack, func(s packed) error {
		if len(s.residue) > 0 {
			d.residues = append(d.residues, alternative{output: i, segment: len(o.Segments), blob: len(d.blobs) + 1, packed: s})
		}
		o.Segments = append(o.Segments, s.seg)
		d.blobs = append(d.blobs, s.blobs...)
		d.show(s.seg.Length)
		return nil
	})
	if err == nil {
		err = kinErr // not before: if something else went wrong, it may still be looking
	}
	if err != nil {
		return fmt.Errorf("%s: %w", in.Kind, err)
	}
	d.show(in.Size - o.Made())
	whole := sha256.New()
	if _, err := io.Copy(whole, io.NewSectionReader(in.R, 0, in.Size)); err != nil {
		return fmt.Errorf("%s: %w", in.Kind, err)
	}
	o.SHA256 = digest.SHA256(whole.Sum(nil))
	return nil
}

// withKin says of each segment of an output, one after the other, what it is like, and remembers the output.
func (d *draft) withKin(in Input, tasks []task, err *error) iter.Seq[task] {
	if d.kin == nil {
		return slices.Values(tasks)
	}
	base, learnt := d.m.external(in.Kind), int64(0)
	learn := func(to int64) error {
		from := learnt
		learnt = to
		return d.kin.learn(in.R, from, to-from, base)
	}
	return func(yield func(task) bool) {
		for _, t := range tasks {
			if *err = learn(t.at.at); *err != nil {
				return
			}
			best, ok, findErr := d.kin.find(in, t, d.prefix, nearPrefix(t, d.prefix, base))
			if *err = findErr; *err != nil {
				return
			}
			if ok {
				t.kin = best
			}
			if !yield(t) {
				return
			}
		}
		*err = learn(in.Size)
	}
}

// split cuts the made bytes into segments of at most size bytes.
func split(l layout, size int64) []task {
	var tasks []task
	c := newCursor(l.runs)
	left := Output{Runs: l.runs}.Made()
	rest := l.instructions
	for left > 0 {
		c.skipCopies()
		t := task{seg: Segment{Length: min(left, size)}, at: c, tables: l.tables}
		t.instructions, rest = cutInstructions(rest, t.seg.Length)
		tasks = append(tasks, t)
		c.skipMade(t.seg.Length)
		left -= t.seg.Length
	}
	return tasks
}

// cutInstructions divides instructions behind n made bytes.
func cutInstructions(list []instruction, n int64) (first, rest []instruction) {
	for i, x := range list {
		if n == 0 {
			return first, list[i:]
		}
		head := instruction{shift: x.shift, add: min(x.add, n)}
		head.extra = min(x.extra, n-head.add)
		first = append(first, head)
		n -= head.add + head.extra
		if tail := (instruction{x.shift, x.add - head.add, x.extra - head.extra}); tail.add+tail.extra > 0 {
			return first, append([]instruction{tail}, list[i+1:]...)
		}
	}
	return first, nil
}

// inOrder calls work for each task, a few at once, and take for each result in the order of the tasks.
func inOrder[T, R any](ctx context.Context, workers int, tasks iter.Seq[T], work func(context.Context, T) (R, error), take func(R) error) error {
	type result struct {
		value R
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Each task has a channel of its own in the queue, whose length bounds how much is done ahead.
	queue := make(chan chan result, max(workers-1, 0))
	go func() {
		defer close(queue)
		for t := range tasks {
			c := make(chan result, 1)
			select {
			case queue <- c:
			case <-ctx.Done():
				return
			}
			go func() {
				v, err := work(ctx, t)
				c <- result{v, err}
			}()
		}
	}()
	for c := range queue {
		r := <-c
		if r.err != nil {
			return r.err
		}
		if err := take(r.value); err != nil {
			return err
		}
	}
	return ctx.Err()
}
