package gpt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"reflect"
	"strings"
	"testing"
)

const mib = 1 << 20

// memory is a disk held in memory; it cannot grow.
type memory []byte

func (m memory) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(len(m)) {
		return 0, fmt.Errorf("write of %d bytes at %d leaves the disk", len(p), off)
	}
	return copy(m[off:], p), nil
}

func (m memory) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(m)) {
		return 0, io.EOF
	}
	n := copy(p, m[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func id(n byte) GUID { return NewGUID([16]byte{15: n}) }

// layout is a small machine's table: an ESP, two slots.
func layout(t testing.TB, size int64, sectorSize int) *Table {
	t.Helper()
	tab := &Table{DiskGUID: id(1), SectorSize: sectorSize, Sectors: uint64(size) / uint64(sectorSize)}
	for i, p := range []struct {
		name string
		typ  GUID
		size int64
	}{{"esp", TypeESP, 4 * mib}, {"bios", TypeBIOSBoot, mib}, {"root-a", TypeRootAMD64, 2 * mib}, {"root-b", TypeRootAMD64, 2 * mib}} {
		if _, err := tab.Add(Partition{Name: p.name, TypeGUID: p.typ, GUID: id(byte(10 + i))}, p.size); err != nil {
			t.Fatal(err)
		}
	}
	return tab
}

func text(tab *Table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d sectors of %d\n", tab.DiskGUID, tab.Sectors, tab.SectorSize)
	for _, p := range tab.Partitions {
		fmt.Fprintf(&b, "%d %s %d-%d %s %s %#x\n", p.Number, p.Name, p.FirstLBA, p.LastLBA, p.TypeGUID, p.GUID, p.Attributes)
	}
	return b.String()
}

func TestLayout(t *testing.T) {
	tab := layout(t, 32*mib, 512)
	if _, err := tab.Fill(Partition{Name: "state", TypeGUID: TypeLinux, GUID: id(20)}); err != nil {
		t.Fatal(err)
	}
	want := `00000000-0000-8000-8000-000000000001 65536 sectors of 512
1 esp 2048-10239 c12a7328-f81f-11d2-ba4b-00a0c93ec93b 00000000-0000-8000-8000-00000000000a 0x0
2 bios 10240-12287 21686148-6449-6e6f-744e-656564454649 00000000-0000-8000-8000-00000000000b 0x0
3 root-a 12288-16383 4f68bce3-e8cd-4db1-96e7-fbcaf984b709 00000000-0000-8000-8000-00000000000c 0x0
4 root-b 16384-20479 4f68bce3-e8cd-4db1-96e7-fbcaf984b709 00000000-0000-8000-8000-00000000000d 0x0
5 state 20480-63487 0fc63daf-8483-4772-8e79-3d69d8477de4 00000000-0000-8000-8000-000000000014 0x0
`
	if got := text(tab); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if _, err := tab.Fill(Partition{Name: "more", TypeGUID: TypeLinux, GUID: id(21)}); err == nil {
		t.Error("a full disk took another partition")
	}
	if _, err := tab.Add(Partition{Name: "more", TypeGUID: TypeLinux, GUID: id(21)}, 2*mib); err == nil {
		t.Error("a full disk took another partition")
	}
	p, err := tab.Find("root-b")
	if err != nil || tab.Offset(p) != 8*mib || tab.Size(p) != 2*mib {
		t.Errorf("root-b: offset %d, size %d, %v", tab.Offset(p), tab.Size(p), err)
	}
	if _, err := tab.Find("swap"); err == nil {
		t.Error("found a partition that is not there")
	}
}

func TestRoundTrip(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		disk := make(memory, 16*mib)
		tab := layout(t, int64(len(disk)), sector)
		tab.Partitions[1].Attributes = 1<<63 | 4
		tab.Partitions[2].Name = "größer 🦀"
		if err := tab.Write(disk); err != nil {
			t.Fatal(err)
		}
		got, err := Read(disk, int64(len(disk)), sector)
		if err != nil {
			t.Fatalf("sectors of %d: %v", sector, err)
		}
		if !reflect.DeepEqual(got, tab) {
			t.Errorf("sectors of %d: got\n%swant\n%s%v %v", sector, text(got), text(tab), got.PrimaryError, got.BackupError)
		}
	}
}

// One image, two tables: whatever was on the disk, both are whole, and none of their parts is in a partition.
func TestWriteBoth(t *testing.T) {
	const size = 16 * mib
	small, large := layout(t, size, 512), layout(t, size, 4096)
	for _, tab := range []*Table{small, large} {
		disk := make(memory, size)
		for i := range disk {
			disk[i] = 0xa5
		}
		if err := tab.WriteBoth(disk); err != nil {
			t.Fatal(err)
		}
		for _, want := range []*Table{small, large} {
			got, err := Read(disk, size, want.SectorSize)
			if err != nil || got.PrimaryError != nil || got.BackupError != nil || text(got) != text(want) {
				t.Errorf("sectors of %d: %v\n%+v\nwant\n%s", want.SectorSize, err, got, text(want))
			}
		}
		if rest := strings.Trim(string(disk[mib:size-tailArea]), "\xa5"); rest != "" || strings.Trim(string(disk[:mbrCodeSize]), "\xa5") != "" {
			t.Error("bytes of partitions or boot code were written")
		}
		// A machine keeps its own.
		if err := large.Write(disk); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(disk, size, 512); err == nil || !strings.Contains(err.Error(), "no GPT signature") {
			t.Errorf("the table for sectors of 512 is still there: %v", err)
		}
	}

	for name, tab := range map[string]*Table{
		"odd disk":      {DiskGUID: id(1), SectorSize: 512, Sectors: size/512 + 1},
		"odd partition": {DiskGUID: id(1), SectorSize: 512, Sectors: size / 512, Partitions: []Partition{{Number: 1, TypeGUID: TypeLinux, GUID: id(2), FirstLBA: 2048, LastLBA: 4000}}},
	} {
		if err := tab.WriteBoth(make(memory, 2*size)); err == nil || !strings.Contains(err.Error(), "whole") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Disks need not have a whole number of the larger sectors.
func TestOddDisk(t *testing.T) {
	const size = 16*mib + 3*512
	disk := make(memory, size)
	tab := layout(t, size, 512)
	if err := tab.Write(disk); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(disk, size, 512); err != nil || got.BackupError != nil || text(got) != text(tab) {
		t.Errorf("%v, %+v", err, got)
	}
}

func TestExtend(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		tab := layout(t, 16*mib, sector)
		if err := tab.GrowTo(64*mib + 4096); err != nil {
			t.Fatal(err)
		}
		if _, err := tab.Extend("root-a"); err == nil || !strings.Contains(err.Error(), "not the last") {
			t.Errorf("extended one in the middle: %v", err)
		}
		p, err := tab.Extend("root-b")
		if err != nil || tab.Offset(p) != 8*mib || tab.Size(p) != 55*mib || tab.Partitions[3] != p {
			t.Errorf("extended to %+v, %v", p, err)
		}
		if again, err := tab.Extend("root-b"); err != nil || again != p {
			t.Errorf("extended again to %+v, %v", again, err)
		}
	}
	if _, err := (&Table{DiskGUID: id(1), SectorSize: 512, Sectors: 65536}).Extend("x"); err == nil {
		t.Error("extended nothing")
	}
}

func TestWriteKeepsBootCode(t *testing.T) {
	disk := make(memory, 16*mib)
	for i := range disk[:mbrCodeSize] {
		disk[i] = 0x90
	}
	if err := layout(t, int64(len(disk)), 512).Write(disk); err != nil {
		t.Fatal(err)
	}
	if strings.Trim(string(disk[:mbrCodeSize]), "\x90") != "" {
		t.Error("boot code was overwritten")
	}
	if disk[450] != 0xee || disk[510] != 0x55 || disk[511] != 0xaa {
		t.Error("no protective MBR")
	}
}

// Cut the power after every write, and in the middle of every write: the old or the new table must be there. The disk
// carries both tables at first; the other one must never be there beside the new one.
func TestPowerCut(t *testing.T) {
	const before, after = 16 * mib, 24 * mib
	for _, c := range []struct {
		sector, other int
		conventional  bool
	}{{512, 4096, false}, {4096, 512, false}, {512, 4096, true}, {4096, 512, true}} {
		sector, other := c.sector, c.other
		old := layout(t, before, sector)
		disk := make(memory, before)
		if err := old.WriteBoth(disk); err != nil {
			t.Fatal(err)
		}
		disk = append(disk, make(memory, after-before)...)

		tab, err := Read(disk, after, sector)
		if err != nil {
			t.Fatal(err)
		}
		if err := tab.GrowTo(after); err != nil {
			t.Fatal(err)
		}
		tab.Conventional = c.conventional
		if _, err := tab.Fill(Partition{Name: "state", TypeGUID: TypeLinux, GUID: id(20)}); err != nil {
			t.Fatal(err)
		}
		var sawOld, sawNew, sawBackup bool
		for left := 0; ; left += 100 {
			d := &dying{memory: append(memory(nil), disk...), left: left}
			werr := tab.Write(d)
			got, err := Read(d.memory, after, sector)
			if err != nil {
				t.Fatalf("after %d bytes: %v", left, err)
			}
			switch text(got) {
			case text(old):
				sawOld = true
			case text(tab):
				sawNew = true
				if u, err := Read(d.memory, after, other); err == nil {
					t.Fatalf("after %d bytes: the table for sectors of %d is still there: %s", left, other, text(u))
				}
			default:
				t.Fatalf("after %d bytes: found\n%s", left, text(got))
			}
			sawBackup = sawBackup || got.PrimaryError != nil
			if werr == nil {
				break
			}
		}
		if !sawOld || !sawNew || !sawBackup {
			t.Errorf("old %t, new %t, backup %t: the test did not see all three", sawOld, sawNew, sawBackup)
		}
	}
}

// dying takes only so many bytes.
type dying struct {
	memory
	left int
}

func (d *dying) WriteAt(p []byte, off int64) (int, error) {
	n := min(len(p), d.left)
	d.left -= n
	d.memory.WriteAt(p[:n], off)
	if n < len(p) {
		return n, fmt.Errorf("power cut")
	}
	return n, nil
}

func TestDamage(t *testing.T) {
	const size = 16 * mib
	good := make(memory, size)
	if err := layout(t, size, 512).Write(good); err != nil {
		t.Fatal(err)
	}
	const last = size/512 - 1
	for _, c := range []struct {
		name                   string
		damage                 func(d memory) memory
		primary, backup, fatal string
	}{
		{"nothing", func(d memory) memory { return d }, "", "", ""},
		{"primary header", func(d memory) memory { d[512+60]++; return d }, "checksum is", "", ""},
		{"primary signature", func(d memory) memory { d[512]++; return d }, "no GPT signature", "", ""},
		{"primary entries", func(d memory) memory { d[24576]++; return d }, "checksum of the entries", "", ""},
		{"backup header", func(d memory) memory { d[last*512+60]++; return d }, "", "checksum is", ""},
		{"both", func(d memory) memory { d[last*512+60]++; d[512]++; return d }, "", "", "neither copy"},
		{"cut short", func(d memory) memory { return d[:size-mib] }, "", "", "made for 32768 sectors"},
		{"empty", func(d memory) memory { return make(memory, size) }, "", "", "neither copy"},
		{"tiny", func(d memory) memory { return d[:1024] }, "", "", "cannot hold"},
		{"moved header", func(d memory) memory { return reseal(d, func(h []byte) { h[24]++ }) }, "says it is in sector", "", ""},
		{"other array", func(d memory) memory { return reseal(d, func(h []byte) { h[80]++ }) }, "not supported", "", ""},
		{"far array", func(d memory) memory { return reseal(d, func(h []byte) { h[79] = 0xff }) }, "entries in sector", "", ""},
		{"array in the header", func(d memory) memory { return reseal(d, func(h []byte) { h[72] = 1 }) }, "entries in sector 1: expected 32 sectors between 2 and 2048", "", ""},
		{"array among partitions", func(d memory) memory { return reseal(d, func(h []byte) { h[72], h[73] = 0xe1, 7 }) }, "entries in sector 2017", "", ""},
		{"usable beyond the disk", func(d memory) memory { return reseal(d, func(h []byte) { h[52] = 1 }) }, "usable sectors", "", ""},
		{"nothing usable", func(d memory) memory { return reseal(d, func(h []byte) { h[42] = 1 }) }, "usable sectors", "", ""},
		{"other disk", func(d memory) memory { return reseal(d, func(h []byte) { h[56]++ }) }, "", "differs from the primary", ""},
		{"grown", func(d memory) memory { return append(d, make(memory, mib)...) }, "", "", ""},
	} {
		d := c.damage(append(memory(nil), good...))
		tab, err := Read(d, int64(len(d)), 512)
		if !matches(err, c.fatal) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.fatal)
			continue
		}
		if err != nil {
			continue
		}
		if !matches(tab.PrimaryError, c.primary) || !matches(tab.BackupError, c.backup) {
			t.Errorf("%s: primary %v, want %q; backup %v, want %q", c.name, tab.PrimaryError, c.primary, tab.BackupError, c.backup)
		}
		if len(tab.Partitions) != 4 {
			t.Errorf("%s: %d partitions", c.name, len(tab.Partitions))
		}
	}
}

// reseal changes the primary header and makes its checksum right again.
func reseal(d memory, change func(h []byte)) memory {
	h := d[512:][:headerSize]
	change(h)
	copy(h[16:20], make([]byte, 4))
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h))
	return d
}

func matches(err error, want string) bool {
	if want == "" || err == nil {
		return (err == nil) == (want == "")
	}
	return strings.Contains(err.Error(), want)
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(tab *Table)
	}{
		{"sector size", func(tab *Table) { tab.SectorSize = 1024 }},
		{"cannot hold", func(tab *Table) { tab.Sectors = 60 }},
		{"disk GUID", func(tab *Table) { tab.DiskGUID = "" }},
		{"disk GUID", func(tab *Table) { tab.DiskGUID = "c12a7328-f81f-11d2-ba4b_00a0c93ec93b" }},
		{"is missing", func(tab *Table) { tab.Partitions[0].GUID = "" }},
		{"malformed", func(tab *Table) { tab.Partitions[0].TypeGUID = "linux" }},
		{"there twice", func(tab *Table) { tab.Partitions[0].Number = 2 }},
		{"same GUID", func(tab *Table) { tab.Partitions[0].GUID = tab.Partitions[2].GUID }},
		{"overlap", func(tab *Table) { tab.Partitions[0].LastLBA++ }},
		{"before it begins", func(tab *Table) { tab.Partitions[0].LastLBA = 1000 }},
		{"not within the usable", func(tab *Table) { tab.Partitions[0].FirstLBA = 2047 }},
		{"not within the usable", func(tab *Table) { tab.Partitions[3].LastLBA = tab.Sectors - 72 }},
		{"number is not", func(tab *Table) { tab.Partitions[0].Number = 129 }},
		{"code units", func(tab *Table) { tab.Partitions[0].Name = strings.Repeat("x", 37) }},
		{"code units", func(tab *Table) { tab.Partitions[0].Name = "a\x00b" }},
	} {
		tab := layout(t, 16*mib, 512)
		c.change(tab)
		if err := tab.Write(make(memory, 16*mib)); !matches(err, c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestGUID(t *testing.T) {
	g, err := ParseGUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
	if err != nil || g != TypeESP {
		t.Fatalf("got %s, %v", g, err)
	}
	disk := make([]byte, 16)
	encodeGUID(disk, g)
	// The example of the ESP's GUID on disk: first three groups little-endian.
	if got, want := fmt.Sprintf("%x", disk), "28732ac11ff8d211ba4b00a0c93ec93b"; got != want {
		t.Errorf("on disk %s, want %s", got, want)
	}
	if got := decodeGUID(disk); got != g {
		t.Errorf("read back %s", got)
	}
	for _, s := range []string{"", "c12a7328", "c12a7328f81f11d2ba4b00a0c93ec93b", "c12a7328-f81f-11d2-ba4b-00a0c93ec93x", "c12a7328-f81f-11d2-ba4-b00a0c93ec93b"} {
		if g, err := ParseGUID(s); err == nil {
			t.Errorf("ParseGUID(%q) = %s", s, g)
		}
	}
}
