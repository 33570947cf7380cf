package qemutests

import (
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

// TestBitFlipsWhileRunning changes one bit of a file under a machine that runs from it. The file is never read as something
// else: the machine panics and starts again by itself. At full depth it comes back, and reads the file again once the bit is mended.
func TestBitFlipsWhileRunning(t *testing.T) {
	s := begin(t, 3)
	m := s.goOn("flips")

	// A module that no machine here loads, and a text in it that is nowhere else.
	const file, text = "/usr/lib/modules/*/kernel/fs/btrfs/btrfs.ko", "turning on flush-on-commit"
	read := "echo 3 >/proc/sys/vm/drop_caches && sha256sum " + file
	good := run(t, m, read)
	run(t, m, "echo 3 >/proc/sys/vm/drop_caches")
	flip := func(t *testing.T, from string) {
		t.Helper()
		d, err := world.OpenDisk(m.Disk())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := d.FlipBit("root-a", []byte(from)); err != nil {
			t.Fatal(err)
		}
	}
	flip(t, text) // The machine runs meanwhile.

	n := m.Boots()
	if out, err := m.Run(t.Context(), "root", read); err == nil || out != "" {
		t.Errorf("got %q, %v, want nothing read", out, err)
	}
	for _, want := range []string{`device-mapper: verity: .*data block \d+ is corrupted`, `Kernel panic - not syncing: dm-verity device corrupted`} {
		if _, err := m.WaitConsole(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.WaitBoot(t.Context(), n+1); err != nil {
		t.Fatal(err)
	}
	allow := append(vm.AllowPanic("a block of the root image is corrupt"),
		vm.Allow(`device-mapper: verity: .*is corrupted|dm-verity device corrupted`, "a block of the root image is corrupt"))
	if fullDepth() {
		flip(t, string(text[0]^1)+text[1:])
		boots(t, m, "1.0.0")
		if again := run(t, m, read); again != good || !strings.Contains(again, "btrfs.ko") {
			t.Errorf("got %q from the mended file, want %q", again, good)
		}
		m.AssertClean(t, allow...)
	} else {
		must(m.WaitConsole(t.Context(), inLoader(vm.UEFI)))(t)
		m.AssertCleanConsole(t, allow...)
	}
	if got := m.Boots(); got != n+1 {
		t.Errorf("got %d boots, want one for the panic", got-n)
	}

	// A good release stays good: corruption uses up no try.
	if err := m.PowerCut(); err != nil {
		t.Fatal(err)
	}
	d, err := world.OpenDisk(m.Disk())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	names, err := d.BootPrograms()
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, ".efi") })
	if want := []string{"proa_1.0.0.efi"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("got boot programs %q, %v, want %q", names, err, want)
	}
}
