package payload

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestWindow(t *testing.T) {
	for n, want := range map[int]int{
		0: zstd.MinWindowSize, 1: zstd.MinWindowSize, zstd.MinWindowSize: zstd.MinWindowSize, zstd.MinWindowSize + 1: 2 * zstd.MinWindowSize,
		4 << 20: 4 << 20, maxZstdWindow: maxZstdWindow, maxZstdWindow + 1: maxZstdWindow,
	} {
		if got := window(n); got != want {
			t.Errorf("%d bytes: got a window of %d, want %d", n, got, want)
		}
	}
}

// A window in which everything is seen makes the frame that the largest one makes.
func TestFastPacksAsInTheLargestWindow(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var text []byte
	for len(text) < 3<<20 { // few letters, and much that comes back from far away
		for range r.IntN(300) {
			text = append(text, byte(r.IntN(7)))
		}
		from := r.IntN(len(text) + 1)
		text = append(text, text[from:min(from+r.IntN(2000), len(text))]...)
	}
	cut := func() []byte {
		n := r.IntN(1 << r.IntN(21))
		from := r.IntN(len(text) - n)
		return text[from : from+n]
	}
	for i := range 40 {
		data, prefix := slices.Concat(cut(), []byte{1}), []byte(nil)
		if i%2 == 1 {
			prefix = slices.Concat(cut(), []byte{1})
		}
		_, got, err := Fast{}.Pack(t.Context(), data, prefix)
		if err != nil {
			t.Fatal(err)
		}
		o := []zstd.EOption{zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
			zstd.WithWindowSize(maxZstdWindow), zstd.WithSingleSegment(true)}
		if prefix != nil {
			o = append(o, zstd.WithEncoderDictRaw(0, prefix))
		}
		e, err := zstd.NewWriter(nil, o...)
		if err != nil {
			t.Fatal(err)
		}
		if want := e.EncodeAll(data, nil); !bytes.Equal(got, want) {
			t.Errorf("%d bytes behind %d: got a frame of %d bytes, want the one of %d", len(data), len(prefix), len(got), len(want))
		}
		e.Close()
	}
}
