package kerneltest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/gpt"
)

// One machine from its first boot on, and what can go wrong.
func TestBoot(t *testing.T) {
	w := newWorld(t)
	life := w.disk(t, diskSize, nil)

	t.Run("first", func(t *testing.T) {
		console := w.boot(t, run{disk: life})
		expect(t, console,
			"proa: init: mounting proc", "proa: init: loading modules", "proa: init: looking for the slot with root hash "+w.root.String(),
			"proa: init: activating dm-verity on root-a (/dev/vda3)", "proa: init: mounting the root image",
			"proa: init: making the state partition on /dev/vda", "proa: init: mounting state (/dev/vda5)",
			"proa: init: laying state over /etc", "proa: init: starting /usr/lib/systemd/systemd",
			"guest: mount / erofs /dev/dm-0 ro", "guest: boot 1 by /var/lib/boots", "guest: boot 1 by /etc/boots")
		for _, want := range []string{"guest: mount /var ext4 /dev/vda5 rw,nosuid,nodev", "guest: mount /etc overlay", "guest: mount /run tmpfs"} {
			expect(t, console, want)
		}
		w.judge(t, life, diskSize, 512)
	})
	t.Run("second", func(t *testing.T) {
		console := w.boot(t, run{disk: life})
		expect(t, console, "mounting state", "guest: boot 2 by /var/lib/boots", "guest: boot 2 by /etc/boots")
		if strings.Contains(console, "making the state partition") {
			t.Errorf("state was made again:\n%s", console)
		}
	})
	t.Run("damaged table", func(t *testing.T) {
		edit(t, life, func(f *os.File) { flip(t, f, 512+40) })
		expect(t, w.boot(t, run{disk: life}), "partition table of /dev/vda is damaged", "guest: boot 3 by /var/lib/boots")
		w.judge(t, life, diskSize, 512)
	})
	t.Run("damaged state", func(t *testing.T) {
		state, err := readTable(t, life, 512).Find("state")
		check(t, err)
		edit(t, life, func(f *os.File) { flip(t, f, int64(state.FirstLBA)*512+1024+200) }) // the superblock, but not its magic
		expect(t, w.boot(t, run{disk: life}), "repairing with e2fsck", "repairing with the backup superblock", "guest: boot 4 by /var/lib/boots")
	})
	t.Run("appended root hash", func(t *testing.T) {
		start := time.Now()
		console := w.boot(t, run{disk: life, options: "quiet proa.roothash=" + strings.Repeat("0", 64)})
		expect(t, console, "proa: init: FAILED while reading the kernel command line: proa.roothash: more than once", "rebooting in 10 seconds")
		if time.Since(start) < 10*time.Second {
			t.Error("no time to read the message")
		}
	})
	t.Run("corruption", func(t *testing.T) {
		disk := w.disk(t, diskSize, func(f *os.File) { flip(t, f, w.offset("root-a")+w.blob+100000) })
		console := w.boot(t, run{disk: disk})
		expect(t, console, "guest: mount /", "is corrupted", "Kernel panic - not syncing: dm-verity device corrupted")
		if strings.Contains(console, "guest: read") {
			t.Errorf("a corrupt file was read:\n%s", console)
		}
	})
	// The power goes while mke2fs writes: the next boot begins anew.
	t.Run("power cut", func(t *testing.T) {
		disk := w.disk(t, diskSize, nil)
		w.boot(t, run{disk: disk, drive: ",throttling.iops-write=10", until: func(console string) bool {
			return strings.Contains(console, "making the state partition") && written(t, disk, shipped+64*mib)
		}})
		if _, err := readTable(t, disk, 512).Find("state"); err == nil {
			t.Fatal("the power was cut too late: the partition is in the table")
		}
		expect(t, w.boot(t, run{disk: disk}), "making the state partition", "guest: boot 1 by /var/lib/boots")
		w.judge(t, disk, diskSize, 512)
	})
}

// The disk and what the machine makes of it: larger, wiped, with other sectors.
func TestState(t *testing.T) {
	w := newWorld(t)
	disk := w.disk(t, diskSize, nil)
	const large, wiped = diskSize + 200*mib, diskSize + 300*mib
	t.Run("sectors of 4096 bytes", func(t *testing.T) {
		console := w.boot(t, run{disk: disk, sector: 4096})
		expect(t, console, "making the state partition on /dev/vda", "guest: boot 1 by /var/lib/boots")
		w.judge(t, disk, diskSize, 4096)
	})
	t.Run("larger disk", func(t *testing.T) {
		check(t, os.Truncate(disk, large))
		console := w.boot(t, run{disk: disk, sector: 4096})
		expect(t, console, "growing the state partition on /dev/vda from 256 to 456 MiB", "mounting state",
			"growing the file system of state from 256 to 456 MiB", "guest: boot 2 by /var/lib/boots")
		if got := varSize(t, console); got < 400 {
			t.Errorf("/var has %d MiB of 456", got)
		}
		w.judge(t, disk, large, 4096)
	})
	// As after a power cut between the table and the file system.
	t.Run("smaller file system", func(t *testing.T) {
		check(t, os.Truncate(disk, wiped))
		edit(t, disk, func(f *os.File) {
			table := readTable(t, disk, 4096)
			check(t, table.GrowTo(wiped))
			_, err := table.Extend("state")
			check(t, err)
			check(t, table.Write(f))
		})
		console := w.boot(t, run{disk: disk, sector: 4096})
		expect(t, console, "mounting state", "growing the file system of state from 456 to 556 MiB", "guest: boot 3 by /var/lib/boots")
		if got := varSize(t, console); got < 490 {
			t.Errorf("/var has %d MiB of 556", got)
		}
		if strings.Contains(console, "growing the state partition") {
			t.Errorf("the partition grew:\n%s", console)
		}
		w.judge(t, disk, wiped, 4096)
	})
	t.Run("wiped", func(t *testing.T) {
		edit(t, disk, func(f *os.File) {
			table := readTable(t, disk, 4096)
			p, err := table.Find("state")
			check(t, err)
			zero := make([]byte, mib)
			for at := range table.Size(p) / mib {
				_, err := f.WriteAt(zero, table.Offset(p)+at*mib)
				check(t, err)
			}
		})
		console := w.boot(t, run{disk: disk, sector: 4096})
		expect(t, console, "forgetting the state partition on /dev/vda, which was wiped", "making the state partition on /dev/vda", "guest: boot 1 by /var/lib/boots")
		w.judge(t, disk, wiped, 4096)
	})
}

// varSize is the size of /var's file system without its own tables, in MiB, as the guest says.
func varSize(t *testing.T, console string) (size int) {
	t.Helper()
	_, rest, _ := strings.Cut(console, "guest: /var has ")
	_, err := fmt.Sscanf(rest, "%d MiB", &size)
	check(t, err)
	return size
}

// Slow failures: nothing to find in time, and nothing to make state of.
func TestRefusal(t *testing.T) {
	w := newWorld(t)
	expect(t, w.boot(t, run{disk: w.disk(t, diskSize, nil), root: strings.Repeat("12", 32)}),
		"still waiting", "FAILED while looking for the slot with root hash 1212", "root-a: holds another root image, root-b: ", "rebooting in 10 seconds")
	expect(t, w.boot(t, run{disk: w.disk(t, shipped, nil)}),
		"FAILED while making the state partition on /dev/vda: disk /dev/vda is too small: it has 71 MiB", "rebooting in 10 seconds")
}

// judge holds table and file system of a disk of size bytes against other programs.
func (w *world) judge(t *testing.T, file string, size int64, sectorSize int) {
	t.Helper()
	out, err := w.tools.Command(t.Context(), "sfdisk", fmt.Sprintf("--sector-size=%d", sectorSize), "--verify", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No errors detected") {
		t.Errorf("sfdisk --verify: %v\n%s", err, out)
	}
	table := readTable(t, file, sectorSize)
	p, err := table.Find("state")
	check(t, err)
	if table.PrimaryError != nil || table.BackupError != nil || p.Number != 5 || table.Offset(p) != shipped-mib || table.Size(p) != size-shipped {
		t.Errorf("state %+v of a table with %v, %v", p, table.PrimaryError, table.BackupError)
	}
	part := filepath.Join(t.TempDir(), "state.ext4")
	extract(t, file, table.Offset(p), table.Size(p), part)
	// The guest only syncs: the journal is replayed first, as a mount does.
	for _, args := range [][]string{{"-E", "journal_only", "-y", part}, {"-f", "-n", part}} {
		if out, err := w.tools.Command(t.Context(), "e2fsck", args...).CombinedOutput(); err != nil {
			t.Errorf("e2fsck %v: %v\n%s", args, err, out)
		}
	}
}

// extract copies a part of a file into another one, which stays sparse.
func extract(t *testing.T, file string, offset, size int64, into string) {
	t.Helper()
	from, err := os.Open(file)
	check(t, err)
	defer from.Close()
	to, err := os.Create(into)
	check(t, err)
	defer to.Close()
	check(t, to.Truncate(size))
	b, zero := make([]byte, mib), make([]byte, mib)
	for at := int64(0); at < size; at += mib {
		_, err := from.ReadAt(b, offset+at)
		check(t, err)
		if !bytes.Equal(b, zero) {
			_, err := to.WriteAt(b, at)
			check(t, err)
		}
	}
}

func readTable(t *testing.T, file string, sectorSize int) *gpt.Table {
	t.Helper()
	f, err := os.Open(file)
	check(t, err)
	defer f.Close()
	fi, err := f.Stat()
	check(t, err)
	table, err := gpt.Read(f, fi.Size(), sectorSize)
	check(t, err)
	return table
}

func edit(t *testing.T, file string, change func(f *os.File)) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	check(t, err)
	change(f)
	check(t, f.Close())
}

// flip changes one bit.
func flip(t *testing.T, f *os.File, offset int64) {
	t.Helper()
	b := make([]byte, 1)
	_, err := f.ReadAt(b, offset)
	check(t, err)
	b[0] ^= 4
	_, err = f.WriteAt(b, offset)
	check(t, err)
}

// written reports whether anything has been written between the shipped image's end, behind which the file is a hole, and
// limit. It is quick: the answer must come before the next write.
func written(t *testing.T, file string, limit int64) bool {
	t.Helper()
	f, err := os.Open(file)
	check(t, err)
	defer f.Close()
	at, err := unix.Seek(int(f.Fd()), shipped, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return false
	}
	check(t, err)
	return at < limit
}
