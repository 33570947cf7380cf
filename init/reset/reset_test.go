package reset

import (
	"fmt"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/disk/disktest"
)

func TestFind(t *testing.T) {
	image, root, offset := disktest.RootImage(t, 200, 1)
	other, otherRoot, _ := disktest.RootImage(t, 200, 2)
	w := disktest.New(t)
	w.Attach("sda", disktest.Image(t, 0, other, nil)) // another machine's disk, attached to this one
	w.Attach("sdb", disktest.Image(t, 0, image, nil))
	call := func(line string) (paths []string, err error) {
		err = find(line, w.Scanner(), func(d disk.Disk) error {
			paths = append(paths, d.Path)
			return nil
		})
		return paths, err
	}
	line := fmt.Sprintf("quiet proa.roothash=%s proa.hashoffset=%d", root, offset)
	if got, err := call(line); err != nil || len(got) != 1 || got[0] != "/dev/sdb" {
		t.Errorf("resets %v, %v; want its own disk", got, err)
	}
	w.Set("devices/sdb/sdb4/start", 1) // the kernel has not heard of a change
	if got, err := call(line); err != nil || len(got) != 1 || got[0] != "/dev/sdb" {
		t.Errorf("a stale table: resets %v, %v", got, err)
	}
	for line, want := range map[string]string{
		"quiet": "not booted from a Proa boot program",
		fmt.Sprintf("proa.roothash=%s proa.hashoffset=%d", strings.Repeat("0", 64), offset): "find the slot",
	} {
		if got, err := call(line); err == nil || len(got) != 0 || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: resets %v, %v; want an error with %q", line, got, err, want)
		}
	}
	if otherRoot == root {
		t.Fatal("the test's disks are the same")
	}
}
