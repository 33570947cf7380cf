package state

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/gpt"
)

const mib = 1 << 20

// shipped is the table of an image of size bytes, on a disk of diskSize bytes.
func shipped(t *testing.T, size, diskSize int64, sectorSize int) disk.Disk {
	t.Helper()
	table := &gpt.Table{DiskGUID: gpt.NewGUID([16]byte{1}), SectorSize: sectorSize, Sectors: uint64(size) / uint64(sectorSize)}
	for i, name := range []string{"esp", "root-a", "root-b"} {
		if _, err := table.Add(gpt.Partition{Name: name, TypeGUID: gpt.TypeLinux, GUID: gpt.NewGUID([16]byte{2, byte(i)})}, mib); err != nil {
			t.Fatal(err)
		}
	}
	return disk.Disk{Name: "vda", Path: "/dev/vda", Size: diskSize, SectorSize: sectorSize, Table: table}
}

func TestPlan(t *testing.T) {
	d := shipped(t, 5*mib, 1024*mib, 512)
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

func TestCreateStops(t *testing.T) {
	d := shipped(t, 5*mib, 1024*mib, 512)
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
