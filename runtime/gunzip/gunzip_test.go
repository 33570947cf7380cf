package gunzip

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

// texts are inputs of many kinds: none, short, repeated, random, code, with distances up to the window.
func texts(t testing.TB) [][]byte {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 300<<10)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	far := append(append(append([]byte{}, noise[:40]...), bytes.Repeat([]byte("x"), window-40)...), noise[:40]...)
	few := make([]byte, 200<<10)
	for i := range few {
		few[i] = "abcdefghijklmnopqrstuvwxyz"[int(r.ExpFloat64()*3)%26]
	}
	return [][]byte{nil, []byte("a"), bytes.Repeat([]byte("a"), 500<<10), bytes.Repeat([]byte("abc"), 100<<10), bytes.Repeat([]byte("abcdefghi"), 30<<10), noise, far, few,
		self[:min(len(self), 3<<20)]}
}

func pack(t testing.TB, level int, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Name, w.Comment, w.Extra = "name", "comment", []byte("odd")
	w.Write(text)
	w.Close()
	return b.Bytes()
}

func unpack(r io.Reader) ([]byte, error) {
	z, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// TestReads: what compress/gzip writes at all levels comes back, however the input comes.
func TestReads(t *testing.T) {
	for i, text := range texts(t) {
		for _, level := range []int{gzip.HuffmanOnly, gzip.NoCompression, gzip.BestSpeed, gzip.DefaultCompression, gzip.BestCompression} {
			b := pack(t, level, text)
			if got, err := unpack(bytes.NewReader(b)); err != nil || !bytes.Equal(got, text) {
				t.Errorf("text %d, level %d: %d bytes of %d, %v", i, level, len(got), len(text), err)
			}
			if level == gzip.DefaultCompression {
				two := append(bytes.Clone(b), b...)
				if got, err := unpack(iotest.HalfReader(bytes.NewReader(two))); err != nil || len(got) != 2*len(text) {
					t.Errorf("text %d twice: %d bytes of %d, %v", i, len(got), 2*len(text), err)
				}
			}
		}
		if len(text) < 1<<10 {
			if got, err := unpack(iotest.OneByteReader(bytes.NewReader(pack(t, 6, text)))); err != nil || !bytes.Equal(got, text) {
				t.Errorf("text %d by bytes: %v", i, err)
			}
		}
	}
}

// TestRefuses: damaged input is an error and never other bytes without one.
func TestRefuses(t *testing.T) {
	text := []byte(strings.Repeat("some words that are found again, ", 50) + "and an end")
	good := pack(t, 6, text)
	for cut := range good {
		if got, err := unpack(bytes.NewReader(good[:cut])); err == nil {
			t.Errorf("cut at %d of %d: %d bytes and no error", cut, len(good), len(got))
		}
	}
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"behind it", append(bytes.Clone(good), "garbage garbage"...), ErrCorrupt},
		{"a byte behind it", append(bytes.Clone(good), 0), io.ErrUnexpectedEOF},
		{"checksum", append(bytes.Clone(good[:len(good)-8]), 0, 0, 0, 0, 0, 0, 0, 0), ErrCorrupt},
		{"no gzip", []byte("plain text of some length"), ErrCorrupt},
		{"bits and no more", append(bytes.Clone(good[:10]), "mc"...), io.ErrUnexpectedEOF},
		{"kind 3", append(bytes.Clone(good[:10]), 0xff, 0xff, 0xff), ErrCorrupt},
	} {
		if _, err := unpack(bytes.NewReader(c.b)); c.name != "kind 3" && !errors.Is(err, c.want) || err == nil {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	broken := errors.New("the disk")
	if _, err := unpack(io.MultiReader(bytes.NewReader(good[:30]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("got %v, want the reader's error", err)
	}
}

// same compares with compress/gzip: both take it and read the same, or both refuse.
func same(t *testing.T, b []byte) {
	t.Helper()
	got, err := unpack(bytes.NewReader(b))
	var want []byte
	z, werr := gzip.NewReader(bytes.NewReader(b))
	if werr == nil {
		want, werr = io.ReadAll(io.LimitReader(z, 64<<20))
	}
	if (err == nil) != (werr == nil) || err == nil && !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; compress/gzip reads %d, %v", len(got), err, len(want), werr)
	}
}

// TestDamaged: each bit of a small stream, and bits of larger ones, turned over.
func TestDamaged(t *testing.T) {
	small := pack(t, 9, []byte("abcabcabcabc, some words, abcabcabc, more words of it, and some words again"))
	for i := range len(small) * 8 {
		if i/8 >= 4 && i/8 < 10 {
			continue // time and system mean nothing
		}
		b := bytes.Clone(small)
		b[i/8] ^= 1 << (i % 8)
		if i/8 != 3 { // flags: compress/gzip takes those that no RFC knows
			same(t, b)
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	for _, text := range texts(t)[3:8] {
		b := pack(t, 6, text[:min(len(text), 40<<10)])
		for range 100 {
			c := bytes.Clone(b)
			c[20+r.IntN(len(c)-20)] ^= 1 << r.IntN(8)
			same(t, c)
		}
	}
}

// FuzzReader: as compress/gzip, whatever comes behind the header. Checksums are hard to guess, so the trailer is left out: what was put out until
// the end of the input is compared.
func FuzzReader(f *testing.F) {
	for _, text := range texts(f)[:5] {
		for _, level := range []int{gzip.HuffmanOnly, gzip.NoCompression, 6} {
			f.Add(pack(f, level, text[:min(len(text), 4<<10)])[20:])
		}
	}
	f.Add(long(rand.New(rand.NewPCG(7, 8))).end()[10:])
	header := []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append(bytes.Clone(header), b...)
		got, err := unpack(io.LimitReader(bytes.NewReader(b), 1<<20))
		z, werr := gzip.NewReader(bytes.NewReader(b))
		if werr != nil {
			return
		}
		want, werr := io.ReadAll(z)
		if (err == nil) != (werr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v; compress/gzip reads %d, %v", len(got), err, len(want), werr)
		}
	})
}

func BenchmarkReader(b *testing.B) {
	all := texts(b)
	text := all[len(all)-1]
	packed := pack(b, 6, text)
	b.SetBytes(int64(len(text)))
	for range b.N {
		z, err := NewReader(bytes.NewReader(packed))
		if err == nil {
			_, err = io.Copy(io.Discard, z)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
