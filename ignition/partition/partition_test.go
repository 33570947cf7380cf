package partition

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/internal/gpt"
)

const mib = 1 << 20

// counter makes GUIDs that tests can tell.
func counter() func() gpt.GUID {
	n := byte(0)
	return func() gpt.GUID {
		n++
		return gpt.NewGUID([16]byte{15: n})
	}
}

func disk(t *testing.T, text string) types.Disk {
	t.Helper()
	var d types.Disk
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// table reads lines of "number label first-last", in MiB with the end not included.
func table(t *testing.T, size int64, text string) *gpt.Table {
	t.Helper()
	tab := &gpt.Table{DiskGUID: "11111111-2222-4333-8444-555555555555", SectorSize: 512, Sectors: uint64(size) / 512, Conventional: true}
	for line := range strings.Lines(text) {
		p := gpt.Partition{TypeGUID: gpt.TypeLinux}
		if _, err := fmt.Sscanf(line, "%d %s %d-%d", &p.Number, &p.Name, &p.FirstLBA, &p.LastLBA); err != nil {
			t.Fatal(line, err)
		}
		p.GUID = gpt.NewGUID([16]byte{0: 0xaa, 15: byte(p.Number)})
		p.FirstLBA, p.LastLBA = p.FirstLBA*2048, p.LastLBA*2048-1
		tab.Partitions = append(tab.Partitions, p)
	}
	if err := tab.Validate(); err != nil {
		t.Fatal(err)
	}
	return tab
}

// show is a plan as text: the changes, then the table that is written.
func show(p *Plan) string {
	var b strings.Builder
	if p.Erase {
		b.WriteString("erase\n")
	}
	for _, c := range p.Changes {
		fmt.Fprintf(&b, "%s %d", c.Kind, max(c.Was.Number, c.Is.Number))
		if c.Why != "" {
			b.WriteString(": " + c.Why)
		}
		b.WriteByte('\n')
	}
	if p.Table == nil {
		return b.String()
	}
	for _, q := range p.Table.Partitions {
		fmt.Fprintf(&b, "= %d %s %d-%d\n", q.Number, q.Name, q.FirstLBA/2048, (q.LastLBA+1)/2048)
	}
	return b.String()
}

func TestMatrix(t *testing.T) {
	const size = 100 * mib
	const two = "1 a 1-11\n2 b 11-31\n"
	const other = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1"
	second := gpt.NewGUID([16]byte{0: 0xaa, 15: 2}).String()
	tests := []struct{ name, before, want, plan string }{
		{"absent, shall not exist", two, `{"partitions":[{"number":3,"shouldExist":false}]}`, "leave out 0\n"},
		{"absent, shall not exist, wipe", two, `{"partitions":[{"number":3,"shouldExist":false,"wipePartitionEntry":true}]}`, "leave out 0\n"},
		{"absent, shall exist", two, `{"partitions":[{"number":3,"label":"c","sizeMiB":5}]}`, "create 3\n= 1 a 1-11\n= 2 b 11-31\n= 3 c 31-36\n"},
		{"absent, shall exist, wipe", two, `{"partitions":[{"number":3,"label":"c","wipePartitionEntry":true}]}`, "create 3\n= 1 a 1-11\n= 2 b 11-31\n= 3 c 31-99\n"},
		{"there, shall not exist", two, `{"partitions":[{"number":2,"shouldExist":false}]}`, `partition 2 exists: expected none, as shouldExist is false, found "b", 20 MiB; set "wipePartitionEntry": true to delete it`},
		{"there, shall not exist, wipe", two, `{"partitions":[{"number":2,"shouldExist":false,"wipePartitionEntry":true}]}`, "delete 2\n= 1 a 1-11\n"},
		{"there, matches", two, `{"partitions":[{"number":2,"label":"b","sizeMiB":20,"startMiB":11,"typeGuid":"0FC63DAF-8483-4772-8E79-3D69D8477DE4","guid":""}]}`, "keep 2\n"},
		{"there, only a number", two, `{"partitions":[{"number":2}]}`, "keep 2\n"},
		{"there, matches, wipe", two, `{"partitions":[{"number":2,"label":"b","wipePartitionEntry":true}]}`, "keep 2\n"},
		{"there, other label", two, `{"partitions":[{"number":2,"label":"x"}]}`, `partition 2 does not match: expected a partition as the config describes it, found label is "b", not "x"; correct the config, or set "wipePartitionEntry": true to replace it; what it holds is lost then`},
		{"there, other size", two, `{"partitions":[{"number":2,"sizeMiB":30}]}`, `partition 2 does not match: expected a partition as the config describes it, found size is 20 MiB, not 30 MiB; correct the config, or set "wipePartitionEntry": true to replace it; what it holds is lost then`},
		{"there, other size, resize", two, `{"partitions":[{"number":2,"sizeMiB":30,"resize":true}]}`, "resize 2: size is 20 MiB, not 30 MiB\n= 1 a 1-11\n= 2 b 11-41\n"},
		{"there, resize to the end", two, `{"partitions":[{"number":2,"sizeMiB":0,"resize":true}]}`, "resize 2: size is 20 MiB, not 88 MiB\n= 1 a 1-11\n= 2 b 11-99\n"},
		{"there, other label and size, resize", two, `{"partitions":[{"number":2,"label":"x","sizeMiB":30,"resize":true}]}`, `partition 2 does not match: expected a partition as the config describes it, found label is "b", not "x"; correct the config, or set "wipePartitionEntry": true to replace it; what it holds is lost then`},
		{"there, other label, wipe", two, `{"partitions":[{"number":2,"label":"x","wipePartitionEntry":true}]}`, "replace 2: label is \"b\", not \"x\"\n= 1 a 1-11\n= 2 x 11-99\n"},
		{"there, size 0 matches", "1 a 1-11\n2 b 11-99\n", `{"partitions":[{"number":2,"sizeMiB":0}]}`, "keep 2\n"},
		{"there, start 0 matches", "1 a 1-11\n2 b 11-99\n", `{"partitions":[{"number":2,"startMiB":0}]}`, "keep 2\n"},
		{"there, start 0 is elsewhere", "1 a 1-11\n2 b 21-31\n", `{"partitions":[{"number":2,"startMiB":0}]}`, `partition 2 does not match: expected a partition as the config describes it, found start is 21 MiB, not 11 MiB; correct the config, or set "wipePartitionEntry": true to replace it; what it holds is lost then`},
		{"there, other type GUID", two, `{"partitions":[{"number":2,"typeGuid":"C12A7328-F81F-11D2-BA4B-00A0C93EC93B"}]}`, `partition 2 does not match: expected a partition as the config describes it, found type is 0fc63daf-8483-4772-8e79-3d69d8477de4, not c12a7328-f81f-11d2-ba4b-00a0c93ec93b; correct the config, or set "wipePartitionEntry": true to replace it; what it holds is lost then`},
		{"there, other type GUID and size, resize", two, `{"partitions":[{"number":2,"sizeMiB":30,"resize":true,"typeGuid":"C12A7328-F81F-11D2-BA4B-00A0C93EC93B"}]}`, `partition 2 does not match: expected a partition as the config describes it, found type is 0fc63daf-8483-4772-8e79-3d69d8477de4, not c12a7328-f81f-11d2-ba4b-00a0c93ec93b; correct the config, or set "wipePartitionEntry": true to replace it; what it holds is lost then`},
		{"there, other type GUID, wipe", two, `{"partitions":[{"number":2,"typeGuid":"c12a7328-f81f-11d2-ba4b-00a0c93ec93b","wipePartitionEntry":true}]}`, "replace 2: type is 0fc63daf-8483-4772-8e79-3d69d8477de4, not c12a7328-f81f-11d2-ba4b-00a0c93ec93b\n= 1 a 1-11\n= 2  11-99\n"},
		{"there, other GUID", two, `{"partitions":[{"number":2,"guid":"` + strings.ToUpper(other) + `"}]}`, `partition 2 does not match: expected a partition as the config describes it, found GUID is ` + second + `, not ` + other + `; correct the config, or set "wipePartitionEntry": true to replace it; what it holds is lost then`},
		{"there, other GUID, wipe", two, `{"partitions":[{"number":2,"guid":"` + other + `","wipePartitionEntry":true}]}`, "replace 2: GUID is " + second + ", not " + other + "\n= 1 a 1-11\n= 2  11-99\n"},
		{"there, its GUID", two, `{"partitions":[{"number":2,"guid":"` + strings.ToUpper(second) + `"}]}`, "keep 2\n"},
		{"largest block is not the first", "1 a 21-31\n", `{"partitions":[{"number":2,"label":"b","sizeMiB":5}]}`, "create 2\n= 1 a 21-31\n= 2 b 31-36\n"},
		{"number 0 takes the first free", "1 a 1-11\n3 c 11-31\n", `{"partitions":[{"label":"x","sizeMiB":5},{"number":2,"label":"y","sizeMiB":6}]}`, "create 4\ncreate 2\n= 1 a 1-11\n= 2 y 31-37\n= 3 c 11-31\n= 4 x 37-42\n"},
		{"number 0 that is there", two, `{"partitions":[{"label":"b","sizeMiB":20}]}`, "keep 2\n"},
		{"number 0 with a label of another kind", two, `{"partitions":[{"label":"b","sizeMiB":21}]}`, "create 3\n= 1 a 1-11\n= 2 b 11-31\n= 3 b 31-52\n"},
		{"two swap places", two, `{"partitions":[{"number":1,"label":"a","startMiB":21,"sizeMiB":10,"wipePartitionEntry":true},{"number":2,"label":"b","startMiB":1,"sizeMiB":20,"wipePartitionEntry":true}]}`,
			"replace 1: start is 1 MiB, not 21 MiB\nreplace 2: start is 11 MiB, not 1 MiB\n= 1 a 21-31\n= 2 b 1-21\n"},
		{"no room", two, `{"partitions":[{"number":3,"label":"c","sizeMiB":500}]}`, "no room for the partition: expected free space on the disk, found 72314880 bytes free at 31 MiB, 500 MiB wanted; use a larger disk, a smaller sizeMiB, or another startMiB"},
		{"on another", two, `{"partitions":[{"number":3,"label":"c","startMiB":5,"sizeMiB":2}]}`, "no room for the partition: expected free space on the disk, found nothing free at 5 MiB; use a larger disk, a smaller sizeMiB, or another startMiB"},
		{"wipe table", two, `{"wipeTable":true,"partitions":[{"number":1,"label":"n"}]}`, "erase\ncreate 1\n= 1 n 1-99\n"},
		{"wipe table only", two, `{"wipeTable":true}`, "erase\n"},
		{"nothing asked", two, `{}`, ""},
		{"empty disk", "", `{"partitions":[{"label":"a","sizeMiB":10},{"label":"b"}]}`, "erase\ncreate 1\ncreate 2\n= 1 a 1-11\n= 2 b 11-99\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Disk{Size: size, SectorSize: 512}
			if tt.before != "" {
				d.Table = table(t, size, tt.before)
			}
			p, err := Decide(d, disk(t, tt.want), counter())
			got := fmt.Sprint(err)
			if err == nil {
				got = show(p)
			}
			if got != tt.plan {
				t.Errorf("got\n%s\nwant\n%s", got, tt.plan)
			}
			if err != nil || p.Table == nil {
				return
			}
			// What was done once is done: the same config finds everything as it shall be.
			again := strings.Replace(tt.want, `"wipeTable":true`, `"wipeTable":false`, 1)
			p, err = Decide(Disk{Size: size, SectorSize: 512, Table: p.Table}, disk(t, again), counter())
			if err != nil || p.Writes() {
				t.Errorf("again: %v\n%s", err, show(p))
			}
		})
	}
}

// The GUIDs of the config are those on the disk; what the config leaves open is a Linux file system with a GUID of its own.
func TestGUIDs(t *testing.T) {
	const esp, id = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1"
	p, err := Decide(Disk{Size: 100 * mib, SectorSize: 512}, disk(t, `{"partitions":[{"number":1,"sizeMiB":5,"typeGuid":"`+strings.ToUpper(esp)+`","guid":"`+strings.ToUpper(id)+`"},
		{"number":2,"sizeMiB":5,"typeGuid":"","guid":""},{"number":3,"guid":"`+esp+`"}]}`), counter())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Truncate(100*mib), p.Table.Write(f)); err != nil {
		t.Fatal(err)
	}
	tab, err := gpt.Read(f, 100*mib, 512)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, q := range tab.Partitions {
		got = append(got, fmt.Sprintf("%d %s %s", q.Number, q.TypeGUID, q.GUID))
	}
	// The first GUID of the counter is the table's, and one is asked for before the config's is taken.
	want := []string{"1 " + esp + " " + id, "2 " + gpt.TypeLinux.String() + " " + gpt.NewGUID([16]byte{15: 3}).String(), "3 " + gpt.TypeLinux.String() + " " + esp}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestHoldsSomethingElse(t *testing.T) {
	d := Disk{Size: 100 * mib, SectorSize: 512, Holds: "an ext4 file system"}
	_, err := Decide(d, disk(t, `{"partitions":[{"number":1}]}`), counter())
	const want = `the disk is in use for something else: expected an empty disk or a GPT partition table, found an ext4 file system; set "wipeTable": true to lose that, or choose another disk`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if p, err := Decide(d, disk(t, `{"wipeTable":true,"partitions":[{"number":1}]}`), counter()); err != nil || !p.Erase || p.Table == nil {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, err := Decide(Disk{Size: 1 * mib / 2, SectorSize: 4096}, disk(t, `{"partitions":[{"number":1}]}`), counter()); err == nil {
		t.Error("took a disk without a whole MiB")
	}
}

// An image of ours keeps the places of its arrays, which lets it start from disks of either sector size.
func TestKeepsOurArrays(t *testing.T) {
	tab := table(t, 100*mib, "1 a 1-11\n")
	tab.Conventional = false
	p, err := Decide(Disk{Size: 200 * mib, SectorSize: 512, Table: tab}, disk(t, `{"partitions":[{"number":2,"label":"b"}]}`), counter())
	if err != nil || p.Table.Conventional || show(p) != "create 2\n= 1 a 1-11\n= 2 b 11-199\n" {
		t.Errorf("got %v, %+v", err, p)
	}
}
