package bsdiff

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// letters is n bytes of an alphabet of the given size: a small one has many long repetitions.
func letters(r *rand.Rand, n, alphabet int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.IntN(alphabet))
	}
	return b
}

// The longest match is compared with looking everywhere.
func TestLongest(t *testing.T) {
	r := random(2)
	var d Differ
	check := func(old, s []byte) {
		t.Helper()
		want := 0
		for i := range old {
			want = max(want, commonPrefix(old[i:], s))
		}
		if want < d.width {
			want = 0
		}
		if at, got := d.longest(old, s); got != want || commonPrefix(old[at:], s) < got {
			t.Fatalf("%v in %d bytes: got %d bytes at %d, want %d", s, len(old), got, at, want)
		}
	}
	for range 300 {
		old := letters(r, 1+r.IntN(200), 1+r.IntN(4))
		d.sort(old)
		check(old, letters(r, 1+r.IntN(20), 4))
	}
	old := slices.Concat(letters(r, large, 256), letters(r, 1000, 2))
	d.sort(old) // with narrower buckets
	for range 5 {
		check(old, letters(r, 1+r.IntN(20), 2))
		check(old, letters(r, 1+r.IntN(4), 256))
		check(old, old[len(old)-1-r.IntN(4):])
	}
}

// program is something like compiled code: instructions, some with the address of another place, which move says. It has the same
// instructions for the same seed.
func program(seed uint64, n int, move func(address uint32) uint32) []byte {
	r := random(seed)
	var b []byte
	for range n {
		for range 3 + r.IntN(9) {
			b = append(b, byte(r.IntN(96)))
		}
		b = binary.LittleEndian.AppendUint32(append(b, 0xe8), move(r.Uint32N(1<<24)))
	}
	return b
}

func stay(a uint32) uint32 { return a }

type pair struct {
	name     string
	old, new []byte
	max      int // bytes of good streams that are not zero
}

func pairs() []pair {
	r := random(3)
	noise := letters(r, 20_000, 256)
	old := program(9, 4000, stay)
	moved := program(9, 4000, func(a uint32) uint32 {
		if a > 1<<23 {
			return a + 0x40
		}
		return a
	})
	inserted := slices.Concat(moved[:30_000], noise[:64], moved[30_000:])
	swapped := slices.Concat(old[20_000:], old[:20_000])
	return []pair{
		{"both empty", nil, nil, 0},
		{"to nothing", noise, nil, 0},
		{"from nothing", nil, noise, len(noise)},
		{"equal", noise, noise, 0},
		{"one byte", []byte{1}, []byte{2}, 1},
		{"one byte changed", noise, slices.Concat(noise[:777], []byte{noise[777] ^ 1}, noise[778:]), 1},
		{"cut off", noise, noise[:5000], 0},
		{"begin cut off", noise, noise[5000:], 0},
		{"grown", noise[:5000], noise[:5100], 100},
		{"inserted", noise, slices.Concat(noise[:100], []byte("hello"), noise[100:]), 5},
		{"halves swapped", old, swapped, 0},
		{"twice", noise[:3000], slices.Concat(noise[:3000], noise[:3000]), 0},
		{"addresses moved", old, moved, 2 * 2001},
		{"addresses moved, code inserted", old, inserted, 2*2001 + 70},
		{"nothing in common", noise, letters(r, 10_000, 256), 10_000},
		{"zeros", make([]byte, 9000), make([]byte, 12_000), 3000},
	}
}

// weight is how many bytes of the streams that go with a description are not zero.
func weight(control []Control, old, new []byte) int {
	n, at := 0, int64(0)
	for _, c := range control {
		for i, b := range new[:c.Add] {
			if b != old[at+int64(i)] {
				n++
			}
		}
		n += int(c.Copy)
		new = new[c.Add+c.Copy:]
		at += c.Add + c.Seek
	}
	return n
}

// described compares pairs, and refuses a description that does not make all of the new file, or reads outside the old one.
func described(t *testing.T, d *Differ, old, new []byte) []Control {
	t.Helper()
	control := d.Diff(old, new)
	var at, made int64
	for i, c := range control {
		if made += c.Add + c.Copy; c.Add < 0 || c.Copy < 0 || c.Add > 0 && (at < 0 || at > int64(len(old))-c.Add) {
			t.Fatalf("piece %d of %+v reads at %d of an old file of %d", i, control, at, len(old))
		}
		at += c.Add + c.Seek
	}
	if made != int64(len(new)) {
		t.Fatalf("%d bytes are described, the new file has %d", made, len(new))
	}
	if n := len(control); n > 0 && control[n-1].Seek != 0 {
		t.Fatalf("the last piece seeks: %+v", control[n-1])
	}
	return control
}

func TestDiff(t *testing.T) {
	var d Differ // one for all: nothing of an earlier pair may stay in it
	for _, p := range pairs() {
		t.Run(p.name, func(t *testing.T) {
			got := described(t, &d, p.old, p.new)
			if w := weight(got, p.old, p.new); w > p.max {
				t.Errorf("%d bytes are not zero, want at most %d", w, p.max)
			}
			if again := Diff(p.old, p.new); fmt.Sprint(again) != fmt.Sprint(got) {
				t.Error("a fresh Differ describes it otherwise")
			}
		})
	}
}

// Small pieces of few letters in any order meet every corner of extending and cutting matches.
func TestDiffOfRandom(t *testing.T) {
	r := random(4)
	var d Differ
	for range 2000 {
		old := letters(r, r.IntN(120), 1+r.IntN(5))
		var new []byte
		for range r.IntN(6) {
			if len(old) == 0 || r.IntN(3) == 0 {
				new = append(new, letters(r, r.IntN(20), 6)...)
				continue
			}
			from := r.IntN(len(old))
			new = append(new, old[from:from+r.IntN(len(old)-from)]...)
			if len(new) > 0 {
				new[r.IntN(len(new))]++
			}
		}
		described(t, &d, old, new)
	}
}

func FuzzDiff(f *testing.F) {
	for _, p := range pairs() {
		f.Add(p.old[:min(len(p.old), 2000)], p.new[:min(len(p.new), 2000)])
	}
	f.Fuzz(func(t *testing.T, old, new []byte) {
		var d Differ
		described(t, &d, old, new)
	})
}

func BenchmarkDiff(b *testing.B) {
	for _, p := range []pair{
		{"module", program(1, 8000, stay), program(1, 8000, func(a uint32) uint32 { return a + 0x40 }), 0},
		{"library", program(2, 500_000, stay), program(2, 500_000, func(a uint32) uint32 { return a + 0x40*(a>>20) }), 0},
	} {
		b.Run(p.name, func(b *testing.B) {
			var d Differ
			b.SetBytes(int64(len(p.new)))
			for b.Loop() {
				d.Diff(p.old, p.new)
			}
		})
	}
}

// BenchmarkFiles is for two real files: PROA_BSDIFF=OLD:NEW.
func BenchmarkFiles(b *testing.B) {
	names := filepath.SplitList(os.Getenv("PROA_BSDIFF"))
	if len(names) != 2 {
		b.Skip("PROA_BSDIFF=OLD:NEW names no files")
	}
	old, err1 := os.ReadFile(names[0])
	new, err2 := os.ReadFile(names[1])
	if err1 != nil || err2 != nil {
		b.Fatal(err1, err2)
	}
	var d Differ
	b.SetBytes(int64(len(new)))
	for b.Loop() {
		control := d.Diff(old, new)
		b.ReportMetric(float64(weight(control, old, new)), "bytes")
		b.ReportMetric(float64(len(control)), "pieces")
	}
}
