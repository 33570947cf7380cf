package squeeze

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/update-engine/payload"
)

// words is text that packs, and whose first quarter comes back behind a long way.
func words(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b []byte
	for len(b) < n*3/4 {
		b = binary.AppendUvarint(b, r.Uint64N(1<<20))
		b = append(b, "between"...)
	}
	return append(b[:n*3/4:n*3/4], b[:n/4]...)
}

// sparse is a stream of differences: zeros but for a byte now and then.
func sparse(n int) []byte {
	r := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, n)
	for i := 0; i < n; i += 1 + r.IntN(60) {
		b[i] = byte(r.IntN(4) * 16)
	}
	return b
}

func unpack(t *testing.T, c payload.Codec, packed, prefix []byte) []byte {
	t.Helper()
	if c == payload.Bzip2 {
		b, err := io.ReadAll(bzip2.NewReader(bytes.NewReader(packed)))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	o := []zstd.DOption{zstd.WithDecoderMaxWindow(16 << 20)}
	if prefix != nil {
		o = append(o, zstd.WithDecoderDictRaw(0, prefix))
	}
	d, err := zstd.NewReader(nil, o...)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	b, err := d.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPack(t *testing.T) {
	press := FromTools(testenv.Tools(t))
	text := words(1 << 20)
	noise := make([]byte, 1<<20) // more than a block of bzip2
	rand.NewChaCha8([32]byte{5}).Read(noise)
	far := append(noise, noise[:1<<18]...)
	for _, p := range []*Press{press, {name: "Go"}} {
		for _, c := range []struct {
			name         string
			data, prefix []byte
			codec        payload.Codec
			limit        int
		}{
			{"what comes back from afar", far, nil, payload.Zstd, 1050 << 10},
			{"text behind itself", text[:100<<10], text, payload.Zstd, 300},
			{"differences", sparse(1 << 20), nil, payload.Bzip2, 60 << 10},
			{"one byte", []byte("x"), nil, payload.Zstd, 20},
		} {
			codec, packed, err := p.Pack(t.Context(), c.data, c.prefix)
			if err != nil {
				t.Fatal(err)
			}
			if codec != c.codec || len(packed) > c.limit {
				t.Errorf("%s: %s: %d bytes of %s, want %s and at most %d", p, c.name, len(packed), codec, c.codec, c.limit)
			}
			if !bytes.Equal(unpack(t, codec, packed, c.prefix), c.data) {
				t.Errorf("%s: %s: unpacks to something else", p, c.name)
			}
			if _, again, err := p.Pack(t.Context(), c.data, c.prefix); err != nil || !bytes.Equal(again, packed) {
				t.Errorf("%s: %s: the same stream gives other bytes: %v", p, c.name, err)
			}
		}
	}
}

// What we pack with a prefix, zstd unpacks with --patch-from.
func TestZstdReadsOurFrames(t *testing.T) {
	tools := testenv.Tools(t)
	text := words(256 << 10)
	dir := t.TempDir()
	ref := filepath.Join(dir, "ref")
	if err := os.WriteFile(ref, text, 0o600); err != nil {
		t.Fatal(err)
	}
	want := append([]byte("new "), text[1000:200_000]...)
	for _, p := range []payload.Packer{payload.Fast{}, &Press{name: "Go"}} {
		_, packed, err := p.Pack(t.Context(), want, text)
		if err != nil {
			t.Fatal(err)
		}
		cmd := tools.Command(t.Context(), "zstd", "-d", "-c", "--patch-from="+ref)
		cmd.Stdin = bytes.NewReader(packed)
		if got, err := cmd.Output(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%T: got %d bytes, %v, want %d", p, len(got), err, len(want))
		}
	}
}

func TestOpen(t *testing.T) {
	t.Setenv("PROA_TOOLS", filepath.Join(t.TempDir(), "none"))
	t.Setenv("PATH", t.TempDir())
	p, err := Open()
	if err != nil || p.String() != "Go" {
		t.Errorf("got %v, %v, want the Go implementation", p, err)
	}
	t.Setenv("PATH", fake(t))
	if p, err = Open(); err != nil || p.String() != "the host's zstd" {
		t.Fatalf("got %v, %v, want the host's", p, err)
	}
	if _, _, err := p.Pack(t.Context(), []byte("text"), nil); err == nil || !strings.Contains(err.Error(), "pack with the host's zstd: exit status 3: no room") {
		t.Errorf("got %v, want its message", err)
	}
}

// Where bzip2 is far ahead of zstd at its quickest, zstd at its best, which takes seconds, is not asked. It would lose.
func TestHopelessIsNotTried(t *testing.T) {
	judge := FromTools(testenv.Tools(t))
	t.Setenv("PROA_TOOLS", filepath.Join(t.TempDir(), "none"))
	t.Setenv("PATH", fake(t))
	p, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 1<<20)
	for i := 0; i < len(data); i += 24 { // a table in which every record has grown alike, but not quite
		copy(data[i:], []byte{0x30, byte(i / 24 % 7 / 6)})
	}
	codec, packed, err := p.Pack(t.Context(), data, nil)
	if err != nil || codec != payload.Bzip2 {
		t.Fatalf("%s, %v", codec, err)
	}
	if best, err := judge.zstd(t.Context(), data, nil); err != nil || len(best) <= len(packed) {
		t.Errorf("zstd packs it in %d bytes, %v, bzip2 in %d", len(best), err, len(packed))
	}
}

// Streams of a month of updates, with what each packer makes of them: zstd at its best is tried where it wins.
func TestHopeless(t *testing.T) {
	for _, c := range []struct {
		n, quick, bzip2, best int
	}{
		{4177698, 232506, 159749, 147583}, {4176371, 133720, 90971, 89244}, {1890104, 110141, 72620, 70190}, {4181534, 116580, 73352, 72265},
		{4175907, 234643, 145023, 141265}, {258035, 33745, 29536, 18584}, {507375, 11921, 10102, 9669}, {200989, 646, 587, 541},
	} {
		if c.best < c.bzip2 && hopeless(c.n, c.quick, c.bzip2) {
			t.Errorf("%+v is called hopeless", c)
		}
	}
	for _, c := range [][3]int{{4191692, 37148, 21811}, {4190378, 34014, 22069}, {4178961, 42010, 29308}, {4170846, 59552, 42022}, {9000, 900, 400}} {
		if !hopeless(c[0], c[1], c[2]) {
			t.Errorf("%v, for which bzip2 is better, is called worth a try", c)
		}
	}
}

// fake is a folder with a zstd that fails.
func fake(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "zstd"), []byte("#!/bin/sh\necho no room >&2\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}
