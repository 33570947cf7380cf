package verity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
)

// buffer is a file in memory that grows.
type buffer struct{ b []byte }

func (b *buffer) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(b.b) {
		b.b = append(b.b, make([]byte, need-len(b.b))...)
	}
	return copy(b.b[off:], p), nil
}

// noise returns the same bytes for the same number of blocks on every run.
func noise(blocks int) []byte {
	b := make([]byte, blocks*BlockSize)
	rand.NewChaCha8([32]byte{1: byte(blocks), 2: byte(blocks >> 8)}).Read(b)
	return b
}

func salt() (s [32]byte) {
	for i := range s {
		s[i] = byte(i)
	}
	return s
}

func build1(t testing.TB, data []byte) (digest.SHA256, []byte) {
	t.Helper()
	var w buffer
	root, n, err := Build(bytes.NewReader(data), int64(len(data)), salt(), [16]byte{15: 9}, &w)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(len(w.b)) {
		t.Fatalf("tree of %d blocks: says %d bytes, wrote %d", len(data)/BlockSize, n, len(w.b))
	}
	return root, w.b
}

// The sizes where a level begins or fills up.
func sizes() []int { return []int{1, 2, 127, 128, 129, 256, 257, 3000, 128 * 128, 128*128 + 1} }

// slow is the definition, level by level in memory.
func slow(data []byte) (root digest.SHA256, tree []byte) {
	h := newHasher(salt())
	for len(data) > BlockSize {
		var up []byte
		for b := data; len(b) > 0; b = b[BlockSize:] {
			d := h.sum(b[:BlockSize])
			up = append(up, d[:]...)
		}
		up = append(up, make([]byte, (BlockSize-len(up)%BlockSize)%BlockSize)...)
		tree = append(bytes.Clone(up), tree...)
		data = up
	}
	return h.sum(data), tree
}

func TestBuild(t *testing.T) {
	for _, n := range sizes() {
		data := noise(n)
		root, tree := build1(t, data)
		wantRoot, wantTree := slow(data)
		if root != wantRoot || !bytes.Equal(tree[BlockSize:], wantTree) {
			t.Errorf("%d blocks: tree differs from the definition", n)
		}
		again, err := RootHash(bytes.NewReader(data), int64(len(data)), salt())
		if err != nil || again != root {
			t.Errorf("%d blocks: RootHash %s, %v, want %s", n, again, err, root)
		}
		if size, err := TreeSize(int64(len(data))); err != nil || size != int64(len(tree)) {
			t.Errorf("%d blocks: TreeSize %d, %v, want %d", n, size, err, len(tree))
		}
		s, err := ParseSuperblock(tree)
		if err != nil || s != (Superblock{UUID: [16]byte{15: 9}, Salt: salt(), DataBlocks: uint64(n)}) {
			t.Errorf("%d blocks: superblock %+v, %v", n, s, err)
		}
	}
}

func TestMatch(t *testing.T) {
	root, tree := build1(t, noise(300))
	super, top := tree[:BlockSize], tree[BlockSize:2*BlockSize]
	if !Match(super, top, root) {
		t.Fatal("a tree does not match its own root hash")
	}
	other, _ := build1(t, noise(301))
	changed := func(b []byte, i int) []byte { c := bytes.Clone(b); c[i]++; return c }
	for name, got := range map[string]bool{
		"another root hash": Match(super, top, other),
		"changed salt":      Match(changed(super, saltOffset), top, root),
		"changed signature": Match(changed(super, 0), top, root),
		"changed top block": Match(super, changed(top, 4095), root),
		"short top block":   Match(super, top[:4095], root),
		"no superblock":     Match(nil, top, root),
		"an empty slot":     Match(make([]byte, BlockSize), make([]byte, BlockSize), root),
	} {
		if got {
			t.Errorf("%s matches", name)
		}
	}
	one := noise(1)
	root, tree = build1(t, one)
	if Match(tree, one, root) {
		t.Error("an image of one block matches")
	}
}

func TestRefusals(t *testing.T) {
	for _, size := range []int64{0, -4096, 1, 4095, 4097} {
		if _, err := RootHash(bytes.NewReader(nil), size, salt()); err == nil {
			t.Errorf("size %d is accepted", size)
		}
		if _, err := TreeSize(size); err == nil {
			t.Errorf("size %d is accepted", size)
		}
	}
	data := noise(200)
	if _, err := RootHash(bytes.NewReader(data), int64(len(data))+BlockSize, salt()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short data: %v", err)
	}
	broken := errors.New("disk is full")
	if _, _, err := Build(bytes.NewReader(data), int64(len(data)), salt(), [16]byte{}, failing{broken}); !errors.Is(err, broken) {
		t.Errorf("failing writer: %v", err)
	}
	_, tree := build1(t, data)
	for _, off := range []int{0, 8, 12, 32, 38, 64, 68, 79, 80, 82, 200, 400} {
		bad := bytes.Clone(tree[:BlockSize])
		bad[off] ^= 0x80
		if s, err := ParseSuperblock(bad); err == nil {
			t.Errorf("byte %d changed: accepted as %+v", off, s)
		}
	}
}

type failing struct{ err error }

func (f failing) WriteAt([]byte, int64) (int, error) { return 0, f.err }

func FuzzParseSuperblock(f *testing.F) {
	f.Add(Superblock{Salt: salt(), DataBlocks: 77}.Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSuperblock(b)
		if err == nil && !bytes.Equal(s.Marshal()[:usedBytes], b[:usedBytes]) {
			t.Errorf("parsed as %+v, which is written differently", s)
		}
	})
}

func BenchmarkRootHash(b *testing.B) {
	data := bytes.NewReader(noise(4096))
	b.SetBytes(data.Size())
	for b.Loop() {
		if _, err := RootHash(data, data.Size(), salt()); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleSuperblock() {
	b := Superblock{DataBlocks: 18}.Marshal()
	s, err := ParseSuperblock(b)
	fmt.Println(len(b), strings.Trim(string(b[:8]), "\x00"), s.DataBlocks, err)
	// Output: 4096 verity 18 <nil>
}
