package loader

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/firstboot"
	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/internal/uki"
)

const signed = "proa.roothash=aa proa.hashoffset=4096 console=tty0 panic=10 quiet"

// box is a machine with an ESP in a directory and both loaders' ways to read it.
type box struct {
	Machine
	dir     string
	mounted int
}

func newBox(t *testing.T, bios bool) *box {
	t.Helper()
	b := &box{dir: t.TempDir()}
	b.Machine = Machine{Proc: b.dir + "/proc", Sys: b.dir + "/sys", Pending: b.dir + "/run/written", ESP: func() (string, func() error, error) {
		b.mounted++
		return b.dir + "/esp", func() error { b.mounted--; return nil }, nil
	}}
	b.put(t, "proc/cmdline", signed)
	b.put(t, "esp/grub/grub.cfg", "load_env --file /grub/ignition.env ignition\n")
	b.put(t, "sys/kernel", "")
	if !bios {
		b.secureBoot(t, 0)
	}
	return b
}

func (b *box) put(t *testing.T, name, text string) {
	t.Helper()
	name = filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (b *box) secureBoot(t *testing.T, on byte) {
	b.put(t, "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", string([]byte{6, 0, 0, 0, on}))
}

// boot starts the machine: the loader appends what is on the ESP.
func (b *box) boot(t *testing.T, bios bool) {
	t.Helper()
	words := ""
	if raw, err := os.ReadFile(filepath.Join(b.dir, "esp", AddonFile)); err == nil && !bios {
		if words, err = uki.ReadAddon(raw); err != nil {
			t.Fatal(err)
		}
	}
	if raw, err := os.ReadFile(filepath.Join(b.dir, "esp", grubenv.ArgumentsFile)); err == nil && bios {
		_, rest, _ := strings.Cut(string(raw), "ignition=")
		words, _, _ = strings.Cut(rest, "\n")
	}
	b.put(t, "proc/cmdline", strings.TrimSpace(signed+" "+words))
	if err := os.RemoveAll(b.Pending); err != nil {
		t.Fatal(err)
	}
}

func TestEnsure(t *testing.T) {
	for _, bios := range []bool{false, true} {
		t.Run(fmt.Sprint("bios ", bios), func(t *testing.T) {
			b := newBox(t, bios)
			b.put(t, "esp/"+firstboot.AddonFile, "the platform")
			b.put(t, "esp/"+grubenv.PlatformFile, "the platform")
			ensure := func(reboot bool, want ...string) {
				t.Helper()
				got, err := b.Ensure(t.Context(), want, nil)
				if err != nil || got != reboot || b.mounted != 0 {
					t.Fatalf("got %v, %v, want %v (%d mounts left)", got, err, reboot, b.mounted)
				}
			}
			ensure(false)
			ensure(true, "a=b", "console=ttyS1")
			ensure(true, "a=b", "console=ttyS1") // the same boot still lacks them
			b.boot(t, bios)
			ensure(false, "a=b", "console=ttyS1")
			line, err := os.ReadFile(b.dir + "/proc/cmdline")
			if want := signed + " ignition.kargs=2 a=b console=ttyS1"; err != nil || string(line) != want {
				t.Errorf("got %q, %v, want %q", line, err, want)
			}
			ensure(true, "c") // another config: a machine that is provisioned again
			b.boot(t, bios)
			ensure(false, "c")
			ensure(true)
			b.boot(t, bios)
			ensure(false)
			for _, name := range []string{AddonFile, grubenv.ArgumentsFile} {
				if _, err := os.Stat(filepath.Join(b.dir, "esp", name)); err == nil {
					t.Errorf("%s is still there", name)
				}
			}
			for _, name := range []string{firstboot.AddonFile, grubenv.PlatformFile} { // which are the image's, not the config's
				if text, err := os.ReadFile(filepath.Join(b.dir, "esp", name)); err != nil || string(text) != "the platform" {
					t.Errorf("%s: got %q, %v", name, text, err)
				}
			}
		})
	}
}

// A loader that does not hand over what it was given ends in an error, never in one boot after the other.
func TestDeafLoader(t *testing.T) {
	b := newBox(t, false)
	if reboot, err := b.Ensure(t.Context(), []string{"a"}, nil); err != nil || !reboot {
		t.Fatal(reboot, err)
	}
	if err := os.Remove(b.Pending); err != nil {
		t.Fatal(err)
	}
	if reboot, err := b.Ensure(t.Context(), []string{"a"}, nil); err == nil || reboot || !strings.Contains(err.Error(), "did not hand over") {
		t.Errorf("got %v, %v", reboot, err)
	}
}

func TestRefused(t *testing.T) {
	b := newBox(t, false)
	b.secureBoot(t, 1)
	if _, err := b.Ensure(t.Context(), []string{"a"}, nil); err == nil || !strings.Contains(err.Error(), "Secure Boot on") {
		t.Errorf("Secure Boot: got %v", err)
	}
	if _, err := b.Ensure(t.Context(), []string{"quiet"}, nil); err != nil {
		t.Errorf("nothing to add: got %v", err)
	}
	b = newBox(t, true)
	b.put(t, "esp/grub/grub.cfg", "an older one\n")
	if _, err := b.Ensure(t.Context(), []string{"a"}, nil); err == nil || !strings.Contains(err.Error(), "grub.cfg") {
		t.Errorf("old GRUB: got %v", err)
	}
	if files, _ := filepath.Glob(b.dir + "/esp/loader/addons/*"); len(files) != 0 {
		t.Errorf("refused, and wrote %v", files)
	}
}

// Whatever a power cut has left of the files, boots lead to the arguments.
func TestPowerCut(t *testing.T) {
	whole, err := uki.Addon(0x8664, "ignition.kargs=1 a")
	if err != nil {
		t.Fatal(err)
	}
	for _, left := range []map[string]string{
		{AddonFile + ".new": ""}, {AddonFile + ".new": string(whole[:100])}, {AddonFile: ""}, {AddonFile: "", AddonFile + ".new": string(whole)}, {AddonFile: string(whole)},
		{grubenv.ArgumentsFile: "torn"},
	} {
		b := newBox(t, false)
		for name, text := range left {
			b.put(t, "esp/"+name, text)
		}
		boots := 0
		for ; boots < 5; boots++ {
			b.put(t, "proc/cmdline", signed)
			if raw, err := os.ReadFile(b.dir + "/esp/" + AddonFile); err == nil && len(raw) > 0 {
				b.boot(t, false)
			}
			if err := os.RemoveAll(b.Pending); err != nil {
				t.Fatal(err)
			}
			reboot, err := b.Ensure(t.Context(), []string{"a"}, nil)
			if err != nil {
				t.Fatalf("%v: %v", left, err)
			}
			if !reboot {
				break
			}
		}
		if boots > 1 {
			t.Errorf("%q: %d boots", slices.Sorted(maps.Keys(left)), boots)
		}
	}
}
