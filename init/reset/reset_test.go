package reset

import (
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
		err = find(root, offset, w.Scanner(), func(d disk.Disk) error {
			paths = append(paths, d.Path)
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
