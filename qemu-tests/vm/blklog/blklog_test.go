package blklog

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type write struct {
	sector, sectors uint64
	flags           Flags
	content         byte
	mark            string
}

// sample is the bytes of a log of writes.
func sample(sectorSize int, writes ...write) []byte {
	b := Header(sectorSize)
	binary.LittleEndian.PutUint64(b[16:], uint64(len(writes)))
	for _, w := range writes {
		h := make([]byte, sectorSize)
		binary.LittleEndian.PutUint64(h, w.sector)
		binary.LittleEndian.PutUint64(h[8:], w.sectors)
		binary.LittleEndian.PutUint64(h[16:], uint64(w.flags))
		binary.LittleEndian.PutUint64(h[24:], uint64(len(w.mark)))
		copy(h[32:], w.mark)
		b = append(b, h...)
		if w.flags&Discard == 0 {
			b = append(b, bytes.Repeat([]byte{w.content}, int(w.sectors)*sectorSize)...)
		}
	}
	return b
}

var story = []write{
	{sector: 2, sectors: 2, content: 'a'},
	{flags: Flush},
	{flags: Mark, mark: "half way"},
	{sector: 3, sectors: 1, content: 'b', flags: FUA},
	{sector: 2, sectors: 1, flags: Discard},
	{flags: Flush},
	{sector: 0, sectors: 1, content: 'c'},
}

func TestReplay(t *testing.T) {
	for _, sectorSize := range []int{512, 4096} {
		log := sample(sectorSize, story...)
		l, err := Open(bytes.NewReader(log), int64(len(log)))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := l.Flushes(), []int{2, 6}; !slices.Equal(got, want) {
			t.Errorf("got flushes %v, want %v", got, want)
		}
		if got := l.Entries[2].Mark; got != "half way" {
			t.Errorf("got mark %q", got)
		}
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(int64(5 * sectorSize)); err != nil {
			t.Fatal(err)
		}
		done := 0
		for n, want := range []string{"00000", "00aa0", "00aa0", "00aa0", "00ab0", "000b0", "000b0", "c00b0"} {
			if err := l.Replay(File{f}, done, n); err != nil {
				t.Fatal(err)
			}
			done = n
			got := make([]byte, 5*sectorSize)
			if _, err := f.ReadAt(got, 0); err != nil {
				t.Fatal(err)
			}
			for i, c := range []byte(want) {
				if c == '0' {
					c = 0
				}
				if !bytes.Equal(got[i*sectorSize:][:sectorSize], bytes.Repeat([]byte{c}, sectorSize)) {
					t.Errorf("after %d entries: sector %d begins with %q, want %q", n, i, got[i*sectorSize:][:4], c)
				}
			}
		}
		for _, bad := range [][2]int{{-1, 0}, {0, 8}, {2, 1}} {
			if err := l.Replay(File{f}, bad[0], bad[1]); err == nil {
				t.Errorf("replayed %v", bad)
			}
		}
	}
}

func TestPart(t *testing.T) {
	log := sample(512, write{sector: 1, sectors: 3, content: 'x'})
	copy(log[1024:], "abc") // its first bytes
	copy(log[1024+512:], "def")
	l, err := Open(bytes.NewReader(log), int64(len(log)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := l.Apply(File{f}, l.Entries[0].Part(512, 1024)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if want := append(make([]byte, 1024), log[1024+512:1024+1024]...); !bytes.Equal(got, want) {
		t.Errorf("got %d bytes %q, want the second sector alone, in its place", len(got), got[1024:])
	}
}

func TestOpenRefuses(t *testing.T) {
	good := sample(512, story...)
	change := func(at int, b ...byte) []byte {
		c := slices.Clone(good)
		copy(c[at:], b)
		return c
	}
	for want, log := range map[string][]byte{
		"superblock":               good[:20],
		"magic":                    change(0, 0),
		"version 2":                change(8, 2),
		"power of two":             change(25, 3),
		"sectors of 0":             change(24, 0, 0),
		"do not fit in":            change(20, 1),
		"entry 6 of 7":             good[:len(good)-1],
		"unknown flags 0x20":       change(512+16, 32),
		"no place on a disk":       change(512+7, 0xff),
		"a mark of 65535 bytes":    change(512+24, 0xff, 0xff),
		"go behind the log's":      change(512+11, 1),
		"entry 7 of 8 at 6144: be": change(16, 8),
	} {
		if _, err := Open(bytes.NewReader(log), int64(len(log))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(sample(512, story...))
	f.Add(Header(4096))
	f.Fuzz(func(t *testing.T, log []byte) {
		l, err := Open(bytes.NewReader(log), int64(len(log)))
		if err != nil {
			return
		}
		// What is accepted is all there: every entry can be replayed.
		if err := l.Replay(nowhere{t}, 0, len(l.Entries)); err != nil {
			t.Error(err)
		}
	})
}

type nowhere struct{ t *testing.T }

func (n nowhere) WriteAt(p []byte, at int64) (int, error) {
	if at < 0 {
		n.t.Errorf("write at %d", at)
	}
	return len(p), nil
}

func (n nowhere) Discard(at, length int64) error {
	if at < 0 || length < 0 || at+length < 0 {
		n.t.Errorf("discard %d at %d", length, at)
	}
	return nil
}
