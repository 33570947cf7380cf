package qemutests

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/testenv"
)

// fsckState reports whether the disk has a state partition, which must be whole once its journal is replayed.
func fsckState(t *testing.T, disk *os.File) bool {
	t.Helper()
	fi, err := disk.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table, err := gpt.Read(disk, fi.Size(), 512)
	if err != nil {
		t.Fatal(err)
	}
	p, err := table.Find("state")
	if err != nil {
		return false
	}
	part := filepath.Join(t.TempDir(), "state.ext4")
	if err := copyRange(part, disk, table.Offset(p), table.Size(p)); err != nil {
		t.Fatal(err)
	}
	tools := testenv.Tools(t)
	for _, args := range [][]string{{"-E", "journal_only", "-y", part}, {"-f", "-n", part}} {
		if out, err := tools.Command(t.Context(), "e2fsck", args...).CombinedOutput(); err != nil {
			t.Errorf("e2fsck %v: %v\n%s", args, err, out)
		}
	}
	return true
}

// copyRange copies a part of a sparse file to a new one; holes stay holes.
func copyRange(name string, from *os.File, begin, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for at := begin; at < begin+size; {
		data, err := unix.Seek(int(from.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && data >= begin+size {
			break
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(int(from.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		at = min(hole, begin+size)
		if _, err := io.Copy(io.NewOffsetWriter(f, data-begin), io.NewSectionReader(from, data, at-data)); err != nil {
			return err
		}
	}
	return f.Truncate(size)
}

// firstDifference is where two disks begin to differ, -1 if they do not. What is a hole in both is not read: of a disk's gigabytes that is
// nearly all.
func firstDifference(a, b string) (int64, error) {
	fa, err := os.Open(a)
	if err != nil {
		return 0, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return 0, err
	}
	defer fb.Close()
	sizeA, err := fa.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	sizeB, err := fb.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	size := min(sizeA, sizeB)
	ba, bb := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; {
		dataA, err := nextData(fa, at)
		if err != nil {
			return at, err
		}
		dataB, err := nextData(fb, at)
		if err != nil {
			return at, err
		}
		at = min(dataA, dataB)
		if at >= size {
			break
		}
		n := min(size-at, int64(len(ba)))
		if _, err := fa.ReadAt(ba[:n], at); err != nil {
			return at, err
		}
		if _, err := fb.ReadAt(bb[:n], at); err != nil {
			return at, err
		}
		if !bytes.Equal(ba[:n], bb[:n]) {
			for i := range n {
				if ba[i] != bb[i] {
					return at + i, nil
				}
			}
		}
		at += n
	}
	if sizeA != sizeB {
		return size, nil
	}
	return -1, nil
}

// nextData is the first byte from at on that is in no hole, or one that no file has.
func nextData(f *os.File, at int64) (int64, error) {
	data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return math.MaxInt64, nil
	}
	return data, err
}

func TestFirstDifference(t *testing.T) {
	const size = 1 << 30
	disk := func(size int64, writes map[int64]string) string {
		t.Helper()
		f := must(os.CreateTemp(t.TempDir(), "disk"))(t)
		defer f.Close()
		check(t, f.Truncate(size))
		for at, text := range writes {
			must(f.WriteAt([]byte(text), at))(t)
		}
		return f.Name()
	}
	one := disk(size, map[int64]string{5: "a", 700 << 20: "b"})
	for name, c := range map[string]struct {
		other string
		want  int64
	}{
		"the same":                           {disk(size, map[int64]string{5: "a", 700 << 20: "b"}), -1},
		"zeros, where the other has a hole":  {disk(size, map[int64]string{5: "a", 300 << 20: "\x00", 700 << 20: "b"}), -1},
		"another byte":                       {disk(size, map[int64]string{5: "a", 700 << 20: "c"}), 700 << 20},
		"a byte in the hole of the one":      {disk(size, map[int64]string{5: "a", 300<<20 + 7: "x", 700 << 20: "b"}), 300<<20 + 7},
		"a hole where the one has a byte":    {disk(size, map[int64]string{5: "a"}), 700 << 20},
		"the last byte":                      {disk(size, map[int64]string{5: "a", 700 << 20: "b", size - 1: "z"}), size - 1},
		"the same, but longer by a hole":     {disk(size+1, map[int64]string{5: "a", 700 << 20: "b"}), size},
		"the same, but shorter, in the hole": {disk(size-1, map[int64]string{5: "a", 700 << 20: "b"}), size - 1},
	} {
		for _, pair := range [][2]string{{one, c.other}, {c.other, one}} {
			if got, err := firstDifference(pair[0], pair[1]); err != nil || got != c.want {
				t.Errorf("%s: got %d, %v, want %d", name, got, err, c.want)
			}
		}
	}
}
