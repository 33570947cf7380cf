package payload

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// Wherever a prefix is kept, and whatever does not fit well, it is before what a frame makes.
func TestPrefixIsUnpackedBeforeASegment(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	text := sample(3, 3<<20)
	d, err := newDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	one := func(prefix, n, room, longest int64, place func(stored int64) int64) {
		t.Helper()
		from := r.Int64N(int64(len(text)) - prefix - n)
		before, want := text[from:from+prefix], slices.Concat(text[from+n/2:][:n-n/2], text[from:from+n/2])
		_, frame, err := Fast{}.Pack(t.Context(), want, before)
		if err != nil {
			t.Fatal(err)
		}
		skip, err := blocksOf(frame, n)
		if err != nil {
			t.Fatal(err)
		}
		blocks := frame[skip:]
		kept := place(int64(len(blocks)))
		const at = 1 << 30 // of the prefix, as the next one's source address
		m := memory{b: make([]byte, room+longest+inPlace), room: room, end: at + prefix, kept: kept, known: prefix}
		sp := space{{"nothing", nil, 1 << 40}}
		if kept > 0 {
			copy(m.b[kept-prefix:], before)
		} else {
			sp = space{{"nothing", nil, at}, {"prefix", bytes.NewReader(before), prefix}}
			m.known--
		}
		got, err := m.prefixed(Range{at, prefix}, n, int64(len(blocks)), sp)
		if err != nil {
			t.Fatal(err)
		}
		copy(got[len(got)-len(blocks):], blocks)
		if err := unzstd(d, m.behind(prefix, n), got); err != nil {
			t.Fatalf("%d bytes behind %d in %d and %d, kept up to %d: %v", n, prefix, room, longest, kept, err)
		}
		m.keep(at+prefix, n)
		if got := m.b[m.kept-m.known : m.kept]; !bytes.Equal(got, slices.Concat(before, want)) {
			t.Errorf("%d bytes behind %d in %d and %d, kept up to %d: not what was packed", n, prefix, room, longest, kept)
		}
	}
	for range 300 {
		prefix, n := 1+r.Int64N(1<<r.IntN(21)), 1+r.Int64N(1<<r.IntN(20))
		room, longest := prefix+r.Int64N(300<<10), n+r.Int64N(300<<10)
		one(prefix, n, room, longest, func(int64) int64 {
			if r.IntN(4) == 0 {
				return 0 // it is read
			}
			return prefix + r.Int64N(room+longest-prefix+1)
		})
	}
	// Kept so that blocks are moved up, down, and by next to nothing.
	const blocks = 6
	for _, more := range []int64{-1, 0, 1} {
		for up := int64(-4 * blocks); up <= 4*blocks; up++ {
			const n = 200 << 10
			prefix := int64(blocks*maxBlock) + more
			one(prefix, n, prefix, n, func(stored int64) int64 { return prefix + n + inPlace - stored - up })
		}
	}
}

// What a frame says that refers to a prefix is its beginning, and the prefix is not part of it.
func TestRefusesFrames(t *testing.T) {
	before, data := sample(1, 100<<10), sample(2, 50<<10)
	pack := func(o ...zstd.EOption) []byte {
		e, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithEncoderCRC(false), zstd.WithEncoderDictRaw(0, before)}, o...)...)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		return e.EncodeAll(data, nil)
	}
	good := pack()
	change := func(i int, v byte) []byte {
		b := slices.Clone(good)
		b[i] = v
		return b
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  string
	}{
		{"checksum", pack(zstd.WithEncoderCRC(true)), "expected a frame without checksum"},
		{"skippable", slices.Concat([]byte("\x50\x2a\x4d\x18\x01\x00\x00\x00x"), good), "expected a frame without checksum"},
		{"dictionary", []byte("\x28\xb5\x2f\xfd\x21\x07\x10"), "expected a frame without checksum"},
		{"no frame", change(0, 0), "magic"},
		{"window of 2 TiB", []byte("\x28\xb5\x2f\xfd\x00\xf8"), "window of 2199023255552 bytes, at most 16777216"},
		{"another length", pack()[:5], "unexpected EOF"},
		{"reserved bit", change(4, 8), "reserved bit"},
	} {
		if _, err := blocksOf(c.frame, int64(len(data))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	if _, err := blocksOf(good, int64(len(data))-1); err == nil || !strings.Contains(err.Error(), "51200 bytes, expected 51199") {
		t.Errorf("got %v, want the two lengths", err)
	}
}
