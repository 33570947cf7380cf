package suffix

import (
	"bytes"
	"math/rand/v2"
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

func fibonacci(n int) []byte {
	a, b := []byte("a"), []byte("ab")
	for len(b) < n {
		a, b = b, append(slices.Clone(b), a...)
	}
	return b[:n]
}

// The suffix array is compared with sorting. The strings are those on which induced sorting has its hard cases: repetitions of
// repetitions, which need several levels.
func TestArray(t *testing.T) {
	r := random(1)
	list := [][]byte{nil, {7}, {1, 1}, {2, 1}, {1, 2}, []byte("mississippi"), []byte("abracadabra"), bytes.Repeat([]byte{0}, 1000), bytes.Repeat([]byte{255}, 999),
		bytes.Repeat([]byte("ab"), 700), bytes.Repeat([]byte("ba"), 700), fibonacci(1500), bytes.Repeat(append(fibonacci(30), 'c'), 40)}
	for n := range 60 {
		for alphabet := 1; alphabet < 5; alphabet++ {
			list = append(list, letters(r, n, alphabet))
		}
		list = append(list, letters(r, 20*n, 1+n*4))
	}
	for _, s := range list {
		got, want := make([]int32, len(s)), make([]int32, len(s))
		for i := range want {
			want[i] = int32(i)
		}
		slices.SortFunc(want, func(a, b int32) int { return bytes.Compare(s[a:], s[b:]) })
		Array(s, got)
		if !slices.Equal(got, want) {
			t.Fatalf("%q: got %v, want %v", s[:min(len(s), 60)], got, want)
		}
	}
}

// Every string of up to 8 letters, of three kinds.
func TestArrayExhaustive(t *testing.T) {
	for n := 1; n <= 8; n++ {
		total := 1
		for range n {
			total *= 3
		}
		s, got, want := make([]byte, n), make([]int32, n), make([]int32, n)
		for i := range total {
			for j, x := 0, i; j < n; j, x = j+1, x/3 {
				s[j], want[j] = byte(x%3), int32(j)
			}
			slices.SortFunc(want, func(a, b int32) int { return bytes.Compare(s[a:], s[b:]) })
			if Array(s, got); !slices.Equal(got, want) {
				t.Fatalf("%v: got %v, want %v", s, got, want)
			}
		}
	}
}

func BenchmarkArray(b *testing.B) {
	for name, s := range map[string][]byte{"random": letters(random(1), 1<<22, 256), "repetitive": fibonacci(1 << 22)} {
		b.Run(name, func(b *testing.B) {
			sa := make([]int32, len(s))
			b.SetBytes(int64(len(s)))
			for b.Loop() {
				Array(s, sa)
			}
		})
	}
}
