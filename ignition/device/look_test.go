package device

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/signature"
	"github.com/proa-os/proa/internal/gpt"
)

const dosTable = "\x00\x00\x00\x00\x83\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00" + // an entry of Linux
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x55\xaa"

// A disk that had a GPT and was given to something else keeps the backup, and with an MBR alone even the primary: neither is a table that
// partitions may be added to. One whose primary is damaged and that holds nothing else is mended.
func TestFormerTable(t *testing.T) {
	const storage = `{"disks":[{"device":"/dev/vda","partitions":[{"number":1,"label":"data"}]}]}`
	nothing := string(make([]byte, 4096))
	for name, tt := range map[string]struct {
		found string // "" where the table is used
		write map[int64]string
	}{
		"ISO image":        {"iso9660", map[int64]string{0: nothing, 32769: "CD001"}},
		"whole-disk FAT":   {"vfat", map[int64]string{0: nothing, 11: "\x00\x02", 82: "FAT32", 510: "\x55\xaa"}},
		"DOS table":        {"a DOS partition table", map[int64]string{446: dosTable}},
		"DOS, no primary":  {"a DOS partition table", map[int64]string{446: dosTable, 512: nothing}},
		"ext4 superblock":  {"ext2", map[int64]string{0: nothing, 1080: "\x53\xef"}},
		"damaged primary":  {"", map[int64]string{520: "damage"}},
		"erased beginning": {"", map[int64]string{0: nothing}},
		"erased sector 0":  {"", map[int64]string{0: nothing[:512]}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newFiles(t, nil, map[string]int64{"vda": 64 * mib})
			if _, err := do(t, m, newRoot(t), `{"disks":[{"device":"/dev/vda","partitions":[{"number":7,"label":"former","sizeMiB":8}]}]}`); err != nil {
				t.Fatal(err)
			}
			for _, at := range slices.Sorted(maps.Keys(tt.write)) {
				if err := m.mark(m.dir+"/vda", at, tt.write[at]); err != nil {
					t.Fatal(err)
				}
			}
			before := holds(t, m, "/dev/vda")
			_, err := do(t, m, newRoot(t), storage)
			if tt.found == "" {
				if got := m.dump(); err != nil || !strings.Contains(got, ", 1 data 9-63, 7 former 1-9") {
					t.Errorf("got %v\n%s", err, got)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "expected an empty disk or a GPT partition table, found "+tt.found) {
				t.Errorf("got %v, want %s", err, tt.found)
			}
			if after := holds(t, m, "/dev/vda"); after != before {
				t.Errorf("was %s, is %s", before, after)
			}
		})
	}
}

// A table of sectors of 4096 bytes is protected in the same place, and a hybrid MBR protects too.
func TestHybrid(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		m := newFiles(t, nil, map[string]int64{"vda": 64 * mib})
		d, err := m.Open(t.Context(), "/dev/vda")
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		table := &gpt.Table{DiskGUID: gpt.NewGUID([16]byte{1}), SectorSize: sector, Sectors: uint64(64*mib) / uint64(sector), Conventional: true}
		if err := table.Write(d); err != nil {
			t.Fatal(err)
		}
		if err := m.mark(m.dir+"/vda", 462, dosTable[:16]); err != nil {
			t.Fatal(err)
		}
		if have, err := Look(d, d.Size(), sector); err != nil || have.Table == nil {
			t.Errorf("%d: %v, %q", sector, err, have.Holds)
		}
		if found, err := signature.Probe(d, d.Size()); err != nil || len(found) != 1 || found[0].Type != "gpt" {
			t.Errorf("%d: %v, %v", sector, found, err)
		}
	}
}
