package bzip2

import (
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func letters(r *rand.Rand, n, alphabet int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.IntN(alphabet))
	}
	return b
}

// differences is like a diff stream: zeros, and here and there a few bytes of a few kinds.
func differences(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := r.IntN(30); i < n; i += 1 + r.IntN(40) {
		b[i] = []byte{0x20, 0x40, 0xe0, 1}[r.IntN(4)]
	}
	return b
}

func inputs() map[string][]byte {
	r := random(1)
	var fib, next = []byte("a"), []byte("ab")
	for len(next) < 10_000 {
		fib, next = next, slices.Concat(next, fib)
	}
	all := map[string][]byte{
		"nothing": nil, "a byte": {7}, "two": {7, 8}, "equal": {7, 7}, "zeros": make([]byte, 1_000_000), "text": []byte(strings.Repeat("to be or not to be, ", 3000)),
		"every byte": slices.Concat(letters(r, 5000, 256), letters(r, 5000, 2)), "random": letters(r, 100_000, 256), "fibonacci": next,
		"periodic": []byte(strings.Repeat("abc", 5000)), "differences": differences(r, 1<<20),
	}
	for _, n := range []int{3, 4, 5, 254, 255, 256, 259, 260, 511} {
		all[fmt.Sprintf("run of %d", n)] = append(bytes.Repeat([]byte{9}, n), 1)
	}
	// Symbols of which each is rarer than all before together: codes would be longer than are allowed.
	var skewed []byte
	for i, a, b := 0, 1, 1; i < 22; i, a, b = i+1, b, a+b {
		skewed = append(skewed, bytes.Repeat([]byte{byte(i), byte(i + 100)}, a/2+1)...)
	}
	r.Shuffle(len(skewed), func(i, j int) { skewed[i], skewed[j] = skewed[j], skewed[i] })
	all["skewed"] = skewed
	for _, n := range []int{blockSize, blockSize + 1} {
		all[fmt.Sprintf("block of %d", n)] = letters(r, n, 4)
	}
	return all
}

func unpacked(t *testing.T, packed []byte) []byte {
	t.Helper()
	b, err := io.ReadAll(bzip2.NewReader(bytes.NewReader(packed)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPack(t *testing.T) {
	for name, data := range inputs() {
		t.Run(name, func(t *testing.T) {
			packed := Pack(data)
			if !bytes.Equal(unpacked(t, packed), data) {
				t.Error("unpacks to something else")
			}
			if len(data) < 100_000 && !bytes.Equal(Pack(data), packed) {
				t.Error("not the same again")
			}
		})
	}
}

// The last column is that of the rotations sorted one by one, of periodic blocks too, and what it says is the block is that.
func TestTransform(t *testing.T) {
	r := random(4)
	for range 3000 {
		block := bytes.Repeat(letters(r, 1+r.IntN(12), 1+r.IntN(3)), 1+r.IntN(4))
		var all []string
		for i := range block {
			all = append(all, string(block[i:])+string(block[:i]))
		}
		slices.Sort(all)
		var want []byte
		for _, s := range all {
			want = append(want, s[len(s)-1])
		}
		if last, origin := transform(block); !bytes.Equal(last, want) || all[origin] != string(block) {
			t.Fatalf("%v: got %v and rotation %d, want %v", block, last, origin, want)
		}
	}
}

// busybox unpacks what we pack, and packs as the reference does: ours must not be larger, and smaller where it matters.
func TestPackAgrees(t *testing.T) {
	tools := testenv.Tools(t)
	run := func(data []byte, args ...string) []byte {
		t.Helper()
		cmd := tools.Command(t.Context(), "busybox", args...)
		cmd.Stdin = bytes.NewReader(data)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("busybox %s: %v", args[0], err)
		}
		return out
	}
	for name, data := range inputs() {
		packed := Pack(data)
		if len(data) > 0 && !bytes.Equal(run(packed, "bunzip2", "-c"), data) {
			t.Errorf("%s: busybox unpacks something else", name)
		}
		if theirs := len(run(data, "bzip2", "-9", "-c")); len(packed) > theirs+theirs/100 {
			t.Errorf("%s: %d bytes, busybox makes %d", name, len(packed), theirs)
		} else {
			t.Logf("%s: %d bytes, busybox %d", name, len(packed), theirs)
		}
	}
}

// Every code length set is a complete prefix code within the limit.
func TestCodeLengths(t *testing.T) {
	r := random(2)
	for i := range 300 {
		freq := make([]int, 2+r.IntN(257))
		for s := range freq {
			if freq[s] = r.IntN(3); i%3 == 0 {
				freq[s] = int(1 / (r.Float64() + 1e-6))
			}
		}
		sum := 0
		for _, l := range codeLengths(freq) {
			if l < 1 || l > maxLength {
				t.Fatalf("a code of %d bits", l)
			}
			sum += 1 << (maxLength - l)
		}
		if sum != 1<<maxLength {
			t.Fatalf("%v: the code is not complete: %d of %d", freq, sum, 1<<maxLength)
		}
	}
}

func FuzzPack(f *testing.F) {
	f.Add([]byte("hello, hello"))
	f.Add(bytes.Repeat([]byte{0}, 300))
	f.Fuzz(func(t *testing.T, data []byte) {
		if !bytes.Equal(unpacked(t, Pack(data)), data) {
			t.Error("unpacks to something else")
		}
	})
}

func BenchmarkPack(b *testing.B) {
	data := differences(random(3), 4<<20)
	if name := os.Getenv("PROA_BZIP2"); name != "" {
		var err error
		if data, err = os.ReadFile(name); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		n := 0
		for piece := range slices.Chunk(data, 4<<20) {
			n += len(Pack(piece))
		}
		b.ReportMetric(float64(n), "bytes")
	}
}

// The level, by which whoever unpacks sets memory aside, is the lowest that does.
func TestLevel(t *testing.T) {
	r := random(3)
	for _, c := range []struct {
		name  string
		data  []byte
		level byte
	}{
		{"nothing", nil, '1'}, {"few bytes", letters(r, 100, 256), '1'}, {"a full block of level 1", letters(r, step-spare, 256), '1'},
		{"more than that", letters(r, step-spare+500, 256), '2'}, {"half a megabyte", letters(r, 500_000, 4), '6'},
		{"megabytes of zeros", make([]byte, 3<<20), '1'}, {"two blocks", letters(r, blockSize+blockSize/2, 4), '9'},
	} {
		packed := Pack(c.data)
		if packed[3] != c.level {
			t.Errorf("%s: level %c, want %c", c.name, packed[3], c.level)
		}
		if !bytes.Equal(unpacked(t, packed), c.data) {
			t.Errorf("%s: unpacks to something else", c.name)
		}
	}
}
