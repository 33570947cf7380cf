package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/gpt"
)

const mib = 1 << 20

// shipped is the table of an image of size bytes, on a disk of diskSize bytes.
func shipped(t *testing.T, size, diskSize int64) disk.Disk {
	t.Helper()
	table := &gpt.Table{DiskGUID: gpt.NewGUID([16]byte{1}), SectorSize: 512, Sectors: uint64(size) / 512}
	for i, name := range []string{"esp", "root-a", "root-b"} {
		if _, err := table.Add(gpt.Partition{Name: name, TypeGUID: gpt.TypeLinux, GUID: gpt.NewGUID([16]byte{2, byte(i)})}, mib); err != nil {
			t.Fatal(err)
		}
	}
	return disk.Disk{Name: "vda", Path: "/dev/vda", Size: diskSize, SectorSize: 512, Table: table}
}

func TestPlan(t *testing.T) {
	d := shipped(t, 5*mib, 1024*mib)
	table, p, err := Plan(d, [16]byte{9})
	if err != nil {
		t.Fatal(err)
	}
	if p.Number != 4 || p.Name != "state" || table.Offset(p) != 4*mib || table.Size(p) != 1019*mib || table.Sectors != 1024*2048 {
		t.Errorf("state %+v in a table of %d sectors", p, table.Sectors)
	}
	if len(d.Table.Partitions) != 3 || d.Table.Sectors != 5*2048 {
		t.Error("the plan changed the table it was made from")
	}

	for size, want := range map[int64]string{
		5 * mib:         "has 5 MiB, of which 0 MiB are free for state; expected at least 256 MiB free",
		MinSize + 4*mib: "has 260 MiB, of which 255 MiB are free for state; expected at least 256 MiB free: give the machine a disk of 262 MiB or more",
		4*mib + 512*100: "partition table",
	} {
		d.Size = size
		if _, _, err := Plan(d, [16]byte{9}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("disk of %d bytes: %v, want %q", size, err, want)
		}
	}
	d.Size = 262 * mib // what the message asks for
	if _, _, err := Plan(d, [16]byte{9}); err != nil {
		t.Error(err)
	}
}

var errPower = errors.New("power cut")

// A dyingDisk loses power at write number left: the write itself is cut in half, and of the writes since the last
// Sync only those reach the disk that keep says. It is kept as the list of what was written to an empty disk.
type dyingDisk struct {
	size    int64
	stored  []write
	pending []write
	left    int
	keep    func(i, n int) bool
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

func (d *dyingDisk) AddPartition(int, int64, int64) error { return nil }

// The power goes at every write of the first boot, with every loss of what was not flushed. The disk then has its slots,
// and either no state partition or a finished one; the next boot ends with one.
func TestCreatePowerCut(t *testing.T) {
	const imageSize, size = 5 * mib, 5*mib + MinSize
	image := &dyingDisk{size: size, left: 1 << 30}
	if err := shipped(t, imageSize, size).Table.Write(image); err != nil {
		t.Fatal(err)
	}
	filesystem := bytes.Repeat([]byte("ext4"), 64<<10)
	for name, keep := range map[string]func(i, n int) bool{
		"all":   func(i, n int) bool { return true },
		"none":  func(i, n int) bool { return false },
		"last":  func(i, n int) bool { return i >= n-1 },
		"first": func(i, n int) bool { return i == 0 },
		"even":  func(i, n int) bool { return i%2 == 0 },
	} {
		for cut := 0; ; cut++ {
			w := &dyingDisk{size: size, stored: slices.Clone(image.stored), left: cut, keep: keep}
			err := firstBoot(t, w, filesystem)
			checkDisk(t, fmt.Sprintf("%s, cut at write %d", name, cut), w, filesystem, err == nil)
			if err == nil {
				if cut < 9 { // four of the file system, five of the table
					t.Errorf("only %d writes were seen", cut)
				}
				break
			}
			if !errors.Is(err, errPower) {
				t.Fatalf("%s, cut at write %d: %v", name, cut, err)
			}
			w.left, w.pending = 1<<30, nil
			if err := firstBoot(t, w, filesystem); err != nil {
				t.Fatalf("%s, the boot after a cut at write %d: %v", name, cut, err)
			}
			checkDisk(t, fmt.Sprintf("%s, the boot after a cut at write %d", name, cut), w, filesystem, true)
		}
	}
}

// checkDisk fails unless the slots are there, and with them a finished state partition or, if it need not be there, none.
func checkDisk(t *testing.T, when string, w *dyingDisk, filesystem []byte, must bool) {
	t.Helper()
	table, err := gpt.Read(w, w.size, 512)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	if _, err := table.Find("root-b"); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	p, err := table.Find("state")
	if err != nil {
		if must {
			t.Fatalf("%s: %v", when, err)
		}
		return
	}
	got := make([]byte, len(filesystem))
	if _, err := w.ReadAt(got, table.Offset(p)); err != nil || !bytes.Equal(got, filesystem) {
		t.Fatalf("%s: a state partition without its file system, %v", when, err)
	}
}

// firstBoot is what init does on a disk: mend a damaged table, make state if there is none.
func firstBoot(t *testing.T, w *dyingDisk, filesystem []byte) error {
	t.Helper()
	table, err := gpt.Read(w, w.size, 512)
	if err != nil {
		return err
	}
	if table.PrimaryError != nil {
		if err := table.Write(w); err != nil {
			return err
		}
	}
	if _, err := table.Find("state"); err == nil {
		return nil
	}
	table, p, err := Plan(disk.Disk{Path: "/dev/vda", Size: w.size, SectorSize: 512, Table: table}, [16]byte{9})
	if err != nil {
		return err
	}
	return Create(w, table, p, func() error {
		chunk := len(filesystem) / 4
		for i := range 4 {
			if _, err := w.WriteAt(filesystem[i*chunk:][:chunk], table.Offset(p)+int64(i*chunk)); err != nil {
				return err
			}
		}
		return w.Sync()
	})
}

func TestCreateStops(t *testing.T) {
	d := shipped(t, 5*mib, 1024*mib)
	table, p, err := Plan(d, [16]byte{9})
	if err != nil {
		t.Fatal(err)
	}
	w := &dyingDisk{size: 1024 * mib, left: 1 << 30}
	broken := fmt.Errorf("mke2fs: exit status 1")
	if err := Create(w, table, p, func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if len(w.pending)+len(w.stored) != 0 {
		t.Error("the table was written though there is no file system")
	}
}
