package boot

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/proa-os/proa/init/state"
)

// State is found on disks and partitions, by its UUID, and never on what only systemd makes.
func TestHolders(t *testing.T) {
	sys, dev := t.TempDir(), t.TempDir()
	id := state.ID{1, 2, 3}
	image := make([]byte, 4096)
	image[1024+0x38], image[1024+0x39] = 0x53, 0xef
	copy(image[1024+0x68:], id[:])
	for name, content := range map[string][]byte{"sda": make([]byte, 4096), "sda1": image, "md127": image, "dm-3": image, "loop0": image, "sdb": {1}, "cciss!c0d0": image} {
		path := filepath.Join(dev, filepath.FromSlash(slashed(name)))
		for file, text := range map[string][]byte{filepath.Join(sys, name): nil, path: content} {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := holders(id, sys, dev)
	want := []string{filepath.Join(dev, "cciss/c0d0"), filepath.Join(dev, "sda1")}
	if slices.Sort(got); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if got, err := holders(state.ID{9}, sys, dev); err != nil || len(got) > 0 {
		t.Errorf("another UUID: got %q, %v", got, err)
	}
}

// slashed is the name below /dev of a device whose name in sysfs is name.
func slashed(name string) string {
	if name == "cciss!c0d0" {
		return "cciss/c0d0"
	}
	return name
}
