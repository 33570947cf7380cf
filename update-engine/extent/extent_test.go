package extent

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
)

// A file of a hand-made image. mode 0 is a regular file's.
type file struct {
	name     string
	content  string
	mode     uint16
	inline   bool
	extended bool
	xattrs   int // 4-byte units behind the header
}

// image lays out one directory: the superblock and inodes in the first blocks, 64 bytes and room an inode, then data.
func image(list []file) []byte {
	const meta, room = 1, 1024
	le := binary.LittleEndian
	b := make([]byte, (meta+1+(len(list)+1)*room/blockSize)*blockSize)
	s := b[superOffset:]
	copy(s, magic)
	s[12] = 12
	le.PutUint32(s[40:], meta)
	place := func(i int) int { return meta*blockSize + i*room }
	var names []byte
	entries := make([]byte, direntSize*len(list))
	for i, f := range list {
		at := place(i + 1)
		le.PutUint64(entries[i*direntSize:], uint64((i+1)*room/inodeUnit))
		le.PutUint16(entries[i*direntSize+8:], uint16(len(entries)+len(names)))
		names = append(names, f.name...)
		layout, size := uint16(layoutPlain), inodeUnit
		whole := len(f.content)
		if f.inline {
			layout, whole = layoutInline, whole/blockSize*blockSize
		}
		le.PutUint16(b[at+4:], f.mode|modeFile*uint16(min(1, 1-min(1, f.mode))))
		if f.extended {
			size = 2 * inodeUnit
			le.PutUint64(b[at+8:], uint64(len(f.content)))
			le.PutUint16(b[at:], layout<<1|1)
		} else {
			le.PutUint32(b[at+8:], uint32(len(f.content)))
			le.PutUint16(b[at:], layout<<1)
		}
		if f.xattrs > 0 {
			le.PutUint16(b[at+2:], uint16(f.xattrs+1))
			size += xattrHeader + 4*f.xattrs
		}
		le.PutUint32(b[at+16:], uint32(len(b)/blockSize))
		copy(b[at+size:], f.content[whole:])
		b = append(b, f.content[:whole]...)
		b = append(b, make([]byte, (blockSize-len(b)%blockSize)%blockSize)...)
	}
	le.PutUint16(b[place(0):], layoutInline<<1)
	le.PutUint16(b[place(0)+4:], modeDir)
	le.PutUint32(b[place(0)+8:], uint32(len(entries)+len(names)))
	copy(b[place(0)+inodeUnit:], slices.Concat(entries, names))
	le.PutUint32(b[superOffset+36:], uint32(len(b)/blockSize))
	return b
}

func content(n int, seed byte) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i%251)
	}
	return string(b)
}

func sample() []file {
	return []file{
		{name: "empty"},
		{name: "inline", content: content(2*blockSize+10, 3), inline: true, xattrs: 3},
		{name: "plain", content: content(blockSize+1, 1)},
		{name: "small", content: "in its inode", inline: true},
		{name: "whole", content: content(2*blockSize, 2), extended: true},
		{name: "link", content: "plain", mode: 0o120000, inline: true},
	}
}

func read(t *testing.T, b []byte) *Map {
	t.Helper()
	m, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Hash(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	check(t, m, int64(len(b)))
	return m
}

// check holds a map against what the package comment promises.
func check(t *testing.T, m *Map, size int64) {
	t.Helper()
	all := slices.Concat(m.Files, m.Gaps)
	slices.SortFunc(all, func(a, b Extent) int { return int(a.Offset - b.Offset) })
	var end int64
	for i, e := range all {
		if e.Offset != end || e.Length <= 0 || e.Size < 0 || e.Size > e.Length || (e.Path == "") != slices.Contains(m.Gaps, e) {
			t.Fatalf("extent %d: %+v behind byte %d", i, e, end)
		}
		end = e.End()
	}
	if end != size || m.Size != size {
		t.Fatalf("extents end at %d, map at %d, image at %d", end, m.Size, size)
	}
}

func TestRead(t *testing.T) {
	b := image(sample())
	m := read(t, b)
	var got []string
	for _, f := range m.Files {
		got = append(got, fmt.Sprintf("%s %d/%d %v", f.Path, f.Size, f.Length, f.SHA256 == digest.Of(b[f.Offset:f.Offset+f.Size])))
	}
	want := []string{"inline 8192/8192 true", "plain 4097/8192 true", "whole 8192/8192 true"}
	if !slices.Equal(got, want) || len(m.Gaps) != 1 {
		t.Errorf("got %q and gaps %v, want %q behind one gap", got, m.Gaps, want)
	}
	for _, f := range m.Files {
		if text := string(b[f.Offset : f.Offset+f.Size]); !strings.HasPrefix(content(10_000, text[0]), text) {
			t.Errorf("%s: other content", f.Path)
		}
	}
}

// Two names of the same content are one file.
func TestReadShared(t *testing.T) {
	list := sample()
	b := image(list)
	inode := func(i int) []byte { return b[blockSize+(i+1)*1024:] }
	copy(inode(0)[:inodeUnit], inode(2)[:inodeUnit]) // "empty" becomes another "plain"
	if m := read(t, b); len(m.Files) != 3 || m.Files[1].Path != "empty" {
		t.Errorf("got %+v", m.Files)
	}
}

func TestReadRefuses(t *testing.T) {
	good := image(sample())
	le := binary.LittleEndian
	inode := func(b []byte, i int) []byte { return b[blockSize+(i+1)*1024:] }
	root := func(b []byte) []byte { return b[blockSize:] }
	for want, damage := range map[string]func(b []byte) []byte{
		"read superblock: unexpected EOF": func(b []byte) []byte { return b[:1100] },
		"expected the magic":              func(b []byte) []byte { b[superOffset]++; return b },
		"build the image without compression": func(b []byte) []byte {
			b[superOffset+80] = 1
			return b
		},
		"without its verity tree":                     func(b []byte) []byte { return append(b, make([]byte, blockSize)...) },
		"inode 65535 is outside":                      func(b []byte) []byte { le.PutUint16(b[superOffset+14:], 65535); return b },
		`directory "": inode 0 of mode 0`:             func(b []byte) []byte { le.PutUint16(root(b)[4:], 0); return b },
		"names begin at byte 13":                      func(b []byte) []byte { le.PutUint16(root(b)[inodeUnit+8:], 13); return b },
		`"plain": inode 96: format 0x6`:               func(b []byte) []byte { inode(b, 2)[0] = 3 << 1; return b },
		`"plain": 8192 bytes at 4095897600`:           func(b []byte) []byte { le.PutUint32(inode(b, 2)[16:], 999999-24); return b },
		`"plain": its content begins at 0`:            func(b []byte) []byte { le.PutUint32(inode(b, 2)[16:], 0); return b },
		"overlaps":                                    func(b []byte) []byte { b[blockSize+3*1024+16]++; return b },
		`an entry is called "a/b"`:                    func(b []byte) []byte { return bytes.Replace(b, []byte("emptyinline"), []byte("a/b\x00\x00inline"), 1) },
		`directory "empty": inode 0 of mode 040000`:   func(b []byte) []byte { le.PutUint64(root(b)[inodeUnit:], 0); return b },
		`"whole": inode 160: format 0x1 with 1048576`: func(b []byte) []byte { le.PutUint32(inode(b, 4)[8:], 1<<20); return b },
		`directory "": 20000 bytes at 28672 and`: func(b []byte) []byte {
			le.PutUint16(root(b), layoutPlain<<1)
			le.PutUint32(root(b)[8:], 20_000)
			le.PutUint32(root(b)[16:], 7)
			return b
		},
	} {
		b := damage(slices.Clone(good))
		if _, err := Read(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(image(sample()))
	f.Add(image(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		check(t, m, int64(len(b)))
		if err := m.Hash(bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	})
}
