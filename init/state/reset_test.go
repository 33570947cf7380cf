package state

import (
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/gpt"
)

// crowded is a machine's disk with a partition of somebody behind a state that leaves size bytes for it.
func crowded(t *testing.T, size int64) disk.Disk {
	t.Helper()
	d := withState(t, 1024*mib)
	for i, p := range d.Table.Partitions {
		if p.Name == "state" {
			d.Table.Partitions[i].LastLBA -= uint64(size / 512)
		}
	}
	if _, err := d.Table.Add(gpt.Partition{Name: "more", TypeGUID: gpt.TypeLinux, GUID: gpt.NewGUID([16]byte{8})}, mib); err != nil {
		t.Fatal(err)
	}
	return d
}

// A machine that could not make its state again keeps the one it has. What is free behind the other partition may do, though.
func TestResetRefuses(t *testing.T) {
	d := crowded(t, mib)
	w := &dyingDisk{size: d.Size, sectorSize: 512, left: 1 << 30}
	err := Reset(w, d)
	if err == nil || !strings.Contains(err.Error(), "nothing was written") || !strings.Contains(err.Error(), `partition 5 "more" behind it`) {
		t.Errorf("got %v", err)
	}
	if len(w.stored)+len(w.pending) != 0 {
		t.Error("the table was written")
	}
	d = crowded(t, mib+MinSize)
	if err := Reset(w, d); err != nil {
		t.Fatal(err)
	}
	if _, p, err := Plan(w.read(t, "after"), [16]byte{9}); err != nil || p.Number != 4 {
		t.Errorf("state made again: %+v, %v", p, err)
	}
}
