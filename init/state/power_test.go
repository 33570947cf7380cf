package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/gpt"
)

var errPower = errors.New("power cut")

// A dyingDisk loses power at write number left: the write itself is cut in half, and of the writes since the last
// Sync only those reach the disk that keep says. It is kept as the list of what was written to an empty disk.
type dyingDisk struct {
	size       int64
	sectorSize int
	stored     []write
	pending    []write
	left       int
	keep       func(i, n int) bool
}

type write struct {
	off  int64
	data []byte
}

func (d *dyingDisk) WriteAt(p []byte, off int64) (int, error) {
	if d.left < 0 {
		return 0, errPower
	}
	if off < 0 || off+int64(len(p)) > d.size {
		return 0, io.ErrShortWrite
	}
	d.left--
	if d.left >= 0 {
		d.pending = append(d.pending, write{off, slices.Clone(p)})
		return len(p), nil
	}
	d.pending = append(d.pending, write{off, slices.Clone(p[:len(p)/2])})
	for i, w := range d.pending {
		if d.keep(i, len(d.pending)) {
			d.stored = append(d.stored, w)
		}
	}
	return 0, errPower
}

// ReadAt reads what is left after a power cut, or all that was synced.
func (d *dyingDisk) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > d.size {
		return 0, io.EOF
	}
	clear(p)
	for _, w := range d.stored {
		if from, to := max(off, w.off), min(off+int64(len(p)), w.off+int64(len(w.data))); from < to {
			copy(p[from-off:to-off], w.data[from-w.off:])
		}
	}
	return len(p), nil
}

func (d *dyingDisk) Sync() error {
	if d.left < 0 {
		return errPower
	}
	d.stored = append(d.stored, d.pending...)
	d.pending = nil
	return nil
}

func (d *dyingDisk) AddPartition(int, int64, int64) error    { return nil }
func (d *dyingDisk) ResizePartition(int, int64, int64) error { return nil }

// read is what internal/disk does.
func (d *dyingDisk) read(t *testing.T, when string) disk.Disk {
	t.Helper()
	table, err := gpt.Read(d, d.size, d.sectorSize)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	return disk.Disk{Path: "/dev/vda", Size: d.size, SectorSize: d.sectorSize, Table: table}
}

// zero overwrites a partition's places of superblocks with zeros.
func (d *dyingDisk) zero(t *testing.T, table *gpt.Table) {
	t.Helper()
	p, err := table.Find("state")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range superblocks(table.Size(p)) {
		d.stored = append(d.stored, write{table.Offset(p) + block*blockSize, make([]byte, mib)})
	}
}

const (
	imageSize = 5 * mib
	smallDisk = imageSize + MinSize
	largeDisk = smallDisk + 200*mib
)

// content is the file system of the boot-th format of a disk: four writes long.
func content(format byte) []byte { return bytes.Repeat([]byte{'e', 'x', 't', format}, 64<<10) }

// boot is what init does on a disk: mend a damaged table, forget a wiped state, make it if there is none, let it grow. format
// tells the file systems of a test apart.
func boot(t *testing.T, w *dyingDisk, format byte) error {
	t.Helper()
	d := w.read(t, "boot")
	if d.Table.PrimaryError != nil {
		if err := d.Table.Write(w); err != nil {
			return err
		}
	}
	if p, err := d.Table.Find("state"); err == nil {
		blank, err := Blank(io.NewSectionReader(w, d.Table.Offset(p), d.Table.Size(p)), d.Table.Size(p))
		if err != nil {
			return err
		}
		if !blank {
			table, p, err := PlanGrowth(d)
			if err != nil || table == nil {
				return err
			}
			return Grow(w, table, p, sizeOf(d, "state"))
		}
		if err := Reset(w, d); err != nil {
			return err
		}
		d = w.read(t, "after forgetting state")
	}
	table, p, err := Plan(d, [16]byte{0x99, format})
	if err != nil {
		return err
	}
	return Create(w, table, p, func() error {
		b := content(format)
		chunk := len(b) / 4
		for i := range 4 {
			if _, err := w.WriteAt(b[i*chunk:][:chunk], table.Offset(p)+int64(i*chunk)); err != nil {
				return err
			}
		}
		return w.Sync()
	})
}

// sizeOf returns the size of a partition that is there, in bytes.
func sizeOf(d disk.Disk, name string) int64 {
	p, err := d.Table.Find(name)
	if err != nil {
		return 0
	}
	return d.Table.Size(p)
}

// stateOf returns the format of the state partition's file system, which must be whole, and the partition's size; zero if there is no
// state partition. The slots must be there.
func stateOf(t *testing.T, when string, w *dyingDisk) (format byte, size int64) {
	t.Helper()
	table := w.read(t, when).Table
	if _, err := table.Find("root-b"); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	p, err := table.Find("state")
	if err != nil {
		return 0, 0
	}
	b := make([]byte, len(content(0)))
	if _, err := w.ReadAt(b, table.Offset(p)); err != nil || !bytes.Equal(b, content(b[3])) || b[3] == 0 {
		t.Fatalf("%s: a state partition without its file system, %v", when, err)
	}
	return b[3], table.Size(p)
}

// cutEverywhere does something to copies of a disk, with the power cut at every write and with every loss of what was not
// flushed. judge looks at what is left each time; done says that the power lasted. It returns the number of writes.
func cutEverywhere(t *testing.T, start *dyingDisk, do func(w *dyingDisk) error, judge func(when string, w *dyingDisk, done bool)) (writes int) {
	t.Helper()
	for name, keep := range map[string]func(i, n int) bool{
		"all":   func(i, n int) bool { return true },
		"none":  func(i, n int) bool { return false },
		"last":  func(i, n int) bool { return i >= n-1 },
		"first": func(i, n int) bool { return i == 0 },
		"even":  func(i, n int) bool { return i%2 == 0 },
	} {
		for cut := 0; ; cut++ {
			w := &dyingDisk{size: start.size, sectorSize: start.sectorSize, stored: slices.Clone(start.stored), left: cut, keep: keep}
			err := do(w)
			if err != nil && !errors.Is(err, errPower) {
				t.Fatalf("%s, cut at write %d: %v", name, cut, err)
			}
			w.left, w.pending = 1<<30, nil
			judge(fmt.Sprintf("%s, cut at write %d", name, cut), w, err == nil)
			if err == nil {
				writes = cut
				break
			}
		}
	}
	return writes
}

// fresh returns a disk with an image on it, as it was shipped.
func fresh(t *testing.T, size int64, sectorSize int) *dyingDisk {
	t.Helper()
	w := &dyingDisk{size: size, sectorSize: sectorSize, left: 1 << 30}
	if err := shipped(t, imageSize, size, sectorSize).Table.WriteBoth(w); err != nil {
		t.Fatal(err)
	}
	return w
}

// mustBoot boots with enough power.
func mustBoot(t *testing.T, when string, w *dyingDisk, format byte) {
	t.Helper()
	if err := boot(t, w, format); err != nil {
		t.Fatalf("%s: the boot after it: %v", when, err)
	}
}

// The power goes at every write of the first boot. The disk then has its slots, and either no state partition or a finished one; the
// next boot ends with one. Nothing is left of the table for other sectors once there is state.
func TestCreatePowerCut(t *testing.T) {
	for sectorSize, other := range map[int]int{512: 4096, 4096: 512} {
		writes := cutEverywhere(t, fresh(t, smallDisk, sectorSize), func(w *dyingDisk) error { return boot(t, w, 1) }, func(when string, w *dyingDisk, done bool) {
			format, size := stateOf(t, when, w)
			if done && format == 0 || size != 0 && size != MinSize {
				t.Fatalf("%s: state %d of %d bytes", when, format, size)
			}
			if _, err := gpt.Read(w, w.size, other); err == nil && format != 0 {
				t.Fatalf("%s: there is state, and still a table for sectors of %d", when, other)
			}
			mustBoot(t, when, w, 2)
			if again, _ := stateOf(t, when, w); format == 0 && again != 2 || format != 0 && again != format {
				t.Fatalf("%s: state %d became %d at the next boot", when, format, again)
			}
		})
		if writes != 4+7 { // of the file system and of the table
			t.Errorf("%d writes were seen", writes)
		}
	}
}

// The power goes at every write of a factory reset: the old state is there or none, and the next boot has the old or new one.
func TestResetPowerCut(t *testing.T) {
	for _, c := range []struct {
		sectorSize int
		size       int64 // of the disk when it is reset
	}{{512, smallDisk}, {4096, smallDisk}, {512, largeDisk}, {4096, largeDisk}} {
		w := fresh(t, smallDisk, c.sectorSize)
		mustBoot(t, "first", w, 1)
		w.size = c.size
		seen := map[byte]bool{}
		cutEverywhere(t, w, func(w *dyingDisk) error { return Reset(w, w.read(t, "reset")) }, func(when string, w *dyingDisk, done bool) {
			format, _ := stateOf(t, when, w)
			if format > 1 || done && format != 0 {
				t.Fatalf("%s: state %d", when, format)
			}
			seen[format] = true
			mustBoot(t, when, w, 2)
			if again, size := stateOf(t, when, w); again != 2-format || size != c.size-imageSize {
				t.Fatalf("%s: state %d became %d of %d bytes at the next boot", when, format, again, size)
			}
		})
		if !seen[0] || !seen[1] {
			t.Errorf("saw %v: expected the old state and none", seen)
		}
	}
	w := fresh(t, smallDisk, 512)
	stored := len(w.stored)
	if err := Reset(w, w.read(t, "fresh")); err != nil || len(w.stored)+len(w.pending) != stored {
		t.Errorf("a disk without state was written, %v", err)
	}
}

// A wiped state partition is made anew, whenever the power goes meanwhile.
func TestWipedPowerCut(t *testing.T) {
	for _, size := range []int64{smallDisk, largeDisk} {
		w := fresh(t, smallDisk, 512)
		mustBoot(t, "first", w, 1)
		w.zero(t, w.read(t, "first").Table)
		w.size = size
		cutEverywhere(t, w, func(w *dyingDisk) error { return boot(t, w, 2) }, func(when string, w *dyingDisk, done bool) {
			mustBoot(t, when, w, 3)
			if format, got := stateOf(t, when, w); format != 2 && format != 3 || done && format != 2 || got != size-imageSize {
				t.Fatalf("%s: state %d of %d bytes at the next boot", when, format, got)
			}
		})
	}
}

// The power goes while the partition grows: it has the old or the new size, with its content, and the next boot ends with the
// new one.
func TestGrowPowerCut(t *testing.T) {
	for _, sectorSize := range []int{512, 4096} {
		w := fresh(t, smallDisk, sectorSize)
		mustBoot(t, "first", w, 1)
		w.size = largeDisk
		seen := map[int64]bool{}
		cutEverywhere(t, w, func(w *dyingDisk) error { return boot(t, w, 2) }, func(when string, w *dyingDisk, done bool) {
			format, size := stateOf(t, when, w)
			if format != 1 || size != MinSize && size != MinSize+200*mib || done && size == MinSize {
				t.Fatalf("%s: state %d of %d bytes", when, format, size)
			}
			seen[size] = true
			mustBoot(t, when, w, 2)
			if format, size := stateOf(t, when, w); format != 1 || size != MinSize+200*mib {
				t.Fatalf("%s: state %d of %d bytes at the next boot", when, format, size)
			}
		})
		if len(seen) != 2 {
			t.Errorf("saw the sizes %v: expected the old and the new one", seen)
		}
	}
}
