package payload

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/proa-os/proa/internal/digest"
)

// kept is a Sink that keeps the outputs and notes the calls.
type kept struct {
	outputs map[Kind]*output
	calls   []string
	marks   []Mark
}

type output struct{ data []byte }

func (o *output) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(o.data) {
		o.data = append(o.data, make([]byte, need-len(o.data))...)
	}
	return copy(o.data[off:], p), nil
}

func (o *output) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(o.data).ReadAt(p, off)
}

func (m *kept) Begin(o Output) (io.WriterAt, error) {
	m.calls = append(m.calls, "begin "+o.Kind.String())
	if m.outputs == nil {
		m.outputs = map[Kind]*output{}
	}
	if m.outputs[o.Kind] == nil {
		m.outputs[o.Kind] = &output{}
	}
	return m.outputs[o.Kind], nil
}

func (m *kept) Checkpoint(k Mark) error { m.marks = append(m.marks, k); return nil }

func (m *kept) Complete(o Output) error {
	m.calls = append(m.calls, "complete "+o.Kind.String())
	return nil
}

// sample makes an image of text, noise and holes, of odd length.
func sample(seed uint64, size int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, size)
	for off := 0; off < size; off += 256 << 10 {
		part := b[off:min(off+256<<10, size)]
		switch r.IntN(3) {
		case 0: // a hole
		case 1:
			for i := range part {
				part[i] = byte(r.Uint32())
			}
		case 2:
			copy(part, bytes.Repeat([]byte(fmt.Sprintf("all work and no play %d\n", off)), len(part)/20+1))
		}
	}
	return b
}

func create(t testing.TB, inputs ...Input) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "payload"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var last int64
	m, err := Create(context.Background(), f, inputs, Options{Segment: MaxSegment}, func(done, total int64) {
		if done <= last || done > total {
			t.Errorf("progress: %d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != m.Size() {
		t.Errorf("payload has %d bytes, its manifest says %d", len(b), m.Size())
	}
	return b
}

func input(k Kind, b []byte) Input { return Input{Kind: k, R: bytes.NewReader(b), Size: int64(len(b))} }

func apply(b io.Reader) (*Manifest, *kept, error) {
	m, err := ReadManifest(b)
	if err != nil {
		return nil, &kept{}, err
	}
	sink := &kept{}
	return m, sink, m.Apply(b, Sources{}, Mark{}, sink)
}

func TestRoundTrip(t *testing.T) {
	root := sample(1, 3*MaxSegment+12345)
	clear(root[MaxSegment : 2*MaxSegment]) // one segment of zeros
	boot := sample(2, 1<<20+1)
	b := create(t, input(RootImage, root), input(BootProgram, boot))
	if len(b) >= len(root)+len(boot) {
		t.Errorf("payload of %d bytes for %d", len(b), len(root)+len(boot))
	}
	m, sink, err := apply(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sink.outputs[RootImage].data, root) || !bytes.Equal(sink.outputs[BootProgram].data, boot) {
		t.Error("the outputs are not the inputs")
	}
	if got := m.Output(RootImage).Segments[1]; got.Streams[0].Codec != Zeros || got.Stored() != 0 {
		t.Errorf("a segment of zeros costs %d bytes with codec %d", got.Stored(), got.Streams[0].Codec)
	}
	if m.Output(RootImage).SHA256 != digest.Of(root) || m.Output(BootProgram).SHA256 != digest.Of(boot) {
		t.Error("the manifest's hashes are not those of the inputs")
	}
	want := []string{"begin root image", "complete root image", "begin boot program", "complete boot program"}
	if !slices.Equal(sink.calls, want) {
		t.Errorf("calls: got %q, want %q", sink.calls, want)
	}
	last := sink.marks[len(sink.marks)-1]
	if len(sink.marks) != 5 || last != (Mark{BootProgram, 1, int64(len(boot)), int64(len(b))}) {
		t.Errorf("checkpoints: got %d, the last %+v", len(sink.marks), last)
	}
	if again := create(t, input(RootImage, root), input(BootProgram, boot)); !bytes.Equal(b, again) {
		t.Error("the same inputs give other bytes")
	}
}

func TestHeaderBytes(t *testing.T) {
	b := create(t, input(BootProgram, []byte("0123456789")))
	// Drawn from the tables in the package documentation.
	whole := digest.Of([]byte("0123456789"))
	m := make([]byte, 32+1+32+1)
	m = append(m, 1, 2, 10)
	m = append(append(m, whole[:]...), 1, 1, 10, 0)
	m = append(append(m, 3<<4|0, 10), whole[:]...)
	n := binary.LittleEndian.Uint32(b[12:])
	packed := b[64 : 64+n]
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got, err := d.DecodeAll(packed, nil); err != nil || !bytes.Equal(got, m) {
		t.Errorf("manifest: got  %x\nwant %x, %v", got, m, err)
	}
	want := []byte("\x89PROA\r\n\x1a")
	want = binary.LittleEndian.AppendUint32(want, 2)
	want = binary.LittleEndian.AppendUint32(want, n)
	sum := digest.Of(packed)
	want = append(want, sum[:]...)
	want = binary.LittleEndian.AppendUint32(want, uint32(len(m)))
	want = append(want, make([]byte, 12)...)
	want = append(append(want, packed...), "0123456789"...)
	if !bytes.Equal(b, want) {
		t.Errorf("got  %x\nwant %x", b, want)
	}
}

// small is a payload whose every byte can be tried.
func small(t testing.TB) (b, root, boot []byte) {
	root = append(bytes.Repeat([]byte("root "), 200), make([]byte, 100)...)
	boot = []byte("boot program")
	return create(t, input(RootImage, root), input(BootProgram, boot)), root, boot
}

// Apply takes up at every checkpoint and makes the same, reading no byte of what lies before.
func TestResume(t *testing.T) {
	root, boot := sample(1, 2*MaxSegment+12345), sample(2, MaxSegment+1)
	b := create(t, input(RootImage, root), input(BootProgram, boot))
	m, whole, err := apply(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if m.Digest() != digest.Of(b[:m.size]) {
		t.Error("the digest is not that of header and manifest")
	}
	for _, from := range whole.marks {
		sink := &kept{outputs: map[Kind]*output{}}
		for k, v := range map[Kind][]byte{RootImage: root, BootProgram: boot} {
			if k < from.Kind {
				sink.outputs[k] = &output{v}
			} else if k == from.Kind {
				sink.outputs[k] = &output{slices.Clone(v[:from.Written])}
			}
		}
		src := Sources{NewRoot: bytes.NewReader(root)}
		if err := m.Apply(bytes.NewReader(b[from.Read:]), src, from, sink); err != nil {
			t.Errorf("from %+v: %v", from, err)
		} else if !bytes.Equal(sink.outputs[RootImage].data, root) || !bytes.Equal(sink.outputs[BootProgram].data, boot) {
			t.Errorf("from %+v: the outputs are not the inputs", from)
		}
		from.Read++
		if err := m.Apply(bytes.NewReader(nil), src, from, sink); err == nil || !strings.Contains(err.Error(), "not a checkpoint") {
			t.Errorf("from %+v: got %v, want a refusal", from, err)
		}
	}
}

// Whatever byte is damaged, the error comes before anything wrong is written.
func TestEveryByteDamaged(t *testing.T) {
	b, root, boot := small(t)
	for i := range b {
		bad := slices.Clone(b)
		bad[i] ^= 0x40
		_, sink, err := apply(bytes.NewReader(bad))
		if err == nil {
			t.Errorf("byte %d damaged: no error", i)
		}
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnsupported) {
			t.Errorf("byte %d damaged: %v, which is not about the bytes that came", i, err)
		}
		checkWritten(t, sink, root, boot, fmt.Sprintf("byte %d damaged", i))
	}
}

func TestEveryTruncation(t *testing.T) {
	b, root, boot := small(t)
	for n := range b {
		_, sink, err := apply(bytes.NewReader(b[:n]))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: got %v, want an unexpected EOF", n, err)
		}
		checkWritten(t, sink, root, boot, fmt.Sprintf("cut at %d", n))
	}
}

func checkWritten(t *testing.T, sink *kept, root, boot []byte, what string) {
	t.Helper()
	if o := sink.outputs[RootImage]; o != nil && !bytes.HasPrefix(root, o.data) {
		t.Errorf("%s: wrong bytes were written to the root image", what)
	}
	if o := sink.outputs[BootProgram]; o != nil && !bytes.HasPrefix(boot, o.data) {
		t.Errorf("%s: wrong bytes were written to the boot program", what)
	}
}

// The hash of the whole has the last word, also when every segment fits the (unauthentic) manifest.
func TestDigestReaderHasTheLastWord(t *testing.T) {
	b, _, _ := small(t)
	other := create(t, input(RootImage, []byte("evil")), input(BootProgram, []byte("evil")))
	r := digest.NewReader("payload", bytes.NewReader(other), int64(len(other)), digest.Of(b))
	_, _, err := apply(r)
	var mismatch *digest.MismatchError
	if !errors.As(err, &mismatch) {
		t.Errorf("got %v, want a mismatch", err)
	}
}

type pattern struct{}

func (pattern) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		p[i] = byte((off + int64(i)) / 977)
	}
	return len(p), nil
}

type discard struct{}

func (discard) Begin(Output) (io.WriterAt, error)      { return discard{}, nil }
func (discard) Checkpoint(Mark) error                  { return nil }
func (discard) Complete(Output) error                  { return nil }
func (discard) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func TestCreateStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	f, err := os.Create(filepath.Join(t.TempDir(), "payload"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = Create(ctx, f, []Input{{Kind: RootImage, R: pattern{}, Size: 1 << 30}}, Options{}, func(done, _ int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
}
