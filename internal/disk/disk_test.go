package disk_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/disk/disktest"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/verity"
)

const mib = 1 << 20

func TestFind(t *testing.T) {
	one, hash1, offset := disktest.RootImage(t, 200, 1)
	two, hash2, _ := disktest.RootImage(t, 200, 2)
	for _, tt := range []struct{ disk, rootA, rootB string }{
		{"vda", "/dev/vda3", "/dev/vda4"},
		{"sdaa", "/dev/sdaa3", "/dev/sdaa4"},
		{"nvme0n1", "/dev/nvme0n1p3", "/dev/nvme0n1p4"},
		{"mmcblk0", "/dev/mmcblk0p3", "/dev/mmcblk0p4"},
	} {
		w := disktest.New(t)
		w.Attach(tt.disk, disktest.Image(t, 0, one, two))
		for _, active := range []string{tt.rootA, tt.rootB} {
			hash, passive := hash1, tt.rootB
			if active == tt.rootB {
				hash, passive = hash2, tt.rootA
			}
			l, err := w.Scanner().Find(hash, offset)
			if err != nil {
				t.Errorf("%s: %v", tt.disk, err)
				continue
			}
			if l.Active.Path != active || l.Passive.Path != passive || l.RootA.Path != tt.rootA || l.RootB.Path != tt.rootB {
				t.Errorf("active %s, passive %s, a %s, b %s; want active %s", l.Active.Path, l.Passive.Path, l.RootA.Path, l.RootB.Path, active)
			}
			if l.State != nil || len(l.Others) != 0 || l.Disk.Path != "/dev/"+tt.disk {
				t.Errorf("state %v, others %v, disk %s", l.State, l.Others, l.Disk.Path)
			}
			want := disk.Partition{Path: l.RootA.Path, Number: 3, Name: "root-a", Type: gpt.TypeRootAMD64,
				GUID: l.RootA.GUID, Start: 6 * mib, Size: disktest.SlotSize}
			if *l.RootA != want || l.ESP.Number != 1 || l.ESP.Start != mib {
				t.Errorf("root-a %+v, want %+v; esp %+v", *l.RootA, want, *l.ESP)
			}
		}
	}
}

// The same image on a disk with sectors of 4096 bytes: its other table counts.
func TestFindLargeSectors(t *testing.T) {
	one, hash, offset := disktest.RootImage(t, 200, 1)
	image := disktest.Image(t, 0, one, nil)
	w := disktest.New(t)
	w.AttachSectors("nvme0n1", image, 4096)
	l, err := w.Scanner().Find(hash, offset)
	if err != nil {
		t.Fatal(err)
	}
	if l.Disk.SectorSize != 4096 || l.Disk.Table.SectorSize != 4096 || l.Active.Path != "/dev/nvme0n1p3" ||
		l.Active.Start != 6*mib || l.Active.Size != disktest.SlotSize || l.Active.GUID == "" {
		t.Errorf("sectors of %d, active %+v", l.Disk.SectorSize, *l.Active)
	}
	// A table that was written for small sectors only is none on this disk.
	edit(t, image, func(*gpt.Table) {})
	if l, err := w.Scanner().Find(hash, offset); err == nil || !strings.Contains(err.Error(), "neither copy is usable") {
		t.Errorf("found %+v, %v", l, err)
	}
}

func TestFindState(t *testing.T) {
	one, hash, offset := disktest.RootImage(t, 200, 1)
	image := disktest.Image(t, 32*mib, one, nil)
	edit(t, image, func(table *gpt.Table) {
		if err := table.GrowTo(32 * mib); err != nil {
			t.Fatal(err)
		}
		if _, err := table.Fill(gpt.Partition{Name: "state", TypeGUID: gpt.TypeLinux, GUID: gpt.NewGUID([16]byte{9})}); err != nil {
			t.Fatal(err)
		}
	})
	w := disktest.New(t)
	w.Attach("vda", image)
	l, err := w.Scanner().Find(hash, offset)
	if err != nil {
		t.Fatal(err)
	}
	if l.State == nil || l.State.Path != "/dev/vda5" || l.State.Start != 10*mib || l.State.Size != 21*mib {
		t.Errorf("state %+v", l.State)
	}
}

// The order of preference when several slots match.
func TestFindSeveral(t *testing.T) {
	one, hash, offset := disktest.RootImage(t, 200, 1)
	image := disktest.Image(t, 0, one, one)
	w := disktest.New(t)
	w.Attach("sdaa", image)
	w.Attach("sdb", image)
	w.Attach("vda", disktest.Image(t, 0, nil, nil))
	find := func() (string, []string) {
		l, err := w.Scanner().Find(hash, offset)
		if err != nil {
			t.Fatal(err)
		}
		return l.Active.Path, l.Others
	}
	if got, others := find(); got != "/dev/sdb3" || !slices.Equal(others, []string{"/dev/sdb4", "/dev/sdaa3", "/dev/sdaa4"}) {
		t.Errorf("active %s, others %v; want root-a of the first disk", got, others)
	}
	// A running machine is told its own slot, also when it has just written the same image into the other one.
	w.Hold("sdaa/sdaa4")
	if got, _ := find(); got != "/dev/sdaa4" {
		t.Errorf("active %s, want the one in use", got)
	}
}

func TestFindNothing(t *testing.T) {
	one, hash, offset := disktest.RootImage(t, 200, 1)
	_, other, _ := disktest.RootImage(t, 200, 2)
	slot := func(change func(b []byte)) []byte {
		b := slices.Clone(one)
		change(b)
		return b
	}
	noTable := disktest.Image(t, 0, one, nil)
	if err := os.WriteFile(noTable, make([]byte, 12*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	noESP := disktest.Image(t, 0, one, nil)
	edit(t, noESP, func(table *gpt.Table) { table.Partitions[0].Name = "efi" })
	twoA := disktest.Image(t, 0, one, nil)
	edit(t, twoA, func(table *gpt.Table) { table.Partitions[3].Name = "root-a" })

	for name, tt := range map[string]struct {
		image string
		want  string
	}{
		"another root image":  {disktest.Image(t, 0, nil, nil), "no signature"},
		"no table":            {noTable, "neither copy is usable"},
		"no esp":              {noESP, `partition "esp": expected one, found 0`},
		"two root-a":          {twoA, `partition "root-a": expected one, found 2`},
		"changed salt":        {disktest.Image(t, 0, slot(func(b []byte) { b[offset+88]++ }), nil), "holds another root image"},
		"changed top block":   {disktest.Image(t, 0, slot(func(b []byte) { b[offset+verity.BlockSize]++ }), nil), "holds another root image"},
		"changed data blocks": {disktest.Image(t, 0, slot(func(b []byte) { b[offset+72]++ }), nil), "expected 200 data blocks, found 201"},
	} {
		w := disktest.New(t)
		w.Attach("vda", tt.image)
		l, err := w.Scanner().Find(hash, offset)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "vda: ") {
			t.Errorf("%s: got %+v, %v; want an error with %q", name, l, err, tt.want)
		}
	}
	w := disktest.New(t)
	if _, err := w.Scanner().Find(hash, offset); err == nil || !strings.Contains(err.Error(), "no disk at all") {
		t.Errorf("no disk: %v", err)
	}
	w.Attach("vda", disktest.Image(t, 0, one, nil))
	for _, off := range []int64{offset + verity.BlockSize, disktest.SlotSize, 1 << 40} {
		if _, err := w.Scanner().Find(hash, off); err == nil {
			t.Errorf("hash offset %d: found", off)
		}
	}
	if _, err := w.Scanner().Find(other, offset); err == nil {
		t.Error("found another root hash")
	}
}

// A drive without a medium, one that cannot be read, a loop device, a CD: none stops the search.
func TestFindAmongOthers(t *testing.T) {
	one, hash, offset := disktest.RootImage(t, 200, 1)
	image := disktest.Image(t, 0, one, nil)
	w := disktest.New(t)
	w.Attach("sda", image)
	w.Set("devices/sda/size", 0)
	w.Attach("sdb", image)
	w.Attach("sr0", image)
	for _, name := range []string{"class/block/loop0/size", "class/block/sdc/device/x", "class/block/sdd/device/x"} {
		w.Set(name, 100)
	}
	w.Set("class/block/sdd/size", 20480)
	w.Set("class/block/sdd/queue/logical_block_size", 512)
	l, err := w.Scanner().Find(hash, offset)
	if err != nil {
		t.Fatal(err)
	}
	if l.Active.Path != "/dev/sdb3" || len(l.Others) != 0 {
		t.Errorf("active %s, others %v", l.Active.Path, l.Others)
	}
}

// A stick with the same image is left alone, also while the machine's own disk must be mended; but not if the machine runs from it.
func TestFindBesideUSB(t *testing.T) {
	one, hash, offset := disktest.RootImage(t, 200, 1)
	w := disktest.New(t)
	find := func(when, want string) *disk.Layout {
		t.Helper()
		l, err := w.Scanner().Find(hash, offset)
		var stale *disk.StaleError
		if errors.As(err, &stale) {
			l, err = stale.Layout, nil
		}
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if l.Disk.Name != want {
			t.Errorf("%s: found %s, want %s", when, l.Disk.Name, want)
		}
		return l
	}
	w.AttachUSB("sda", disktest.Image(t, 0, one, nil))
	if !find("stick alone", "sda").Disk.USB {
		t.Error("a disk on USB is taken for another one")
	}
	w.Attach("usbdisk0", disktest.Image(t, 0, one, nil)) // what counts is the bus
	if l := find("disk beside stick", "usbdisk0"); l.Disk.USB || !slices.Equal(l.Others, []string{"/dev/sda3"}) {
		t.Errorf("USB %t, others %v", l.Disk.USB, l.Others)
	}
	w.Set("devices/usbdisk0/usbdisk0p4/start", 1)
	find("stale disk beside stick", "usbdisk0")
	w.Hold("pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host0/target0:0:0/0:0:0:0/block/sda/sda3")
	find("running from the stick", "sda")
}

func TestFindStale(t *testing.T) {
	one, hash, offset := disktest.RootImage(t, 200, 1)
	var stale *disk.StaleError

	// The kernel sees the partition elsewhere: writing to its device node would hit other bytes.
	w := disktest.New(t)
	w.Attach("vda", disktest.Image(t, 0, one, nil))
	w.Set("devices/vda/vda4/start", 1)
	if _, err := w.Scanner().Find(hash, offset); !errors.As(err, &stale) || !strings.Contains(err.Error(), "partition 4") {
		t.Errorf("moved partition: %v", err)
	}

	// A damaged primary: the kernel sees nothing, we see the backup.
	image := disktest.Image(t, 0, one, nil)
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	b[600] ^= 1
	if err := os.WriteFile(image, b, 0o600); err != nil {
		t.Fatal(err)
	}
	w = disktest.New(t)
	w.Attach("vda", image)
	_, err = w.Scanner().Find(hash, offset)
	if !errors.As(err, &stale) || stale.Layout.Disk.Table.PrimaryError == nil {
		t.Fatalf("damaged primary: %v", err)
	}
	if l := stale.Layout; l.Disk.Path != "/dev/vda" || l.Active.Path != "" || l.Active.Number != 3 {
		t.Errorf("layout %+v", l)
	}

	// A whole disk is preferred to one whose table must be mended first.
	w.Attach("vdb", disktest.Image(t, 0, one, nil))
	l, err := w.Scanner().Find(hash, offset)
	if err != nil || l.Active.Path != "/dev/vdb3" || !slices.Equal(l.Others, []string{"/dev/vda root-a"}) {
		t.Errorf("layout %+v, %v", l, err)
	}
}

// edit rewrites the table of an image file.
func edit(t *testing.T, image string, change func(*gpt.Table)) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table, err := gpt.Read(f, fi.Size(), 512)
	if err != nil {
		t.Fatal(err)
	}
	change(table)
	if err := table.Write(f); err != nil {
		t.Fatal(err)
	}
}
