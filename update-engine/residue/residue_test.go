package residue

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/proa-os/proa/internal/digest"
)

// program is code of functions at random places that call each other; moved says how far what was at an address is now from there.
func program(n int, moved func(int) int) (old, diff []byte, places []Place) {
	r := rand.New(rand.NewPCG(1, 2))
	old = make([]byte, n)
	for i := range old {
		old[i] = byte(r.IntN(32)) // opcodes are not all alike
	}
	changed := slices.Clone(old)
	for i := 100; i+5 < n; i += 6 + r.IntN(60) {
		target := r.IntN(400) * 37 * (n / 16000)
		old[i], changed[i] = 0xe8, 0xe8
		binary.LittleEndian.PutUint32(old[i+1:], uint32(target-(i+5)))
		binary.LittleEndian.PutUint32(changed[i+1:], uint32(target+moved(target)-(i+5+moved(i+1))))
	}
	diff = make([]byte, n)
	for i := range diff {
		diff[i] = changed[i] - old[i]
	}
	for first := 0; first < n; {
		last := first + 1
		for last < n && moved(last) == moved(first) {
			last++
		}
		places = append(places, Place{last - first, int64(first + moved(first)), int64(-moved(first))})
		first = last
	}
	return old, diff, places
}

func steps(at int) int { return at / 10_000 * 16 }

// The model finds out where operands lead; whoever looks at the differences only, needs several times as much.
func TestModel(t *testing.T) {
	old, diff, places := program(400_000, steps)
	m := NewModel()
	packed := m.Encode(diff, old, places)
	if limit := 6000; len(packed) > limit {
		t.Errorf("%d bytes packed in %d, want at most %d", len(diff), len(packed), limit)
	}
	if blind := m.Encode(diff, make([]byte, len(old)), []Place{{Length: len(diff)}}); len(blind) < 3*len(packed) {
		t.Errorf("with the old bytes %d, without them %d: they are of no use", len(packed), len(blind))
	}
	got := make([]byte, len(diff))
	if m.Decode(got, packed, old, places); !bytes.Equal(got, diff) {
		t.Error("unpacks to something else")
	}
	// The bytes are a format: whoever changes the model changes the version of payloads.
	const want = "2658aa7389cb3011b04c907666ec2fe6b7753dc2152ea3c10cd429beb50533db"
	if sum := digest.Of(packed).String(); sum != want {
		t.Errorf("packed bytes have sha256 %s, want %s", sum, want)
	}
}

// Every length, all kinds of content, and places that fit nothing.
func TestRoundTrip(t *testing.T) {
	m := NewModel()
	r := rand.New(rand.NewPCG(3, 4))
	for n := range 300 {
		diff, old := make([]byte, n), make([]byte, n)
		for i := range diff {
			old[i] = byte(r.Uint32())
			if r.IntN(n%7+1) == 0 {
				diff[i] = byte(r.Uint32())
			}
		}
		places := []Place{{n / 2, r.Int64N(1 << 34), -r.Int64N(1 << 34)}, {n - n/2, 5, r.Int64N(1 << 34)}}
		packed := m.Encode(slices.Clone(diff), old, places)
		got := make([]byte, n)
		if m.Decode(got, packed, old, places); !bytes.Equal(got, diff) {
			t.Fatalf("%d bytes unpack to something else", n)
		}
	}
}

// What is damaged unpacks to something, whatever it is; a hash tells.
func FuzzDecode(f *testing.F) {
	old, diff, places := program(2000, steps)
	m := NewModel()
	f.Add(m.Encode(diff, old, places), 2000, int64(0))
	f.Add([]byte{}, 70, int64(1))
	f.Fuzz(func(t *testing.T, packed []byte, n int, shift int64) {
		if n < 0 || n > len(old) {
			return
		}
		at := []Place{{n, 0, shift}}
		diff := make([]byte, n)
		m.Decode(diff, packed, old[:n], at)
		again := make([]byte, n)
		if m.Decode(again, m.Encode(slices.Clone(diff), old[:n], at), old[:n], at); !bytes.Equal(diff, again) {
			t.Error("what was unpacked does not come back")
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	old, diff, places := program(4<<20, steps)
	m := NewModel()
	packed := m.Encode(diff, old, places)
	b.SetBytes(int64(len(diff)))
	for b.Loop() {
		m.Decode(diff, packed, old, places)
	}
	b.ReportMetric(float64(m.Work()), "work/op")
}
