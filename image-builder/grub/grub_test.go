package grub

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/uki"
)

const mib = 1 << 20

// newDisk makes a disk with these partitions, and something in sector 0.
func newDisk(t *testing.T, names ...string) (*os.File, *gpt.Table) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(16 * mib); err != nil {
		t.Fatal(err)
	}
	table := &gpt.Table{DiskGUID: gpt.NewGUID([16]byte{1}), SectorSize: 4096, Sectors: 16 * mib / 4096}
	for i, name := range names {
		if _, err := table.Add(gpt.Partition{Name: name, TypeGUID: gpt.TypeLinux, GUID: gpt.NewGUID([16]byte{2, byte(i)})}, mib); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.WriteBoth(f); err != nil {
		t.Fatal(err)
	}
	return f, table
}

// That the result boots is seen in qemu-tests.
func TestInstall(t *testing.T) {
	tools := testenv.Tools(t)
	var disks [2][]byte
	for i := range disks {
		f, table := newDisk(t, "other", "esp", "bios", "root-a")
		before, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := Install(t.Context(), tools, f, table); err != nil {
			t.Fatal(err)
		}
		if disks[i], err = os.ReadFile(f.Name()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(before[440:mib], disks[i][440:mib]) {
			t.Error("something behind the boot code has changed, up to the first partition")
		}
		if !bytes.Equal(before[mib:3*mib], disks[i][mib:3*mib]) || !bytes.Equal(before[4*mib:], disks[i][4*mib:]) {
			t.Error("another partition than bios has changed")
		}
	}
	if !bytes.Equal(disks[0], disks[1]) {
		t.Error("two installations differ")
	}
	const lba = 3 * mib / sector
	d := disks[0]
	if got := binary.LittleEndian.Uint64(d[0x5c:]); got != lba {
		t.Errorf("the boot code goes on in sector %d, want %d", got, lba)
	}
	core := d[3*mib:][:mib]
	if got := binary.LittleEndian.Uint64(core[500:]); got != lba+1 {
		t.Errorf("the core image goes on in sector %d, want %d", got, lba+1)
	}
	if n := int(binary.LittleEndian.Uint16(core[508:])); len(bytes.TrimRight(core, "\x00")) > (n+1)*sector || n < 100 {
		t.Errorf("the core image has %d sectors behind the first, and %d bytes in all", n, len(bytes.TrimRight(core, "\x00")))
	}
}

func TestInstallRefuses(t *testing.T) {
	tools := testenv.Tools(t)
	f, table := newDisk(t, "esp", "root-a")
	if err := Install(t.Context(), tools, f, table); err == nil || !strings.Contains(err.Error(), `"bios"`) {
		t.Errorf("no partition for it: got %v", err)
	}
	f, table = newDisk(t, "esp", "bios")
	table.Partitions[1].LastLBA = table.Partitions[1].FirstLBA + 9
	if err := Install(t.Context(), tools, f, table); err == nil || !strings.Contains(err.Error(), "partition bios only 40960") {
		t.Errorf("a small partition: got %v", err)
	}
	if _, err := bootCode(make([]byte, 512), 1); err == nil {
		t.Error("a boot sector without signature was taken")
	}
	if err := chain(make([]byte, 512), 1); err == nil {
		t.Error("a core image of one sector was taken")
	}
	if err := chain(make([]byte, 4096), 1); err == nil || !strings.Contains(err.Error(), "0 sectors, expected 7") {
		t.Errorf("a core image with another block list: got %v", err)
	}
}

// The configuration must look where the boot programs have their script, and where everybody has the counts.
func TestConfig(t *testing.T) {
	for _, want := range []string{
		fmt.Sprintf("\n  source (uki)%d+%d\n", uki.GRUBOffset/512, uki.GRUBSize/512),
		"save_env --file /EFI/Linux/" + grubenv.File + " tries",
		"load_env --file /EFI/Linux/" + grubenv.File + " tries",
		"load_env --file /" + grubenv.PlatformFile + " platform\n",
		"load_env --file /" + grubenv.ArgumentsFile + " ignition\n",
	} {
		if !strings.Contains(Config, want) {
			t.Errorf("the configuration lacks %q", want)
		}
	}
	cmd := testenv.Tools(t).Command(t.Context(), "grub-script-check")
	cmd.Stdin = strings.NewReader(Config)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("grub-script-check: %v\n%s", err, out)
	}
}
