package script

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Words of one call.
const (
	wordNumber = iota
	wordArgs
	wordNext = iota + 5
	wordOnError
	wordErrno
	wordStore
	wordLabel
	wordLabelLen
	wordFlags
	callWords
)

const (
	callSize = callWords * 8

	// NoCall is the number of a call that is none: its result is its first argument.
	NoCall = -1

	flagZeroFails = 1 << 0 // a result of 0 is the error EPIPE: the other end of a socket is closed
	flagWide      = 1 << 1 // store 64 bits instead of 32
	flagCommand   = 1 << 2 // an error ends the child with 126, ENOENT with 127
)

// Words of the report that a failing child writes: kind, errno | iovec of those | iovec of the label | descriptor.
const (
	reportIov   = 8
	reportLabel = 24
	reportFd    = 40
	reportSize  = 48
)

// Kinds of messages from a child, in their first four bytes.
const (
	KindReady  = 'R' // the child waits for a word
	KindError  = 'E' // followed by errno (4 bytes) and the label
	KindNotify = 'N' // followed by the number of a seccomp listener (4 bytes)
	KindForked = 'F' // with a pidfd of the process that goes on
)

// A Builder collects calls and the memory they point to.
type Builder struct {
	calls []*Call
	heap  []byte   // behind the calls
	refs  []ref    // pointers in heap
	wants []*store // results that go into heap
}

// Blob is memory of the Program, by its offset in the heap.
type Blob int

type ref struct {
	at Blob // where the pointer is
	to Blob // what it points to
}

type store struct {
	from *Call
	at   Blob
}

// A Call is one system call of the Program.
type Call struct {
	number  int
	args    [6]uint64
	ptrs    [6]bool  // the argument is an offset in the heap
	results [6]*Call // the argument is the result of that call
	next    *Call    // nil: the call behind this one
	onError *Call    // nil: end the child, unless ignore
	ignore  bool
	errno   unix.Errno
	flags   uint64
	label   string

	// A wide store, of Choose.
	target   *Call
	argument int
}

// Call appends a system call. Arguments are integers, strings (passed as C strings), Blobs (passed as addresses) and *Calls
// (their results).
func (b *Builder) Call(label string, number int, args ...any) *Call {
	return b.Append(new(Call), label, number, args...)
}

// Later returns a call that Append puts in its place; until then others can refer to it.
func (b *Builder) Later() *Call { return new(Call) }

// Append is Call for a call from Later.
func (b *Builder) Append(c *Call, label string, number int, args ...any) *Call {
	c.number, c.label = number, label
	for i, a := range args {
		switch v := a.(type) {
		case int:
			c.args[i] = uint64(v)
		case uint64:
			c.args[i] = v
		case string:
			c.args[i], c.ptrs[i] = uint64(b.String(v)), true
		case Blob:
			c.args[i], c.ptrs[i] = uint64(v), true
		case *Call:
			c.results[i], c.args[i] = v, math.MaxUint32 // -1 until there is a result
		default:
			panic(fmt.Sprintf("script: argument %d of %q is a %T", i, label, a))
		}
	}
	b.calls = append(b.calls, c)
	return c
}

// Fail appends a call that always fails.
func (b *Builder) Fail(label string, e unix.Errno) *Call {
	return b.Call(label, NoCall, -int(e))
}

// Nop appends a call that does nothing: a place to go to.
func (b *Builder) Nop() *Call { return b.Call("", NoCall, 0) }

// Ignore goes on behind the call whatever it says.
func (c *Call) Ignore() *Call {
	c.ignore = true
	return c
}

// IgnoreOnly is Ignore for one error.
func (c *Call) IgnoreOnly(e unix.Errno) *Call {
	c.ignore, c.errno = true, e
	return c
}

// OnError goes on at another call after an error.
func (c *Call) OnError(to *Call) *Call {
	c.onError = to
	return c
}

// OnErrorOnly is OnError for one error.
func (c *Call) OnErrorOnly(to *Call, e unix.Errno) *Call {
	c.onError, c.errno = to, e
	return c
}

// Then goes on at another call after success.
func (c *Call) Then(to *Call) *Call {
	c.next = to
	return c
}

// ZeroFails makes a result of 0 an error.
func (c *Call) ZeroFails() *Call {
	c.flags |= flagZeroFails
	return c
}

// Command makes the child end as a shell does that cannot execute a command: with 126, or 127 if there is none.
func (c *Call) Command() *Call {
	c.flags |= flagCommand
	return c
}

// Bytes puts b into the memory, aligned to 8 bytes.
func (b *Builder) Bytes(p []byte) Blob {
	for len(b.heap)%8 != 0 {
		b.heap = append(b.heap, 0)
	}
	at := Blob(len(b.heap))
	b.heap = append(b.heap, p...)
	return at
}

// String puts s into the memory with a NUL behind it.
func (b *Builder) String(s string) Blob {
	at := Blob(len(b.heap))
	b.heap = append(append(b.heap, s...), 0)
	return at
}

// Words puts 64-bit words into the memory, in the machine's byte order.
func (b *Builder) Words(w ...uint64) Blob {
	buf := make([]byte, 0, 8*len(w))
	for _, v := range w {
		buf = binary.NativeEndian.AppendUint64(buf, v)
	}
	return b.Bytes(buf)
}

// Point makes the word at offset off of a Blob the address of another.
func (b *Builder) Point(at Blob, off int, to Blob) {
	b.refs = append(b.refs, ref{at + Blob(off), to})
}

// Word sets the word at offset off of a Blob.
func (b *Builder) Word(at Blob, off int, v uint64) {
	binary.NativeEndian.PutUint64(b.heap[int(at)+off:], v)
}

// Store writes the result of a call, as 32 bits, at offset off of a Blob.
func (b *Builder) Store(from *Call, at Blob, off int) {
	b.wants = append(b.wants, &store{from, at + Blob(off)})
}

// Vector puts an array of C strings, with NULL at its end, into the memory: argv or envp.
func (b *Builder) Vector(list []string) Blob {
	at := b.Words(make([]uint64, len(list)+1)...)
	for i, s := range list {
		b.Point(at, 8*i, b.String(s))
	}
	return at
}

// Choose appends a pseudo call that makes argument i of another call the address of blob.
func (b *Builder) Choose(blob Blob, call *Call, i int) *Call {
	c := b.Call("", NoCall, blob)
	c.flags |= flagWide
	c.target, c.argument = call, i
	return c
}

// Finish lays the Program out. The first call that fails writes its report to descriptor report.
func (b *Builder) Finish(report int) *Program {
	l := &layout{b: b, base: len(b.calls)*callSize + reportSize, index: make(map[*Call]int, len(b.calls))}
	for i, c := range b.calls {
		l.index[c] = i
	}
	l.stores = make([][]uint64, len(b.calls))
	l.collect()
	p := &Program{data: make([]byte, l.base, l.base+len(b.heap)+4096), report: len(b.calls) * callSize}
	for _, r := range b.refs {
		binary.NativeEndian.PutUint64(b.heap[r.at:], uint64(l.base)+uint64(r.to))
		p.relocs = append(p.relocs, uint32(l.base+int(r.at)))
	}
	p.data = append(p.data, b.heap...)
	for i, c := range b.calls {
		l.put(p, i, c)
	}
	binary.NativeEndian.PutUint32(p.data[p.report:], KindError)
	p.pointer(p.report+reportIov, p.report)
	p.word(p.report+reportIov+8, 8)
	p.word(p.report+reportFd, uint64(report))
	return p
}

type layout struct {
	b      *Builder
	base   int // offset of the heap
	index  map[*Call]int
	stores [][]uint64 // for each call: where its result goes
}

// collect finds out where each result goes.
func (l *layout) collect() {
	for i, c := range l.b.calls {
		if c.flags&flagWide != 0 {
			l.add(c, uint64(l.index[c.target]*callSize+(wordArgs+c.argument)*8))
			continue
		}
		for j, r := range c.results {
			if r != nil {
				l.add(r, uint64(i*callSize+(wordArgs+j)*8))
			}
		}
	}
	for _, s := range l.b.wants {
		l.add(s.from, uint64(l.base)+uint64(s.at))
	}
}

func (l *layout) add(from *Call, at uint64) {
	i := l.index[from]
	l.stores[i] = append(l.stores[i], at)
}

func (l *layout) put(p *Program, i int, c *Call) {
	at := i * callSize
	p.word(at, uint64(c.number))
	for j, a := range c.args {
		if c.ptrs[j] {
			p.pointer(at+(wordArgs+j)*8, l.base+int(a))
		} else {
			p.word(at+(wordArgs+j)*8, a)
		}
	}
	behind := (i + 1) * callSize
	next := behind
	if c.next != nil {
		next = l.index[c.next] * callSize
	}
	p.pointer(at+wordNext*8, next)
	switch {
	case c.onError != nil:
		p.pointer(at+wordOnError*8, l.index[c.onError]*callSize)
	case c.ignore:
		p.pointer(at+wordOnError*8, behind)
	}
	p.word(at+wordErrno*8, uint64(c.errno))
	p.word(at+wordFlags*8, c.flags)
	if s := l.stores[i]; len(s) > 0 {
		p.pointer(at+wordStore*8, p.list(s))
	}
	if c.label != "" {
		p.pointer(at+wordLabel*8, p.text(c.label))
		p.word(at+wordLabelLen*8, uint64(len(c.label)))
	}
}

// A Program is what Start and Load run.
type Program struct {
	data   []byte   // calls, report, heap
	relocs []uint32 // where in data there are offsets that must become addresses
	report int      // offset of the report
}

func (p *Program) word(at int, v uint64) { binary.NativeEndian.PutUint64(p.data[at:], v) }

func (p *Program) pointer(at, to int) {
	p.word(at, uint64(to))
	p.relocs = append(p.relocs, uint32(at))
}

// list appends addresses and a zero.
func (p *Program) list(offsets []uint64) int {
	for len(p.data)%8 != 0 {
		p.data = append(p.data, 0)
	}
	at := len(p.data)
	for _, o := range offsets {
		p.relocs = append(p.relocs, uint32(len(p.data)))
		p.data = binary.NativeEndian.AppendUint64(p.data, o)
	}
	p.data = binary.NativeEndian.AppendUint64(p.data, 0)
	return at
}

func (p *Program) text(s string) int {
	at := len(p.data)
	p.data = append(p.data, s...)
	return at
}

// place copies the Program to memory that stays where it is and makes addresses of the offsets.
func (p *Program) place() ([]byte, error) {
	m, err := unix.Mmap(-1, 0, len(p.data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map script: %w", err)
	}
	copy(m, p.data)
	base := uint64(uintptr(unsafe.Pointer(&m[0])))
	for _, r := range p.relocs {
		binary.NativeEndian.PutUint64(m[r:], binary.NativeEndian.Uint64(m[r:])+base)
	}
	return m, nil
}
