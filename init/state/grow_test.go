package state

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/testenv"
)

// withState is a machine's disk after its first boot.
func withState(t *testing.T, size int64) disk.Disk {
	t.Helper()
	d := shipped(t, imageSize, size, 512)
	table, _, err := Plan(d, [16]byte{9})
	if err != nil {
		t.Fatal(err)
	}
	d.Table = table
	return d
}

func TestPlanGrowth(t *testing.T) {
	d := withState(t, 1024*mib)
	for size, want := range map[int64]int64{
		1024 * mib:        0,
		1024*mib + 32<<10: 1019 * mib, // the tables need 36 KiB; only the backup moves
		1024*mib + 36<<10: 1020 * mib,
		4096*mib + 3*512:  4091 * mib,
		2 << 40:           2<<40 - 5*mib,
	} {
		d.Size = size
		table, p, err := PlanGrowth(d)
		switch {
		case err != nil:
			t.Errorf("disk of %d bytes: %v", size, err)
		case want == 0 && table != nil:
			t.Errorf("disk of %d bytes: state of %d, want no change", size, table.Size(p))
		case want != 0 && (table == nil || table.Size(p) != want || table.Offset(p) != 4*mib || p.Name != "state"):
			t.Errorf("disk of %d bytes: %+v, want %d bytes", size, p, want)
		case want != 0 && table.Sectors != uint64(size/512):
			t.Errorf("disk of %d bytes: a table for %d sectors", size, table.Sectors)
		}
	}
	if old, _ := d.Table.Find("state"); d.Table.Size(old) != 1019*mib {
		t.Error("the plan changed the table it was made from")
	}

	// Somebody has made a partition behind it.
	d = withState(t, 1024*mib)
	for i, p := range d.Table.Partitions {
		if p.Name == "state" {
			d.Table.Partitions[i].LastLBA -= 2048
		}
	}
	if _, err := d.Table.Add(gpt.Partition{Name: "more", TypeGUID: gpt.TypeLinux, GUID: gpt.NewGUID([16]byte{8})}, mib); err != nil {
		t.Fatal(err)
	}
	d.Size = 2048 * mib
	old, err := d.Table.Find("state")
	if err != nil {
		t.Fatal(err)
	}
	table, p, err := PlanGrowth(d)
	if err != nil || p != old || table.Sectors != 2048*2048 {
		t.Fatalf("another partition behind it: %+v in %+v, %v", p, table, err)
	}
	w := &resized{dyingDisk: dyingDisk{size: d.Size, sectorSize: 512, left: 1 << 30}}
	if err := Grow(w, table, p, table.Size(old)); err != nil || w.calls != 0 {
		t.Errorf("%d resizes of a partition that stays, %v", w.calls, err)
	}
	w.stored[len(w.stored)-2].data[0] ^= 1 // the primary header
	if after := w.read(t, "after"); after.Table.PrimaryError == nil || after.Table.Sectors != table.Sectors {
		t.Errorf("the backup is not found at the end of the disk: %+v", after.Table)
	}
}

// A resized disk counts what the kernel is told.
type resized struct {
	dyingDisk
	calls int
}

func (r *resized) ResizePartition(int, int64, int64) error {
	r.calls++
	return nil
}

// filesystem makes a file of size bytes with the file system that Format makes.
func filesystem(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if out, err := testenv.Tools(t).Command(t.Context(), "mke2fs", append(mke2fsOptions(), f.Name())...).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	return f
}

// dumpe2fs returns what the program says about a file system.
func dumpe2fs(t *testing.T, name string) string {
	t.Helper()
	out, err := testenv.Tools(t).Command(t.Context(), "dumpe2fs", name).Output()
	if err != nil {
		t.Fatalf("dumpe2fs: %v", err)
	}
	return string(out)
}

// The size in the superblock is what dumpe2fs says, and a new file system needs no growing.
func TestBehind(t *testing.T) {
	for _, size := range []int64{MinSize, 300 * mib, 1000*mib + 5*mib, 9 << 30} {
		f := filesystem(t, size)
		m := regexp.MustCompile(`Block count: +([0-9]+)`).FindStringSubmatch(dumpe2fs(t, f.Name()))
		if m == nil {
			t.Fatal("dumpe2fs shows no block count")
		}
		blocks, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if now, behind, err := Behind(f, size); err != nil || behind || now != blocks*blockSize {
			t.Errorf("%d bytes: got %d, behind %t, %v; want %d blocks", size, now, behind, err, blocks)
		}
		if now, behind, err := Behind(f, size+128*mib); err != nil || !behind {
			t.Errorf("%d bytes in a larger partition: got %d, behind %t, %v", size, now, behind, err)
		}
	}

	b := make([]byte, 2048)
	read := func() (int64, bool, error) { return Behind(strings.NewReader(string(b)), 1<<62) }
	if _, behind, err := read(); err == nil || behind || !strings.Contains(err.Error(), "found 0x0") {
		t.Errorf("nothing there: %t, %v", behind, err)
	}
	binary.LittleEndian.PutUint16(b[1024+0x38:], 0xef53)
	binary.LittleEndian.PutUint32(b[1024+0x4:], 5)
	binary.LittleEndian.PutUint32(b[1024+0x18:], 2)
	binary.LittleEndian.PutUint32(b[1024+0x150:], 3)
	if now, _, err := read(); err != nil || now != 5*4096 {
		t.Errorf("without 64bit: %d, %v", now, err)
	}
	b[1024+0x60] = 0x80
	if now, _, err := read(); err != nil || now != (3<<32|5)*4096 {
		t.Errorf("with 64bit: %d, %v", now, err)
	}
	b[1024+0x18] = 7
	if _, behind, err := read(); err == nil || behind {
		t.Errorf("blocks of 128 KiB: %t, %v", behind, err)
	}
	if _, behind, err := Behind(strings.NewReader("short"), 1<<40); err == nil || behind {
		t.Errorf("a short partition: %t, %v", behind, err)
	}
}

// What Blank looks at is where mke2fs puts superblocks.
func TestSuperblocks(t *testing.T) {
	for _, size := range []int64{MinSize, 5 << 30, 40 << 30, 400 << 30} {
		f := filesystem(t, size)
		var want []int64
		for _, m := range regexp.MustCompile(`(?:Primary|Backup) superblock at ([0-9]+)`).FindAllStringSubmatch(dumpe2fs(t, f.Name()), -1) {
			block, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, block)
		}
		if got := superblocks(size); !slices.Equal(got, want) {
			t.Errorf("%d bytes: looks at %v, mke2fs puts superblocks at %v", size, got, want)
		}
	}
}

// Each superblock alone keeps a partition from being taken for a wiped one.
func TestBlank(t *testing.T) {
	const size = 40 << 30
	f := filesystem(t, size)
	if blank, err := Blank(f, size); err != nil || blank {
		t.Errorf("a new file system is blank: %v", err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if blank, err := Blank(f, size); err != nil || !blank {
		t.Fatalf("zeros are not blank: %v", err)
	}
	places := []int64{0, 511, 65536 + 64, mib - 1} // a boot block, LVM, btrfs, anything
	for _, block := range superblocks(size) {
		places = append(places, block*blockSize, block*blockSize+blockSize-1)
	}
	for _, at := range places {
		if _, err := f.WriteAt([]byte{1}, at); err != nil {
			t.Fatal(err)
		}
		if blank, err := Blank(f, size); err != nil || blank {
			t.Errorf("blank with byte %d set: %v", at, err)
		}
		if _, err := f.WriteAt([]byte{0}, at); err != nil {
			t.Fatal(err)
		}
	}
	for name, r := range map[string]io.ReaderAt{"short": io.NewSectionReader(f, 0, 200*mib), "unreadable": unreadable{}} {
		if blank, err := Blank(r, size); err == nil || blank {
			t.Errorf("%s: blank %t, %v", name, blank, err)
		}
	}
	if blank, err := Blank(f, mib-1); err == nil || blank {
		t.Errorf("tiny: blank %t, %v", blank, err)
	}
}

type unreadable struct{}

func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, fmt.Errorf("input/output error") }
