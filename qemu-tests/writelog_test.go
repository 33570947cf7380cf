package qemutests

import (
	"bytes"
	"errors"
	"io"
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

// firstDifference is where two disks begin to differ, -1 if they do not.
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
	ba, bb := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; {
		na, erra := io.ReadFull(fa, ba)
		nb, errb := io.ReadFull(fb, bb)
		if !bytes.Equal(ba[:na], bb[:nb]) {
			for i := range min(na, nb) {
				if ba[i] != bb[i] {
					return at + int64(i), nil
				}
			}
			return at + int64(min(na, nb)), nil
		}
		at += int64(na)
		if erra == io.EOF || erra == io.ErrUnexpectedEOF {
			return -1, nil
		}
		if err := errors.Join(erra, errb); err != nil {
			return at, err
		}
	}
}
