package bunzip2

import (
	"bytes"
	"compress/bzip2"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	packer "github.com/proa-os/proa/update-engine/bzip2"
)

// differences is like a diff stream: zeros, and here and there a few bytes of a few kinds.
func differences(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := r.IntN(30); i < n; i += 1 + r.IntN(40) {
		b[i] = []byte{0x20, 0x40, 0xe0, 1}[r.IntN(4)]
	}
	return b
}

func inputs() [][]byte {
	r := rand.New(rand.NewPCG(3, 4))
	random := make([]byte, 1000)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	list := [][]byte{nil, {7}, {7, 7}, make([]byte, 1_000_000), []byte(strings.Repeat("to be or not to be, ", 3000)), random, differences(200_000),
		bytes.Repeat(random[:20], 100_000)}
	for _, n := range []int{3, 4, 5, 254, 255, 256, 259, 260, 511} {
		list = append(list, append(bytes.Repeat([]byte{9}, n), 1), bytes.Repeat([]byte{0}, n))
	}
	return list
}

func TestUnpack(t *testing.T) {
	for i, data := range inputs() {
		if got, err := own(packer.Pack(data), len(data)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("input %d of %d bytes: unpacks to something else, %v", i, len(data), err)
		}
	}
}

func own(packed []byte, n int) ([]byte, error) {
	out := bytes.Repeat([]byte{0xaa}, n) // what was there before is not to show
	var u Unpacker
	return out, u.Unpack(out, packed, nil)
}

// What is not all there, too much or too little is refused, and the unpacker is as good as new afterwards.
func TestUnpackRefuses(t *testing.T) {
	data := differences(300_000)
	packed := packer.Pack(data)
	var u Unpacker
	for n := range packed {
		if n > 200 && n < len(packed)-200 && n%97 != 0 {
			continue
		}
		if err := u.Unpack(make([]byte, len(data)), packed[:n], nil); err == nil {
			t.Fatalf("the first %d bytes of %d were enough", n, len(packed))
		}
	}
	for _, n := range []int{0, 1, len(data) - 1, len(data) + 1, len(data) + 1000} {
		if err := u.Unpack(make([]byte, n), packed, nil); err == nil {
			t.Errorf("%d bytes for the %d that it holds", n, len(data))
		}
	}
	if err := u.Unpack(make([]byte, len(data)), append(slices.Clone(packed), 0), nil); err == nil {
		t.Error("a byte behind the end was taken")
	}
	got := make([]byte, len(data))
	if err := u.Unpack(got, packed, nil); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after all that: %v", err)
	}
	if n := len(u.own); n > 4*4*step {
		t.Errorf("%d bytes of memory for a block of at most %d", n, 4*step)
	}
	// It takes no memory where it is given enough, and none of what it is given is taken for something.
	var lent Unpacker
	if err := lent.Unpack(got, packed, bytes.Repeat([]byte{0xbb}, 4*highest*step)); err != nil || !bytes.Equal(got, data) || lent.own != nil {
		t.Errorf("in memory that was lent: %v, %d bytes of its own", err, len(lent.own))
	}
}

// Whatever the standard library unpacks, Unpack does to the same bytes; it looks at no checksum and takes one stream only, so it may take what
// the other refuses, but nothing makes it read or write outside.
func FuzzUnpack(f *testing.F) {
	for _, data := range inputs() {
		if packed := packer.Pack(data); len(packed) < 10_000 {
			f.Add(packed, len(data))
		}
	}
	f.Fuzz(func(t *testing.T, packed []byte, n int) {
		if n < 0 || n > 1<<20 {
			return
		}
		got, err := own(packed, n)
		want, judge := io.ReadAll(io.LimitReader(bzip2.NewReader(bytes.NewReader(packed)), int64(n)+1))
		if judge == nil && len(want) == n && err == nil && !bytes.Equal(got, want) {
			t.Error("not what the standard library makes of it")
		}
		if judge == nil && err == nil && len(want) != n {
			t.Errorf("%d bytes, the standard library makes %d", n, len(want))
		}
	})
}

func BenchmarkUnpack(b *testing.B) {
	data := make([]byte, 4<<20)
	copy(data[1<<20:], differences(100_000))
	packed := packer.Pack(data)
	var u Unpacker
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := u.Unpack(data, packed, nil); err != nil {
			b.Fatal(err)
		}
	}
}
