package powercut

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/image-builder/fat"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/vm/blklog"
	"github.com/proa-os/proa/qemu-tests/world"
	"github.com/proa-os/proa/update-engine/repotest"
)

// toy is a disk with release 1.0.0, and the log of an update to 1.0.1 in the making.
type toy struct {
	t        *testing.T
	disk     string // before the log
	now      string // after it
	old, new *repotest.Build
	table    *gpt.Table
	log      bytes.Buffer
	entries  uint64
}

const toySize = 64 << 20

func newToy(t *testing.T) *toy {
	t.Helper()
	dir := t.TempDir()
	y := &toy{t: t, disk: filepath.Join(dir, "disk"), now: filepath.Join(dir, "now"),
		old: repotest.FromRoot(t, "1.0.0", bytes.Repeat([]byte("old root image. "), 40<<10)),
		new: repotest.FromRoot(t, "1.0.1", bytes.Repeat([]byte("the next one... "), 40<<10)),
	}
	f := y.create(y.disk)
	defer f.Close()
	y.table = &gpt.Table{DiskGUID: gpt.NewGUID([16]byte{1}), SectorSize: sectorSize, Sectors: toySize / sectorSize}
	for i, p := range []struct {
		name string
		kind gpt.GUID
		size int64
	}{{"esp", gpt.TypeESP, 40 << 20}, {"bios", gpt.TypeBIOSBoot, 1 << 20}, {"root-a", gpt.TypeESP, 1 << 20}, {"root-b", gpt.TypeESP, 1 << 20}} {
		if _, err := y.table.Add(gpt.Partition{TypeGUID: p.kind, GUID: gpt.NewGUID([16]byte{2, byte(i)}), Name: p.name}, p.size); err != nil {
			t.Fatal(err)
		}
	}
	err := y.table.Write(f)
	if err == nil {
		_, err = f.WriteAt(y.old.Root, y.offset("root-a"))
	}
	if err == nil {
		err = y.esp(io.NewOffsetWriter(f, y.offset("esp")), y.before())
	}
	if err == nil {
		err = vm.CopySparse(y.now, y.disk, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return y
}

func (y *toy) create(name string) *os.File {
	y.t.Helper()
	f, err := os.Create(name)
	if err == nil {
		err = f.Truncate(toySize)
	}
	if err != nil {
		y.t.Fatal(err)
	}
	return f
}

func (y *toy) offset(partition string) int64 {
	y.t.Helper()
	p, err := y.table.Find(partition)
	if err != nil {
		y.t.Fatal(err)
	}
	return y.table.Offset(p)
}

// esp writes a file system with loaders, GRUB's block and boot programs.
func (y *toy) esp(w io.WriterAt, programs map[string][]byte) error {
	files := []fat.File{
		fat.BytesFile("EFI/BOOT/BOOTX64.EFI", []byte("loader")),
		fat.BytesFile("EFI/Linux/"+grubenv.File, grubenv.Empty()),
	}
	for name, b := range programs {
		files = append(files, fat.BytesFile("EFI/Linux/"+name, b))
	}
	return fat.Write(w, fat.Options{Size: 40 << 20, Label: "ESP", Time: time.Unix(1767225600, 0)}, files)
}

// write logs a write.
func (y *toy) write(offset int64, b []byte) {
	y.t.Helper()
	f, err := os.OpenFile(y.now, os.O_RDWR, 0)
	if err != nil {
		y.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, offset); err != nil {
		y.t.Fatal(err)
	}
	y.entry(uint64(offset)/sectorSize, uint64(len(b))/sectorSize, 0)
	y.log.Write(b)
}

func (y *toy) flush() { y.entry(0, 0, uint64(blklog.Flush)) }

func (y *toy) entry(sector, sectors, flags uint64) {
	h := make([]byte, sectorSize)
	for i, v := range []uint64{sector, sectors, flags} {
		binary.LittleEndian.PutUint64(h[8*i:], v)
	}
	y.log.Write(h)
	y.entries++
}

// programs logs what makes the ESP one with these boot programs.
func (y *toy) programs(programs map[string][]byte) {
	y.t.Helper()
	want := y.create(filepath.Join(y.t.TempDir(), "esp"))
	defer want.Close()
	err := y.esp(want, programs)
	a, b := make([]byte, 40<<20), make([]byte, 40<<20)
	if err == nil {
		_, err = want.ReadAt(b, 0)
	}
	now, openErr := os.Open(y.now)
	if err != nil || openErr != nil {
		y.t.Fatal(err, openErr)
	}
	defer now.Close()
	if _, err := now.ReadAt(a, y.offset("esp")); err != nil {
		y.t.Fatal(err)
	}
	const most = 8 * sectorSize // in one write
	for at := 0; at < len(a); at += most {
		if !bytes.Equal(a[at:at+most], b[at:at+most]) {
			y.write(y.offset("esp")+int64(at), b[at:at+most])
		}
	}
}

// open is the disk before the log, and the log.
func (y *toy) open() (*Disk, *blklog.Log) {
	y.t.Helper()
	log := append(blklog.Header(sectorSize), y.log.Bytes()...)
	binary.LittleEndian.PutUint64(log[16:], y.entries)
	l, err := blklog.Open(bytes.NewReader(log), int64(len(log)))
	if err != nil {
		y.t.Fatal(err)
	}
	d, err := Open(y.disk, world.Image{Dir: y.old.Dir, Release: y.old.Release}, world.Image{Dir: y.new.Dir, Release: y.new.Release})
	if err != nil {
		y.t.Fatal(err)
	}
	y.t.Cleanup(func() { d.Close() })
	return d, l
}

// before and after are what is on the ESP around the commit point, written in between under a name that no loader sees.
func (y *toy) before() map[string][]byte {
	return map[string][]byte{"proa_1.0.0.efi": y.old.Boot, "proa_1.0.1.part": make([]byte, len(y.new.Boot))}
}

func (y *toy) written() map[string][]byte {
	return map[string][]byte{"proa_1.0.0.efi": y.old.Boot, "proa_1.0.1.part": y.new.Boot}
}

func (y *toy) after() map[string][]byte {
	return map[string][]byte{"proa_1.0.0.efi": y.old.Boot, "proa_1.0.1+3.efi": y.new.Boot}
}

// update logs an honest update.
func (y *toy) update() {
	y.write(y.offset("root-b"), y.new.Root)
	y.flush()
	y.programs(y.written())
	y.flush()
	y.programs(y.after())
	y.flush()
}

func TestHonestUpdate(t *testing.T) {
	for seed := range uint64(4) {
		y := newToy(t)
		y.update()
		d, log := y.open()
		var last Picks
		tally, err := Walk(log, d, Options{Seed: seed, Torn: 3, At: func(m Moment) error { last = m.Picks; return nil }})
		if err != nil {
			t.Error(err)
		}
		if tally.Failed != 0 || tally.Flushes != 3 || tally.Writes != int(y.entries)-3 || tally.Torn == 0 || tally.Versions["1.0.0"] == 0 || tally.Tries == 0 {
			t.Errorf("got %+v", tally)
		}
		for _, firmware := range []vm.Firmware{vm.UEFI, vm.BIOS} {
			want := Pick{File: "proa_1.0.1+3.efi", Version: "1.0.1", Slot: "root-b", Try: true}
			if last[firmware] != want {
				t.Errorf("%s: got %+v at the end, want %+v", firmware, last[firmware], want)
			}
			if err := d.Verify(last[firmware]); err != nil {
				t.Error(err)
			}
		}
		got, err := os.ReadFile(y.disk)
		if err != nil {
			t.Fatal(err)
		}
		if want, _ := os.ReadFile(y.now); !bytes.Equal(got, want) {
			t.Errorf("order %d: all writes replayed make another disk", seed)
		}
	}
}

// Each of these disks, or of these updates, leaves a machine behind that would not come up.
func TestDishonestUpdates(t *testing.T) {
	for name, c := range map[string]struct {
		update func(*toy)
		seed   uint64
		want   string
	}{
		"boot program first": {func(y *toy) {
			y.programs(y.written())
			y.flush()
			y.programs(y.after())
			y.write(y.offset("root-b"), y.new.Root)
			y.flush()
		}, 0, "no slot holds its root image"},
		"tree without data": {func(y *toy) {
			at := y.new.Release.Root.HashOffset
			y.write(y.offset("root-b")+at, y.new.Root[at:])
			y.programs(y.written())
			y.programs(y.after())
		}, 0, "root-b is taken for its slot, and 160 of its"},
		"no flush before the name": {func(y *toy) {
			y.write(y.offset("root-b"), y.new.Root)
			y.flush()
			y.programs(y.written())
			y.programs(y.after())
			y.flush()
		}, 1, "the boot program of no release"},
		"the running slot": {func(y *toy) { y.write(y.offset("root-a")+8192, make([]byte, 4096)) }, 0, "root-a is taken for its slot, and 1 of its"},
		"nothing to boot":  {func(y *toy) { y.programs(nil) }, 0, "nothing to boot"},
		"damaged":          {func(y *toy) { y.programs(map[string][]byte{"proa_1.0.0.efi": y.old.Boot[1:]}) }, 0, "the boot program of no release"},
		"misnamed":         {func(y *toy) { y.programs(map[string][]byte{"proa_1.0.2.efi": y.old.Boot}) }, 0, "is the boot program of release 1.0.0"},
		"both tables": {func(y *toy) {
			y.write(512, make([]byte, 512))
			y.write(toySize-512, make([]byte, 512))
		}, 0, "neither copy is usable"},
		"boot code":           {func(y *toy) { y.write(0, append([]byte{0xeb}, make([]byte, 511)...)) }, 0, "boot code"},
		"BIOS boot partition": {func(y *toy) { y.write(y.offset("bios"), bytes.Repeat([]byte{1}, 512)) }, 0, "boot code"},
		"loader":              {func(y *toy) { y.write(y.find("loader"), make([]byte, 512)) }, 0, "ESP: EFI/BOOT/BOOTX64.EFI"},
	} {
		t.Run(name, func(t *testing.T) {
			y := newToy(t)
			c.update(y)
			d, log := y.open()
			tally, err := Walk(log, d, Options{Seed: c.seed, Torn: 3})
			if err == nil || tally.Failed == 0 || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %+v, %v, want %q", tally, err, c.want)
			}
		})
	}
}

// find is the sector that begins with a text.
func (y *toy) find(text string) int64 {
	b, err := os.ReadFile(y.disk)
	if err != nil {
		y.t.Fatal(err)
	}
	for at := 0; at < len(b); at += sectorSize {
		if bytes.HasPrefix(b[at:], []byte(text)) {
			return int64(at)
		}
	}
	y.t.Fatalf("no sector begins with %q", text)
	return 0
}

// One damaged copy of the table is mended by /init; an empty slot is no slot; GRUB without its block tries nothing.
func TestHarmless(t *testing.T) {
	y := newToy(t)
	y.write(512, make([]byte, 512))
	y.flush()
	y.write(y.offset("root-b"), make([]byte, 1<<20))
	y.flush()
	y.update()
	y.write(y.find("# GRUB Environment"), make([]byte, 1024))
	y.flush()
	d, log := y.open()
	var last Picks
	tally, err := Walk(log, d, Options{At: func(m Moment) error { last = m.Picks; return nil }})
	if err != nil || last[vm.UEFI].Version != "1.0.1" || last[vm.BIOS].Version != "1.0.0" {
		t.Errorf("got %+v, %+v, %v", tally, last, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	y := newToy(t)
	root := filepath.Join(y.new.Dir, "root.img")
	b, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	b[5000] ^= 1
	if err := os.WriteFile(root, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(y.disk, world.Image{Dir: y.new.Dir, Release: y.new.Release}); err == nil || !strings.Contains(err.Error(), "root.img has root hash") {
		t.Errorf("got %v for a root.img that is not the release's", err)
	}
	if _, err := Open(y.disk); err == nil || !strings.Contains(err.Error(), "the boot program of no release") {
		t.Errorf("got %v for a disk of an unknown release", err)
	}
}

// Writes to the same bytes stay in their order, whatever comes between them.
func TestShuffle(t *testing.T) {
	var entries []blklog.Entry
	for i := range 60 {
		entries = append(entries, blklog.Entry{Offset: int64(i%7)*8192 + int64(i%2)*1024, Length: int64(1+i%3) * 2048})
	}
	order := make([]int, len(entries))
	for i := range order {
		order[i] = i
	}
	moved := false
	for seed := range uint64(20) {
		w := newWalk(nil, nil, Options{Seed: seed})
		drawn := shuffle(entries, order, w.rand)
		at := map[int]int{}
		for k, i := range drawn {
			at[i] = k
			moved = moved || k != i
		}
		if len(at) != len(entries) {
			t.Fatalf("got %v, want each once", drawn)
		}
		for i, a := range entries {
			for j, b := range entries[:i] {
				if a.Offset < b.Offset+b.Length && b.Offset < a.Offset+a.Length && at[j] > at[i] {
					t.Errorf("order %d: %d is before %d, and both write %+v and %+v", seed, i, j, a, b)
				}
			}
		}
	}
	if !moved {
		t.Error("nothing changes its place")
	}
}

// The empty new name beside the old one, as Linux leaves it in the middle of a rename, is seen by no loader.
func TestMiddleOfARename(t *testing.T) {
	y := newToy(t)
	f, err := os.OpenFile(y.disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = f.WriteAt(y.new.Root, y.offset("root-b"))
	if err == nil {
		err = y.esp(io.NewOffsetWriter(f, y.offset("esp")), map[string][]byte{"proa_1.0.0.efi": y.old.Boot, "proa_1.0.1+2-1.efi": y.new.Boot, "proa_1.0.1.efi": nil})
	}
	if err != nil {
		t.Fatal(err)
	}
	d, _ := y.open()
	picks, err := d.Judge()
	if err != nil || picks[vm.UEFI].File != "proa_1.0.1+2-1.efi" || picks[vm.BIOS].File != "proa_1.0.1+2-1.efi" {
		t.Errorf("got %+v, %v, want the old name", picks, err)
	}
}
