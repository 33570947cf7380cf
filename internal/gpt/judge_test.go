package gpt

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

// newFile returns an empty disk image of size bytes.
func newFile(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// sfdisk must find no fault with what Write and WriteBoth wrote, and see the same partitions with either sector size.
func TestSfdiskReadsOurs(t *testing.T) {
	const size = 64 * mib
	for _, sector := range []int{512, 4096} {
		tab := layout(t, size, sector)
		f := newFile(t, size)
		if err := tab.Write(f); err != nil {
			t.Fatal(err)
		}
		sfdiskSees(t, f.Name(), tab)
		both := newFile(t, size)
		if err := tab.WriteBoth(both); err != nil {
			t.Fatal(err)
		}
		sfdiskSees(t, both.Name(), tab)
		sfdiskSees(t, both.Name(), layout(t, size, int(tab.otherSize())))
	}
}

// A conventional table is one like sfdisk's own: it may use every sector that sfdisk would, and Read finds no fault with it either.
func TestSfdiskReadsConventional(t *testing.T) {
	const size = 64 * mib
	for _, sector := range []int{512, 4096} {
		f := newFile(t, size)
		if err := layout(t, size, sector).WriteBoth(f); err != nil { // what was there before must not shine through
			t.Fatal(err)
		}
		tab := layout(t, size, sector)
		tab.Conventional = true
		tab.Partitions[0].FirstLBA = tab.FirstUsable()
		tab.Partitions = append(tab.Partitions, Partition{Number: 5, Name: "rest", TypeGUID: TypeLinux, GUID: id(30),
			FirstLBA: uint64(size/2) / uint64(sector), LastLBA: tab.LastUsable()})
		if err := tab.Write(f); err != nil {
			t.Fatal(err)
		}
		sfdiskSees(t, f.Name(), tab)
		got, err := Read(f, size, sector)
		if err != nil || got.PrimaryError != nil || got.BackupError != nil || text(got) != text(tab) {
			t.Errorf("%v, %+v", err, got)
		}
		if u, err := Read(f, size, int(tab.otherSize())); err == nil {
			t.Errorf("the table for the other sector size is still there: %s", text(u))
		}
		if err := tab.WriteBoth(f); err == nil {
			t.Error("WriteBoth takes a conventional table")
		}
	}
}

func sfdiskSees(t *testing.T, path string, tab *Table) {
	t.Helper()
	tools := testenv.Tools(t)
	sector := fmt.Sprintf("--sector-size=%d", tab.SectorSize)
	out, err := tools.Command(t.Context(), "sfdisk", sector, "--verify", path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No errors detected") || strings.Contains(string(out), "mismatch") {
		t.Fatalf("sfdisk %s --verify: %v\n%s", sector, err, out)
	}
	out, err = tools.Command(t.Context(), "sfdisk", sector, "--json", path).Output()
	if err != nil {
		t.Fatalf("sfdisk %s --json: %v", sector, err)
	}
	var seen struct {
		PartitionTable struct {
			Label, ID  string
			FirstLBA   uint64
			LastLBA    uint64
			SectorSize int
			Partitions []struct {
				Start, Size      uint64
				Type, UUID, Name string
			}
		}
	}
	if err := json.Unmarshal(out, &seen); err != nil {
		t.Fatal(err)
	}
	got := &Table{DiskGUID: GUID(strings.ToLower(seen.PartitionTable.ID)), SectorSize: seen.PartitionTable.SectorSize, Sectors: tab.Sectors}
	for i, p := range seen.PartitionTable.Partitions {
		got.Partitions = append(got.Partitions, Partition{Number: i + 1, Name: p.Name, TypeGUID: GUID(strings.ToLower(p.Type)),
			GUID: GUID(strings.ToLower(p.UUID)), FirstLBA: p.Start, LastLBA: p.Start + p.Size - 1})
	}
	if text(got) != text(tab) {
		t.Errorf("sfdisk sees\n%swant\n%s", text(got), text(tab))
	}
	if seen.PartitionTable.FirstLBA != tab.FirstUsable() || seen.PartitionTable.LastLBA != tab.LastUsable() {
		t.Errorf("usable sectors %d to %d, want %d to %d", seen.PartitionTable.FirstLBA, seen.PartitionTable.LastLBA, tab.FirstUsable(), tab.LastUsable())
	}
}

// When sfdisk changes one of two tables, Read sees the change there, and Write leaves that one only.
func TestSfdiskChangesOurs(t *testing.T) {
	tools := testenv.Tools(t)
	const size = 64 * mib
	f := newFile(t, size)
	if err := layout(t, size, 512).WriteBoth(f); err != nil {
		t.Fatal(err)
	}
	if out, err := tools.Command(t.Context(), "sfdisk", "--sector-size=4096", "--no-tell-kernel", "--part-label", f.Name(), "3", "changed").CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	want := layout(t, size, 4096)
	want.Partitions[2].Name = "changed"
	tab, err := Read(f, size, 4096)
	if err != nil || text(tab) != text(want) {
		t.Fatalf("%v, %+v", err, tab)
	}
	if err := tab.Write(f); err != nil {
		t.Fatal(err)
	}
	sfdiskSees(t, f.Name(), want)
	if out, err := tools.Command(t.Context(), "sfdisk", "--sector-size=512", "--dump", f.Name()).CombinedOutput(); strings.Contains(string(out), "root-a") {
		t.Errorf("sfdisk still sees a table for sectors of 512: %v\n%s", err, out)
	}
}

// And Read must understand what sfdisk wrote.
func TestReadSfdisks(t *testing.T) {
	tools := testenv.Tools(t)
	const size = 64 * mib
	f := newFile(t, size)
	cmd := tools.Command(t.Context(), "sfdisk", "--no-tell-kernel", "--no-reread", f.Name())
	cmd.Stdin = strings.NewReader(`label: gpt
label-id: 11111111-2222-3333-4444-555555555555
size=4MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=AAAAAAAA-0000-0000-0000-000000000001, name="esp", attrs="RequiredPartition"
size=8MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=AAAAAAAA-0000-0000-0000-000000000002, name="state"
`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	tab, err := Read(f, size, 512)
	if err != nil || tab.PrimaryError != nil || tab.BackupError != nil {
		t.Fatalf("read: %v, %+v", err, tab)
	}
	want := `11111111-2222-3333-4444-555555555555 131072 sectors of 512
1 esp 2048-10239 c12a7328-f81f-11d2-ba4b-00a0c93ec93b aaaaaaaa-0000-0000-0000-000000000001 0x1
2 state 10240-26623 0fc63daf-8483-4772-8e79-3d69d8477de4 aaaaaaaa-0000-0000-0000-000000000002 0x0
`
	if got := text(tab); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
