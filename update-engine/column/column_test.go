package column

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/proa-os/proa/internal/digest"
)

// relocations lead into code of n places, a third of which has moved by 0x40 and another third by 0x70.
func relocations(n int) (old, diff []byte) {
	r := rand.New(rand.NewPCG(1, 2))
	moved := func(v uint64) uint64 { return v + []uint64{0, 0x40, 0x70}[int(v)*3/(n*16)] }
	changed := []byte{}
	for i := range n {
		to := uint64(r.IntN(n * 16))
		for _, b := range []struct {
			to   *[]byte
			move func(uint64) uint64
		}{{&old, func(v uint64) uint64 { return v }}, {&changed, moved}} {
			*b.to = binary.LittleEndian.AppendUint64(*b.to, b.move(uint64(i*16)))
			*b.to = binary.LittleEndian.AppendUint64(*b.to, 3<<32|2)
			*b.to = binary.LittleEndian.AppendUint64(*b.to, b.move(to))
		}
	}
	diff = make([]byte, len(old))
	for i := range diff {
		diff[i] = changed[i] - old[i]
	}
	return old, diff
}

func nonzero(b []byte) (n int) {
	for _, v := range b {
		if v != 0 {
			n++
		}
	}
	return n
}

// Relocations that lead to what has moved are foretold by those before them.
func TestForecast(t *testing.T) {
	old, diff := relocations(5000)
	ranges := []Range{{Count: 5000, Kind: Rela, First: true, Target: 3}}
	packed := slices.Clone(diff)
	p := New()
	p.Pack(packed, old, ranges)
	if before, after := nonzero(diff), nonzero(packed); before < 8000 || after > before/20 {
		t.Errorf("%d differences before, %d after", before, after)
	}
	// The bytes are a format: whoever changes the forecast changes the version of payloads.
	const want = "05d38c6c911565977c665da0f2a80661930ad0da6fc0114397b1f7bfe3ed9bca"
	if sum := digest.Of(packed).String(); sum != want {
		t.Errorf("packed bytes have sha256 %s, want %s", sum, want)
	}
	p.Unpack(packed, old, ranges)
	if !bytes.Equal(packed, diff) {
		t.Error("unpacks to something else")
	}
}

// The same word moves alike wherever it is, and so does what is near it; versions are known again by their checksum, in another file, too.
func TestWords(t *testing.T) {
	old, changed := []byte{}, []byte{}
	for i := range 3000 {
		v := uint32(i * 7 % 500)
		old = binary.LittleEndian.AppendUint32(old, v)
		if v > 200 {
			v += 12
		}
		changed = binary.LittleEndian.AppendUint32(changed, v)
	}
	diff := make([]byte, len(old))
	for i := range diff {
		diff[i] = changed[i] - old[i]
	}
	New().Pack(diff, old, []Range{{Count: 3000, Kind: Words}})
	if n := nonzero(diff); n > 30 {
		t.Errorf("%d words are not foretold", n)
	}

	old, diff = make([]byte, 4*64), make([]byte, 4*64)
	for i := range 4 {
		binary.LittleEndian.PutUint32(old[i*64:], 0x12345678)
		copy(diff[i*64:], []byte{9, 8, 7, 6})
	}
	New().Pack(diff, old, []Range{{Count: 2, Kind: Version, First: true}, {At: 128, Count: 2, Kind: Version, First: true}})
	if n := nonzero(diff[4:]); n > 0 || nonzero(diff) == 0 {
		t.Errorf("%d differences behind the first version, %x", n, diff)
	}
}

// Whatever is in ranges of whatever kind comes back, and nothing outside of them is touched.
func FuzzRoundTrip(f *testing.F) {
	old, diff := relocations(20)
	f.Add(old, diff, uint8(1), uint8(0), uint32(3))
	f.Add(old, diff, uint8(2), uint8(5), uint32(0))
	f.Add(old, diff, uint8(0), uint8(1), uint32(1<<31))
	f.Add(old, diff, uint8(3), uint8(9), uint32(7))
	f.Fuzz(func(t *testing.T, old, diff []byte, kind, at uint8, target uint32) {
		n := min(len(old), len(diff))
		old, diff = old[:n], diff[:n]
		k := Kind(kind % kinds)
		first := min(int(at), n)
		ranges := []Range{{At: first, Count: (n - first) / 2 / k.Size(), Kind: k, First: true, Target: target}}
		if second := ranges[0].End(); n-second > 100 {
			ranges = append(ranges, Range{At: second + 1, Count: (n - second - 1) / 64, Kind: (k + 1) % kinds, First: at%2 == 0})
		}
		p := New()
		packed := slices.Clone(diff)
		p.Pack(packed, old, ranges)
		if !bytes.Equal(packed[:first], diff[:first]) || !bytes.Equal(packed[ranges[len(ranges)-1].End():], diff[ranges[len(ranges)-1].End():]) {
			t.Error("something outside of the ranges has changed")
		}
		if p.Unpack(packed, old, ranges); !bytes.Equal(packed, diff) {
			t.Error("does not come back")
		}
	})
}

func BenchmarkUnpack(b *testing.B) {
	old, diff := relocations(100_000)
	p := New()
	ranges := []Range{{Count: 100_000, Kind: Rela, First: true, Target: 3}}
	p.Pack(diff, old, ranges)
	packed := slices.Clone(diff)
	b.SetBytes(int64(len(old)))
	for b.Loop() {
		copy(diff, packed)
		p.Unpack(diff, old, ranges)
	}
}
