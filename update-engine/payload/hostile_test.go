package payload

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/proa-os/proa/internal/digest"
)

// A sampleDelta is a delta made by hand, in which every part of the format is used, with what it reads and makes.
type sampleDelta struct {
	m                *Manifest
	blobs            [][]byte
	src              Sources
	oldRoot, oldBoot []byte
	root, boot       []byte
}

// handmade makes the delta; change may spoil the manifest, and the blobs by their order.
func handmade(t testing.TB, change func(*sampleDelta)) ([]byte, *sampleDelta) {
	t.Helper()
	d := &sampleDelta{oldRoot: sample(7, 600<<10), oldBoot: sample(8, 300<<10)}
	d.src = Sources{Root: bytes.NewReader(d.oldRoot), RootSize: int64(len(d.oldRoot)), Boot: bytes.NewReader(d.oldBoot), BootSize: int64(len(d.oldBoot))}
	d.m = &Manifest{Source: digest.Of([]byte("root hash")), RootSize: d.src.RootSize, Boot: digest.Of(d.oldBoot), BootSize: d.src.BootSize}

	// Root image: 100 made, 5000 copied from 70000, 60 made, 300000 copied from 2000; the first segment is 130 bytes, a DIFF across
	// the copy from the shift 64000; the second one 30, a raw REPLACE.
	diff := bytes.Repeat([]byte{0, 1, 255}, 40)
	extra := []byte("ten letter")
	first := slices.Concat(d.oldRoot[64000:64100], d.oldRoot[64000+5100:64000+5120])
	for i, x := range diff {
		first[i] += x
	}
	first = append(first, extra...)
	second := []byte("thirty bytes that are replaced")
	d.root = slices.Concat(first[:100], d.oldRoot[70000:75000], first[100:], second, d.oldRoot[2000:302000])
	control := binary.AppendVarint(nil, 64000)
	control = append(control, 120, 10)
	d.m.Outputs = []Output{{
		Kind: RootImage, Size: int64(len(d.root)), SHA256: digest.Of(d.root),
		Runs: []Run{{100, 5000, 70000 - 100}, {60, 300000, 2000 - 5160}},
		Segments: []Segment{
			{Op: Diff, Length: 130, SHA256: digest.Of(first), Streams: [3]Stream{{Raw, int64(len(control)), int64(len(control))}, {Raw, 120, 120}, {Raw, 10, 10}}},
			{Op: Replace, Length: 30, SHA256: digest.Of(second), Streams: [3]Stream{{Raw, 30, 30}}},
		},
	}}
	d.blobs = [][]byte{control, diff, extra, second}
	d.addBoot(t)
	if change != nil {
		change(d)
	}
	head, err := d.m.encode()
	if err != nil {
		t.Fatal(err)
	}
	return append(head, bytes.Join(d.blobs, nil)...), d
}

// addBoot adds the boot program: copied from the old one and the new root image, with a zstd frame that refers to a prefix in the new root
// image, and a DIFF of the new root image with streams of bzip2 and zeros.
func (d *sampleDelta) addBoot(t testing.TB) {
	newRoot := int64(len(d.oldBoot))
	prefix := d.root[1000:201000]
	replaced := slices.Concat([]byte("begin"), d.root[50000:60000], []byte("end"))
	_, frame, err := Fast{}.Pack(t.Context(), replaced, prefix)
	if err != nil {
		t.Fatal(err)
	}
	// bzip2 -9 of 9000 letters a
	packed := []byte("\x42\x5a\x68\x39\x31\x41\x59\x26\x53\x59\xed\x73\xca\xc9\x00\x00\x13\x85\x00\x80\x80\x20\x00\x00\x08\x20\x00\x30\xcc\x05\x29\xa7\x1a\x86\xc5\x0f\x17\x72\x45\x38\x50\x90\xed\x73\xca\xc9")
	added := slices.Clone(d.root[7000:8000])
	second := append(added, bytes.Repeat([]byte("a"), 9000)...)
	d.boot = slices.Concat(d.oldBoot[10:1010], replaced, second, d.root[:20000])
	at := int64(1000 + len(replaced)) // of the second segment
	control := binary.AppendVarint(nil, newRoot+7000-at)
	control = binary.AppendUvarint(binary.AppendUvarint(control, 1000), 9000)
	length := int64(len(replaced))
	d.m.Outputs = append(d.m.Outputs, Output{
		Kind: BootProgram, Size: int64(len(d.boot)), SHA256: digest.Of(d.boot),
		Runs: []Run{{0, 1000, 10}, {length + 10000, 20000, newRoot - at - 10000}},
		Segments: []Segment{
			{Op: Replace, Length: length, SHA256: digest.Of(replaced), Streams: [3]Stream{{Zstd, length, int64(len(frame))}}, Prefix: Range{newRoot + 1000, 200000}},
			{Op: Diff, Length: 10000, SHA256: digest.Of(second), Streams: [3]Stream{
				{Raw, int64(len(control)), int64(len(control))}, {Zeros, 1000, 0}, {Bzip2, 9000, int64(len(packed))},
			}},
		},
	})
	d.blobs = append(d.blobs, frame, control, packed)
}

func (d *sampleDelta) apply(b io.Reader) (*kept, error) {
	m, err := ReadManifest(b)
	if err != nil {
		return &kept{}, err
	}
	sink := &kept{}
	return sink, m.Apply(b, d.src, Mark{}, sink)
}

func TestDeltaByHand(t *testing.T) {
	b, d := handmade(t, nil)
	sink, err := d.apply(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sink.outputs[RootImage].data, d.root) || !bytes.Equal(sink.outputs[BootProgram].data, d.boot) {
		t.Error("the outputs are not what was described")
	}
}

// A delta whose blobs are damaged or cut off writes nothing but what is right.
func TestDeltaDamaged(t *testing.T) {
	b, d := handmade(t, nil)
	for i := int(d.m.size); i < len(b); i++ {
		bad := slices.Clone(b)
		bad[i] ^= 0x40
		sink, err := d.apply(bytes.NewReader(bad))
		// A frame may say the same in two ways.
		if err == nil && !(bytes.Equal(sink.outputs[RootImage].data, d.root) && bytes.Equal(sink.outputs[BootProgram].data, d.boot)) {
			t.Errorf("byte %d damaged: no error", i)
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d damaged: %v, which is not about the bytes that came", i, err)
		}
		checkWritten(t, sink, d.root, d.boot, "damaged")
		if sink, err = d.apply(bytes.NewReader(b[:i])); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrDamaged) {
			t.Errorf("cut at %d: got %v, want an unexpected EOF and nobody blamed for it", i, err)
		}
		checkWritten(t, sink, d.root, d.boot, "cut")
	}
}

func TestHostileDelta(t *testing.T) {
	out := func(d *sampleDelta, k Kind) *Output { return d.m.Output(k) }
	blob := func(i int, b []byte) func(*sampleDelta) { return func(d *sampleDelta) { d.blobs[i] = b } }
	control := func(shift int64, add, extra uint64) func(*sampleDelta) {
		return func(d *sampleDelta) {
			c := binary.AppendUvarint(binary.AppendUvarint(binary.AppendVarint(nil, shift), add), extra)
			n := int64(len(c))
			d.blobs[0], out(d, RootImage).Segments[0].Streams[0] = c, Stream{Raw, n, n}
		}
	}
	stream := func(k Kind, segment, i int, f func(*Stream)) func(*sampleDelta) {
		return func(d *sampleDelta) { f(&out(d, k).Segments[segment].Streams[i]) }
	}
	for _, c := range []struct {
		name   string
		change func(*sampleDelta)
		want   string
	}{
		{"swapped blob", blob(3, []byte("THIRTY BYTES THAT ARE REPLACED")), "root image: segment 2 of 2: REPLACE: expected sha256"},
		{"control that seeks before the source", control(-1, 120, 10), "reads 100 bytes at -1 of the source, which has 614400"},
		{"control that seeks behind the source", control(614400, 120, 10), "reads 100 bytes at 614400 of the source"},
		{"control that reaches the new output", control(614400-100, 120, 10), "reads 20 bytes at 619400 of the source"},
		{"overrun of the diff stream", control(64000, 121, 9), "its instructions do not make the segment of 130 bytes"},
		{"overrun of the extra stream", control(64000, 119, 11), "its instructions do not make the segment"},
		{"diff stream not used up", control(64000, 119, 10), "its instructions do not make the segment"},
		{"instruction of 2^39 bytes", control(64000, 1<<39, 10), "its instructions do not make the segment"},
		{"instruction of 2^60 bytes", control(64000, 1<<60, 10), "not less than 2^40"},
		{"instruction that makes nothing", func(d *sampleDelta) {
			d.blobs[0] = append([]byte{0, 0, 0}, d.blobs[0]...)
			n := int64(len(d.blobs[0]))
			out(d, RootImage).Segments[0].Streams[0] = Stream{Raw, n, n}
		}, "its instructions do not make the segment"},
		{"control cut off", func(d *sampleDelta) {
			d.blobs[0] = d.blobs[0][:3]
			out(d, RootImage).Segments[0].Streams[0] = Stream{Raw, 3, 3}
		}, "control stream: it ends too early"},
		{"no control", stream(RootImage, 0, 0, func(s *Stream) { *s = Stream{Codec: Raw} }), "control stream of 0"},
		{"control of 2 MiB", stream(RootImage, 0, 0, func(s *Stream) { s.Length = 2 << 20 }), "control stream of 2097152"},
		{"diff stream longer than its segment", stream(RootImage, 0, 1, func(s *Stream) { s.Length = 131 }), "diff stream of 131 bytes for 130"},
		{"COPY behind the source", func(d *sampleDelta) { out(d, RootImage).Runs[1].Shift = 314400 - 5159 }, "copies 300000 bytes at 314401 of the source, which has 614400"},
		{"COPY before the source", func(d *sampleDelta) { out(d, RootImage).Runs[0].Shift = -101 }, "copies 5000 bytes at -1 of the source"},
		{"COPY of the boot program from itself", func(d *sampleDelta) { out(d, BootProgram).Runs[1].Shift += 300000 }, "of the source, which has 612360"},
		{"COPY behind the output", func(d *sampleDelta) { out(d, RootImage).Runs[1].Copied++ }, "ends 1 bytes behind the end of the output"},
		{"COPY that ends early", func(d *sampleDelta) { out(d, RootImage).Runs[1].Copied-- }, "leave the last 1 bytes of 305160 open"},
		{"empty run", func(d *sampleDelta) { out(d, RootImage).Runs = append(out(d, RootImage).Runs, Run{}) }, "run 2: 0 made and 0 copied bytes"},
		{"run without a copy", func(d *sampleDelta) { out(d, RootImage).Runs[0].Copied = 0 }, "run 0: 100 made and 0 copied bytes"},
		{"made bytes without a segment", func(d *sampleDelta) { out(d, RootImage).Segments = out(d, RootImage).Segments[:1] }, "leave 30 made bytes open"},
		{"segment of no made bytes", func(d *sampleDelta) { out(d, RootImage).Segments[1].Length = 31 }, "ends 1 bytes behind the last made byte"},
		{"segment of 4 MiB and a byte", func(d *sampleDelta) { out(d, RootImage).Segments[1].Length = MaxSegment + 1 }, "length of 4194305 bytes is not from 1 to 4194304"},
		{"empty segment", func(d *sampleDelta) { out(d, RootImage).Segments[1].Length = 0 }, "length of 0 bytes"},
		{"prefix of what comes later", func(d *sampleDelta) { out(d, BootProgram).Segments[0].Prefix.At += 700000 }, "is not in the 613360 bytes that are known there"},
		{"prefix before the sources", func(d *sampleDelta) { out(d, BootProgram).Segments[0].Prefix.At = -1 }, "prefix of 200000 bytes at -1"},
		{"prefix of 12 MiB", func(d *sampleDelta) { out(d, BootProgram).Segments[0].Prefix.Length = 12 << 20 }, "prefix of 12582912 bytes, at most 11534336"},
		{"another prefix", func(d *sampleDelta) { out(d, BootProgram).Segments[0].Prefix.At += 5 }, "boot program: segment 1 of 2: REPLACE: expected sha256"},
		{"zstd larger than its bytes", stream(BootProgram, 0, 0, func(s *Stream) { s.Stored = s.Length }), "with codec zstd"},
		{"zstd of nothing", stream(BootProgram, 0, 0, func(s *Stream) { s.Stored = 0 }), "stored in 0 bytes"},
		{"unknown codec", stream(RootImage, 1, 0, func(s *Stream) { s.Codec = 9 }), "codec 9: not supported by this version: take the full payload"},
		{"unknown codec of a diff", stream(RootImage, 0, 2, func(s *Stream) { s.Codec = 9 }), "stream 2: codec 9"},
		{"unknown operation", func(d *sampleDelta) { out(d, RootImage).Segments[1].Op = 7 }, "operation number 7: not supported"},
		{"unknown kind", func(d *sampleDelta) { d.m.Outputs[1].Kind = 7 }, "unknown kind 7"},
		{"kinds twice", func(d *sampleDelta) { d.m.Outputs[0].Kind = BootProgram }, "cannot follow the boot program"},
		{"no output", func(d *sampleDelta) { d.m.Outputs = nil }, "0 outputs"},
		{"empty output", func(d *sampleDelta) { d.m.Outputs[0].Size = 0 }, "size of 0 bytes is not from 1"},
		{"output of 2^39 bytes", func(d *sampleDelta) { d.m.Outputs[0].Size = 1 << 39 }, "is not from 1 to 17179869184"},
		{"too many runs", func(d *sampleDelta) { out(d, RootImage).Runs = make([]Run, maxRuns+1) }, "65537 runs, want 1 to 65536"},
		{"too many segments", func(d *sampleDelta) { out(d, RootImage).Segments = make([]Segment, maxSegments+1) }, "8193 segments, at most 8192"},
		{"source without a size", func(d *sampleDelta) { d.m.RootSize = 0 }, "a source has a hash, but no bytes"},
		{"boot program without a source", func(d *sampleDelta) { d.m.Source, d.m.RootSize = digest.SHA256{}, 0 }, "a source has a hash"},
		{"source of 2^39 bytes", func(d *sampleDelta) { d.m.RootSize = 1 << 39 }, "at most 17179869184"},
		{"data behind the end", func(d *sampleDelta) { d.blobs = append(d.blobs, []byte{0}) }, "bytes behind the last blob"},
	} {
		b, d := handmade(t, c.change)
		sink, err := d.apply(bytes.NewReader(b))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
		checkWritten(t, sink, d.root, d.boot, c.name)
	}
}

// A stream that unpacks to more than it says is refused at the first byte too many, whatever the codec.
func TestBomb(t *testing.T) {
	zeros := make([]byte, 64<<20)
	e, err := zstd.NewWriter(nil, zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	sized := e.EncodeAll(zeros, nil)
	var unsized bytes.Buffer
	e.Reset(&unsized)
	if _, err := e.Write(zeros); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	const bzip2Of9000 = 6 // blob of the delta by hand
	for _, c := range []struct {
		name string
		s    Stream
		blob []byte
		want string
	}{
		{"zstd frame of 64 MiB", Stream{Zstd, 9000, int64(len(sized))}, sized, "more than the 9000 bytes of the stream"},
		{"zstd frame of unknown size", Stream{Zstd, 9000, int64(unsized.Len())}, unsized.Bytes(), "more than the 9000 bytes of the stream"},
		{"bzip2", Stream{Codec: Bzip2, Length: 8999}, nil, "unpack bzip2: more than the 8999 bytes of the stream"},
	} {
		b, d := handmade(t, func(d *sampleDelta) {
			seg := &d.m.Outputs[1].Segments[1]
			if c.blob == nil {
				seg.Streams[1].Length++ // of zeros: the sum stays
				c.blob = d.blobs[bzip2Of9000]
				c.s.Stored = int64(len(c.blob))
				d.blobs[5] = append(binary.AppendVarint(nil, 0), 0xe9, 7, 0xa7, 70)
				seg.Streams[0] = Stream{Raw, int64(len(d.blobs[5])), int64(len(d.blobs[5]))}
			}
			seg.Streams[2], d.blobs[bzip2Of9000] = c.s, c.blob
		})
		if c.s.Stored >= c.s.Length {
			t.Fatalf("%s: the bomb has %d bytes", c.name, c.s.Stored)
		}
		if _, err := d.apply(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	// A manifest that unpacks to more than the header says.
	b, _ := handmade(t, nil)
	bad := slices.Concat(b[:headerSize], sized)
	sum := digest.Of(sized)
	binary.LittleEndian.PutUint32(bad[12:], uint32(len(sized)))
	binary.LittleEndian.PutUint32(bad[48:], maxManifest)
	copy(bad[16:], sum[:])
	if _, err := ReadManifest(bytes.NewReader(bad)); err == nil || !strings.Contains(err.Error(), "more than the 2097152 bytes") {
		t.Errorf("manifest: got %v, want a refusal", err)
	}
}

func TestRefusesHeader(t *testing.T) {
	b, _, _ := small(t)
	header := func(change func([]byte)) []byte {
		b := slices.Clone(b)
		change(b)
		return b
	}
	for _, c := range []struct {
		name    string
		payload []byte
		want    string
		newer   bool
	}{
		{"not a payload", bytes.Repeat([]byte("<html>"), 100), "this is not a payload", false},
		{"older version", header(func(b []byte) { b[8] = 1 }), "format version 1, this program reads 2 to 3", true},
		{"newer version", header(func(b []byte) { b[8] = 4 }), "format version 4", true},
		{"reserved bytes", header(func(b []byte) { b[63] = 1 }), "bytes 52 to 63 are not zero", false},
		{"manifest of 4 GiB", header(func(b []byte) { b[51] = 255 }), "at most 2097152 are allowed", false},
		{"manifest larger when packed", header(func(b []byte) { b[13]++ }), "packed in", false},
		{"damaged manifest", header(func(b []byte) { b[headerSize+3] ^= 1 }), "damaged", false},
	} {
		_, err := ReadManifest(bytes.NewReader(c.payload))
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrUnsupported) != c.newer {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// A machine that is not the source finds it out before anything is written.
func TestDeltaForAnotherSource(t *testing.T) {
	b, d := handmade(t, nil)
	other := bytes.Clone(d.oldBoot)
	other[5]++
	for _, c := range []struct {
		name   string
		change func(*Sources)
		want   string
	}{
		{"no sources", func(s *Sources) { *s = Sources{} }, "root image: expected 614400 bytes, found 0: this delta is for another source: take the full payload"},
		{"smaller root image", func(s *Sources) { s.RootSize = 4096 }, "root image: expected 614400 bytes, found 4096"},
		{"larger boot program", func(s *Sources) { s.BootSize++ }, "boot program: expected 307200 bytes, found 307201"},
		{"other boot program", func(s *Sources) { s.Boot = bytes.NewReader(other) }, "boot program: expected sha256"},
	} {
		src := d.src
		c.change(&src)
		body := bytes.NewReader(b)
		m, err := ReadManifest(body)
		if err != nil {
			t.Fatal(err)
		}
		sink := &kept{}
		if err := m.Apply(body, src, Mark{}, sink); !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), c.want) || len(sink.calls) > 0 {
			t.Errorf("%s: got %v, calls %q, want an error with %q", c.name, err, sink.calls, c.want)
		}
	}
}

func FuzzApply(f *testing.F) {
	full, _, _ := small(f)
	b, d := handmade(f, nil)
	f.Add(full)
	f.Add(b)
	f.Add(b[:100])
	f.Add(unpacked(f, b))
	fit, _ := handmade(f, fitted(f, nil))
	f.Add(fit)
	f.Add(unpacked(f, fit))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= headerSize { // let the fuzzer past the checksum
			if n := binary.LittleEndian.Uint32(b[12:]); int64(n) <= int64(len(b)-headerSize) {
				b = slices.Clone(b)
				sum := digest.Of(b[headerSize : headerSize+n])
				copy(b[16:], sum[:])
			}
		}
		m, err := ReadManifest(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, o := range m.Outputs {
			if o.Size > 4<<20 {
				return // only so that the test fits in memory
			}
		}
		src := d.src
		if m.RootSize == src.RootSize && m.BootSize == src.BootSize {
			m.Boot = digest.Of(d.oldBoot)
		}
		sink := &kept{}
		if err := m.Apply(bytes.NewReader(b[m.size:]), src, Mark{}, sink); err != nil {
			return
		}
		for _, o := range m.Outputs {
			checkSegments(t, o, sink.outputs[o.Kind].data)
		}
	})
}

// unpacked is the payload with its manifest stored raw, in which a fuzzer finds the fields.
func unpacked(t testing.TB, b []byte) []byte {
	m, err := ReadManifest(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	text := m.text()
	out := slices.Concat(b[:headerSize], text, b[m.size:])
	sum := digest.Of(text)
	binary.LittleEndian.PutUint32(out[12:], uint32(len(text)))
	copy(out[16:], sum[:])
	return out
}

// checkSegments compares what was written with the hash of each segment.
func checkSegments(t *testing.T, o Output, data []byte) {
	t.Helper()
	if int64(len(data)) != o.Size {
		t.Errorf("%s has %d bytes, want %d", o.Kind, len(data), o.Size)
		return
	}
	p := segmentPacker{in: Input{R: bytes.NewReader(data)}}
	c := newCursor(o.Runs)
	for i, s := range o.Segments {
		c.skipCopies()
		made, err := p.read(task{seg: s, at: c})
		if err != nil || digest.Of(made) != s.SHA256 {
			t.Errorf("%s: wrote a segment %d that is not what its hash says: %v", o.Kind, i, err)
		}
		c.skipMade(s.Length)
	}
}
