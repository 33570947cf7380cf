package reset

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/disk/disktest"
)

func TestFind(t *testing.T) {
	image, root, offset := disktest.RootImage(t, 200, 1)
	other, otherRoot, _ := disktest.RootImage(t, 200, 2)
	w := disktest.New(t)
	w.Attach("sda", disktest.Image(t, 0, other, nil)) // another machine's disk, attached to this one
	w.Attach("sdb", disktest.Image(t, 0, image, nil))
	call := func(root digest.SHA256) (paths []string, err error) {
		err = find(root, offset, w.Scanner(), func(l *disk.Layout) error {
			paths = append(paths, l.Disk.Path)
			return nil
		})
		return paths, err
	}
	if got, err := call(root); err != nil || len(got) != 1 || got[0] != "/dev/sdb" {
		t.Errorf("resets %v, %v; want its own disk", got, err)
	}
	w.Set("devices/sdb/sdb4/start", 1) // the kernel has not heard of a change
	if got, err := call(root); err != nil || len(got) != 1 || got[0] != "/dev/sdb" {
		t.Errorf("a stale table: resets %v, %v", got, err)
	}
	if got, err := call(digest.SHA256{}); err == nil || len(got) != 0 || !strings.Contains(err.Error(), "find the slot") {
		t.Errorf("unknown root hash: resets %v, %v; want an error", got, err)
	}
	if otherRoot == root {
		t.Fatal("the test's disks are the same")
	}
}

// State is the machine's own only on the right partition of the right disk.
func TestOwn(t *testing.T) {
	sys := t.TempDir()
	for name, text := range map[string]string{
		"devices/vda/dev": "254:0\n", "devices/vda/vda5/dev": "254:5\n", "devices/vda/vda5/partition": "5\n", "devices/vda/vda6/dev": "254:6\n", "devices/vda/vda6/partition": "6\n",
		"devices/vdb/dev": "254:16\n", "devices/vdb/vdb5/dev": "254:21\n", "devices/vdb/vdb5/partition": "5\n",
	} {
		name = filepath.Join(sys, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"class/block/vda": "../../devices/vda", "dev/block/254:5": "../../devices/vda/vda5", "dev/block/254:6": "../../devices/vda/vda6",
		"dev/block/254:16": "../../devices/vdb", "dev/block/254:21": "../../devices/vdb/vdb5",
	} {
		name = filepath.Join(sys, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.Symlink(to, name)); err != nil {
			t.Fatal(err)
		}
	}
	layout := &disk.Layout{Disk: disk.Disk{Name: "vda"}, State: &disk.Partition{Number: 5}}
	for minor, want := range map[uint32]bool{5: true, 6: false, 16: false, 21: false, 99: false} {
		if got := own(sys, layout, 254, minor); got != want {
			t.Errorf("254:%d: got %v", minor, got)
		}
	}
	layout.State = nil
	if !own(sys, layout, 254, 6) {
		t.Error("without a state partition there is nothing more to forget")
	}
}
