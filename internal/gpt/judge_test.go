package gpt

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

// sfdisk must find no fault with what Write wrote, and see the same partitions.
func TestSfdiskReadsOurs(t *testing.T) {
	tools := testenv.Tools(t)
	const size = 64 * mib
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	tab := layout(t, size, 512)
	if err := tab.Write(f); err != nil {
		t.Fatal(err)
	}
	out, err := tools.Command(t.Context(), "sfdisk", "--verify", path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No errors detected") {
		t.Fatalf("sfdisk --verify: %v\n%s", err, out)
	}
	out, err = tools.Command(t.Context(), "sfdisk", "--json", path).Output()
	if err != nil {
		t.Fatalf("sfdisk --json: %v", err)
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
	got := &Table{DiskGUID: GUID(strings.ToLower(seen.PartitionTable.ID)), SectorSize: 512, Sectors: size / 512}
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

// And Read must understand what sfdisk wrote.
func TestReadSfdisks(t *testing.T) {
	tools := testenv.Tools(t)
	const size = 64 * mib
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	cmd := tools.Command(t.Context(), "sfdisk", "--no-tell-kernel", "--no-reread", path)
	cmd.Stdin = strings.NewReader(`label: gpt
label-id: 11111111-2222-3333-4444-555555555555
size=4MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=AAAAAAAA-0000-0000-0000-000000000001, name="esp", attrs="RequiredPartition"
size=8MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=AAAAAAAA-0000-0000-0000-000000000002, name="state"
`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
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
